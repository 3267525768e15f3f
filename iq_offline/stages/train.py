"""train: a dataset and a method to a run folder, mirrored into MLflow while it goes on."""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from iq_offline import paths
from iq_offline.config.cloning import BCConfig
from iq_offline.config.online import InteractionConfig
from iq_offline.config.q_learning import QLearningConfig
from iq_offline.config.train import (
    Compile,
    TrainConfig,
    algorithm_class,
    algorithm_config,
    choice,
    method_of,
    updates_key,
)
from iq_offline.data.files import check_folder, make_folder, whole_folder
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.split import check_supplementary
from iq_offline.errors import ConfigError, RunError, TrainingDiverged
from iq_offline.methods import METHODS
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.learning_data import (
    LearningData,
    filter_of,
    split_of,
    training_steps,
    warn_of_defects,
    warn_of_low_bound,
    warn_of_slow_precision,
    warn_of_unread_data,
    warn_of_unused_pictures,
)
from iq_offline.stages.online import check_replay_destination, keep_replay, starting
from iq_offline.stages.presets import read_preset, warn_of_unused_preset
from iq_offline.tracking.mirror import Tracker, describe, start_tracking
from iq_offline.tracking.mlflow_store import RunDescription, TrackedData
from iq_offline.training import run_folder
from iq_offline.training.checkpointing import Checkpointer, Rows, Snapshot, SnapshotFolder, stop_requested
from iq_offline.training.loop import PRIOR, Progress, resolve_device
from iq_offline.training.provenance import git_commit, package_versions, platform_description
from iq_offline.training.run_folder import RunFolder
from iq_offline.training.run_schema import FORMAT_VERSION
from iq_offline.training.steps import PAYS_FROM
from iq_offline.training.tensor_files import save_policy, tensor_bytes, tensors_sha256

if TYPE_CHECKING:
    from iq_offline.training.compile.batched_seeds import SeedSlot


MOST_THREADS_A_CORE = 8
AT_CLONE = 1.0
"""A policy whose actions differ by less from its clone's, in percent, is said to act as that clone does."""
TESTING, CLONING = "testing episodes", "cloning"
"""Phases, as people are told of them."""
SEARCH_UPDATE = "search_update"
"""The metric that is told while supplementary episodes are tested, before the run's first update."""
WORDS = {"device": "device", "select": "selection"}
"""What messages call a setting that is a choice, where that is not `choice of --OPTION`."""


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run is trained: what changes none of its numbers."""

    out: Path | None = None
    """The run folder; with --seeds, the folder of them."""
    group: str | None = None
    """The comparison in MLflow to file the runs under."""
    overwrite: bool = False
    """Replace a run that is there."""
    resume: bool = False
    """Go on with a run that was cut off; train where there is none."""
    snapshot_seconds: float = 60.0
    """Seconds between snapshots to resume from."""
    tracked: bool = True
    """Whether MLflow mirrors it."""
    keep_replay: Path | None = None
    """What iq-online experienced, as a dataset with rewards: an .hdf5 file, or a Minari dataset's folder (NAME-v0)."""


