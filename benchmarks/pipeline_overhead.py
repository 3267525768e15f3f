"""What a results table costs beyond its computing: CPU seconds of `iq-offline run` and of every process it starts.

The table: the bundled CartPole and swimmer demonstrations, `bc` and `iq` at their own number of updates, so many seeds,
evaluated, rewards judged, reported, mirrored into a fresh MLflow store. Inside each job the stage's own work and its
calls into MLflow are timed apart, by a `sitecustomize.py` that this puts before the jobs. Overhead is all that is not
the stages' work: Snakemake, starts of processes, imports, MLflow.

    python benchmarks/pipeline_overhead.py [--seeds 0-4] [--updates N] [--cores 2]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iq_offline.command_server.client import SOCKET

BENCHMARK = Path(__file__).resolve()
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
        import pipeline_overhead
        pipeline_overhead.watch()
    finally:
        sys.path.remove({folder!r})
"""
"""A job that hands its command over works in the command server, and is watched there."""


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


def main() -> None:
    """Run the table and print where its CPU seconds went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--updates", type=int)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="iq-offline-overhead-") as temporary:
        folder = Path(temporary)
        whole = _cpu_of_pipeline(folder, options)
        idle = _cpu_of_pipeline(folder, options)
        _show(whole, idle, [json.loads(line) for line in (folder / "log").read_text().splitlines()])


def _cpu_of_pipeline(folder: Path, options: argparse.Namespace) -> float:
    """CPU seconds of one `iq-offline run` and all that it starts."""
    demo = (BENCHMARK.parents[1] / "pipelines" / "demo.yaml").read_text()
    table = demo.replace("seeds: 0-1", f"seeds: {options.seeds}")
    (folder / "table.yaml").write_text(f"{table}\nupdates: {options.updates}" if options.updates else table)
    (folder / "sitecustomize.py").write_text(SITE.format(folder=str(BENCHMARK.parent), place=SOCKET))
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, LOG: str(folder / "log"), "IQ_OFFLINE_HOME": str(folder / "home")}
    environment = {"OMP_NUM_THREADS": "1"} | environment
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "iq_offline", "run", str(folder / "table.yaml"), "--cores", str(options.cores)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run([*command, "--out", str(folder / "work")], env=environment, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(ran.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _show(whole: float, idle: float, jobs: list[dict[str, Any]]) -> None:
    work = sum(job["work"] for job in jobs)
    mlflow = sum(job["mlflow"] for job in jobs)
    parts = {
        "MLflow": mlflow,
        "planning (the same command with nothing left to do)": idle,
        "the rest: processes, imports, Snakemake's jobs": whole - work - mlflow - idle,
        "overhead": whole - work,
    }
    print(f"{len(jobs)} jobs, {whole:.1f} CPU seconds, of which the stages' work is {work:.1f}:")
    for stage in STAGES:
        of_stage = [job["work"] for job in jobs if job["stage"] == stage]
        print(f"  {stage:<8} {len(of_stage):>3} jobs  {sum(of_stage):8.1f}")
    for name, seconds in parts.items():
        print(f"{name}: {seconds:.1f} s, {100 * seconds / work:.1f} %")
    for stage in STAGES:
        of_stage = [job["mlflow"] for job in jobs if job["stage"] == stage]
        if any(of_stage):
            print(f"  MLflow in {stage}: {sum(of_stage) / len(of_stage):.2f} a job")


if __name__ == "__main__":
    main()
