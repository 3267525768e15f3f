"""Random episodes through every door, in each direction: each (s, a, r, s') stays together, and ends stay ends."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iq_offline.data.catalogue import Located
from iq_offline.data.environments import action_space_from_gymnasium
from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource, segment_of
from iq_offline.data.formats import d4rl, minari
from iq_offline.data.observations import from_leaves, leaves
from iq_offline.data.packing import pack
from iq_offline.data.spaces import ContinuousActions, DiscreteActions
from iq_offline.data.table import TransitionTable, open_table

FORMATS = {"d4rl": (d4rl, "x.hdf5"), "minari": (minari, "x-v0")}
LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@dataclass(frozen=True)
class Kind:
    """What the observations and actions of a random dataset look like."""

    observations: str = "vector"
    discrete: bool = False
    infos: bool = False


def numbered_episode(index: int, steps: int, kind: Kind, *, terminated: bool, truncated: bool) -> Episode:
    """An episode whose every number tells its place: observation 100 * index + step, action its hundredth."""
    place = 100.0 * index + np.arange(steps + 1)
    vector = np.stack([place, -place], axis=1).astype(np.float32)
    actions = (place[:-1] % 7).astype(np.int64) if kind.discrete else vector[:-1, :1] / 1000
    infos = {"qpos": place[:-1, None], "nested/goal": place} if kind.infos else {}
    return Episode(
        index=index,
        observations=observed(kind, place, vector),
        actions=actions,
        rewards=place[:-1].astype(np.float32),
        terminated=terminated,
        truncated=truncated or not terminated,
        seed=index if index % 2 else None,
        infos=infos,
    )


def observed(kind: Kind, place: np.ndarray, vector: np.ndarray) -> Any:
    """Those places as observations of the kind."""
    if kind.observations == "vector":
        return vector
    if kind.observations == "number":
        return place.astype(np.int64)
    if kind.observations == "picture":
        return np.broadcast_to((place % 251).astype(np.uint8)[:, None, None, None], (len(place), 33, 34, 3)).copy()
    return {
        "achieved_goal": vector.astype(np.float64),
        "deep": {"observation": vector, "count": place.astype(np.int64)},
    }


def random_source(lengths: list[int], ends: list[tuple[bool, bool]], kind: Kind) -> EpisodeSource:
    episodes = [
        numbered_episode(index, steps, kind, terminated=ends[index][0], truncated=ends[index][1])
        for index, steps in enumerate(lengths)
    ]
    space = DiscreteActions(7) if kind.discrete else None
    return EpisodeSource(DatasetInfo("x", "nowhere", "memory", action_space=space, origin_sha256="0"), episodes)


@st.composite
def sources(draw: st.DrawFn) -> EpisodeSource:
    lengths = draw(LENGTHS)
    ends = draw(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=len(lengths), max_size=len(lengths)))
    observations = draw(st.sampled_from(["vector", "number", "dictionary"]))
    return random_source(lengths, ends, Kind(observations, draw(st.booleans()), draw(st.booleans())))


def assert_same(left: EpisodeSource, right: EpisodeSource) -> None:
    """All arrays to the bit and of the same type, but for rewards, which some layouts keep in 64 bits."""
    for before, after in zip(left.checked(infos=True), right.checked(infos=True), strict=True):
        mine, theirs = leaves(before.observations), leaves(after.observations)
        assert set(mine) == set(theirs)
        for path in mine:
            assert mine[path].dtype == theirs[path].dtype
            np.testing.assert_array_equal(mine[path], theirs[path])
        np.testing.assert_array_equal(before.actions, after.actions)
        assert before.actions.dtype == after.actions.dtype
        np.testing.assert_array_equal(before.rewards, after.rewards)
        assert (before.terminated, before.truncated, before.seed) == (after.terminated, after.truncated, after.seed)
        assert before.successor_known == after.successor_known
        assert set(before.infos) == set(after.infos)
        for path in before.infos:
            np.testing.assert_array_equal(before.infos[path], after.infos[path])


def assert_aligned(table: TransitionTable, source: EpisodeSource) -> None:
    """Each row of the table against its episode, step by step: the slow, obvious way."""
    for episode, start in zip(source.checked(), table.episodes["start_row"], strict=True):
        parts = [leaf.reshape(len(episode) + 1, -1) for leaf in leaves(episode.observations).values()]
        flat = np.concatenate(parts, axis=1).astype(np.float32)
        for step in range(len(episode)):
            row = table.rows[start + step]
            np.testing.assert_array_equal(row[: table.observation_size], flat[step])
            np.testing.assert_array_equal(table.rows[start + step + 1, : table.observation_size], flat[step + 1])
            np.testing.assert_array_equal(row[table.observation_size : -2], np.atleast_1d(episode.actions[step]))
            assert row[-2] == episode.rewards[step]
            assert row[-1] == (episode.terminated and step == len(episode) - 1)


@pytest.mark.parametrize("door", FORMATS)
@given(source=sources())
def test_what_is_written_reads_the_same(door: str, source: EpisodeSource, tmp_path_factory):
    module, name = FORMATS[door]
    path = tmp_path_factory.mktemp("door") / name
    module.write(source, path)
    assert_same(source, module.read(path, "x"))
    assert_aligned(open_table(Located("x", path)), source)


@given(source=sources())
def test_there_and_back_through_both_is_the_same(source: EpisodeSource, tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    minari.write(source, folder / "x-v0")
    d4rl.write(minari.read(folder / "x-v0", "x"), folder / "x.hdf5")
    assert_same(source, d4rl.read(folder / "x.hdf5", "x"))


@given(source=sources(), rows=st.integers(1, 40))
def test_reading_in_pieces_is_reading_at_once(source: EpisodeSource, rows: int, tmp_path_factory):
    path = tmp_path_factory.mktemp("pieces") / "x.hdf5"
    d4rl.write(source, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(d4rl._Steps, "rows_at_a_time", rows)
        assert_same(source, d4rl.read(path, "x"))


@given(source=sources(), rows=st.integers(2, 9))
def test_a_small_buffer_packs_the_same_rows(source: EpisodeSource, rows: int, tmp_path_factory):
    from iq_offline.data import packing

    folder = tmp_path_factory.mktemp("packed")
    (folder / "large").mkdir()
    (folder / "small").mkdir()
    pack(source, folder / "large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "LEAST_ROWS", rows)
        patch.setattr(packing, "BUFFER_BYTES", 1)
        pack(source, folder / "small")
    assert (folder / "large" / "rows.f32").read_bytes() == (folder / "small" / "rows.f32").read_bytes()


@given(
    lengths=LENGTHS,
    flagged=st.sampled_from(["timeouts", "discontinuity", "horizon"]),
    columns=st.booleans(),
)
def test_ends_are_found_however_they_are_told(lengths, flagged, columns, tmp_path_factory):
    """Without `timeouts`, an end is where the next row does not follow, or where the clock must have run out."""
    horizon = 5
    if flagged == "horizon":
        lengths = [horizon] * (len(lengths) - 1) + [min(lengths[-1], horizon)]
    source = random_source(lengths, [(False, True)] * len(lengths), Kind())
    path = tmp_path_factory.mktemp("ends") / "x.hdf5"
    d4rl.write(source, path)
    with h5py.File(path, "r+") as file:
        if flagged != "timeouts":
            del file["timeouts"]
        if flagged == "horizon":
            del file["next_observations"]
        if columns:
            for key in ("rewards", "terminals"):
                values = file[key][:][:, None]
                del file[key]
                file[key] = values
    read = list(d4rl.read(path, "x", horizon=horizon if flagged == "horizon" else None))
    assert [len(episode) for episode in read] == lengths
    for before, after in zip(source, read, strict=True):
        np.testing.assert_array_equal(before.observations[:-1], after.observations[:-1])
        np.testing.assert_array_equal(before.actions, after.actions)
        assert after.truncated
        assert not after.terminated
        assert after.successor_known == (flagged != "horizon")


def test_long_episodes_stay_whole(tmp_path: Path):
    """An episode of more than 32767 steps stays one."""
    source = random_source([33_000, 10, 20], [(False, True)] * 3, Kind())
    for door, (module, name) in FORMATS.items():
        module.write(source, tmp_path / name)
        assert [len(episode) for episode in module.read(tmp_path / name, door)] == [33_000, 10, 20]
        assert open_table(Located(door, tmp_path / name)).episodes["steps"].to_list() == [33_000, 10, 20]


@pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
@pytest.mark.parametrize("kind", [Kind(), Kind("dictionary"), Kind("number", discrete=True)], ids=str)
def test_what_minari_writes_reads_the_same(data_format: str, kind: Kind, tmp_path: Path, monkeypatch):
    import gymnasium
    import minari as official
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    source = random_source([3, 1, 5], [(True, False), (False, True), (True, True)], kind)
    buffers = [
        EpisodeBuffer(
            id=episode.index,
            seed=episode.seed,
            observations=episode.observations,
            actions=episode.actions,
            rewards=episode.rewards.astype(np.float64),
            terminations=np.arange(len(episode)) == (len(episode) - 1 if episode.terminated else -1),
            truncations=np.arange(len(episode)) == (len(episode) - 1 if episode.truncated else -1),
            infos={"qpos": np.arange(len(episode) + 1.0)},
        )
        for episode in source
    ]
    box = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    space = {
        "vector": box,
        "number": gymnasium.spaces.Discrete(1000),
        "dictionary": gymnasium.spaces.Dict(
            {
                "achieved_goal": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
                "deep": gymnasium.spaces.Dict({"observation": box, "count": gymnasium.spaces.Discrete(1000)}),
            }
        ),
    }[kind.observations]
    official.create_dataset_from_buffers(
        "made/x-v0",
        buffers,
        observation_space=space,
        action_space=gymnasium.spaces.Discrete(7) if kind.discrete else gymnasium.spaces.Box(-1, 1, (1,), np.float32),
        data_format=data_format,
    )
    read = minari.read(tmp_path / "made" / "x-v0", "x")
    expected = [replace(episode, infos={"qpos": np.arange(len(episode) + 1.0)}) for episode in source]
    assert_same(EpisodeSource(source.info, expected), read)


@pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")
@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
def test_minaris_long_arrow_episodes_stay_whole(data_format: str, tmp_path: Path, monkeypatch):
    import gymnasium
    import minari as official
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    lengths = [33_000, 10]
    buffers = [
        EpisodeBuffer(
            id=index,
            observations=np.arange(steps + 1, dtype=np.float32)[:, None],
            actions=np.zeros((steps, 1), np.float32),
            rewards=np.ones(steps),
            terminations=np.zeros(steps, bool),
            truncations=np.arange(steps) == steps - 1,
            infos={},
        )
        for index, steps in enumerate(lengths)
    ]
    box = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    official.create_dataset_from_buffers(
        "made/x-v0", buffers, observation_space=box, action_space=box, data_format=data_format
    )
    episodes = list(minari.read(tmp_path / "made" / "x-v0", "x"))
    assert [len(episode) for episode in episodes] == lengths
    np.testing.assert_array_equal(episodes[0].observations[:, 0], np.arange(33_001))


def test_pictures_pass_and_lie_beside_the_rows(tmp_path: Path):
    source = random_source([3, 2], [(True, False), (False, True)], Kind("picture"))
    minari.write(source, tmp_path / "x-v0")
    assert_same(source, minari.read(tmp_path / "x-v0", "x"))
    table = open_table(Located("x", tmp_path / "x-v0"))
    assert table.observation_size == 0
    expected = np.concatenate([episode.observations for episode in source])
    np.testing.assert_array_equal(table.pictures[""], expected)


@pytest.mark.filterwarnings("ignore::UserWarning:minari.utils")
def test_jpeg_pictures_are_decoded_as_minari_does(tmp_path: Path, monkeypatch):
    """Minari's JPEG pictures are decoded as Minari decodes them."""
    import gymnasium
    import minari as official
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, 40, 36, 3), dtype=np.uint8)
    buffer = EpisodeBuffer(
        id=0,
        observations=pictures,
        actions=np.zeros((3, 1), np.float32),
        rewards=np.zeros(3),
        terminations=np.array([False, False, True]),
        truncations=np.zeros(3, bool),
        infos={},
    )
    dataset = official.create_dataset_from_buffers(
        "made/x-v0",
        [buffer],
        observation_space=gymnasium.spaces.Box(0, 255, (40, 36, 3), np.uint8),
        action_space=gymnasium.spaces.Box(-1, 1, (1,), np.float32),
    )
    (episode,) = minari.read(tmp_path / "made" / "x-v0", "x")
    np.testing.assert_array_equal(episode.observations, dataset[0].observations)


