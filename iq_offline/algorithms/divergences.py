"""Divergences between occupancy measures, as the concave phi of [IQ21] eq. 9 and its derivative, side by side."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ChiSquared:
    """Pearson's chi-squared: phi(x) = x - x^2 / (4c) on all reals ([IQ21] table 2 and sec. 5.3).

    `coefficient` c > 0: the smaller, the more the recovered reward is drawn to zero. phi is greatest at x = 2c.
    """

    coefficient: float

    def phi(self, rewards: Tensor) -> Tensor:
        """phi at each reward, same shape."""
        return rewards - rewards.square() / (4 * self.coefficient)

    def phi_prime(self, rewards: Tensor) -> Tensor:
        """Its derivative: the weight of each expert transition in the loss."""
        return 1 - rewards / (2 * self.coefficient)
