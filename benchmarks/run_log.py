"""The log of a benchmark, one JSON object a line: what it holds is not made again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = dict[str, Any]


def runs_of(log: Path) -> list[Run]:
    """The runs of a log, none where there is none yet."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def is_logged(log: Path, key: Run) -> bool:
    """Whether a run of these very settings is in the log."""
    return any(key.items() <= run.items() for run in runs_of(log))


def append(log: Path, run: Run) -> None:
    """Add a run."""
    with log.open("a") as file:
        file.write(json.dumps(run) + "\n")


def run_once(log: Path, key: Run, make: Callable[[], Run]) -> None:
    """Make and log a run of these settings, unless the log has it."""
    if not is_logged(log, key):
        append(log, key | make())
