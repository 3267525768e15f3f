"""Simulation: many raw environments in lock-step, one batched policy call a step, each episode with its own seed.

A matrix product may round a row otherwise when the number of rows or the row's place among them changes. Therefore
the batch has LOCK_STEP rows whatever runs, and episode n always has row n % LOCK_STEP: its arithmetic is the same
alone as in company, and so is its return, to the bit.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from iq_offline.algorithms.networks import Policy, actions_of
from iq_offline.data.environments import RawEnvironment, action_kind_of, make_raw_environment
from iq_offline.data.observations import flattened
from iq_offline.errors import RunError
from iq_offline.evaluation.actor import Floats, aligned, batch_actor

FIRST_SEED = 1_000_000
"""Episode i is reset with FIRST_SEED + i: the same for every method, and no training seed in use."""
LOCK_STEP = 20
"""Rows of the policy's batch. Another number may change the last digits of returns, as another machine may."""
STEPS_BETWEEN_REPORTS = 1_000

OnSteps = Callable[[int], None]


@dataclass(frozen=True)
class EpisodeBound:
    """Steps after which an episode counts as endless where the environment has no time limit, and what to do then."""

    steps: int
    remedy: str


UNKNOWN_BOUND = EpisodeBound(10_000, "give the environment a time limit (max_episode_steps)")
"""Where nothing is known of the data's own episodes."""


@dataclass(frozen=True)
class SimulatedEpisode:
    """One simulated episode; `episode_return` is the undiscounted sum of rewards."""

    episode: int
    seed: int
    length: int
    episode_return: float


def simulate(
    env_id: str,
    env_kwargs: dict[str, Any],
    policy: Policy,
    episodes: int,
    *,
    at_once: int = LOCK_STEP,
    on_steps: OnSteps = lambda _: None,
    bound: EpisodeBound = UNKNOWN_BOUND,
) -> Iterator[SimulatedEpisode]:
    """Run the deterministic policy for that many episodes, in order of their seeds.

    `at_once` environments step together; 1 is one episode after another, with the same returns. `on_steps` hears
    now and then how many steps are done. Raises EnvironmentMissing, and RunError where the environment's observations
    or actions do not fit the policy, or an episode without a time limit passes `bound`.
    """
    with ExitStack() as stack:
        environments = []
        for _ in range(min(at_once, episodes)):
            environments.append(make_raw_environment(env_id, env_kwargs))
            stack.callback(environments[-1].close)
        _check_fit(environments[0], policy, env_id)
        yield from lock_step(environments, policy, episodes, at_once=at_once, on_steps=on_steps, bound=bound)


def lock_step(
    environments: Sequence[RawEnvironment],
    policy: Policy,
    episodes: int,
    *,
    at_once: int = LOCK_STEP,
    on_steps: OnSteps = lambda _: None,
    bound: EpisodeBound = UNKNOWN_BOUND,
) -> Iterator[SimulatedEpisode]:
    """As `simulate`, in environments that are there: number e runs the episodes e, e + at_once, e + 2 * at_once, ..."""
    # With a divisor, two episodes that share a row share an environment too, and never run at the same time.
    assert LOCK_STEP % at_once == 0, f"{at_once} environments do not divide {LOCK_STEP} rows"
    batch = aligned(LOCK_STEP, len(policy.observation_mean))
    act = batch_actor(policy, LOCK_STEP)
    lanes = [
        _Lane(environment, deque(range(first, episodes, at_once)), batch, policy.layout.offset, bound)
        for first, environment in enumerate(environments)
    ]
    finished: dict[int, SimulatedEpisode] = {}
    following, steps, told = 0, 0, 0
    # More threads would gain nothing on so few rows, and round otherwise.
    with threadpool_limits(limits=1, user_api="blas"):
        while lanes:
            actions = act(batch)
            steps += len(lanes)
            ended = [lane for lane in lanes if lane.step(actions)]
            if steps - told >= STEPS_BETWEEN_REPORTS:
                on_steps(told := steps)
            for lane in ended:
                finished[lane.episode] = lane.result()
                if not lane.start_next():
                    lanes.remove(lane)
            while following in finished:
                yield finished.pop(following)
                following += 1


class _Lane:
    """One environment and its episodes, one after another."""

    def __init__(
        self,
        environment: RawEnvironment,
        episodes: deque[int],
        batch: Floats,
        offset: tuple[float, ...],
        bound: EpisodeBound,
    ) -> None:
        self._reset, self._step, self._limit = environment.reset, environment.step, environment.step_limit
        self._bound = bound
        self._waiting, self._batch, self._offset = episodes, batch, np.array(offset)
        self.start_next()

    def start_next(self) -> bool:
        """Reset for the next episode; False where none is left."""
        if not self._waiting:
            return False
        self.episode = self._waiting.popleft()
        self._row, self._length, self._return = self.episode % LOCK_STEP, 0, 0.0
        self._observation = self._batch[self._row]
        observation, _ = self._reset(seed=FIRST_SEED + self.episode)
        self._plain = isinstance(observation, np.ndarray) and observation.ndim == 1 and not len(self._offset)
        self._observation[:] = flattened(observation, self._offset)
        return True

    def step(self, actions: NDArray[Any]) -> bool:
        """Take this lane's action; True where the episode has ended."""
        observation, reward, terminated, truncated, _ = self._step(actions[self._row])
        self._observation[:] = observation if self._plain else flattened(observation, self._offset)
        self._return += float(reward)
        self._length += 1
        ended = terminated or truncated or self._length == self._limit
        if self._limit is None and not ended and self._length >= self._bound.steps:
            raise RunError(
                f"the environment has no time limit, and its episode {self.episode} has not ended after "
                f"{self._length:,} steps",
                self._bound.remedy,
            )
        return ended

    def result(self) -> SimulatedEpisode:
        """The episode that has ended."""
        return SimulatedEpisode(self.episode, FIRST_SEED + self.episode, self._length, self._return)


def _check_fit(environment: RawEnvironment, policy: Policy, env_id: str) -> None:
    remedy = "name the environment of the data, with its arguments: --env-id and --env-kwargs"
    given, size = environment.observation_size, len(policy.observation_mean)
    categories = policy.layout.categories
    if categories and categories != environment.categories:
        problem = (
            f"{env_id} gives observations of {_categories_in_words(environment.categories)} categories, but the policy "
            f"was trained on {_categories_in_words(categories)}"
        )
        raise RunError(problem, remedy)
    if given != size:
        problem = f"{env_id} gives observations of {given} numbers, but the policy was trained on {size}"
        raise RunError(problem, remedy)
    taken, given_actions = action_kind_of(environment.action_space), _in_words(*actions_of(policy))
    if taken != given_actions:
        raise RunError(f"{env_id} takes {taken}, but the policy gives {given_actions}", remedy)


def _categories_in_words(categories: tuple[int, ...]) -> str:
    return ", ".join(str(count) for count in categories if count) or "no"


def _in_words(kind: str, number: int) -> str:
    """As `action_kind_of`."""
    return f"{number} real numbers as action" if kind == "continuous" else f"one of {number} actions"
