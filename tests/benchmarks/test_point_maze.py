"""The point maze is what its page says: the barrier blocks, the expert walks round it, maps are of free places."""

import argparse
from types import ModuleType

import numpy as np
import pytest

from benchmarks import point_maze

TINY = ("--seeds", "0", "--episodes", "2", "--updates", "5", "--set", "prior.updates=20", "--set", "hidden_sizes=[8]")


@pytest.fixture
def maze(monkeypatch: pytest.MonkeyPatch):
    """`point_maze`, on a coarse grid."""
    monkeypatch.setattr(point_maze, "SPACING", 0.1)
    monkeypatch.setattr(point_maze, "VALUE_STEPS", 30)
    return point_maze


def pushed(maze: ModuleType, start: tuple[float, float], push: tuple[float, float]) -> np.ndarray:
    environment = maze.PointMaze()
    environment.put(np.array(start))
    for _ in range(maze.STEPS):
        observation, _, terminated, truncated, _ = environment.step(np.array(push))
    assert truncated
    assert not terminated
    place: np.ndarray = observation[:2]
    return place


def test_barrier_and_walls_block(maze):
    """The barrier and the walls block; the way beside the barrier is open."""
    np.testing.assert_allclose(pushed(maze, (0.4, 0.2), (0, 1)), [0.4, 0.27], atol=1e-3)
    np.testing.assert_allclose(pushed(maze, (0.4, 0.4), (0, -1)), [0.4, 0.33], atol=1e-3)
    np.testing.assert_allclose(pushed(maze, (0.1, 0.2), (0, 1)), [0.1, 0.6], atol=1e-3)
    np.testing.assert_allclose(pushed(maze, (0.4, 0.2), (1, -1)), [0.6, -0.1], atol=1e-3)


def test_reward_is_minus_distance_and_force(maze):
    """The reward is minus the distance, less the cost of the force."""
    environment = maze.PointMaze()
    environment.put(np.array([0.4, 0.4]))
    _, reward, *_ = environment.step(np.zeros(2))
    assert reward == pytest.approx(-0.1)
    environment.put(np.array([0.4, 0.4]))
    following, reward, *_ = environment.step(np.array([3.0, 0.0]))
    assert reward == pytest.approx(-np.hypot(following[0] - 0.4, 0.1) - 0.001)


def test_expert_goes_round_the_barrier(maze):
    """The expert reaches the target without crossing the barrier."""
    for episode in maze.demonstrations(10, seed=0):
        places = episode.observations[:, :2]
        assert len(episode) == maze.STEPS
        assert maze.distance(places[0]) > 0.2
        assert maze.distance(places[-1]) < 0.01
        crossing = np.flatnonzero((places[:-1, 1] < 0.3) & (places[1:, 1] >= 0.3))
        assert len(crossing) == 1
        assert places[crossing[0], 0] < maze.BARRIER_LEFT
    assert maze.way(np.array([0.4, 0.2])) > maze.distance(np.array([0.4, 0.2])) + 0.1
    assert maze.way(np.array([0.1, 0.6])) == maze.distance(np.array([0.1, 0.6]))


def test_roaming_starts_anywhere_and_holds_its_pushes(maze):
    episodes = maze.roaming(4, seed=0)
    assert len({tuple(episode.observations[0, :2]) for episode in episodes}) > 1
    assert (episodes[0].actions[: maze.HELD] == episodes[0].actions[0]).all()
    assert (episodes[0].actions[maze.HELD] != episodes[0].actions[0]).any()


def test_demonstrations_go_through_a_d4rl_file(maze, tmp_path):
    episodes = maze.demonstrations(2, seed=0)
    table = maze.open_dataset(maze.written(episodes, tmp_path / "maze.hdf5"))
    assert table.episodes["steps"].to_list() == [maze.STEPS] * 2
    assert not table.episodes["terminated"].any()
    assert table.action_space.low == (-1.0, -1.0)
    np.testing.assert_array_equal(table.actions(table.transition_rows)[: maze.STEPS], episodes[0].actions)


def test_reward_is_advantage_plus_value(maze, tmp_path):
    """Reward, advantage and value are parts of one equation."""
    file = maze.written(maze.demonstrations(1, seed=0), tmp_path / "maze.hdf5")
    changes = ["prior.updates=20", "hidden_sizes=[8]"]
    options = argparse.Namespace(method="iq", updates=5, set=changes)
    learner = maze.learn(file, None, 0, options)
    here, actions = np.random.default_rng(0).normal(size=(2, 50, 4)) / 10
    resting = here, actions[:, :2], here
    reward, advantage, value = maze.recovered(learner, resting, 0)
    assert np.ptp(value) > 0
    np.testing.assert_allclose(advantage + value, reward + learner.config.gamma * value, atol=0.05 * np.ptp(value))
    with pytest.raises(AssertionError, match="fixed rewards"):
        maze.learn(file, None, 0, argparse.Namespace(method="ls-iq", updates=5, set=[]))


@pytest.mark.parametrize(
    "extra",
    [(), pytest.param(("--roaming", "2", "--set", "value_term=mixture"), marks=pytest.mark.slow)],
    ids=["expert", "roaming"],
)
def test_few_updates_give_maps_table_and_picture(maze, tmp_path, capsys, extra):
    (found,) = maze.main([*TINY, *extra, "--picture", str(tmp_path / "maze.png")])
    maps = found.maps
    assert len(maps.places) == 8 * 8 - 5
    blocked = (maps.places[:, 0] > 0.19) & (np.abs(maps.places[:, 1] - 0.3) < 0.02)
    assert not blocked.any()
    for name in ("recovered_reward", "recovered_value", "true_reward", "true_value", "visits", "straight", "round_it"):
        numbers = getattr(maps, name)
        assert numbers.shape == (len(maps.places),), name
        assert np.isfinite(numbers).all(), name
    assert 0 < maps.near.mean() < 1
    assert (maps.true_reward < 0).all()
    assert (maps.true_value < 0).all()
    np.testing.assert_allclose(maps.true_reward, -maps.straight, atol=0.02)
    assert (maps.round_it >= maps.straight - 1e-9).all()
    assert -60 < found.learnt_return < 0
    assert list(found.along) == ["true", "reward", maze.CANONICAL, "visits", "step number"]
    assert {len(numbers) for numbers in found.along.values()} == {20 * maze.STEPS}
    assert (tmp_path / "maze.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("| reward |")]
    assert [line for line in printed if line.startswith("return: expert")]
