"""Reward-labelled peers: rewards by a labeller, then offline reinforcement learning on them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from iq_offline.algorithms.noise import Stream, generator
from iq_offline.baselines.d3rlpy_adapter import D3rlpyLearner, RewardedBatch
from iq_offline.baselines.distances import Floats, Scaling, nearest_distances
from iq_offline.baselines.sources import Parts, PeerData, Pool, Recorded, drawn, recorded, samplers_of
from iq_offline.config.baselines import Labeller, OTRConfig, RewardLabelledConfig, SEABOConfig
from iq_offline.errors import ConfigError, PackageMissing
from iq_offline.training.alarm import DivergenceAlarm
from iq_offline.training.batches import SupplementarySampler, TransitionSampler, joined, sizes
from iq_offline.training.learnt import Data
from iq_offline.training.loop import Progress, fit

REMEDY = "lower the learning rate (--set td3bc.learning_rate=1e-4 or iql.learning_rate=1e-4)"
CPU = torch.device("cpu")
MIN_NORM = 1e-12
"""A shorter observation has no direction: its cosine with any other is 0."""


@dataclass(frozen=True)
class Labels:
    """Rewards of the expert's transitions and of the supplementary ones, (M,) and (N,)."""

    expert: Floats
    supplementary: Floats


def fit_labelled(config: RewardLabelledConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Label, then train on the CPU; the policies that it yields are on `device`. Logs each source's mean reward."""
    labels = label(config, data)
    expert, *others = samplers_of(data.parts, CPU)
    known = SupplementarySampler(others) if others else None
    learner = D3rlpyLearner(config, seed, Data(expert, data.expert.action_space, CPU, known), device)
    expert_size, other_size = sizes(config.batch_size, config.expert_share) if others else (config.batch_size, 0)
    batches = _rewarded_batches([expert], labels.expert, expert_size, generator(seed, Stream.BATCHES))
    if others:
        random = generator(seed, Stream.SUPPLEMENTARY_BATCHES)
        supplementary = _rewarded_batches(others, labels.supplementary, other_size, random)
        batches = (_joined(*pair) for pair in zip(batches, supplementary, strict=True))
    sources = {"expert_reward": labels.expert, "supplementary_reward": labels.supplementary}
    means = {name: float(rewards.mean()) for name, rewards in sources.items() if len(rewards)}
    for progress in fit(learner, batches, config.updates, DivergenceAlarm(None, REMEDY)):
        yield replace(progress, metrics=progress.metrics | means)


def label(config: RewardLabelledConfig, data: PeerData) -> Labels:
    """Rewards of the labeller for all transitions, scaled where asked. Recorded ones are read by Labeller.TRUE alone.

    Raises ConfigError where no scale gives the episodes' sums the range asked for.
    """
    labels = _labelled(config, data)
    if config.return_range is None:
        return labels
    others = data.supplementary_parts
    sums = _episode_sums(others or data.demonstrated_parts, labels.supplementary if others else labels.expert)
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
    if config.labeller is Labeller.TRUE:
        own, *others = (table.rewards(rows).astype(np.float64) for table, rows in data.parts)
        return Labels(own, np.concatenate([np.zeros(0), *others]))
    expert, other = recorded(data.demonstrated_parts), recorded(data.supplementary_parts)
    if config.labeller is Labeller.UDS:
        return Labels(uds_rewards(len(expert), expert=True), uds_rewards(len(other), expert=False))
    scaling = Scaling.fit([expert, other], data.expert.action_space)
    rewards = _seabo if config.labeller is Labeller.SEABO else _otr
    return Labels(rewards(config, scaling, expert, expert), rewards(config, scaling, other, expert))


def _seabo(config: RewardLabelledConfig, scaling: Scaling, part: Recorded, expert: Recorded) -> Floats:
    triples, demonstrated = scaling.triples(part), scaling.triples(expert)
    return seabo_rewards(config.seabo, triples, demonstrated, action_size=part.actions.shape[1])


def _otr(config: RewardLabelledConfig, scaling: Scaling, part: Recorded, expert: Recorded) -> Floats:
    observations, demonstrated = scaling.observations(part.observations), scaling.observations(expert.observations)
    demonstrations = [demonstrated[place] for place in expert.episode_slices()]
    found = [otr_rewards(config.otr, observations[place], demonstrations) for place in part.episode_slices()]
    return np.concatenate(found)


def _rewarded_batches(
    samplers: Sequence[TransitionSampler], rewards: Floats, size: int, random: torch.Generator
) -> Iterator[RewardedBatch]:
    """Endless uniform batches of those samplers' transitions with their rewards, (N,) in the samplers' order."""
    pool, labels = Pool(samplers, CPU), torch.from_numpy(rewards).float()
    for positions in drawn(len(pool), size, random):
        yield RewardedBatch(**vars(pool.gather(positions)), rewards=labels[positions])


def _joined(expert: RewardedBatch, other: RewardedBatch) -> RewardedBatch:
    return RewardedBatch(**vars(joined([expert, other])), rewards=torch.cat([expert.rewards, other.rewards]))


def seabo_rewards(config: SEABOConfig, triples: Floats, demonstrated: Floats, action_size: int) -> Floats:
    """scale * exp(-decay * d / |A|), d the distance to the nearest demonstrated (s, a, s'); [SEABO24] sec. 4.

    Shapes: (N, F), (M, F) -> (N,). Largest at a demonstration: `scale`.
    """
    distances = nearest_distances(triples, demonstrated)
    return np.asarray(config.scale * np.exp(-config.decay * distances / action_size))


def otr_rewards(config: OTRConfig, episode: Floats, demonstrations: list[Floats]) -> Floats:
    """scale * exp(-decay * c) of each step of an episode; [OTR23] algorithm 1.

    c is the step's cost in the transport to that demonstration which the whole episode reaches at least cost.
    Shapes: (T, D), each (T_k, D) -> (T,). Raises PackageMissing without POT.
    """
    costs = [transport_costs(config, episode, thinned(steps, config.demonstration_steps)) for steps in demonstrations]
    nearest = min(costs, key=lambda cost: float(cost.mean()))
    return np.asarray(config.scale * np.exp(-config.decay * nearest))


def transport_costs(config: OTRConfig, episode: Floats, demonstration: Floats) -> Floats:
    """Mean cosine cost of each step's mass under the entropic optimal plan, in [0, 2]. Shapes: (T, D), (S, D) -> (T,).

    Both sides have uniform mass. The plan's rows are normalised, so a cost does not depend on the episode's length,
    and a plan that has not converged after the last iteration gives costs of the right size. Raises PackageMissing.
    """
    try:
        import ot
    except ImportError:
        raise PackageMissing("labeller otr needs POT", "run: pip install 'iq-offline[baselines]'") from None
    costs = cosine_costs(episode, demonstration)
    # A constant added to a whole row changes no plan; it keeps exp(-cost / regularisation) from vanishing.
    shifted = costs - costs.min(axis=1, keepdims=True)
    masses = (np.full(size, 1 / size) for size in costs.shape)
    plan = ot.sinkhorn(*masses, shifted, config.regularisation, numItermax=config.iterations, warn=False)
    return np.asarray((plan * costs).sum(axis=1) / plan.sum(axis=1))


def cosine_costs(first: Floats, second: Floats) -> Floats:
    """1 - cosine of each pair of rows. Shapes: (T, D), (S, D) -> (T, S)."""
    lengths = [np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), MIN_NORM) for rows in (first, second)]
    return np.asarray(1 - (first / lengths[0]) @ (second / lengths[1]).T).clip(0, 2)


def thinned(steps: Floats, most: int) -> Floats:
    """At most so many rows, evenly spread from the first to the last. Shapes: (T, D) -> (min(T, most), D)."""
    if len(steps) <= most:
        return steps
    return steps[np.linspace(0, len(steps) - 1, most).round().astype(np.int64)]


def uds_rewards(steps: int, *, expert: bool) -> Floats:
    """1 for each demonstrated step, 0 for each supplementary one; [UDS22] sec. 4, for which the latter is the least."""
    return np.full(steps, float(expert))
