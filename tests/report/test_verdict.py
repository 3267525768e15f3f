"""The verdict: sentences that follow from the numbers, and claim no more than these show."""

import pytest

from iq_offline.report.groups import grouped
from iq_offline.report.loading import load_runs
from iq_offline.report.verdict import verdict


@pytest.fixture
def said(write_run):
    """Call it with the scores of each method's seeds, by task: the verdict's sentences, the headline first."""

    def say(scores, **facts):
        folders = [
            write_run(f"{task}-{method}-{seed}", dataset=task, method=method, seed=seed, returns=[s], score=s, **facts)
            for (task, method), values in scores.items()
            for seed, s in enumerate(values)
        ]
        found = verdict(grouped(load_runs(folders)[0]))
        return [found.headline, *found.details]

    return say


def test_five_seeds_let_a_method_outperform(said):
    """With five seeds a method whose interval excludes 0.5 outperforms; the numbers are the table's IQMs."""
    scores = {("a", "bc"): [10, 20, 30, 20, 20], ("a", "iq"): [80, 90, 90, 90, 100]}
    (headline,) = said({task: list(map(float, values)) for task, values in scores.items()})
    assert headline == (
        "On a, 5 demonstrations, iq outperforms bc: 90.0 against 20.0 (P = 1.00, 95 % CI 1.00 to 1.00, 5 seeds)."
    )


def test_two_seeds_never_outperform(said):
    """Two seeds have a bootstrap interval of no width, which proves nothing: the sentence asks for more of them."""
    (headline,) = said({("a", "bc"): [10.0, 20.0], ("a", "iq"): [90.0, 80.0]})
    assert "iq scores higher than bc: 85.0 against 15.0" in headline
    assert headline.endswith("2 seeds: more seeds needed).")


def test_difference_below_a_point_is_a_tie(said):
    """Scores that differ by less than a point tie, however consistently one is above the other."""
    (headline,) = said({("a", "bc"): [99.0, 99.1], ("a", "iq"): [99.6, 99.7]})
    assert "iq and bc tie: 99.6 against 99.0" in headline or "iq and bc tie: 99.7 against 99.0" in headline


@pytest.mark.parametrize(("apart", "alike"), [(0.01, True), (0.03, False)])
def test_policies_that_act_alike_are_named(write_run, apart, alike):
    """Scaled actions have a range of 2: they differ by 0.5 and by 1.5 percent."""
    actions = {"bc": [0.0, 0.0], "iq": [apart, apart]}
    folders = [write_run(method, method=method, returns=[50.0], actions=actions[method]) for method in actions]
    found = [text for text in verdict(grouped(load_runs(folders)[0])).details if "acts as bc does" in text]
    assert len(found) == alike
    assert not alike or found[0].startswith("iq acts as bc does: their greedy actions differ by 0.5 %")


def test_mixed_order_is_no_significant_difference(said):
    """Where seeds of both methods are above seeds of the other, no method is said to be better."""
    (headline,) = said({("a", "bc"): [0.0, 60.0, 50.0, 40.0, 90.0], ("a", "iq"): [10.0, 70.0, 60.0, 50.0, 80.0]})
    assert "iq and bc do not differ significantly" in headline


def test_one_win_and_one_loss_decide_nothing(said):
    """A higher mean over tasks does not count where a run of either method beats one of the other as often."""
    scores = {("a", "bc"): [20.0], ("a", "iq"): [90.0], ("b", "bc"): [90.0], ("b", "iq"): [80.0]}
    assert "iq and bc do not differ significantly: 85.0 against 55.0 (P = 0.50, 1 seed" in said(scores)[0]


def test_better_cloning_is_said(said):
    (headline,) = said({("a", "bc"): [90.0] * 5, ("a", "iq"): [20.0] * 5})
    assert "bc outperforms iq: 90.0 against 20.0" in headline


def test_tasks_follow_the_overall_sentence(said):
    """The headline is over all tasks; then each task has its own sentence, with every method where there are more."""
    scores = {(task, method): [value, value] for task, values in (("a", (10.0, 50.0, 90.0)), ("b", (80.0, 70.0, 60.0)))
              for method, value in zip(("bc", "csil", "iq"), values, strict=True)}  # fmt: skip
    headline, a, b = said(scores)
    assert headline.startswith("Over 2 tasks, ")
    assert a.startswith("a, 5 demonstrations: iq 90.0, csil 50.0, bc 10.0; iq scores higher than bc")
    assert b.startswith("b, 5 demonstrations: bc 80.0, csil 70.0, iq 60.0; bc scores higher than csil")


def test_supplementary_readers_are_named(write_run):
    """Which methods learn from other data is said, as the reason for which they may differ."""
    folders = [
        write_run("a", method="bc", returns=[1.0]),
        write_run("b", method="filtered-bc", returns=[2.0], supplementary=["demo/hopper/mixed-v0"]),
    ]
    found = verdict(grouped(load_runs(folders)[0]))
    assert found.details[-1] == (
        "filtered-bc also learns from demo/hopper/mixed-v0, without rewards; bc learns from the demonstrated "
        "transitions alone (500 a run)."
    )


def test_reward_is_set_beside_each_baseline(write_run):
    """A recovered reward that beats one baseline and loses to another is said to do both."""
    rewards = {"transition": 0.6, "null_bc": 0.3, "episode": 0.7, "null_bc_episode": 0.71, "null_length": 0.9}
    found = verdict(grouped(load_runs([write_run("a", rewards=rewards)])[0]))
    assert found.headline == (
        "The reward that iq recovers on hopper-expert-v2 beats some of its baselines: by transition r = 0.60, better "
        "than cloning (0.30); by episode r = 0.70, equal to cloning (0.71), worse than episode length (0.90)."
    )


@pytest.mark.parametrize(("r", "verb"), [(0.1, "does not beat"), (0.9, "beats its")])
def test_reward_wins_or_loses_altogether(write_run, r, verb):
    found = verdict(grouped(load_runs([write_run("a", rewards={"transition": r, "null_bc": 0.5})])[0]))
    assert verb in found.headline


@pytest.mark.parametrize("rewards", [None, {"transition": 0.9}])
def test_missing_returns_name_the_command(write_run, rewards):
    """Where no run has returns, the last sentence says so and names the command that makes them."""
    found = verdict(grouped(load_runs([write_run("a", rewards=rewards)])[0]))
    last = [found.headline, *found.details][-1]
    assert last.startswith("No run has returns yet")
    assert "`iq-offline eval`" in last
