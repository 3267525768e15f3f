"""The report's page: one HTML file that needs nothing but itself, every number a link to where it comes from."""

import base64
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from iq_offline.methods import METHODS
from iq_offline.report.columns import Column, columns_of
from iq_offline.report.comparison import comparison_cautions
from iq_offline.report.groups import Group, cautions, flat_settings, missing_stages, setting_text
from iq_offline.report.loading import Failure, RunResult, environment, shell_path
from iq_offline.report.plots import Picture
from iq_offline.report.tables import cells, with_intervals, without_empty

TEMPLATE = "page.html.j2"
NAMED_IN_TITLE = 3
"""Datasets that the title names one by one."""
FIRST = ("return_iqm", "return_interval", "return_mean", "improvement", "improvement_interval")
"""What a phone should show without scrolling, behind what names the row."""
IN_ROW_NAMES = {"dataset", "method", "seed"}
"""Settings that a row's name, or the run's, already tells."""
ABSENT = "·"


@dataclass(frozen=True)
class Content:
    """What a page shows."""

    groups: Sequence[Group]
    failures: Sequence[Failure]
    """Of folders that are no results; the results bring their own."""
    aggregate: pl.DataFrame
    summary: pl.DataFrame
    runs: pl.DataFrame
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Row:
    """A row of a table, its name first. A cell is a text, or several texts, each with where it leads."""

    cells: Sequence[str | Sequence[tuple[str, str]]]
    name_href: str
    href: str
    """Where its numbers lead."""
    anchor: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table: its columns, the first being the rows' names, and its rows by dataset; "" where all are in one part."""

    columns: Sequence[Column]
    sections: Mapping[str, Sequence[Row]]


