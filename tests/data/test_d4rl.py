"""D4RL's layout: what the flat arrays really say of the episodes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.formats import d4rl
from iq_offline.errors import DatasetUnreadable, InvalidEpisode


def read(path: Path) -> list[Episode]:
    return list(d4rl.read(path, "demo"))


def test_episodes_keep_their_final_observation(numbered, write_d4rl):
    first, second = read(write_d4rl(numbered([3, 2], terminated=[True, False])))
    np.testing.assert_array_equal(first.observations[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(second.observations[:, 0], [100, 101, 102])
    np.testing.assert_allclose(second.actions[:, 0], [0.100, 0.101])


def test_terminals_are_terminations_and_timeouts_truncations(numbered, write_d4rl):
    """A terminal is a termination and a timeout a truncation."""
    first, second = read(write_d4rl(numbered([3, 2], terminated=[True, False])))
    assert (first.terminated, first.truncated) == (True, False)
    assert (second.terminated, second.truncated) == (False, True)


def test_both_flags_at_once_are_both_kept(numbered, write_d4rl):
    arrays = numbered([3], terminated=[True])
    arrays["timeouts"][-1] = True
    (episode,) = read(write_d4rl(arrays))
    assert episode.terminated
    assert episode.truncated


def test_an_unflagged_tail_is_kept_as_truncated(numbered, write_d4rl):
    """A tail without flags is kept as truncated and marked."""
    arrays = numbered([3, 4], terminated=[True, False])
    arrays["timeouts"][:] = False
    first, tail = read(write_d4rl(arrays))
    assert len(tail) == 4
    assert (tail.terminated, tail.truncated, tail.unflagged) == (False, True, True)
    assert not first.unflagged


def test_an_unmarked_cut_is_found_by_its_discontinuity(numbered, write_d4rl):
    arrays = numbered([3, 4], terminated=[False, False])
    arrays["timeouts"][2] = False
    first, second = read(write_d4rl(arrays))
    assert (len(first), len(second)) == (3, 4)
    assert (first.truncated, first.discontinuous, first.unflagged) == (True, True, False)
    assert first.observations[-1, 0] == 3


def test_without_timeouts_the_cuts_are_still_found(numbered, write_d4rl):
    arrays = numbered([3, 4, 2], terminated=[False, True, False])
    del arrays["timeouts"]
    assert [len(episode) for episode in read(write_d4rl(arrays))] == [3, 4, 2]


def test_without_next_observations_no_successor_is_invented_unmarked(numbered, write_d4rl):
    arrays = numbered([3, 2], terminated=[True, False])
    del arrays["next_observations"]
    episodes = read(write_d4rl(arrays))
    assert [len(episode) for episode in episodes] == [3, 2]
    assert not any(episode.successor_known for episode in episodes)
    np.testing.assert_array_equal(episodes[1].observations[:, 0], [100, 101, 101])


def test_columns_of_shape_n_by_one_are_vectors(numbered, write_d4rl):
    """Columns of shape n by one are read as vectors."""
    arrays = numbered([3], terminated=[True])
    for key in ("rewards", "terminals", "timeouts"):
        arrays[key] = arrays[key][:, None]
    (episode,) = read(write_d4rl(arrays))
    assert episode.rewards.shape == (3,)


def test_integer_actions_stay_integers(numbered, write_d4rl):
    arrays = numbered([3], terminated=[True]) | {"actions": np.array([[0], [1], [1]])}
    (episode,) = read(write_d4rl(arrays))
    np.testing.assert_array_equal(episode.actions, [0, 1, 1])


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals"])
def test_a_missing_key_is_named(numbered, write_d4rl, key: str):
    arrays = numbered([3], terminated=[True])
    del arrays[key]
    with pytest.raises(DatasetUnreadable, match=f"the key '{key}' is missing"):
        read(write_d4rl(arrays))


def test_unequal_lengths_are_refused_with_both_numbers(numbered, write_d4rl):
    arrays = numbered([3], terminated=[True])
    arrays["actions"] = arrays["actions"][:-1]
    with pytest.raises(InvalidEpisode, match=r"unequal lengths .*observations 3.*actions 2"):
        read(write_d4rl(arrays))


def test_not_a_number_is_refused_with_its_episode(numbered, write_d4rl):
    arrays = numbered([3, 2], terminated=[True, True])
    arrays["observations"][4, 1] = np.nan
    with pytest.raises(InvalidEpisode, match="episode 1 has a value that is not finite in observations at its step 1"):
        read(write_d4rl(arrays))


def test_links_out_of_the_file_are_not_followed(numbered, write_d4rl):
    """A link out of the file is not followed."""
    import h5py

    other = write_d4rl(numbered([3], terminated=[True]), name="other.hdf5")
    arrays = numbered([3], terminated=[True])
    del arrays["actions"]
    path = write_d4rl(arrays)
    with h5py.File(path, "a") as file:
        file["actions"] = h5py.ExternalLink(str(other), "/actions")
    with pytest.raises(DatasetUnreadable, match="'actions' is a link"):
        read(path)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    flags=st.lists(st.booleans(), min_size=6, max_size=6),
    drop_timeouts=st.booleans(),
    drop_tail_flag=st.booleans(),
)
def test_every_step_and_its_successor_stay_together(tmp_path_factory, lengths, flags, drop_timeouts, drop_tail_flag):
    from tests_support import numbered_arrays, write_hdf5

    arrays = numbered_arrays(lengths, terminated=flags[: len(lengths)])
    if drop_tail_flag:
        arrays["timeouts"][-1] = arrays["terminals"][-1] = False
    if drop_timeouts:
        del arrays["timeouts"]
    episodes = read(write_hdf5(tmp_path_factory.mktemp("d4rl") / "demo.hdf5", arrays))
    assert [len(episode) for episode in episodes] == lengths
    for number, episode in enumerate(episodes):
        expected = 100.0 * number + np.arange(len(episode) + 1)
        np.testing.assert_array_equal(episode.observations[:, 0], expected)
        np.testing.assert_allclose(episode.actions[:, 0], expected[:-1] / 1000, rtol=1e-6)
        assert (episode.rewards == number + 1).all()


def test_the_environments_step_limit_ends_unmarked_episodes(numbered, write_d4rl):
    """Without timeouts and successors the environment's step limit ends episodes and that is said."""
    arrays = numbered([200, 200, 30], terminated=[False, False, True])
    del arrays["timeouts"], arrays["next_observations"]
    arrays["actions"] = arrays["actions"][:, :1]
    source = d4rl.read(write_d4rl(arrays, env_id="Pendulum-v1"), "x")
    assert [len(episode) for episode in source] == [200, 200, 30]
    assert [episode.terminated for episode in source] == [False, False, True]
    assert source.info.notes == ("no timeouts: episodes end at the terminals and the step limit of 200",)


