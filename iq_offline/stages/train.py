"""train: a dataset and a method to a run folder, mirrored into MLflow while it goes on."""

import itertools
import json
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iq_offline import paths
from iq_offline.config import Device, Method, TrainConfig, algorithm_config
from iq_offline.data.files import whole_folder
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.split import Split, choose_expert
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError, nearest
from iq_offline.stages.fetch import open_dataset
from iq_offline.tracking.mirror import describe, start_tracking
from iq_offline.tracking.tracker import Tracker
from iq_offline.training import run_folder
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.loop import Progress, resolve_device, train
from iq_offline.training.provenance import git_commit, package_versions, platform_description
from iq_offline.training.run_folder import RunFolder


@dataclass(frozen=True)
class TrainRequest:
    """What the command line asks of one training run."""

    dataset: str
    method: str = Method.IQ
    preset: str | None = None
    demos: int | None = None
    subsample: int = 1
    seed: int = 0
    updates: int | None = None
    overrides: tuple[str, ...] = ()
    device: str = Device.AUTO
    threads: int = 1
    out: Path | None = None
    group: str | None = None
    overwrite: bool = False


def train_run(request: TrainRequest, on_progress: Callable[[Progress], None], warn: Callable[[str], None]) -> RunFolder:
    """Train and write the run folder, whole or not at all.

    Raises ConfigError for what does not fit, every error of reading the dataset, and TrainingDiverged.
    """
    method, device_kind = _choice(Method, request.method, "method"), _choice(Device, request.device, "device")
    device = resolve_device(device_kind)
    table = open_dataset(request.dataset)
    config = _config(request, method, device_kind, table)
    split = choose_expert(
        table,
        demos=config.demos,
        subsample=config.subsample,
        seed=config.seed,
        need_successors=method is not Method.BC,
    )
    with _run_place(request, _run_name(config, table)) as out:
        return _train_into(out, config, table, split, device, request.group, on_progress, warn)


@contextmanager
def _run_place(request: TrainRequest, name: str) -> Iterator[Path]:
    """The folder asked for; else one of that name under the user's store, numbered where the name is taken."""
    if request.out:
        _check_free(request.out, overwrite=request.overwrite)
        yield request.out
        return
    reserved = _reserve(paths.home() / "runs" / name)
    try:
        yield reserved
    finally:
        with suppress(OSError):  # a folder that holds a run is not empty, and stays
            reserved.rmdir()


