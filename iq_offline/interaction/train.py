"""A run that acts: the one loop of training, on batches that come in rounds of acting and updates."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from iq_offline.algorithms.build import NetworkSpec
from iq_offline.algorithms.iq_online import ActingLearner
from iq_offline.algorithms.networks import Policy
from iq_offline.config.online import InteractionConfig
from iq_offline.config.q_learning import QLearningConfig
from iq_offline.config.train import TrainConfig
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError
from iq_offline.evaluation.simulation import EpisodeBound, simulate
from iq_offline.interaction.collector import EnvironmentCollector
from iq_offline.interaction.replay import Replay, rows_for
from iq_offline.interaction.rounds import Rounds, Sources
from iq_offline.training.alarm import DivergenceAlarm
from iq_offline.training.batches import TransitionSampler
from iq_offline.training.checkpointing import Snapshot
from iq_offline.training.learnt import Data, build_learner
from iq_offline.training.loop import METHOD, Progress, TrainingOptions

LEAST_BOUND, TIMES_LONGEST = 1000, 10
"""Where the environment has no time limit, an episode is cut off after so many steps, and so many times the longest
demonstration's."""


@dataclass(frozen=True)
class OnlineData:
    """What a run that acts learns from, beside what it experiences."""

    table: TransitionTable
    expert: TransitionSampler
    expert_ends: float
    """Share of the steps of whole demonstrations that a termination follows."""
    folder: Path
    """Of the replay, which stays for as long as the run may be resumed."""
    start: Policy | None = None
    """The policy that training starts from."""


def train_online(
    config: TrainConfig, data: OnlineData, device: torch.device, resumed: Snapshot | None
) -> Iterator[Progress]:
    """Train a method that acts; yields as `training.loop.train` does.

    Same config, data, kind of device and threads: same episodes and same tensors. Raises ConfigError where the data
    name no environment, EnvironmentMissing, RunError where the replay of a resumed run is damaged, TrainingDiverged.
    """
    algorithm, table = config.algorithm, data.table
    assert isinstance(algorithm, InteractionConfig)
    assert isinstance(algorithm, QLearningConfig)
    if not table.info.env_id:
        raise ConfigError(f"{table.info.name} names no environment to act in", "use a dataset that names one")
    if any(leaf.stack > 1 for leaf in table.layout):
        raise ConfigError(
            f"{table.info.name} stacks frames, and {config.method} acts from single observations",
            "use a dataset whose observations are recorded whole, or --method iq",
        )
    learner = build_learner(algorithm, _spec(config, data, device), data.start)
    if isinstance(learner, ActingLearner):
        learner.expert_ends = torch.tensor(data.expert_ends, device=device)
    replay = Replay(data.folder, table, rows_for(algorithm.environment_steps), algorithm.replay_size, device)
    longest = max(LEAST_BOUND, TIMES_LONGEST * int(table.episodes["steps"].to_numpy().max()))
    collector = EnvironmentCollector(table, learner.policy, algorithm.environments, config.seed, longest)
    try:
        rounds = Rounds(
            algorithm,
            algorithm.batch_size,
            config.seed,
            Sources(data.expert, replay, collector, lambda policy: _evaluation(algorithm, table, policy, longest)),
            learner.policy,
            acts_first=data.start is not None,
        )
        options = TrainingOptions(config.seed, config.compile, resumed)
        remedy = f"{type(algorithm).remedy} (--set key=value)"
        alarm = DivergenceAlarm(algorithm.max_abs_q, remedy)
        for progress in options.fit(learner, rounds, algorithm.updates, alarm, METHOD):
            yield replace(progress, resumable=True, secure=replay.secure)
    finally:
        collector.close()


def _spec(config: TrainConfig, data: OnlineData, device: torch.device) -> NetworkSpec:
    """Scaled as the demonstrations are, or as the policy that training starts from is."""
    spec = Data(data.expert, data.table.action_space, device).spec(config.seed)
    if data.start is None:
        return spec
    if data.start.layout != data.expert.layout:
        raise ConfigError(
            f"{config.start_from} was trained on other observations than {data.table.info.name} has",
            "start from a run of the same dataset",
        )
    return replace(NetworkSpec.of_policy(data.start), seed=config.seed, device=device)


def _evaluation(algorithm: InteractionConfig, table: TransitionTable, policy: Policy, longest: int) -> list[float]:
    """Returns of the deterministic policy, in the episodes that `eval` simulates."""
    info = table.info
    bound = EpisodeBound(longest, "give the environment a time limit (max_episode_steps)")
    assert info.env_id is not None
    episodes: Any = simulate(info.env_id, info.env_kwargs, policy, algorithm.evaluation_episodes, bound=bound)
    return [episode.episode_return for episode in episodes]
