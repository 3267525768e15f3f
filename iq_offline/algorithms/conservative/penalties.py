"""Penalties on the gradient of Q: no spikes at recorded actions, no cliffs between them and the policy's."""

import torch
from torch import Tensor


def action_gradient_penalty(q: Tensor, actions: Tensor) -> Tensor:
    """E |dQ/da|^2 at the given actions: keeps Q flat around the data, so that it cannot spike at them.

    Shapes: q (B,), actions (B, A) that require a gradient and that q was computed from -> (). Source: [CSIL23].
    """
    (gradients,) = torch.autograd.grad(q.sum(), actions, create_graph=True)
    return gradients.square().sum(dim=-1).mean()


def two_sided_gradient_penalty(gradients: Tensor, target: float) -> Tensor:
    """E[(|gradient| - target)^2], Euclidean: the Lipschitz constraint of Wasserstein-1. Shapes: (B, D) -> ().

    Source: [WGANGP17] eq. 3. The norm's own gradient at zero is taken as zero.
    """
    return ((gradients.square().sum(dim=-1) + 1e-12).sqrt() - target).square().mean()


def hinge_gradient_penalty(gradients: Tensor, target: float) -> Tensor:
    """E[max(0, largest |component| - target)^2]: binds only where the gradient is too steep. Shapes: (B, D) -> ()."""
    return (gradients.abs().amax(dim=-1) - target).clamp_min(0).square().mean()


def interpolated(first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
    """Points between two batches: share * first + (1 - share) * second. Shapes: (B, D), (B, D), (B, 1) -> (B, D)."""
    return shares * first + (1 - shares) * second


def diversity_penalty(action_gradients: Tensor) -> Tensor:
    """Mean cosine similarity between members' action gradients: disagreement off the data is kept alive.

    Shapes: (N, B, A) -> (); N >= 2. Source: [EDAC21] eq. 4.
    """
    members = len(action_gradients)
    if members < 2:
        raise ValueError("diversity needs an ensemble of two members or more")
    directions = torch.nn.functional.normalize(action_gradients, dim=-1, eps=1e-10)
    total = directions.sum(dim=0).square().sum(dim=-1)  # sum over all pairs (i, j), i = j among them
    own = directions.square().sum(dim=(0, -1))
    return ((total - own) / (members * (members - 1))).mean()
