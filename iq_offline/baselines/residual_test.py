"""The residual test: is a supplementary episode the expert's behaviour under noise?

Write an action as a_t = clone(s_t) + e_t. Where the expert acted under noise of median zero, independent of the
observation, the sign of e_t is independent of s_t however strong the noise is: it is unpredictable. Where another
policy acted, e_t is the difference of two functions of s_t, and a regression on s_t predicts it. So the test
recognises the policy behind an episode and not its return; returns and similarity to clean demonstrations cannot.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.algorithms.networks import ContinuousPolicy
from iq_offline.baselines.distances import Floats
from iq_offline.baselines.sources import Recorded
from iq_offline.config.baselines import ResidualTestConfig

CHUNK = 65_536
"""Observations that a clone acts on in one call."""
RIDGE = 10.0
"""Weight of the regression's penalty, in steps of standardised observations."""


@dataclass(frozen=True)
class Residuals:
    """Of each episode, (E,) each: predictability of the residuals' signs, mean absolute residual, steps."""

    predictability: Floats
    size: Floats
    steps: NDArray[np.int64]

    def passed(self, config: ResidualTestConfig) -> NDArray[np.bool_]:
        """Which episodes are the expert's up to noise, (E,)."""
        return (self.predictability <= config.max_predictability) & (self.steps >= config.min_steps)

    def weights(self, chosen: NDArray[np.bool_]) -> Floats:
        """1 / size of the chosen episodes, at most 1, and zero of the others, (E,).

        These are the weights of steps in the likelihood of noise with density exp(-|e| / size) / (2 size), whose
        maximum is the least absolute deviation.
        """
        floor = max(float(self.size[chosen].min()), np.finfo(np.float64).tiny)
        return np.where(chosen, floor / np.maximum(self.size, floor), 0.0)


def soft_signs(actions: Floats, clone: Floats, negligible: float) -> Floats:
    """Signs of scaled actions less the clone's, linear below `negligible`. Shapes: (N, A), (N, A) -> (N, A)."""
    return np.asarray(np.clip((actions - clone) / negligible, -1, 1))


def bounds_reached(clone: Floats, negligible: float) -> Floats:
    """1 or -1 where the clone's scaled action is within `negligible` of that bound, else 0. (N, A) -> (N, A)."""
    return np.where(np.abs(clone) > 1 - negligible, np.sign(clone), 0.0)


def sign_predictability(features: Floats, signs: Floats, bounds: Floats) -> float:
    """How far the median of the actions, given the observation, is from the clone's: 0 if it is the same, at most 1.

    The mean square of `signs` that a linear regression on `features` explains on steps that it was not fitted to (even
    steps from odd ones and the other way round), so below zero where it predicts worse than zero does. Where the
    clone is at a bound, noise is clipped, and the median is the clone's as long as no more than half of the signs point
    inwards: there it is the explained mean square of the share above a half. Shapes: (T, F), (T, A), (T, A).
    """
    inputs = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    gain = 0.0
    for sign, at in zip(signs.T, bounds.T, strict=True):
        gain += _gain(inputs[at == 0], sign[at == 0])
        for bound in (-1, 1):
            here = at == bound
            gain += _gain(inputs[here], np.clip(-bound * sign[here], 0, 1) - 0.5, least=0.0)
    return gain / signs.size


def _gain(inputs: Floats, targets: Floats, least: float = -np.inf) -> float:
    """Reduction of held-out targets' sum of squares by a ridge regression, its predictions no less than `least`."""
    even, gain = np.arange(len(inputs)) % 2 == 0, 0.0
    for known in (even, ~even):
        gram = inputs[known].T @ inputs[known] + RIDGE * np.eye(inputs.shape[1])
        predicted = inputs[~known] @ np.linalg.solve(gram, inputs[known].T @ targets[known])
        errors = targets[~known] - np.maximum(predicted, least)
        gain += float(np.square(targets[~known]).sum() - np.square(errors).sum())
    return gain


def residual_sizes(clone: ContinuousPolicy, other: Recorded) -> Floats:
    """Mean absolute residual of each episode of `other`, in scaled actions, (E,)."""
    _, actions, cloned = scaled(clone, other)
    return _sizes(actions, cloned, other)


def residuals(config: ResidualTestConfig, clone: ContinuousPolicy, other: Recorded) -> Residuals:
    """Residuals of each episode of `other` under `clone`."""
    features, actions, cloned = scaled(clone, other)
    negligible = config.negligible_residual
    signs, bounds = soft_signs(actions, cloned, negligible), bounds_reached(cloned, negligible)
    slices = other.episode_slices()
    return Residuals(
        predictability=np.array([sign_predictability(features[here], signs[here], bounds[here]) for here in slices]),
        size=_sizes(actions, cloned, other),
        steps=np.array([here.stop - here.start for here in slices]),
    )


def _sizes(actions: Floats, cloned: Floats, other: Recorded) -> Floats:
    return np.array([np.abs(actions[here] - cloned[here]).mean() for here in other.episode_slices()])


@torch.no_grad()
def scaled(clone: ContinuousPolicy, other: Recorded) -> tuple[Floats, Floats, Floats]:
    """Standardised observations (N, D); scaled actions, recorded and the clone's (N, A)."""
    observations = torch.from_numpy(other.observations)
    acted = torch.cat([clone.act(part) for part in torch.split(observations, CHUNK)])
    actions, cloned = clone.scale_actions(torch.from_numpy(other.actions)), clone.scale_actions(acted)
    return clone.standardise(observations).double().numpy(), actions.double().numpy(), cloned.double().numpy()
