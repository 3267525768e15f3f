"""The replay keeps whole episodes, whatever cuts the writing process off, and forgets the oldest in batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from iq_offline.data.reading import Format
from iq_offline.data.table import TransitionTable
from iq_offline.errors import RunError
from iq_offline.interaction.replay import EPISODES, LISTED, Experience, Replay
from iq_offline.stages.convert import write_episodes
from iq_offline.stages.fetch import open_dataset

CPU = torch.device("cpu")


@pytest.fixture
def like() -> TransitionTable:
    return open_dataset("demo/cartpole/expert-v0")


def episode(number: int, steps: int, *, terminated: bool = True) -> Experience:
    """Observations (number, step, 0, 0), action step % 2, reward step."""
    rows = np.zeros((steps + 1, 7), np.float32)
    rows[:, 0], rows[:, 1] = number, np.arange(steps + 1)
    rows[:-1, 4], rows[:-1, 5] = np.arange(steps) % 2, np.arange(steps)
    rows[steps - 1, 6] = terminated
    return Experience(rows, {}, terminated, seed=number)


def replay_of(folder: Path, like: TransitionTable, recent: int = 100) -> Replay:
    return Replay(folder, like, 200, recent, CPU)


def test_batches_hold_each_transition_with_its_successor(tmp_path: Path, like: TransitionTable):
    """Every drawn transition is one that was appended: its successor is the next step of its episode, and a final
    observation is a successor alone. A truncation is no termination."""
    replay = replay_of(tmp_path / "replay", like)
    for number, (steps, terminated) in enumerate([(3, True), (2, False)]):
        replay.append(episode(number, steps, terminated=terminated))
    batch = next(replay.sampler.batches(500, torch.Generator().manual_seed(0)))
    drawn = {tuple(map(float, row)) for row in torch.cat([batch.observations[:, :2], batch.terminations[:, None]], 1)}
    assert drawn == {(0, 0, 0), (0, 1, 0), (0, 2, 1), (1, 0, 0), (1, 1, 0)}
    assert torch.equal(batch.next_observations[:, 0], batch.observations[:, 0])
    assert torch.equal(batch.next_observations[:, 1], batch.observations[:, 1] + 1)
    assert torch.equal(batch.actions, batch.observations[:, 1].long() % 2)


def test_oldest_episodes_are_drawn_no_longer(tmp_path: Path, like: TransitionTable):
    """Batches come from the most recent transitions, in whole episodes; the files keep all."""
    replay = replay_of(tmp_path / "replay", like, recent=7)
    for number in range(4):
        replay.append(episode(number, 3))
    batch = next(replay.sampler.batches(200, torch.Generator().manual_seed(0)))
    assert set(batch.observations[:, 0].tolist()) == {2.0, 3.0}
    assert replay.steps == 12


def test_episode_longer_than_bound_is_drawn_whole(tmp_path: Path, like: TransitionTable):
    replay = replay_of(tmp_path / "replay", like, recent=2)
    replay.append(episode(0, 3))
    replay.append(episode(1, 5))
    assert len(replay.sampler) == 5


@pytest.mark.parametrize("torn", [0, 1, LISTED.itemsize - 1], ids=["rows alone", "a byte", "all but a byte"])
def test_torn_append_leaves_earlier_episodes_whole(torn: int, tmp_path: Path, like: TransitionTable):
    """A process that is killed while it appends loses that episode and no other, and the next takes its place."""
    replay = replay_of(tmp_path / "replay", like)
    for number in range(3):
        replay.append(episode(number, 3))
    file = tmp_path / "replay" / EPISODES
    file.write_bytes(file.read_bytes()[: 2 * LISTED.itemsize + torn])
    again = replay_of(tmp_path / "replay", like)
    again.recall(len(again.found()))
    assert len(again.episodes) == 2
    again.append(episode(9, 4))
    assert [again.episode(n).observations[0, 0] for n in range(3)] == [0, 1, 9]
    assert len(file.read_bytes()) == 3 * LISTED.itemsize


@pytest.mark.parametrize("damage", ["fewer episodes", "another byte", "start beyond the file"])
def test_damaged_replay_is_refused(damage: str, tmp_path: Path, like: TransitionTable):
    """A replay that does not hold the episodes as they were written stops the run that would go on with it."""
    replay = replay_of(tmp_path / "replay", like)
    replay.append(episode(0, 3))
    replay.append(episode(1, 3))
    replay.secure()
    file = tmp_path / "replay" / EPISODES
    if damage == "fewer episodes":
        file.write_bytes(file.read_bytes()[: LISTED.itemsize])
    elif damage == "another byte":
        with (tmp_path / "replay" / "rows.f32").open("r+b") as rows:
            rows.seek(5)
            rows.write(b"\x07")
    else:
        listed = np.frombuffer(file.read_bytes(), LISTED).copy()
        listed["start"][1] = 10**9
        file.write_bytes(listed.tobytes())
    again = replay_of(tmp_path / "replay", like)
    with pytest.raises(RunError, match="does not hold what the run had experienced"):
        again.recall(2)


@pytest.mark.parametrize("kind", [Format.D4RL, Format.MINARI])
def test_replay_is_a_dataset(kind: Format, tmp_path: Path, like: TransitionTable):
    """Written as a dataset it reads back with every step, reward, end and seed as they were."""
    replay = replay_of(tmp_path / "replay", like)
    for number, (steps, terminated) in enumerate([(3, True), (2, False)]):
        replay.append(episode(number, steps, terminated=terminated))
    destination = tmp_path / ("all.hdf5" if kind is Format.D4RL else "all-v0")
    write_episodes(replay.source("a test's"), destination, kind, {"experienced_by": "a test"})
    table = open_dataset(str(destination))
    assert table.info.env_id == "CartPole-v1"
    assert table.episodes["steps"].to_list() == [3, 2]
    assert table.episodes["terminated"].to_list() == [True, False]
    assert table.episodes["truncated"].to_list() == [False, True]
    assert table.rewards(table.transition_rows).tolist() == [0, 1, 2, 0, 1]
    assert table.observations(table.transition_rows)[:, :2].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]
    assert table.info.origin != like.info.origin