def train_config(
    dataset: str,
    method: str | None = None,
    preset: str | None = None,
    updates: int | None = None,
    overrides: Sequence[str] = (),
    warn: Callable[[str], None] = lambda _: None,
    environment_steps: int | None = None,
    **settings: Any,
) -> TrainConfig:
    """What decides a run's numbers, from options as the command line has them.

    `settings`: other fields of TrainConfig, which checks them; a new one changes nothing here. Opens the dataset,
    because a method's settings depend on its kind of actions. Raises ConfigError for what does not fit, and every error
    of reading the dataset.
    """
    chosen = _method(method, preset)
    for name, value in settings.items():
        kind = TrainConfig.model_fields[name].annotation
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            settings[name] = choice(kind, value, WORDS.get(name, f"choice of --{name.replace('_', '-')}"))
    named = [] if preset in (None, chosen) else read_preset(str(preset))
    discrete = isinstance(open_dataset(dataset).action_space, DiscreteActions)
    if not discrete and METHODS[chosen].continuous is None:
        raise ConfigError(f"{chosen} trains discrete actions only; {dataset} has continuous ones", "use bc or iq")
    if environment_steps is not None:
        overrides = [f"environment_steps={environment_steps}", *overrides]
    if updates is not None:
        overrides = [f"{updates_key(algorithm_class(chosen, discrete=discrete))}={updates}", *overrides]
    algorithm = algorithm_config(chosen, discrete=discrete, presets=named, overrides=overrides)
    if settings.get("start_from") is not None:
        algorithm = starting(algorithm, RunFolder.open(Path(settings["start_from"])), chosen)
        settings["start_from"] = _resolved(settings["start_from"])
    warn_of_unused_preset(preset, named, algorithm.name, warn)
    supplementary = tuple(map(_resolved, settings.pop("supplementary", ())))
    try:
        return TrainConfig(
            dataset=_resolved(dataset), method=chosen, supplementary=supplementary, algorithm=algorithm, **settings
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{key}={first['input']!r} does not fit", first["msg"]) from None


def train_run(
    config: TrainConfig,
    options: RunOptions,
    on_progress: Callable[[Progress | str], None],
    warn: Callable[[str], None],
    slot: "SeedSlot | None" = None,
) -> RunFolder:
    """Train and write the run folder, whole or not at all. `slot`: its place among seeds that are updated together.

    `on_progress` gets what `status` reads: the name of a phase until updates are made, then each Progress.

    Raises ConfigError for what does not fit, every error of reading the dataset, TrainingDiverged, and Interrupted
    where a signal asked to stop: what is trained by then is kept for `resume`.
    """
    if options.out:
        check_folder(options.out)
    _check_threads(config.threads)
    device = resolve_device(config.device)
    table = open_dataset(config.dataset)
    supplementary = tuple(open_dataset(dataset) for dataset in config.supplementary)
    check_supplementary(table, supplementary)
    supplementary = tuple(other.less(table.offset) for other in supplementary)
    acts = isinstance(config.algorithm, InteractionConfig)
    if slot is not None and (acts or not isinstance(config.algorithm, BCConfig | QLearningConfig)):
        raise ConfigError(f"{config.method} has no updates to batch", "leave --together out")
    start = None if config.start_from is None else RunFolder.open(Path(config.start_from))
    warn_of_unread_data(config, supplementary, warn)
    warn_of_low_bound(config, warn)
    warn_of_slow_precision(config, device, warn)
    warn_of_unused_pictures(config, table, warn)
    for read in (table, *supplementary):
        warn_of_defects(read, warn)
    data = LearningData(table, split_of(config, table), supplementary, start)
    check_replay_destination(config, options.keep_replay, config.content_hash(*data.hashes) if options.resume else None)
    with _run_place(options, _run_name(config, data)) as out:
        if options.resume and (out / run_folder.MANIFEST).is_file():
            return _finished(out, config.content_hash(*data.hashes))
        return _train_into(out, config, options, data, device, slot, on_progress, warn)


class Status(NamedTuple):
    """How far a training run is, in numbers and words that another process can be told."""

    phase: str
    """What is being done: opening MLflow's store, testing episodes, cloning, IQ-Learn, or the method's name."""
    step: int
    total: int | None
    """None before the first update."""
    metrics: dict[str, float]

    @property
    def note(self) -> str:
        """The first metric."""
        return next((f"{name} {value:.3g}" for name, value in self.metrics.items()), "")


def status(config: TrainConfig, progress: Progress | str) -> Status:
    """How far a run of that configuration is; before its first updates, `progress` is the phase alone."""
    if isinstance(progress, str):
        return Status(progress, 0, None, {})
    if SEARCH_UPDATE in progress.metrics:
        return Status(TESTING, progress.step, progress.total, progress.metrics)
    phase = CLONING if progress.phase == PRIOR else _phase(config)
    return Status(phase, progress.step, progress.total, progress.metrics)


def _phase(config: TrainConfig) -> str:
    """What the method's own updates are called."""
    if isinstance(config.algorithm, BCConfig):
        return CLONING
    return "IQ-Learn" if config.method.split("-")[0] == "iq" else config.method


def _first_phase(config: TrainConfig, data: LearningData, resumed: Snapshot | None) -> str:
    """What a run does first, until it tells how far it is."""
    algorithm = config.algorithm
    if resumed is not None:
        return f"resuming behind update {resumed.updates:,} of {CLONING if resumed.phase == PRIOR else _phase(config)}"
    if filter_of(config) is not None and data.supplementary:
        return TESTING
    clone = algorithm if isinstance(algorithm, BCConfig) else getattr(algorithm, "prior", None)
    settled = clone.settled(len(data.split.rows)) if clone is not None else algorithm
    pays = config.compile is Compile.AUTO and (getattr(settled, "updates", None) or 0) >= PAYS_FROM[False]
    phase = _phase(config) if clone is None else CLONING
    return f"compiling, then {phase}" if pays or config.compile is Compile.ON else phase


def _method(method: str | None, preset: str | None) -> str:
    """The method named; else the one whose name the preset is; else `iq`."""
    named = preset if preset in METHODS else None
    if method is None:
        return named or "iq"
    if named not in (None, method):
        raise ConfigError(f"--preset {named} is a method of its own, beside --method {method}", "give one of the two")
    return method_of(method).name


def _resolved(dataset: str) -> str:
    """A path as it is from anywhere; a name as it is."""
    path = Path(dataset).expanduser()
    return str(path.resolve()) if path.exists() else dataset


def _check_threads(threads: int) -> None:
    """Raises ConfigError for so many threads that starting them would take the machine down."""
    cores = os.cpu_count() or 1
    if threads > MOST_THREADS_A_CORE * max(cores, 8):
        raise ConfigError(f"--threads {threads}: this machine has {cores} cores", f"give at most {cores}")


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
def _run_place(options: RunOptions, name: str) -> Iterator[Path]:
    """The folder asked for; else one of that name under the user's store, numbered where the name is taken."""
    if options.out:
        if not options.resume:
            _check_free(options.out, overwrite=options.overwrite)
        elif not (options.out / run_folder.MANIFEST).is_file():
            _check_replaceable(options.out)
        yield options.out
        return
    reserved = _reserve(paths.home() / "runs" / name, resume=options.resume)
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
    options: RunOptions,
    data: LearningData,
    device: Any,
    slot: "SeedSlot | None",
    on_progress: Callable[[Progress | str], None],
    warn: Callable[[str], None],
) -> RunFolder:
    import torch

    torch.set_num_threads(config.threads)
    started = datetime.now(UTC)
    manifest = _manifest(config, data, str(device), options.group, out.name)
    config_hash = manifest["config_hash"]
    snapshots = SnapshotFolder.of(out, _flags(config, device, slot))
    with snapshots.held(), stop_requested() as stop, whole_folder(out) as folder:
        if not options.resume:
            snapshots.remove()
        resumed = snapshots.latest(config_hash, warn)
        checkpointer = Checkpointer(snapshots, config_hash, options.snapshot_seconds, stop, resumed)
        if options.tracked:
            on_progress("opening MLflow's store")
        tracker = start_tracking(_described(manifest, out, data), out, warn) if options.tracked else Tracker()

        def check_interrupt(progress: Progress) -> None:
            """Told of the search for more demonstrations as of a run that has not begun; a signal ends it."""
            on_progress(replace(progress, step=0, metrics={SEARCH_UPDATE: float(progress.step)}))
            checkpointer.check_interrupt()

        on_progress(_first_phase(config, data, resumed))
        try:
            replay = snapshots.path / "replay"
            steps = training_steps(config, data, device, resumed, warn, check_interrupt, slot, replay)
            logged = _log(steps, tracker, on_progress, checkpointer)
            _check_replaceable(out)
        except TrainingDiverged:
            snapshots.remove()
            tracker.fail()
            raise
        except BaseException:
            tracker.fail()
            raise
        manifest |= {"started": started.isoformat(timespec="seconds"), "seconds": round(checkpointer.seconds(), 2)}
        manifest |= {"together": slot.seeds.count} if slot is not None else {}
        _write(folder, config, data, manifest, logged)
        if options.keep_replay is not None:
            keep_replay(config, data.table, replay, options.keep_replay, manifest)
        snapshots.remove()
    tracker.finish(out)
    return RunFolder.open(out)


