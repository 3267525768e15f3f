"""The drift test rejects episodes of a policy that changes from one to the next, and no others."""

import numpy as np
import pytest
import torch

from iq_offline.algorithms.encoders import initialise
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, DiscretePolicy, Standardiser
from iq_offline.baselines.drift_test import drift_p_value, features_and_residuals
from iq_offline.baselines.sources import Recorded
from iq_offline.config.base import Activation
from iq_offline.config.baselines import DriftTestConfig

TEST = DriftTestConfig()
STEPS = 50


def slices_of(episodes: int) -> list[slice]:
    return [slice(STEPS * number, STEPS * (number + 1)) for number in range(episodes)]


def residuals_of(random: np.random.Generator, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features, and residuals in which the first feature has each episode's slope, (E,), under noise of its own."""
    features = random.normal(size=(STEPS * len(slopes), 3))
    noise = random.uniform(0.2, 1, size=len(slopes)).repeat(STEPS)[:, None] * random.normal(size=(len(features), 2))
    return features, noise + features[:, :1] * slopes.repeat(STEPS)[:, None]


def test_level_holds_for_one_policy():
    """Of 300 sets of episodes of one policy, no more are rejected at 0.05 than the level and its error allow."""
    random = np.random.default_rng(0)
    p_values = [drift_p_value(TEST, *residuals_of(random, np.full(20, 0.3)), slices_of(20), [20]) for _ in range(300)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


def test_steady_change_is_found():
    random = np.random.default_rng(0)
    assert drift_p_value(TEST, *residuals_of(random, np.linspace(-0.5, 0.5, 30)), slices_of(30), [30]) < 1e-4


def test_policies_in_turn_do_not_drift():
    random = np.random.default_rng(0)
    assert drift_p_value(TEST, *residuals_of(random, np.tile([-0.5, 0.5, 0.0], 10)), slices_of(30), [30]) > 0.1


def test_each_file_has_its_own_time():
    """Two files of two policies do not drift, each of them; as one file they do."""
    random = np.random.default_rng(0)
    found = residuals_of(random, np.repeat([-0.5, 0.5], 15))
    both = slices_of(30)
    assert drift_p_value(TEST, *found, both, [15, 15]) > 0.1
    assert drift_p_value(TEST, *found, both, [30]) < 1e-4


def test_few_episodes_are_not_tested():
    random = np.random.default_rng(0)
    found = residuals_of(random, np.linspace(-2, 2, 9))
    assert drift_p_value(TEST, *found, slices_of(9), [9]) == 1
    assert drift_p_value(TEST.model_copy(update={"min_episodes": 9}), *found, slices_of(9), [9]) < 0.05
    assert drift_p_value(TEST, np.zeros((0, 3)), np.zeros((0, 2)), [], []) == 1


def test_zero_residuals_do_not_drift():
    features = np.random.default_rng(0).normal(size=(STEPS * 12, 3))
    assert drift_p_value(TEST, features, np.zeros((len(features), 2)), slices_of(12), [12]) == 1


def a_clone(discrete: bool) -> ContinuousPolicy | DiscretePolicy:
    standardiser = Standardiser(torch.zeros(3), torch.ones(3))
    clone = (
        DiscretePolicy(standardiser, 4, (8,), Activation.TANH)
        if discrete
        else ContinuousPolicy(standardiser, ActionScale.of_bounds((-2.0,), (2.0,)), (8,), Activation.TANH)
    )
    initialise(clone, torch.Generator().manual_seed(0))
    return clone


def recorded_by(clone: ContinuousPolicy | DiscretePolicy, shift: np.ndarray) -> Recorded:
    """Episodes of the clone under noise; `shift`, (E,), is added to its actions, or to the logit of action 0."""
    random = np.random.default_rng(0)
    observations = random.normal(size=(STEPS * len(shift), 3)).astype(np.float32)
    moved = shift.repeat(STEPS)[:, None]
    with torch.no_grad():
        outputs = clone(torch.from_numpy(observations)).numpy()
        if isinstance(clone, DiscretePolicy):
            logits = outputs + moved * np.eye(4)[:1] + random.gumbel(size=outputs.shape)
            actions = logits.argmax(axis=1)[:, None]
        else:
            actions = clone.act(torch.from_numpy(observations)).numpy() + moved
            actions = np.clip(actions + 0.3 * random.normal(size=actions.shape), -2, 2)
    episodes = np.arange(len(shift)).repeat(STEPS)
    return Recorded(observations, actions.astype(np.float32), observations, episodes)


@pytest.mark.parametrize("discrete", [False, True])
def test_change_of_recorded_actions_is_found(discrete: bool):
    """Recorded actions drift where the policy does; noise alone does not."""
    clone = a_clone(discrete)
    for shift, drifts in ((np.zeros(40), False), (np.linspace(-1, 1, 40), True)):
        features, residuals = features_and_residuals(clone, recorded_by(clone, shift), 0.1)
        assert features.shape == (STEPS * 40, 3 + (4 if discrete else 1))
        assert (drift_p_value(TEST, features, residuals, slices_of(40), [40]) < TEST.level) is drifts
