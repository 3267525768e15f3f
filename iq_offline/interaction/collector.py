"""Acting: environments in lock-step, one batched policy call a step, each running whole episodes.

An episode's reset and its random numbers are functions of the run's seed and of the episode's number alone. So a run
that was killed goes on at an episode's start as if it had not been. There is no autoreset: a round begins with a reset
of every environment and ends with the last of their episodes.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from iq_offline.algorithms.build import actions_of
from iq_offline.algorithms.networks import ContinuousPolicy, Policy
from iq_offline.algorithms.noise import Stream
from iq_offline.data.environments import RawEnvironment, make_raw_environment
from iq_offline.data.observations import flattened
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.table import Floats, TransitionTable
from iq_offline.evaluation.actor import aligned, sampling_actor
from iq_offline.evaluation.simulation import check_fit
from iq_offline.interaction.replay import Experience

FIRST_SEED = 2**30
"""Episodes are reset with this seed or a greater one: evaluation has seeds below it."""
Draw = Callable[[Floats, Floats], NDArray[Any]]
"""From raw observations and random numbers, a row each, to actions in the environment's units."""


class Collector(Protocol):
    """Makes new transitions between updates: by acting in an environment, or in a model of one."""

    def collect(self, policy: Policy | None, first: int, budget: int) -> list[Experience]:
        """Episodes number `first`, `first` + 1, ... of the run, of `budget` steps at most, together.

        `policy`: None for uniformly random actions.
        """
        ...


class EnvironmentCollector:
    """Acts in `count` environments of the data, each for one episode a call.

    `longest`: steps after which an episode is cut off where the environment has no time limit.
    """

    def __init__(self, like: TransitionTable, policy: Policy, count: int, seed: int, longest: int) -> None:
        info = like.info
        assert info.env_id is not None
        self._like, self._seed, self._longest = like, seed, longest
        self._environments = [make_raw_environment(info.env_id, info.env_kwargs) for _ in range(count)]
        check_fit(self._environments[0], policy, info.env_id)
        self._batch = aligned(count, len(policy.observation_mean))
        self._uniform = _uniform(policy)
        self._width = len(policy.action_centre) if isinstance(policy, ContinuousPolicy) else 1

    def collect(self, policy: Policy | None, first: int, budget: int) -> list[Experience]:
        """An episode of each environment; the budget's last steps cut them off, as a clock does."""
        draw = self._uniform if policy is None else sampling_actor(policy, len(self._environments))
        running = [
            _Episode(environment, self._like, self._batch[row], self._seed, first + row, self._longest)
            for row, environment in enumerate(self._environments)
        ]
        episodes, left = list(running), budget
        running = running[:left]
        random = np.zeros((len(episodes), self._width), np.float32)
        # More threads would gain nothing on so few rows, and round otherwise.
        with threadpool_limits(limits=1, user_api="blas"):
            while running:
                for episode in running:
                    random[episode.number - first] = episode.random(policy)
                actions = draw(self._batch, random)
                left -= len(running)
                running = [episode for episode in running if not episode.step(actions[episode.number - first])][:left]
        return [episode.experience() for episode in episodes if len(episode)]

    def close(self) -> None:
        """Close the environments."""
        for environment in self._environments:
            environment.close()


class _Episode:
    """One episode, as it is acted out."""

    def __init__(
        self, environment: RawEnvironment, like: TransitionTable, place: Floats, seed: int, number: int, longest: int
    ) -> None:
        state = np.random.SeedSequence([seed, int(Stream.ACTING), number])
        self._random, self.seed = np.random.default_rng(state), FIRST_SEED + int(state.generate_state(1)[0] >> 2)
        self.number, self._environment, self._like, self._place = number, environment, like, place
        self._limit = environment.step_limit or longest
        self._discrete = isinstance(like.action_space, DiscreteActions)
        self._rows: list[Floats] = []
        self._pictures: list[Floats] = []
        self._size, self._offset = like.observation_size, np.array(like.offset)
        self.terminated = False
        observation, _ = environment.reset(seed=self.seed)
        self._see(observation)

    def __len__(self) -> int:
        return len(self._rows)

    def random(self, policy: Policy | None) -> Floats:
        """Numbers for one action: normal for a Gaussian policy, else between 0 and 1."""
        if policy is None or self._discrete:
            return self._random.random(1 if self._discrete else self._like.action_space.width, np.float32)
        return self._random.standard_normal(self._like.action_space.width, np.float32)

    def step(self, action: Any) -> bool:
        """Take it; True where the episode has ended."""
        row = np.zeros(self._size + self._like.action_space.width + 2, np.float32)
        row[: self._size] = self._place[: self._size]
        row[self._size : -2] = action
        observation, reward, terminated, truncated, _ = self._environment.step(action)
        row[-2:] = float(reward), float(terminated)
        self._rows.append(row)
        self._see(observation)
        self.terminated = bool(terminated)
        return terminated or truncated or len(self) >= self._limit

    def experience(self) -> Experience:
        """All of it, with the final observation in a row of its own."""
        last = np.zeros_like(self._rows[0])
        last[: self._size] = self._place[: self._size]
        pictures, flat = {}, np.array(self._pictures)
        start = 0
        for leaf in self._like.layout:
            if leaf.file:
                size = int(np.prod(leaf.shape))
                held = flat[:, start : start + size].astype(np.uint8)
                pictures[leaf.path] = held.reshape(len(flat), *leaf.shape)
                start += size
        return Experience(np.stack([*self._rows, last]), pictures, self.terminated, self.seed)

    def _see(self, observation: Any) -> None:
        self._place[:] = flattened(observation, self._offset)
        if self._like.pictures:
            self._pictures.append(self._place[self._size :].copy())


def _uniform(policy: Policy) -> Draw:
    """Uniformly random actions."""

    def real(observations: Floats, random: Floats) -> NDArray[Any]:
        del observations
        return np.asarray((2 * random - 1) * half_range + centre)

    def category(observations: Floats, random: Floats) -> NDArray[Any]:
        del observations
        return np.minimum((random[:, 0] * number).astype(np.int64), number - 1)

    if isinstance(policy, ContinuousPolicy):
        centre, half_range = policy.action_centre.cpu().numpy(), policy.action_half_range.cpu().numpy()
        return real
    number = actions_of(policy)[1]
    return category
