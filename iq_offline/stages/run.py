"""run: a results table, from its YAML file to what it ends in. Snakemake does the work; this finds, asks and tells."""

import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from iq_offline import paths
from iq_offline.command_server.client import SOCKET
from iq_offline.config.train import algorithm_class, algorithm_config, updates_key
from iq_offline.credentials import public_url
from iq_offline.data.catalogue import catalogue, is_like_a_path
from iq_offline.data.files import check_folder
from iq_offline.errors import ConfigError, PackageMissing, did_you_mean
from iq_offline.pipeline.plan import Plan
from iq_offline.pipeline.progress import PipelineProgress, SnakemakeLog
from iq_offline.pipeline.schema import End, load_table
from iq_offline.pipeline.working_folder import Hold, held
from iq_offline.stages.dry_run import StageJobs, planned_jobs
from iq_offline.stages.presets import read_preset

EXECUTORS = {
    "slurm": "snakemake_executor_plugin_slurm",
    "kubernetes": "snakemake_executor_plugin_cluster_generic",
}
"""What the shipped profiles need beyond Snakemake itself."""
LOCAL = "local"
LOG = Path("logs") / "snakemake.log"
"""What Snakemake says of the latest run, in its folder."""
LOOK_SECONDS = 0.5
FAILURES_SHOWN, LINES_SHOWN = 3, 4
"""Jobs that failed, and the last lines of their logs."""
MISSING_SHOWN = 3
ABOUT_WIDTH = 90
"""Characters of what is listed about a table."""
ENDS = {End.REPORT: Path("report") / "summary.txt", End.OUTCOMES: Path("outcomes") / "log.txt"}


@dataclass(frozen=True)
class RunRequest:
    """What the command line asks of one pipeline."""

    pipeline: str
    cores: int | None = None
    profile: str = "local"
    dry_run: bool = False
    out: Path | None = None
    data: Path | None = None


@dataclass(frozen=True)
class Finished:
    """How Snakemake ended, where, and the text that the table ends in, if it came to that."""

    status: int
    folder: Path
    text: str | None
    planned: tuple[StageJobs, ...] = ()
    """What a dry run has found to do."""
    failures: tuple[str, ...] = ()
    """The last lines of what went wrong, by job."""


OnProgress = Callable[[PipelineProgress], None]


def run_pipeline(
    request: RunRequest, tell: Callable[[str], None], on_progress: OnProgress = lambda _: None
) -> Finished:
    """Run a table to its end, or go on with it where an earlier run stopped. Snakemake's own words go into LOG.

    Raises ConfigError for an unknown name, a table that does not fit, data that are not there and a folder in which
    another run is alive, and PackageMissing.
    """
    file = find_table(request.pipeline)
    plan = Plan.of(load_table(file, request.data and request.data.resolve()))
    _check_trainable(plan)
    table = plan.table
    folder = (request.out or paths.home() / "pipelines" / table.name).expanduser().resolve()
    check_folder(folder)
    _check_sources(plan, file, folder)
    _check_names(plan)
    command = _command(file, folder, request)
    if request.dry_run:
        finished = [run for place in (folder, paths.home()) for run in sorted((place / "runs").glob("*"))]
        return Finished(0, folder, None, tuple(planned_jobs(command, plan, folder, finished)))
    with held(folder, table.name, tell) as hold:
        if hold.is_locked_by_the_dead():
            dead = hold.left or "unknown"
            tell(f"{folder} was locked by a run that is dead ({dead}): released; what it has finished counts")
            subprocess.run([*command, "--unlock"], check=True, capture_output=True)
        log = SnakemakeLog()
        served = request.profile == LOCAL and hasattr(os, "pidfd_open")
        status = _snakemake(command, hold, log, on_progress, served=served)
    if status:
        return Finished(status, folder, None, failures=tuple(_failures(folder, log)))
    if not log.planned:
        tell("Nothing to be done: every result is up to date")
    return Finished(status, folder, (folder / ENDS[table.ends_in]).read_text())


