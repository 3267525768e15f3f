"""Peers that clone: all data, the better episodes, or transitions by their weight."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from iq_offline.algorithms.bc import BCLearner
from iq_offline.algorithms.build import clone_policy
from iq_offline.algorithms.encoders import initialise, mlp
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.baselines.distances import Floats, Scaling
from iq_offline.baselines.filtering import CheckInterrupt, CloningConfig, more_demonstrations, similarities
from iq_offline.baselines.sources import Parts, PeerData, Pool, drawn, recorded, samplers_of
from iq_offline.batch import Batch
from iq_offline.config.base import Activation
from iq_offline.config.baselines import (
    CloneAllConfig,
    DiscriminatorConfig,
    FilteredBCConfig,
    WeightedBCConfig,
    WeightKind,
)
from iq_offline.data.spaces import ActionSpace
from iq_offline.training.alarm import DivergenceAlarm
from iq_offline.training.batches import SupplementarySampler, TransitionSampler, joined, sizes
from iq_offline.training.learnt import Data
from iq_offline.training.loop import BC_REMEDY, Progress, fit, fit_clone, with_metrics

CHUNK = 65_536
"""Observations that the discriminator classifies in one call."""


def fit_clone_all(config: CloneAllConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Clone all transitions, drawn uniformly."""
    samplers = samplers_of(data.parts, device)
    pool = Pool(samplers, device)
    draws = drawn(len(pool), config.cloning.batch_size, generator(seed, Stream.CLONING_BATCHES))
    cloning = config.cloning.settled(len(pool))
    yield from _clone(cloning, seed, data.expert.action_space, samplers, map(pool.gather, draws))


def fit_filtered(
    config: FilteredBCConfig, seed: int, data: PeerData, device: torch.device, check_interrupt: CheckInterrupt
) -> Iterator[Progress]:
    """Clone the demonstrations and the episodes that are most similar to them."""
    expert = TransitionSampler(data.expert, data.split.rows, device)
    found = more_demonstrations(config, config.cloning, seed, data, expert, check_interrupt)
    steps = fit_clone(found.cloning, seed, found.demonstrations, data.expert.action_space, device)
    yield from with_metrics(steps, found.metrics, found.accepted_episodes)


def fit_weighted(config: WeightedBCConfig, seed: int, data: PeerData, device: torch.device) -> Iterator[Progress]:
    """Clone the demonstrations, and supplementary transitions drawn in proportion to their weights.

    With `expert_share` 1 this is `bc`, to the bit.
    """
    cloning, space = config.cloning, data.expert.action_space
    if config.expert_share == 1:
        expert = TransitionSampler(data.expert, data.split.rows, device)
        yield from fit_clone(cloning, seed, expert, space, device)
        return
    weights, metrics = _weights(config, seed, data, data.supplementary_parts)
    expert, *others = samplers_of(data.parts, device)
    expert_size, other_size = sizes(cloning.batch_size, config.expert_share)
    pool, random = Pool(others, device), generator(seed, Stream.SUPPLEMENTARY_BATCHES)
    supplementary = map(pool.gather, drawn(len(pool), other_size, random, weights))
    demonstrated = expert.batches(expert_size, generator(seed, Stream.CLONING_BATCHES))
    batches = map(joined, zip(demonstrated, supplementary, strict=True))
    steps = _clone(cloning, seed, space, [expert, *others], batches)
    yield from with_metrics(steps, metrics | {"weights_effective_share": effective_share(weights)})


def _clone(
    cloning: CloningConfig,
    seed: int,
    space: ActionSpace,
    samplers: Sequence[TransitionSampler],
    batches: Iterator[Batch],
) -> Iterator[Progress]:
    """Clone `batches`, with observations standardised by all transitions of `samplers`, the expert's first."""
    expert, *others = samplers
    data = Data(expert, space, expert.device, SupplementarySampler(others) if others else None)
    learner = BCLearner(cloning, clone_policy(cloning, data.spec(seed)))
    yield from fit(learner, batches, cloning.fewest_updates, DivergenceAlarm(None, BC_REMEDY))


def _weights(config: WeightedBCConfig, seed: int, data: PeerData, parts: Parts) -> tuple[Floats, dict[str, float]]:
    if config.kind is WeightKind.NEAREST:
        return similarities(config.similarity.bandwidth, data, recorded(parts)), {}
    sources = [recorded(data.demonstrated_parts), recorded(parts)]
    scaling = Scaling.fit(sources, data.expert.action_space)
    expert, other = (torch.from_numpy(scaling.observations(source.observations)).float() for source in sources)
    return discriminator_weights(config.discriminator, seed, expert, other)


def discriminator_loss(expert_logits: Tensor, other_logits: Tensor) -> Tensor:
    """Mean cross entropy of telling the two apart, nats; minimise. Shapes: (B,), (B',) -> ()."""
    return (softplus(-expert_logits).mean() + softplus(other_logits).mean()) / 2


def discriminator_weights(
    config: DiscriminatorConfig, seed: int, expert: Tensor, other: Tensor
) -> tuple[Floats, dict[str, float]]:
    """exp(logit) of a discriminator between standardised observations, for each of `other`; and its last loss.

    With a perfect discriminator, the ratio of expert to supplementary density of observations. It learns from noisy
    observations and decays its weights: it must not memorise the few expert ones. Shapes: (M, D), (N, D) -> (N,).
    """
    network = mlp(expert.shape[1], 1, config.hidden_sizes, Activation.RELU)
    initialise(network, generator(seed, Stream.CRITIC))
    loss = _train_discriminator(network, config, generator(seed, Stream.ACTIONS), expert, other)
    low, high = config.log_weight_bounds
    with torch.no_grad():
        logits = torch.cat([network(part)[:, 0] for part in torch.split(other, CHUNK)])
    return logits.double().clamp(low, high).exp().numpy(), {"discriminator_loss": loss}


def _train_discriminator(
    network: nn.Module, config: DiscriminatorConfig, random: torch.Generator, expert: Tensor, other: Tensor
) -> float:
    def logits(source: Tensor) -> Tensor:
        batch = source[torch.randint(len(source), (config.batch_size,), generator=random)]
        noisy: Tensor = network(batch + config.noise * torch.randn(batch.shape, generator=random))
        return noisy[:, 0]

    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    for _ in range(config.updates):
        loss = discriminator_loss(logits(expert), logits(other))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return float(loss.detach())


def effective_share(weights: Floats) -> float:
    """(sum w)^2 / (n sum w^2): 1 where all weights are equal, 1 / n where one alone counts; 0 where all are zero."""
    squares = float(np.square(weights).sum()) * len(weights)
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0
