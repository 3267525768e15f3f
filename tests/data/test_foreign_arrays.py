"""`imitation`'s .npz and d3rlpy's .h5, read and written; real files of other projects."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_files import LENGTHS, Arrays, check_aligned, flat, save, steps
from hypothesis import given
from hypothesis import strategies as st

from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.formats import d3rlpy, dictionaries, flat_npz, numpy_files
from iq_offline.data.observations import leaves
from iq_offline.errors import ConfigError, DatasetUnreadable, InvalidEpisode

FOREIGN = Path(__file__).parents[3] / "shared/data/foreign"
Reader = Callable[..., EpisodeSource]
WRITERS = [(flat_npz.read, flat_npz.write, "demo.npz"), (d3rlpy.read, d3rlpy.write, "demo.h5")]


def flat_arrays(lengths: list[int]) -> Arrays:
    """`imitation`'s layout."""
    episodes = [steps(number, length) for number, length in enumerate(lengths)]
    return {
        "obs": np.concatenate([np.concatenate([e["observations"], e["next_observations"][-1:]]) for e in episodes]),
        "acts": np.concatenate([episode["actions"] for episode in episodes]),
        "rews": np.concatenate([episode["rewards"] for episode in episodes]),
        "infos": np.array([{"step": number} for number in range(sum(lengths))], dtype=object),
        "terminal": np.ones(len(lengths), dtype=bool),
        "indices": np.cumsum(lengths[:-1], dtype=np.int64),
    }


def test_flat_npz_keeps_every_last_observation(tmp_path: Path):
    """The flat .npz is read with every last observation."""
    arrays = flat_arrays(LENGTHS)
    arrays["terminal"][1] = False
    np.savez_compressed(tmp_path / "demo.npz", **arrays)
    source = flat_npz.read(tmp_path / "demo.npz", "demo")
    episodes = list(source)
    check_aligned(episodes, LENGTHS)
    assert [episode.terminated for episode in episodes] == [True, False, False, False]
    assert source.info.notes[0] == "left out, being no step's numbers: infos"
    check_aligned(list(flat_npz.read(tmp_path / "demo.npz", "demo", ends="termination")), LENGTHS)


def test_flat_npz_of_one_episode_has_no_indices(tmp_path: Path):
    """A flat .npz of one episode has no indices."""
    np.savez(tmp_path / "demo.npz", **flat_arrays([3]) | {"indices": np.cumsum([])})
    (episode,) = flat_npz.read(tmp_path / "demo.npz", "demo")
    check_aligned([episode], [3])
    assert (episode.terminated, episode.truncated) == (False, True)


def test_fortran_and_byte_order_do_not_matter(tmp_path: Path):
    """Fortran order and other byte orders are read the same."""
    arrays = flat_arrays(LENGTHS)
    arrays["obs"] = np.asfortranarray(arrays["obs"].astype(">f4"))
    np.savez(tmp_path / "demo.npz", **arrays)
    episodes = list(flat_npz.read(tmp_path / "demo.npz", "demo"))
    check_aligned(episodes, LENGTHS)
    assert leaves(episodes[0].observations)[""].dtype == np.float32
    assert leaves(episodes[0].observations)[""].dtype.isnative


def test_an_npz_of_other_flat_arrays_is_read(tmp_path: Path):
    """An .npz of other flat arrays is read too."""
    arrays = flat([steps(number, length) for number, length in enumerate(LENGTHS)])
    del arrays["dones"]
    starts = np.zeros(sum(LENGTHS), dtype=bool)
    starts[[0, 3, 4, 8]] = True
    extra = np.array([{}], dtype=object)
    np.savez(tmp_path / "demo.npz", **arrays, episode_starts=starts, episode_returns=extra)
    source = flat_npz.read(tmp_path / "demo.npz", "demo")
    check_aligned(list(source), LENGTHS)
    assert source.info.notes[-1] == "left out, being no step's data: episode_returns"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"obs": np.ones((12, 2))}, r"12 obs for 12 acts of 4 episodes, not 16"),
        ({"rews": np.ones(11)}, r"11 rews for 12 acts"),
        ({"terminal": np.ones(3, bool)}, r"3 terminal for 12 acts of 4 episodes, not 4"),
        ({"indices": np.array([3, 3, 8])}, "episode 1 would begin at step 3 and end before 3"),
        ({"indices": np.array([3, 4, 99])}, "episode 3 would begin at step 99 and end before 12"),
        ({"indices": np.array([3.0, 4.0, 8.0])}, "'indices' are not whole numbers"),
        ({"terminal": np.array([0, 1, 2, 1])}, "terminal holds other values than 0 and 1: 2 at episode 2"),
        ({"about": np.frombuffer(b"[", dtype=np.uint8)}, "in its 'about'"),
    ],
)
def test_an_inconsistent_flat_npz_is_refused(tmp_path: Path, change: Arrays, problem: str):
    """A flat .npz that does not add up is refused."""
    np.savez(tmp_path / "demo.npz", **flat_arrays(LENGTHS) | change)
    with pytest.raises((DatasetUnreadable, InvalidEpisode), match=problem):
        list(flat_npz.read(tmp_path / "demo.npz", "demo"))


