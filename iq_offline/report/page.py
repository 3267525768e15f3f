"""The report's page: one HTML file that needs nothing but itself."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from iq_offline.report.cells import cells
from iq_offline.report.groups import cautions, environment, grouped, not_done
from iq_offline.report.pictures import Picture
from iq_offline.report.results import RunResult

TEMPLATE = "page.html.j2"
NAMED_IN_TITLE = 3
"""Datasets that the title names one by one."""


def render_page(
    results: Sequence[RunResult], summary: pl.DataFrame, runs: pl.DataFrame, pictures: Sequence[Picture], out: Path
) -> str:
    """The page as HTML: pictures embedded, no script, nothing loaded; links to run folders relative to `out`."""
    groups = grouped(results)
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
        summary=cells(summary),
        runs=cells(runs),
        links=[_link(run.folder, out) for run in ordered],
        datasets=_datasets(ordered),
        origins=_origins(ordered),
        pictures=[(picture, _embedded(picture.png)) for picture in pictures],
        cautions=cautions(groups),
        not_done=not_done(ordered),
    )


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


def _link(folder: Path, out: Path) -> str:
    return quote(Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix()) + "/"


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
