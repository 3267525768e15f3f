"""Seconds from a dataset to a compared table and the UI, by stage, and what is no computing.

`iq-offline run` fetches the bundled CartPole and swimmer demonstrations, trains `bc` and `iq` with so many seeds,
evaluates them, judges the rewards and reports; then `iq-offline ui` is started, until it answers. First with an empty
IQ_OFFLINE_HOME (cold), then with the same one and another working folder (warm). Python's own caches stay.

All are wall seconds. Those of a job begin when its process starts and end when it ends: `computing` of them are
updates with their batches, stepping of environments, rewards and their correlations; `compiling` makes the compiled
updates; the rest is starting, importing, hashing, reading and writing files, drawing the report. `no job` is the time
in which Snakemake has no job running. Jobs that run side by side count once each, so that with several cores the sum
is more than the time that one waits.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from benchmarks.arguments import Parser
from benchmarks.markdown import table
from benchmarks.overhead.watching import lines_of, watched
from benchmarks.processes import ONE_THREAD, importable
from benchmarks.results import Row, result_file

DATASETS = {name: {"dataset": f"demo/{name}/expert-v0"} for name in ("cartpole", "swimmer")}
STAGES = ("fetch", "convert", "train", "eval", "reward", "report")
PARTS = ("computing", "compiling", "mlflow", "rest")
UI_PATIENCE = 300.0


def main(arguments: list[str]) -> None:
    """Run the table twice, print where the time went."""
    parser = Parser(__name__, __doc__)
    parser.add_seeds("0-2")
    parser.add_argument("--updates", type=int, help="of each method and its clone (default: their own)")
    parser.add_argument("--episodes", type=int, default=10, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--cores", type=int, default=2, help="default: %(default)s")
    parser.add_json()
    options = parser.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="iq-offline-time-") as temporary, result_file(options) as rows:
        home = Path(temporary) / "home"
        for name in ("cold", "warm"):
            rows += measured(name, Path(temporary) / name, home, options)
    columns = ["home", "stage", "jobs", "seconds", "computing", "compiling", "MLflow", "rest"]
    print(table(columns, [[row["home"], row["stage"], row["jobs"], *map(_seconds, _figures(row))] for row in rows]))
    for row in rows:
        if row["stage"] == "all":
            print(f"\n{row['home']}: {_answer(row)}")


def measured(name: str, folder: Path, home: Path, options: argparse.Namespace) -> list[Row]:
    """One run of the table in a new working folder, and the start of the UI."""
    folder.mkdir()
    (folder / "table.yaml").write_text(json.dumps(described(options)))  # JSON is YAML
    environment = importable(os.environ) | ONE_THREAD | {"IQ_OFFLINE_HOME": str(home)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "iq_offline", "run", str(folder / "table.yaml"), "--cores", str(options.cores)]
    command += ["--out", str(folder / "work")]
    begun = time.clock_gettime(time.CLOCK_BOOTTIME)
    ran = subprocess.run(command, env=watched(environment, folder), capture_output=True, text=True, check=False)
    ended = time.clock_gettime(time.CLOCK_BOOTTIME)
    if ran.returncode:
        sys.exit(ran.stderr)
    jobs, stages = lines_of(folder, "job"), lines_of(folder, "stage")
    idle = ended - begun - covered([(job["begun"], job["ended"]) for job in jobs])
    rows = [
        *(of_stage(stage, jobs, stages) for stage in STAGES),
        _rest("no job", idle),
        _rest("ui answers", seconds_of_ui(environment)),
    ]
    whole: Row = {"stage": "all", "jobs": len(jobs)}
    whole |= {key: sum(row.get(key, 0.0) for row in rows) for key in ("seconds", *PARTS)}
    whole |= {"waited": ended - begun + rows[-1]["seconds"], "not_computing": 1 - whole["computing"] / whole["seconds"]}
    return [{"home": name, **row} for row in (*rows, whole)]


def described(options: argparse.Namespace) -> Row:
    """The table: its datasets, methods, seeds."""
    few = {"bc": {"updates": options.updates}, "iq": {"updates": options.updates}}
    few["iq"]["set"] = {"prior.updates": options.updates}
    return {
        "name": "time-to-answer",
        "methods": few if options.updates else list(few),
        "seeds": options.seeds,
        "episodes": options.episodes,
        "device": "cpu",
        "datasets": DATASETS,
    }


def of_stage(stage: str, jobs: list[Row], stages: list[Row]) -> Row:
    """The seconds of all jobs of a stage, and of each part of them."""
    own = [job for job in jobs if job["job"] == stage]
    seconds = sum(job["ended"] - job["begun"] for job in own)
    parts = {
        part: sum(line[f"{part}_seconds"] for line in stages if line["stage"] == stage)
        for part in PARTS
        if part != "rest"
    }
    return {"stage": stage, "jobs": len(own), "seconds": seconds, **parts, "rest": seconds - sum(parts.values())}


def covered(spans: list[tuple[float, float]]) -> float:
    """Seconds in which at least one of the spans runs."""
    total, last = 0.0, float("-inf")
    for begun, ended in sorted(spans):
        total += max(0.0, ended - max(begun, last))
        last = max(last, ended)
    return total


def seconds_of_ui(environment: dict[str, str]) -> float:
    """Until the UI has served its page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "iq_offline", "ui", "--no-browser", "--port", str(port)]
    begun = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        while server.poll() is None and time.monotonic() - begun < UI_PATIENCE:
            try:
                with urlopen(f"http://127.0.0.1:{port}/", timeout=UI_PATIENCE) as page:
                    page.read()
                    return time.monotonic() - begun
            except OSError:
                time.sleep(0.05)
        sys.exit("the UI does not answer: iq-offline ui")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def _rest(stage: str, seconds: float) -> Row:
    return {"stage": stage, "jobs": "-", "seconds": seconds, "rest": seconds}


def _figures(row: Row) -> list[float | None]:
    return [row.get(key) for key in ("seconds", *PARTS)]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _answer(row: Row) -> str:
    share = f"{row['not_computing']:.0%} of {row['seconds']:.1f} seconds is neither numerics nor simulation"
    return f"{row['waited']:.1f} seconds until the UI answers; {share}"
