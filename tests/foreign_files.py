"""Episodes whose numbers tell where they belong, in the layouts of other projects."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from iq_offline.data.episodes import Episode
from iq_offline.data.formats import dictionaries
from iq_offline.data.observations import leaves

Arrays = dict[str, Any]
LENGTHS = [3, 1, 4, 4]


def steps(episode: int, length: int) -> Arrays:
    """An episode whose numbers tell where they belong: observation = 100 * episode + step, action = its thousandth."""
    numbers = 100.0 * episode + np.arange(length + 1)
    observations = np.stack([numbers, numbers], axis=1).astype(np.float32)
    ends = np.zeros(length, dtype=bool)
    ends[-1] = True
    return {
        "observations": observations[:-1],
        "next_observations": observations[1:],
        "actions": numbers[:-1, None] / 1000,
        "rewards": np.full(length, episode + 1.0),
        "dones": ends,
    }


def save(path: Path, content: object, protocol: int = 4) -> Path:
    """A pickle."""
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def read(path: Path, **options: Any) -> list[Episode]:
    """Its episodes."""
    return list(dictionaries.read(path, "demo", **options))


def check_aligned(episodes: list[Episode], lengths: list[int], *, successor_known: bool = True) -> None:
    """They are `steps` of those lengths, each number at its place."""
    assert [len(episode) for episode in episodes] == lengths
    for number, episode in enumerate(episodes):
        expected = 100.0 * number + np.arange(len(episode) + 1)
        if not successor_known:
            expected[-1] -= 1
        assert episode.successor_known == successor_known
        for array in leaves(episode.observations).values():
            np.testing.assert_array_equal(array, np.stack([expected, expected], axis=1))
        np.testing.assert_allclose(episode.actions, (100.0 * number + np.arange(len(episode)))[:, None] / 1000)
        np.testing.assert_array_equal(episode.rewards, np.full(len(episode), number + 1.0))


def flat(episodes: list[Arrays]) -> Arrays:
    """One array a key."""
    return {key: np.concatenate([episode[key] for episode in episodes]) for key in episodes[0]}
