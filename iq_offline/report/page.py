"""The report's page: one HTML file that needs nothing but itself, every number a link to the run that it comes from."""

import base64
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from iq_offline.methods import METHODS
from iq_offline.report.columns import Column
from iq_offline.report.comparison import comparison_cautions, method_rows, task_name, task_of
from iq_offline.report.groups import Group, cautions, flat_settings, missing_stages, setting_text
from iq_offline.report.loading import Failure, RunResult, environment, shell_path
from iq_offline.report.plots import Picture, is_folded
from iq_offline.report.tables import MOST_COLUMNS, cells, first_columns
from iq_offline.report.verdict import scale_note, verdict
from iq_offline.training.run_folder import FILES

TEMPLATE = "page.html.j2"
NAMED_IN_TITLE = 3
"""Datasets that the title names one by one."""
PICTURE_BYTES, VIDEO_BYTES, STRIP_BYTES = 1_900_000, 600_000, 250_000
"""Of all embedded pictures, of the video and of its film strip, so that the page stays below 3 MB. A picture or video
that does not fit is a link."""
IN_ROW_NAMES = {"dataset", "method", "seed"}
"""Settings that a row's name, or the run's, already tells."""
ABSENT = "·"
FITS_A_PHONE = 3
"""Columns of a table that a phone shows without scrolling."""


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
    """A table: its columns, the first being the rows' names, and its rows by task; "" where all are in one part."""

    columns: Sequence[Column]
    sections: Mapping[str, Sequence[Row]]

    def parts(self, keys: int) -> "list[PageTable]":
        """Parts of at most MOST_COLUMNS columns, each with the first `keys`; anchors stand in the first part alone."""
        rest = range(keys, len(self.columns))
        step = max(1, MOST_COLUMNS - keys)
        chosen = [[*range(keys), *rest[start : start + step]] for start in range(0, len(rest), step)]
        return [self._part(places, anchored=number == 0) for number, places in enumerate(chosen)]

    def _part(self, places: Sequence[int], *, anchored: bool) -> "PageTable":
        def cut(row: Row) -> Row:
            return replace(row, cells=[row.cells[place] for place in places], anchor=row.anchor if anchored else "")

        sections = {title: [cut(row) for row in rows] for title, rows in self.sections.items()}
        return PageTable([self.columns[place] for place in places], sections)


@dataclass(frozen=True)
class Video:
    """The first filmed episode: whose it is, where its film is, in the page or beside it, and its film strip."""

    title: str
    source: str
    strip: str | None = None


