"""What people see: plain lines on standard output, warnings and progress on standard error."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iq_offline.credentials import masked

if TYPE_CHECKING:
    from rich.progress import Progress

FIRST_LINE_SECONDS = 15.0
"""Without a terminal, the first line of progress comes after so long."""
LINE_SECONDS = 30.0
"""Without a terminal, the lines of a pipeline's progress are so far apart."""
CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160)) if number not in (9, 10)}
"""Control characters by their escapes: a name in a file must not move the cursor or colour the terminal."""


def printable(text: str) -> str:
    """The text with control characters escaped; line breaks and tabs stay."""
    return text.translate(CONTROL)


def prepare_streams() -> None:
    """Let any text be printed: what an encoding lacks is escaped, and a closed stream swallows its text."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            try:
                stream.reconfigure(errors="backslashreplace")
            except OSError:  # a stream that was a file when it was opened, and is a pipe since
                place = Path(f"/dev/fd/{stream.fileno()}")
                again = place.open("w", encoding=stream.encoding, errors="backslashreplace")
                setattr(sys, name, again)


def show(text: str = "") -> None:
    """A line of the answer."""
    print(printable(masked(text)))


def show_json(content: Any) -> None:
    """The whole answer, as one JSON object and nothing else."""
    print(json.dumps(content, indent=2, allow_nan=False))


def _aside(kind: str, text: str) -> None:
    """A line off the answer's stream."""
    print(f"{kind}: {printable(masked(text))}", file=sys.stderr)


warn: Callable[[str], None] = partial(_aside, "warning")
fail: Callable[[str], None] = partial(_aside, "error")
"""The error that ends a command."""
note: Callable[[str], None] = partial(_aside, "note")
"""Something that the user should know."""


