"""What sets of supplementary data are called: short, told apart within a task, alike from task to task."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from iq_offline.report.results import RunResult

Sources = tuple[str, ...]
"""Paths and dataset ids as config.toml has them; empty without supplementary data."""
NONE = "none"
FILES = {".hdf5", ".h5", ".npz", ".npy", ".pkl", ".pickle"}
"""Suffixes of recorded data; any other is part of a folder's name."""


def sources_of(run: RunResult) -> Sources:
    """The run's supplementary data, as recorded."""
    return tuple(run.config.get("supplementary") or ())


def set_names(sets: Iterable[Sources], expert: str, *, across: bool) -> dict[Sources, str]:
    """A name for each set that one task's runs name, no two alike.

    The datasets' names or files' stems; `across` tasks without the words that they begin with as the expert's name
    does. Sets that would look alike have longer names: the stem, then the folder too, in the end all that is recorded.
    """
    waiting, found = list(dict.fromkeys(sets)), dict[Sources, str]()
    for level in range(0 if across else 1, 3):
        names = {one: "+".join(_of_source(source, expert, level) for source in one) or NONE for one in waiting}
        counts = Counter([*names.values(), *found.values()])
        found |= {one: name for one, name in names.items() if counts[name] == 1}
        waiting = [one for one in waiting if one not in found]
    return found | {one: json.dumps(one) for one in waiting}


def _of_source(source: str, expert: str, level: int) -> str:
    if level == 2:
        return "/".join(Path(source).parts[-2:])
    stem = _stem(source)
    return _without_task(stem, expert) if level == 0 else stem


def _stem(source: str) -> str:
    """A path's last part without its suffix; a dataset's id as it is."""
    path = Path(source)
    if not (path.is_absolute() or "://" in source or path.suffix in FILES):
        return source
    return path.stem if path.suffix in FILES else path.name


def _without_task(name: str, expert: str) -> str:
    """What is left of a name behind the words that it begins with as the expert's does; at least its last word."""
    words, of_expert = (re.findall(r"[^-_/]+[-_/]*", one) for one in (name, expert))
    alike = 0
    for word, other in zip(words[:-1], of_expert, strict=False):
        if word.rstrip("-_/") != other.rstrip("-_/"):
            break
        alike += 1
    return "".join(words[alike:]) if alike else name