def test_the_first_layout_of_d3rlpy_is_read(numbered, write_d4rl):
    arrays = numbered([3, 4, 2], terminated=[True, False, False])
    arrays["episode_terminals"] = arrays.pop("timeouts") | arrays["terminals"]
    del arrays["next_observations"]
    episodes = list(d4rl.read(write_d4rl(arrays), "x"))
    assert [len(episode) for episode in episodes] == [3, 4, 2]
    assert [(episode.terminated, episode.truncated) for episode in episodes] == [
        (True, False),
        (False, True),
        (False, True),
    ]


@pytest.mark.parametrize("key", ["terminals", "timeouts"])
@pytest.mark.parametrize("odd", [np.nan, 2])
def test_flags_other_than_0_and_1_are_refused(numbered, write_d4rl, key: str, odd: float):
    """Flags other than 0 and 1 are refused with their step."""
    arrays = numbered([3, 4], terminated=[True, False])
    arrays[key] = arrays[key].astype(np.float32)
    arrays[key][4] = odd
    with pytest.raises(DatasetUnreadable, match=f"{key} holds other values than 0 and 1: {odd}.* at step 4"):
        read(write_d4rl(arrays))


def test_episodes_of_other_widths_are_refused(tmp_path: Path):
    """Columns of one file have one width: an episode with other actions is named, not half-written."""

    def episode(width: int) -> Episode:
        observations, rewards = np.zeros((4, 2), np.float32), np.zeros(3)
        return Episode(0, observations, np.zeros((3, width), np.float32), rewards, terminated=True, truncated=False)

    source = EpisodeSource(DatasetInfo("demo", "demo", "test", origin_sha256="ab"), episodes=[episode(1), episode(2)])
    with pytest.raises(InvalidEpisode, match=r"actions of shape \(2,\) a step, those before it of shape \(1,\)"):
        d4rl.write(source, tmp_path / "out.hdf5")
