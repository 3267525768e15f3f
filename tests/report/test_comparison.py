"""Methods over all tasks: which runs pair, on what scale, and numbers worked out by hand."""

import pytest

from iq_offline.report.comparison import comparison_cautions, scale_of, variants
from iq_offline.report.groups import grouped
from iq_offline.report.loading import load_runs
from iq_offline.report.tables import aggregate_table, summary_table


def groups_of(folders):
    return grouped(load_runs(folders)[0])


def rows(folders):
    return {row["variant"]: row for row in aggregate_table(groups_of(folders)).iter_rows(named=True)}


def two_tasks(write_run, **facts):
    """On task a, bc has 1 and 2, iq 2 and 3; on task b, bc has 30 and 40, iq 10 and 50."""
    facts = {"reference": None} | facts
    returns = {("a", "bc"): (1, 2), ("a", "iq"): (2, 3), ("b", "bc"): (30, 40), ("b", "iq"): (10, 50)}
    return [
        write_run(f"{task}-{method}-{seed}", dataset=task, method=method, seed=seed, returns=[float(value)], **facts)
        for (task, method), values in returns.items()
        for seed, value in enumerate(values)
    ]


def test_improvement_is_paired_by_task(write_run):
    """Improvement is paired by task and needs no common scale."""
    found = rows(two_tasks(write_run))
    # Task a: pairs 2>1, 2=2, 3>1, 3>2 make 3.5 / 4. Task b: 10 loses twice, 50 wins twice: 1 / 2.
    assert found["iq"]["improvement"] == pytest.approx((0.875 + 0.5) / 2)
    assert (found["iq"]["paired_tasks"], found["iq"]["tasks"], found["iq"]["runs"]) == (2, 2, 4)
    assert found["bc"]["improvement"] is None
    assert 0 <= found["iq"]["improvement_low"] <= 0.6875 <= found["iq"]["improvement_high"] <= 1


def test_task_row_shows_its_tasks_improvement(write_run):
    table = summary_table(grouped(load_runs(two_tasks(write_run))[0]))
    assert table.select("dataset", "method", "improvement").rows() == [
        ("a", "bc", None),
        ("a", "iq", 0.875),
        ("b", "bc", None),
        ("b", "iq", 0.5),
    ]


def test_action_difference_is_of_the_same_seed(write_run):
    """Each run is compared with cloning of its own seed; a run without such a pair does not count."""
    by_run = {("bc", 0): [0.0, 0.0], ("bc", 1): [1.0, 0.0], ("iq", 0): [0.2, 0.0], ("iq", 1): [0.0, 0.0]}
    by_run["iq", 2] = [-1.0, -1.0]
    folders = [
        write_run(f"{method}-{seed}", dataset="a", method=method, seed=seed, returns=[1.0], actions=actions)
        for (method, seed), actions in by_run.items()
    ]
    groups = grouped(load_runs(folders)[0])
    assert summary_table(groups).select("method", "action_difference").rows() == [("bc", None), ("iq", 15.0)]
    assert rows(folders)["iq"]["action_difference"] == 15.0  # in percent of a range of 2: 5 and 25


def test_scale_is_scores_or_percent_of_data(write_run):
    """Scores are the scale where all name one reference, and percent of the data otherwise."""
    scored = [write_run("a", returns=[5.0], score=50.0), write_run("b", seed=1, returns=[7.0], score=70.0)]
    assert scale_of(groups_of(scored)) == "d4rl"
    assert rows(scored)["iq"]["aggregate_mean"] == 60.0
    other = [write_run("c", dataset="x", returns=[5.0], reference=None, data_return=10.0)]
    mixed = rows(scored + other)["iq"]
    assert (mixed["scale"], mixed["runs"]) == ("% data", 3)
    # 5 and 7 of 1000, and 5 of 10: 0.5, 0.7 and 50 percent.
    assert mixed["aggregate_mean"] == pytest.approx((0.5 + 0.7 + 50) / 3)


def test_two_environments_are_never_compared(write_run):
    folders = [
        write_run("a", method="bc", returns=[1.0]),
        write_run("b", method="iq", returns=[3.0], env_id="Hopper-v5", reference=None),
    ]
    assert rows(folders)["iq"]["improvement"] is None


def test_variant_spans_tasks_with_their_own_demonstrations(write_run):
    """A variant is a method with its settings, over tasks that have their own number of demonstrations."""
    folders = [
        write_run("a", dataset="a", demos=5),
        write_run("b", dataset="b", demos=10),
        write_run("c", dataset="b", demos=10, algorithm="temperature = 1.0"),
    ]
    found = {variant.name: set(variant.groups) for variant in variants(groups_of(folders))}
    assert found == {
        "iq": {("a", 5, 1)},
        "iq, temperature=3.0": {("b", 10, 1)},
        "iq, temperature=1.0": {("b", 10, 1)},
    }


def test_uneven_tasks_runs_and_seeds_are_cautioned(write_run):
    even = two_tasks(write_run)
    assert list(comparison_cautions(groups_of(even))) == []
    text = "\n".join(comparison_cautions(groups_of([*even[:2], *even[3:]])))
    assert "iq: 1 to 2 runs a task" in text
    assert "a: the methods were not trained with the same seeds" in text
    assert "iq: its row covers 1 of 2 tasks" in "\n".join(comparison_cautions(groups_of(even[:6])))


def test_runs_without_evaluation_have_no_row(write_run):
    assert rows([write_run("a"), write_run("b", method="bc", returns=[1.0])]).keys() == {"bc"}
    assert aggregate_table(groups_of([write_run("c")])).is_empty()


def test_only_percent_needs_positive_data_return(write_run):
    """Percent of the data needs a positive mean return of the data; improvement does not."""
    found = rows(two_tasks(write_run, data_return=-5.0))
    assert (found["iq"]["aggregate_iqm"], found["iq"]["runs"], found["iq"]["tasks"]) == (None, 0, 0)
    assert found["iq"]["improvement"] == pytest.approx(0.6875)
