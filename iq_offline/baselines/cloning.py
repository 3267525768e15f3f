"""Peers that clone: all data, the better episodes, or transitions by their weight."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from iq_offline.algorithms.bc import BCLearner
from iq_offline.algorithms.build import clone_policy
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.baselines.distances import Floats, Scaling
from iq_offline.baselines.filtering import CheckInterrupt, CloningConfig, likenesses, more_demonstrations
from iq_offline.baselines.sources import Parts, PeerData, Pool, drawn, recorded, supplementary_rows
from iq_offline.baselines.weights import discriminator_weights, effective_share
from iq_offline.batch import Batch
from iq_offline.config.baselines import (
    ContinuousCloneAllConfig,
    ContinuousFilteredBCConfig,
    ContinuousWeightedBCConfig,
    DiscreteCloneAllConfig,
    DiscreteFilteredBCConfig,
    DiscreteWeightedBCConfig,
    WeightKind,
)
from iq_offline.training.alarm import DivergenceAlarm
from iq_offline.training.batches import SupplementarySampler, TransitionSampler, joined, sizes
from iq_offline.training.learnt import Data
from iq_offline.training.loop import BC_REMEDY, Progress, fit, fit_clone, with_metrics

WeightedConfig = ContinuousWeightedBCConfig | DiscreteWeightedBCConfig
FilteredConfig = ContinuousFilteredBCConfig | DiscreteFilteredBCConfig
CloneAll = ContinuousCloneAllConfig | DiscreteCloneAllConfig


@dataclass(frozen=True)
class Mixture:
    """What is cloned beside the demonstrations: rows by table, the share of these, and the rows' weights.

    `weights`: (N,) in proportion to which they are drawn.
    """

    parts: Parts
    expert_share: float
    weights: Floats


def fit_clone_all(config: CloneAll, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Cloning of all transitions, drawn uniformly."""
    parts = [(data.expert, data.split.rows), *supplementary_rows(data)]
    samplers = _samplers(parts, device)
    pool = Pool(samplers, device)
    draws = drawn(len(pool), config.cloning.batch_size, generator(seed, Stream.CLONING_BATCHES))
    batches = (pool.gather(positions) for positions in draws)
    yield from _clone(config.cloning.settled(len(pool)), seed, _everything(data, samplers, device), batches)


def fit_filtered(
    config: FilteredConfig, seed: int, data: PeerData, device: torch.device, heed: CheckInterrupt
) -> Iterator[Progress]:
    """Cloning of the demonstrations and of the episodes that are most like them."""
    expert = TransitionSampler(data.expert, data.split.rows, device)
    found = more_demonstrations(config, config.cloning, seed, data, expert, heed)
    steps = fit_clone(found.cloning, seed, found.demonstrations, data.expert.action_space, device)
    yield from with_metrics(steps, found.metrics, found.accepted_episodes)


def fit_weighted(config: WeightedConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Cloning of the demonstrations and of supplementary transitions, these drawn in proportion to their weights."""
    if config.expert_share == 1:
        yield from _plain(config.cloning, seed, data, device)
        return
    parts = supplementary_rows(data)
    weights, metrics = _weights(config, seed, data, parts)
    metrics |= {"weights_effective_share": effective_share(weights)}
    mixture = Mixture(parts, config.expert_share, weights)
    yield from with_metrics(_mixed(config.cloning, seed, data, mixture, device), metrics)


def _weights(config: WeightedConfig, seed: int, data: PeerData, parts: Parts) -> tuple[Floats, dict[str, float]]:
    if config.kind is WeightKind.NEAREST:
        return likenesses(config.likeness.bandwidth, data, recorded(parts)), {}
    sources = [recorded([(data.expert, data.split.rows)]), recorded(parts)]
    scaling = Scaling.fit(sources, data.expert.action_space)
    expert, other = (torch.from_numpy(scaling.observations(source.observations)).float() for source in sources)
    return discriminator_weights(config.discriminator, seed, expert, other)


def _plain(cloning: CloningConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Cloning of the demonstrations alone: `bc`, to the bit."""
    sampler = TransitionSampler(data.expert, data.split.rows, device)
    yield from fit_clone(cloning, seed, sampler, data.expert.action_space, device)


def _mixed(
    cloning: CloningConfig, seed: int, data: PeerData, mixture: Mixture, device: torch.device
) -> Iterator[Progress]:
    expert, *others = _samplers([(data.expert, data.split.rows), *mixture.parts], device)
    expert_size, other_size = sizes(cloning.batch_size, mixture.expert_share)
    pool, random = Pool(others, device), generator(seed, Stream.SUPPLEMENTARY_BATCHES)
    supplementary = (pool.gather(positions) for positions in drawn(len(pool), other_size, random, mixture.weights))
    demonstrated = expert.batches(expert_size, generator(seed, Stream.CLONING_BATCHES))
    batches = (joined(pair) for pair in zip(demonstrated, supplementary, strict=True))
    yield from _clone(cloning, seed, _everything(data, [expert, *others], device), batches)


def _clone(cloning: CloningConfig, seed: int, data: Data, batches: Iterator[Batch]) -> Iterator[Progress]:
    """Behavioural cloning on `batches`, its observations standardised by all that `data` hold."""
    learner = BCLearner(cloning, clone_policy(cloning, data.spec(seed)))
    yield from fit(learner, batches, cloning.fewest_updates, DivergenceAlarm(None, BC_REMEDY))


def _everything(data: PeerData, samplers: Sequence[TransitionSampler], device: torch.device) -> Data:
    expert, *others = samplers
    return Data(expert, data.expert.action_space, device, SupplementarySampler(others) if others else None)


def _samplers(parts: Parts, device: torch.device) -> list[TransitionSampler]:
    return [TransitionSampler(table, rows, device) for table, rows in parts]
