"""Simulation: many raw environments in lock-step, one batched policy call a step, each episode with its own seed; and
a video of the first one.

A matrix product may round a row otherwise when the number of rows or the row's place among them changes. Therefore
the batch has LOCK_STEP rows whatever runs, and episode n always has row n % LOCK_STEP: its arithmetic is the same
alone as in company, and so is its return, to the bit.
"""

import io
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from iq_offline.algorithms.build import actions_of
from iq_offline.algorithms.networks import Policy
from iq_offline.data.environments import RawEnvironment, action_kind_of, make_filmed_environment, make_raw_environment
from iq_offline.data.files import whole_file
from iq_offline.data.observations import flattened
from iq_offline.errors import ConfigError, RunError
from iq_offline.evaluation.actor import Floats, aligned, batch_actor

FIRST_SEED = 1_000_000
"""Episode i is reset with FIRST_SEED + i: the same for every method, and no training seed in use."""
LOCK_STEP = 20
"""Rows of the policy's batch. Another number may change the last digits of returns, as another machine may."""
STEPS_BETWEEN_REPORTS = 1_000
VIDEO_SUFFIX = ".mp4"
STRIP_PICTURES, STRIP_SIDE, STRIP_GAP, STRIP_QUALITY = 8, 160, 4, 75
"""Pictures of a film strip, the longer side of each and the gap in pixels, and JPEG's quality: at most 200 kB."""

OnSteps = Callable[[int], None]


@dataclass(frozen=True)
class EpisodeBound:
    """Steps after which an episode counts as endless where the environment has no time limit, and what to do then."""

    steps: int
    remedy: str


UNKNOWN_BOUND = EpisodeBound(10_000, "give the environment a time limit (max_episode_steps)")
"""Where the lengths of the data's own episodes are not known."""


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

    `at_once` environments step together; 1 is one episode after another, with the same returns. `on_steps` is called
    now and then with the number of steps done. Raises EnvironmentMissing, and RunError where the environment's
    observations or actions do not fit the policy, or an episode without a time limit passes `bound`.
    """
    with ExitStack() as stack:
        environments = []
        for _ in range(min(at_once, episodes)):
            environments.append(make_raw_environment(env_id, env_kwargs))
            stack.callback(environments[-1].close)
        check_fit(environments[0], policy, env_id)
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
    slots = [
        _Slot(environment, deque(range(first, episodes, at_once)), batch, policy.layout.offset, bound)
        for first, environment in enumerate(environments)
    ]
    finished: dict[int, SimulatedEpisode] = {}
    following, steps, reported = 0, 0, 0
    # More threads would gain nothing on so few rows, and round otherwise.
    with threadpool_limits(limits=1, user_api="blas"):
        while slots:
            actions = act(batch)
            steps += len(slots)
            ended = [slot for slot in slots if slot.step(actions)]
            if steps - reported >= STEPS_BETWEEN_REPORTS:
                on_steps(reported := steps)
            for slot in ended:
                finished[slot.episode] = slot.result()
                if not slot.start_next():
                    slots.remove(slot)
            while following in finished:
                yield finished.pop(following)
                following += 1


class _Slot:
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
        """Take this environment's action; True where the episode has ended."""
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


def check_fit(environment: RawEnvironment, policy: Policy, env_id: str) -> None:
    size, own, categories = len(policy.observation_mean), environment.categories, policy.layout.categories
    kind, number = actions_of(policy)
    actions = f"{number} real numbers as action" if kind == "continuous" else f"one of {number} actions"
    own_actions = action_kind_of(environment.action_space)
    problem = None
    if categories and categories != own:
        given, trained = (", ".join(str(count) for count in counts if count) or "no" for counts in (own, categories))
        problem = f"gives observations of {given} categories, but the policy was trained on {trained}"
    elif environment.observation_size != size:
        given = str(environment.observation_size)
        problem = f"gives observations of {given} numbers, but the policy was trained on {size}"
    elif own_actions != actions:
        problem = f"takes {own_actions}, but the policy gives {actions}"
    if problem:
        raise RunError(
            f"{env_id} {problem}", "name the environment of the data, with its arguments: --env-id and --env-kwargs"
        )


def film(
    env_id: str,
    env_kwargs: dict[str, Any],
    policy: Policy,
    destination: Path,
    on_steps: OnSteps,
    bound: EpisodeBound = UNKNOWN_BOUND,
) -> SimulatedEpisode:
    """Write the first episode of `simulate` as a video: the same seed and actions, hence the same episode.

    Its film strip goes beside it, under the name that `strip_of` tells.

    Raises ConfigError for another file than .mp4, what `make_filmed_environment` raises, and RunError where the
    encoder fails.
    """
    if destination.suffix != VIDEO_SUFFIX:
        right = destination.with_suffix(VIDEO_SUFFIX)
        raise ConfigError(f"--video {destination} is no {VIDEO_SUFFIX} file", f"name it {right}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "video"
        environment, pictures = make_filmed_environment(env_id, env_kwargs, folder)
        try:
            (episode,) = lock_step([environment], policy, 1, at_once=1, on_steps=on_steps, bound=bound)
            strip = film_strip(pictures())
        finally:
            _encode(environment.close)
        with whole_file(destination) as whole:
            (recorded,) = folder.glob(f"*{VIDEO_SUFFIX}")
            whole.write_bytes(recorded.read_bytes())
    with whole_file(strip_of(destination)) as whole:
        whole.write_bytes(strip)
    return episode


def strip_of(video: Path) -> Path:
    """The file of a video's film strip."""
    return video.with_suffix(".jpg")


def film_strip(pictures: Sequence[NDArray[np.uint8]]) -> bytes:
    """At most STRIP_PICTURES of an episode's pictures in a row, evenly spread from the first to the last, as JPEG."""
    from PIL import Image

    places = np.linspace(0, len(pictures) - 1, min(len(pictures), STRIP_PICTURES)).astype(int)
    chosen = [Image.fromarray(pictures[place]) for place in places]
    for one in chosen:
        one.thumbnail((STRIP_SIDE, STRIP_SIDE))
    width, height = chosen[0].size
    strip = Image.new("RGB", (len(chosen) * (width + STRIP_GAP) - STRIP_GAP, height), "white")
    for number, one in enumerate(chosen):
        strip.paste(one, (number * (width + STRIP_GAP), 0))
    encoded = io.BytesIO()
    strip.save(encoded, format="JPEG", quality=STRIP_QUALITY)
    return encoded.getvalue()


def _encode(close: Callable[[], None]) -> None:
    """Closing a filmed environment encodes its pictures."""
    try:
        close()
    except OSError as error:
        if error.errno is not None:  # a full disk or a missing permission, reported as such elsewhere
            raise
        raise RunError(f"ffmpeg could not write the video: {error}", "mend that ffmpeg, or leave --video out") from None
