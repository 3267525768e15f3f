"""Peak memory of converting a large D4RL HDF5 file to Minari, read back and all.

Random episodes of 1,000 steps (17 observation and 6 action numbers, 32 bits): 98 bytes a step, so that 100 million
steps are 9.8 GB; three times that is needed on the disk. Prints one line.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from benchmarks.arguments import Parser
from benchmarks.processes import peak_megabytes
from benchmarks.results import result_file

CHUNK = 250_000
EPISODE = 1000


def main(arguments: list[str]) -> None:
    """Make the file, convert it, print what it took."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--steps", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_json()
    options = parser.parse(arguments)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    os.environ["IQ_OFFLINE_HOME"] = str(folder / "home")
    try:
        source = make_source(folder / "x.hdf5", options.steps)
        from iq_offline.stages.convert import ConvertRequest, convert_dataset

        started = time.perf_counter()
        record = convert_dataset(str(source), folder / "x-v0", ConvertRequest())
        seconds = time.perf_counter() - started
        peak, size = peak_megabytes(), source.stat().st_size / 1e9
        found = {"gigabytes": size, "steps": record["read"]["steps"], "seconds": seconds, "peak_megabytes": peak}
        with result_file(options) as rows:
            rows.append(found)
        print(f"{size:.1f} GB, {record['read']['steps']:,} steps: {seconds:.0f} s, peak memory {peak:.0f} MB")
    finally:
        shutil.rmtree(folder)


def make_source(path: Path, steps: int) -> Path:
    """Random steps, a chunk at a time."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        observations = file.create_dataset("observations", (steps, 17), np.float32)
        actions = file.create_dataset("actions", (steps, 6), np.float32)
        rewards = file.create_dataset("rewards", (steps,), np.float32)
        terminals = file.create_dataset("terminals", (steps,), bool)
        timeouts = file.create_dataset("timeouts", (steps,), bool)
        for first in range(0, steps, CHUNK):
            rows = slice(first, min(first + CHUNK, steps))
            count = rows.stop - first
            observations[rows] = rng.standard_normal((count, 17), dtype=np.float32)
            actions[rows] = rng.uniform(-1, 1, (count, 6)).astype(np.float32)
            rewards[rows], terminals[rows] = 1.0, False
            timeouts[rows] = np.arange(first, rows.stop) % EPISODE == EPISODE - 1
    return path