def render_page(content: Content, out: Path) -> str:
    """The page as HTML: pictures embedded, no script, nothing loaded; links to files of runs relative to `out`."""
    groups = content.groups
    runs = [run for group in groups for run in group.runs]
    templates = Environment(
        loader=PackageLoader("iq_offline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = _embedded(content.pictures)
    aggregate, summary, table = (
        _aggregate(content.aggregate),
        _summary(content.summary, groups),
        _runs(content.runs, groups),
    )
    return templates.get_template(TEMPLATE).render(
        title=_title(runs),
        compared=_compared(runs),
        verdict=verdict(groups),
        scale_note=scale_note(method_rows(groups)),
        aggregate=aggregate,
        summary=summary,
        runs=table,
        columns=[column for parts in (aggregate, summary, table) for part in parts for column in part.columns],
        folders=[_folder(number, run, out) for number, run in enumerate(runs, start=1)],
        methods={name: METHODS[name].summary for name in _distinct(run.method for run in runs) if name in METHODS},
        datasets=_datasets(runs),
        origins=_origins(runs),
        pictures=[picture for picture in pictures if not picture["folded"]],
        folded_pictures=[picture for picture in pictures if picture["folded"]],
        video=_video(runs, out),
        configurations=_configurations(groups),
        absent=ABSENT,
        fits_a_phone=FITS_A_PHONE,
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


def _run_name(run: RunResult) -> str:
    return f"{run.method}, seed {run.seed}"


def _folder(number: int, run: RunResult, out: Path) -> dict[str, Any]:
    """A run's entry: its folder and its files, those that are there."""
    link = _link(run.folder, out)
    files = [(name, link + name) for name in sorted(FILES) if (run.folder / name).is_file()]
    return {
        "anchor": f"run-{number}",
        "name": _run_name(run),
        "dataset": run.dataset,
        "folder": run.run,
        "files": files,
    }


def _aggregate(table: pl.DataFrame) -> list[PageTable]:
    """The table over all tasks; what it says leads to the rows by task."""
    shown = cells(first_columns(table))
    return PageTable(shown.columns, {"": [Row(row, "#by-task", "#by-task") for row in shown.rows]}).parts(keys=1)


def _summary(table: pl.DataFrame, groups: Sequence[Group]) -> list[PageTable]:
    """The rows over seeds, by task; each seed leads to its run, a number to its run or, of several, to their rows."""
    shown = cells(first_columns(table).drop("dataset", "demos", "subsample", strict=False))
    seeds = shown.headers.index("seeds")
    sections: dict[str, list[Row]] = {}
    numbers = _numbers(groups)
    for number, (group, row) in enumerate(zip(groups, shown.rows, strict=True), start=1):
        links = [(str(run.seed), f"#run-{numbers[run.folder]}") for run in group.runs]
        to_runs = f"#runs-{number}"
        href = links[0][1] if len(links) == 1 else to_runs
        content: list[str | list[tuple[str, str]]] = [*row[:seeds], links, *row[seeds + 1 :]]
        sections.setdefault(task_name(task_of(group)), []).append(Row(content, to_runs, href, f"row-{number}"))
    return PageTable(shown.columns, sections).parts(keys=sum(column.key for column in shown.columns))


def _runs(table: pl.DataFrame, groups: Sequence[Group]) -> list[PageTable]:
    """One row a run, named by method and seed; all of it leads to the run's entry among the folders."""
    named = table.drop("dataset", "demos", "subsample", "seed")
    shown = cells(first_columns(named.drop("method")))
    rows, numbers = iter(shown.rows), _numbers(groups)
    sections: dict[str, list[Row]] = {}
    for number, group in enumerate(groups, start=1):
        for place, run in enumerate(group.runs):
            href, anchor = f"#run-{numbers[run.folder]}", "" if place else f"runs-{number}"
            row = Row([_run_name(run), *next(rows)[1:]], href, href, anchor)
            sections.setdefault(task_name(task_of(group)), []).append(row)
    return PageTable(shown.columns, sections).parts(keys=sum(column.key for column in shown.columns))


def _numbers(groups: Sequence[Group]) -> dict[Path, int]:
    """The number of each run on the page."""
    return {run.folder: number for number, run in enumerate((run for group in groups for run in group.runs), start=1)}


def _embedded(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """The pictures, those that are not folded first; what does not fit into PICTURE_BYTES is a link."""
    left, found = PICTURE_BYTES, []
    for picture in sorted(pictures, key=lambda one: is_folded(one.file_name)):
        shown: dict[str, Any] = {"title": picture.title, "caption": picture.caption}
        shown |= {"folded": is_folded(picture.file_name), "link": f"plots/{quote(picture.file_name)}"}
        for name, png in (("wide", picture.png), ("narrow", picture.phone_png)):
            source = None if png is None else _source(png)
            fits = source is not None and len(source["source"]) <= left
            left -= len(source["source"]) if source is not None and fits else 0
            shown[name] = source if fits else None
        found.append(shown)
    return found


def _source(png: bytes) -> dict[str, Any]:
    # A PNG's first chunk is its header; width and height are the two numbers behind the 16th byte.
    width, height = struct.unpack(">II", png[16:24])
    return {"source": f"data:image/png;base64,{base64.b64encode(png).decode()}", "width": width, "height": height}


def _video(runs: Sequence[RunResult], out: Path) -> Video | None:
    """The first run's film that is still there."""
    for run in runs:
        file = Path(str((run.evaluation or {}).get("video") or ""))
        if file.is_file() and file.suffix == ".mp4":
            title = f"{_run_name(run)}: first evaluated episode on {run.dataset}"
            film, link = _data("video/mp4", file), _link(file, out).removesuffix("/")
            beside = file.with_suffix(".jpg")
            strip = _data("image/jpeg", beside) if beside.is_file() else None
            return Video(
                title,
                film if len(film) <= VIDEO_BYTES else link,
                strip if strip and len(strip) <= STRIP_BYTES else None,
            )
    return None


def _data(kind: str, file: Path) -> str:
    """A file as an address that holds all of it."""
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


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
