"""report: run folders to tables, plots and one HTML page, mirrored onto the comparison in MLflow."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iq_offline.data.files import check_folder, whole_file
from iq_offline.report.comparison import IMPROVEMENT
from iq_offline.report.tables import as_markdown, as_text
from iq_offline.report.write import ReportFiles, write_report
from iq_offline.tracking.metrics import summary_figures
from iq_offline.tracking.mirror import Comparison, mirror_report

FAILURES_SHOWN = 10
"""In the text; the page lists all."""


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
    with whole_file(out / "summary.txt") as temporary:
        temporary.write_text(summary)
    shown = [files.html, *sorted(out.glob("*.csv")), *files.plots]
    comparison = Comparison(summary_figures(files.summary), as_markdown(files.summary), shown)
    mirror_report(files.runs, comparison, warn)
    return Report(files, summary)


def _summary(files: ReportFiles) -> str:
    several = len(set(files.summary["dataset"])) > 1 and len(files.aggregate)
    tables = [
        as_text(files.summary.drop(IMPROVEMENT[1:])),
        *([f"all tasks\n{as_text(files.aggregate)}"] if several else []),
    ]
    failed = [f"failed   {failure.folder.name}: {failure.problem}" for failure in files.failures[:FAILURES_SHOWN]]
    if len(files.failures) > FAILURES_SHOWN:
        failed.append(f"failed   {len(files.failures) - FAILURES_SHOWN} more, see the report")
    places = [f"report   {files.html}", f"compare  {_ui_command()}"]
    return "\n\n".join([*tables, "\n".join([*failed, *places])]) + "\n"


def _ui_command() -> str:
    """How to open MLflow's comparison from any shell: this environment's own command, on this store."""
    home, script = os.environ.get("IQ_OFFLINE_HOME"), Path(sys.executable).with_name("iq-offline")
    command = shlex.quote(str(script)) if script.is_file() else "iq-offline"
    return (f"IQ_OFFLINE_HOME={shlex.quote(home)} " if home else "") + f"{command} ui"
