"""Mirroring run folders into MLflow: live while training, later for a stage's results, or whole by `sync`."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from iq_offline.data.files import whole_file
from iq_offline.data.strict_json import read_json
from iq_offline.errors import RunError, TrackingUnavailable
from iq_offline.tracking.fill import FOLDER_TAG, RESULT_TAG, describe, fill, put_files, put_metrics
from iq_offline.tracking.metrics import Point, training_points
from iq_offline.tracking.mlflow_store import POINTS_A_BATCH, MlflowStore, StoredRun
from iq_offline.tracking.tracker import NullTracker, RunDescription, Tracker
from iq_offline.training.run_folder import RunFolder

__all__ = [
    "Comparison",
    "describe",
    "mirror_report",
    "mirror_stage",
    "start_tracking",
    "sync",
]

Warn = Callable[[str], None]
TRACKING_FILE = "tracking.json"
NOTE_KEYS = ("uri", "experiment_id", "run_id", "parent_run_id")
NOTE_TAG = "mlflow.note.content"
LONGEST_NOTE = 5000
"""Characters that every MLflow store admits in a tag."""
FLUSH_SECONDS = 10.0
"""Buffered metrics are written at least so often, so that a long run can be watched."""


def start_tracking(description: RunDescription, folder: Path, warn: Warn) -> Tracker:
    """A tracker that mirrors a training run into MLflow; the null tracker, after a warning, if that cannot be done.

    What an earlier, unfinished attempt at the same configuration in the same folder has left there is deleted.
    """
    try:
        store = MlflowStore.open()
        parent = store.parent(description.group)
        known = store.found(parent, description.config_hash)
        store.discard([run for run in known if not run.finished and _is_of(run, folder)])
        return MlflowTracker(store, store.create(description, parent), parent, folder, warn)
    except TrackingUnavailable as error:
        warn(_later(error, folder))
        return NullTracker()


class MlflowTracker:
    """Buffers metrics and writes them by the batch. When the store fails it warns once and goes quiet."""

    def __init__(self, store: MlflowStore, run_id: str, parent: str, folder: Path, warn: Warn) -> None:
        self._store: MlflowStore | None = store
        self._run_id, self._parent, self._folder, self._warn = run_id, parent, folder, warn
        self._points: list[Point] = []
        self._steps: set[int] = set()
        self._flushed = time.monotonic()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Buffer metrics; written once POINTS_A_BATCH have come together or FLUSH_SECONDS have passed."""
        self._points += training_points(step, metrics)
        self._steps.add(step)
        if len(self._points) >= POINTS_A_BATCH or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._try(self._flush)

    def finish(self, folder: Path) -> None:
        """Write what is left, the run's files and its policy, and note in the folder where the mirror is."""
        self._try(lambda store: self._finish(store, folder))

    def fail(self) -> None:
        """Mark the run as failed, with what it has logged."""
        self._try(self._fail)

    def _flush(self, store: MlflowStore) -> None:
        store.log_points(self._run_id, self._points)
        self._points = []
        self._flushed = time.monotonic()

    def _finish(self, store: MlflowStore, folder: Path) -> None:
        with store.mirroring():
            if store.run(self._run_id) is None:  # a `sync` that saw the folder first has replaced it
                _sync(folder, store)
                return
            self._flush(store)
            fill(store, self._run_id, folder, skip_steps=self._steps)
            store.end(self._run_id)
            manifest = RunFolder.open(folder).manifest
            _keep_only(store, self._parent, manifest, folder, self._run_id)
            _note(folder, store, self._run_id, self._parent)

    def _fail(self, store: MlflowStore) -> None:
        self._flush(store)
        store.end(self._run_id, "FAILED")

    def _try(self, write: Callable[[MlflowStore], None]) -> None:
        if self._store is None:
            return
        try:
            write(self._store)
        except (TrackingUnavailable, RunError) as error:
            self._store = None
            self._warn(_later(error, self._folder))


def mirror_stage(folder: Path, metrics: Mapping[str, float | None], files: tuple[str, ...], warn: Warn) -> None:
    """Add a later stage's metrics and files to the run's mirror; warns, and does no more, if there is none."""
    try:
        note = _read_note(folder)
    except RunError as error:
        warn(f"not mirrored into MLflow: {error.problem}; {error.remedy}")
        return
    if note is None:
        warn(f"{folder.name} is not in MLflow yet; to mirror it: iq-offline sync {folder}")
        return
    try:
        store = MlflowStore.open()
        run = store.run(note["run_id"])
        if run is None or not run.finished:
            warn(f"MLflow's store {store.name} does not hold {folder.name}; to mirror it: iq-offline sync {folder}")
            return
        put_metrics(store, run, metrics, run.model)
        put_files(store, run, folder, files)
    except TrackingUnavailable as error:
        warn(_later(error, folder))


