"""Markdown tables, and the cells that many of them have."""

from collections.abc import Iterable, Sequence
from statistics import fmean, median


def print_header(*columns: str) -> None:
    """The head of a table whose rows come one by one."""
    print(f"{_row(columns)}\n{_rule(columns)}", flush=True)


def print_row(*cells: object) -> None:
    """One row of it."""
    print(_row(cells), flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A whole table; without rows, an empty text."""
    lines = [_row(row) for row in rows]
    return "\n".join([_row(columns), _rule(columns), *lines]) if lines else ""


def mean_and_worst(values: Iterable[float | None], digits: int = 2, *, low_is_bad: bool = True) -> str:
    """`mean (worst)`; a dash where nothing is defined."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    worst = min(numbers) if low_is_bad else max(numbers)
    return f"{fmean(numbers):.{digits}f} ({worst:.{digits}f})"


def median_and_range(values: Sequence[float], form: str = "{:.2f}", separator: str = " to ") -> str:
    """`median (least to most)`."""
    middle, least, most = (form.format(value) for value in (median(values), min(values), max(values)))
    return f"{middle} ({least}{separator}{most})"


def listed(values: Iterable[float], form: str = "{:.1f}") -> str:
    """`a, b, c`."""
    return ", ".join(form.format(value) for value in values)


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _rule(columns: Sequence[str]) -> str:
    return "|" + "---|" * len(columns)