def test_a_flat_npz_without_actions_is_refused(tmp_path: Path):
    arrays = {key: values for key, values in flat_arrays(LENGTHS).items() if key != "acts"}
    np.savez(tmp_path / "demo.npz", **arrays)
    with pytest.raises(DatasetUnreadable, match=r"the key 'acts' is missing \(it has: obs, rews"):
        flat_npz.read(tmp_path / "demo.npz", "demo")


@st.composite
def episode_sets(draw: st.DrawFn, *, parts: bool) -> list[Episode]:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.uint8]))
    discrete = draw(st.booleans())
    shape = draw(st.sampled_from([(1,), (3,), (2, 2, 3)]))
    names = draw(st.sampled_from([[""], ["goal", "inner/seen"]])) if parts else [""]
    reward = draw(st.sampled_from([np.float32, np.float64]))
    episodes = []
    for index, length in enumerate(lengths):
        rng = np.random.default_rng(1000 * index + length)
        arrays = {name: rng.integers(0, 255, size=(length + 1, *shape)).astype(dtype) for name in names}
        terminated = draw(st.booleans())
        known = draw(st.booleans())
        if not known:
            for array in arrays.values():
                array[-1] = array[-2]
        observations = (
            arrays[""] if names == [""] else {"goal": arrays["goal"], "inner": {"seen": arrays["inner/seen"]}}
        )
        episodes.append(
            Episode(
                index=index,
                observations=observations,
                actions=rng.integers(0, 4, size=length) if discrete else rng.normal(size=(length, 2)),
                rewards=rng.normal(size=length).astype(reward),
                terminated=terminated,
                truncated=draw(st.booleans()) or not terminated,
                successor_known=known,
                seed=draw(st.none() | st.integers(0, 2**64)),
            )
        )
    return episodes


def check_same(written: list[Episode], found: list[Episode]) -> None:
    assert len(written) == len(found)
    for before, after in zip(written, found, strict=True):
        for name in ("terminated", "truncated", "successor_known", "seed", "index"):
            assert getattr(before, name) == getattr(after, name), name
        arrays = [leaves(side.observations) | {"a": side.actions, "r": side.rewards} for side in (before, after)]
        assert list(arrays[0]) == list(arrays[1])
        for name, array in arrays[0].items():
            assert array.dtype == arrays[1][name].dtype
            np.testing.assert_array_equal(array, arrays[1][name])


@pytest.mark.parametrize(("read_back", "write", "name"), WRITERS, ids=["npz", "d3rlpy"])
@given(data=st.data())
def test_any_episodes_survive_being_written_and_read(
    tmp_path: Path, read_back: Reader, write: Any, name: str, data: Any
):
    episodes = data.draw(episode_sets(parts=name == "demo.h5"))
    info = DatasetInfo("demo", "demo", "test", "Hopper-v5", {"frame_skip": 4}, description="é", origin_sha256="ab")
    write(EpisodeSource(info, episodes=episodes), tmp_path / name)
    source = read_back(tmp_path / name, "demo")
    check_same(episodes, list(source))
    described = (source.info.env_id, source.info.env_kwargs, source.info.description, source.info.origin_sha256)
    assert described == ("Hopper-v5", {"frame_skip": 4}, "é", "ab")
    assert source.info.notes == ()


