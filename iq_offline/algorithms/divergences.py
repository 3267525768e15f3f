"""Divergences between occupancy measures, as the concave phi of [IQ21] eq. 9 and its derivative, side by side.

The expert's transitions enter the loss as -E[phi(r)], so phi' is the weight of each: positive where the reward is yet
to rise. phi(x) = -f*(-x) for the f-divergence with generator f. Where phi has a pole or grows without measure below
(KL, Jensen-Shannon, Hellinger), it goes on along its tangent from the reward at which its slope is STEEPEST: finite,
concave and once differentiable on all reals. Beware of deriving these twice: a public peer uses phi' as phi for two
of them, which turns the expert's term round.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

STEEPEST = 20.0
"""Slope at which a phi that is unbounded below goes on along its tangent."""


class Divergence(Protocol):
    """phi and its derivative; both take rewards of any shape and keep it."""

    def phi(self, rewards: Tensor) -> Tensor:
        """Concave, increasing where the expert's reward is to be raised."""
        ...

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """Derivative of the sum of phi with respect to each reward."""
        ...


@dataclass(frozen=True)
class ChiSquared:
    """Pearson's chi-squared: phi(x) = x - x^2 / (4c) on all reals ([IQ21] table 2 and sec. 5.3).

    `coefficient` c > 0: the smaller, the more the recovered reward is drawn to zero. phi is greatest at x = 2c.
    """

    coefficient: float

    def phi(self, rewards: Tensor) -> Tensor:
        """x - x^2 / (4c)."""
        return rewards - rewards.square() / (4 * self.coefficient)

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """1 - x / (2c)."""
        return 1 - rewards / (2 * self.coefficient)


@dataclass(frozen=True)
class Linear:
    """phi(x) = x: Wasserstein-1 with a Lipschitz reward (a gradient penalty sees to that), [IQ21] table 2.

    Also the expert's half of chi-squared on a mixture, whose penalty is a term of its own.
    """

    def phi(self, rewards: Tensor) -> Tensor:
        """x."""
        return rewards

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(rewards)


@dataclass(frozen=True)
class TotalVariation:
    """Total variation: phi(x) = x for |x| <= R ([IQ21] table 2: psi is 0 there, infinite elsewhere).

    Departure: beyond R a quadratic of weight `penalty` stands for the infinite wall, so that a gradient leads back;
    phi is greatest at R + 1 / (2 penalty).
    """

    bound: float
    penalty: float = 10.0

    def phi(self, rewards: Tensor) -> Tensor:
        """x - penalty * max(|x| - R, 0)^2."""
        return rewards - self.penalty * (rewards.abs() - self.bound).clamp_min(0).square()

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """1 - 2 penalty sign(x) max(|x| - R, 0)."""
        return 1 - 2 * self.penalty * rewards.sign() * (rewards.abs() - self.bound).clamp_min(0)


@dataclass(frozen=True)
class KL:
    """Reverse KL, unbiased form: phi(x) = 1 - exp(-x)."""

    lowest: float = -math.log(STEEPEST)

    def phi(self, rewards: Tensor) -> Tensor:
        """1 - exp(-x), along its tangent below `lowest`."""
        inside = rewards.clamp_min(self.lowest)
        return 1 - torch.exp(-inside) + STEEPEST * (rewards - inside)

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """exp(-x), at most STEEPEST."""
        return torch.exp(-rewards.clamp_min(self.lowest))


@dataclass(frozen=True)
class KLDual:
    """Reverse KL, the f-divergence's own dual: phi(x) = -exp(-(x + 1)). Its slope is one at x = -1."""

    lowest: float = -1 - math.log(STEEPEST)

    def phi(self, rewards: Tensor) -> Tensor:
        """-exp(-(x + 1)), along its tangent below `lowest`."""
        inside = rewards.clamp_min(self.lowest)
        return -torch.exp(-inside - 1) + STEEPEST * (rewards - inside)

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """exp(-x - 1), at most STEEPEST."""
        return torch.exp(-rewards.clamp_min(self.lowest) - 1)


@dataclass(frozen=True)
class KLDonskerVaradhan:
    """Reverse KL as Donsker and Varadhan write it: -log E exp(-x), over the whole batch.

    phi gives every element that one number, so that its mean is the objective. A minibatch underestimates the
    logarithm of the mean: the gradient is biased, as in ValueDICE.
    """

    def phi(self, rewards: Tensor) -> Tensor:
        """-log mean exp(-x), as often as there are rewards."""
        log_mean = torch.logsumexp(-rewards.flatten(), dim=0) - math.log(rewards.numel())
        return (-log_mean).expand(rewards.shape)

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """N softmax(-x): mean 1."""
        return rewards.numel() * torch.softmax(-rewards.flatten(), dim=0).reshape(rewards.shape)


@dataclass(frozen=True)
class ForwardKL:
    """Forward KL: phi(x) = 1 + log x for x > 0."""

    lowest: float = 1 / STEEPEST

    def phi(self, rewards: Tensor) -> Tensor:
        """1 + log x, along its tangent below `lowest`."""
        inside = rewards.clamp_min(self.lowest)
        return 1 + torch.log(inside) + STEEPEST * (rewards - inside)

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """1 / x, at most STEEPEST."""
        return 1 / rewards.clamp_min(self.lowest)


@dataclass(frozen=True)
class JensenShannon:
    """Jensen-Shannon: phi(x) = log(2 - exp(-x)) for x > -log 2, where its slope is infinite."""

    lowest: float = -math.log(2 * STEEPEST / (1 + STEEPEST))

    def phi(self, rewards: Tensor) -> Tensor:
        """log(2 - exp(-x)), along its tangent below `lowest`."""
        inside = rewards.clamp_min(self.lowest)
        return torch.log(2 - torch.exp(-inside)) + STEEPEST * (rewards - inside)

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """1 / (2 exp(x) - 1), at most STEEPEST."""
        return 1 / (2 * torch.exp(rewards.clamp_min(self.lowest)) - 1)


@dataclass(frozen=True)
class Hellinger:
    """Squared Hellinger: phi(x) = x / (1 + x) for x > -1, where it has a pole."""

    lowest: float = 1 / math.sqrt(STEEPEST) - 1

    def phi(self, rewards: Tensor) -> Tensor:
        """x / (1 + x), along its tangent below `lowest`."""
        inside = rewards.clamp_min(self.lowest)
        return inside / (1 + inside) + STEEPEST * (rewards - inside)

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """1 / (1 + x)^2, at most STEEPEST."""
        return 1 / (1 + rewards.clamp_min(self.lowest)).square()
