"""Resident memory of a training run over a large dataset: how much it is, and whether it grows.

python -m benchmarks data training-memory --transitions 1000000 --updates 100000

Random episodes of 1,000 steps (17 observation and 6 action numbers) in D4RL's layout; `iq` on all of them with small
networks, since only memory is measured. A second process reads the run's resident memory each second. Prints the packed
table's size, and the resident memory when training has begun, half way, at the end, and at its greatest.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.arguments import Parser
from benchmarks.data.large_source import make_source
from benchmarks.processes import resident_megabytes
from benchmarks.results import result_file

BEGUN = 0.1
"""Share of the samples after which training is taken to have begun: reading and packing come before."""


def main(arguments: list[str]) -> None:
    """Make the data, train in a process of its own, and watch it."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--transitions", type=int, default=1_000_000)
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--compile", default="off", choices=["on", "off"])
    parser.add_json()
    options = parser.parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        source = make_source(Path(folder) / "x.hdf5", options.transitions)
        environment = os.environ | {"IQ_OFFLINE_HOME": str(Path(folder) / "home"), "OMP_NUM_THREADS": "1"}
        convert = [sys.executable, "-m", "iq_offline", "inspect", str(source)]
        subprocess.run(convert, env=environment, stdout=subprocess.DEVNULL, check=True)
        packed = sum(file.stat().st_size for file in Path(folder).glob("home/tables/*/*")) / 2**20
        run = Path(folder) / "run"
        process = subprocess.Popen(_training(source, run, options), env=environment, stdout=subprocess.DEVNULL)
        samples = []
        while process.poll() is None:
            samples.append(resident_megabytes(process.pid))
            time.sleep(1)
        if process.returncode != 0:
            sys.exit("the run failed")
    known = [sample for sample in samples if sample is not None]
    named = {
        "begun": known[int(BEGUN * len(known))],
        "half": known[len(known) // 2],
        "end": known[-2],
        "most": max(known),
    }
    with result_file(options) as rows:
        rows.append({"packed_megabytes": packed, **{f"{name}_megabytes": value for name, value in named.items()}})
    listed = ", ".join(f"{name} {value:.0f}" for name, value in named.items())
    print(f"packed table {packed:.0f} MB; resident MB: {listed}; most less packed: {named['most'] - packed:.0f}")


def _training(source: Path, run: Path, options: argparse.Namespace) -> list[str]:
    small = ("hidden_sizes=[32]", "prior.hidden_sizes=[32]", "prior.updates=1000")
    return [
        *(sys.executable, "-m", "iq_offline", "train", "--dataset", str(source), "--method", "iq", "--out", str(run)),
        *("--updates", str(options.updates), "--compile", options.compile, "--device", "cpu"),
        *(part for setting in small for part in ("--set", setting)),
    ]
