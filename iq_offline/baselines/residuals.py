"""Whose is a supplementary episode? The residual test: do observations foretell what a clone of the expert leaves over?

Write an action as a_t = clone(s_t) + e_t. Where the expert acted, disturbed by noise of median zero that does not look
at the observation, the sign of e_t is independent of s_t however strong the noise is, and nothing foretells it. Where
another policy acted, e_t is the difference of two functions of s_t, and a regression on s_t finds it. So an episode is
told by whose it is, not by how well it went: neither returns nor likeness to clean demonstrations can do that.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.algorithms.networks import ContinuousPolicy
from iq_offline.baselines.distances import Floats, Scaling, left_out_distances, nearest_distances
from iq_offline.baselines.sources import Recorded
from iq_offline.config.baselines import ResidualTestConfig

ASKED_AT_ONCE = 65_536
"""Observations that a clone acts on in one call."""
RIDGE = 10.0
"""Weight of the regression's penalty, in steps of standardised observations."""


@dataclass(frozen=True)
class Residuals:
    """Of each episode, (E,) each: share of the residuals' sign that is foretold, mean absolute residual, steps."""

    foretold: Floats
    size: Floats
    steps: NDArray[np.int64]

    def expert(self, config: ResidualTestConfig) -> NDArray[np.bool_]:
        """Which episodes are the expert's but for noise, (E,)."""
        return (self.foretold <= config.largest_foretold) & (self.steps >= config.fewest_steps)

    def weights(self, chosen: NDArray[np.bool_]) -> Floats:
        """1 / size of the chosen episodes, at most 1, and zero of the others, (E,).

        So much a step counts in the likelihood of noise with density exp(-|e| / size) / (2 size), whose maximum least
        absolute deviations are.
        """
        floor = max(float(self.size[chosen].min()), np.finfo(np.float64).tiny)
        weights: Floats = np.where(chosen, floor / np.maximum(self.size, floor), 0.0)
        return weights


def soft_signs(actions: Floats, clone: Floats, small: float) -> Floats:
    """Signs of scaled actions less the clone's, in proportion below `small`. Shapes: (N, A), (N, A) -> (N, A)."""
    signs: Floats = np.clip((actions - clone) / small, -1, 1)
    return signs


def bounds_reached(clone: Floats, small: float) -> Floats:
    """1 or -1 where the clone's scaled action is within `small` of that bound, else 0. Shapes: (N, A) -> (N, A)."""
    return np.where(np.abs(clone) > 1 - small, np.sign(clone), 0.0)


def foretold_share(features: Floats, signs: Floats, bounds: Floats) -> float:
    """How far the median of the actions, given the observation, is from the clone's: 0 if it is the same, at most 1.

    The mean square of `signs` that a linear regression on `features` takes away on steps that it has not seen (even
    steps from odd ones and the other way round), so below zero where it foretells worse than nothing does. Where the
    clone is at a bound, noise is clipped, and the median is the clone's as long as no more than half of the signs point
    inwards: there it is the mean square that is foretold of the share above a half. Shapes: (T, F), (T, A), (T, A).
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
    """What a regression, its predictions no less than `least`, takes off the sum of squares of unseen targets."""
    even, gain = np.arange(len(inputs)) % 2 == 0, 0.0
    for known in (even, ~even):
        gram = inputs[known].T @ inputs[known] + RIDGE * np.eye(inputs.shape[1])
        foretold = inputs[~known] @ np.linalg.solve(gram, inputs[known].T @ targets[known])
        left = targets[~known] - np.maximum(foretold, least)
        gain += float(np.square(targets[~known]).sum() - np.square(left).sum())
    return gain


def residual_sizes(clone: ContinuousPolicy, other: Recorded) -> Floats:
    """Mean absolute residual of each episode of `other`, in scaled actions, (E,)."""
    _, actions, cloned = _left_over(clone, other)
    return _sizes(actions, cloned, other)


def residuals(config: ResidualTestConfig, clone: ContinuousPolicy, other: Recorded) -> Residuals:
    """What `clone` leaves over of each episode of `other`."""
    features, actions, cloned = _left_over(clone, other)
    signs, bounds = soft_signs(actions, cloned, config.small), bounds_reached(cloned, config.small)
    slices = other.episode_slices()
    return Residuals(
        foretold=np.array([foretold_share(features[here], signs[here], bounds[here]) for here in slices]),
        size=_sizes(actions, cloned, other),
        steps=np.array([here.stop - here.start for here in slices]),
    )


def near(within: float, expert: Recorded, observations: NDArray[np.float32], scaling: Scaling) -> NDArray[np.bool_]:
    """Which observations lie near a demonstrated one. Shapes: (N, D) -> (N,).

    `within`: in median distances from a demonstration's observation to the nearest of another demonstration.
    """
    demonstrated = scaling.observations(expert.observations)
    typical = float(np.median(left_out_distances(demonstrated, expert.episodes)))
    return nearest_distances(scaling.observations(observations), demonstrated) <= within * typical


def foretold_of(
    config: ResidualTestConfig, clone: ContinuousPolicy, other: Recorded, chosen: NDArray[np.bool_]
) -> float:
    """`foretold_share` of what `clone` leaves over of the chosen steps, (N,), together, small up to `small_near`."""
    features, actions, cloned = _left_over(clone, other)
    signs = soft_signs(actions[chosen], cloned[chosen], config.small_near)
    return foretold_share(features[chosen], signs, bounds_reached(cloned[chosen], config.small_near))


def _sizes(actions: Floats, cloned: Floats, other: Recorded) -> Floats:
    return np.array([np.abs(actions[here] - cloned[here]).mean() for here in other.episode_slices()])


@torch.no_grad()
def _left_over(clone: ContinuousPolicy, other: Recorded) -> tuple[Floats, Floats, Floats]:
    """Standardised observations (N, D); scaled actions, recorded and the clone's (N, A)."""
    observations = torch.from_numpy(other.observations)
    acted = torch.cat([clone.act(part) for part in torch.split(observations, ASKED_AT_ONCE)])
    recorded = clone.scale_actions(torch.from_numpy(other.actions))
    features = clone.standardise(observations)
    return features.double().numpy(), recorded.double().numpy(), clone.scale_actions(acted).double().numpy()
