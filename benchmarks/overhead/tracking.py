"""What the MLflow mirror costs a training run, in CPU seconds of its process.

Each run is a fresh process that trains once, on the bundled swimmer demonstrations, with the mirror and without it in
turn, into stores of their own. Three things are told apart: what comes once a process (importing MLflow, opening the
store), what comes once a run (making it, its files, its policy as a model), and what grows with training (logging).

    python -m benchmarks overhead tracking [--updates 4000] [--repeats 3]
"""

import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arguments import Parser
from benchmarks.processes import ONE_THREAD, apart
from benchmarks.results import result_file
from benchmarks.yardsticks.rounds import interleaved


def train_once(updates: int, tracked: bool) -> dict[str, float]:
    """Train in this process; CPU seconds of everything, and of each call into the tracker."""
    from iq_offline.stages import train as stage
    from iq_offline.tracking.mirror import Tracker

    spent = dict.fromkeys(("open", "log", "finish"), 0.0)

    def timed(name: str, call: Any, *arguments: Any) -> Any:
        begun = time.process_time()
        try:
            return call(*arguments)
        finally:
            spent[name] += time.process_time() - begun

    class Timed:
        def __init__(self, tracker: Any) -> None:
            self.tracker = tracker

        def log(self, *arguments: Any) -> None:
            timed("log", self.tracker.log, *arguments)

        def finish(self, *arguments: Any) -> None:
            timed("finish", self.tracker.finish, *arguments)

        def fail(self) -> None:
            self.tracker.fail()

    start = stage.start_tracking if tracked else (lambda *_: Tracker())
    stage.start_tracking = lambda *arguments: Timed(timed("open", start, *arguments))
    out = Path(os.environ["IQ_OFFLINE_HOME"]) / f"run-{os.getpid()}"
    settings = (f"updates={updates}", "prior.updates=500")
    begun = time.process_time()
    config = stage.train_config("demo/swimmer/expert-v0", "iq", overrides=settings, demos=5, device="cpu")
    stage.train_run(config, stage.RunOptions(out), lambda _: None, lambda problem: sys.exit(f"not mirrored: {problem}"))
    return spent | {"all": time.process_time() - begun}


def main(arguments: list[str]) -> None:
    """Measure in turn, and print medians."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_json()
    options = parser.parse(arguments)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as home, result_file(options) as rows:
        once = partial(apart, train_once, environment=ONE_THREAD | {"IQ_OFFLINE_HOME": home})
        once(100, True)  # makes the store's tables and the training table
        works = {"untracked": partial(once, options.updates, False), "tracked": partial(once, options.updates, True)}
        pairs = list(interleaved(works, options.repeats))
        rows += [{"run": name, **found} for pair in pairs for name, found in pair.items()]
    plain = statistics.median(pair["untracked"]["all"] for pair in pairs)
    spent = [pair["tracked"] for pair in pairs]
    parts = {name: statistics.median(one[name] for one in spent) for name in ("open", "log", "finish", "all")}
    print(f"CPU seconds, median of {options.repeats}: without the mirror {plain:.2f}, with it {parts['all']:.2f}")
    print(f"once a process: importing MLflow and opening the store {parts['open']:.2f}")
    print(f"once a run: its files, its policy as a model, its end {parts['finish']:.2f}")
    print(f"as training goes on: {parts['log']:.3f}, {100 * parts['log'] / plain:.2f} % of training")
