"""The report's page: one HTML file that needs nothing but itself."""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from iq_offline.report.comparison import comparison_cautions
from iq_offline.report.configurations import ABSENT, configurations
from iq_offline.report.groups import cautions, environment, grouped, not_done
from iq_offline.report.page_tables import aggregate_page, folder_link, runs_page, summary_page
from iq_offline.report.pictures import Picture
from iq_offline.report.results import Failure, RunResult, typed

TEMPLATE = "page.html.j2"
NAMED_IN_TITLE = 3
"""Datasets that the title names one by one."""


@dataclass(frozen=True)
class Content:
    """What a page shows."""

    results: Sequence[RunResult]
    failures: Sequence[Failure]
    """Of folders that are no results; the results bring their own."""
    aggregate: pl.DataFrame
    summary: pl.DataFrame
    runs: pl.DataFrame
    pictures: Sequence[Picture]


def render_page(content: Content, out: Path) -> str:
    """The page as HTML: pictures embedded, no script, nothing loaded; links to run folders relative to `out`."""
    groups = grouped(content.results)
    ordered = [run for group in groups for run in group.runs]
    templates = Environment(
        loader=PackageLoader("iq_offline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(TEMPLATE).render(
        title=_title(ordered),
        compared=_compared(ordered),
        aggregate=aggregate_page(content.aggregate),
        summary=summary_page(content.summary, groups, out),
        runs=runs_page(content.runs, groups, out),
        datasets=_datasets(ordered),
        origins=_origins(ordered),
        pictures=[_Shown.of(picture) for picture in content.pictures],
        configurations=configurations(groups),
        absent=ABSENT,
        comparison_cautions=comparison_cautions(groups),
        cautions=cautions(groups),
        failures=[
            (typed(failure.folder), folder_link(failure.folder, out), failure.problem, failure.remedy)
            for failure in [*content.failures, *(failure for run in ordered for failure in run.failures)]
        ],
        not_done=[(item, folder_link(item.folder, out)) for item in not_done(ordered)],
    )


@dataclass(frozen=True)
class _Shown:
    """A picture within the page."""

    title: str
    caption: str
    source: str
    width: int
    height: int

    @classmethod
    def of(cls, picture: Picture) -> "_Shown":
        # A PNG's first chunk is its header; width and height are the two numbers behind the 16th byte.
        width, height = struct.unpack(">II", picture.png[16:24])
        source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
        return cls(picture.title, picture.caption, source, width, height)


def _title(results: Sequence[RunResult]) -> str:
    names = list(dict.fromkeys(run.dataset for run in results))
    return " and ".join(names) if len(names) <= NAMED_IN_TITLE else f"{len(names)} datasets"


def _compared(results: Sequence[RunResult]) -> str:
    datasets = {run.dataset for run in results}
    methods = ", ".join(dict.fromkeys(run.method for run in results))
    seeds = ", ".join(str(seed) for seed in sorted({run.seed for run in results}))
    return (
        f"{_count(len(results), 'run')} on {_count(len(datasets), 'dataset')}. "
        f"{'Methods' if ',' in methods else 'Method'}: {methods}. {'Seeds' if ',' in seeds else 'Seed'}: {seeds}."
    )


def _datasets(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for run in results:
        data = run.manifest["dataset"]
        known = {key: data.get(key) for key in ("sha256", "format", "episodes", "steps", "return_mean")}
        found.setdefault(run.dataset, {"name": run.dataset, "environment": environment(data), **known})
    return list(found.values())


def _origins(results: Sequence[RunResult]) -> list[tuple[str, str]]:
    """What the runs were made with: each fact with its distinct values, in the order of the runs."""
    facts: dict[str, dict[str, None]] = {}
    for run in results:
        manifest = run.manifest
        told = {
            "commit": manifest.get("git_commit") or "unknown",
            "device": manifest.get("device", "unknown"),
            "threads": manifest.get("threads", "unknown"),
            "started": str(manifest.get("started", "unknown"))[:10],
            **manifest.get("packages", {}),
        }
        for name, value in told.items():
            facts.setdefault(name, {})[str(value)] = None
    seconds = sum(run.manifest.get("seconds") or 0 for run in results)
    return [(name, ", ".join(values)) for name, values in facts.items()] + [("training, all runs", f"{seconds:.0f} s")]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
