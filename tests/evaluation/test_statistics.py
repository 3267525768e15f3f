"""Statistics over runs and tasks: values worked out by hand, and what must hold of any numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from iq_offline.evaluation import scores
from iq_offline.evaluation.scores import interval95
from iq_offline.evaluation.statistics import mean, performance_profile, probability_of_improvement, stratified_iqm

NUMBERS = st.floats(-1e3, 1e3).map(lambda number: round(number, 2))
STRATA = st.lists(st.lists(NUMBERS, min_size=2, max_size=5), min_size=1, max_size=3)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(scores, "BOOTSTRAP_SAMPLES", 200)


def test_interquartile_mean_pools_the_tasks():
    """The interquartile mean pools the tasks and drops a quarter from each end."""
    # 1 2 3 4 5 6 7 80: two dropped from each end leave 3 4 5 6.
    assert stratified_iqm([[1, 2, 3, 4], [5, 6, 7, 80]]).value == 4.5
    assert mean([[1, 2, 3, 4], [5, 6, 7, 80]]).value == 13.5


def test_bootstrap_resamples_within_tasks_only():
    """Runs are drawn anew within tasks and never across."""
    # Each task's runs are equal, so no draw within tasks can change anything; a draw across tasks would.
    estimate = mean([[0.0, 0.0, 0.0], [100.0, 100.0, 100.0]])
    assert (estimate.low, estimate.value, estimate.high) == (50.0, 50.0, 50.0)
    wide = interval95([0.0, 0.0, 0.0, 100.0, 100.0, 100.0])
    assert wide[0] < 50 < wide[1]


def test_bootstrap_of_two_runs_reaches_both():
    """The bootstrap of a mean of two runs reaches both and no further."""
    # Two runs, 0 and 1: a resample's mean is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4.
    estimate = mean([[0.0, 1.0]])
    assert (estimate.low, estimate.value, estimate.high) == (0.0, 0.5, 1.0)


def test_one_run_in_a_task_has_no_interval():
    """One run in a task gives a figure without an interval."""
    for estimate in (stratified_iqm([[3.0]]), probability_of_improvement([[3.0], [1.0, 2.0]], [[1.0], [0.0, 0.0]])):
        assert (estimate.low, estimate.high) == (None, None)
    assert stratified_iqm([[3.0]]).value == 3.0


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([[2.0, 3.0]], [[0.0, 1.0]], 1.0),
        ([[0.0, 1.0]], [[2.0, 3.0]], 0.0),
        ([[1.0, 1.0]], [[1.0, 1.0]], 0.5),
        ([[1.0, 3.0]], [[2.0, 2.0]], 0.5),
        ([[1.0, 2.0]], [[0.0, 1.0]], 0.875),  # pairs: 1>0, 1=1, 2>0, 2>1
        ([[2.0]], [[0.0, 1.0, 3.0]], 2 / 3),
        ([[2.0, 3.0], [0.0]], [[0.0, 1.0], [1.0]], 0.5),  # 1 on one task, 0 on the other
    ],
)
def test_probability_of_improvement_is_share_of_wins(ours, theirs, expected):
    """The probability of improvement is the share of pairs won with ties at half."""
    assert probability_of_improvement(ours, theirs).value == pytest.approx(expected)


def test_one_task_gives_mann_whitneys_u():
    """On one task it is mann and whitneys u over the number of pairs."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 6, 9).astype(float), rng.integers(0, 6, 7).astype(float)
    u = mannwhitneyu(ours, theirs).statistic
    assert probability_of_improvement([ours], [theirs]).value == pytest.approx(u / 63)


def test_tasks_must_pair_and_have_runs():
    """Tasks must pair and each must have a run."""
    with pytest.raises(ValueError, match="2 tasks against 1"):
        probability_of_improvement([[1.0], [2.0]], [[1.0]])
    for empty in ([], [[]], [[1.0], []]):
        with pytest.raises(ValueError, match="every task needs a run"):
            mean(empty)


def test_profile_counts_strictly_above():
    """A profile counts runs strictly above and weighs tasks equally."""
    profile = performance_profile([[1.0, 2.0], [2.0, 2.0, 2.0, 5.0]], np.array([0.0, 1.0, 2.0, 5.0]))
    # Above 1: one of two, and all four; above 2: none, and one of four.
    assert profile.shares.tolist() == pytest.approx([1.0, 0.75, 0.125, 0.0])
    assert profile.low is not None
    assert (profile.low <= profile.shares).all()
    assert (profile.shares <= profile.high).all()
    assert performance_profile([[1.0]], np.array([0.0])).low is None


def test_equal_runs_have_zero_width_interval():
    """Equal runs have an interval of no width and no warning."""
    estimate = stratified_iqm([[5.0, 5.0, 5.0], [5.0, 5.0]])
    assert (estimate.low, estimate.value, estimate.high) == (5.0, 5.0, 5.0)


def test_interval_covers_the_truth():
    """The interval covers the truth about as often as it says."""
    # Five tasks of five runs, all from N(0, 1): 95 % of the intervals should hold 0; a bootstrap of so few is narrower.
    rng = np.random.default_rng(1)
    intervals = [mean(rng.normal(size=(5, 5)).tolist()) for _ in range(200)]
    held = np.mean([one.low <= 0 <= one.high for one in intervals])
    assert 0.84 <= held <= 0.98


@given(STRATA)
def test_figures_lie_within_runs_and_repeat(strata):
    """Figures lie within the runs and their intervals and are the same each time."""
    values = [value for stratum in strata for value in stratum]
    for estimate, again in ((mean(strata), mean(strata)), (stratified_iqm(strata), stratified_iqm(strata))):
        assert estimate == again
        assert min(values) - 1e-6 <= estimate.low <= estimate.high <= max(values) + 1e-6
        assert min(values) - 1e-6 <= estimate.value <= max(values) + 1e-6


@given(STRATA, st.floats(-100, 100).map(round))
def test_shift_moves_mean_and_interval(strata, shift):
    """A shift of every run shifts the interquartile mean and its interval."""
    before, after = stratified_iqm(strata), stratified_iqm([[value + shift for value in one] for one in strata])
    assert [after.value - before.value, after.low - before.low, after.high - before.high] == pytest.approx([shift] * 3)


@given(STRATA, st.data())
def test_directions_of_improvement_add_to_one(ours, data):
    """The two directions of improvement add up to one and equal samples give a half."""
    theirs = [data.draw(st.lists(NUMBERS, min_size=2, max_size=5)) for _ in ours]
    forth, back = probability_of_improvement(ours, theirs).value, probability_of_improvement(theirs, ours).value
    assert forth + back == pytest.approx(1.0)
    assert 0 <= forth <= 1
    assert probability_of_improvement(ours, ours).value == pytest.approx(0.5)


@given(STRATA)
def test_profile_falls_within_its_band(strata):
    """A profile falls from one to nothing within its band."""
    values = [value for stratum in strata for value in stratum]
    profile = performance_profile(strata, np.linspace(min(values) - 1, max(values), 12))
    assert profile.shares[0] == pytest.approx(1)
    assert profile.shares[-1] == 0
    assert (np.diff(profile.shares) <= 1e-12).all()
    assert (profile.low <= profile.high + 1e-12).all()
