"""Datasets to training-ready, conversions, batches, beside d3rlpy and Minari: seconds and memory.

Synthetic episodes of 1,000 steps (17 observation and 6 action numbers, 32 bits), in D4RL's layout and in Minari's.
Each measurement runs in a process of its own, with its imports done before the clock starts and one thread; peers
take turns, round by round. `first pass` touches every row once, as the first epoch of training would: our table is
written past the page cache, so its first reading comes from the disk. Prints Markdown: medians, and ratios to the peer.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import Parser
from benchmarks.markdown import median_and_range, table
from benchmarks.processes import ONE_THREAD, apart, peak_megabytes
from benchmarks.results import result_file
from benchmarks.yardsticks.rounds import interleaved

EPISODE = 1000
OBSERVATION, ACTION = 17, 6
BATCH = 256

Result = dict[str, float]


def main(arguments: list[str]) -> None:
    """Make the data, run all measurements in turn, print the table."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_json()
    options = parser.parse(arguments)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        with result_file(options) as rows:
            make_data(folder, options.steps)
            works = {name: partial(in_its_own_process, name, folder) for name in MEASUREMENTS}
            rounds = list(interleaved(works, options.rounds))
            rows += [
                {"measurement": name, "round": number, **result}
                for number, found in enumerate(rounds)
                for name, result in found.items()
            ]
        results = {name: [found[name] for found in rounds] for name in MEASUREMENTS}
        show(results, 4 * (OBSERVATION + ACTION + 2) * (options.steps + options.steps // EPISODE))
    finally:
        shutil.rmtree(folder)


def make_data(folder: Path, steps: int) -> None:
    """`d4rl.hdf5` without next observations, as d3rlpy reads it, and `with-next.hdf5`; Minari's own `x-v0` of them."""
    import h5py

    rng = np.random.default_rng(0)
    episodes = steps // EPISODE
    observations = rng.standard_normal((episodes, EPISODE + 1, OBSERVATION)).astype(np.float32)
    ends = np.tile(np.arange(EPISODE) == EPISODE - 1, episodes)
    arrays = {
        "observations": observations[:, :-1].reshape(-1, OBSERVATION),
        "actions": rng.uniform(-1, 1, (steps, ACTION)).astype(np.float32),
        "rewards": rng.standard_normal(steps).astype(np.float32),
        "terminals": np.zeros(steps, dtype=bool),
        "timeouts": ends,
    }
    with h5py.File(folder / "d4rl.hdf5", "w") as plain, h5py.File(folder / "with-next.hdf5", "w") as whole:
        for key, values in arrays.items():
            plain[key] = whole[key] = values
        whole["next_observations"] = observations[:, 1:].reshape(-1, OBSERVATION)
    in_its_own_process("minari: create_dataset_from_buffers", folder)
    (folder / "made" / "benchmark").rename(folder / "benchmark")


def in_its_own_process(name: str, folder: Path) -> Result:
    """One measurement, with a store of its own and one thread."""
    home = Path(tempfile.mkdtemp(dir=folder))
    places = {"IQ_OFFLINE_HOME": str(home / "home"), "MINARI_DATASETS_PATH": str(folder)}
    if name.startswith("minari: create"):
        places["MINARI_DATASETS_PATH"] = str(folder / "made")
    try:
        result: Result = apart(_measured, name, folder, environment=places | ONE_THREAD)
    finally:
        shutil.rmtree(home)
        if (folder / "benchmark").exists():
            shutil.rmtree(folder / "made", ignore_errors=True)
    return result


def _measured(name: str, folder: Path) -> Result:
    return MEASUREMENTS[name](folder)


def measured(work: Callable[[], Any]) -> tuple[Any, Result]:
    """What the work gave, with its processor seconds, wall seconds and growth of the process's peak memory."""
    before, processor, wall = peak_megabytes(), time.process_time(), time.perf_counter()
    value = work()
    spent = {"processor": time.process_time() - processor, "wall": time.perf_counter() - wall}
    return value, spent | {"megabytes": peak_megabytes() - before}


def seconds_each(work: Callable[[], Any], times: int) -> float:
    """Processor seconds of one call, once as many have been made before."""
    for _ in range(times):
        work()
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times


def ours_open(name: str) -> Callable[[Path], Result]:
    """Cold opening of a dataset's table."""

    def measure(folder: Path) -> Result:
        import filelock  # noqa: F401
        import polars  # noqa: F401
        import torch  # noqa: F401
        import xxhash  # noqa: F401

        from iq_offline.data.catalogue import Located
        from iq_offline.data.formats import d4rl, minari  # noqa: F401
        from iq_offline.data.table import open_table

        located = Located("x", folder / name)
        table, result = measured(lambda: open_table(located))
        _, first = measured(lambda: float(np.asarray(table.rows).sum()))
        _, warm = measured(lambda: open_table(located))
        return result | {"first pass": first["processor"], "warm": warm["processor"], "warm wall": warm["wall"]}

    return measure


def d3rlpy_open(folder: Path) -> Result:
    """d3rlpy's path: arrays from the file, then an MDPDataset."""
    import d3rlpy
    import h5py

    def work() -> Any:
        with h5py.File(folder / "d4rl.hdf5") as file:
            arrays = {key: file[key][()] for key in ("observations", "actions", "rewards", "terminals", "timeouts")}
        flags = {key: arrays[key].astype(np.float32) for key in ("terminals", "timeouts")}
        return d3rlpy.dataset.MDPDataset(arrays["observations"], arrays["actions"], arrays["rewards"], **flags)

    dataset, result = measured(work)
    return result | {"batch": seconds_each(lambda: dataset.sample_transition_batch(BATCH), 200)}


def minari_open(_: Path) -> Result:
    """Minari's path: load, iterate; then the flat arrays that training takes."""
    import minari

    def iterate() -> Any:
        return list(minari.load_dataset("benchmark/x-v0").iterate_episodes())

    def flat(episodes: Any) -> Any:
        return [
            np.concatenate([episode.observations[:-1] for episode in episodes]),
            np.concatenate([episode.observations[1:] for episode in episodes]),
            *(np.concatenate([getattr(episode, key) for episode in episodes]) for key in ("actions", "rewards")),
        ]

    episodes, result = measured(iterate)
    _, after = measured(lambda: flat(episodes))
    return result | {"with arrays": result["processor"] + after["processor"]}


def ours_batches(folder: Path) -> Result:
    """Batches from the table of all transitions."""
    import torch

    from iq_offline.data.catalogue import Located
    from iq_offline.data.table import open_table
    from iq_offline.training.batches import TransitionSampler

    table = open_table(Located("x", folder / "d4rl.hdf5"))
    sampler, ready = measured(lambda: TransitionSampler(table, table.transition_rows, torch.device("cpu")))
    batches = sampler.batches(BATCH, torch.Generator().manual_seed(0))
    return {"processor": ready["processor"], "batch": seconds_each(lambda: next(batches), 10 * 256)}


def ours_write(folder: Path) -> Result:
    """Our writer alone: D4RL HDF5 to Minari HDF5, checked as it is read."""
    import polars  # noqa: F401
    import xxhash  # noqa: F401

    from iq_offline.data.formats import d4rl, minari

    destination = Path(os.environ["IQ_OFFLINE_HOME"]) / "x-v0"
    return measured(lambda: minari.write(d4rl.read(folder / "d4rl.hdf5", "x"), destination))[1]


def ours_convert(folder: Path) -> Result:
    """The whole command: written, read back and compared, hashed, summarised, its training table made."""
    import torch  # noqa: F401

    from iq_offline.data.formats import d4rl, minari  # noqa: F401
    from iq_offline.stages.convert import ConvertRequest, convert_dataset

    destination = Path(os.environ["IQ_OFFLINE_HOME"]) / "x-v0"
    return measured(lambda: convert_dataset(str(folder / "d4rl.hdf5"), destination, ConvertRequest()))[1]


def minari_create(folder: Path) -> Result:
    """Minari's way from the same file: arrays, episode buffers, create_dataset_from_buffers."""
    import gymnasium
    import h5py
    import minari
    from minari.data_collector import EpisodeBuffer

    def work() -> None:
        with h5py.File(folder / "with-next.hdf5") as file:
            arrays = {key: file[key][()] for key in file}
        buffers = []
        for first in range(0, len(arrays["actions"]), EPISODE):
            rows = slice(first, first + EPISODE)
            final = arrays["next_observations"][rows.stop - 1 : rows.stop]
            buffers.append(
                EpisodeBuffer(
                    id=first // EPISODE,
                    observations=np.concatenate([arrays["observations"][rows], final]),
                    actions=arrays["actions"][rows],
                    rewards=arrays["rewards"][rows],
                    terminations=arrays["terminals"][rows],
                    truncations=arrays["timeouts"][rows],
                    infos={},
                )
            )
        minari.create_dataset_from_buffers(
            "benchmark/x-v0",
            buffers,
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32),
            action_space=gymnasium.spaces.Box(-1, 1, (ACTION,), np.float32),
        )

    return measured(work)[1]


MEASUREMENTS: dict[str, Callable[[Path], Result]] = {
    "d3rlpy: MDPDataset": d3rlpy_open,
    "ours: D4RL HDF5": ours_open("d4rl.hdf5"),
    "ours: D4RL HDF5 with next observations": ours_open("with-next.hdf5"),
    "minari: load and iterate": minari_open,
    "ours: Minari HDF5": ours_open("benchmark/x-v0"),
    "ours: batches": ours_batches,
    "minari: create_dataset_from_buffers": minari_create,
    "ours: write Minari": ours_write,
    "ours: convert to Minari": ours_convert,
}


def show(results: dict[str, list[Result]], packed_bytes: int) -> None:
    """Medians over the rounds, as a table, and the ratios."""

    def median(name: str, key: str) -> float:
        return statistics.median(result[key] for result in results[name])

    rows = [
        [
            name,
            median_and_range([result["processor"] for result in rounds], "{:.3f}"),
            f"{median(name, 'wall'):.3f}",
            f"{median(name, 'megabytes'):.0f}",
        ]
        for name, rounds in results.items()
        if name != "ours: batches"
    ]
    print(table(["measurement", "processor s, median (min to max)", "wall s", "peak memory MB"], rows))
    cold, nexts, minari = "ours: D4RL HDF5", "ours: D4RL HDF5 with next observations", "minari: load and iterate"
    peer = median("d3rlpy: MDPDataset", "processor")
    print()
    print(f"- D4RL HDF5 to training-ready: {peer / median(cold, 'processor'):.1f} times d3rlpy's path", end=" ")
    print(
        f"({peer / median(nexts, 'processor'):.1f} times with next observations, which d3rlpy does not read);", end=" "
    )
    print(f"a first pass over the rows costs another {median(cold, 'first pass'):.3f} s")
    print(f"- its peak memory: {median(cold, 'megabytes') / (packed_bytes / 2**20):.2f} times the packed bytes")
    ours = median("ours: Minari HDF5", "processor")
    print(
        f"- Minari HDF5 to training-ready: {median(minari, 'processor') / ours:.2f} times Minari's load and iterate,",
        end=" ",
    )
    print(f"{median(minari, 'with arrays') / ours:.2f} times with the arrays joined")
    print(f"- a warm open: {1000 * median(cold, 'warm wall'):.1f} ms")
    batch = median("ours: batches", "batch")
    print(
        f"- a batch of {BATCH}: {1e6 * batch:.1f} µs, {median('d3rlpy: MDPDataset', 'batch') / batch:.0f} times"
        " faster than d3rlpy's"
    )
    create = median("minari: create_dataset_from_buffers", "processor")
    print(
        f"- HDF5 to Minari: {create / median('ours: write Minari', 'processor'):.2f} times as fast as Minari's;",
        end=" ",
    )
    print(
        f"{create / median('ours: convert to Minari', 'processor'):.2f} times with reading back, hashes and the table"
    )
