"""Scores, intervals and correlations, by hand."""

import numpy as np
import polars as pl
import pytest

from iq_offline.evaluation.correlation import cloning_null, correlate, reward_report
from iq_offline.evaluation.scores import ScoreReference, interquartile_mean, interval95


def test_a_score_is_0_at_random_and_100_at_the_expert():
    reference = ScoreReference("dataset", random=20.0, expert=220.0)
    assert [reference.score(x) for x in (20.0, 120.0, 220.0)] == [0.0, 50.0, 100.0]


def test_the_interquartile_mean_ignores_a_quarter_at_each_end():
    assert interquartile_mean([1000.0, 1.0, 2.0, -1000.0]) == 1.5


def test_the_interval_holds_the_mean_repeats_itself_and_needs_two_values():
    low, high = interval95([1.0, 2.0, 3.0, 4.0]) or (0, 0)
    assert 1 <= low <= 2.5 <= high <= 4
    assert (low, high) == interval95([1.0, 2.0, 3.0, 4.0])
    assert interval95([1.0]) is None


def test_equal_values_have_an_interval_of_no_width():
    assert interval95([500.0, 500.0]) == (500.0, 500.0)


def test_a_constant_reward_has_no_correlation():
    result = correlate(np.ones(10), np.arange(10.0))
    assert (result.pearson, result.spearman, result.n) == (None, None, 10)


def test_a_monotone_curve_has_spearman_one_and_a_lower_pearson():
    x = np.arange(1.0, 11.0)
    result = correlate(x, np.exp(x))
    assert result.spearman == pytest.approx(1)
    assert result.pearson is not None
    assert 0 < result.pearson < 0.9


def test_the_cloning_null_is_one_at_no_error_and_zero_beyond_the_cap():
    rewards = cloning_null(np.array([0.0, 1.0, 5.0, 100.0]), std=np.sqrt(0.5))
    np.testing.assert_allclose(rewards, [1, 0.8, 0, 0], atol=1e-12)


def test_a_mix_can_correlate_although_no_source_does():
    """Two sources whose means differ: the mix only tells the sources apart, and the report says so."""
    true = np.r_[np.tile([0.0, 1.0], 50), np.tile([10.0, 11.0], 50)]
    recovered = np.r_[np.tile([0.0, 0.0, 1.0, 1.0], 25), np.tile([10.0, 10.0, 11.0, 11.0], 25)]
    frame = pl.DataFrame(
        {
            "source": ["a"] * 100 + ["b"] * 100,
            "episode": np.repeat(np.arange(20), 10) % 10,
            "step": np.tile(np.arange(10), 20),
            "true": true,
            "recovered": recovered,
            "null_bc": recovered,
        }
    )
    report = reward_report(frame)
    assert report["transition"]["pearson"] > 0.98
    assert report["within_source"]["pearson"] == pytest.approx(0, abs=1e-9)
    assert set(report["within_source"]["sources"]) == {"a", "b"}
    assert report["episode"]["n"] == 20
    assert report["null_length"]["pearson"] is None
