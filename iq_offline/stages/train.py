"""train: a dataset and a method to a run folder, mirrored into MLflow while it goes on."""

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iq_offline import paths
from iq_offline.config import (
    BaselineConfig,
    Compile,
    Device,
    Method,
    Selection,
    SubsampleFrom,
    TrainConfig,
    algorithm_class,
    algorithm_config,
    choice,
    updates_key,
)
from iq_offline.data.files import check_folder, make_folder, whole_folder
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.split import check_supplementary
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError, RunError, TrainingDiverged
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.learning_data import (
    LearningData,
    reads_rewards_of,
    say_what_is_cut_off,
    say_what_is_odd,
    say_what_is_read,
    say_what_is_slow,
    split_of,
    training_steps,
)
from iq_offline.stages.presets import Preset, recipe, say_what_does_not_apply
from iq_offline.tracking.mirror import Tracker, describe, start_tracking
from iq_offline.training import run_folder
from iq_offline.training.keeper import Keeper, stop_asked
from iq_offline.training.loop import Progress, resolve_device
from iq_offline.training.provenance import git_commit, package_versions, platform_description
from iq_offline.training.run_folder import RunFolder
from iq_offline.training.snapshot import SnapshotFolder

if TYPE_CHECKING:
    from iq_offline.training.together import Lane


MOST_THREADS_A_CORE = 8


@dataclass(frozen=True)
class TrainRequest:
    """What the command line asks of one training run."""

    dataset: str
    method: str | None = None
    preset: str | None = None
    demos: int | None = None
    subsample: int = 1
    subsample_from: str = SubsampleFrom.FIRST
    select: str = Selection.RANDOM
    held_out: float | None = None
    supplementary: tuple[str, ...] = ()
    seed: int = 0
    updates: int | None = None
    overrides: tuple[str, ...] = ()
    device: str = Device.AUTO
    threads: int = 1
    out: Path | None = None
    group: str | None = None
    overwrite: bool = False
    resume: bool = False
    compile: str = Compile.AUTO
    snapshot_seconds: float = 60.0
    tracked: bool = True
    """Whether MLflow mirrors it."""


def train_run(
    request: TrainRequest,
    on_progress: Callable[[Progress], None],
    warn: Callable[[str], None],
    lane: "Lane | None" = None,
) -> RunFolder:
    """Train and write the run folder, whole or not at all. `lane`: its place among seeds that are updated together.

    Raises ConfigError for what does not fit, every error of reading the dataset, TrainingDiverged, and Interrupted
    where a signal asked to stop: what is trained by then is kept for `resume`.
    """
    method, device_kind = _method(request), choice(Device, request.device, "device")
    own, named = recipe(method), [] if request.preset in (None, method) else recipe(str(request.preset))
    if request.out:
        check_folder(request.out)
    _check_threads(request.threads)
    device = resolve_device(device_kind)
    table = open_dataset(request.dataset)
    supplementary = tuple(open_dataset(dataset) for dataset in request.supplementary)
    check_supplementary(table, supplementary)
    supplementary = tuple(other.less(table.offset) for other in supplementary)
    config = _config(request, method, device_kind, table, [*own, *named])
    if lane is not None and isinstance(config.algorithm, BaselineConfig):
        raise ConfigError(f"{config.algorithm.name} has no updates to batch", "leave --together out")
    say_what_does_not_apply(request.preset, named, config.algorithm.name, warn)
    say_what_is_read(config, supplementary, warn)
    say_what_is_cut_off(config, warn)
    say_what_is_slow(config, device, warn)
    for read in (table, *supplementary):
        say_what_is_odd(read, warn)
    split = split_of(config, table)
    data = LearningData(table, split, supplementary)
    with _run_place(request, _run_name(config, data)) as out:
        if request.resume and (out / run_folder.MANIFEST).is_file():
            return _finished(out, config.content_hash(*data.hashes))
        return _train_into(out, config, data, device, request, on_progress, warn, lane)


def _check_threads(threads: int) -> None:
    """Raises ConfigError for so many threads that starting them would take the machine down."""
    cores = os.cpu_count() or 1
    if threads > MOST_THREADS_A_CORE * max(cores, 8):
        raise ConfigError(f"--threads {threads}: this machine has {cores} cores", f"give at most {cores}")


def percent(progress: Progress) -> int:
    """How much of a run is done; one without updates is done at once."""
    return 100 * progress.step // progress.total if progress.total else 100


def _finished(out: Path, config_hash: str) -> RunFolder:
    run = RunFolder.open(out)
    if run.manifest["config_hash"] != config_hash:
        raise ConfigError(f"{out} is a finished run of other settings or data", "name another folder with --out")
    try:
        run.check_trained()
    except RunError as error:
        raise RunError(error.problem, "give --overwrite in place of --resume to train it anew") from None
    return run


