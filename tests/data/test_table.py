"""The packed table, the split and the sampler: each step with its own successor, chosen by the seed alone."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from iq_offline import paths
from iq_offline.data.catalogue import CatalogueEntry, Kind, Located, Reference
from iq_offline.data.split import choose_expert
from iq_offline.data.summary import summarise
from iq_offline.data.table import TransitionTable, open_table
from iq_offline.errors import ConfigError, InvalidEpisode
from iq_offline.training import batches
from iq_offline.training.batches import DRAWN_AHEAD, TransitionSampler


def opened(path: Path) -> TransitionTable:
    return open_table(Located(name=path.stem, path=path))


@pytest.fixture
def table(numbered, write_d4rl) -> TransitionTable:
    return opened(write_d4rl(numbered([3, 5, 4], terminated=[True, False, True])))


def test_each_rows_successor_is_the_next_row(table: TransitionTable):
    """The successor of every row is the next row."""
    rows = table.transition_rows
    assert len(rows) == table.steps == 12
    np.testing.assert_array_equal(table.observations(rows + 1)[:, 0], table.observations(rows)[:, 0] + 1)
    np.testing.assert_allclose(table.actions(rows)[:, 0], table.observations(rows)[:, 0] / 1000)


def test_only_terminations_are_terminations(table: TransitionTable):
    ends = table.observations(table.transition_rows)[:, 0][table.terminations(table.transition_rows) == 1]
    assert ends.tolist() == [2.0, 203.0]


def test_a_broken_table_is_made_again(numbered, write_d4rl):
    """A table is made once and a broken one is made again."""
    path = write_d4rl(numbered([3], terminated=[True]))
    whole = np.array(opened(path).rows)
    (file,) = (paths.home() / "tables").glob("*/rows.f32")
    made = file.stat().st_mtime_ns
    opened(path)
    assert file.stat().st_mtime_ns == made
    file.write_bytes(b"cut")
    np.testing.assert_array_equal(opened(path).rows, whole)


def test_changed_data_get_a_new_table(numbered, write_d4rl):
    """Changed data are never served from an old table."""
    assert opened(write_d4rl(numbered([3], terminated=[True]))).steps == 3
    assert opened(write_d4rl(numbered([4], terminated=[True]))).steps == 4


def test_every_kth_step_keeps_its_successor(table: TransitionTable):
    """A demonstration keeps every kth step with its true successor."""
    split = choose_expert(table, demos=None, subsample=2, seed=0, need_successors=True)
    assert table.observations(split.rows)[:, 0].tolist() == [0, 2, 100, 102, 104, 200, 202]
    sampler = TransitionSampler(table, split.rows, torch.device("cpu"))
    batch = sampler.gather(torch.arange(len(split.rows)))
    assert batch.next_observations[:, 0].tolist() == [1, 3, 101, 103, 105, 201, 203]
    assert batch.terminations.tolist() == [0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("gathered_bytes", [1, 1000, batches.GATHERED_BYTES])
def test_batches_gathered_together_match_the_draws(
    table: TransitionTable, gathered_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    """Small batches that are gathered together are those of the draws."""
    monkeypatch.setattr(batches, "GATHERED_BYTES", gathered_bytes)
    sampler = TransitionSampler(table, table.transition_rows, torch.device("cpu"))
    drawn = torch.randint(12, (DRAWN_AHEAD * 5,), generator=torch.Generator().manual_seed(3))
    given = islice(sampler.batches(5, torch.Generator().manual_seed(3)), DRAWN_AHEAD)
    for batch, positions in zip(given, drawn.view(DRAWN_AHEAD, 5), strict=True):
        alone = sampler.gather(positions)
        for name in ("observations", "actions", "next_observations", "terminations"):
            assert torch.equal(getattr(batch, name), getattr(alone, name)), name


def test_the_seed_alone_chooses_the_demonstrations(table: TransitionTable):
    chosen = [choose_expert(table, demos=1, subsample=1, seed=s, need_successors=True).episodes for s in range(20)]
    again = [choose_expert(table, demos=1, subsample=1, seed=s, need_successors=True).episodes for s in range(20)]
    assert chosen == again
    assert set(chosen) == {(0,), (1,), (2,)}


def test_more_demonstrations_than_there_are_is_refused(table: TransitionTable):
    with pytest.raises(ConfigError, match=r"--demos 4: demo has 3 episodes"):
        choose_expert(table, demos=4, subsample=1, seed=0, need_successors=True)


def test_unknown_successors_are_dropped_only_where_needed(numbered, write_d4rl):
    """A step whose successor is unknown is left out only where it is needed."""
    arrays = numbered([3, 2], terminated=[True, False])
    del arrays["next_observations"]
    table = opened(write_d4rl(arrays))
    with_successors = choose_expert(table, demos=None, subsample=1, seed=0, need_successors=True)
    assert table.observations(with_successors.rows)[:, 0].tolist() == [0, 1, 2, 100]
    assert with_successors.dropped_unknown_successors == 1
    assert len(choose_expert(table, demos=None, subsample=1, seed=0, need_successors=False).rows) == 5


def test_the_summary_counts_what_was_repaired(numbered, write_d4rl):
    arrays = numbered([3, 4, 2], terminated=[True, False, False])
    arrays["timeouts"][:] = False
    summary = summarise(opened(write_d4rl(arrays)))
    assert (summary["episodes"], summary["steps"]) == (3, 9)
    assert (summary["terminations"], summary["truncations"]) == (1, 2)
    assert summary["return"] == {"mean": 17 / 3, "std": pytest.approx(2.0548, abs=1e-4), "min": 3.0, "max": 8.0}
    counts = {defect["kind"]: defect["count"] for defect in summary["defects"]}
    assert counts == {"unflagged_tail": 1, "discontinuity": 1}
    json.dumps(summary, allow_nan=False)


def test_discrete_actions_outside_the_environments_are_refused(numbered, write_d4rl):
    arrays = numbered([3], terminated=[True], observation_size=4) | {"actions": np.array([0, 1, 5])}
    with pytest.raises(InvalidEpisode, match=r"reach from 0 to 5, outside 0\.\.1"):
        opened(write_d4rl(arrays, env_id="CartPole-v1"))


def test_action_bounds_come_from_the_environment(numbered, write_d4rl):
    """Action bounds come from the environment where it is installed."""
    arrays = numbered([3], terminated=[True])
    arrays["actions"] = arrays["actions"][:, :1]
    space = opened(write_d4rl(arrays, env_id="Pendulum-v1")).action_space
    assert space.to_json() == {"type": "continuous", "low": [-2.0], "high": [2.0], "source": "environment"}


def test_the_catalogue_completes_an_older_table(numbered, write_d4rl):
    """What the catalogue knows completes a table that was made without it."""
    path = write_d4rl(numbered([3], terminated=[True]))
    assert opened(path).info.env_id is None
    reference = Reference(name="known", random=0.0, expert=9.0)
    entry = CatalogueEntry(
        id="x",
        family="x",
        kind=Kind.FILE,
        env_id="Ant-v4",
        env_kwargs={"use_contact_forces": True},
        reference=reference,
    )
    info = open_table(Located(name="x", path=path, entry=entry)).info
    assert (info.env_id, info.env_kwargs) == ("Ant-v4", {"use_contact_forces": True})
    assert info.reference == ("known", 0.0, 9.0)
