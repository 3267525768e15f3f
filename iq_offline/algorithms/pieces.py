"""Pieces that discrete and continuous learners put together in the same way."""

from collections.abc import Callable

import torch
from torch import Tensor

from iq_offline.algorithms.conservative.penalties import (
    hinge_gradient_penalty,
    interpolated,
    two_sided_gradient_penalty,
)
from iq_offline.algorithms.conservative.values import expectile_loss, gumbel_loss, sampled_cql_gap
from iq_offline.algorithms.distributions import ContinuousActionDistribution
from iq_offline.algorithms.noise import NORMAL, Draw, Noise, share, symmetric
from iq_offline.config import (
    AbsorbingValue,
    CQLConfig,
    GradientPenaltyConfig,
    GradientPenaltyKind,
    InSampleKind,
    InSampleValueConfig,
    IQConfig,
    ObjectiveKind,
)

LARGEST_COHERENT = 6.45
"""Bound of a coherent reward a dimension: -log(1e-5) / 2 + log 2, [CSIL23]'s."""
LOG_UNIFORM = 0.6931471805599453
"""-log of the uniform density of one scaled action."""


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


def coherent_reward(log_ratio: Tensor, coherence: float | None, size: int) -> Tensor:
    """[CSIL23]'s reward: coherence (1 / size if None) * log(cloned density / uniform density), bounded.

    Shapes: log_ratio (B,) -> (B,); `size` is the number of dimensions, 1 for discrete actions.
    """
    bound = size * LARGEST_COHERENT
    return (coherence or 1 / size) * log_ratio.clamp(-bound, bound)


def cql_gap_at(
    config: CQLConfig,
    critic: Callable[[Tensor, Tensor], Tensor],
    observations: Tensor,
    actions: Tensor,
    here: ContinuousActionDistribution,
    noise: Noise,
) -> Tensor:
    """The importance-sampled gap at recorded actions, mean over critics, (); `here` is what the policy would do.

    Observations standardised, (B, D), recorded actions scaled, (B, A). Source: [CQL20] appendix F.
    """
    count, size = config.actions, actions.shape[-1]
    with torch.no_grad():
        drawn, log_prob = here.proposal(noise.draw(Draw((count, len(observations), size), NORMAL)))
        uniform = symmetric(noise, count, len(observations), size)
    q = critic(observations, torch.cat([uniform, drawn]))
    q_data = critic(observations, actions)
    gaps = [
        sampled_cql_gap(uniform_q, policy_q, log_prob, data, config.temperature, size)
        for (uniform_q, policy_q), data in zip(q.view(len(q), 2, count, -1), q_data, strict=True)
    ]
    return torch.stack(gaps).mean()


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