def _failures(folder: Path, log: SnakemakeLog) -> Iterator[str]:
    """What the jobs that failed said last; without any, what Snakemake said last."""
    for name in log.failed_logs[:FAILURES_SHOWN] or [str(LOG)]:
        lines = (folder / name).read_text(errors="replace").splitlines() if (folder / name).is_file() else []
        yield "\n".join([f"{folder / name}:", *(f"  {line}" for line in lines[-LINES_SHOWN:])])
    if len(log.failed_logs) > FAILURES_SHOWN:
        yield f"{len(log.failed_logs) - FAILURES_SHOWN} more jobs failed: {folder / LOG}"


def list_tables() -> list[dict[str, str]]:
    """The shipped tables by name, each with the first sentence of its comment."""
    rows = []
    for file in sorted(paths.shipped("pipelines").glob("*.yaml")):
        comment = itertools.takewhile(lambda line: line.startswith("#"), file.read_text().splitlines())
        sentence = re.split(r"\. (?=[A-Z`])", " ".join(line.lstrip("# ") for line in comment))[0].rstrip(".")
        rows.append({"pipeline": file.stem, "about": textwrap.shorten(sentence, ABOUT_WIDTH, placeholder=" ...")})
    return rows


def find_table(name: str) -> Path:
    """The YAML file of a shipped pipeline's name, or the path itself. Raises ConfigError, with the nearest names."""
    if Path(name).suffix in {".yaml", ".yml"}:
        if not Path(name).is_file():
            raise ConfigError(f"no file at {name}", "check the path, or name a shipped pipeline")
        return Path(name).resolve()
    folder = paths.shipped("pipelines")
    file = folder / f"{name}.yaml"
    if not file.is_file():
        names = [path.stem for path in folder.glob("*.yaml")]
        raise ConfigError(
            f"unknown pipeline '{name}'",
            f"{did_you_mean(name, names, 'iq-offline run')}; or give the path of a YAML file",
        )
    return file


def _check_sources(plan: Plan, file: Path, folder: Path) -> None:
    """Raises ConfigError where files that the runs read are not there; relative ones are seen from `folder` by then."""
    named = [dataset for dataset in plan.sources.values() if dataset not in catalogue() and is_like_a_path(dataset)]
    missing = [dataset for dataset in named if not (folder / Path(dataset).expanduser()).exists()]
    if missing:
        shown = ", ".join(missing[:MISSING_SHOWN]) + (", ..." if len(missing) > MISSING_SHOWN else "")
        mend = f"mend the paths in {file}"
        raise ConfigError(
            f"{len(missing)} of the {len(plan.sources)} datasets of table {plan.table.name} are not there: {shown}",
            f"name the folder that holds them (--data FOLDER), or {mend}" if plan.table.data else mend,
        )


def _check_names(plan: Plan) -> None:
    """Raises ConfigError for files whose names Snakemake would take for patterns or could not write down."""
    for dataset in plan.sources.values():
        if public_url(dataset) != dataset:
            raise ConfigError(
                f"{public_url(dataset)} is given with a password or token, which a pipeline would write into its logs",
                f"fetch it first (iq-offline fetch URL), then name it without: {public_url(dataset)}",
            )
        path = Path(dataset)
        inside = path.rglob("*") if path.is_absolute() and path.is_dir() else []
        for name in map(str, (path, *inside)):
            if set(name) & set("{}\n\r") or not name.isprintable():
                raise ConfigError(
                    f"{name!r} has braces or control characters in its name, which Snakemake reads as patterns",
                    "rename it, or name it by a link without them",
                )


