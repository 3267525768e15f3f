"""Mirroring run folders into MLflow: live while training, later for a stage's results, or whole by `sync`."""

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from iq_offline.data.files import sha256_of_file, whole_file
from iq_offline.data.strict_json import read_json
from iq_offline.errors import RunError, TrackingUnavailable
from iq_offline.report.columns import ReportRow, run_metrics
from iq_offline.tracking.metrics import (
    Point,
    flat_params,
    recorded_points,
    training_points,
)
from iq_offline.tracking.mlflow_store import (
    GROUP_TAG,
    POINTS_PER_BATCH,
    MlflowStore,
    RunDescription,
    StoredRun,
    TrackedData,
    digest_of,
)
from iq_offline.tracking.views import COMPARISON_TAG, ROW_TAG
from iq_offline.training.run_folder import MANIFEST, RunFolder

Warn = Callable[[str], None]
RUN_FILES = ("config.toml", "manifest.json", "split.json", "metrics.parquet", "policy.safetensors")
STAGE_FILES = ("evaluation.json", "returns.parquet", "reward.json", "rewards.parquet")
REWARD_FILE, WHOLE = "reward.json", ("reward/", "summary/")
"""WHOLE: prefixes of figures that come together; those of an earlier call that are not among them become NaN."""
RESULT_TAG, FORM_TAG, FOLDER_TAG = "policy_sha256", "reward_form", "run_folder"
FILES_TAG = "iq_offline.files"
"""Which content of each file the store has: a JSON object of hashes."""
SHOWN = ("transitions", "device", "threads")
TRACKING_FILE = "tracking.json"
NOTE_KEYS = ("uri", "experiment_id", "run_id", "parent_run_id")
NOTE_TAG, NAME_TAG = "mlflow.note.content", "mlflow.runName"
PAGE = "report.html"
MAX_NOTE = 5000
"""Characters that every MLflow store admits in a tag."""
FLUSH_SECONDS = 10.0
"""Buffered metrics are written at least so often, so that a long run can be watched."""


class Tracker:
    """Mirrors one training run while it goes on. This one tracks nothing."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics at a step; written now and then, not at once."""

    def finish(self, folder: Path) -> None:
        """The run is whole in `folder`: write what is left, and its files."""

    def fail(self) -> None:
        """The run came to nothing."""


def start_tracking(description: RunDescription, folder: Path, warn: Warn) -> Tracker:
    """A tracker that mirrors a training run into MLflow; one that tracks nothing, after a warning, if that fails.

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
        return Tracker()


class MlflowTracker(Tracker):
    """Buffers metrics and writes them in batches. When the store fails it warns once and goes quiet."""

    def __init__(self, store: MlflowStore, run_id: str, parent: str, folder: Path, warn: Warn) -> None:
        self._store: MlflowStore | None = store
        self._run_id, self._parent, self._folder, self._warn = run_id, parent, folder, warn
        self._points: list[Point] = []
        self._steps: set[int] = set()
        self._flushed = time.monotonic()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Buffer metrics; written once POINTS_PER_BATCH have come together or FLUSH_SECONDS have passed."""
        points = training_points(step, metrics)
        self._points += points
        self._steps |= {point[2] for point in points}
        if len(self._points) >= POINTS_PER_BATCH or time.monotonic() - self._flushed >= FLUSH_SECONDS:
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
            _settle(store, self._parent, folder, self._run_id)

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
        if note is None:
            warn(f"{folder.name} is not in MLflow yet; to mirror it: iq-offline sync {folder}")
            return
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
    """The results of a comparison, for its runs and for the parent run that they share."""

    rows: Mapping[Path, ReportRow]
    """By run folder."""
    markdown: str
    """The table, which MLflow shows as the parent's description."""
    files: Sequence[Path] = ()
    """Page, tables and pictures; those go into a folder of their own."""


def mirror_report(comparison: Comparison, warn: Warn) -> None:
    """A comparison, on its runs and on the parent run that they share; nothing if they share none."""
    try:
        notes = {folder: note for folder in comparison.rows if (note := _read_note(folder)) is not None}
        parents = {note["parent_run_id"] for note in notes.values()}
        if len(parents) != 1:
            return
        store = MlflowStore.open()
        if (parent := store.run(*parents)) is not None:
            put_comparison(store, parent, {folder: note["run_id"] for folder, note in notes.items()}, comparison)
    except TrackingUnavailable as error:
        warn(f"{error.problem}; the report's files are whole")


