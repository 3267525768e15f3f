"""Splits: by the seed alone or by return, every k-th step with its true successor, some episodes set aside."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_support import requested

from iq_offline.config.train import Selection, SubsampleFrom
from iq_offline.data.catalogue import Located
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.split import check_supplementary, choose_expert, rows_with_successors
from iq_offline.data.table import Leaf, TransitionTable, open_table, rows_of_episodes
from iq_offline.errors import ConfigError


@pytest.fixture
def table(numbered, write_d4rl) -> TransitionTable:
    """Ten episodes; the reward of each step is the episode's number plus one."""
    return open_table(Located("demo", write_d4rl(numbered([4] * 10, terminated=[True, False] * 5))))


def chosen(table: TransitionTable, **options: object):
    return choose_expert(table, **({"demos": None, "subsample": 1, "seed": 0, "need_successors": True} | options))


def test_top_selection_reads_rewards_and_records_it(table):
    """The best episodes are those of the highest return and the record says that rewards were read."""
    split = chosen(table, demos=3, select=Selection.TOP)
    assert split.episodes == (7, 8, 9)
    assert split.to_json(table)["rewards_read"] is True
    assert chosen(table, demos=3).to_json(table)["rewards_read"] is False


def test_the_best_do_not_depend_on_the_seed(table):
    assert {chosen(table, demos=2, select=Selection.TOP, seed=seed).episodes for seed in range(5)} == {(8, 9)}


def test_what_is_held_out_is_learnt_from_nowhere(table):
    split = chosen(table, demos=5, held_out=0.4)
    assert len(split.held_out_episodes) == 2
    assert len(split.episodes) == 3
    assert not set(split.episodes) & set(split.held_out_episodes)
    assert set(split.episodes) | set(split.held_out_episodes) == set(chosen(table, demos=5).episodes)
    assert not set(split.rows) & set(split.held_out_rows)
    assert len(split.held_out_rows) == 8


def test_one_episode_is_held_out_never_all(table):
    """At least one episode is held out and never all."""
    assert len(chosen(table, demos=2, held_out=0.01).held_out_episodes) == 1
    with pytest.raises(ConfigError, match="hold out fewer"):
        chosen(table, demos=1, held_out=0.5)


@given(seed=st.integers(0, 50), demos=st.integers(1, 10), subsample=st.integers(1, 6))
def test_rows_are_every_kth_of_each_chosen_episode(seed: int, demos: int, subsample: int, table: TransitionTable):
    split = chosen(table, demos=demos, subsample=subsample, seed=seed)
    expected = [5 * episode + step for episode in split.episodes for step in range(0, 4, subsample)]
    assert split.rows.tolist() == expected
    successors = table.observations(split.rows + 1)[:, 0] - table.observations(split.rows)[:, 0]
    np.testing.assert_array_equal(successors, 1)


