"""The constant of a linear reward: what is known of it is how seldom demonstrations end."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from tests_support import requested

from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.reward import RewardRequest, recover_reward
from iq_offline.stages.rewarder import survival_worth
from iq_offline.stages.train import train_run


@pytest.mark.parametrize(
    ("demonstrations", "others", "worth"),
    [
        ([(30, False), (30, False)], [(5, True), (4, True)], 1.0),  # they stay alive, others do not
        ([(30, True), (30, True)], [(5, True), (4, True)], 0.0),  # they end as well: a goal, or both fall
        ([(30, False), (30, False)], [(5, False), (4, False)], 0.0),  # nothing ever ends
        ([(30, False), (30, True)], [(2, True), (2, True)], 1.0),  # one end in 60 steps against one in two
        ([(30, False), (30, True)], [(8, True), (8, True)], 0.0),  # and against one in eight
        ([(5, True), (30, False)], [(9, False), (9, False)], 0.0),  # others that never end say nothing
    ],
)
def test_survival_counts_where_demonstrations_seldom_end(demonstrations, others, worth, write_d4rl, numbered):
    """Staying alive is worth something where demonstrations seldom end."""

    def table_of(name, episodes):
        lengths, ends = zip(*episodes, strict=True)
        return write_d4rl(numbered(list(lengths), terminated=list(ends)), name=name)

    # a third expert episode, which the run did not learn from, ends at once and is not asked
    expert = table_of("expert.hdf5", [*demonstrations, (1, True)])
    run = SimpleNamespace(config=SimpleNamespace(dataset=str(expert)), split={"expert_episodes": [0, 1]})
    assert survival_worth(run, [open_dataset(str(table_of("other.hdf5", others)))]) == worth


def test_survival_is_in_linear_form_and_null(tmp_path):
    """It is in every step of the linear form and of its null and in no other."""
    names = "demo/cartpole/expert-v0", "demo/cartpole/random-v0"
    few = ("prior.updates=60", "hidden_sizes=[16]", "prior.hidden_sizes=[16]")
    request = requested(dataset=names[0], demos=3, updates=30, overrides=few, out=tmp_path / "run", tracked=False)
    run = train_run(*request, lambda _: None, lambda _: None)

    def recovered(form, *datasets):
        report = recover_reward(run, RewardRequest(datasets, form), lambda *_: None, lambda _: None)
        return report, pl.read_parquet(run.path / "rewards.parquet")

    report, frame = recovered("linear", *names)
    assert report["linear"]["survival"] == 1.0
    assert frame["recovered"].min() >= 1
    assert frame["null_linear"].min() >= 1
    by_episode = frame.group_by("source", "episode").agg(pl.col("true", "recovered", "null_linear").sum())
    for name, found in (("recovered", report["episode"]), ("null_linear", report["null_linear"]["episode"])):
        expected = np.corrcoef(by_episode["true"], by_episode[name])[0, 1]
        assert found["pearson"] == pytest.approx(expected, abs=1e-6)
    alone, frame = recovered("linear", names[0])
    assert alone["linear"]["survival"] == 0.0
    assert frame["recovered"].max() <= 1
    assert recovered("normalised", *names)[1]["recovered"].max() <= 1
