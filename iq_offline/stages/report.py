"""report: run folders to tables, plots and one HTML page, mirrored onto the comparison in MLflow."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iq_offline.data.files import whole_file
from iq_offline.report.tables import as_text
from iq_offline.report.write import ReportFiles, write_report
from iq_offline.tracking.mirror import mirror_report
from iq_offline.training.run_folder import RunFolder


@dataclass(frozen=True)
class Report:
    """The files, and what to show of them."""

    files: ReportFiles
    summary: str


def make_report(runs: Sequence[RunFolder], out: Path, warn: Callable[[str], None]) -> Report:
    """Write the report of `runs` into `out`; with `summary.txt`, the text that the command prints."""
    folders = [run.path for run in runs]
    files = write_report(folders, out)
    summary = f"{as_text(files.summary)}\n\nreport   {files.html}\ncompare  {_ui_command()}\n"
    with whole_file(out / "summary.txt") as temporary:
        temporary.write_text(summary)
    figures = {
        f"summary/{_row_name(row)}/{column}": float(row[column])
        for row in files.summary.iter_rows(named=True)
        for column in ("return_iqm", "score_iqm")
        if row[column] is not None
    }
    mirror_report(folders, figures, [files.html, *files.plots], warn)
    return Report(files, summary)


def _row_name(row: dict[str, Any]) -> str:
    """A row of the summary as a metric's name, in the characters that MLflow admits."""
    demos = "all" if row["demos"] is None else row["demos"]
    name = f"{row['dataset']} {row['method']} {demos}x{row['subsample']} {row['settings'] or ''}"
    return re.sub(r"[^\w.:/ -]", "_", name).strip()


def _ui_command() -> str:
    """How to open MLflow's comparison from any shell: this environment's own command, on this store."""
    home, script = os.environ.get("IQ_OFFLINE_HOME"), Path(sys.executable).with_name("iq-offline")
    command = shlex.quote(str(script)) if script.is_file() else "iq-offline"
    return (f"IQ_OFFLINE_HOME={shlex.quote(home)} " if home else "") + f"{command} ui"