def size(count: int) -> str:
    """A number of bytes in a unit that fits."""
    units = {"GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1}
    unit = next((name for name, least in units.items() if count >= least), "B")
    return f"{count / units[unit]:.4g} {unit}"


def show_details(content: dict[str, Any]) -> None:
    """Names and values, lists and tables below their name; what is empty is left out."""
    for name, value in content.items():
        if isinstance(value, list) and value:
            show(f"{name}:")
            for item in value:
                show(f"  - {': '.join(map(str, item.values())) if isinstance(item, dict) else item}")
        elif isinstance(value, dict) and value:
            show(f"{name}: {', '.join(f'{key} {inner}' for key, inner in value.items() if inner)}")
        elif value not in (None, "", [], {}):
            show(f"{name}: {value}")


def show_fields(fields: dict[str, Any]) -> None:
    """Names and values in two columns."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        show(f"{name:<{width}}  {'-' if value is None else value}")


def show_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows of the same fields in aligned columns, under their names; nothing for no rows."""
    if not rows:
        return
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        show("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))


def show_grids(grids: dict[str, Sequence[Sequence[float]]]) -> None:
    """Grids of numbers side by side under their names, two to a line; on a terminal shaded by value."""
    names = list(grids)
    for first in range(0, len(names), 2):
        pair = {name.replace("_", " "): grids[name] for name in names[first : first + 2]}
        if sys.stdout.isatty():
            _shaded(pair)
        else:
            _plain(pair)


def _plain(grids: dict[str, Sequence[Sequence[float]]]) -> None:
    widths = {name: max(len(name), 6 * len(grid[0])) for name, grid in grids.items()}
    print("   ".join(name.ljust(widths[name]) for name in grids).rstrip())
    for rows in zip(*grids.values(), strict=True):
        lines = ("".join(_tenths(value) for value in row) for row in rows)
        print("   ".join(line.ljust(width) for line, width in zip(lines, widths.values(), strict=True)).rstrip())
    print()


def _tenths(value: float) -> str:
    """One decimal in six columns, and no minus before a zero."""
    return f"{round(value, 1) + 0.0:6.1f}"


def _shaded(grids: dict[str, Sequence[Sequence[float]]]) -> None:
    from rich.columns import Columns
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    tables = []
    for name, grid in grids.items():
        low, high = min(map(min, grid)), max(map(max, grid))
        table = Table(title=name, show_header=False, box=None, padding=0)
        for row in grid:
            shades = [round(255 * (value - low) / (high - low or 1)) for value in row]
            styles = [f"{'black' if shade > 127 else 'white'} on rgb({shade},{shade},{shade})" for shade in shades]
            table.add_row(*(Text(_tenths(value) + " ", style) for value, style in zip(row, styles, strict=True)))
        tables.append(table)
    Console().print(Columns(tables, padding=(0, 3)))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


Advance = Callable[[int, str], None]


@contextmanager
def _bars(columns: str, **options: Any) -> Iterator["Progress"]:
    """Progress on standard error. Columns: text with {task} in it, or the name of rich's column without `Column`."""
    from rich import progress as rich
    from rich.console import Console

    shown = [
        rich.TextColumn(column, markup=False) if "{" in column else getattr(rich, f"{column}Column")()
        for column in columns.split("|")
    ]
    with rich.Progress(*shown, console=Console(stderr=True), **options) as bars:
        yield bars


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """A bar on a terminal; elsewhere a line now and then, so that logs stay short. Call it with (completed, note)."""
    if not sys.stderr.isatty():
        yield _ProgressLines(title, total)
        return
    with _bars("{task.description}|Bar|{task.completed}/{task.total}|TimeRemaining|{task.fields[note]}") as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda completed, note: bar.update(task, completed=completed, note=note)


@contextmanager
def bars(title: str, numbers: Sequence[int]) -> Iterator[Callable[[int, int, str], None]]:
    """A bar for each number on a terminal; elsewhere nothing. Call it with (number, percentage, note)."""
    if not sys.stderr.isatty():
        yield lambda _number, _percent, _note: None
        return
    with _bars("{task.description}|Bar|TimeRemaining|{task.fields[note]}") as bar:
        tasks = {number: bar.add_task(f"{title} seed {number}", total=100, note="") for number in numbers}
        yield lambda number, percent, note: bar.update(tasks[number], completed=percent, note=note)


@contextmanager
def stages(title: str) -> Iterator[Callable[[Mapping[str, tuple[int, int]], str], None]]:
    """A bar for each stage on a terminal; elsewhere a line every LINE_SECONDS.

    Call it with the stages' finished and planned jobs, and with all of it in one line.
    """
    if not sys.stderr.isatty():
        yield _StageLines(title)
        return
    with _bars("{task.description}|Bar|{task.completed}/{task.total}|{task.fields[note]}") as bar:
        tasks: dict[str, Any] = {}

        def update(found: Mapping[str, tuple[int, int]], text: str) -> None:
            for name, (done, total) in found.items():
                if name not in tasks:
                    tasks[name] = bar.add_task(name, total=total, note="")
                bar.update(tasks[name], completed=done)
            if tasks:
                bar.update(next(reversed(tasks.values())), note=text)

        yield update


@contextmanager
def counter(title: str, unit: str) -> Iterator[Callable[[int], None]]:
    """A running count on a terminal, where the end is not known; elsewhere nothing. Call it with the count so far."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with _bars("Spinner|{task.description} {task.completed:,} " + unit + "|TimeElapsed") as bar:
        task = bar.add_task(title, total=None)
        yield lambda completed: bar.update(task, completed=completed)


@contextmanager
def transfer(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar of bytes on a terminal; elsewhere nothing. Call it with the bytes that are there, and all that will be."""
    if not sys.stderr.isatty():
        yield lambda _, __: None
        return
    with _bars("{task.description}|Bar|Download|TransferSpeed|TimeRemaining", transient=True) as bar:
        task = bar.add_task(masked(title), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _StageLines:
    """Stages without a terminal: a line every LINE_SECONDS, where something has changed."""

    def __init__(self, title: str) -> None:
        self._title, self._next, self._last = title, time.monotonic(), ""

    def __call__(self, found: Mapping[str, tuple[int, int]], text: str) -> None:
        if found and text != self._last and time.monotonic() >= self._next:
            self._next, self._last = time.monotonic() + LINE_SECONDS, text
            note(f"{self._title}: {text}")


class _ProgressLines:
    """Progress without a terminal: a line after FIRST_LINE_SECONDS, and each time twice as many have passed."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._started = title, total, time.monotonic()
        self._next = FIRST_LINE_SECONDS

    def __call__(self, completed: int, note_: str) -> None:
        passed = time.monotonic() - self._started
        if passed >= self._next:
            self._next = 2 * passed
            note(f"{self._title}: {completed} of {self._total} after {passed:.0f} s{', ' if note_ else ''}{note_}")