def _described(manifest: dict[str, Any], out: Path, data: LearningData) -> RunDescription:
    others = [TrackedData(one.info.name, one.info.sha256, "supplementary") for one in data.supplementary]
    return describe(manifest, out.resolve(), others)


def _flags(config: TrainConfig, device: Any, slot: "SeedSlot | None") -> dict[str, str]:
    """What bears on the bits beside settings and data, by the names of its flags."""
    together = "off" if slot is None else f"of {slot.seeds.count} seeds"
    threads = str(config.threads)
    return {"--device": device.type, "--threads": threads, "--compile": config.compile.value, "--together": together}


@dataclass(frozen=True)
class _Logged:
    """The last progress; metrics by step, and where this process's time went."""

    progress: Progress
    rows: Rows
    timing: Rows


def _log(
    steps: Iterator[Progress],
    tracker: Tracker,
    on_progress: Callable[[Progress | str], None],
    checkpointer: Checkpointer,
) -> _Logged:
    rows, timing = list(checkpointer.rows), []
    for progress in steps:
        rows.append({"step": progress.step, **progress.metrics})
        timing.append({"step": progress.step, **progress.timing})
        speed = {name: value for name, value in progress.timing.items() if not name.endswith("_seconds")}
        tracker.log(progress.step, progress.metrics | speed)
        on_progress(progress)
        checkpointer.after(progress, rows)
    return _Logged(progress, rows, timing)


