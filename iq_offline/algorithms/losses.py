"""The equations as pure functions of tensors and numbers: soft values, recovered reward, and losses to minimise."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Metrics = dict[str, Tensor]


class Regulariser(NamedTuple):
    """A term of a loss: its name in the metrics, its weight, and the function that computes it."""

    name: str
    weight: float
    function: Callable[..., Tensor]


def regularised(loss: Tensor, regularisers: Sequence[Regulariser], *inputs: Any) -> tuple[Tensor, Metrics]:
    """The loss plus each weighted term, and the unweighted terms by name. `inputs`: what each function takes."""
    metrics: Metrics = {}
    for name, weight, function in regularisers:
        term = function(*inputs)
        metrics[name] = term.detach()
        loss = loss + weight * term
    return loss, metrics


def soft_value(q: Tensor, temperature: float) -> Tensor:
    """V(s) = temperature * logsumexp(Q(s, .) / temperature), the value of the policy softmax(Q / temperature).

    Shapes: q (B, actions) -> (B,). Source: [IQ21] sec. 2, with a temperature.
    """
    return temperature * torch.logsumexp(q / temperature, dim=-1)


def prior_soft_value(q: Tensor, log_prior: Tensor, temperature: float) -> Tensor:
    """V(s) = temperature * log sum_a prior(a | s) exp(Q(s, a) / temperature): soft value with entropy against a prior.

    It is max over policies of E[Q] - temperature * KL(policy || prior); with a uniform prior it is the plain soft value
    less temperature * log(actions). Shapes: q, log_prior (B, actions) -> (B,). Source: [CSIL23] sec. 3.
    """
    return temperature * torch.logsumexp(q / temperature + log_prior, dim=-1)


def bounded(next_v: Tensor, bound: float | None) -> Tensor:
    """Values clipped to [-bound, bound], so that bootstrapping cannot diverge; unchanged for None.

    Shapes: (B,) -> (B,). Source: [LSIQ23] sec. 4: a regularised reward is bounded, and with it every true value.
    """
    return next_v if bound is None else next_v.clamp(-bound, bound)


def bootstrap(
    next_v: Tensor, terminations: Tensor, gamma: float, absorbing: Tensor | float | None
) -> tuple[Tensor, Tensor]:
    """Next values and discounts. After a termination the next value is `absorbing`, or zero for None.

    Shapes: (B,) -> (B,), (B,).
    """
    if absorbing is None:
        return next_v, gamma * (1 - terminations)
    return torch.where(terminations > 0, absorbing, next_v), torch.full_like(terminations, gamma)


def implicit_reward(q: Tensor, next_v: Tensor, discounts: Tensor) -> Tensor:
    """Reward that makes `q` the soft Q-function of the policy behind `next_v`.

    r = Q(s, a) - discount * V(s'). Shapes: all (B,). Source: [IQ21] inverse soft Bellman operator (sec. 3),
    one sampled next observation in place of the expectation.
    """
    _same_vectors(q, next_v, discounts)
    return q - discounts * next_v


def telescoped_value(v: Tensor, next_v: Tensor, discounts: Tensor) -> Tensor:
    """E[V(s) - discount * V(s')], which over any policy's occupancy is (1 - gamma) E[V(s0)]. Source: [IQ21] cor. 2.1.

    Shapes: all (B,) -> (). If `next_v` carries no gradient, the gradient weights V(s) by 1 in place of 1 - gamma.
    """
    _same_vectors(v, next_v, discounts)
    return (v - discounts * next_v).mean()


def initial_value(v: Tensor, gamma: float) -> Tensor:
    """(1 - gamma) E[V(s0)] at first observations of episodes: the value term of [IQ21] eq. 9.

    Shapes: v (B,) -> (). The term of this name in the authors' code averages over all expert observations instead.
    """
    _same_vectors(v)
    return (1 - gamma) * v.mean()


def reward_penalty(rewards: Tensor, reference: float, coefficient: float) -> Tensor:
    """E[(r - reference)^2] / (4c): penalty of the chi-squared divergence, towards a reference reward [SPRINQL24].

    If it covers both expert and policy data, it bounds every reward ([LSIQ23] sec. 4). Shapes: rewards (B,) -> ().
    """
    _same_vectors(rewards)
    return (rewards - reference).square().mean() / (4 * coefficient)


def bellman_error(q: Tensor, rewards: Tensor | float, next_v: Tensor, discounts: Tensor) -> Tensor:
    """E[(Q(s, a) - r - discount * V(s'))^2] / 2 for given rewards. Shapes: (B,) each, or one number as rewards -> ().

    Source: [LSIQ23] eq. 14 with fixed rewards; [CSIL23] with the coherent one.
    """
    _same_vectors(q, next_v, discounts)
    return (q - rewards - discounts * next_v).square().mean() / 2


def actor_loss(q: Tensor, entropy_cost: Tensor, temperature: float) -> Tensor:
    """-E[V(s)] as a function of the policy: E[temperature * cost - Q(s, a)], a drawn from the policy.

    `entropy_cost`: log pi(a | s), or KL(policy || prior). Shapes: (B,), (B,) -> (). Source: [SAC18] eq. 7.
    """
    _same_vectors(q, entropy_cost)
    return -(q - temperature * entropy_cost).mean()


def mixed(expert: Tensor, supplementary: Tensor | None) -> Tensor:
    """Mean of the expert's and the supplementary term, or the expert's alone for None. Shapes: () -> ()."""
    return expert if supplementary is None else (expert + supplementary) / 2


def _same_vectors(*tensors: Tensor) -> None:
    """All must be (B,): a (B, 1) among them would broadcast to (B, B) without an error."""
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1 or tensors[0].ndim != 1:
        raise ValueError(f"expected vectors of one length, got shapes {sorted(shapes)}")
