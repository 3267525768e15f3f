"""What people see: plain lines on standard output, warnings and progress on standard error."""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Protocol

from iq_offline.credentials import masked

LINE_SECONDS = 30.0
"""Without a terminal, progress is told so often."""
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
    sys.stdout.flush()  # so that the two streams stay in order where both are a log
    print(f"{kind}: {printable(masked(text))}", file=sys.stderr)


warn: Callable[[str], None] = partial(_aside, "warning")
fail: Callable[[str], None] = partial(_aside, "error")
"""The error that ends a command."""
note: Callable[[str], None] = partial(_aside, "note")
"""Something that the user should know."""
hint: Callable[[str], None] = partial(_aside, "next")
"""A command that comes next."""


def size(count: int) -> str:
    """A number of bytes in a unit that fits."""
    units = {"GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1}
    unit = next((name for name, least in units.items() if count >= least), "B")
    return f"{count / units[unit]:.4g} {unit}"


def duration(seconds: float) -> str:
    """A time in units that fit: 4.2 s, 31 s, 5 min 02 s, 3 h 20 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


def readable(value: Any) -> str:
    """A value as people read it: numbers with at most four significant digits, counts whole, no braces or quotes."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {readable(inner)}" for key, inner in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(readable, value)) or "-"
    return str(value)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.4g}")
    if rounded and not 1e-4 <= abs(rounded) < 1e7:
        return f"{rounded:.3e}"
    decimals = max(0, 3 - math.floor(math.log10(abs(rounded)))) if rounded else 0
    shown = f"{rounded:,.{decimals}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def show_details(content: dict[str, Any]) -> None:
    """Names and values, lists and tables below their name; what is empty is left out."""
    for name, value in content.items():
        if isinstance(value, list) and value:
            show(f"{name}:")
            for item in value:
                show(f"  - {': '.join(map(str, item.values())) if isinstance(item, dict) else readable(item)}")
        elif value not in (None, "", [], {}):
            show(f"{name}: {readable(value)}")


