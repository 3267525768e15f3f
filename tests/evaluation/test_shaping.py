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


def test_shaping_of_any_size_is_removed():
    """Shaping of any size leaves the correlation at one although the raw one is far from it."""
    rng, here, there, terminations = transitions(0)
    true = rng.normal(size=400)
    other = shaped(true, 5 * rng.normal(size=STATES), here, there, terminations)
    sums = ShapingFree(GAMMA)
    sums.add(here, there, terminations, np.stack([true, other], axis=1))
    assert np.corrcoef(true, other)[0, 1] < 0.5
    assert sums.correlations(2)[0] == pytest.approx(1, abs=1e-6)
    assert epic_like_distance(sums.correlations(2)[0]) == pytest.approx(0, abs=1e-3)


def episodes(ends: str, steps: int = 50, count: int = 40, scale: float = 1.0):
    """Observations before and after each step of walks, and terminations: of all, of every other episode, or of none.

    An episode without a termination is truncated; one that is terminated and truncated at once counts as terminated.
    """
    rng = np.random.default_rng(5)
    walks = scale * np.cumsum(0.3 * rng.normal(size=(count, steps + 1, 3)), axis=1)
    terminations = np.zeros((count, steps))
    terminations[{"terminations": slice(None), "both": slice(0, None, 2), "truncations": slice(0)}[ends], -1] = 1
    return rng, walks[:, :-1].reshape(-1, 3), walks[:, 1:].reshape(-1, 3), terminations.ravel()


def shipped(features: PotentialFeatures, observations):
    """The shipped features of standardised observations, clipped as a policy clips them."""
    clipped = np.clip(observations, -10, 10)
    return features(clipped, observations - clipped)


def potential_values(name: str, features: PotentialFeatures, observations):
    """Values of a potential in the span of the features, (N,)."""
    weights = np.random.default_rng(1).normal(size=1 + 3 + 128)
    if name == "constant":
        return np.full(len(observations), -40.0)
    if name == "linear":
        return -40 + observations @ np.array([5.0, -3.0, 20.0])
    found = shipped(features, observations)[:, : len(weights)]
    return found[:, 4:] @ weights[4:] if name == "units" else 40 * found @ weights


@pytest.mark.parametrize("potential", ["constant", "linear", "units", "all"])
@pytest.mark.parametrize("ends", ["terminations", "both", "truncations"])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_shipped_features_remove_their_potentials(potential: str, ends: str, gamma: float, scale: float):
    """Shaping by a potential in the span of the shipped features leaves a reward equal to itself, however episodes end.

    A scale of 20 takes observations far beyond the clip, where linear potentials stay in the span.
    """
    rng, here, there, terminations = episodes(ends, scale=scale)
    features = PotentialFeatures(3)
    true = rng.normal(size=len(here))
    before, after = (potential_values(potential, features, part) for part in (here, there))
    other = 0.3 * true + gamma * (1 - terminations) * after - before
    sums = ShapingFree(gamma)
    sums.add(shipped(features, here), shipped(features, there), terminations, np.stack([true, other], axis=1))
    (correlation,) = sums.correlations(2)
    assert correlation == pytest.approx(1, abs=1e-8)
    assert correlation <= 1
    assert epic_like_distance(correlation) < 1e-4


def test_unlike_rewards_stay_unlike_under_shaping():
    """Taking shaping out makes no two rewards alike: independent ones stay far apart, shaped or not."""
    rng, here, there, terminations = episodes("terminations")
    features = PotentialFeatures(3)
    true, unlike = rng.normal(size=(2, len(here)))
    other = unlike + 0.99 * (1 - terminations) * -40 + 40
    sums = ShapingFree(0.99)
    columns = np.stack([true, unlike, other], axis=1)
    sums.add(shipped(features, here), shipped(features, there), terminations, columns)
    plain, after_shaping = sums.correlations(3)
    assert abs(plain) < 0.1
    assert after_shaping == pytest.approx(plain, abs=1e-8)


@pytest.mark.parametrize("size", [1e3, 1e4])
def test_large_shaping_does_not_hide_a_reward(size: float):
    """A reward beside shaping thousands of times its size is still found; shaping alone is not."""
    rng, here, there, terminations = episodes("terminations")
    features = PotentialFeatures(3)
    true = rng.normal(size=len(here))
    nothing = (0.99 * (1 - terminations) - 1) * size
    sums = ShapingFree(0.99)
    columns = np.stack([true, 0.3 * true + nothing, nothing], axis=1)
    sums.add(shipped(features, here), shipped(features, there), terminations, columns)
    found, alone = sums.correlations(3)
    assert found == pytest.approx(1, abs=1e-6)
    assert alone is None


def test_nearly_collinear_features_remove_their_potentials():
    """Observations that repeat each other but for 1e-7, or never change, leave the solution exact."""
    rng, here, there, terminations = episodes("both")
    noise = 1e-7 * rng.normal(size=(2, len(here), 1))
    here, there = (
        np.concatenate([part[:, :1], part[:, :1] + apart, np.full_like(apart, 3.0)], axis=1)
        for part, apart in ((here, noise[0]), (there, noise[1]))
    )
    features = PotentialFeatures(3)
    true = rng.normal(size=len(here))
    before, after = (potential_values("linear", features, part) for part in (here, there))
    sums = ShapingFree(0.9)
    columns = np.stack([true, 0.3 * true + 0.9 * (1 - terminations) * after - before], axis=1)
    sums.add(shipped(features, here), shipped(features, there), terminations, columns)
    assert sums.correlations(2)[0] == pytest.approx(1, abs=1e-6)


def test_batches_equal_least_squares_residual():
    """Batches add up to the whole and equal a least squares residual."""
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


def test_shaping_alone_has_no_correlation():
    """A reward that is shaping alone has no correlation."""
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


def test_distance_of_opposite_and_unrelated_rewards():
    """Opposite rewards are one apart and unrelated ones seven tenths."""
    assert epic_like_distance(-1.0) == 1
    assert epic_like_distance(0.0) == pytest.approx(np.sqrt(0.5))


def test_features_repeat_themselves():
    """Two of one size are the same features: a constant, what is within the clip, units, and what is beyond it."""
    observations = np.random.default_rng(0).normal(size=(5, 3)) * 100
    first, second = shipped(PotentialFeatures(3), observations), shipped(PotentialFeatures(3), observations)
    np.testing.assert_array_equal(first, second)
    assert first.shape == (5, 1 + 3 + 128 + 3)
    np.testing.assert_array_equal(first[:, 0], 1)
    np.testing.assert_allclose(first[:, 1:4] + first[:, -3:], observations)
    assert np.abs(first[:, :-3]).max() <= 10
