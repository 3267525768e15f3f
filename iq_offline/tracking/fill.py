"""Filling a stored run from its folder: whatever is missing or has changed, and nothing twice."""

import json
import math
import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from iq_offline.data.files import sha256_of_file
from iq_offline.report.columns import run_metrics
from iq_offline.tracking.metrics import Point, flat_params, recorded_points
from iq_offline.tracking.mlflow_store import MlflowStore, StoredRun, digest_of
from iq_offline.tracking.tracker import RunDescription, TrackedData
from iq_offline.training.run_folder import RunFolder

RUN_FILES = ("config.toml", "manifest.json", "split.json", "metrics.parquet", "policy.safetensors")
STAGE_FILES = ("evaluation.json", "returns.parquet", "reward.json", "rewards.parquet")
REWARD_FILE, REWARD = "reward.json", "reward/"
RESULT_TAG, FORM_TAG = "policy_sha256", "reward_form"
FOLDER_TAG = "run_folder"
FILES_TAG = "iq_offline.files"
"""Which content of each file the store has: a JSON object of hashes."""
SHOWN = ("method", "seed", "demos", "subsample", "select", "held_out", "transitions", "device", "threads")


def describe(manifest: Mapping[str, Any], folder: Path) -> RunDescription:
    """What the store shows of a run, from its manifest, and from its split once that is written."""
    dataset, commit = manifest["dataset"], manifest.get("git_commit")
    params = {key: manifest[key] for key in SHOWN if key in manifest}
    expert = TrackedData(dataset["name"], dataset["sha256"], "expert", dataset["path"])
    tags = {"method": manifest["method"], "dataset": dataset["name"], FOLDER_TAG: str(folder)}
    return RunDescription(
        name=_shown_name(manifest["run"], manifest["method"]),
        group=manifest["group"],
        config_hash=manifest["config_hash"],
        params=flat_params({**params, "dataset": dataset["name"], "algorithm": manifest["algorithm"]}),
        datasets=(expert, *_supplementary(folder)),
        tags=tags | ({"mlflow.source.git.commit": commit} if commit else {}),
    )


def _shown_name(folder: str, method: str) -> str:
    """The folder's name, with the method before it where that is not part of it: `seed-0` tells apart nothing."""
    return folder if re.search(rf"(?<![a-z]){re.escape(method)}(?![a-z])", folder) else f"{method}-{folder}"


def fill(store: MlflowStore, run_id: str, folder: Path, skip_steps: Collection[int] | None = ()) -> bool:
    """Bring the stored run up to its folder; returns whether anything was written.

    `skip_steps`: steps whose training metrics the store has; None means all of them.
    Raises TrackingUnavailable, and RunError where the policy cannot be read.
    """
    run = store.run(run_id)
    assert run is not None
    manifest = RunFolder.open(folder).manifest
    model = run.model or _log_model(store, run_id, folder)
    points = [] if skip_steps is None else _training_points(folder, manifest, skip_steps)
    store.log_points(run_id, points)
    restored = run.model is not None and store.restore_model(model, partial(_write_model, folder))
    written = [bool(points), run.model is None, restored, _fill_data(store, run, folder)]
    written.append(put_metrics(store, run, stage_metrics(folder), model))
    written.append(put_files(store, run, folder, RUN_FILES + STAGE_FILES, store.files(run_id)))
    if run.tags.get(FOLDER_TAG) != str(folder.resolve()) and not Path(run.tags.get(FOLDER_TAG, "")).is_dir():
        store.tag(run_id, {FOLDER_TAG: str(folder.resolve())})
        written.append(True)
    if run.tags.get(RESULT_TAG) != manifest["policy_sha256"]:
        store.tag(run_id, {RESULT_TAG: manifest["policy_sha256"]})
        written.append(True)
    return any(written)


def stage_metrics(folder: Path) -> dict[str, float | None]:
    """The figures of the stages that have run."""
    run = RunFolder(folder)
    return run_metrics(run.read_optional("evaluation.json"), run.read_optional("reward.json"))


def put_metrics(
    store: MlflowStore, run: StoredRun, metrics: Mapping[str, float | None], model: str | None = None
) -> bool:
    """Log the figures that the run does not show yet, or shows otherwise; returns whether there were any.

    Figures of an earlier reward report that this one lacks become NaN: they may be of another form.
    """
    new = [(name, value, 0) for name, value in metrics.items() if value is not None and run.metrics.get(name) != value]
    gone: list[Point] = []
    if any(name.startswith(REWARD) for name in metrics):
        shown = [name for name, value in run.metrics.items() if name.startswith(REWARD) and not math.isnan(value)]
        gone = [(name, math.nan, 0) for name in shown if metrics.get(name) is None]
    store.log_points(run.run_id, new, model)
    store.log_points(run.run_id, gone)  # the run's alone: as a model's, MLflow stores NaN as 0
    return bool(new or gone)


def put_files(
    store: MlflowStore, run: StoredRun, folder: Path, names: Collection[str], there: Collection[str] | None = None
) -> bool:
    """Log the files that are there and that the store does not hold with this content; returns whether any were.

    `there`: the artifacts that the store can show; without them, what it has noted is believed.
    A reward report also tags the run with its form.
    """
    held: dict[str, str] = json.loads(run.tags.get(FILES_TAG, "{}"))
    present = {name: sha256_of_file(folder / name)[:16] for name in names if (folder / name).is_file()}
    for name in present:
        RunFolder(folder).check_file(name)
    lost = set() if there is None else held.keys() - set(there)
    new = [name for name, digest in present.items() if held.get(name) != digest or name in lost]
    tags = _form(folder) if REWARD_FILE in present else {}
    if new:
        store.log_files(run.run_id, [folder / name for name in new])
        tags[FILES_TAG] = json.dumps(held | present)
    if changed := {key: value for key, value in tags.items() if run.tags.get(key) != value}:
        store.tag(run.run_id, changed)
    return bool(new or changed)


def _form(folder: Path) -> dict[str, str]:
    """What a reward report says that it is of."""
    form = (RunFolder(folder).read_optional(REWARD_FILE) or {}).get("form")
    return {} if form is None else {FORM_TAG: form}


def _training_points(folder: Path, manifest: Mapping[str, Any], skip_steps: Collection[int]) -> list[Point]:
    points = recorded_points(RunFolder(folder).table("metrics.parquet"))
    last = max((step for _, _, step in points), default=0)
    kept = [point for point in points if point[2] not in skip_steps]
    return [*kept, ("train/seconds", float(manifest["seconds"]), last)] if "seconds" in manifest else kept


def _fill_data(store: MlflowStore, run: StoredRun, folder: Path) -> bool:
    missing = [data for data in _supplementary(folder) if digest_of(data.sha256) not in run.datasets]
    if missing:
        store.log_data(run.run_id, missing)
    return bool(missing)


def _log_model(store: MlflowStore, run_id: str, folder: Path) -> str:
    return store.log_model(run_id, partial(_write_model, folder))


def _write_model(folder: Path, destination: Path) -> None:
    from iq_offline.tracking.mlflow_models import write_model

    write_model(folder, destination)


def _supplementary(folder: Path) -> tuple[TrackedData, ...]:
    listed = RunFolder(folder).split["supplementary"] if (folder / "split.json").is_file() else []
    return tuple(TrackedData(item["dataset"], item["sha256"], "supplementary") for item in listed)
