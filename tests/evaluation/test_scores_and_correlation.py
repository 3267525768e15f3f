"""Scores, intervals and correlations, by hand."""

import numpy as np
import polars as pl
import pytest

from iq_offline.evaluation.correlation import (
    RESAMPLES,
    Clusters,
    cloning_null,
    correlate,
    partial_correlation,
    ranking_accuracy,
    reading,
    reward_report,
)
from iq_offline.evaluation.scores import ScoreReference, interquartile_mean, interval95


def test_score_is_0_at_random_100_at_expert():
    """A score is 0 at random and 100 at the expert."""
    reference = ScoreReference("dataset", random=20.0, expert=220.0)
    assert [reference.score(x) for x in (20.0, 120.0, 220.0)] == [0.0, 50.0, 100.0]
    assert ScoreReference("minari", random=5.0, expert=5.0).score(5.0) is None


def test_interquartile_mean_ignores_a_quarter_each_end():
    """The interquartile mean ignores a quarter at each end."""
    assert interquartile_mean([1000.0, 1.0, 2.0, -1000.0]) == 1.5


def test_interval_holds_mean_and_repeats():
    """The interval holds the mean repeats itself and needs two values."""
    low, high = interval95([1.0, 2.0, 3.0, 4.0]) or (0, 0)
    assert 1 <= low <= 2.5 <= high <= 4
    assert (low, high) == interval95([1.0, 2.0, 3.0, 4.0])
    assert interval95([1.0]) is None


def test_equal_values_have_an_interval_of_no_width():
    assert interval95([500.0, 500.0]) == (500.0, 500.0)


def test_a_constant_reward_has_no_correlation():
    result = correlate(np.ones(10), np.arange(10.0))
    assert (result.pearson, result.spearman, result.n) == (None, None, 10)


def test_monotone_curve_has_spearman_one():
    """A monotone curve has spearman one and a lower pearson."""
    x = np.arange(1.0, 11.0)
    result = correlate(x, np.exp(x))
    assert result.spearman == pytest.approx(1)
    assert result.pearson is not None
    assert 0 < result.pearson < 0.9


def test_cloning_null_is_one_to_zero():
    """The cloning null is one at no error and zero beyond the cap."""
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


def episodes_frame(lengths, rate, noise, seed=0, source="a"):
    """Episodes of those lengths whose true reward a step is `rate`, recovered with noise of its own each episode."""
    rng = np.random.default_rng(seed)
    rows = [
        {"source": source, "episode": number, "true": r, "recovered": r + e, "null_bc": 0.0}
        for number, (length, r) in enumerate(zip(lengths, rate, strict=True))
        for e in [noise * rng.normal()]
        for _ in range(length)
    ]
    return pl.DataFrame(rows)


def test_length_only_reward_is_exposed():
    """A reward that knows only the length is found out when length is used out."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 200, size=60)
    frame = episodes_frame(lengths, 1 + 0.1 * rng.normal(size=60), 0.0)
    constant = frame.with_columns(recovered=pl.lit(1.0) + 0.1 * ((pl.col("episode") * 7919) % 13))
    report = reward_report(constant)
    assert report["episode"]["pearson"] > 0.7
    assert abs(report["length_controlled"]["partial"]) < 0.3
    assert abs(report["length_controlled"]["per_step"]["pearson"]) < 0.3
    honest = reward_report(frame)
    assert honest["length_controlled"]["partial"] == pytest.approx(1)
    assert honest["ranking"]["accuracy"] == 1


def test_interval_resamples_whole_episodes():
    """An interval is that of whole episodes drawn anew."""
    rng = np.random.default_rng(1)
    frame = episodes_frame(np.full(20, 50), rng.normal(size=20), 1.0)
    report = reward_report(frame)
    low, high = report["transition"]["pearson_ci95"]
    assert low < report["transition"]["pearson"] < high
    assert high - low > 0.2  # 1000 steps, but 20 episodes: steps drawn one by one would give 0.06
    low, high = report["episode"]["pearson_ci95"]
    assert low < report["episode"]["pearson"] < high


def test_interval_equals_slow_bootstrap():
    """The interval equals a slow bootstrap over the same draws."""
    rng = np.random.default_rng(2)
    frame = episodes_frame(rng.integers(3, 9, size=12), rng.normal(size=12), 1.0)
    clusters = Clusters.of(frame)
    true, recovered = frame["true"].to_numpy(), frame["recovered"].to_numpy()
    slow = []
    for draw in clusters.draws(RESAMPLES):
        weights = draw[clusters.cluster]
        slow.append(
            np.cov(true, recovered, aweights=weights)[0, 1]
            / np.prod([np.sqrt(np.cov(values, aweights=weights)) for values in (true, recovered)])
        )
    assert correlate(true, recovered, clusters).pearson_ci95 == pytest.approx(np.quantile(slow, [0.025, 0.975]))


def test_clusters_are_episodes_of_their_own_source():
    frame = pl.DataFrame({"source": ["a", "a", "b", "b", "b"], "episode": [0, 1, 0, 0, 1]})
    clusters = Clusters.of(frame)
    assert clusters.cluster.tolist() == [0, 1, 2, 2, 3]
    assert clusters.stratum.tolist() == [1, 1, 2, 2]
    assert (clusters.draws(50)[:, :2].sum(axis=1) == 2).all()


def test_ranking_accuracy_by_hand():
    true = np.array([1.0, 2.0, 3.0])
    assert ranking_accuracy(true, np.array([10.0, 20.0, 30.0])) == 1
    assert ranking_accuracy(true, np.array([30.0, 20.0, 10.0])) == 0
    assert ranking_accuracy(true, np.array([5.0, 5.0, 5.0])) == 0.5
    assert ranking_accuracy(true, np.array([2.0, 1.0, 3.0])) == pytest.approx(2 / 3)
    assert ranking_accuracy(np.ones(3), true) is None


def test_partial_correlation_takes_a_straight_line_out():
    given = np.arange(50.0)
    left = np.random.default_rng(0).normal(size=50)
    assert partial_correlation(3 * given + left, -2 * given + left, given) == pytest.approx(1)
    assert partial_correlation(3 * given, -2 * given + left, given) is None
    assert partial_correlation(left, left, np.ones(50)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (0.9, [0.8, 0.95], "explains the true reward better than the cloning baseline (Pearson 0.90 against 0.70)"),
        (0.3, [0.1, 0.5], "explains the true reward worse than the cloning baseline (Pearson 0.30 against 0.70)"),
        (0.71, [0.6, 0.8], "about as well as the cloning baseline (Pearson 0.71 against 0.70)"),
        (
            *(0.3, [-0.2, 0.8]),
            "these data cannot tell the recovered reward from the cloning baseline "
            "(Pearson 0.30, 95 % interval -0.20 to 0.80, against 0.70)",
        ),
    ],
    ids=["better", "worse", "equal", "unknown"],
)
def test_reading_follows_the_interval(value: float, interval: list[float], expected: str):
    """A wide interval around a far lower correlation is no tie: the data do not tell."""
    unknown = {"pearson": None}
    report = {"transition": {"pearson": value, "pearson_ci95": interval}, "episode": unknown, "null_length": unknown}
    report |= {"null_bc": {"pearson": 0.7, "episode": unknown}}
    assert expected in reading(report)