def _check_trainable(plan: Plan) -> None:
    """Raises ConfigError for settings that the run's method takes neither for discrete nor for continuous actions."""
    asked = {(run.trained_by, run.preset, run.updates, run.settings): run.name for run in plan.runs.values()}
    for (method, preset, updates, settings), name in asked.items():
        presets = [] if preset in (None, method) else read_preset(str(preset))
        errors = []
        for discrete in (False, True):
            length = f"{updates_key(algorithm_class(method, discrete=discrete))}={updates}"
            overrides = [*([length] if updates else []), *settings]
            try:
                algorithm_config(method, discrete=discrete, presets=presets, overrides=overrides)
            except ConfigError as error:
                errors.append(error)
        if len(errors) == 2:
            raise ConfigError(f"{name}: {errors[0].problem}", errors[0].remedy)


def _command(file: Path, folder: Path, request: RunRequest) -> list[str]:
    if importlib.util.find_spec("snakemake") is None:
        raise PackageMissing("pipelines need Snakemake", "pip install 'iq-offline[pipeline]'")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.shipped("pipelines") / "Snakefile")]
    command += ["--configfile", str(file), "--directory", str(folder), "--workflow-profile", str(_profile(request))]
    command += ["--config", f"data={request.data.resolve()}"] if request.data else []
    return command + (["--cores", str(request.cores)] if request.cores else [])


def _profile(request: RunRequest) -> Path:
    """The folder of a shipped profile, or the path itself. Raises ConfigError and PackageMissing."""
    shipped = paths.shipped("pipelines") / "profiles"
    named = Path(request.profile).expanduser()
    folder = named.resolve() if named.is_dir() else shipped / request.profile
    if not (folder / "config.yaml").is_file():
        names = [path.name for path in shipped.iterdir()]
        raise ConfigError(
            f"unknown profile '{request.profile}'",
            f"{did_you_mean(request.profile, names)}; or give a folder with a Snakemake config.yaml",
        )
    needed = EXECUTORS.get(folder.name)
    if needed and importlib.util.find_spec(needed) is None:
        package = needed.replace("_", "-")
        raise PackageMissing(f"profile {folder.name} needs {package}", "pip install 'iq-offline[cluster]'")
    return folder


def _snakemake(command: list[str], hold: Hold, log: SnakemakeLog, on_progress: OnProgress, *, served: bool) -> int:
    """Snakemake in a process group of its own, which its jobs share; signals to this process are passed on to it.

    It writes into LOG, which is read while it works. `served`: whether a command server runs its jobs' commands.
    """
    # Profiles name `python`, and mean this one.
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    with tempfile.TemporaryDirectory(prefix="iq-offline-") as place:
        socket = str(Path(place) / "socket")
        environment[SOCKET] = socket if served else ""
        file = hold.folder / LOG
        file.parent.mkdir(exist_ok=True)
        with (
            file.open("w") as out,
            subprocess.Popen(
                command, pass_fds=[hold.descriptor], process_group=0, env=environment, stdout=out, stderr=out
            ) as process,
        ):
            hold.record(process.pid)

            def pass_on(number: int, _: object) -> None:
                os.killpg(process.pid, number)

            before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                with _command_server(socket, process.pid, hold.folder) if served else nullcontext():
                    return _follow(process, file, log, on_progress)
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)


def _follow(process: "subprocess.Popen[bytes]", file: Path, log: SnakemakeLog, on_progress: OnProgress) -> int:
    """Read the log until the process ends; returns its exit status."""
    with file.open(errors="replace") as lines:
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
            for line in _whole_lines(lines):
                log.read(line, time.monotonic())
            on_progress(log.progress(time.monotonic()))
            if process.returncode is not None:
                return process.returncode


def _whole_lines(file: TextIO) -> Iterator[str]:
    """The lines that are there by now; half a line is left for later."""
    while True:
        place, line = file.tell(), file.readline()
        if not line.endswith("\n"):
            file.seek(place)
            return
        yield line


@contextmanager
def _command_server(socket: str, group: int, folder: Path) -> Iterator[None]:
    """What runs the commands of Snakemake's jobs on this machine; it ends when this process does."""
    command = [sys.executable, "-m", "iq_offline.command_server.server", socket]
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    with subprocess.Popen(command, stdin=subprocess.PIPE, process_group=group, cwd=folder, env=environment):
        yield
