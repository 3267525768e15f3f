"""Distributions of actions: what a policy's network says about each observation.

Continuous ones live in scaled actions, whose bounds are -1 and 1. Shapes: mean (B, A); std (B, A), or one number for
all.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ON_THE_BOUND = 1e-6
"""A scaled action this near to -1 or 1 lies on the bound."""
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)

Std = Tensor | float


@dataclass(frozen=True)
class ClippedGaussian:
    """A Gaussian whose draws are clipped to the bounds, where probability gathers (Tobin 1958).

    Experts act on the bounds in up to half of their actions; a squashed density diverges there, this one does not.
    """

    mean: Tensor
    std: Std

    def mode(self) -> Tensor:
        """The clipped mean, (B, A)."""
        return self.mean.clamp(-1, 1)

    def sample(self, noise: Tensor) -> Tensor:
        """Actions as executed, from standard normal `noise` of the mean's shape; differentiable inside the bounds."""
        return (self.mean + self.std * noise).clamp(-1, 1)

    def sample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`sample`, (B, A), and the mean log density of draws before they are clipped, nats, (B,).

        Not the draws' own censored likelihood: at the bound that jumps from a density to a mass, and its gradient along
        the draws, which knows nothing of the jump, draws the mean beyond the bound where the entropy would draw it in.
        """
        return self.sample(noise), -self.entropy()

    def proposal(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draws to integrate over the box by importance, and their log densities, (..., B, A), (..., B).

        The Gaussian's own density, before clipping: a draw that leaves the box weighs nothing (log density infinite).
        """
        drawn = self.mean + self.std * noise
        density = gaussian_log_density(self.mean, self.std, drawn).sum(dim=-1)
        outside = (drawn.abs() > 1).any(dim=-1)
        return drawn.clamp(-1, 1), density.masked_fill(outside, math.inf)

    def entropy(self) -> Tensor:
        """Of the Gaussian before it is clipped, nats, (B,): an upper bound on the clipped one's."""
        return gaussian_entropy(self.mean, self.std)

    def kl(self, other: "ClippedGaussian") -> Tensor:
        """KL divergence from `other`, before clipping, nats, (B,): an upper bound on the clipped one's."""
        return gaussian_kl(self.mean, self.std, other.mean, other.std)


@dataclass(frozen=True)
class TanhGaussian:
    """A Gaussian squashed by tanh ([SAC18] appendix C)."""

    mean: Tensor
    std: Std

    def mode(self) -> Tensor:
        """The squashed mean, (B, A)."""
        return self.mean.tanh()

    def sample(self, noise: Tensor) -> Tensor:
        """Actions from standard normal `noise` of the mean's shape; differentiable."""
        return (self.mean + self.std * noise).tanh()

    def sample_with_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`sample`, (B, A), and the draws' log density, nats, (B,), by what they are before they are squashed.

        So it is exact however near the bound, where tanh has no digits left: about 2 |u| there, which draws u back.
        """
        before = self.mean + self.std * noise
        density = -0.5 * noise.square() - _log(self.std) - HALF_LOG_TWO_PI
        slope = 2 * (math.log(2) - before - torch.nn.functional.softplus(-2 * before))
        return before.tanh(), (density - slope).sum(dim=-1)

    def proposal(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draws to integrate over the box by importance, and their log densities, (..., B, A), (..., B)."""
        return self.sample_with_log_prob(noise)

    def entropy(self) -> Tensor:
        """Of the Gaussian before it is squashed, nats, (B,): an upper bound, for want of a closed form."""
        return gaussian_entropy(self.mean, self.std)

    def kl(self, other: "TanhGaussian") -> Tensor:
        """KL divergence from `other`, nats, (B,): exactly the Gaussians', since both pass the same invertible map."""
        return gaussian_kl(self.mean, self.std, other.mean, other.std)


ContinuousActionDistribution = ClippedGaussian | TanhGaussian


def gaussian_log_density(mean: Tensor, std: Std, values: Tensor) -> Tensor:
    """Log density of each value under its own Gaussian, nats. Shapes: mean, values (B, A) -> (B, A)."""
    return -0.5 * ((values - mean) / std).square() - _log(std) - HALF_LOG_TWO_PI


def gaussian_entropy(mean: Tensor, std: Std) -> Tensor:
    """Entropy of diagonal Gaussians, nats, summed over actions. Shapes: mean (B, A) -> (B,)."""
    return (torch.zeros_like(mean) + _log(std) + 0.5 + HALF_LOG_TWO_PI).sum(dim=-1)


def gaussian_kl(mean: Tensor, std: Std, other_mean: Tensor, other_std: Std) -> Tensor:
    """KL divergence of diagonal Gaussians from others, nats, summed over actions.

    log(s2 / s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2; with one width for all, |m1 - m2|^2 / (2 s^2).
    Shapes: means (B, A) -> (B,). Raises ValueError for means of different shapes.
    """
    if mean.shape != other_mean.shape:
        raise ValueError(f"means have shapes {tuple(mean.shape)} and {tuple(other_mean.shape)}")
    if isinstance(std, float) and std == other_std:
        return (mean - other_mean).square().sum(dim=-1) / (2 * std**2)
    variance = other_std**2
    distance = (mean - other_mean).square() / (2 * variance)
    width = _log(other_std) - _log(std) + (std**2 / variance - 1) / 2
    return (distance + width).sum(dim=-1)


def _log(std: Std) -> Std:
    return math.log(std) if isinstance(std, float) else std.log()