@dataclass(frozen=True)
class Comparison:
    """What a comparison comes to, for the parent run of its runs."""

    figures: Mapping[str, float]
    markdown: str
    """The table, which MLflow shows as the parent's description."""
    files: Sequence[Path] = ()
    """Page, tables and pictures; those go into a folder of their own."""


def mirror_report(folders: Sequence[Path], comparison: Comparison, warn: Warn) -> None:
    """A comparison, on the parent run that its runs share; nothing if they share none."""
    try:
        notes = [note for folder in folders if (note := _read_note(folder)) is not None]
    except RunError as error:
        warn(f"not mirrored into MLflow: {error.problem}; {error.remedy}")
        return
    parents = {note["parent_run_id"] for note in notes}
    if len(parents) != 1:
        return
    try:
        store = MlflowStore.open()
        if (parent := store.run(*parents)) is not None:
            put_comparison(store, parent, comparison)
    except TrackingUnavailable as error:
        warn(f"{error.problem}; the report's files are whole")


def put_comparison(store: MlflowStore, parent: StoredRun, comparison: Comparison) -> bool:
    """The same on a parent that is known; returns whether anything but its files was new."""
    store.log_files(parent.run_id, [file for file in comparison.files if file.suffix != ".png"])
    store.log_files(parent.run_id, [file for file in comparison.files if file.suffix == ".png"], "plots")
    told = comparison.markdown if len(comparison.markdown) <= LONGEST_NOTE else "The table: summary.csv."
    new_text = parent.tags.get(NOTE_TAG) != told
    if new_text:
        store.tag(parent.run_id, {NOTE_TAG: told})
    return put_metrics(store, parent, comparison.figures) or new_text


def sync(folder: Path, store: MlflowStore | None = None) -> bool:
    """Make sure that a finished run is whole in MLflow, once; returns whether anything was written.

    Raises TrackingUnavailable, and RunError where the policy cannot be read.
    """
    store = store or MlflowStore.open()
    with store.mirroring():
        return _sync(folder, store)


def _sync(folder: Path, store: MlflowStore) -> bool:
    manifest = RunFolder.open(folder).manifest
    description = describe(manifest, folder.resolve())
    parent = store.parent(description.group)
    result = manifest["policy_sha256"]
    known = [
        run
        for run in store.found(parent, description.config_hash)
        if run.finished and run.tags.get(RESULT_TAG) == result
    ]
    if known:
        run_id = known[0].run_id
        written = fill(store, run_id, folder, skip_steps=None)
    else:
        run_id, written = _rebuild(store, description, parent, manifest, folder), True
    discarded = _keep_only(store, parent, manifest, folder, run_id)
    _note(folder, store, run_id, parent)
    return written or discarded


def stored(folder: Path, store: MlflowStore) -> StoredRun:
    """The mirror of a run that `sync` has seen to. Raises RunError where another process has removed it since."""
    note = _read_note(folder)
    run = store.run(note["run_id"]) if note else None
    if run is None:
        raise RunError(f"{folder} is not in MLflow's store {store.name} any more", f"run: iq-offline sync {folder}")
    return run


def _rebuild(
    store: MlflowStore, description: RunDescription, parent: str, manifest: Mapping[str, Any], folder: Path
) -> str:
    started = datetime.fromisoformat(manifest["started"])
    run_id = store.create(description, parent, started)
    fill(store, run_id, folder)
    store.end(run_id, at=started + timedelta(seconds=manifest["seconds"]))
    return run_id


def _keep_only(store: MlflowStore, parent: str, manifest: Mapping[str, Any], folder: Path, run_id: str) -> bool:
    """Of a configuration's runs of this folder or with this result only this one stays; whether there were others.

    Device, threads and compiling are no part of a configuration: another folder's run may have other tensors.
    """
    others = [
        run
        for run in store.found(parent, manifest["config_hash"])
        if run.run_id != run_id
        and (_is_of(run, folder) or (run.finished and run.tags.get(RESULT_TAG) == manifest["policy_sha256"]))
    ]
    store.discard(others)
    return bool(others)


def _is_of(run: StoredRun, folder: Path) -> bool:
    """Whether the stored run was made from that folder."""
    return Path(run.tags.get(FOLDER_TAG, "/")).resolve() == folder.resolve()


def _later(error: TrackingUnavailable | RunError, folder: Path) -> str:
    return f"{error.problem}; the run folder stays complete without it. To mirror it later: iq-offline sync {folder}"


def _note(folder: Path, store: MlflowStore, run_id: str, parent: str) -> None:
    content = {"uri": store.name, "experiment_id": store.experiment_id, "run_id": run_id, "parent_run_id": parent}
    if content != _read_note(folder):
        with whole_file(folder / TRACKING_FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=1))


def _read_note(folder: Path) -> dict[str, str] | None:
    """Where the run's mirror is; None where that is not written down, or cannot be read."""
    try:
        note = read_json(folder / TRACKING_FILE)
    except (OSError, ValueError):
        return None
    whole = all(isinstance(note.get(key), str) for key in NOTE_KEYS)
    return note if whole else None
