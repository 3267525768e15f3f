"""Weights of supplementary transitions: how much each is worth cloning."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from iq_offline.algorithms.encoders import initialise, mlp
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.baselines.distances import Floats, left_out_distances, likeness, nearest_distances
from iq_offline.config.base import Activation
from iq_offline.config.baselines import DiscriminatorConfig

ASKED_AT_ONCE = 65_536
"""Observations that the discriminator judges in one call."""

NARROWEST = 1e-6
"""Bandwidth where demonstrations repeat each other: only what equals one is like it."""


def nearest_weights(points: Floats, demonstrated: Floats, episodes: NDArray[np.int64], bandwidth: float) -> Floats:
    """Likeness of each point to its nearest demonstrated one, between 0 and 1.

    `bandwidth` is in median distances between demonstrations (`left_out_distances`), which `episodes` tells apart.
    Shapes: (N, F), (M, F), (M,) -> (N,).
    """
    typical = float(np.median(left_out_distances(demonstrated, episodes)))
    return likeness(nearest_distances(points, demonstrated), max(bandwidth * typical, NARROWEST))


def discriminator_loss(expert_logits: Tensor, other_logits: Tensor) -> Tensor:
    """Mean cross entropy of telling the two apart, nats; minimise. Shapes: (B,), (B',) -> ()."""
    return (softplus(-expert_logits).mean() + softplus(other_logits).mean()) / 2


def discriminator_weights(
    config: DiscriminatorConfig, seed: int, expert: Tensor, other: Tensor
) -> tuple[Floats, dict[str, float]]:
    """exp(logit) of a discriminator between standardised observations, for each of `other`; and its last loss.

    With a perfect discriminator, the ratio of expert to supplementary density of observations. It learns from noisy
    observations and decays its weights: it must not know the few expert ones by heart. Shapes: (M, D), (N, D) -> (N,).
    """
    network = mlp(expert.shape[1], 1, config.hidden_sizes, Activation.RELU)
    initialise(network, generator(seed, Stream.CRITIC))
    loss = _train(network, config, generator(seed, Stream.ACTIONS), expert, other)
    low, high = config.log_weight_bounds
    with torch.no_grad():
        logits = torch.cat([network(part)[:, 0] for part in torch.split(other, ASKED_AT_ONCE)])
    return logits.double().clamp(low, high).exp().numpy(), {"discriminator_loss": loss}


def effective_share(weights: Floats) -> float:
    """(sum w)^2 / (n sum w^2): 1 where all weigh the same, 1 / n where one alone counts; 0 where none does."""
    squares = float(np.square(weights).sum()) * len(weights)
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def _train(
    network: nn.Module, config: DiscriminatorConfig, random: torch.Generator, expert: Tensor, other: Tensor
) -> float:
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    for _ in range(config.updates):
        expert_logits, other_logits = (
            network(_noisy(source, config.batch_size, config.noise, random))[:, 0] for source in (expert, other)
        )
        loss = discriminator_loss(expert_logits, other_logits)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return float(loss.detach())


def _noisy(source: Tensor, size: int, noise: float, random: torch.Generator) -> Tensor:
    drawn = source[torch.randint(len(source), (size,), generator=random)]
    return drawn + noise * torch.randn(drawn.shape, generator=random)
