"""The losses: pure functions of tensors and numbers, each to be minimised unless it says otherwise."""

from collections.abc import Callable

import torch
from torch import Tensor

Phi = Callable[[Tensor], Tensor]

ON_THE_BOUND = 1e-6
"""A scaled action this near to -1 or 1 lies on the bound."""


def soft_value(q: Tensor, temperature: float) -> Tensor:
    """V(s) = temperature * logsumexp(Q(s, .) / temperature), the value of the policy softmax(Q / temperature).

    Shapes: q (B, actions) -> (B,). Source: [IQ21] sec. 2, with a temperature.
    """
    return temperature * torch.logsumexp(q / temperature, dim=-1)


def kl_soft_value(q: Tensor, kl: Tensor, temperature: float) -> Tensor:
    """V(s) = Q(s, a) - temperature * KL(policy || prior) at s, with one action a of the policy.

    Shapes: q, kl (B,) -> (B,). Source: [CSIL23]: the policy's entropy is measured against the cloned prior,
    with the divergence in closed form in place of the sampled log ratio.
    """
    _same_vectors(q, kl)
    return q - temperature * kl


def gaussian_kl(mean: Tensor, prior_mean: Tensor, std: float) -> Tensor:
    """KL divergence of two diagonal Gaussians that share the standard deviation `std`, in nats.

    |mean - prior_mean|^2 / (2 std^2), summed over actions. Shapes: (B, A), (B, A) -> (B,).
    """
    if mean.shape != prior_mean.shape:
        raise ValueError(f"means have shapes {tuple(mean.shape)} and {tuple(prior_mean.shape)}")
    return (mean - prior_mean).square().sum(dim=-1) / (2 * std**2)


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


def iq_expert_loss(rewards: Tensor, v: Tensor, next_v: Tensor, discounts: Tensor, phi: Phi) -> Tensor:
    """Offline IQ-Learn on expert transitions: -E[phi(r)] + E[V(s) - discount * V(s')].

    The second term is (1 - gamma) E[V(s0)], telescoped over the expert's occupancy measure ([IQ21] cor. 2.1); with
    phi(r) = r - r^2 / (4c) the sum is [IQ21] eq. 12. Shapes: all (B,) -> (). With a `next_v` that carries no gradient
    (target network) the weight of V(s) is 1, not 1 - gamma, as in the authors' description.
    """
    _same_vectors(rewards, v, next_v, discounts)
    return (v - discounts * next_v).mean() - phi(rewards).mean()


def action_gradient_penalty(q: Tensor, actions: Tensor) -> Tensor:
    """E |dQ/da|^2 at the given actions: keeps Q flat around the data, so that it cannot spike at them.

    Shapes: q (B,), actions (B, A) that require a gradient and that q was computed from -> (). Source: [CSIL23].
    """
    (gradients,) = torch.autograd.grad(q.sum(), actions, create_graph=True)
    return gradients.square().sum(dim=-1).mean()


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
    if means.shape != actions.shape:
        raise ValueError(f"means {tuple(means.shape)} for actions {tuple(actions.shape)}")
    residuals = means - actions
    right_above = (actions >= 1 - ON_THE_BOUND) & (residuals > 0)
    right_below = (actions <= -1 + ON_THE_BOUND) & (residuals < 0)
    return residuals.masked_fill(right_above | right_below, 0).square().mean()


def cloning_cross_entropy(logits: Tensor, actions: Tensor) -> Tensor:
    """Cross entropy of discrete actions, in nats. Shapes: logits (B, actions), actions (B,) integers -> ()."""
    return torch.nn.functional.cross_entropy(logits, actions)


def _same_vectors(*tensors: Tensor) -> None:
    """All must be (B,): a (B, 1) among them would broadcast to (B, B) without an error."""
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1 or tensors[0].ndim != 1:
        raise ValueError(f"expected vectors of one length, got shapes {sorted(shapes)}")
