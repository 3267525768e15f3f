"""Conversions lose nothing, in either direction, and Minari's own reader agrees."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from iq_offline.data.episodes import Episode
from iq_offline.data.formats import d4rl, minari


def same(left: Episode, right: Episode, *, ignore: set[str]) -> None:
    for field in dataclasses.fields(Episode):
        if field.name not in ignore | {"source", "seed"}:
            np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name), err_msg=field.name)


@pytest.fixture
def original(numbered, write_d4rl) -> Path:
    arrays = numbered([3, 1, 4, 5], terminated=[True, False, True, False])
    arrays["timeouts"][-1] = False
    return write_d4rl(arrays, env_id="Hopper-v5", env_kwargs={"frame_skip": 4})


def test_d4rl_to_minari_and_back_is_identical(original: Path, tmp_path: Path):
    """D4rl to Minari and back is the same to the bit."""
    minari.write(d4rl.read(original, "demo"), tmp_path / "demo-v0")
    d4rl.write(minari.read(tmp_path / "demo-v0", "demo"), tmp_path / "back.hdf5")
    # The unmarked tail becomes a marked one: that it was unmarked is in the provenance of the conversion.
    for before, after in zip(d4rl.read(original, "a"), d4rl.read(tmp_path / "back.hdf5", "b"), strict=True):
        same(before, after, ignore={"unflagged"})
    assert minari.read(tmp_path / "demo-v0", "demo").info.env_kwargs == {"frame_skip": 4}


def test_an_unknown_successor_stays_marked_as_unknown(numbered, write_d4rl, tmp_path: Path):
    arrays = numbered([3, 2], terminated=[True, False])
    del arrays["next_observations"]
    minari.write(d4rl.read(write_d4rl(arrays), "demo"), tmp_path / "demo-v0")
    d4rl.write(minari.read(tmp_path / "demo-v0", "demo"), tmp_path / "back.hdf5")
    assert [episode.successor_known for episode in d4rl.read(tmp_path / "back.hdf5", "b")] == [False, False]


def test_minaris_own_reader_sees_the_same_episodes(original: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    minari.write(d4rl.read(original, "demo"), tmp_path / "store" / "hopper" / "demo-v0")
    import minari as official

    dataset = official.load_dataset("hopper/demo-v0")
    episodes = list(dataset.iterate_episodes())
    assert dataset.total_steps == 13
    assert dataset.recover_environment().unwrapped.frame_skip == 4
    for ours, theirs in zip(d4rl.read(original, "demo"), episodes, strict=True):
        np.testing.assert_array_equal(ours.observations, theirs.observations)
        np.testing.assert_array_equal(ours.actions, theirs.actions)
        np.testing.assert_array_equal(ours.rewards, theirs.rewards)
        assert ours.terminated == theirs.terminations[-1]
        assert ours.truncated == theirs.truncations[-1]


@pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")
def test_a_dataset_that_minari_wrote_is_read(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "store"))
    import gymnasium
    import minari as official
    from minari.data_collector.episode_buffer import EpisodeBuffer

    buffer = EpisodeBuffer(
        id=0,
        seed=3,
        observations=np.arange(24.0, dtype=np.float32).reshape(6, 4),
        actions=np.array([0, 1, 1, 0, 1]),
        rewards=np.ones(5),
        terminations=np.array([False] * 4 + [True]),
        truncations=np.zeros(5, dtype=bool),
        infos={},
    )
    environment = gymnasium.make("CartPole-v1")
    official.create_dataset_from_buffers("cart/test-v0", [buffer], env=environment)
    source = minari.read(tmp_path / "store" / "cart" / "test-v0", "cart/test-v0")
    (episode,) = source
    assert source.info.env_id == "CartPole-v1"
    assert source.info.action_space is not None
    assert source.info.action_space.to_json() == {"type": "discrete", "count": 2}
    np.testing.assert_array_equal(episode.observations, buffer.observations)
    assert (episode.terminated, episode.truncated, episode.seed) == (True, False, 3)


def test_the_action_space_covers_all_episodes(numbered, write_d4rl, tmp_path: Path):
    """The action space is that of all episodes not of the last."""
    import json

    arrays = numbered([3, 2], terminated=[True, False])
    discrete = write_d4rl(arrays | {"actions": np.array([0, 4, 1, 0, 1])}, name="discrete.hdf5")
    minari.write(d4rl.read(discrete, "demo"), tmp_path / "discrete-v0")
    metadata = json.loads((tmp_path / "discrete-v0" / "data" / "metadata.json").read_text())
    assert json.loads(metadata["action_space"])["n"] == 5
    wide = arrays["actions"].copy()
    wide[0] = [-7.0, 3.0]
    minari.write(d4rl.read(write_d4rl(arrays | {"actions": wide}), "demo"), tmp_path / "wide-v0")
    metadata = json.loads((tmp_path / "wide-v0" / "data" / "metadata.json").read_text())
    assert json.loads(metadata["action_space"])["low"] == [-7.0, 0.0010000000474974513]
