"""Minari's layouts: the order of the observations, texts among them, infos of odd lengths, flags that are none."""

from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Space, Text, Tuple

from iq_offline.data import environments
from iq_offline.data.catalogue import Located
from iq_offline.data.episodes import Episode
from iq_offline.data.formats import d4rl, minari
from iq_offline.data.observations import flattened, leaves
from iq_offline.data.table import open_table
from iq_offline.errors import DatasetUnreadable, InvalidEpisode
from iq_offline.stages.convert import ConvertRequest, convert_dataset

STEPS = 4


def box(*shape: int) -> Box:
    return Box(-100, 100, shape)


class Shown(gymnasium.Env[Any, Any]):
    """An environment of that observation space; every observation is a sample of it."""

    action_space = Discrete(2)

    def __init__(self, space: Space[Any]) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self.observation_space.sample(), {}


def stacked(observations: list[Any]) -> Any:
    """Observations as one, with an entry a step."""
    if isinstance(observations[0], dict):
        return {name: stacked([one[name] for one in observations]) for name in observations[0]}
    if isinstance(observations[0], tuple):
        return tuple(stacked(list(parts)) for parts in zip(*observations, strict=True))
    return observations if isinstance(observations[0], str) else np.array(observations)


def recorded(space: Space[Any], data_format: str = "hdf5", **infos: Any) -> list[Any]:
    """One episode in Minari's store; returns its observations as the environment gave them."""
    import minari as official
    from minari.data_collector.episode_buffer import EpisodeBuffer

    environment = Shown(space)
    environment.observation_space.seed(0)
    observations = [environment.observation_space.sample() for _ in range(STEPS + 1)]
    ends = np.arange(STEPS) == STEPS - 1
    buffer = EpisodeBuffer(
        id=0,
        seed=0,
        observations=stacked(observations),
        actions=np.arange(STEPS) % 2,
        rewards=np.ones(STEPS),
        terminations=ends,
        truncations=np.zeros(STEPS, dtype=bool),
        infos=infos,
    )
    official.create_dataset_from_buffers("shown/test-v0", [buffer], env=environment, data_format=data_format)
    return observations


SPACES = {
    "dictionary": Dict({"b": box(2), "a": Dict({"d": box(1), "c": Discrete(50)})}),
    "long tuple": Tuple([box(1) for _ in range(12)]),
    "ragged tuple": Tuple([box(2), Dict({"x": box(3, 2), "w": Tuple([box(1), box(2)])})]),
    "slashes": Dict({"a-b": box(1), "a/b": box(1)}),
    "texts": Dict({"x": box(2), "mission": Text(9), "n": Tuple([Text(3), box(1)])}),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
@pytest.mark.parametrize("name", SPACES)
def test_the_tables_columns_are_those_of_simulation(tmp_path: Path, name: str, data_format: str):
    observations = recorded(SPACES[name], data_format)
    table = open_table(Located("x", tmp_path / "minari" / "shown" / "test-v0"))
    rows = np.append(table.transition_rows, table.transition_rows[-1] + 1)
    np.testing.assert_array_equal(table.observations(rows), [flattened(one) for one in observations])
    assert environments.raw(Shown(SPACES[name])).observation_size == table.observations(rows).shape[1]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SPACES)
def test_the_columns_keep_their_order_in_other_layouts(tmp_path: Path, name: str):
    observations = recorded(SPACES[name])
    source = tmp_path / "minari" / "shown" / "test-v0"
    for chosen, file in (("d4rl", "x.hdf5"), ("minari", "x-v0"), ("d3rlpy", "x.h5")):
        convert_dataset(str(source), tmp_path / file, ConvertRequest(output_format=chosen))
        table = open_table(Located("x", tmp_path / file))
        found = table.observations(table.transition_rows)
        np.testing.assert_array_equal(found, [flattened(one) for one in observations[:-1]])