@given(seed=st.integers(0, 50), subsample=st.integers(1, 6))
def test_a_random_start_precedes_every_kth_step(seed: int, subsample: int, table: TransitionTable):
    """A random start is one of the first k steps and every kth follows."""
    rows = chosen(table, subsample=subsample, subsample_from=SubsampleFrom.RANDOM, seed=seed).rows
    assert set(rows // 5) == set(range(10)), "an episode of 4 steps keeps at least one whatever the k"
    for episode in range(10):
        kept = rows[rows // 5 == episode] - 5 * episode
        assert kept[0] < subsample
        assert kept.tolist() == list(range(kept[0], 4, subsample))


def test_a_random_start_depends_only_on_the_seed(table):
    """A random start is drawn for each episode alone and by the seed."""

    def kept(**options: object) -> dict[int, list[int]]:
        split = chosen(table, subsample=4, subsample_from=SubsampleFrom.RANDOM, **options)
        return {episode: [int(row) for row in split.rows if row // 5 == episode] for episode in split.episodes}

    everything, few = kept(), kept(demos=4)
    assert len({rows[0] % 5 for rows in everything.values()}) > 2
    assert few == {episode: everything[episode] for episode in few}
    assert kept() == everything
    assert kept(seed=1) != everything
    recorded = chosen(table, subsample=4, subsample_from=SubsampleFrom.RANDOM).to_json(table)
    assert recorded["subsample_from"] == "random"
    assert chosen(table, subsample=4).to_json(table)["subsample_from"] == "first"


def test_supplementary_steps_have_known_successors(numbered, write_d4rl):
    """Supplementary data keep only steps whose successor is known."""
    arrays = numbered([3, 2], terminated=[True, False])
    del arrays["next_observations"]
    other = open_table(Located("other", write_d4rl(arrays, name="other.hdf5")))
    assert len(rows_with_successors(other)) == 4


def test_supplementary_data_are_recorded_with_the_split(table, numbered, write_d4rl):
    other = open_table(Located("other", write_d4rl(numbered([3], terminated=[True]), name="other.hdf5")))
    (recorded,) = chosen(table).to_json(table, (other,))["supplementary"]
    hashes = {"sha256": other.info.sha256, "origin_sha256": None}
    assert recorded == {"dataset": "other", **hashes, "episodes": 1, "transitions": 3}


def test_mismatched_or_repeated_supplementary_data_are_refused(table, numbered, write_d4rl):
    """Supplementary data of another shape or the same data are refused."""
    wide = numbered([3], terminated=[True], observation_size=5)
    other = open_table(Located("wide", write_d4rl(wide, name="wide.hdf5")))
    with pytest.raises(ConfigError, match=r"--supplementary wide: 5 observations.*demo has 3"):
        check_supplementary(table, (other,))
    with pytest.raises(ConfigError, match="named twice"):
        check_supplementary(table, (table,))


def test_unusable_supplementary_data_are_refused(table, numbered, write_d4rl):
    """Supplementary data with more actions other pictures or no transition are refused."""
    arrays = numbered([1], terminated=[False])
    del arrays["next_observations"]
    empty = open_table(Located("empty", write_d4rl(arrays, name="empty.hdf5")))
    with pytest.raises(ConfigError, match="--supplementary empty leaves no transitions"):
        check_supplementary(table, (empty,))
    other = open_table(Located("other", write_d4rl(numbered([3], terminated=[True]), name="other.hdf5")))
    two, five = DiscreteActions(2), DiscreteActions(5)
    check_supplementary(replace(table, action_space=five), (replace(other, action_space=two),))
    with pytest.raises(ConfigError, match="other: 5 discrete actions; demo has 2"):
        check_supplementary(replace(table, action_space=two), (replace(other, action_space=five),))
    small, large = ((Leaf("image", (side, side, 3), "uint8", None, None, "image.npy"),) for side in (8, 12))
    with pytest.raises(ConfigError, match=r"other: pictures \[\(12, 12, 3\)\]; demo has \[\(8, 8, 3\)\]"):
        check_supplementary(replace(table, layout=small), (replace(other, layout=large),))


def test_rows_of_episodes_match_a_plain_loop(table):
    """Rows of episodes are those of the slow way."""
    for subsample in (1, 2, 3, 7):
        spans = zip(table.episodes["start_row"], table.episodes["steps"], strict=True)
        slow = np.concatenate([np.arange(start, start + steps, subsample) for start, steps in spans])
        np.testing.assert_array_equal(rows_of_episodes(table.episodes, subsample), slow)


def test_a_run_records_its_split(linear_task: Path, tmp_path: Path, write_d4rl, numbered, monkeypatch):
    from iq_offline.stages import train
    from iq_offline.stages.train import train_run
    from iq_offline.tracking.mirror import Tracker

    monkeypatch.setattr(train, "start_tracking", lambda *_: Tracker())
    arrays = numbered([30], terminated=[True])
    arrays["actions"] = arrays["actions"][:, :1]
    extra = write_d4rl(arrays, name="extra.hdf5")
    warnings: list[str] = []
    request = requested(
        dataset=str(linear_task),
        method="bc",
        demos=4,
        select="top",
        held_out=0.25,
        supplementary=(str(extra),),
        overrides=("updates=200", "hidden_sizes=[8]"),
        device="cpu",
        out=tmp_path / "run",
    )
    run = train_run(*request, lambda _: None, warnings.append)
    assert run.split["select"] == "top"
    assert len(run.split["expert_episodes"]) == 3
    assert len(run.split["held_out_episodes"]) == 1
    assert run.split["supplementary"][0]["transitions"] == 30
    assert "leaves supplementary data unread" in warnings[0]
    import polars as pl

    losses = pl.read_parquet(run.path / "metrics.parquet")["held_out_cloning_loss"]
    assert losses.is_finite().all()
    assert len(losses) == 2
