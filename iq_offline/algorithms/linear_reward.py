"""A reward that is linear in the observation: the simplest explanation of a recovered one on recorded data.

Off the demonstrations a Q-function was told nothing, and what it says of one transition is little worth. In the mean
over many it says where the demonstrations lie, and the best linear fit keeps just that: the direction in which they
differ from the other data. An observation half way in that direction gets half the reward, though the demonstrations
never showed it. A reward of states alone is also what can be free of the dynamics that it was learnt under [AIRL18].

With a recovered reward that only tells demonstrations (1) from other data (0) the fit is the chi-squared objective's
own answer among linear rewards [AN04]: E_E[r] - E_D[r] - E_mixture[r^2] / (4c) is greatest at weights proportional to
Cov^-1 (mean_E - mean_D), and those are least squares' own.

[AN04] Abbeel and Ng, Apprenticeship Learning via Inverse Reinforcement Learning, ICML 2004. [AIRL18] Fu, Luo and
Levine, Learning Robust Rewards with Adversarial Inverse Reinforcement Learning, ICLR 2018 (1710.11248).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-2
"""Added to each number's variance, in units of it: numbers that say the same share their weight."""
CLIPPED_AT = 5.0
"""Deviations from the data's mean beyond which an observation's number counts no further."""
SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class LinearReward:
    """offset + weights . (observation - mean) / deviation, within 0 and 1. Shapes: (D,), the offset ().

    `explained`: share of the fitted rewards' variance that it explains, unbounded; None where they are alike.
    """

    mean: Tensor
    deviation: Tensor
    weights: Tensor
    offset: Tensor
    explained: float | None

    def __call__(self, observations: Tensor) -> Tensor:
        """Rewards of observations, (B, D) -> (B,)."""
        return self._unbounded(observations).clamp(0, 1).to(observations.dtype)

    def _unbounded(self, observations: Tensor) -> Tensor:
        return self.offset + _numbers(observations, self.mean, self.deviation) @ self.weights


def fit_linear_reward(sources: Sequence[tuple[Tensor, Tensor]]) -> LinearReward:
    """Ridge regression of rewards on observations; each source counts alike, however long it is.

    `sources`: observations (N, D) and their rewards (N,) of each; at least one, none of them empty.
    """
    observations, rewards = (torch.cat([pair[i].double() for pair in sources]) for i in (0, 1))
    weight = torch.cat([torch.full((len(y),), 1 / (len(y) * len(sources)), dtype=torch.double) for _, y in sources])
    mean = weight @ observations
    deviation = (weight @ (observations - mean).square()).sqrt().clamp_min(SMALLEST_DEVIATION)
    numbers = _numbers(observations, mean, deviation)
    centre, level = weight @ numbers, weight @ rewards
    moments = (numbers - centre).T @ ((numbers - centre) * weight[:, None])
    moments.diagonal().add_(RIDGE * moments.diagonal().clamp_min(SMALLEST_DEVIATION))
    weights = torch.linalg.solve(moments, (numbers - centre).T @ (weight * (rewards - level)))
    found = LinearReward(mean, deviation, weights, level - centre @ weights, None)
    variance = float(weight @ (rewards - level).square())
    error = float(weight @ (rewards - found._unbounded(observations)).square())
    explained = None if variance <= SMALLEST_DEVIATION**2 else 1 - error / variance
    return LinearReward(mean, deviation, weights, found.offset, explained)


def _numbers(observations: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return ((observations.double() - mean) / deviation).clamp(-CLIPPED_AT, CLIPPED_AT)
