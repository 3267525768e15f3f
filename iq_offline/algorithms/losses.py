"""The losses: pure functions of tensors and numbers, each to be minimised unless it says otherwise."""

from collections.abc import Callable

import torch
from torch import Tensor

from iq_offline.algorithms.distributions import censored_residuals

Phi = Callable[[Tensor], Tensor]


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


def kl_soft_value(q: Tensor, kl: Tensor, temperature: float) -> Tensor:
    """V(s) = Q(s, a) - temperature * KL(policy || prior) at s, with one action a of the policy.

    Shapes: q, kl (B,) -> (B,). Source: [CSIL23]: the policy's entropy is measured against the cloned prior,
    with the divergence in closed form in place of the sampled log ratio.
    """
    _same_vectors(q, kl)
    return q - temperature * kl


def bounded(next_v: Tensor, bound: float | None) -> Tensor:
    """Values clipped to [-bound, bound], so that bootstrapping cannot run away; unchanged for None.

    Shapes: (B,) -> (B,). Source: [LSIQ23] sec. 4: a regularised reward is bounded, and with it every true value.
    """
    return next_v if bound is None else next_v.clamp(-bound, bound)


def implicit_reward(q: Tensor, next_v: Tensor, discounts: Tensor) -> Tensor:
    """Reward that makes `q` the soft Q-function of the policy behind `next_v`.

    r = Q(s, a) - discount * V(s'). Shapes: all (B,). Source: [IQ21] inverse soft Bellman operator (sec. 3),
    one sampled next observation in place of the expectation.
    """
    _same_vectors(q, next_v, discounts)
    return q - discounts * next_v


def telescoped_value(v: Tensor, next_v: Tensor, discounts: Tensor) -> Tensor:
    """E[V(s) - discount * V(s')], which over any policy's occupancy is (1 - gamma) E[V(s0)]. Source: [IQ21] cor. 2.1.

    Shapes: all (B,) -> (). With a `next_v` that carries no gradient the weight of V(s) is 1, not 1 - gamma.
    """
    _same_vectors(v, next_v, discounts)
    return (v - discounts * next_v).mean()


def initial_value(v: Tensor, gamma: float) -> Tensor:
    """(1 - gamma) E[V(s0)] at first observations of episodes: the value term as [IQ21] eq. 9 has it.

    Shapes: v (B,) -> (). The authors' public code takes the mean over all expert observations under this name.
    """
    _same_vectors(v)
    return (1 - gamma) * v.mean()


def reward_penalty(rewards: Tensor, references: Tensor | float, coefficient: float) -> Tensor:
    """E[(r - reference)^2] / (4c): chi-squared on whichever transitions are given, and [SPRINQL24]'s reference.

    Over expert and policy data alike it keeps every reward bounded ([LSIQ23] sec. 4). Shapes: rewards (B,) -> ().
    """
    _same_vectors(rewards)
    return (rewards - references).square().mean() / (4 * coefficient)


def bellman_error(q: Tensor, rewards: Tensor | float, next_v: Tensor, discounts: Tensor) -> Tensor:
    """E[(Q(s, a) - r - discount * V(s'))^2] / 2 for given rewards, which may be one number. Shapes: (B,) each -> ().

    Source: [LSIQ23] eq. 14 with fixed rewards; [CSIL23] with the coherent one.
    """
    _same_vectors(q, next_v, discounts)
    return (q - rewards - discounts * next_v).square().mean() / 2


def iq_expert_loss(rewards: Tensor, v: Tensor, next_v: Tensor, discounts: Tensor, phi: Phi) -> Tensor:
    """Offline IQ-Learn on expert transitions: -E[phi(r)] + E[V(s) - discount * V(s')].

    The second term is (1 - gamma) E[V(s0)], telescoped over the expert's occupancy measure ([IQ21] cor. 2.1); with
    phi(r) = r - r^2 / (4c) the sum is [IQ21] eq. 12. Shapes: all (B,) -> (). With a `next_v` that carries no gradient
    (target network) the weight of V(s) is 1, not 1 - gamma, as in the authors' description.
    """
    _same_vectors(rewards, v, next_v, discounts)
    return (v - discounts * next_v).mean() - phi(rewards).mean()


def actor_loss(q: Tensor, kl: Tensor, temperature: float) -> Tensor:
    """-E[V(s)] as a function of the policy: E[temperature * KL - Q(s, a)], a drawn from the policy.

    Shapes: q, kl (B,) -> (). Source: [SAC18] eq. 7, entropy measured against the prior as in [CSIL23].
    """
    return -kl_soft_value(q, kl, temperature).mean()


def censored_squared_error(means: Tensor, actions: Tensor) -> Tensor:
    """Squared error of an un-squashed mean, censored at the bounds -1 and 1; averaged over batch and dimensions.

    Shapes: (B, A), (B, A) -> (). Means are clipped when executed, so one beyond a bound that the recorded action lies
    on is right, and costs nothing (Tobit's censoring, Tobin 1958); all else is the plain squared error. Experts often
    act on the bounds: the plain error spends the network on them, and a tanh-squashed likelihood diverges there.
    """
    return censored_residuals(means, actions).square().mean()


def censored_absolute_error(means: Tensor, actions: Tensor) -> Tensor:
    """Absolute error of an un-squashed mean, censored at the bounds -1 and 1; averaged over batch and dimensions.

    Shapes: (B, A), (B, A) -> (). Least at the median of the recorded actions (least absolute deviations; censored:
    Powell 1984). Actions that an expert's are but for noise of median zero, clipped at the bounds, and for a minority
    of arbitrary ones, have a mean that is off and a median that is the expert's.
    """
    return censored_residuals(means, actions).abs().mean()


def cloning_cross_entropy(logits: Tensor, actions: Tensor) -> Tensor:
    """Cross entropy of discrete actions, in nats. Shapes: logits (B, actions), actions (B,) integers -> ()."""
    return torch.nn.functional.cross_entropy(logits, actions)


def _same_vectors(*tensors: Tensor) -> None:
    """All must be (B,): a (B, 1) among them would broadcast to (B, B) without an error."""
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1 or tensors[0].ndim != 1:
        raise ValueError(f"expected vectors of one length, got shapes {sorted(shapes)}")