def put_comparison(store: MlflowStore, parent: StoredRun, run_ids: Mapping[Path, str], comparison: Comparison) -> bool:
    """Log a comparison on its runs and their parent; returns whether anything but its files was new."""
    pictures = [file for file in comparison.files if file.suffix == ".png"]
    store.log_files(parent.run_id, [file for file in comparison.files if file not in pictures])
    store.log_files(parent.run_id, pictures, "plots")
    page = PAGE in store.files(parent.run_id)
    note = comparison.markdown if len(comparison.markdown) <= MAX_NOTE else "The table: summary.csv."
    if page:
        place = f"#/experiments/{store.experiment_id}/runs/{parent.run_id}/artifacts/{PAGE}"
        note = f"[The report with its pictures]({place})\n\n{note}"
    comparison_name = parent.tags[GROUP_TAG]
    tags = {NOTE_TAG: note, NAME_TAG: f"report: {comparison_name}", COMPARISON_TAG: comparison_name}
    written = [_put_tags(store, parent, tags)]
    for folder, row in comparison.rows.items():
        run = store.run(run_ids[folder]) if folder in run_ids else None
        if run is not None:
            written.append(put_metrics(store, run, row.figures))
            written.append(_put_tags(store, run, {ROW_TAG: row.name}))
    return any(written)


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
    known = [run for run in store.found(parent, description.config_hash) if run.finished and _is_result(run, manifest)]
    if known:
        run_id = known[0].run_id
        written = fill(store, run_id, folder, skip_steps=None)
    else:
        started = datetime.fromisoformat(manifest["started"])
        run_id = store.create(description, parent, started)
        written = fill(store, run_id, folder)
        store.end(run_id, at=started + timedelta(seconds=manifest["seconds"]))
    return _settle(store, parent, folder, run_id) or written


def stored(folder: Path, store: MlflowStore) -> StoredRun:
    """The mirror of a run after `sync`. Raises RunError where another process has removed it since."""
    note = _read_note(folder)
    run = store.run(note["run_id"]) if note else None
    if run is None:
        raise RunError(f"{folder} is not in MLflow's store {store.name} any more", f"run: iq-offline sync {folder}")
    return run


def describe(
    manifest: Mapping[str, Any], folder: Path, supplementary: Sequence[TrackedData] | None = None
) -> RunDescription:
    """What the store shows of a run, from its manifest, and of supplementary data, from its split if not given."""
    dataset, commit, method, seed = (
        manifest["dataset"],
        manifest.get("git_commit"),
        manifest["method"],
        manifest["seed"],
    )
    expert = TrackedData(dataset["name"], dataset["sha256"], "expert", dataset["path"])
    others = _supplementary(folder) if supplementary is None else tuple(supplementary)
    demonstrations = "all" if manifest["demos"] is None else str(manifest["demos"])
    compared = {
        "method": method,
        "dataset": dataset["name"],
        "demonstrations": demonstrations,
        "subsample": str(manifest["subsample"]),
        "supplementary": ", ".join(data.name for data in others) or "none",
        "seed": str(seed),
    }
    params = {key: manifest[key] for key in SHOWN if key in manifest} | {"algorithm": manifest["algorithm"]}
    row = f"{method}, {_short(dataset['name'])}, {demonstrations} demonstrations"
    tags = {**compared, ROW_TAG: row, FOLDER_TAG: str(folder)}
    return RunDescription(
        name=f"{method} seed {seed}, {_short(dataset['name'])}",
        group=manifest["group"],
        config_hash=manifest["config_hash"],
        params=flat_params(params) | compared,
        datasets=(expert, *others),
        tags=tags | ({"mlflow.source.git.commit": commit} if commit else {}),
    )


def _short(dataset: str) -> str:
    """A dataset's name without the first of three parts, which Minari's ids have."""
    rest = dataset.partition("/")[2]
    return rest if "/" in rest else dataset


def fill(store: MlflowStore, run_id: str, folder: Path, skip_steps: Collection[int] | None = ()) -> bool:
    """Bring the stored run up to its folder, and nothing twice; returns whether anything was written.

    `skip_steps`: steps whose training metrics the store has; None means all of them.
    Raises TrackingUnavailable, and RunError where the policy cannot be read.
    """
    from iq_offline.tracking.mlflow_models import write_model

    run = store.run(run_id)
    assert run is not None
    manifest = RunFolder.open(folder).manifest
    model = run.model or store.log_model(run_id, lambda place: write_model(folder, place))
    restored = run.model is not None and store.restore_model(run.model, lambda place: write_model(folder, place))
    points = [] if skip_steps is None else _training_points(folder, manifest, skip_steps)
    store.log_points(run_id, points)
    missing = [data for data in _supplementary(folder) if digest_of(data.sha256) not in run.datasets]
    if missing:
        store.log_data(run_id, missing)
    written = [run.model is None, restored, bool(points), bool(missing)]
    opened = RunFolder(folder)
    figures = run_metrics(opened.read_optional("evaluation.json"), opened.read_optional("reward.json"))
    written.append(put_metrics(store, run, figures, model))
    written.append(put_files(store, run, folder, RUN_FILES + STAGE_FILES, store.files(run_id)))
    described = describe(manifest, folder.resolve()).all_tags
    tags = {RESULT_TAG: manifest["policy_sha256"]} | {k: tag for k, tag in described.items() if k not in run.tags}
    if not Path(run.tags.get(FOLDER_TAG, "")).is_dir():
        tags[FOLDER_TAG] = str(folder.resolve())
    written.append(_put_tags(store, run, tags))
    return any(written)


