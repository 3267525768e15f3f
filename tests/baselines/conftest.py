"""Small tasks for the peers: a few demonstrations, and supplementary episodes of which some are as good."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from iq_offline.baselines.sources import PeerData
from iq_offline.data.split import choose_expert
from iq_offline.stages.fetch import open_dataset

GAIN = np.array([[0.8], [-0.5], [0.3]])
Arrays = dict[str, np.ndarray]


def episodes(seed: int, lengths: list[int], *, noise: float = 0.0, discrete: bool = False) -> Arrays:
    """Random walks whose action is a clipped linear function of the observation, with noise; rewards are random."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {key: [] for key in ("observations", "next_observations", "actions")}
    terminals, timeouts = [], []
    for number, length in enumerate(lengths):
        walk = rng.normal(size=(length + 1, 3)).astype(np.float32)
        actions = np.clip(walk[:-1] @ GAIN + noise * rng.normal(size=(length, 1)), -1, 1).astype(np.float32)
        parts["observations"].append(walk[:-1])
        parts["next_observations"].append(walk[1:])
        parts["actions"].append((actions[:, 0] > 0).astype(np.int64) if discrete else actions)
        last = np.arange(length) == length - 1
        terminals.append(last & (number % 2 == 1))
        timeouts.append(last & (number % 2 == 0))
    arrays = {key: np.concatenate(values) for key, values in parts.items()}
    rewards = rng.normal(size=sum(lengths)).astype(np.float32)
    return arrays | {"terminals": np.concatenate(terminals), "timeouts": np.concatenate(timeouts), "rewards": rewards}


@pytest.fixture
def peer_data(write_d4rl: Callable[..., Path]) -> Callable[..., PeerData]:
    """peer_data(discrete=False, demos=3): demonstrations of 30 steps, and two tables of supplementary episodes."""

    def make(*, discrete: bool = False, demos: int = 3) -> PeerData:
        expert = open_dataset(str(write_d4rl(episodes(0, [30] * 4, discrete=discrete), name="expert.hdf5")))
        first = write_d4rl(episodes(1, [30, 12, 25], noise=1.0, discrete=discrete), name="first.hdf5")
        second = write_d4rl(episodes(2, [20, 30], discrete=discrete), name="second.hdf5")
        split = choose_expert(expert, demos=demos, subsample=1, seed=0, need_successors=True)
        return PeerData(expert, split, (open_dataset(str(first)), open_dataset(str(second))))

    return make


@pytest.fixture
def discrete_beside(write_d4rl: Callable[..., Path]) -> Callable[..., PeerData]:
    """discrete_beside(change): 4 discrete demonstrations of 30 steps, and others of 60 whose actions are changed."""

    def make(change: Callable[[np.ndarray], np.ndarray]) -> PeerData:
        expert = open_dataset(str(write_d4rl(episodes(0, [30] * 4, discrete=True), name="expert.hdf5")))
        others = episodes(1, [60] * 30, discrete=True)
        others["actions"] = change(others["actions"])
        other = open_dataset(str(write_d4rl(others, name="others.hdf5")))
        return PeerData(expert, choose_expert(expert, demos=4, subsample=1, seed=0, need_successors=True), (other,))

    return make