@contextmanager
def _run_place(request: TrainRequest, name: str) -> Iterator[Path]:
    """The folder asked for; else one of that name under the user's store, numbered where the name is taken."""
    if request.out:
        if not request.resume:
            _check_free(request.out, overwrite=request.overwrite)
        elif not (request.out / run_folder.MANIFEST).is_file():
            _check_replaceable(request.out)
        yield request.out
        return
    reserved = _reserve(paths.home() / "runs" / name, resume=request.resume)
    try:
        yield reserved
    finally:
        with suppress(OSError):  # a folder that holds a run is not empty, and stays
            reserved.rmdir()


def _reserve(folder: Path, *, resume: bool) -> Path:
    """An empty folder of that name, or with the first free number behind it; no two processes get the same.

    To resume: the first that holds a run or snapshots of one, if there is any.
    """
    make_folder(folder.parent)
    for number in itertools.count(1):
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        if resume and ((candidate / run_folder.MANIFEST).is_file() or SnapshotFolder.of(candidate).files()):
            candidate.mkdir(exist_ok=True)
            break
        with suppress(FileExistsError):
            candidate.mkdir()
            break
    return candidate


def _check_free(out: Path, *, overwrite: bool) -> None:
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ConfigError(f"{out} exists", "name another folder with --out, or give --overwrite to train it anew")
    _check_replaceable(out)
    if SnapshotFolder.of(out).files() and not overwrite:
        raise ConfigError(
            f"a run into {out} was cut off", "go on with it (--resume), or give --overwrite to train it anew"
        )


def _check_replaceable(out: Path) -> None:
    """Raises ConfigError where anything but a run lies in the folder: a new run deletes what is there."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    foreign = run_folder.foreign_to_run(out)
    if foreign is None or foreign:
        what = f"more than a run: {', '.join(foreign[:3])}" if foreign else "no run"
        raise ConfigError(
            f"training into {out} would delete what is there, which is {what}",
            "name another folder with --out, or move its files away",
        )


def _train_into(
    out: Path,
    config: TrainConfig,
    data: LearningData,
    device: Any,
    request: TrainRequest,
    on_progress: Callable[[Progress], None],
    warn: Callable[[str], None],
    lane: "Lane | None",
) -> RunFolder:
    import torch

    torch.set_num_threads(config.threads)
    started = datetime.now(UTC)
    manifest = _manifest(config, data, str(device), request.group, out.name)
    snapshots = SnapshotFolder.of(out, _means(config, device, lane))
    with snapshots.held(), stop_asked() as stop, whole_folder(out) as folder:
        if not request.resume:
            snapshots.remove()
        resumed = snapshots.latest(manifest["config_hash"], warn)
        keeper = Keeper(snapshots, manifest["config_hash"], request.snapshot_seconds, stop, resumed)
        tracker = start_tracking(describe(manifest, out.resolve()), out, warn) if request.tracked else Tracker()
        try:
            steps = training_steps(config, data, device, resumed, warn, _heeding(on_progress, keeper), lane)
            collected = _collect(steps, tracker, on_progress, keeper)
            _check_replaceable(out)
        except TrainingDiverged:
            snapshots.remove()
            tracker.fail()
            raise
        except BaseException:
            tracker.fail()
            raise
        manifest |= {"started": started.isoformat(timespec="seconds"), "seconds": round(keeper.seconds(), 2)}
        manifest |= {"compiled": collected.progress.compiled, "spent": collected.spent()}
        if collected.progress.prior_compiled is not None:
            manifest["prior_compiled"] = collected.progress.prior_compiled
        if lane is not None:
            manifest["together"] = lane.together.lanes
        split = data.split.to_json(data.table, data.supplementary)
        split["rewards_read"] |= reads_rewards_of(config)
        if collected.progress.taken is not None:
            for other in split["supplementary"]:
                other["taken_episodes"] = collected.progress.taken.get(other["sha256"], [])
        _write(folder, config, split, manifest, collected)
        snapshots.remove()
    tracker.finish(out)
    return RunFolder.open(out)


def _means(config: TrainConfig, device: Any, lane: "Lane | None") -> dict[str, str]:
    """What bears on the bits beside settings and data, by the names of its flags."""
    together = "off" if lane is None else f"of {lane.together.lanes} seeds"
    threads = str(config.threads)
    return {"--device": device.type, "--threads": threads, "--compile": config.compile.value, "--together": together}


def _heeding(on_progress: Callable[[Progress], None], keeper: Keeper) -> Callable[[Progress], None]:
    """Tells of the search for more demonstrations as of a run that has not begun, and lets a signal end it."""

    def heed(progress: Progress) -> None:
        on_progress(replace(progress, step=0, metrics={"search_update": float(progress.step)}))
        keeper.heed()

    return heed


@dataclass(frozen=True)
class _Collected:
    """The last progress; metrics by step, and where this process's time went."""

    progress: Progress
    rows: list[dict[str, float]]
    timing: list[dict[str, float]]

    def spent(self) -> dict[str, float]:
        """Seconds of each part, of all that this process logged."""
        names = {name for row in self.timing for name in row if name.endswith("_seconds")}
        return {name: round(sum(row.get(name, 0.0) for row in self.timing), 3) for name in sorted(names)}