def test_a_segment_holds_what_its_episode_holds():
    episode = numbered_episode(2, 4, Kind("dictionary", infos=True), terminated=True, truncated=False)
    segment = segment_of(episode)
    assert segment.end is not None
    joined = {
        path: np.concatenate([array, segment.end.observations[path][None]])
        for path, array in segment.observations.items()
    }
    for path, array in leaves(from_leaves(joined)).items():
        np.testing.assert_array_equal(array, leaves(episode.observations)[path])
    assert set(segment.infos) == {"qpos", "nested/goal"}
    assert list(segment.end.final_infos) == ["nested/goal"]


def test_the_provenance_of_an_unknown_successor_survives(tmp_path: Path):
    source = random_source([3, 2], [(False, True), (True, False)], Kind())
    known = [replace(episode, successor_known=index == 1) for index, episode in enumerate(source)]
    for module, name in FORMATS.values():
        module.write(EpisodeSource(source.info, known), tmp_path / name)
        assert [episode.successor_known for episode in module.read(tmp_path / name, "x")] == [False, True]
    assert json.loads(h5py.File(tmp_path / "x.hdf5").attrs["unknown_successors"]) == [0]


@pytest.mark.parametrize("bound", [np.inf, np.finfo(np.float32).max])
def test_a_box_as_wide_as_float32_is_unbounded(bound: float):
    """A box as wide as its numbers has no bounds."""
    import gymnasium

    assert action_space_from_gymnasium(gymnasium.spaces.Box(-bound, bound, (2,), np.float32), "environment") is None
    narrow = action_space_from_gymnasium(gymnasium.spaces.Box(-1e6, 1e6, (2,), np.float32), "environment")
    assert isinstance(narrow, ContinuousActions)
    assert narrow.high == (1e6, 1e6)
