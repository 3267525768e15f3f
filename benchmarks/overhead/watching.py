"""Inside a job of a pipeline: time each stage's own work apart from its calls into MLflow.

Python imports this at the start of every process that finds `SITE` as its `sitecustomize.py`; so it imports little.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
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
LAZY_OF = {"train": ("iq_offline.training.loop", "iq_offline.algorithms.iq_continuous", "iq_offline.training.learnt")}
SITE = """
import os, sys
if not os.environ.get({place!r}):
    sys.path.insert(0, {folder!r})
    try:
        from benchmarks.overhead import watching
        watching.watch()
    finally:
        sys.path.remove({folder!r})
"""
"""A job that hands its command over works in the command server, and is watched there."""


def watched(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Environment variables with which the jobs of a pipeline are watched; FOLDER/log has a line a stage."""
    (folder / "sitecustomize.py").write_text(SITE.format(folder=str(Path(__file__).parents[2]), place=SOCKET))
    path = os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH", "")]))
    return {**environment, "PYTHONPATH": path, LOG: str(folder / "log")}


def stages_of(folder: Path) -> list[dict[str, Any]]:
    """What the watched stages logged, in the order in which they ended."""
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def watch() -> None:
    """In a job: time each stage once it has been imported."""
    import importlib.abc
    import importlib.machinery

    class Watcher(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
            stage = name.removeprefix("iq_offline.stages.")
            spec = importlib.machinery.PathFinder.find_spec(name, path, target) if stage in STAGES else None
            if spec is not None and spec.loader is not None:
                execute = spec.loader.exec_module

                def execute_and_time(module: Any) -> None:
                    execute(module)
                    _time(module, stage)

                spec.loader.exec_module = execute_and_time  # type: ignore[method-assign]
            return spec

    sys.meta_path.insert(0, Watcher())


def _time(module: Any, stage: str) -> None:
    import importlib
    import time

    work, mirror = STAGES[stage]
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            begun = time.process_time()
            try:
                return call(*arguments, **named)
            finally:
                spent[name] += time.process_time() - begun

        return wrapped

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
            line = {"stage": stage, "work": spent["work"] - spent["mlflow"], "mlflow": spent["mlflow"]}
            with Path(os.environ[LOG]).open("a") as log:
                log.write(json.dumps(line) + "\n")

    original = getattr(module, work)
    setattr(module, work, worked)
    if mirror:
        reach = timed("mlflow", getattr(module, mirror))
        setattr(module, mirror, (lambda *a: Timed(reach(*a))) if stage == "train" else reach)