def _collect(steps: Any, tracker: Tracker, on_progress: Callable[[Progress], None], keeper: Keeper) -> _Collected:
    rows, timing = list(keeper.rows), []
    for progress in steps:
        rows.append({"step": progress.step, **progress.metrics})
        timing.append({"step": progress.step, **progress.timing})
        speed = {name: value for name, value in progress.timing.items() if not name.endswith("_seconds")}
        tracker.log(progress.step, progress.metrics | speed)
        on_progress(progress)
        keeper.after(progress, rows)
    return _Collected(progress, rows, timing)


def _write(
    folder: Path,
    config: TrainConfig,
    split: dict[str, Any],
    manifest: dict[str, Any],
    collected: _Collected,
) -> None:
    import polars as pl

    progress = collected.progress
    tensors = progress.learner.tensors()
    run_folder.save_policy(progress.learner.policy, folder / run_folder.POLICY)
    (folder / run_folder.CHECKPOINT).write_bytes(run_folder.tensor_bytes(tensors))
    (folder / run_folder.CONFIG).write_text(config.to_toml())
    (folder / run_folder.SPLIT).write_text(json.dumps(split, indent=1))
    for name, rows in ((run_folder.METRICS, collected.rows), (run_folder.TIMING, collected.timing)):
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / name)
    manifest |= {
        "updates": progress.step,
        "policy_sha256": run_folder.tensors_sha256(progress.learner.policy.state_dict()),
        "checkpoint_sha256": run_folder.tensors_sha256(tensors),
    }
    run_folder.seal_record(folder / run_folder.MANIFEST, manifest)


def _config(
    request: TrainRequest, method: Method, device: Device, table: TransitionTable, presets: Sequence[Preset]
) -> TrainConfig:
    overrides = request.overrides
    discrete = isinstance(table.action_space, DiscreteActions)
    if request.updates is not None:
        overrides = (f"{updates_key(algorithm_class(method, discrete=discrete))}={request.updates}", *overrides)
    return TrainConfig(
        dataset=_resolved(request.dataset),
        method=method,
        seed=request.seed,
        demos=request.demos,
        subsample=request.subsample,
        subsample_from=choice(SubsampleFrom, request.subsample_from, "choice of --subsample-from"),
        select=choice(Selection, request.select, "selection"),
        held_out=request.held_out,
        supplementary=tuple(_resolved(dataset) for dataset in request.supplementary),
        device=device,
        threads=request.threads,
        compile=choice(Compile, request.compile, "choice of --compile"),
        algorithm=algorithm_config(method, discrete=discrete, presets=presets, overrides=overrides),
    )


def _resolved(dataset: str) -> str:
    """A path as it is from anywhere; a name as it is."""
    path = Path(dataset).expanduser()
    return str(path.resolve()) if path.exists() else dataset


def _method(request: TrainRequest) -> Method:
    """The method named; else the one that the preset is the recipe of; else `iq`."""
    named = request.preset if request.preset in list(Method) else None
    if request.method is None:
        return Method(named or Method.IQ)
    if named not in (None, request.method):
        raise ConfigError(
            f"--preset {named} is a method of its own, beside --method {request.method}", "give one of the two"
        )
    return choice(Method, request.method, "method")


def _run_name(config: TrainConfig, data: LearningData) -> str:
    dataset = data.table.info.name.replace("/", "-")
    demos = "all" if config.demos is None else str(config.demos)
    key = config.content_hash(*data.hashes)
    return f"{dataset}-{config.method}-{demos}x{config.subsample}-seed{config.seed}-{key[:6]}"


def _manifest(config: TrainConfig, data: LearningData, device: str, group: str | None, name: str) -> dict[str, Any]:
    table = data.table
    info, episodes = table.info, table.episodes
    demos = "all" if config.demos is None else str(config.demos)
    return {
        "run": name,
        "group": group or f"{info.name}: {demos} demonstrations, every {config.subsample}",
        "method": config.method,
        "seed": config.seed,
        "demos": config.demos,
        "subsample": config.subsample,
        "transitions": len(data.split.rows),
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
            "longest_episode": int(episodes["steps"].to_numpy().max()),
            "return_mean": float(episodes["return"].to_numpy().mean()),
        },
        "algorithm": config.algorithm.model_dump(mode="json"),
        "config_hash": config.content_hash(*data.hashes),
        "packages": package_versions(),
        "git_commit": git_commit(),
        "platform": platform_description(),
        "device": device,
        "threads": config.threads,
    }