def _reserve(folder: Path) -> Path:
    """An empty folder of that name, or with the first free number behind it; no two processes get the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        with suppress(FileExistsError):
            candidate.mkdir()
            break
    return candidate


def _check_free(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file", "name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ConfigError(f"{out} exists", "name another folder with --out, or give --overwrite to train it anew")


def _train_into(
    out: Path,
    config: TrainConfig,
    table: TransitionTable,
    split: Split,
    device: Any,
    group: str | None,
    on_progress: Callable[[Progress], None],
    warn: Callable[[str], None],
) -> RunFolder:
    import torch

    torch.set_num_threads(config.threads)
    started = datetime.now(UTC)
    manifest = _manifest(config, table, split, str(device), group, out.name)
    sampler = TransitionSampler(table, split.rows, device)
    with whole_folder(out) as folder:
        tracker = start_tracking(describe(manifest, out), out, warn)
        try:
            progress, rows = _collect(train(config, sampler, table.action_space, device), tracker, on_progress)
        except BaseException:
            tracker.fail()
            raise
        seconds = (datetime.now(UTC) - started).total_seconds()
        manifest |= {"started": started.isoformat(timespec="seconds"), "seconds": round(seconds, 2)}
        _write(folder, config, split.to_json(table), manifest, progress, rows)
    tracker.finish(out)
    return RunFolder.open(out)


def _collect(
    steps: Any, tracker: Tracker, on_progress: Callable[[Progress], None]
) -> tuple[Progress, list[dict[str, float]]]:
    rows: list[dict[str, float]] = []
    for progress in steps:
        rows.append({"step": progress.step, **progress.metrics})
        tracker.log(progress.step, progress.metrics)
        on_progress(progress)
    return progress, rows


def _write(
    folder: Path,
    config: TrainConfig,
    split: dict[str, Any],
    manifest: dict[str, Any],
    progress: Progress,
    rows: list[dict[str, float]],
) -> None:
    import polars as pl
    from safetensors.torch import save_file

    tensors = progress.learner.tensors()
    run_folder.save_policy(progress.learner.policy, folder / run_folder.POLICY)
    save_file(run_folder.contiguous(tensors), folder / run_folder.CHECKPOINT)
    (folder / run_folder.CONFIG).write_text(config.to_toml())
    (folder / run_folder.SPLIT).write_text(json.dumps(split, indent=1))
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / run_folder.METRICS)
    manifest |= {
        "updates": progress.step,
        "policy_sha256": run_folder.tensors_sha256(progress.learner.policy.state_dict()),
        "checkpoint_sha256": run_folder.tensors_sha256(tensors),
    }
    (folder / run_folder.MANIFEST).write_text(json.dumps(manifest, indent=1))


def _config(request: TrainRequest, method: Method, device: Device, table: TransitionTable) -> TrainConfig:
    preset = _preset(request.preset) if request.preset else {}
    overrides = request.overrides
    if request.updates is not None:
        overrides = (f"updates={request.updates}", *overrides)
    discrete = isinstance(table.action_space, DiscreteActions)
    path = Path(request.dataset).expanduser()
    return TrainConfig(
        dataset=str(path.resolve()) if path.exists() else request.dataset,
        method=method,
        seed=request.seed,
        demos=request.demos,
        subsample=request.subsample,
        device=device,
        threads=request.threads,
        algorithm=algorithm_config(method, discrete=discrete, preset=preset, overrides=overrides),
    )


def _preset(name: str) -> dict[str, dict[str, Any]]:
    """A preset file: one table a configuration class, only what differs from the defaults."""
    folder = paths.shipped("pipelines") / "presets"
    file = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not file.is_file():
        raise ConfigError(
            f"unknown preset '{name}'", f"one of: {nearest(name, [p.stem for p in folder.glob('*.toml')])}"
        )
    try:
        return tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"preset {file} is not TOML: {error}", "mend the file") from None


def _choice(kind: Any, text: str, option: str) -> Any:
    if text not in list(kind):
        raise ConfigError(f"unknown {option} '{text}'", f"valid: {nearest(text, kind)}")
    return kind(text)


def _run_name(config: TrainConfig, table: TransitionTable) -> str:
    dataset = table.info.name.replace("/", "-")
    demos = "all" if config.demos is None else str(config.demos)
    key = config.content_hash(table.info.sha256)
    return f"{dataset}-{config.method}-{demos}x{config.subsample}-seed{config.seed}-{key[:6]}"


def _manifest(
    config: TrainConfig, table: TransitionTable, split: Split, device: str, group: str | None, name: str
) -> dict[str, Any]:
    info, episodes = table.info, table.episodes
    demos = "all" if config.demos is None else str(config.demos)
    return {
        "run": name,
        "group": group or f"{info.name}: {demos} demonstrations, every {config.subsample}",
        "method": config.method,
        "seed": config.seed,
        "demos": config.demos,
        "subsample": config.subsample,
        "transitions": len(split.rows),
        "dataset": {
            "name": info.name,
            "path": info.path,
            "sha256": info.sha256,
            "origin_sha256": info.origin_sha256,
            "format": info.format,
            "env_id": info.env_id,
            "env_kwargs": info.env_kwargs,
            "reference": info.reference,
            "episodes": len(episodes),
            "steps": table.steps,
            "return_mean": float(episodes["return"].to_numpy().mean()),
        },
        "algorithm": config.algorithm.model_dump(mode="json"),
        "config_hash": config.content_hash(info.sha256),
        "packages": package_versions(),
        "git_commit": git_commit(),
        "platform": platform_description(),
        "device": device,
        "threads": config.threads,
    }
