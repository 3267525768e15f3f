"""Mirroring run folders into MLflow: live while training, later for a stage's results, or whole by `sync`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from iq_offline.data.files import whole_file
from iq_offline.errors import TrackingUnavailable
from iq_offline.tracking.mlflow_store import POINTS_A_BATCH, MlflowStore, flat_params
from iq_offline.tracking.tracker import NullTracker, RunDescription, Tracker

Warn = Callable[[str], None]
TRACKING_FILE = "tracking.json"
RUN_FILES = ("config.toml", "manifest.json", "split.json", "metrics.parquet", "policy.safetensors")
STAGE_FILES = ("evaluation.json", "returns.parquet", "reward.json", "rewards.parquet")


def start_tracking(description: RunDescription, folder: Path, warn: Warn) -> Tracker:
    """A tracker that mirrors a training run into MLflow; the null tracker, after a warning, if that cannot be done."""
    try:
        store = MlflowStore.open()
        parent = store.parent(description.group)
        return MlflowTracker(store, store.create(description, parent), parent, folder, warn)
    except TrackingUnavailable as error:
        warn(_later(error, folder))
        return NullTracker()


class MlflowTracker:
    """Buffers metrics and writes them by the batch. When the store fails it warns once and goes quiet."""

    def __init__(self, store: MlflowStore, run_id: str, parent: str, folder: Path, warn: Warn) -> None:
        self._store: MlflowStore | None = store
        self._run_id, self._parent, self._folder, self._warn = run_id, parent, folder, warn
        self._points: list[tuple[str, float, int]] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Buffer metrics; written once POINTS_A_BATCH have come together."""
        self._points += [(f"train/{name}", value, step) for name, value in metrics.items()]
        if len(self._points) >= POINTS_A_BATCH:
            self._try(self._flush)

    def finish(self, folder: Path) -> None:
        """Write what is left and the run's files, and note in the folder where the mirror is."""
        self._try(lambda store: self._finish(store, folder))

    def fail(self) -> None:
        """Mark the run as failed."""
        self._try(lambda store: store.end(self._run_id, "FAILED"))

    def _flush(self, store: MlflowStore) -> None:
        store.log_points(self._run_id, self._points)
        self._points = []

    def _finish(self, store: MlflowStore, folder: Path) -> None:
        self._flush(store)
        store.log_files(self._run_id, [folder / name for name in RUN_FILES])
        store.end(self._run_id)
        _note(folder, store, self._run_id, self._parent)

    def _try(self, write: Callable[[MlflowStore], None]) -> None:
        if self._store is None:
            return
        try:
            write(self._store)
        except TrackingUnavailable as error:
            self._store = None
            self._warn(_later(error, self._folder))


def mirror_stage(folder: Path, metrics: Mapping[str, float | None], files: tuple[str, ...], warn: Warn) -> None:
    """Add a later stage's metrics and files to the run's mirror; warns, and does no more, if there is none."""
    note = _read_note(folder)
    if note is None:
        warn(f"{folder.name} is not in MLflow yet; to mirror it: iq-offline sync {folder}")
        return
    try:
        store = MlflowStore.open()
        if not store.has(note["run_id"]):
            warn(f"MLflow's store {store.uri} does not hold {folder.name}; to mirror it: iq-offline sync {folder}")
            return
        store.log_points(note["run_id"], [(name, value, 0) for name, value in metrics.items() if value is not None])
        store.log_files(note["run_id"], [folder / name for name in files])
    except TrackingUnavailable as error:
        warn(_later(error, folder))


def mirror_report(folders: list[Path], metrics: Mapping[str, float], files: list[Path], warn: Warn) -> None:
    """A comparison's figures and files, on the parent run that its runs share."""
    notes = [note for folder in folders if (note := _read_note(folder)) is not None]
    parents = {note["parent_run_id"] for note in notes}
    if len(parents) != 1:
        return
    (parent,) = parents
    try:
        store = MlflowStore.open()
        store.log_points(parent, [(name, value, 0) for name, value in metrics.items()])
        store.log_files(parent, files)
    except TrackingUnavailable as error:
        warn(f"{error.problem}; the report's files are whole")


def sync(folder: Path) -> bool:
    """Make sure that a finished run is whole in MLflow; returns whether anything was written.

    Raises TrackingUnavailable.
    """
    store = MlflowStore.open()
    note = _read_note(folder)
    if note and store.has(note["run_id"]):
        return False
    store.discard_unfinished(str(folder))
    manifest = json.loads((folder / "manifest.json").read_text())
    description = describe(manifest, folder)
    parent = store.parent(description.group)
    run_id = store.create(description, parent)
    metrics = pl.read_parquet(folder / "metrics.parquet")
    points = [
        (f"train/{name}", value, step)
        for name in metrics.columns
        if name != "step"
        for step, value in metrics.select("step", name).drop_nulls().iter_rows()
    ]
    store.log_points(run_id, points + [(name, value, 0) for name, value in _stage_metrics(folder).items()])
    present = [folder / name for name in RUN_FILES + STAGE_FILES if (folder / name).is_file()]
    store.log_files(run_id, present)
    store.end(run_id)
    _note(folder, store, run_id, parent)
    return True


def describe(manifest: Mapping[str, Any], folder: Path) -> RunDescription:
    """What the store shows of a run, from its manifest."""
    dataset = manifest["dataset"]
    shown = {key: manifest[key] for key in ("method", "seed", "demos", "subsample", "transitions", "device", "threads")}
    return RunDescription(
        name=manifest["run"],
        group=manifest["group"],
        params=flat_params({**shown, "dataset": dataset["name"], "algorithm": manifest["algorithm"]}),
        dataset_name=dataset["name"],
        dataset_sha256=dataset["sha256"],
        dataset_path=dataset["path"],
        tags={"method": manifest["method"], "dataset": dataset["name"], "run_folder": str(folder)},
    )


def evaluation_metrics(evaluation: Mapping[str, Any]) -> dict[str, float | None]:
    """The few figures of an evaluation that are compared across runs."""
    return {f"eval/{key}": evaluation[key] for key in ("return_mean", "return_std", "length_mean", "score")}


def reward_metrics(reward: Mapping[str, Any]) -> dict[str, float | None]:
    """The few figures of a reward recovery that are compared across runs."""
    levels = ("transition", "episode", "within_source", "null_length", "null_bc")
    return {f"reward/{level}_{kind}": reward[level][kind] for level in levels for kind in ("pearson", "spearman")}


def _stage_metrics(folder: Path) -> dict[str, float]:
    collected: dict[str, float | None] = {}
    for name, extract in (("evaluation.json", evaluation_metrics), ("reward.json", reward_metrics)):
        if (folder / name).is_file():
            collected |= extract(json.loads((folder / name).read_text()))
    return {name: value for name, value in collected.items() if value is not None}


def _later(error: TrackingUnavailable, folder: Path) -> str:
    return f"{error.problem}; the run folder stays complete without it. To mirror it later: iq-offline sync {folder}"


def _note(folder: Path, store: MlflowStore, run_id: str, parent: str) -> None:
    content = {"uri": store.uri, "experiment_id": store.experiment_id, "run_id": run_id, "parent_run_id": parent}
    with whole_file(folder / TRACKING_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def _read_note(folder: Path) -> dict[str, str] | None:
    file = folder / TRACKING_FILE
    return json.loads(file.read_text()) if file.is_file() else None
