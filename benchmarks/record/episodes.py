"""One episode of a policy, as it is recorded."""

from collections.abc import Callable
from typing import Any

import numpy as np

from iq_offline.data.episodes import Episode

FIRST_SEED = 10_000
"""Demonstration n starts from the environment's seed FIRST_SEED + n, which no evaluation uses."""


def episode_of(
    environment: Any,
    observation: Any,
    act: Callable[[Any], Any],
    index: int = 0,
    *,
    most_steps: int | None = None,
    dtype: Any = None,
    seed: int | None = None,
) -> Episode:
    """The episode that begins with an observation; `dtype`: of its observations. Actions are executed as they are."""
    observations, actions, rewards = [observation], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        actions.append(act(observations[-1]))
        observation, reward, terminated, truncated, _ = environment.step(actions[-1])
        observations.append(observation)
        rewards.append(float(reward))
        truncated = truncated or len(actions) == most_steps
    return Episode(
        index,
        np.array(observations, dtype),
        np.array(actions),
        np.array(rewards),
        terminated=bool(terminated),
        truncated=bool(truncated and not terminated),
        seed=seed,
    )
