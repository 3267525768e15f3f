"""What pictures cost: to convert, to sample, and to train on, beside a loop of bare PyTorch.

convert: one raw episode of that many steps, 210 x 160 x 3 bytes each, becomes 84 x 84 gray frames; prints the peak
memory. sample: a table's size on disk and the time to open it; stacks of 4 frames drawn from it a second, as bytes, the
same ones again, and as the batches of observations and successors that a learner gets; and peak memory, the mapped
frames that were read among it. 1,000,000 frames take 7 GB of the temporary folder.
train: updates a second of `bc` and `iq` (discrete actions, Nature encoder, batches of 64), in turn with a plain loop
of the same cloning network on stacks that lie in memory; and the peak memory of a process for each number of frames.
One thread. Seconds are the process's own, so that other load counts for little. Prints Markdown tables. convert needs
OpenCV.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.arguments import Parser
from benchmarks.markdown import print_header, print_row
from benchmarks.markdown import table as markdown
from benchmarks.processes import ONE_THREAD, apart, peak_megabytes
from benchmarks.results import Row, result_file
from benchmarks.yardsticks.rounds import interleaved
from iq_offline.algorithms.bc import BCLearner
from iq_offline.algorithms.build import clone_policy
from iq_offline.algorithms.learner import OwnLearner
from iq_offline.batch import Batch
from iq_offline.config.train import algorithm_config
from iq_offline.data.catalogue import Located
from iq_offline.data.episodes import DatasetInfo, End, Episode, EpisodeSource, Segment
from iq_offline.data.formats import minari
from iq_offline.data.frames import Frames
from iq_offline.data.packing import pack
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.strict_json import sealed
from iq_offline.data.table import TransitionTable, load
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.learnt import Data, build_learner

EPISODE, ACTIONS, STACK, BATCH = 2000, 6, 4, 64
ROUNDS = 5
CPU = torch.device("cpu")
SAMPLED = ("frames", "GB", "ms to open", "stacks a second, first", "again", "of batches, floats", "peak MB")


def main(arguments: list[str]) -> None:
    """Parse, measure, print."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("what", choices=("convert", "sample", "train"))
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--frames", type=int, nargs="*")
    parser.add_argument("--updates", type=int, default=40)
    parser.add_json()
    options = parser.parse(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, result_file(options) as rows:
        os.environ["IQ_OFFLINE_HOME"] = folder
        if options.what == "convert":
            rows.append(convert(Path(folder), options.steps))
        elif options.what == "sample":
            print_header(*SAMPLED)
            for frames in options.frames or [10_000, 100_000, 1_000_000]:
                rows.append(sample(Path(folder), frames))
        else:
            for frames in options.frames or [20_000]:
                rows += train(Path(folder), frames, options.updates)


def convert(folder: Path, steps: int) -> Row:
    """Peak memory and seconds of one long raw episode."""
    raw = folder / "raw-v0"
    write_raw(raw, steps)
    seconds, peak = apart(_convert, raw, folder / "frames-v0", environment=ONE_THREAD)
    size = steps * 210 * 160 * 3 / 1e9
    row = [f"{size:.1f}", f"{steps:,}", f"{seconds:.0f}", f"{peak:.0f}"]
    print(markdown(["raw GB", "steps", "seconds", "peak MB"], [row]))
    return {"raw_gigabytes": size, "steps": steps, "cpu_seconds": seconds, "peak_megabytes": peak}


def _convert(raw: Path, destination: Path) -> tuple[float, float]:
    from iq_offline.stages.convert import ConvertRequest, convert_dataset

    started = time.process_time()
    convert_dataset(str(raw), destination, ConvertRequest(frames=Frames((84, 84), gray=True, stack=STACK)))
    return time.process_time() - started, peak_megabytes()


def write_raw(folder: Path, steps: int) -> None:
    """One episode of random pictures as Minari has it, a thousand steps at a time."""
    import h5py

    small = np.zeros((1, 210, 160, 3), np.uint8)
    one = Episode(0, np.repeat(small, 2, 0), np.zeros(1, np.int64), np.zeros(1), terminated=False, truncated=True)
    minari.write(EpisodeSource(DatasetInfo("raw-v0", "raw", "raw", origin_sha256="0" * 64), [one]), folder)
    random = np.random.default_rng(0)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        group = file["episode_0"]
        for name, kind in (("actions", np.int64), ("rewards", float), ("terminations", bool), ("truncations", bool)):
            del group[name]
            group[name] = np.zeros(steps, kind)
        group["truncations"][-1] = True
        group.attrs["total_steps"] = steps
        del group["observations"]
        stored = group.create_dataset("observations", (steps + 1, 210, 160, 3), np.uint8)
        for first in range(0, steps + 1, 1000):
            count = min(1000, steps + 1 - first)
            stored[first : first + count] = random.integers(0, 256, (count, 210, 160, 3), np.uint8)


def made(folder: Path, frames: int) -> TransitionTable:
    """A table of random frames, as a converted dataset has them."""
    place = folder / f"table-{frames}"
    place.mkdir()
    (place / "source").write_text("")
    space = DiscreteActions(ACTIONS)
    info = DatasetInfo(
        "frames", str(place / "source"), "memory", action_space=space, stack=STACK, origin_sha256="0" * 64
    )
    content = pack(EpisodeSource(info, stream=lambda **_: segments(frames)), place)
    (place / "table.json").write_text(json.dumps(sealed(content)))
    return load(place, Located(name="frames", path=place / "source"))


def segments(frames: int) -> Iterator[Segment]:
    """Episodes of random frames; so many frames in all."""
    random = np.random.default_rng(0)
    for _ in range(max(1, frames // EPISODE)):
        steps = min(EPISODE, frames) - 1
        pictures = random.integers(0, 256, (steps + 1, 84, 84), np.uint8)
        end = End({"": pictures[-1]}, terminated=False, truncated=True)
        actions = random.integers(0, ACTIONS, steps)
        yield Segment({"": pictures[:-1]}, actions, np.zeros(steps), end)


def sample(folder: Path, frames: int) -> Row:
    """What a table of so many frames costs: to open, and to sample, in a process of its own."""
    made(folder, frames)
    place = folder / f"table-{frames}"
    size = sum(file.stat().st_size for file in place.iterdir()) / 1e9
    opening, first, again, widened, memory = apart(_sample, place, environment=ONE_THREAD)
    shutil.rmtree(place)
    speeds = (f"{found:,.0f}" for found in (first, again, widened, memory))
    print_row(f"{frames:,}", f"{size:.2f}", f"{opening * 1000:.1f}", *speeds)
    stacks = {"stacks_a_second": first, "again_a_second": again, "of_batches_a_second": widened}
    return {"frames": frames, "gigabytes": size, "opening_seconds": opening, **stacks, "peak_megabytes": memory}


def _sample(place: Path) -> tuple[float, ...]:
    """Seconds to open; stacks a second as bytes, the same again, and as those of batches; peak megabytes."""
    torch.set_num_threads(1)
    started = time.process_time()
    table = load(place, Located(name="frames", path=place / "source"))
    rows = table.transition_rows
    opening = time.process_time() - started
    (leaf,) = table.layout
    random = np.random.default_rng(0)
    drawn = [rows[random.integers(0, len(rows), BATCH)] for _ in range(400)]
    stacks = []
    for _ in range(2):
        started = time.process_time()
        for some in drawn:
            table.pictures_of(leaf, some)
        stacks.append(len(drawn) * BATCH / (time.process_time() - started))
    sampler = TransitionSampler(table, rows, torch.device("cpu"))
    batches = sampler.batches(BATCH, torch.Generator().manual_seed(0))
    started = time.process_time()
    for _ in range(200):
        next(batches)
    return opening, *stacks, 2 * 200 * BATCH / (time.process_time() - started), peak_megabytes()


class Plain(nn.Module):
    """The Nature network and a policy's head, on bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(STACK, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU()),
            *(nn.Linear(512, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, ACTIONS)),
        )

    def forward(self, stacks: torch.Tensor) -> torch.Tensor:
        """Bytes (B, STACK, 84, 84) -> logits."""
        logits: torch.Tensor = self.layers(stacks.float() / 255)
        return logits


def plain_updates(table: TransitionTable) -> Iterator[None]:
    """Cloning with AdamW in a bare loop, on stacks that were put together before."""
    rows = table.transition_rows[:4000]
    stacks = torch.from_numpy(table.pictures_of(table.layout[0], rows))
    actions = torch.from_numpy(table.actions(rows)[:, 0]).long()
    network = Plain()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    while True:
        chosen = torch.randint(len(rows), (BATCH,))
        loss = nn.functional.cross_entropy(network(stacks[chosen]), actions[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield


def our_learner(table: TransitionTable, method: str, device: torch.device = CPU) -> tuple[OwnLearner, Iterator[Batch]]:
    """The learner that `train` makes, its prior untrained, and its batches."""
    config: Any = algorithm_config(method, discrete=True, overrides=[f"batch_size={BATCH}"])
    sampler = TransitionSampler(table, table.transition_rows, device)
    spec = Data(sampler, table.action_space, device).spec(0)
    if method == "bc":
        learner: Any = BCLearner(config, clone_policy(config, spec))
    else:
        learner = build_learner(config, spec, clone_policy(config.prior, spec))
    return learner, sampler.batches(BATCH, torch.Generator().manual_seed(0))


def our_updates(table: TransitionTable, method: str) -> Iterator[None]:
    """Its updates, one after the other."""
    learner, batches = our_learner(table, method)
    for batch in batches:
        learner.update(batch)
        yield


def train(folder: Path, frames: int, updates: int) -> list[Row]:
    """Updates a second of each in turn, and the peak memory of each in a process of its own."""
    table = made(folder, frames)
    loops = {"plain loop": plain_updates(table), "bc": our_updates(table, "bc"), "iq": our_updates(table, "iq")}
    works = {name: partial(_seconds_of, loop, max(1, updates // ROUNDS)) for name, loop in loops.items()}
    rounds = list(interleaved(works, ROUNDS, warm_up=1))
    middle = {name: float(np.median([found[name] for found in rounds])) for name in loops}
    place, measured = folder / f"table-{frames}", []
    for name in loops:
        peak = None if name == "plain loop" else apart(_peak, place, name, environment=ONE_THREAD)
        measured.append({"frames": frames, "loop": name, "updates_a_second": 1 / middle[name], "peak_megabytes": peak})
    shown = [
        [
            f"{frames:,}",
            f"{frames * 7056 / 1e9:.2f}",
            row["loop"],
            f"{row['updates_a_second']:.2f}",
            f"{row['updates_a_second'] * middle['plain loop']:.2f}",
            "-" if row["peak_megabytes"] is None else f"{row['peak_megabytes']:,.0f}",
        ]
        for row in measured
    ]
    print(markdown(["frames", "GB", "loop", "updates a second", "of the plain loop", "peak MB"], shown))
    return measured


def _seconds_of(loop: Iterator[None], updates: int) -> float:
    """CPU seconds of one update, the mean of so many."""
    started = time.process_time()
    for _ in range(updates):
        next(loop)
    return (time.process_time() - started) / updates


def _peak(place: Path, method: str) -> float:
    torch.set_num_threads(1)
    loop = our_updates(load(place, Located(name="frames", path=place / "source")), method)
    for _ in range(20):
        next(loop)
    return peak_megabytes()