def _write(folder: Path, config: TrainConfig, data: LearningData, manifest: dict[str, Any], logged: _Logged) -> None:
    import polars as pl

    from iq_offline.training.greedy_actions import greedy_actions

    progress, policy = logged.progress, logged.progress.learner.policy
    tensors = progress.learner.tensors()
    save_policy(policy, folder / run_folder.POLICY)
    (folder / run_folder.CHECKPOINT).write_bytes(tensor_bytes(tensors))
    (folder / run_folder.CONFIG).write_text(config.to_toml())
    (folder / run_folder.SPLIT).write_text(json.dumps(_split(config, data, progress), indent=1))
    for name, rows in ((run_folder.METRICS, logged.rows), (run_folder.TIMING, logged.timing)):
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / name)
    greedy_actions(policy, data.table).write_parquet(folder / run_folder.ACTIONS)
    parts = sorted({name for row in logged.timing for name in row if name.endswith("_seconds")})
    manifest |= {
        "compiled": progress.compiled,
        "spent": {part: round(sum(row.get(part, 0.0) for row in logged.timing), 3) for part in parts},
        "updates": progress.step,
        "start": None
        if data.start is None
        else {key: data.start.manifest[key] for key in ("run", "method", "policy_sha256")},
        "environment_steps": int(progress.metrics.get("environment_steps", 0)),
        "policy_sha256": tensors_sha256(policy.state_dict()),
        "checkpoint_sha256": tensors_sha256(tensors),
    }
    manifest |= {} if progress.prior_compiled is None else {"prior_compiled": progress.prior_compiled}
    run_folder.seal_record(folder / run_folder.MANIFEST, manifest)


def stays_at_clone(run: RunFolder) -> str | None:
    """A sentence where a policy that started from a behavioural clone acts as that clone does; else None."""
    metrics = run.table(run_folder.METRICS)
    if "prior_distance" not in metrics.columns or metrics["prior_distance"].is_null().all():
        return None
    distances = metrics["prior_distance"].drop_nulls()
    discrete = run.table(run_folder.ACTIONS)["action_0"].dtype.is_integer()
    percent = 100 * distances[-1] if discrete else 50 * math.sqrt(distances[-1])  # scaled actions have a range of 2
    unit = "of observations" if discrete else "of the actions' range"
    alike = f"{run.path.name}: the policy acts as its behavioural clone does (difference: {percent:.1g} % {unit})"
    return alike if percent < AT_CLONE else None


def _split(config: TrainConfig, data: LearningData, progress: Progress) -> dict[str, Any]:
    """Which episodes and transitions were learnt from."""
    split = data.split.to_json(data.table, data.supplementary)
    split["rewards_read"] |= config.algorithm.reads_rewards
    if progress.accepted_episodes is not None:
        for other in split["supplementary"]:
            other["accepted_episodes"] = progress.accepted_episodes.get(other["sha256"], [])
    return split


def _run_name(config: TrainConfig, data: LearningData) -> str:
    dataset = data.table.info.name.replace("/", "-")
    key = config.content_hash(*data.hashes)
    return f"{dataset}-{config.method}-{config.demos or 'all'}x{config.subsample}-seed{config.seed}-{key[:6]}"


def _manifest(config: TrainConfig, data: LearningData, device: str, group: str | None, name: str) -> dict[str, Any]:
    info, episodes = data.table.info, data.table.episodes
    of_source = ("name", "path", "sha256", "origin_sha256", "format", "env_id", "env_kwargs", "reference")
    return {key: getattr(config, key) for key in ("method", "seed", "demos", "subsample", "threads")} | {
        "format_version": FORMAT_VERSION,
        "run": name,
        "group": group or f"{info.name}: {config.demos or 'all'} demonstrations, every {config.subsample}",
        "transitions": len(data.split.rows),
        "dataset": {key: getattr(info, key) for key in of_source}
        | {
            "episodes": len(episodes),
            "steps": data.table.steps,
            "longest_episode": int(episodes["steps"].to_numpy().max()),
            "return_mean": float(episodes["return"].to_numpy().mean()),
        },
        "algorithm": config.algorithm.model_dump(mode="json"),
        "config_hash": config.content_hash(*data.hashes),
        "packages": package_versions(),
        "git_commit": git_commit(),
        "platform": platform_description(),
        "device": device,
    }
