"""Batches of demonstrations and replay, half each, in rounds: new transitions, then the updates that they allow.

All that a round does is a function of the run's seed, of its number and of the learner when it begins. So the rounds
that a run has done, and where it is in one, follow from the number of its updates and from its replay on disk.
"""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from iq_offline.algorithms.networks import Policy
from iq_offline.algorithms.noise import Stream
from iq_offline.batch import Batch
from iq_offline.config.online import InteractionConfig
from iq_offline.interaction.collector import Collector
from iq_offline.interaction.replay import Replay, lost
from iq_offline.training.batches import TransitionSampler

Evaluate = Callable[[Policy], list[float]]
"""Returns of the deterministic policy in some episodes."""


@dataclass(frozen=True)
class Sources:
    """Where transitions come from."""

    expert: TransitionSampler
    replay: Replay
    collector: Collector
    evaluate: Evaluate


class Rounds:
    """The batches of a run that acts. `policy`: the one that is being trained; it acts as it is when a round begins.

    `acts_first`: whether it acts in the warm-up, too, where else actions are uniformly random.
    """

    def __init__(
        self,
        config: InteractionConfig,
        batch_size: int,
        seed: int,
        sources: Sources,
        policy: Policy,
        *,
        acts_first: bool,
    ) -> None:
        self._config, self._seed, self._sources, self._policy = config, seed, sources, policy
        self._sizes = max(1, batch_size // 2), max(1, batch_size - batch_size // 2)
        self._acts_first = acts_first
        self._batches: Iterator[Batch] = iter(())
        self._allowed, self._returns = 0, deque[float](maxlen=100)
        self._new, self._acted = 0, 0
        self._acting, self._evaluating = 0.0, 0.0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._batches)

    def recall(self, updates: int) -> None:
        """Go on behind so many updates: with the episodes that had been experienced by then, and no others.

        Raises RunError where the replay does not hold them.
        """
        replay, config = self._sources.replay, self._config
        steps = np.cumsum([0, *replay.found()["steps"].tolist()])
        episodes = 0
        while config.updates_after(int(steps[episodes])) < updates and episodes + 1 < len(steps):
            episodes = min(episodes + config.environments, len(steps) - 1)
        if config.updates_after(int(steps[episodes])) < updates:
            raise lost(replay.folder)
        replay.recall(episodes)
        self._begin()
        done = self._done_before(len(replay.episodes))
        if updates > done:
            deque(islice(self._batches, updates - done), maxlen=0)

    def ready(self, updates: int) -> int:
        """How many updates may follow so many, with the policy as it is: acts where none may."""
        while updates >= self._allowed:
            self._act()
        return self._allowed - updates

    def metrics(self, updates: int) -> dict[str, float]:
        """What has been experienced; and behind a round's last update, where one is due, the policy's evaluation."""
        replay, found = self._sources.replay, {"environment_steps": float(self._sources.replay.steps)}
        found["training_episodes"] = float(len(replay.episodes))
        if self._new:
            found["training_return"] = float(np.mean(list(self._returns)[-self._new :]))
            self._new = 0
        if self.log_due(updates):
            started = time.perf_counter()
            returns = self._sources.evaluate(on_processor(self._policy))
            self._evaluating += time.perf_counter() - started
            found |= {"evaluation_return": float(np.mean(returns)), "evaluation_return_std": float(np.std(returns))}
        return found

    def timing(self) -> dict[str, float]:
        """Seconds of acting, and of evaluating, and the environment steps a second of acting."""
        found = {"acting_seconds": self._acting, "evaluation_seconds": self._evaluating}
        if self._acting:
            found["environment_steps_per_second"] = self._acted / self._acting
        self._acting, self._evaluating, self._acted = 0.0, 0.0, 0
        return found

    def log_due(self, updates: int) -> bool:
        """Whether a round ends with that update which has passed a multiple of `evaluate_every`."""
        every, replay = self._config.evaluate_every, self._sources.replay
        if every is None or updates != self._allowed:
            return False
        before = int(replay.episodes["steps"][: self._first_of_round(len(replay.episodes))].sum())
        return replay.steps // every > before // every

    def _act(self) -> None:
        started, config, replay = time.perf_counter(), self._config, self._sources.replay
        random = replay.steps < config.warm_up_steps and not self._acts_first
        first, left = len(replay.episodes), config.environment_steps - replay.steps
        policy = None if random else on_processor(self._policy)
        for experience in self._sources.collector.collect(policy, first, left):
            replay.append(experience)
            self._returns.append(experience.episode_return)
            self._new += 1
            self._acted += len(experience)
        self._begin()
        self._acting += time.perf_counter() - started

    def _begin(self) -> None:
        """Draw the batches of the round whose episodes are the replay's last."""
        replay = self._sources.replay
        self._allowed = self._config.updates_after(replay.steps)
        if len(replay.episodes):
            self._batches = self._drawn(len(replay.episodes))

    def _drawn(self, episodes: int) -> Iterator[Batch]:
        expert_size, other_size = self._sizes
        expert = self._sources.expert.batches(expert_size, self._generator(Stream.BATCHES, episodes))
        other = self._sources.replay.sampler.batches(other_size, self._generator(Stream.REPLAY_BATCHES, episodes))
        for batch, supplementary in zip(expert, other, strict=False):
            yield replace(batch, supplementary=supplementary)

    def _generator(self, stream: Stream, episodes: int) -> torch.Generator:
        state: Any = np.random.SeedSequence([self._seed, int(stream), episodes]).generate_state(1, dtype=np.uint64)
        return torch.Generator().manual_seed(int(state[0]) >> 1)

    def _done_before(self, episodes: int) -> int:
        """Updates made before the round whose episodes are the last of so many."""
        listed = self._sources.replay.episodes["steps"]
        return self._config.updates_after(int(listed[: self._first_of_round(episodes)].sum()))

    def _first_of_round(self, episodes: int) -> int:
        """The number of the first episode of the round that ends with the last of so many."""
        return max(0, (episodes - 1) // self._config.environments * self._config.environments)


def on_processor(policy: Policy) -> Policy:
    """The policy where environments are: itself, or a copy of one on a GPU."""
    return policy if policy.observation_mean.device.type == "cpu" else copy.deepcopy(policy).cpu()
