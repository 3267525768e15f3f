"""The log of a benchmark, one JSON object a line: what it holds is not made again."""

import json
from pathlib import Path
from typing import Any


def runs_of(log: Path) -> list[dict[str, Any]]:
    """The runs of a log, none where there is none yet."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def is_logged(log: Path, key: dict[str, Any]) -> bool:
    """Whether a run of these very settings is in the log."""
    return any(key.items() <= run.items() for run in runs_of(log))
