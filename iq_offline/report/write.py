"""Writes a report: tables, pictures and the page, each file whole or absent."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from iq_offline.data.files import whole_file
from iq_offline.report.comparison import aggregate_table
from iq_offline.report.groups import grouped
from iq_offline.report.loading import load_runs
from iq_offline.report.page import Content, render_page
from iq_offline.report.pictures import pictures
from iq_offline.report.results import Failure
from iq_offline.report.tables import as_csv, as_markdown, runs_table, summary_table


@dataclass(frozen=True)
class ReportFiles:
    """Where the page and the plots lie, what the page shows, and the run folders that it is about."""

    html: Path
    aggregate: pl.DataFrame
    summary: pl.DataFrame
    plots: tuple[Path, ...]
    runs: tuple[Path, ...]
    failures: tuple[Failure, ...]


def write_report(folders: Sequence[Path], out: Path) -> ReportFiles:
    """Write report.html, the tables as CSV and Markdown, and plots/*.png into `out`, over those of an earlier call.

    `folders`: run folders, or folders of them. Those that are incomplete or damaged are listed in the report.
    Raises RunError where a path is no folder, or no run is left to report on; nothing is written then.
    """
    results, failures = load_runs(folders)
    groups = grouped(results)
    shown = pictures(groups)
    aggregate, summary, runs = aggregate_table(groups), summary_table(results), runs_table(results)
    page = render_page(Content(results, failures, aggregate, summary, runs, shown), out)
    plots = tuple(out / "plots" / picture.file_name for picture in shown)
    for path, picture in zip(plots, shown, strict=True):
        _write(path, picture.png)
    for name, table in (("aggregate", aggregate), ("summary", summary), ("runs", runs)):
        _write(out / f"{name}.csv", as_csv(table).encode())
    for name, table in (("aggregate", aggregate), ("summary", summary)):
        _write(out / f"{name}.md", f"{as_markdown(table)}\n".encode())
    _write(out / "report.html", page.encode())
    every = (*failures, *(failure for result in results for failure in result.failures))
    return ReportFiles(
        out / "report.html", aggregate, summary, plots, tuple(result.folder for result in results), every
    )


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