def test_tuple_entries_sort_by_number():
    """Entries of tuples are ordered by their number and names by their letters."""
    parts = {"_index_1": 4, "a": {"10": 2, "2": 3}, "Z": 1, "_index_x": 5}
    observation = {name: part if isinstance(part, dict) else np.array([part]) for name, part in parts.items()}
    assert list(leaves(observation)) == ["Z", "_index_1", "_index_x", "a/10", "a/2"]
    assert flattened(tuple(np.full(number % 3, number) for number in range(12))).tolist() == [
        *(1, 2, 2, 4, 5, 5, 7, 8, 8, 10, 11, 11)
    ]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_texts_are_left_out_or_refused(tmp_path: Path):
    """Texts are left out by name and texts alone are refused."""
    recorded(SPACES["texts"])
    source = minari.read(tmp_path / "minari" / "shown" / "test-v0", "x")
    assert source.info.notes == ("left out, being texts: observations/mission, observations/n/_index_0",)
    (episode,) = source
    assert list(leaves(episode.observations)) == ["n/_index_1", "x"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("missions", [("go left", "go right"), ("go left", "go left")], ids=["differ", "alike"])
def test_differing_instructions_are_warned_of(tmp_path: Path, data_format: str, missions: tuple[str, str]):
    """Texts that differ between episodes may be the task, which a policy does not see; texts that do not, are not."""
    import minari as official
    from minari.data_collector.episode_buffer import EpisodeBuffer

    ends = np.arange(STEPS) == STEPS - 1
    buffers = [
        EpisodeBuffer(
            id=number,
            observations={"x": np.zeros((STEPS + 1, 2), dtype=np.float32), "n": {"mission": [mission] * (STEPS + 1)}},
            actions=np.arange(STEPS) % 2,
            rewards=np.ones(STEPS),
            terminations=ends,
            truncations=np.zeros(STEPS, dtype=bool),
            infos={},
        )
        for number, mission in enumerate(missions)
    ]
    environment = Shown(Dict({"x": box(2), "n": Dict({"mission": Text(99)})}))
    official.create_dataset_from_buffers("told/test-v0", buffers, env=environment, data_format=data_format)
    (note,) = minari.read(tmp_path / "minari" / "told" / "test-v0", "x").info.notes
    assert note.startswith("left out, being texts: observations/n/mission")
    assert ("('go left', 'go right'): where they tell the task" in note) == (missions[0] != missions[1])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_observations_of_texts_alone_are_refused(tmp_path: Path):
    recorded(Dict({"mission": Text(9)}))
    with pytest.raises(DatasetUnreadable, match="its observations are texts alone"):
        minari.read(tmp_path / "minari" / "shown" / "test-v0", "x")


@pytest.fixture
def dataset(numbered: Any, write_d4rl: Any, tmp_path: Path) -> Path:
    """Two episodes of 3 and 4 steps."""
    minari.write(d4rl.read(write_d4rl(numbered([3, 4], terminated=[True, False])), "x"), tmp_path / "x-v0")
    return tmp_path / "x-v0"


def put(dataset: Path, **arrays: Any) -> None:
    """Arrays of the second episode."""
    with h5py.File(dataset / "data" / "main_data.hdf5", "r+") as file:
        for key, values in arrays.items():
            if key in file["episode_1"]:
                del file["episode_1"][key]
            file["episode_1"][key] = values


@pytest.mark.parametrize("length", [1, 2, 6, 15])
def test_infos_of_other_lengths_are_left_out(dataset: Path, tmp_path: Path, length: int):
    """Infos of neither length are left out by name and decide nothing."""
    with h5py.File(dataset / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/infos/some/odd"] = np.arange(3)
        file["episode_0/infos/x"] = np.arange(3)
        file["episode_0/infos/final"] = np.arange(4)
    put(dataset, **{"infos/some/odd": np.arange(length), "infos/x": np.arange(4), "infos/final": np.arange(5)})
    source = minari.read(dataset, "x")
    assert source.info.notes == ("left out, being no step's data: infos/some/odd",)
    for chosen in ("d4rl", "minari"):
        out = tmp_path / ("out.hdf5" if chosen == "d4rl" else "out-v0")
        record = convert_dataset(str(dataset), out, ConvertRequest(output_format=chosen))
        assert record["notes"] == list(source.info.notes)
        assert record["left_out"]["episodes"] == 0
    episodes: list[Episode] = list(source.checked(infos=True))
    assert [{key: len(array) for key, array in episode.infos.items()} for episode in episodes] == [
        {"x": 3, "final": 4},
        {"x": 4, "final": 5},
    ]


def test_circular_info_groups_are_refused(dataset: Path):
    """Groups of infos that lead in a circle are refused."""
    with h5py.File(dataset / "data" / "main_data.hdf5", "r+") as file:
        for name in "abcdefgh":
            file[f"episode_1/infos/{name}"] = file["episode_1/infos"]
    with pytest.raises(DatasetUnreadable, match="groups inside groups without end"):
        minari.read(dataset, "x")


@pytest.mark.parametrize("key", ["terminations", "truncations"])
def test_flags_other_than_0_and_1_are_refused(dataset: Path, key: str):
    """Flags other than 0 and 1 are refused with their step."""
    put(dataset, **{key: np.array([0, np.nan, 0, 1])})
    faults: list[InvalidEpisode] = []
    kept = list(minari.read(dataset, "x").checked(faults.append))
    assert len(kept) == 1
    assert f"episode 1: {key} holds other values than 0 and 1: nan at step 1" in faults[0].problem
