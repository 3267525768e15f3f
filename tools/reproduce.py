#!/usr/bin/env python3
"""Does the small pipeline repeat? Run by `make reproduce`; every line printed is a check, and one that fails exits 1.

Twice from nothing, in two clean folders: data as converted, tensors, metrics, returns, correlations must be equal, bit
for bit; the data must have the committed hashes, and the returns lie in the committed bands. A third run is killed with
signal 9 in the middle of a training and started again: no finished job is repeated, the tensors are those of the first,
and then nothing is left to do.

`--update` writes the expected values from the first run (bands: a fifth of the mean to each side).
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iq_offline.stages.fetch import open_dataset

PIPELINE = "quick"
EXPECTED = Path(__file__).parents[1] / "pipelines" / "expected" / f"{PIPELINE}.toml"
WIDE = 0.2
KILL_WITHIN_SECONDS = 1800
Check = tuple[str, bool]


def main() -> None:
    """Run all checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="iq-offline-reproduce-") as temporary:
        first, second, killed = (Path(temporary) / name for name in ("first", "second", "killed"))
        run(first, options.cores)
        if options.update:
            EXPECTED.parent.mkdir(exist_ok=True)
            EXPECTED.write_text(as_toml(expected_of(first)))
        failed = show(against_expected(first))
        run(second, options.cores)
        failed += show(against_each_other(first, second))
        failed += show(killed_and_gone_on_with(killed, first))
    sys.exit(f"{failed} checks failed" if failed else 0)


def show(checks: Iterator[Check]) -> int:
    """Print checks as they come; returns how many failed."""
    failed = 0
    for text, passed in checks:
        print(f"{'ok    ' if passed else 'FAILED'}  {text}", flush=True)
        failed += not passed
    return failed


def against_expected(folder: Path) -> Iterator[Check]:
    """Converted data by their hashes, returns by their bands."""
    found, expected = expected_of(folder), tomllib.loads(EXPECTED.read_text())
    yield (
        "the expected datasets and runs are those of the table",
        all(found[kind].keys() == expected[kind].keys() for kind in ("converted", "return_mean")),
    )
    for name, sha256 in expected["converted"].items():
        yield f"{name}: converted data have the committed hash", found["converted"].get(name) == sha256
    for name, (low, high) in expected["return_mean"].items():
        value = evaluation(folder, name)["return_mean"]
        yield f"{name}: return {value:.1f} from {low} to {high}", low <= value <= high


def against_each_other(first: Path, second: Path) -> Iterator[Check]:
    """Everything that a run computes, bit for bit; times, paths and run ids are not looked at."""
    yield "converted data are equal", expected_of(first)["converted"] == expected_of(second)["converted"]
    for name in run_names(first):
        yield from same_run(name, first, second)


def same_run(name: str, first: Path, second: Path) -> Iterator[Check]:
    """Tensors, metrics, returns and correlations of one run in two places."""
    yield f"{name}: tensors are equal", hashes(first, name) == hashes(second, name)
    for file in ("metrics.parquet", "returns.parquet", "rewards.parquet"):
        one, other = (folder / "work" / "runs" / name / file for folder in (first, second))
        if one.is_file():
            yield f"{name}: {file} is equal", other.is_file() and one.read_bytes() == other.read_bytes()


