"""Rewards that differ by potential-based shaping are the same reward."""

import numpy as np
import pytest

from iq_offline.evaluation.shaping import PotentialFeatures, ShapingFree, epic_like_distance

STATES, GAMMA = 6, 0.9


def transitions(seed: int, count: int = 400):
    rng = np.random.default_rng(seed)
    states, following = rng.integers(STATES, size=count), rng.integers(STATES, size=count)
    terminations = (rng.random(count) < 0.1).astype(float)
    return rng, np.eye(STATES)[states], np.eye(STATES)[following], terminations


def shaped(reward, potential, here, there, terminations):
    return reward + GAMMA * (1 - terminations) * (there @ potential) - here @ potential


def test_shaping_of_any_size_leaves_the_correlation_at_one_although_the_raw_one_is_far_from_it():
    rng, here, there, terminations = transitions(0)
    true = rng.normal(size=400)
    other = shaped(true, 5 * rng.normal(size=STATES), here, there, terminations)
    sums = ShapingFree(GAMMA)
    sums.add(here, there, terminations, np.stack([true, other], axis=1))
    assert np.corrcoef(true, other)[0, 1] < 0.5
    assert sums.correlations(2)[0] == pytest.approx(1, abs=1e-6)
    assert epic_like_distance(sums.correlations(2)[0]) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("potential", ["constant", "linear", "unit", "all"])
@pytest.mark.parametrize("ends", ["terminations", "none"])
def test_shipped_features_remove_their_potentials(potential: str, ends: str):
    """Shaping by a potential in the span of the shipped features leaves a reward equal to itself, whatever ends."""
    rng = np.random.default_rng(5)
    here, there = rng.normal(size=(2, 2000, 3))
    terminations = (rng.random(2000) < (0.05 if ends == "terminations" else 0)).astype(float)
    features = PotentialFeatures(3)
    weights = np.zeros(1 + 3 + 128)
    chosen = {"constant": slice(0, 1), "linear": slice(1, 4), "unit": slice(4, 14), "all": slice(None)}[potential]
    weights[chosen] = -40
    true = rng.normal(size=2000)
    other = shaped(0.3 * true, weights, features(here), features(there), terminations)
    sums = ShapingFree(GAMMA)
    sums.add(features(here), features(there), terminations, np.stack([true, other], axis=1))
    (correlation,) = sums.correlations(2)
    assert correlation == pytest.approx(1, abs=1e-5)
    assert epic_like_distance(correlation) < 2e-3


def test_batches_add_up_to_the_whole_and_equal_a_least_squares_residual():
    rng, here, there, terminations = transitions(1)
    rewards = rng.normal(size=(400, 3))
    parts, whole = ShapingFree(GAMMA), ShapingFree(GAMMA)
    whole.add(here, there, terminations, rewards)
    for part in (slice(0, 150), slice(150, 400)):
        parts.add(here[part], there[part], terminations[part], rewards[part])
    basis = np.c_[np.ones(400), GAMMA * (1 - terminations)[:, None] * there - here]
    left = rewards - basis @ np.linalg.lstsq(basis, rewards, rcond=None)[0]
    expected = [np.corrcoef(left[:, 0], left[:, i])[0, 1] for i in (1, 2)]
    assert parts.correlations(3) == pytest.approx(expected, abs=1e-6)
    assert whole.correlations(3) == pytest.approx(expected, abs=1e-6)
    assert parts.n == 400


def test_a_reward_that_is_shaping_alone_has_no_correlation():
    rng, here, there, terminations = transitions(2)
    nothing = shaped(np.zeros(400), rng.normal(size=STATES), here, there, terminations)
    sums = ShapingFree(GAMMA)
    sums.add(here, there, terminations, np.stack([rng.normal(size=400), nothing], axis=1))
    assert sums.correlations(2) == [None]
    assert epic_like_distance(None) is None


@pytest.mark.parametrize("offset", [0, 1000, 2000, 1e5, -1e5])
def test_an_offset_of_any_size_changes_nothing(offset: float):
    rng, here, there, terminations = transitions(3)
    reward, other = rng.normal(size=(2, 400))
    columns = np.stack([offset + reward, reward, other, offset + other], axis=1)
    sums, plain = ShapingFree(GAMMA), ShapingFree(GAMMA)
    for part in (slice(0, 150), slice(150, 400)):
        sums.add(here[part], there[part], terminations[part], columns[part])
    plain.add(here, there, terminations, np.stack([reward, other], axis=1))
    unlike = plain.correlations(2)[0]
    assert sums.correlations(4) == pytest.approx([1, unlike, unlike], abs=1e-9)


@pytest.mark.parametrize("offset", [0, 1e5])
def test_constants_and_shaping_far_from_zero_are_nothing(offset: float):
    rng, here, there, terminations = transitions(4)
    nothing = offset + shaped(np.zeros(400), rng.normal(size=STATES), here, there, terminations)
    sums = ShapingFree(GAMMA)
    sums.add(here, there, terminations, np.stack([rng.normal(size=400), nothing, np.full(400, offset + 0.1)], axis=1))
    assert sums.correlations(3) == [None, None]


def test_opposite_rewards_are_one_apart_and_unrelated_ones_seven_tenths():
    assert epic_like_distance(-1.0) == 1
    assert epic_like_distance(0.0) == pytest.approx(np.sqrt(0.5))


def test_features_repeat_themselves_and_are_bounded_by_the_clip():
    observations = np.random.default_rng(0).normal(size=(5, 3)) * 100
    first, second = PotentialFeatures(3)(observations), PotentialFeatures(3)(observations)
    np.testing.assert_array_equal(first, second)
    assert first.shape == (5, 1 + 3 + 128)
    assert np.abs(first).max() <= 10