@pytest.mark.parametrize(("read_back", "write", "name"), WRITERS, ids=["npz", "d3rlpy"])
def test_an_episode_longer_than_32767_steps_survives(tmp_path: Path, read_back: Reader, write: Any, name: str):
    numbers = np.arange(40_001, dtype=np.float64)
    episode = Episode(0, numbers[:, None], numbers[:-1, None] / 4, -numbers[:-1], terminated=True, truncated=False)
    write(EpisodeSource(DatasetInfo("demo", "demo", "test", origin_sha256="ab"), episodes=[episode]), tmp_path / name)
    check_same([episode], list(read_back(tmp_path / name, "demo")))


@pytest.mark.parametrize(("write", "name"), [writer[1:] for writer in WRITERS], ids=["npz", "d3rlpy"])
def test_a_writer_that_fails_midway_leaves_nothing(tmp_path: Path, write: Any, name: str):
    good = Episode(0, np.zeros((3, 2)), np.zeros((2, 1)), np.zeros(2), terminated=True, truncated=False)
    info = DatasetInfo("demo", "demo", "test", origin_sha256="ab")
    for episodes in ([good, InvalidEpisode("episode 1 is broken", "mend it")], []):
        with pytest.raises((InvalidEpisode, DatasetUnreadable)):
            write(EpisodeSource(info, episodes=episodes), tmp_path / "to" / name)
        assert list((tmp_path / "to").iterdir()) == []


def test_flat_npz_refuses_several_observation_arrays(tmp_path: Path):
    """The flat .npz has no place for several observation arrays."""
    parts = {"a": np.zeros((3, 2)), "b": np.zeros((3, 1))}
    episode = Episode(0, parts, np.zeros((2, 1)), np.zeros(2), terminated=True, truncated=False)
    with pytest.raises(ConfigError, match=r"observations of several arrays \(a, b\) have no place"):
        flat_npz.write(EpisodeSource(DatasetInfo("demo", "demo", "test"), episodes=[episode]), tmp_path / "demo.npz")