def killed_and_gone_on_with(folder: Path, whole: Path) -> Iterator[Check]:
    """Kill a run on one core while it trains its second run, then start it again, and look at what it did."""
    process = start(folder, cores=1)
    deadline = time.monotonic() + KILL_WITHIN_SECONDS
    while not in_the_middle(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    yield "it was killed in the middle of a training", process.poll() is None
    snakemake = json.loads((folder / "work" / ".iq-offline-run.json").read_text())["process"]
    os.kill(process.pid, signal.SIGKILL)
    os.kill(snakemake, signal.SIGKILL)
    process.wait()
    finished = states(folder)
    again = run(folder, 2)
    yield "the dead run's lock is told of and released", "was locked by a run that is dead" in again.stderr
    yield "what the dead run had left at work is ended", "that the dead run had left at work" in again.stderr
    yield f"none of {len(finished)} finished jobs is repeated", states(folder).items() >= finished.items()
    for name in run_names(whole):
        yield from same_run(name, whole, folder)
    started = time.monotonic()
    idle = run(folder, 2)
    yield (
        f"then nothing is left to do ({time.monotonic() - started:.1f} s)",
        "Nothing to be done" in idle.stderr + idle.stdout and states(folder).items() >= finished.items(),
    )


def in_the_middle(folder: Path) -> bool:
    """Whether one run is whole, and another is being trained."""
    runs = folder / "work" / "runs"
    return any(runs.glob("[!.]*/manifest.json")) and any(
        not (runs / part.name[1:].rsplit(".", 2)[0]).exists() for part in runs.glob(".*.part")
    )


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """Time and inode of one file of each finished job: a job that is repeated makes another."""
    work = folder / "work"
    files = [*work.glob("fetched/*.json"), *work.glob("datasets/*/provenance.json"), *work.glob("done/*.json")]
    files += work.glob("runs/[!.]*/policy.safetensors")
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_ino) for file in files}


def start(folder: Path, cores: int) -> "subprocess.Popen[str]":
    """The pipeline in a folder, with a store of its own."""
    command = [
        sys.executable,
        "-m",
        "iq_offline",
        "run",
        PIPELINE,
        "--cores",
        str(cores),
        "--out",
        str(folder / "work"),
    ]
    environment = os.environ | {"IQ_OFFLINE_HOME": str(folder / "home")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    folder.mkdir(exist_ok=True)
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as errors:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=errors, text=True)


def run(folder: Path, cores: int) -> "subprocess.CompletedProcess[str]":
    """The same to its end; a pipeline that fails ends all."""
    status = start(folder, cores).wait()
    out, errors = ((folder / name).read_text() for name in ("stdout", "stderr"))
    if status:
        sys.exit(f"{errors}\nthe pipeline exited {status}")
    return subprocess.CompletedProcess([], status, out, errors)


def expected_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Hashes of the converted data's content and bands of returns, from a finished folder."""
    converted = {path.name: content_sha256(path) for path in sorted((folder / "work" / "datasets").iterdir())}
    returns = {name: evaluation(folder, name)["return_mean"] for name in run_names(folder)}
    bands = {
        name: [round(mean - WIDE * abs(mean), 1), round(mean + WIDE * abs(mean), 1)] for name, mean in returns.items()
    }
    return {"converted": converted, "return_mean": bands}


def content_sha256(path: Path) -> str:
    """Of the rows and the ends of a dataset's episodes, however the file format writes them."""
    table = open_dataset(str(path))
    digest = hashlib.sha256(table.rows.tobytes())
    for row in table.episodes.select("start_row", "steps", "terminated", "truncated").iter_rows():
        digest.update(repr(row).encode())
    return digest.hexdigest()


def run_names(folder: Path) -> list[str]:
    """Of the finished runs."""
    return sorted(file.parent.name for file in (folder / "work" / "runs").glob("[!.]*/manifest.json"))


def evaluation(folder: Path, name: str) -> dict[str, Any]:
    """Of one run."""
    content: dict[str, Any] = json.loads((folder / "work" / "runs" / name / "evaluation.json").read_text())
    return content


def hashes(folder: Path, name: str) -> tuple[str, str]:
    """Of a run's checkpoint and policy."""
    manifest = json.loads((folder / "work" / "runs" / name / "manifest.json").read_text())
    return manifest["checkpoint_sha256"], manifest["policy_sha256"]


def as_toml(content: dict[str, dict[str, Any]]) -> str:
    """Expected values with their origin."""
    lines = [
        "# What `make reproduce` expects of pipelines/quick.yaml; written by `python tools/reproduce.py --update`."
    ]
    for table, values in content.items():
        lines += ["", f"[{table}]", *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
