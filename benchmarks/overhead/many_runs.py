"""What thousands of runs cost: seconds to plan their table, to report on them, and to mirror them into MLflow.

Two runs on the bundled CartPole demonstrations, of `bc` and of `iq`, are trained, evaluated and judged. Copies of them
that differ in seed and returns stand for the others: reading them costs what real ones cost. Each command is timed as
a user starts it, in a process of its own, with its peak memory.

    python -m benchmarks overhead many-runs [--runs 5000] [--mirrored 1000] [--json FILE]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.arguments import Parser
from benchmarks.results import result_file
from iq_offline.data.strict_json import read_json
from iq_offline.training.run_folder import CONFIG, EVALUATION, MANIFEST, RETURNS, REWARD, TRACKING, seal_record

DATASET, OTHERS = "demo/cartpole/expert-v0", ["demo/cartpole/mixed-v0"]
METHODS = ("bc", "iq")
SHORT = {"bc": (), "iq": ("--set", "prior.updates=200")}
OWN_FILES = {MANIFEST, CONFIG, EVALUATION, RETURNS, TRACKING}
"""Files that a copy does not share with the run that it is a copy of."""


def iq_offline(*arguments: object, environment: dict[str, str]) -> dict[str, float]:
    """Run one command; its seconds, CPU seconds and peak memory in MB, with the processes that it waits for."""
    command = [sys.executable, "-m", "iq_offline", *map(str, arguments)]
    begun = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(told)
    spent = {"seconds": time.monotonic() - begun, "cpu_seconds": used.ru_utime + used.ru_stime}
    return {name: round(value, 1) for name, value in spent.items()} | {"peak_mb": round(used.ru_maxrss / 1024)}


def trained_runs(folder: Path, environment: dict[str, str]) -> list[Path]:
    """One run a method, with all that later stages add."""
    runs = []
    for method in METHODS:
        run = folder / method
        options = ("--demos", 1, "--subsample", 50, "--updates", 300, "--device", "cpu", *SHORT[method])
        train = ("train", "--dataset", DATASET, "--method", method, *options, "--group", "many")
        iq_offline(*train, "--out", run, environment=environment)
        iq_offline("eval", run, "--episodes", 10, environment=environment)
        if method == "iq":
            judged = [part for dataset in OTHERS for part in ("--dataset", dataset)]
            iq_offline("reward", run, *judged, environment=environment)
        runs.append(run)
    return runs


def copy_run(run: Path, folder: Path, seed: int) -> None:
    """A run with another seed and other returns; files that neither changes are the same on disk."""
    folder.mkdir(parents=True)
    for file in run.iterdir():
        if file.name not in OWN_FILES:
            os.link(file, folder / file.name)
    (folder / CONFIG).write_text((run / CONFIG).read_text().replace("\nseed = 0\n", f"\nseed = {seed}\n"))
    table = pl.read_parquet(run / RETURNS)
    returns = table["return"] + np.random.default_rng(seed).normal(scale=20, size=len(table))
    table.with_columns(returns.alias("return")).write_parquet(folder / RETURNS)
    manifest = read_json(run / MANIFEST)
    manifest |= {"run": folder.name, "seed": seed, "config_hash": f"{manifest['config_hash'][:6]}{seed:06d}"}
    seal_record(folder / MANIFEST, manifest)
    evaluation = read_json(run / EVALUATION) | {"run": folder.name, "seed": seed}
    evaluation |= {"return_mean": float(returns.mean()), "return_std": float(returns.to_numpy().std())}
    seal_record(folder / EVALUATION, evaluation)
    if (run / REWARD).exists():
        (folder / REWARD).unlink()
        seal_record(folder / REWARD, read_json(run / REWARD) | {"run": folder.name, "seed": seed})


def measure(runs: int, mirrored: int, folder: Path) -> dict[str, dict[str, float]]:
    """What each command costs, by its name."""
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"IQ_OFFLINE_HOME": str(folder / "home")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    seeds = runs // len(METHODS)
    table = {"name": "many", "methods": METHODS, "demos": 1, "subsample": 50, "seeds": f"0-{seeds - 1}"}
    (folder / "many.yaml").write_text(json.dumps(table | {"datasets": {"cartpole": DATASET}}))
    planned = iq_offline("run", folder / "many.yaml", "--dry-run", "--out", folder / "work", environment=environment)
    for run in trained_runs(folder / "trained", environment):
        for seed in range(seeds):
            copy_run(run, folder / "runs" / f"{run.name}-seed{seed}", seed)
    everyone = sorted((folder / "runs").iterdir())
    (folder / "runs.txt").write_text("".join(f"{run}\n" for run in everyone))
    (folder / "mirrored.txt").write_text("".join(f"{run}\n" for run in everyone[:: max(len(everyone) // mirrored, 1)]))
    report = iq_offline("report", folder / "runs.txt", "--out", folder / "report", environment=environment)
    mirror = iq_offline("sync", folder / "mirrored.txt", environment=environment)
    again = iq_offline("sync", folder / "mirrored.txt", environment=environment)
    commands = {"run --dry-run": (runs, planned), "report": (runs, report)}
    commands |= {"sync": (mirrored, mirror), "sync, all there": (mirrored, again)}
    return {name: {"runs": count} | costs for name, (count, costs) in commands.items()}


def main(arguments: list[str]) -> None:
    """Measure, and print a line a command."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--mirrored", type=int, default=1000)
    parser.add_json()
    options = parser.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="iq-offline-many-") as temporary, result_file(options) as rows:
        for name, costs in measure(options.runs, options.mirrored, Path(temporary)).items():
            rows.append({"command": name, **costs})
            print(
                f"{name:<16} {costs['runs']:>6,} runs  {costs['seconds']:8.1f} s  {costs['cpu_seconds']:8.1f} CPU s  "
                f"{costs['peak_mb']:7,.0f} MB at most"
            )