def _put_tags(store: MlflowStore, run: StoredRun, tags: Mapping[str, str]) -> bool:
    """Set the tags that the run does not have yet; returns whether there were any."""
    changed = {key: value for key, value in tags.items() if run.tags.get(key) != value}
    if changed:
        store.tag(run.run_id, changed)
    return bool(changed)


def put_metrics(
    store: MlflowStore, run: StoredRun, metrics: Mapping[str, float | None], model: str | None = None
) -> bool:
    """Log the figures that the run does not show yet, or shows otherwise; returns whether there were any.

    Figures of an earlier report that this one lacks become NaN: a reward may be of another form, a row of other runs.
    """
    new = [(name, value, 0) for name, value in metrics.items() if value is not None and run.metrics.get(name) != value]
    whole = tuple(prefix for prefix in WHOLE if any(name.startswith(prefix) for name in metrics))
    shown = [name for name, value in run.metrics.items() if name.startswith(whole) and not math.isnan(value)]
    gone = [(name, math.nan, 0) for name in shown if metrics.get(name) is None]
    store.log_points(run.run_id, new, model)
    store.log_points(run.run_id, gone)  # the run's alone: as a model's, MLflow stores NaN as 0
    return bool(new or gone)


def put_files(
    store: MlflowStore, run: StoredRun, folder: Path, names: Collection[str], there: Collection[str] | None = None
) -> bool:
    """Log the files that are there and that the store does not hold with this content; returns whether any were.

    `there`: the artifacts that the store can show; without them, its own record of files is trusted.
    A reward report also tags the run with its form.
    """
    held: dict[str, str] = json.loads(run.tags.get(FILES_TAG, "{}"))
    present = {name: sha256_of_file(folder / name)[:16] for name in names if (folder / name).is_file()}
    for name in present:
        RunFolder(folder).check_file(name)
    lost = set() if there is None else held.keys() - set(there)
    new = [name for name, digest in present.items() if held.get(name) != digest or name in lost]
    report = RunFolder(folder).read_optional(REWARD_FILE) if REWARD_FILE in present else None
    tags = {FORM_TAG: report["form"]} if report and report.get("form") is not None else {}
    if new:
        store.log_files(run.run_id, [folder / name for name in new])
        tags[FILES_TAG] = json.dumps(held | present)
    return _put_tags(store, run, tags) or bool(new)


def _training_points(folder: Path, manifest: Mapping[str, Any], skip_steps: Collection[int]) -> list[Point]:
    points = recorded_points(RunFolder(folder).table("metrics.parquet"))
    last = max((step for _, _, step in points), default=0)
    kept = [point for point in points if point[2] not in skip_steps]
    return [*kept, ("train/seconds", float(manifest["seconds"]), last)] if "seconds" in manifest else kept


def _supplementary(folder: Path) -> tuple[TrackedData, ...]:
    listed = RunFolder(folder).split["supplementary"] if (folder / "split.json").is_file() else []
    return tuple(TrackedData(item["dataset"], item["sha256"], "supplementary") for item in listed)


def _settle(store: MlflowStore, parent: str, folder: Path, run_id: str) -> bool:
    """Delete other stored runs of this configuration that are of this folder, or that have its result and were moved.

    Notes where the mirror is.
    Device, threads and compiling are no part of a configuration: another folder's run may have other tensors.
    Returns whether there were others.
    """
    manifest = RunFolder.open(folder).manifest
    others = [
        run
        for run in store.found(parent, manifest["config_hash"])
        if run.run_id != run_id
        and (_is_of(run, folder) or (run.finished and _is_result(run, manifest) and _is_gone(run)))
    ]
    store.discard(others)
    content = {"uri": store.name, "experiment_id": store.experiment_id, "run_id": run_id, "parent_run_id": parent}
    if content != _read_note(folder):
        with whole_file(folder / TRACKING_FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=1))
    return bool(others)


def _is_of(run: StoredRun, folder: Path) -> bool:
    """Whether the stored run was made from that folder."""
    return Path(run.tags.get(FOLDER_TAG, "/")).resolve() == folder.resolve()


def _is_gone(run: StoredRun) -> bool:
    """Whether the folder that the stored run was made from holds no run any more: it was moved or removed."""
    return not (Path(run.tags.get(FOLDER_TAG, "/")) / MANIFEST).is_file()


def _is_result(run: StoredRun, manifest: Mapping[str, Any]) -> bool:
    """Whether the stored run has that policy."""
    return bool(run.tags.get(RESULT_TAG) == manifest["policy_sha256"])


def _later(error: TrackingUnavailable | RunError, folder: Path) -> str:
    return f"{error.problem}; the run folder stays complete without it. To mirror it later: iq-offline sync {folder}"


def _read_note(folder: Path) -> dict[str, str] | None:
    """Where the run's mirror is; None where that is not written down, or cannot be read."""
    try:
        note = read_json(folder / TRACKING_FILE)
    except (OSError, ValueError):
        return None
    whole = all(isinstance(note.get(key), str) for key in NOTE_KEYS)
    return note if whole else None
