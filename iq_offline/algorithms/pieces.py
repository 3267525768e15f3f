"""Pieces that discrete and continuous learners put together in the same way."""

from collections.abc import Callable

import torch
from torch import Tensor

from iq_offline.algorithms.conservative.penalties import (
    hinge_gradient_penalty,
    interpolated,
    two_sided_gradient_penalty,
)
from iq_offline.algorithms.conservative.values import expectile_loss, gumbel_loss
from iq_offline.algorithms.noise import Noise, share
from iq_offline.config import (
    AbsorbingValue,
    GradientPenaltyConfig,
    GradientPenaltyKind,
    InSampleKind,
    InSampleValueConfig,
    IQConfig,
    ObjectiveKind,
)


def in_sample_loss(config: InSampleValueConfig, v: Tensor, q: Tensor) -> Tensor:
    """The loss of a value network on recorded actions' Q, by its kind. Shapes: (B,), (B,) -> ()."""
    if config.kind is InSampleKind.EXPECTILE:
        return expectile_loss(v, q, config.expectile)
    return gumbel_loss(v, q, config.gumbel_temperature, config.largest)


def absorbing_value(config: IQConfig, learnt: Tensor) -> Tensor | float | None:
    """The value behind a termination; None for zero, which needs no state of its own."""
    if config.absorbing_value is AbsorbingValue.ZERO:
        return None
    if config.absorbing_value is AbsorbingValue.LOWEST:
        lowest = config.fixed_rewards[1] / (1 - config.gamma)
        return lowest if config.target_bound is None else -config.target_bound
    return learnt if config.target_bound is None else learnt.clamp(-config.target_bound, config.target_bound)


def within_fixed(config: IQConfig, rewards: Tensor) -> Tensor:
    """Recovered rewards within the two fixed ones, where there are such (LEAST_SQUARES): the bound of [LSIQ23]."""
    if config.objective is not ObjectiveKind.LEAST_SQUARES:
        return rewards
    best, worst = config.fixed_rewards
    return rewards.clamp(min(best, worst), max(best, worst))


def gradient_penalty_at(
    config: GradientPenaltyConfig,
    critic: Callable[[Tensor, Tensor], Tensor],
    observations: Tensor,
    expert_actions: Tensor,
    policy_actions: Tensor,
    noise: Noise,
) -> Tensor:
    """The penalty on critics' gradients between the expert's actions and the policy's at its observations, ().

    Gradients are with respect to standardised observation and scaled action together. Shapes: (B, D), (B, A), (B, A).
    """
    shares = share(noise, len(observations), 1)
    points = observations.detach().clone().requires_grad_(True)
    actions = interpolated(expert_actions, policy_actions, shares).requires_grad_(True)
    penalties = []
    for q in critic(points, actions):
        gradients = torch.cat(torch.autograd.grad(q.sum(), (points, actions), create_graph=True), dim=-1)
        kind = hinge_gradient_penalty if config.kind is GradientPenaltyKind.HINGE else two_sided_gradient_penalty
        penalties.append(kind(gradients, config.target))
    return torch.stack(penalties).mean()
