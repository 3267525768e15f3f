"""report: run folders to tables, pictures and one HTML page, mirrored onto the comparison in MLflow."""

import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from iq_offline.data.files import check_folder, whole_file
from iq_offline.report.columns import ReportRow, report_rows
from iq_offline.report.groups import grouped
from iq_offline.report.loading import Failure, load_runs
from iq_offline.report.page import Content, render_page
from iq_offline.report.plots import pictures
from iq_offline.report.tables import aggregate_table, as_csv, as_markdown, as_text, concise, runs_table, summary_table
from iq_offline.report.verdict import Verdict, verdict
from iq_offline.tracking.mirror import Comparison, mirror_report

FAILURES_SHOWN = 10
"""In the text; the page lists all."""
TEXT_WIDTH = 100
P_MEANS = "P: a run of the sentence's first method returns more than one of the other; P(> bc): than one of bc."


@dataclass(frozen=True)
class ReportFiles:
    """Where the page and the plots lie, what the page shows, and the row of each run folder that it is about."""

    html: Path
    verdict: Verdict
    aggregate: pl.DataFrame
    summary: pl.DataFrame
    plots: tuple[Path, ...]
    rows: Mapping[Path, ReportRow]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class Report:
    """The files, and what to show of them."""

    files: ReportFiles
    summary: str


def make_report(runs: Sequence[Path], out: Path, warn: Callable[[str], None]) -> Report:
    """Write the report of run folders into `out`; with `summary.txt`, the text that the command prints.

    Raises ConfigError where `out` cannot be a folder, and RunError where a path is none, or no run is left to report
    on; the rest of what is wrong is listed.
    """
    check_folder(out)
    files = write_report(runs, out)
    summary = _summary(files)
    _write(out / "summary.txt", summary.encode())
    shown = [files.html, *sorted(out.glob("*.csv")), *files.plots]
    mirror_report(Comparison(files.rows, as_markdown(concise(files.summary)), shown), warn)
    return Report(files, summary)


def write_report(folders: Sequence[Path], out: Path) -> ReportFiles:
    """Write report.html, the tables as CSV and Markdown, and plots/*.png into `out`, over those of an earlier call.

    `folders`: run folders, or folders of them. Those that are incomplete or damaged are listed in the report.
    Raises RunError where a path is no folder, or no run is left to report on; nothing is written then.
    """
    results, failures = load_runs(folders)
    groups = grouped(results)
    drawn = pictures(groups)
    aggregate, summary, runs = aggregate_table(groups), summary_table(groups), runs_table(groups)
    page = render_page(Content(groups, failures, aggregate, summary, runs, drawn), out)
    plots = {out / "plots" / picture.file_name: picture.png for picture in drawn}
    for path, png in plots.items():
        _write(path, png)
    for name, table in (("aggregate", aggregate), ("summary", summary), ("runs", runs)):
        _write(out / f"{name}.csv", as_csv(table).encode())
    for name, table in (("aggregate", aggregate), ("summary", summary)):
        _write(out / f"{name}.md", f"{as_markdown(table)}\n".encode())
    _write(out / "report.html", page.encode())
    every = (*failures, *(failure for result in results for failure in result.failures))
    rows = report_rows(groups, summary)
    return ReportFiles(out / "report.html", verdict(groups), aggregate, summary, tuple(plots), rows, every)


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def _summary(files: ReportFiles) -> str:
    said = [files.verdict.headline, *(f"- {sentence}" for sentence in files.verdict.details)]
    words = [
        textwrap.fill(sentence, TEXT_WIDTH, subsequent_indent="  " * (place > 0)) for place, sentence in enumerate(said)
    ]
    failed = [f"failed   {failure.folder.name}: {failure.problem}" for failure in files.failures[:FAILURES_SHOWN]]
    if len(files.failures) > FAILURES_SHOWN:
        failed.append(f"failed   {len(files.failures) - FAILURES_SHOWN} more, see the report")
    runs = os.path.commonpath([run.parent for run in files.rows])
    places = [f"report   {files.html.as_uri()}", f"runs     {Path(runs).as_uri()}", f"compare  {_ui_command()}"]
    table = as_text(concise(files.summary))
    meant = [P_MEANS] if "P(> bc)" in table and " (P = " in " ".join(said) else []
    return "\n\n".join(["\n".join(words), table, *meant, "\n".join([*failed, *places])]) + "\n"


def _ui_command() -> str:
    """How to open MLflow's comparison from any shell: this environment's own command, on this store."""
    home, script = os.environ.get("IQ_OFFLINE_HOME"), Path(sys.executable).with_name("iq-offline")
    command = shlex.quote(str(script)) if script.is_file() else "iq-offline"
    return (f"IQ_OFFLINE_HOME={shlex.quote(home)} " if home else "") + f"{command} ui"
