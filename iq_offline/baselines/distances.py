"""How far a transition lies from the demonstrations: Euclidean distances in standardised features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iq_offline.baselines.sources import Recorded
from iq_offline.data.spaces import ActionSpace, DiscreteActions
from iq_offline.errors import ConfigError

MIN_STD = 1e-3
"""Columns that vary less than this are divided by it."""
MIN_BANDWIDTH = 1e-6
"""Bandwidth where demonstrations repeat each other: only what equals one is similar to it."""
MAX_ONE_HOT = 1 << 27
"""Numbers of one-hot categories that are held at once: 1 GiB."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of the columns of expert and supplementary transitions together.

    Shapes: observation (D,), action (A,). Discrete actions and categories of observations are one-hot and stay as they
    are. Raises ConfigError where these would not fit into memory.
    """

    observation_mean: Floats
    observation_std: Floats
    action_mean: Floats
    action_std: Floats
    space: ActionSpace
    categories: tuple[int, ...] = ()

    @classmethod
    def fit(cls, parts: Sequence[Recorded], space: ActionSpace) -> "Scaling":
        """From all transitions of those parts."""
        observations = np.concatenate([part.observations for part in parts])
        categories = parts[0].categories
        if len(observations) * sum(categories) > MAX_ONE_HOT:
            raise ConfigError(
                f"distances between {len(observations):,} transitions with {sum(categories):,} categories do not fit "
                "into memory",
                "name less supplementary data, or use a method without distances (bc, iq-cql, ls-iq)",
            )
        mean, std = _moments(observations)
        if isinstance(space, DiscreteActions):
            return cls(mean, std, np.zeros(space.count), np.ones(space.count), space, categories)
        return cls(mean, std, *_moments(np.concatenate([part.actions for part in parts])), space, categories)

    def observations(self, raw: NDArray[np.float32]) -> Floats:
        """Standardised observations, (N, D); wider where some numbers are categories."""
        scaled: Floats = (raw - self.observation_mean) / self.observation_std
        if not self.categories:
            return scaled
        columns = [
            raw[:, place, None] == np.arange(count) if count else scaled[:, place, None]
            for place, count in enumerate(self.categories)
        ]
        return np.concatenate(columns, axis=1, dtype=np.float64)

    def actions(self, raw: NDArray[np.float32]) -> Floats:
        """Standardised or one-hot actions, (N, A)."""
        if isinstance(self.space, DiscreteActions):
            return np.eye(self.space.count)[raw[:, 0].astype(np.int64)]
        return np.asarray((raw - self.action_mean) / self.action_std)

    def pairs(self, part: Recorded) -> Floats:
        """(s, a) of each transition, (N, D + A)."""
        return np.concatenate([self.observations(part.observations), self.actions(part.actions)], axis=1)

    def triples(self, part: Recorded) -> Floats:
        """(s, a, s') of each transition, (N, D + A + D)."""
        return np.concatenate([self.pairs(part), self.observations(part.next_observations)], axis=1)


def nearest_distances(points: Floats, demonstrated: Floats, neighbour: int = 1) -> Floats:
    """Distance of each point to the nearest demonstrated one, or to its n-th neighbour. (N, F), (M, F) -> (N,)."""
    from scipy.spatial import KDTree

    distances, _ = KDTree(demonstrated).query(points, k=[neighbour])
    return np.asarray(distances[:, 0], dtype=np.float64)


def left_out_distances(demonstrated: Floats, episodes: NDArray[np.int64]) -> Floats:
    """Distance of each demonstrated step to the nearest of another demonstration. Shapes: (M, F), (M,) -> (M,).

    With a single demonstration: to its own nearest other step, for want of a better scale.
    Raises ConfigError for fewer than two steps.
    """
    if len(demonstrated) < 2:
        raise ConfigError(
            "a single demonstrated transition gives distances no scale",
            "give more demonstrations (--demos), or keep more of their transitions (--subsample)",
        )
    numbers = np.unique(episodes)
    if len(numbers) == 1:
        return nearest_distances(demonstrated, demonstrated, neighbour=2)
    found = np.empty(len(demonstrated))
    for number in numbers:
        own = episodes == number
        found[own] = nearest_distances(demonstrated[own], demonstrated[~own])
    return found


def similarity(distances: Floats, bandwidth: float) -> Floats:
    """Gaussian kernel exp(-d^2 / (2 h^2)): 1 on a demonstration, falling to 0. Shapes: (N,) -> (N,)."""
    return np.asarray(np.exp(-0.5 * np.square(distances / bandwidth)))


def nearest_similarities(points: Floats, demonstrated: Floats, episodes: NDArray[np.int64], bandwidth: float) -> Floats:
    """Similarity of each point to its nearest demonstrated one, between 0 and 1.

    `bandwidth` is in median distances between demonstrations (`left_out_distances`), which `episodes` numbers.
    Shapes: (N, F), (M, F), (M,) -> (N,).
    """
    typical = float(np.median(left_out_distances(demonstrated, episodes)))
    return similarity(nearest_distances(points, demonstrated), max(bandwidth * typical, MIN_BANDWIDTH))


def _moments(values: NDArray[np.float32]) -> tuple[Floats, Floats]:
    return values.mean(axis=0, dtype=np.float64), np.maximum(values.std(axis=0, dtype=np.float64), MIN_STD)
