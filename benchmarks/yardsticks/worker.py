"""The worker's side of a measurement: build a candidate, warm it up, then make updates when told to.

Protocol, one line of JSON a reply: {"ready": true} once, then for each line `go SECONDS` on standard input
{"updates": n, "cpu_seconds": s, "loss": the last one}. Standard library only: it runs in every peer's environment.
"""

import json
import os
import sys
import time
from collections.abc import Callable

Updates = Callable[[int], float]
"""Makes so many gradient updates and returns the last one's loss."""
Reply = dict[str, object]
Measure = Callable[[float], Reply]
"""Works for so many CPU seconds and says what it did."""

WARM_UP_CALLS, WARM_UP_SECONDS = 3, 0.3


def serve(build: Callable[[], Measure]) -> None:
    """Answer until standard input ends. What libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    measure = build()
    for _ in range(WARM_UP_CALLS):
        measure(WARM_UP_SECONDS)
    replies.write('{"ready": true}\n')
    for line in sys.stdin:
        replies.write(json.dumps(measure(float(line.removeprefix("go ")))) + "\n")


def counted(updates: Updates, at_once: int) -> Measure:
    """Updates, `at_once` a call, until the process has used its CPU seconds (all its threads' together)."""

    def measure(seconds: float) -> Reply:
        started, made, spent, loss = time.process_time(), 0, 0.0, 0.0
        while made == 0 or spent < seconds:
            loss = updates(at_once)
            made += at_once
            spent = time.process_time() - started
        return {"updates": made, "cpu_seconds": spent, "loss": loss}

    return measure
