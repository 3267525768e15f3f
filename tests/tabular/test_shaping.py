"""Correlation up to shaping: what it forgives, what it does not, and how much it flatters."""

import numpy as np
import pytest
from decision_processes import random_mdp, shaped, shaping_null

from iq_offline.tabular.shaping import correlation_up_to_shaping

MDP = random_mdp(8, 4, 0.9, np.random.default_rng(0))


def test_scale_shaping_and_offset_are_forgiven_and_found():
    potential = np.random.default_rng(1).normal(size=8)
    fit = correlation_up_to_shaping(MDP.rewards, shaped(2 * MDP.rewards, potential, MDP) + 5, MDP)
    assert (fit.pearson, fit.partial, fit.scale) == pytest.approx((1, 1, 2))
    np.testing.assert_allclose(fit.potential, potential - 5 / (1 - 0.9), atol=1e-9)


def test_a_reward_turned_round_has_correlation_minus_one():
    fit = correlation_up_to_shaping(MDP.rewards, -MDP.rewards, MDP)
    assert (fit.pearson, fit.partial, fit.scale) == pytest.approx((-1, -1, -1))


def test_noise_lowers_the_correlation():
    """Noise is not forgiven and the partial figure is the stricter."""
    noisy = MDP.rewards + np.random.default_rng(2).normal(size=(8, 4))
    fit = correlation_up_to_shaping(MDP.rewards, noisy, MDP)
    assert 0.4 < fit.partial <= fit.pearson < 0.9, f"{fit.partial:.3f}, {fit.pearson:.3f}"


def test_noise_correlates_with_few_pairs():
    """With few pairs noise alone correlates and the null shows it."""
    few, many = random_mdp(8, 2, 0.9, np.random.default_rng(0)), random_mdp(8, 40, 0.9, np.random.default_rng(0))
    sizes = []
    for mdp in (few, many):
        null = shaping_null(mdp.rewards, mdp, np.random.default_rng(3), draws=200)
        sizes.append(np.mean([abs(fit.partial) for fit in null]))
    assert sizes == pytest.approx([0.29, 0.046], rel=0.25)


def test_pairs_of_no_weight_count_for_nothing():
    weights = np.random.default_rng(4).random((8, 4))
    weights[0] = 0
    spoilt = MDP.rewards.copy()
    spoilt[0] = 100
    fit = correlation_up_to_shaping(MDP.rewards, spoilt, MDP, weights)
    assert (fit.pearson, fit.partial) == pytest.approx((1, 1))


def test_true_reward_of_shaping_alone_is_refused():
    """A true reward that is all shaping is refused."""
    nothing = shaped(np.zeros((8, 4)), np.random.default_rng(5).normal(size=8), MDP)
    with pytest.raises(ValueError, match="is a shaping term"):
        correlation_up_to_shaping(nothing, MDP.rewards, MDP)
    one_action_each = np.eye(4)[np.zeros(8, dtype=int)]
    with pytest.raises(ValueError, match="is a shaping term"):
        correlation_up_to_shaping(MDP.rewards, MDP.rewards, MDP, one_action_each)
    with pytest.raises(ValueError, match="potential must be"):
        shaped(MDP.rewards, np.zeros(7), MDP)
    with pytest.raises(ValueError, match="negative"):
        correlation_up_to_shaping(MDP.rewards, MDP.rewards, MDP, -np.ones((8, 4)))
