"""sync: run folders to a whole mirror in MLflow: runs, stages, policies, and the comparison's rows on its parent."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from iq_offline.errors import RunError
from iq_offline.report.columns import report_rows
from iq_offline.report.groups import grouped
from iq_offline.report.loading import load_runs
from iq_offline.report.tables import as_markdown, concise, summary_table
from iq_offline.tracking.mirror import PAGE, Comparison, put_comparison, stored, sync
from iq_offline.tracking.mlflow_store import PARENT_TAG, MlflowStore
from iq_offline.training.run_folder import RunFolder


def sync_runs(
    runs: Sequence[RunFolder], register: str | None, report: Path | None, on_run: Callable[[], None]
) -> dict[str, Any]:
    """Mirror what is not in MLflow yet; what is, is left alone. Reports each run and each comparison.

    `register`: the registered model that each run's policy becomes a version of. `report`: a folder that
    `iq-offline report` has written, whose page and pictures go onto the comparison. The comparison's rows are
    made anew where all of its runs are among those given: a part of them would give other figures.
    Raises TrackingUnavailable, and RunError for a damaged run, a folder without a report, or a report on several
    comparisons.
    """
    files = [] if report is None else _report_files(report)
    store = MlflowStore.open()
    rows, folders = [], dict[str, list[Path]]()
    for run in runs:
        written = sync(run.path, store)
        mirrored = stored(run.path, store)
        folders.setdefault(mirrored.tags[PARENT_TAG], []).append(run.path)
        version = None if register is None else store.register(mirrored, register)
        rows.append({"run": str(run.path), "run_id": mirrored.run_id, "written": written, "version": version})
        on_run()
    if files and len(folders) != 1:
        raise RunError(f"{report} would go onto {len(folders)} comparisons", "sync one comparison's runs at a time")
    return {
        "store": store.name,
        "runs": rows,
        "comparisons": [_comparison(store, *item, files) for item in folders.items()],
    }


def _comparison(store: MlflowStore, parent_id: str, folders: Sequence[Path], files: Sequence[Path]) -> dict[str, Any]:
    parent = store.run(parent_id)
    assert parent is not None
    given = {folder: stored(folder, store).run_id for folder in folders}
    missing = len(set(store.children(parent_id, finished=True)) - set(given.values()))
    if missing and files:
        raise RunError(
            f"{missing} more runs belong to that comparison than are given", "name the folder of all its runs"
        )
    written = None
    if not missing:
        groups = grouped(load_runs(folders)[0])
        summary = summary_table(groups)
        comparison = Comparison(report_rows(groups, summary), as_markdown(concise(summary)), files)
        with store.mirroring():
            written = put_comparison(store, parent, given, comparison)
    return {"parent": parent_id, "runs": len(folders), "runs_not_given": missing, "rows_written": written}


def _report_files(folder: Path) -> list[Path]:
    if not (folder / PAGE).is_file():
        raise RunError(f"{folder} holds no {PAGE}", "name a folder that `iq-offline report` has written")
    return [folder / PAGE, *sorted(folder.glob("*.csv")), *sorted(folder.glob("plots/*.png"))]
