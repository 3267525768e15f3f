"""Inside a job of a pipeline: time each stage's work, its computing, its compiling, and its calls into MLflow.

Python imports this at the start of every process that finds `SITE` as its `sitecustomize.py`; so it imports little.
"""

import atexit
import importlib
import inspect
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from iq_offline.command_server.client import SOCKET

LOG = "IQ_OFFLINE_OVERHEAD_LOG"
STAGES = {
    "train": ("train_run", "start_tracking"),
    "eval": ("evaluate_run", "mirror_stage"),
    "reward": ("recover_reward", "mirror_stage"),
    "report": ("make_report", "mirror_report"),
    "convert": ("convert_dataset", None),
    "fetch": ("fetch_dataset", None),
}
"""Of each stage its work, and how it reaches MLflow."""
LAZY = ("torch", "polars", "matplotlib.pyplot", "gymnasium", "safetensors.torch")
"""Imported before the clock of the work starts: importing is overhead."""
LAZY_OF = {"train": ("iq_offline.training.loop", "iq_offline.algorithms.iq", "iq_offline.training.learnt")}
STEPS = "iq_offline.training.compile.compiled_steps"
COMPUTING = {
    "iq_offline.training.steps": ("Steps.advance",),
    STEPS: ("CompiledSteps.advance",),
    "iq_offline.evaluation.simulation": ("lock_step",),
    "iq_offline.stages.rewarder": ("Rewarder.of",),
    "iq_offline.stages.reward": ("_nulls", "_frame", "reward_report"),
}
"""Numerics and simulation: updates with their batches, stepping of environments, rewards and their correlations."""
COMPILING = {STEPS: ("CompiledSteps._compile",)}
"""It happens within computing, and does not count as that."""
SITE = """
import sys
sys.path.insert(0, {folder!r})
try:
    from benchmarks.overhead import watching
    watching.watch()
finally:
    sys.path.remove({folder!r})
"""


def watched(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Environment variables with which the jobs of a pipeline are watched; FOLDER/log has a line a stage."""
    (folder / "sitecustomize.py").write_text(SITE.format(folder=str(Path(__file__).parents[2])))
    path = os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH", "")]))
    return {**environment, "PYTHONPATH": path, LOG: str(folder / "log")}


def lines_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What the watched processes logged: of each `stage` what it spent, of each `job` when it began and ended."""
    lines = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    return [line for line in lines if kind in line]


def watch() -> None:
    """In a process of the pipeline: log a job's begin and end; time each stage once it has been imported.

    A job that hands its command over works in the command server, and its stage is timed there.
    """
    command = sys.orig_argv[1:]
    if command[:2] == ["-m", "iq_offline"] and command[2] in STAGES:
        atexit.register(_log_job, command[2])
    if not os.environ.get(SOCKET):
        _watch_imports()


def _log_job(stage: str) -> None:
    ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    begun, ended = ticks / os.sysconf("SC_CLK_TCK"), time.clock_gettime(time.CLOCK_BOOTTIME)
    _log({"job": stage, "begun": begun, "ended": ended})


def _log(line: dict[str, Any]) -> None:
    with Path(os.environ[LOG]).open("a") as log:
        log.write(json.dumps(line) + "\n")


def _watch_imports() -> None:
    import importlib.abc
    import importlib.machinery

    names = {*COMPUTING, *COMPILING, *(f"iq_offline.stages.{stage}" for stage in STAGES)}

    class Watcher(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
            spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name in names else None
            if spec is not None and spec.loader is not None:
                execute = spec.loader.exec_module

                def execute_and_time(module: Any) -> None:
                    execute(module)
                    for kind, functions in (("computing", COMPUTING), ("compiling", COMPILING)):
                        for function in functions.get(name, ()):
                            _time(module, function, kind)
                    stage = name.removeprefix("iq_offline.stages.")
                    if stage in STAGES:
                        _time_stage(module, stage)

                spec.loader.exec_module = execute_and_time  # type: ignore[method-assign]
            return spec

    sys.meta_path.insert(0, Watcher())


class Clock:
    """Seconds of a kind of work, of the wall and of the processor; of nested calls, the outermost counts."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0
        self._depth = 0

    def __enter__(self) -> None:
        if self._depth == 0:
            self._began = time.perf_counter(), time.process_time()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.wall += time.perf_counter() - self._began[0]
            self.processor += time.process_time() - self._began[1]


CLOCKS: dict[str, Clock] = defaultdict(Clock)


def timed(kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or the generator, on the clock of that kind."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        with CLOCKS[kind]:
            return call(*arguments, **named)

    def generated(*arguments: Any, **named: Any) -> Iterator[Any]:
        following, end = call(*arguments, **named), object()
        while True:
            with CLOCKS[kind]:
                found = next(following, end)
            if found is end:
                return
            yield found

    return generated if inspect.isgeneratorfunction(call) else wrapped


def _time(module: Any, function: str, kind: str) -> None:
    *owners, name = function.split(".")
    owner = getattr(module, owners[0]) if owners else module
    setattr(owner, name, timed(kind, getattr(owner, name)))


def _time_stage(module: Any, stage: str) -> None:
    work, mirror = STAGES[stage]

    class Timed:
        def __init__(self, tracker: Any) -> None:
            self.log, self.fail = timed("mlflow", tracker.log), tracker.fail
            self.finish = timed("mlflow", tracker.finish)

    def worked(*arguments: Any, **named: Any) -> Any:
        for name in (*LAZY, *LAZY_OF.get(stage, ())):
            importlib.import_module(name)
        try:
            return timed("work", original)(*arguments, **named)
        finally:
            mlflow, computing, compiling = CLOCKS["mlflow"], CLOCKS["computing"], CLOCKS["compiling"]
            _log(
                {
                    "stage": stage,
                    "work": CLOCKS["work"].processor - mlflow.processor,
                    "mlflow": mlflow.processor,
                    "computing_seconds": computing.wall - compiling.wall,
                    "compiling_seconds": compiling.wall,
                    "mlflow_seconds": mlflow.wall,
                }
            )

    original = getattr(module, work)
    setattr(module, work, worked)
    if mirror:
        reach = timed("mlflow", getattr(module, mirror))
        setattr(module, mirror, (lambda *a: Timed(reach(*a))) if stage == "train" else reach)
