"""The data that all candidates learn from: synthetic episodes, the same numbers everywhere."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EPISODES, STEPS = 100, 1000
BATCH = 256
OBSERVATION, ACTION = 17, 6
HIDDEN = (256, 256)
CQL_ACTIONS = 30
"""Sampled actions an observation in the conservative term: d3rlpy's 3 x 10, our 2 x 15."""
SMALL_BATCH = 32
SMALL_OBSERVATION, SMALL_ACTIONS = 4, 2
SMALL_HIDDEN = (64, 64)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Episodes:
    """E episodes of T steps. Shapes: observations (E, T + 1, D); actions (E, T, A) floats or (E, T) integers."""

    observations: Floats
    actions: NDArray[np.float32] | NDArray[np.int64]

    @property
    def terminations(self) -> Floats:
        """None but truncations: (E, T) zeros."""
        return np.zeros(self.actions.shape[:2], dtype=np.float32)

    def flat(self) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
        """Transitions: observations, actions, next_observations, rewards, terminations; each (E T, ...)."""
        count, steps = self.actions.shape[:2]
        return {
            "observations": self.observations[:, :-1].reshape(count * steps, -1),
            "actions": self.actions.reshape(count * steps, *self.actions.shape[2:]),
            "next_observations": self.observations[:, 1:].reshape(count * steps, -1),
            "rewards": self.observations[:, :-1, 0].reshape(-1),
            "terminations": self.terminations.reshape(-1),
        }


def continuous_episodes() -> Episodes:
    """17 observation and 6 action numbers: actions are a squashed linear function of the observation, with noise."""
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((EPISODES, STEPS + 1, OBSERVATION)).astype(np.float32)
    weights = rng.standard_normal((OBSERVATION, ACTION)) / OBSERVATION**0.5
    noise = rng.standard_normal((EPISODES, STEPS, ACTION))
    return Episodes(observations, np.tanh(observations[:, :-1] @ weights + 0.1 * noise).astype(np.float32))


def discrete_episodes() -> Episodes:
    """4 observation numbers and 2 actions, by the sign of the first one."""
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((EPISODES, STEPS + 1, SMALL_OBSERVATION)).astype(np.float32)
    return Episodes(observations, (observations[:, :-1, 0] > 0).astype(np.int64))