def show_fields(fields: dict[str, Any]) -> None:
    """Names and values in two columns."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        show(f"{name:<{width}}  {readable(value)}")


def show_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows of the same fields in aligned columns under their names, numbers to the right; nothing for no rows."""
    if not rows:
        return
    cells = [list(rows[0]), *([readable(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    sides = ["<" if any(isinstance(row[name], str) for row in rows) else ">" for name in rows[0]]
    for row in cells:
        line = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        show("  ".join(line).rstrip())


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


class Advance(Protocol):
    """Tells how far one of the tasks is. `total`: as it was told last where it is None."""

    def __call__(
        self, completed: int, note: str = "", *, phase: str = "", total: int | None = None, task: int = 0
    ) -> None: ...


class _Task:
    """How far a task is, how fast it goes, and when it will end at that speed."""

    def __init__(self, title: str, unit: str, total: int | None) -> None:
        self.title, self.unit, self.total = masked(title), unit, total
        self.completed, self.note, self.phase = 0, "", ""
        self._since = self._last = time.monotonic()
        self._before: int | None = None

    def advance(self, completed: int, note: str, phase: str, total: int | None) -> None:
        self._last = time.monotonic()
        if self._before is None or phase != self.phase:  # the speed is that of one phase
            self._since, self._before = self._last, completed
        self.completed, self.note, self.phase = completed, note, phase
        self.total = self.total if total is None else total

    @property
    def speed(self) -> float | None:
        """Units a second in this phase; None where it is not known yet."""
        seconds, done = self._last - self._since, self.completed - (self._before or 0)
        return done / seconds if seconds > 0 and done > 0 else None

    def texts(self) -> list[str]:
        """Phase, amount, speed, time left and note; an empty text for what is not known."""
        in_bytes, speed = self.unit == "bytes", self.speed
        shown: Callable[[float], str] = (
            (lambda count: size(int(count))) if in_bytes else (lambda count: f"{count:,.0f}")
        )
        amount = shown(self.completed) + (f" of {shown(self.total)}" if self.total else "")
        rate = "" if speed is None else f"{shown(speed)}/s" if in_bytes or speed >= 10 else f"{speed:.2g}/s"
        remaining = (self.total or self.completed) - self.completed
        left = f"{duration(remaining / speed)} left" if speed and remaining > 0 else ""
        counted = amount if in_bytes else f"{amount} {self.unit}"
        return [self.phase or "starting", counted if self.completed or self.total else "", rate, left, self.note]


@contextmanager
def progress(*titles: str, unit: str, total: int | None = None, transient: bool = False) -> Iterator[Advance]:
    """A line per title on standard error: a bar on a terminal, elsewhere a note every LINE_SECONDS.

    A bar stands there from the start, a `transient` one from the first report on and to the end.
    """
    tasks = [_Task(title, unit, total) for title in titles]
    shown = (_Bars if sys.stderr.isatty() else _Lines)(tasks, wait=transient)

    def advance(completed: int, note: str = "", *, phase: str = "", total: int | None = None, task: int = 0) -> None:
        tasks[task].advance(completed, note, phase, total)
        shown.update(task)

    try:
        yield advance
    finally:
        shown.stop()


class _Bars:
    """Tasks as bars on a terminal."""

    def __init__(self, tasks: Sequence[_Task], *, wait: bool) -> None:
        from rich import progress as rich
        from rich.console import Console

        columns = [
            rich.TextColumn("{task.description}", markup=False),
            rich.TextColumn("{task.fields[phase]}", style="cyan", markup=False),
            rich.BarColumn(bar_width=20),
            *(rich.TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("amount", "rate", "left", "note")),
            rich.TimeElapsedColumn(),
        ]
        self._tasks = tasks
        self._bars = rich.Progress(*columns, console=Console(stderr=True), transient=wait)
        self._ids = [self._bars.add_task(task.title, total=task.total, **self._fields(task)) for task in tasks]
        if not wait:
            self._bars.start()

    def _fields(self, task: _Task) -> dict[str, Any]:
        return dict(zip(("phase", "amount", "rate", "left", "note"), task.texts(), strict=True))

    def update(self, number: int) -> None:
        """Show how far a task is."""
        self._bars.start()
        task = self._tasks[number]
        self._bars.update(self._ids[number], completed=task.completed, total=task.total, **self._fields(task))

    def stop(self) -> None:
        """Leave the bars as they are."""
        self._bars.stop()


class _Lines:
    """Tasks without a terminal: a note for each that has gone on and not ended, every LINE_SECONDS."""

    def __init__(self, tasks: Sequence[_Task], *, wait: bool) -> None:
        self._tasks, self._ended = tasks, threading.Event()
        self._told = [""] * len(tasks)
        self._begun = threading.Event()
        if not wait:
            self._begun.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def update(self, _: int) -> None:
        """From now on there is something to tell."""
        self._begun.set()

    def _run(self) -> None:
        while not self._ended.wait(LINE_SECONDS):
            for number, task in enumerate(self._tasks):
                text = ", ".join(filter(None, task.texts()))
                going_on = task.total is None or task.completed < task.total
                if self._begun.is_set() and going_on and text != self._told[number]:
                    self._told[number] = text
                    note(f"{task.title}: {text}")

    def stop(self) -> None:
        """Say no more."""
        self._ended.set()
        self._thread.join()


@contextmanager
def stages(title: str) -> Iterator[Callable[[Mapping[str, tuple[int, int]], str], None]]:
    """A bar for each stage on a terminal; elsewhere a line every LINE_SECONDS.

    Call it with the stages' finished and planned jobs, and with all of it in one line.
    """
    if not sys.stderr.isatty():
        yield _StageLines(title)
        return
    from rich import progress as rich
    from rich.console import Console

    texts = ("{task.description}", "{task.completed}/{task.total}", "{task.fields[note]}")
    first, *others = (rich.TextColumn(text, markup=False) for text in texts)
    with rich.Progress(first, rich.BarColumn(), *others, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def update(found: Mapping[str, tuple[int, int]], text: str) -> None:
            for name, (done, total) in found.items():
                if name not in tasks:
                    tasks[name] = bar.add_task(name, total=total, note="")
                bar.update(tasks[name], completed=done)
            if tasks:
                bar.update(next(reversed(tasks.values())), note=text)

        yield update


class _StageLines:
    """Stages without a terminal: a line every LINE_SECONDS, where something has changed."""

    def __init__(self, title: str) -> None:
        self._title, self._next, self._last = title, time.monotonic(), ""

    def __call__(self, found: Mapping[str, tuple[int, int]], text: str) -> None:
        if found and text != self._last and time.monotonic() >= self._next:
            self._next, self._last = time.monotonic() + LINE_SECONDS, text
            note(f"{self._title}: {text}")


@contextmanager
def transfer(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Bytes, speed and time left of a transfer, then how long it took; nothing where nothing is transferred.

    Call it with the bytes that are there, and all that will be.
    """
    first: list[tuple[float, int]] = []
    done = 0
    with progress(title, unit="bytes", transient=True) as advance:

        def report(completed: int, total: int | None) -> None:
            nonlocal done
            first.append((time.monotonic(), completed)) if not first else None
            done = completed
            advance(completed, phase="fetching", total=total)

        yield report
    if first and done > first[0][1]:
        seconds = time.monotonic() - first[0][0]
        speed = f" ({size(int((done - first[0][1]) / seconds))}/s)" if seconds >= 1 else ""
        note(f"{title}: fetched {size(done)} in {duration(seconds)}{speed}")