def render_page(content: Content, out: Path) -> str:
    """The page as HTML: pictures embedded, no script, nothing loaded; links to run folders relative to `out`."""
    groups = content.groups
    runs = [run for group in groups for run in group.runs]
    templates = Environment(
        loader=PackageLoader("iq_offline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(TEMPLATE).render(
        title=_title(runs),
        compared=_compared(runs),
        aggregate=_aggregate(content.aggregate),
        summary=_summary(content.summary, groups, out),
        runs=_runs(content.runs, groups, out),
        methods={name: METHODS[name].summary for name in _distinct(run.method for run in runs) if name in METHODS},
        datasets=_datasets(runs),
        origins=_origins(runs),
        pictures=[_embedded(picture) for picture in content.pictures],
        configurations=_configurations(groups),
        absent=ABSENT,
        comparison_cautions=list(comparison_cautions(groups)),
        cautions=cautions(groups),
        failures=[
            (shell_path(failure.folder), _link(failure.folder, out), failure.problem, failure.remedy)
            for failure in [*content.failures, *(failure for run in runs for failure in run.failures)]
        ],
        missing_stages=[(item, _link(item.folder, out)) for item in missing_stages(runs)],
    )


def _link(folder: Path, out: Path) -> str:
    """A run folder's address on a page in `out`."""
    return quote(Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix()) + "/"


def _aggregate(table: pl.DataFrame) -> PageTable:
    """The table over all tasks; what it says leads to the rows by task."""
    shown = cells(with_intervals(without_empty(table)))
    return PageTable(shown.columns, {"": [Row(row, "#by-task", "#by-task") for row in shown.rows]})


def _summary(table: pl.DataFrame, groups: Sequence[Group], out: Path) -> PageTable:
    """The rows over seeds; each seed leads to its run, a number to its run or, of several, to their rows."""
    table = with_intervals(without_empty(table)).drop("dataset")
    keys = [column.name for column in columns_of(table) if column.key]
    first = [*keys, *(name for name in FIRST if name in table.columns)]
    shown = cells(table.select(*first, *(name for name in table.columns if name not in first)))
    seeds = shown.headers.index("seeds")
    sections: dict[str, list[Row]] = {}
    for number, (group, row) in enumerate(zip(groups, shown.rows, strict=True), start=1):
        links = [(str(run.seed), _link(run.folder, out)) for run in group.runs]
        to_runs = f"#runs-{number}"
        href = links[0][1] if len(links) == 1 else to_runs
        content: list[str | list[tuple[str, str]]] = [*row[:seeds], links, *row[seeds + 1 :]]
        sections.setdefault(group.dataset, []).append(Row(content, to_runs, href, f"row-{number}"))
    return PageTable(shown.columns, sections)


def _runs(table: pl.DataFrame, groups: Sequence[Group], out: Path) -> PageTable:
    """One row a run; all of it leads to the run's folder."""
    shown = cells(without_empty(table).drop("dataset"))
    rows = iter(shown.rows)
    sections: dict[str, list[Row]] = {}
    for number, group in enumerate(groups, start=1):
        for place, run in enumerate(group.runs):
            href, anchor = _link(run.folder, out), "" if place else f"runs-{number}"
            sections.setdefault(group.dataset, []).append(Row(next(rows), href, href, anchor))
    return PageTable(shown.columns, sections)


def _embedded(picture: Picture) -> dict[str, Any]:
    # A PNG's first chunk is its header; width and height are the two numbers behind the 16th byte.
    width, height = struct.unpack(">II", picture.png[16:24])
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    return {"title": picture.title, "caption": picture.caption, "source": source, "width": width, "height": height}


def _title(runs: Sequence[RunResult]) -> str:
    names = _distinct(run.dataset for run in runs)
    return " and ".join(names) if len(names) <= NAMED_IN_TITLE else f"{len(names)} datasets"


def _compared(runs: Sequence[RunResult]) -> str:
    def listed(thing: str, names: Sequence[str]) -> str:
        return f"{thing}{'s' if len(names) > 1 else ''}: {', '.join(names)}."

    def count(number: int, thing: str) -> str:
        return f"{number} {thing}{'' if number == 1 else 's'}"

    seeds = [str(seed) for seed in sorted({run.seed for run in runs})]
    datasets, methods = _distinct(run.dataset for run in runs), _distinct(run.method for run in runs)
    what = f"{count(len(runs), 'run')} on {count(len(datasets), 'dataset')}."
    return f"{what} {listed('Method', methods)} {listed('Seed', seeds)}"


def _datasets(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        data = run.manifest["dataset"]
        known = {key: data.get(key) for key in ("sha256", "format", "episodes", "steps", "return_mean")}
        found.setdefault(run.dataset, {"name": run.dataset, "environment": environment(data), **known})
    return list(found.values())


def _origins(runs: Sequence[RunResult]) -> list[tuple[str, str]]:
    """What the runs were made with: each fact with its distinct values, in the order of the runs."""
    facts: dict[str, list[str]] = {}
    for manifest in (run.manifest for run in runs):
        made_with = {
            "commit": manifest.get("git_commit") or "unknown",
            "device": manifest.get("device", "unknown"),
            "threads": manifest.get("threads", "unknown"),
            "started": str(manifest.get("started", "unknown"))[:10],
            **manifest.get("packages", {}),
        }
        for name, value in made_with.items():
            facts.setdefault(name, []).append(str(value))
    seconds = sum(run.manifest.get("seconds") or 0 for run in runs)
    listed = [(name, ", ".join(_distinct(values))) for name, values in facts.items()]
    return [*listed, ("training, all runs", f"{seconds:.0f} s")]


def _configurations(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """By dataset, the settings of its rows side by side: whether they differ, name, values; those that differ first.

    A setting that a method does not have is no difference.
    """
    found = []
    for dataset in _distinct(group.dataset for group in groups):
        own = [group for group in groups if group.dataset == dataset]
        settings = [dict(flat_settings(group.runs[0].config)) for group in own]
        rows = []
        for name in {key for one in settings for key in one} - IN_ROW_NAMES:
            values = [setting_text(one[name]) if name in one else ABSENT for one in settings]
            rows.append((len(set(values) - {ABSENT}) > 1, name, values))
        rows.sort(key=lambda row: (not row[0], row[1]))
        found.append({"dataset": dataset, "labels": [group.label for group in own], "rows": rows})
    return found


def _distinct(values: Iterable[str]) -> list[str]:
    """Each once, in their order."""
    return list(dict.fromkeys(values))