def test_imitation_splits_the_written_npz_alike(tmp_path: Path):
    """NumPy reads the .npz that is written as `imitation` splits it."""
    arrays = flat_arrays(LENGTHS)
    np.savez(tmp_path / "from.npz", **arrays)
    flat_npz.write(flat_npz.read(tmp_path / "from.npz", "demo"), tmp_path / "to.npz")
    with np.load(tmp_path / "to.npz", allow_pickle=False) as written:
        for key in ("obs", "acts", "rews", "terminal", "indices"):
            np.testing.assert_array_equal(written[key], arrays[key])
            assert written[key].dtype == arrays[key].dtype
        pieces = np.split(written["obs"], written["indices"] + np.arange(len(written["indices"])) + 1)
        assert [len(piece) for piece in pieces] == [length + 1 for length in LENGTHS]
        assert [len(piece) for piece in np.split(written["infos"], written["indices"])] == LENGTHS
    assert (tmp_path / "to.npz").read_bytes()[:2] == b"PK"
    flat_npz.write(flat_npz.read(tmp_path / "from.npz", "demo"), tmp_path / "again.npz")
    assert (tmp_path / "to.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "to.npz") as archive:
        assert archive.testzip() is None
        assert {item.date_time for item in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}, "equal data, equal files"


@pytest.fixture(scope="module")
def official() -> Any:
    """d3rlpy itself, without the banner that Gym prints and the warnings of its imports."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("d3rlpy", reason="d3rlpy is the extra 'baselines'")


def d3rlpy_episodes(official: Any, *, tuples: bool, discrete: bool) -> list[Any]:
    found = []
    for number, length in enumerate(LENGTHS):
        episode = steps(number, length)
        observations = episode["observations"]
        found.append(
            official.dataset.Episode(
                (observations, observations) if tuples else observations,
                np.arange(length)[:, None] if discrete else episode["actions"].astype(np.float32),
                episode["rewards"][:, None].astype(np.float32),
                number % 2 == 0,
            )
        )
    return found


@pytest.mark.parametrize("tuples", [False, True])
@pytest.mark.parametrize("discrete", [False, True])
def test_a_file_that_d3rlpy_dumped_is_read(tmp_path: Path, official: Any, tuples: bool, discrete: bool):
    path = tmp_path / "demo.h5"
    with path.open("w+b") as file:
        official.dataset.dump(d3rlpy_episodes(official, tuples=tuples, discrete=discrete), file)
    source = d3rlpy.read(path, "demo")
    episodes = list(source)
    assert source.info.notes == ("d3rlpy keeps no final observations: the last successor of every episode is unknown",)
    assert [(episode.terminated, episode.truncated) for episode in episodes] == [(True, False), (False, True)] * 2
    assert list(leaves(episodes[0].observations)) == (["_index_0", "_index_1"] if tuples else [""])
    if discrete:
        np.testing.assert_array_equal(episodes[2].actions, [0, 1, 2, 3])
    else:
        check_aligned(episodes, LENGTHS, successor_known=False)


@pytest.mark.parametrize("parts", [False, True])
def test_d3rlpy_loads_the_file_that_is_written(tmp_path: Path, official: Any, parts: bool):
    contents = [steps(number, length) for number, length in enumerate(LENGTHS)]
    for content in contents:
        if parts:
            for key in ("observations", "next_observations"):
                content[key] = {"goal": content[key], "seen": content[key]}
    origin = dictionaries.read(save(tmp_path / "demo.pkl", contents), "demo")
    d3rlpy.write(origin, tmp_path / "demo.h5")
    with (tmp_path / "demo.h5").open("rb") as file:
        buffer = official.dataset.ReplayBuffer.load(file, official.dataset.InfiniteBuffer())
    assert len(buffer.episodes) == 4
    for ours, theirs in zip(origin, buffer.episodes, strict=True):
        observations = theirs.observations if parts else [theirs.observations]
        for array, found in zip(leaves(ours.observations).values(), observations, strict=True):
            np.testing.assert_array_equal(array[:-1], found)
        np.testing.assert_array_equal(ours.actions, theirs.actions)
        np.testing.assert_array_equal(ours.rewards[:, None], theirs.rewards)
        assert theirs.terminated == ours.terminated
    assert buffer.sample_transition_batch(4).actions.shape == (4, 1)


def foreign(name: str) -> Path:
    path = FOREIGN / name
    if not path.exists():
        pytest.skip(f"{name}, a real file of another project, is not here")
    return path


@pytest.mark.parametrize(
    ("reader", "name", "episodes", "total", "mean_return", "terminations", "shapes"),
    [
        (dictionaries, "PointMazeRight-v0_50.pkl", 50, 5_000, 100.0, 0, ((101, 6), (100, 2))),
        (dictionaries, "PointMazeLeft-v0_50.npy", 50, 5_000, 100.0, 0, ((101, 6), (100, 2))),
        (dictionaries, "berkeley_Hopper-v2.pkl", 2, 2_000, 3772.670, 0, ((1001, 11), (1000, 3))),
        (flat_npz, "imitation_cartpole.npz", 57, 26_964, 473.053, 42, ((459, 4), (458,))),
        (flat_npz, "imitation_pendulum.npz", 56, 11_200, -189.401, 0, ((201, 3), (200, 1))),
    ],
)
def test_real_files(
    reader: Any,
    name: str,
    episodes: int,
    total: int,
    mean_return: float,
    terminations: int,
    shapes: Any,
    tmp_path: Path,
):
    source = reader.read(foreign(name), "demo")
    found = list(source)
    assert (len(found), sum(map(len, found))) == (episodes, total)
    assert np.mean([episode.episode_return for episode in found]) == pytest.approx(mean_return, abs=1e-3)
    assert sum(episode.terminated for episode in found) == terminations
    assert sum(episode.truncated for episode in found) == episodes - terminations
    assert all(episode.successor_known and not episode.discontinuous for episode in found)
    assert (leaves(found[0].observations)[""].shape, found[0].actions.shape) == shapes
    for read_back, write, written in WRITERS:
        write(source, tmp_path / written)
        check_same(found, list(read_back(tmp_path / written, "demo")))


def test_the_real_flat_npz_agrees_with_numpy():
    path = foreign("imitation_cartpole.npz")
    with np.load(path) as theirs, numpy_files.Archive(path) as ours:
        for key in ("obs", "acts", "rews", "terminal", "indices"):
            np.testing.assert_array_equal(ours.read(key), theirs[key])
