"""Conservative regularisers: one function each, under the name of its settings' field in `config/regularisers.py`.

A function takes its settings and what the critic step has at hand, and returns the term to be minimised, (). Learners
get the active ones as a list of (name, weight, function) and know none of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from iq_offline.algorithms.actor_critic import CriticInputs, Regularisers
from iq_offline.algorithms.bc import cloning_loss
from iq_offline.algorithms.losses import Regulariser, mixed
from iq_offline.algorithms.networks import ContinuousPolicy
from iq_offline.algorithms.noise import NORMAL, Draw, normal, share, symmetric
from iq_offline.batch import Batch
from iq_offline.config.base import FrozenModel
from iq_offline.config.regularisers import (
    ActionGradientAt,
    ActionGradientConfig,
    BehaviouralCloningConfig,
    CQLConfig,
    DiversityConfig,
    GradientPenaltyConfig,
    GradientPenaltyKind,
    ObservationNoiseConfig,
    Source,
    ValueSuppressionConfig,
    active_regularisers,
)


@dataclass(frozen=True)
class DiscreteCriticInputs:
    """What an update of a Q-function over discrete actions has at hand, for its regularisers.

    `q_values`: Q of all actions at raw observations, (B, D) -> (B, actions); `q`: of the expert's actions, (B,);
    `probabilities`: the policy's, without a gradient, (B, D) -> (B, actions).
    """

    q_values: Callable[[Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor]
    observation_std: Tensor
    batch: Batch
    q: Tensor


def action_gradient(settings: ActionGradientConfig, inputs: CriticInputs) -> Tensor:
    """E |dQ/da|^2, mean over critics, (). Source: [CSIL23].

    RECORDED: at the expert's actions. BETWEEN: at a point drawn uniformly between the expert's action and the policy's.
    Q(s, a) - Q(s, a') is the mean slope on the way times the way; so, whatever the critic, no weighted sum of value
    term and penalty is below -E |a - a'|^2 / (4 weight).
    """
    if settings.at is ActionGradientAt.RECORDED:
        return torch.stack([squared_slope(q, inputs.actions) for q in inputs.q]).mean()
    other = inputs.policy_actions
    if other is None:
        other = inputs.draw_actions(inputs.batch.observations)
    points = interpolated(inputs.actions, other, share(inputs.noise, len(other), 1)).detach().requires_grad_(True)
    return torch.stack([squared_slope(q, points) for q in inputs.critic(inputs.observations, points)]).mean()


def cql(settings: CQLConfig, inputs: CriticInputs) -> Tensor:
    """The importance-sampled CQL gap, mean over critics and sources, (). Source: [CQL20] appendix F."""
    other = inputs.batch.supplementary if settings.on is Source.MIXTURE else None
    gap = _sampled_gap_at(settings, inputs, inputs.batch)
    return mixed(gap, None if other is None else _sampled_gap_at(settings, inputs, other))


def value_suppression(settings: ValueSuppressionConfig, inputs: CriticInputs) -> Tensor:
    """E_supplementary[Q(s, policy)] - E_expert[Q(s, a)], (): lower values where only supplementary data go.

    Source: [RECOIL24], the value term of the dual over the mixture's complement. Zero without supplementary data.
    """
    del settings
    other = inputs.batch.supplementary
    if other is None:
        return torch.zeros_like(inputs.q.mean())
    drawn = inputs.draw_actions(other.observations)
    q: Tensor = inputs.critic(inputs.policy.standardise(other.observations), drawn)
    return q.mean() - inputs.q.mean()


def gradient_penalty(settings: GradientPenaltyConfig, inputs: CriticInputs) -> Tensor:
    """Penalty on critics' gradients between the expert's actions and the policy's at its observations, ().

    Gradients are with respect to standardised observation and scaled action together. Source: [WGANGP17].
    """
    drawn = inputs.draw_actions(inputs.batch.observations)
    points = inputs.observations.detach().clone().requires_grad_(True)
    between = interpolated(inputs.actions.detach(), drawn, share(inputs.noise, len(drawn), 1)).requires_grad_(True)
    penalties = []
    for q in inputs.critic(points, between):
        gradients = torch.cat(torch.autograd.grad(q.sum(), (points, between), create_graph=True), dim=-1)
        penalties.append(steepness(settings, gradients))
    return torch.stack(penalties).mean()


def diversity(settings: DiversityConfig, inputs: CriticInputs) -> Tensor:
    """Mean cosine similarity of critics' action gradients, mean over sources, (). Source: [EDAC21] eq. 4."""
    del settings
    other = inputs.batch.supplementary
    return mixed(_similarity_at(inputs, inputs.batch), None if other is None else _similarity_at(inputs, other))


def observation_noise(settings: ObservationNoiseConfig, inputs: CriticInputs) -> Tensor:
    """E (Q(s + noise, a) - Q(s, a))^2 at the expert's actions, mean over critics, ().

    Source: [RORL22] eq. 4, with random in place of adversarial perturbations.
    """
    noise = settings.std * normal(inputs.noise, inputs.observations)
    noisy_q: Tensor = inputs.critic(inputs.observations + noise, inputs.actions)
    return (noisy_q - inputs.q).square().mean()


def behavioural_cloning(settings: BehaviouralCloningConfig, policy: ContinuousPolicy, batch: Batch) -> Tensor:
    """Cloning error of the actor's mean at the expert's actions, (). Source: [TD3BC21]."""
    return cloning_loss(policy, batch, settings.loss)


def discrete_cql(settings: CQLConfig, inputs: DiscreteCriticInputs) -> Tensor:
    """The exact CQL gap, mean over sources, (). Source: [CQL20] eq. 4, CQL(H)."""

    def gap(source: Batch) -> Tensor:
        q_values = inputs.q_values(source.observations)
        return cql_gap(q_values, q_of_actions(q_values, source.actions), settings.temperature)

    other = inputs.batch.supplementary if settings.on is Source.MIXTURE else None
    return mixed(gap(inputs.batch), None if other is None else gap(other))


def discrete_value_suppression(settings: ValueSuppressionConfig, inputs: DiscreteCriticInputs) -> Tensor:
    """As `value_suppression`, with the policy's exact expectation, ()."""
    del settings
    other = inputs.batch.supplementary
    if other is None:
        return torch.zeros_like(inputs.q.mean())
    expected = (inputs.probabilities(other.observations) * inputs.q_values(other.observations)).sum(dim=-1)
    return expected.mean() - inputs.q.mean()


def discrete_gradient_penalty(settings: GradientPenaltyConfig, inputs: DiscreteCriticInputs) -> Tensor:
    """Penalty on the gradient of the recorded action's Q with respect to the standardised observation, ()."""
    points = inputs.batch.observations.detach().clone().requires_grad_(True)
    q = q_of_actions(inputs.q_values(points), inputs.batch.actions)
    (of_raw,) = torch.autograd.grad(q.sum(), points, create_graph=True)
    return steepness(settings, of_raw * inputs.observation_std)


CRITIC: dict[str, Callable[..., Tensor]] = {
    "action_gradient": action_gradient,
    "cql": cql,
    "value_suppression": value_suppression,
    "gradient_penalty": gradient_penalty,
    "diversity": diversity,
    "observation_noise": observation_noise,
}
"""Regularisers of critics over continuous actions, in the order in which they are added."""
ACTOR: dict[str, Callable[..., Tensor]] = {"behavioural_cloning": behavioural_cloning}
"""Regularisers of an actor over continuous actions."""
DISCRETE: dict[str, Callable[..., Tensor]] = {
    "cql": discrete_cql,
    "value_suppression": discrete_value_suppression,
    "gradient_penalty": discrete_gradient_penalty,
}
"""Regularisers of a Q-function over discrete actions, in the order in which they are added."""


def chosen(functions: dict[str, Callable[..., Tensor]], config: FrozenModel) -> list[Regulariser]:
    """Those of `functions` that a configuration gives a weight."""
    settings: dict[str, Any] = dict(active_regularisers(config))
    return [
        Regulariser(name, settings[name].weight, partial(function, settings[name]))
        for name, function in functions.items()
        if name in settings
    ]


def regularisers_of(config: FrozenModel) -> Regularisers:
    """Those of an actor-critic method's configuration."""
    return Regularisers(chosen(CRITIC, config), chosen(ACTOR, config))


def squared_slope(q: Tensor, actions: Tensor) -> Tensor:
    """E |dQ/da|^2. Shapes: q (B,), actions (B, A) that require a gradient and that q was computed from -> ()."""
    (gradients,) = torch.autograd.grad(q.sum(), actions, create_graph=True)
    return gradients.square().sum(dim=-1).mean()


def interpolated(first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
    """Points between two batches: share * first + (1 - share) * second. Shapes: (B, D), (B, D), (B, 1) -> (B, D)."""
    return shares * first + (1 - shares) * second


def steepness(settings: GradientPenaltyConfig, gradients: Tensor) -> Tensor:
    """Shapes: (B, D) -> (). TWO_SIDED: E[(|gradient| - target)^2], [WGANGP17] eq. 3; its own gradient at 0 is 0.

    HINGE: E[max(0, largest |component| - target)^2].
    """
    if settings.kind is GradientPenaltyKind.HINGE:
        return (gradients.abs().amax(dim=-1) - settings.target).clamp_min(0).square().mean()
    return ((gradients.square().sum(dim=-1) + 1e-12).sqrt() - settings.target).square().mean()


def cosine_similarity(action_gradients: Tensor) -> Tensor:
    """Mean cosine similarity between members' action gradients. Shapes: (N, B, A) -> (); N >= 2."""
    members = len(action_gradients)
    if members < 2:
        raise ValueError("diversity needs an ensemble of two members or more")
    directions = torch.nn.functional.normalize(action_gradients, dim=-1, eps=1e-10)
    total = directions.sum(dim=0).square().sum(dim=-1)  # sum over all pairs (i, j), i = j among them
    own = directions.square().sum(dim=(0, -1))
    return ((total - own) / (members * (members - 1))).mean()


def cql_gap(q_values: Tensor, q_data: Tensor, temperature: float) -> Tensor:
    """E[temperature * logsumexp(Q(s, .) / temperature) - Q(s, a)] over discrete actions, exactly.

    Shapes: q_values (B, actions), q_data (B,) -> (). It lowers Q of whatever action is greatest and raises that of the
    recorded one; zero only where the recorded action has all the soft mass.
    """
    return (temperature * torch.logsumexp(q_values / temperature, dim=-1) - q_data).mean()


def sampled_cql_gap(
    q_uniform: Tensor, q_policy: Tensor, policy_log_prob: Tensor, q_data: Tensor, temperature: float, action_size: int
) -> Tensor:
    """The same gap with the integral over actions in [-1, 1]^A estimated by importance sampling.

    log of the integral of exp(Q / t) from n uniform actions (log density -A log 2) and n of the policy (its log
    density; infinite where the draw left the box), half each. Shapes: q_uniform, q_policy, policy_log_prob (n, B);
    q_data (B,) -> (). The estimate is of a logarithm, and so too low for few samples.
    """
    if q_uniform.shape != q_policy.shape or q_policy.shape != policy_log_prob.shape:
        raise ValueError(
            f"samples have shapes {tuple(q_uniform.shape)}, {tuple(q_policy.shape)}, {tuple(policy_log_prob.shape)}"
        )
    uniform_log_density = -action_size * math.log(2)
    terms = torch.cat([q_uniform / temperature - uniform_log_density, q_policy / temperature - policy_log_prob])
    log_integral = torch.logsumexp(terms, dim=0) - math.log(len(terms))
    return (temperature * log_integral - q_data).mean()


def q_of_actions(q_values: Tensor, actions: Tensor) -> Tensor:
    """Q of the recorded action, (B, actions), (B,) -> (B,): a masked sum, whose gradient scatters nothing.

    The scattered gradient of `gather` is what PyTorch 2.13's compiler adds up wrongly on a CPU: beside an actor of its
    own the critic's gradient was off by more than its norm (`tests/training/test_compiled.py`).
    """
    recorded = actions.unsqueeze(-1) == torch.arange(q_values.shape[-1], device=q_values.device)
    return torch.where(recorded, q_values, 0.0).sum(dim=-1)


def _sampled_gap_at(settings: CQLConfig, inputs: CriticInputs, source: Batch) -> Tensor:
    observations, actions = inputs.policy.standardise(source.observations), inputs.policy.scale_actions(source.actions)
    count, size = settings.actions, actions.shape[-1]
    with torch.no_grad():
        distribution = inputs.policy.distribution(source.observations)
        drawn, log_prob = distribution.proposal(inputs.noise.draw(Draw((count, len(observations), size), NORMAL)))
        uniform = symmetric(inputs.noise, count, len(observations), size)
    q = inputs.critic(observations, torch.cat([uniform, drawn]))
    q_data = inputs.critic(observations, actions)
    gaps = [
        sampled_cql_gap(uniform_q, policy_q, log_prob, data, settings.temperature, size)
        for (uniform_q, policy_q), data in zip(q.view(len(q), 2, count, -1), q_data, strict=True)
    ]
    return torch.stack(gaps).mean()


def _similarity_at(inputs: CriticInputs, source: Batch) -> Tensor:
    actions = inputs.policy.scale_actions(source.actions).requires_grad_(True)
    q = inputs.critic(inputs.policy.standardise(source.observations), actions)
    return cosine_similarity(torch.stack([torch.autograd.grad(one.sum(), actions, create_graph=True)[0] for one in q]))
