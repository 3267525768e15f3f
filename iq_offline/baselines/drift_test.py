"""The drift test: did the policy behind the episodes change while they were recorded?

Write an action as a_t = clone(s_t) + e_t, where the clone has learnt from the episodes. If one policy acted in all of
them, however noisily, what the observation predicts of e_t is the same in early and in late episodes. If the policy
changed, as that of a learning agent does, a regression whose coefficients depend on the episode's place in the file
predicts e_t better. Episodes of several policies that take turns do not drift.
"""

from collections.abc import Sequence

import numpy as np
import torch

from iq_offline.algorithms.networks import ContinuousPolicy, Policy
from iq_offline.baselines.distances import Floats
from iq_offline.baselines.residual_test import CHUNK, RIDGE, scaled, soft_signs
from iq_offline.baselines.sources import Recorded
from iq_offline.config.baselines import DriftTestConfig


def drift_p_value(
    config: DriftTestConfig, features: Floats, targets: Floats, slices: Sequence[slice], counts: Sequence[int]
) -> float:
    """p-value of the hypothesis that the episodes do not drift; 1 where there are too few.

    Two ridge regressions of `targets` are fitted to all parts of the episodes but one: on the features alone, and on
    the features and their products with time. Time runs from -1 to 1 over the episodes of each file. A one-sided
    t-test asks whether the second predicts the episodes of the left-out parts better. Useless products make it
    predict worse, so the level is an upper bound.
    Shapes: features (N, F), targets (N, A); slices: where each episode lies, in recorded order; counts: how many of
    them each file has.
    """
    from scipy.stats import ttest_1samp

    if len(slices) < config.min_episodes:
        return 1.0
    times = np.concatenate([np.linspace(-1, 1, count) for count in counts])
    episodes = list(zip(slices, times.tolist(), strict=True))
    inputs = [_with_time(features[here], time) for here, time in episodes]
    wanted = [targets[here] for here, _ in episodes]
    fold = np.arange(len(episodes)) % config.folds
    width = inputs[0].shape[1]
    grams, products = np.zeros((config.folds, width, width)), np.zeros((config.folds, width, targets.shape[1]))
    for part, known, target in zip(fold.tolist(), inputs, wanted, strict=True):
        grams[part] += known.T @ known
        products[part] += known.T @ target
    gains = np.zeros(len(episodes))
    for part in range(config.folds):
        gram, product = grams.sum(axis=0) - grams[part], products.sum(axis=0) - products[part]
        plain, drifting = _ridge(gram, product, width // 2), _ridge(gram, product, width)
        for number in np.flatnonzero(fold == part):
            errors = [np.square(wanted[number] - inputs[number] @ each).mean() for each in (plain, drifting)]
            gains[number] = errors[0] - errors[1]
    if not np.ptp(gains):
        return 1.0
    return float(ttest_1samp(gains, 0.0, alternative="greater").pvalue)


def _with_time(features: Floats, time: float) -> Floats:
    """A constant and the features, then the same times `time`, (T, 2 (1 + F))."""
    constant = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    return np.concatenate([constant, time * constant], axis=1)


def _ridge(gram: Floats, product: Floats, width: int) -> Floats:
    """Coefficients of a regression on the first `width` columns, zero for the others, (F, A)."""
    found = np.zeros_like(product)
    found[:width] = np.linalg.solve(gram[:width, :width] + RIDGE * np.eye(width), product[:width])
    return found


@torch.no_grad()
def features_and_residuals(clone: Policy, other: Recorded, negligible: float) -> tuple[Floats, Floats]:
    """What a residual may depend on, (N, F), and the residuals, (N, A), of each transition.

    The features are the standardised observation and the clone's action. With continuous actions the residuals are
    soft signs, which noise of any strength leaves in proportion; with discrete ones, features have the clone's
    probabilities, and a residual is the recorded action, one-hot, less these.
    """
    if isinstance(clone, ContinuousPolicy):
        seen, actions, acted = scaled(clone, other)
        return np.concatenate([seen, acted], axis=1), soft_signs(actions, acted, negligible)
    observations = torch.from_numpy(other.observations)
    seen = clone.standardise(observations).double().numpy()
    parts = torch.split(observations, CHUNK)
    acted = torch.cat([torch.softmax(clone(part), dim=-1) for part in parts]).double().numpy()
    taken = np.eye(acted.shape[1])[other.actions[:, 0].astype(np.int64)]
    return np.concatenate([seen, acted], axis=1), taken - acted
