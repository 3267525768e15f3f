"""Writes a report: tables, pictures and the page, each file whole or absent."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from iq_offline.data.files import whole_file
from iq_offline.report.groups import grouped
from iq_offline.report.page import render_page
from iq_offline.report.pictures import pictures
from iq_offline.report.results import load_results
from iq_offline.report.tables import as_markdown, runs_table, summary_table


@dataclass(frozen=True)
class ReportFiles:
    """Where the page and the plots lie, and the summary that the page shows."""

    html: Path
    summary: pl.DataFrame
    plots: tuple[Path, ...]


def write_report(folders: Sequence[Path], out: Path) -> ReportFiles:
    """Write report.html, summary.csv, summary.md, runs.csv and plots/*.png into `out`, over those of an earlier call.

    Raises RunError for a folder that is not a run or cannot be read; nothing is written then.
    """
    results = load_results(folders)
    shown = pictures(grouped(results))
    summary, runs = summary_table(results), runs_table(results)
    page = render_page(results, summary, runs, shown, out)
    plots = tuple(out / "plots" / picture.file_name for picture in shown)
    for path, picture in zip(plots, shown, strict=True):
        _write(path, picture.png)
    _write(out / "summary.csv", summary.write_csv().encode())
    _write(out / "summary.md", f"{as_markdown(summary)}\n".encode())
    _write(out / "runs.csv", runs.write_csv().encode())
    _write(out / "report.html", page.encode())
    return ReportFiles(out / "report.html", summary, plots)


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
