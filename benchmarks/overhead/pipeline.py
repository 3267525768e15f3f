"""What a results table costs beyond its computing: CPU seconds of `iq-offline run` and its jobs.

The table: the bundled CartPole and swimmer demonstrations, `bc` and `iq` at their own number of updates, so many seeds,
evaluated, rewards judged, reported, mirrored into a fresh MLflow store. Inside each job the stage's own work and its
calls into MLflow are timed apart, by a `sitecustomize.py` that this puts before the jobs. Overhead is all that is not
the stages' work: Snakemake, starts of processes, imports, MLflow.

    python -m benchmarks overhead pipeline [--seeds 0-4] [--updates N] [--cores 2]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.arguments import Parser
from benchmarks.overhead.watching import STAGES, lines_of, watched
from benchmarks.processes import ROOT
from benchmarks.results import Row, result_file


def main(arguments: list[str]) -> None:
    """Run the table and print where its CPU seconds went."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--updates", type=int)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_json()
    options = parser.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="iq-offline-overhead-") as temporary, result_file(options) as rows:
        folder = Path(temporary)
        whole = _cpu_of_pipeline(folder, options)
        idle = _cpu_of_pipeline(folder, options)
        rows += _show(whole, idle, lines_of(folder, "stage"))


def _cpu_of_pipeline(folder: Path, options: argparse.Namespace) -> float:
    """CPU seconds of one `iq-offline run` and all that it starts."""
    demo = (ROOT / "pipelines" / "demo.yaml").read_text()
    table = demo.replace("seeds: 0-1", f"seeds: {options.seeds}")
    (folder / "table.yaml").write_text(f"{table}\nupdates: {options.updates}" if options.updates else table)
    environment = {"OMP_NUM_THREADS": "1"} | watched(os.environ, folder) | {"IQ_OFFLINE_HOME": str(folder / "home")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "iq_offline", "run", str(folder / "table.yaml"), "--cores", str(options.cores)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run([*command, "--out", str(folder / "work")], env=environment, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(ran.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _show(whole: float, idle: float, jobs: list[Row]) -> list[Row]:
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
    totals = {"whole": whole, "the stages' work": work} | parts
    return [{"part": name, "cpu_seconds": seconds} for name, seconds in totals.items()]
