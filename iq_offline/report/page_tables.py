"""The report's tables as its page shows them: a section a dataset, and every number a link to where it comes from."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import polars as pl

from iq_offline.report.cells import Cells, cells, with_intervals
from iq_offline.report.groups import Group
from iq_offline.report.results import RunResult
from iq_offline.report.tables import KEY_SCHEMA, without_empty

FIRST = ("return_iqm", "return_interval", "return_mean", "improvement", "improvement_interval")
"""What a phone should show without scrolling, behind what names the row."""


@dataclass(frozen=True)
class Link:
    """A word and where it leads."""

    text: str
    href: str


@dataclass(frozen=True)
class Row:
    """A row: its name, what it is linked to, its cells (links where there are several in one), and its place."""

    anchor: str
    name: Link
    cells: tuple[str | tuple[Link, ...], ...]
    href: str
    """Where its numbers lead."""


@dataclass(frozen=True)
class Section:
    """Rows of one dataset; no title where the table has but one section."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class PageTable:
    """A table: the look of its columns, the first being the rows' names, and its sections."""

    shown: Cells
    sections: tuple[Section, ...]


def folder_link(folder: Path, out: Path) -> str:
    """A run folder's address on a page in `out`."""
    return quote(Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix()) + "/"


def aggregate_page(table: pl.DataFrame) -> PageTable:
    """The table over all tasks; what it says leads to the rows by task."""
    shown = cells(with_intervals(without_empty(table)))
    rows = tuple(Row("", Link(row[0], "#by-task"), tuple(row[1:]), "#by-task") for row in shown.rows)
    return PageTable(shown, (Section("", rows),))


def summary_page(table: pl.DataFrame, groups: Sequence[Group], out: Path) -> PageTable:
    """The rows over seeds; each seed leads to its run, a number to its run or, of several, to their rows."""
    ordered = with_intervals(without_empty(table)).drop("dataset")
    first = [name for name in (*KEY_SCHEMA, *FIRST) if name in ordered.columns]
    shown = cells(ordered.select(*first, *(name for name in ordered.columns if name not in first)))
    seeds = shown.headers.index("seeds")

    def row(place: int) -> Row:
        runs, content = groups[place].runs, shown.rows[place]
        links = tuple(Link(str(run.seed), folder_link(run.folder, out)) for run in runs)
        own: list[str | tuple[Link, ...]] = [*content[1:seeds], links, *content[seeds + 1 :]]
        anchor = f"#{_run_anchor(place)}"
        return Row(
            _group_anchor(place),
            Link(content[0], anchor),
            tuple(own),
            folder_link(runs[0].folder, out) if len(runs) == 1 else anchor,
        )

    return PageTable(shown, _sections([group.dataset for group in groups], row))


def runs_page(table: pl.DataFrame, groups: Sequence[Group], out: Path) -> PageTable:
    """One row a run; all of it leads to the run's folder."""
    shown = cells(without_empty(table).drop("dataset"))
    runs: list[tuple[str, RunResult]] = [
        (_run_anchor(number) if place == 0 else "", run)
        for number, group in enumerate(groups)
        for place, run in enumerate(group.runs)
    ]

    def row(place: int) -> Row:
        anchor, run = runs[place]
        href = folder_link(run.folder, out)
        return Row(anchor, Link(run.run, href), tuple(shown.rows[place][1:]), href)

    return PageTable(shown, _sections([run.dataset for _, run in runs], row))


def _sections(datasets: Sequence[str], row: Callable[[int], Row]) -> tuple[Section, ...]:
    found: dict[str, list[Row]] = {}
    for place, dataset in enumerate(datasets):
        found.setdefault(dataset, []).append(row(place))
    return tuple(Section(dataset, tuple(rows)) for dataset, rows in found.items())


def _group_anchor(place: int) -> str:
    return f"row-{place + 1}"


def _run_anchor(place: int) -> str:
    return f"runs-{place + 1}"
