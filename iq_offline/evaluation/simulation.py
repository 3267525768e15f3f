"""Simulation: many raw environments in lock-step, one batched policy call a step, each episode with its own seed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.algorithms.networks import Policy
from iq_offline.data.environments import make_environment
from iq_offline.data.observations import flattened
from iq_offline.errors import RunError

FIRST_SEED = 1_000_000
"""Episode i is reset with FIRST_SEED + i: the same for every method, and no training seed in use."""
LOCK_STEP = 10
"""Environments that step together. A fixed number, so that results do not depend on how many episodes are asked."""

Act = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class SimulatedEpisode:
    """One simulated episode; `episode_return` is the undiscounted sum of rewards."""

    episode: int
    seed: int
    length: int
    episode_return: float


def simulate(env_id: str, env_kwargs: dict[str, Any], policy: Policy, episodes: int) -> Iterator[SimulatedEpisode]:
    """Run the deterministic policy for that many episodes, in order of their seeds.

    Raises EnvironmentMissing, and RunError where the environment's observations do not fit the policy.
    """
    environments = [make_environment(env_id, env_kwargs) for _ in range(LOCK_STEP)]
    try:
        _check_fit(environments[0], policy, env_id)
        act = _batched(policy)
        for first in range(0, episodes, LOCK_STEP):
            numbers = range(first, min(first + LOCK_STEP, episodes))
            yield from _lock_step(environments, act, numbers)
    finally:
        for environment in environments:
            environment.close()  # type: ignore[no-untyped-call]


def _lock_step(environments: list[Any], act: Act, numbers: range) -> list[SimulatedEpisode]:
    used = environments[: len(numbers)]
    first = [flattened(environment.reset(seed=FIRST_SEED + n)[0]) for environment, n in zip(used, numbers, strict=True)]
    # The batch keeps one size throughout, so that a row's arithmetic never depends on how many still run.
    observations = np.zeros((LOCK_STEP, len(first[0])), dtype=np.float32)
    observations[: len(used)] = first
    returns, lengths = [0.0] * len(used), [0] * len(used)
    running = set(range(len(used)))
    while running:
        actions = act(observations)
        for i in sorted(running):
            observation, reward, terminated, truncated, _ = used[i].step(actions[i])
            observations[i] = flattened(observation)
            returns[i] += float(reward)
            lengths[i] += 1
            if terminated or truncated:
                running.discard(i)
    return [SimulatedEpisode(n, FIRST_SEED + n, lengths[i], returns[i]) for i, n in enumerate(numbers)]


def _batched(policy: Policy) -> Act:
    @torch.inference_mode()
    def act(observations: NDArray[Any]) -> NDArray[Any]:
        actions: NDArray[Any] = policy.act(torch.from_numpy(observations)).numpy()
        return actions

    return act


def _check_fit(environment: Any, policy: Policy, env_id: str) -> None:
    space, size = environment.observation_space, len(policy.observation_mean)
    given = len(flattened(space.sample()))
    if given != size:
        raise RunError(
            f"{env_id} gives observations of {given} numbers, but the policy was trained on {size}",
            "name the environment of the data, with its arguments: --env-id and --env-kwargs",
        )
