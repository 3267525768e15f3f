"""Reward-labelled peers: rewards by a labeller, then offline reinforcement learning on them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from iq_offline.algorithms.noise import Stream, generator
from iq_offline.baselines.d3rlpy_adapter import D3rlpyLearner, RewardedBatch
from iq_offline.baselines.distances import Floats, Scaling
from iq_offline.baselines.labels import otr_rewards, seabo_rewards, uds_rewards
from iq_offline.baselines.sources import PeerData, Pool, Recorded, drawn, recorded, supplementary_rows
from iq_offline.batch import Batch
from iq_offline.config.baselines import Labeller, RewardLabelledConfig
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError
from iq_offline.training.alarm import DivergenceAlarm
from iq_offline.training.batches import Rows, SupplementarySampler, TransitionSampler, joined, sizes
from iq_offline.training.learnt import Data
from iq_offline.training.loop import Progress, fit

REMEDY = "lower the learning rate (--set td3bc.learning_rate=1e-4 or iql.learning_rate=1e-4)"
CPU = torch.device("cpu")

Parts = Sequence[tuple[TransitionTable, Rows]]


@dataclass(frozen=True)
class Labels:
    """Rewards of the expert's transitions and of the supplementary ones, (M,) and (N,)."""

    expert: Floats
    supplementary: Floats

    def means(self) -> dict[str, float]:
        """Metrics: the mean reward of each source that has any."""
        sources = {"expert_reward": self.expert, "supplementary_reward": self.supplementary}
        return {name: float(rewards.mean()) for name, rewards in sources.items() if len(rewards)}


def fit_labelled(config: RewardLabelledConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Label, then train on the CPU; the policies that it yields are on `device`."""
    labels = label(config, data)
    expert, *others = (TransitionSampler(table, rows, CPU) for table, rows in _parts(data))
    known = SupplementarySampler(others) if others else None
    learner = D3rlpyLearner(config, seed, Data(expert, data.expert.action_space, CPU, known), device)
    expert_size, other_size = sizes(config.batch_size, config.expert_share) if others else (config.batch_size, 0)
    batches = rewarded_batches([expert], labels.expert, expert_size, generator(seed, Stream.BATCHES))
    if others:
        random = generator(seed, Stream.SUPPLEMENTARY_BATCHES)
        beside = rewarded_batches(others, labels.supplementary, other_size, random)
        batches = (_together(pair) for pair in zip(batches, beside, strict=True))
    means = labels.means()
    for progress in fit(learner, batches, config.updates, DivergenceAlarm(None, REMEDY)):
        yield replace(progress, metrics=progress.metrics | means)


def label(config: RewardLabelledConfig, data: PeerData) -> Labels:
    """Rewards of the labeller for all transitions, scaled where asked. Recorded ones are read by Labeller.TRUE alone.

    Raises ConfigError where no scale gives the episodes' sums the range asked for.
    """
    labels = _labelled(config, data)
    if config.return_range is None:
        return labels
    demonstrated, *others = _parts(data)
    sums = _episode_sums(others, labels.supplementary) if others else _episode_sums([demonstrated], labels.expert)
    if np.ptp(sums) == 0:
        raise ConfigError("the rewards of all episodes have one sum: return_range cannot scale them", "leave it out")
    scale = config.return_range / np.ptp(sums)
    return Labels(labels.expert * scale, labels.supplementary * scale)


def _episode_sums(parts: Parts, rewards: Floats) -> Floats:
    """Sum of each episode's rewards, which are in the parts' order."""
    cuts = np.cumsum([len(rows) for _, rows in parts])[:-1]
    sums = []
    for (table, rows), own in zip(parts, np.split(rewards, cuts), strict=True):
        _, number = np.unique(table.episode_numbers(rows), return_inverse=True)
        sums.append(np.bincount(number, weights=own))
    return np.concatenate(sums)


def _labelled(config: RewardLabelledConfig, data: PeerData) -> Labels:
    demonstrated, *others = _parts(data)
    if config.labeller is Labeller.TRUE:
        rewards = [table.rewards(rows).astype(np.float64) for table, rows in [demonstrated, *others]]
        return Labels(rewards[0], np.concatenate([np.zeros(0), *rewards[1:]]))
    expert, other = recorded([demonstrated]), recorded(others)
    if config.labeller is Labeller.UDS:
        return Labels(uds_rewards(len(expert), expert=True), uds_rewards(len(other), expert=False))
    scaling = Scaling.fit([expert, other], data.expert.action_space)
    of = _seabo if config.labeller is Labeller.SEABO else _otr
    return Labels(of(config, scaling, expert, expert), of(config, scaling, other, expert))


def rewarded_batches(
    samplers: Sequence[TransitionSampler], rewards: Floats, size: int, random: torch.Generator
) -> Iterator[RewardedBatch]:
    """Endless uniform batches of those samplers' transitions with their rewards, (N,) in the samplers' order."""
    pool, labels = Pool(samplers, CPU), torch.from_numpy(rewards).float()
    for positions in drawn(len(pool), size, random):
        yield _rewarded(pool.gather(positions), labels[positions])


def _seabo(config: RewardLabelledConfig, scaling: Scaling, part: Recorded, expert: Recorded) -> Floats:
    triples, demonstrated = scaling.triples(part), scaling.triples(expert)
    return seabo_rewards(config.seabo, triples, demonstrated, action_size=part.actions.shape[1])


def _otr(config: RewardLabelledConfig, scaling: Scaling, part: Recorded, expert: Recorded) -> Floats:
    observations, demonstrated = scaling.observations(part.observations), scaling.observations(expert.observations)
    demonstrations = [demonstrated[place] for place in expert.episode_slices()]
    found = [otr_rewards(config.otr, observations[place], demonstrations) for place in part.episode_slices()]
    return np.concatenate(found)


def _parts(data: PeerData) -> Parts:
    return [(data.expert, data.split.rows), *supplementary_rows(data)]


def _together(pair: tuple[RewardedBatch, RewardedBatch]) -> RewardedBatch:
    return _rewarded(joined(pair), torch.cat([batch.rewards for batch in pair]))


def _rewarded(batch: Batch, rewards: Tensor) -> RewardedBatch:
    return RewardedBatch(
        batch.observations, batch.actions, batch.next_observations, batch.terminations, rewards=rewards
    )
