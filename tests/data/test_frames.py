"""Frames: what a table gives of converted pictures is what Gymnasium's wrappers show in the environment."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from iq_offline.data.catalogue import Located
from iq_offline.data.environments import make_environment
from iq_offline.data.episodes import DatasetInfo, End, Episode, EpisodeSource, Segment
from iq_offline.data.formats import minari
from iq_offline.data.frames import Frames, stacked
from iq_offline.data.packing import pack
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.table import TransitionTable, load, open_table
from iq_offline.errors import ConfigError, DatasetUnreadable
from iq_offline.stages.convert import ConvertRequest, convert_dataset
from iq_offline.training.batches import TransitionSampler

STEPS, EPISODES = 12, 2


class Noise(gymnasium.Env[Any, Any]):
    """A picture of noise every step."""

    observation_space = Box(0, 255, (14, 10, 3), np.uint8)
    action_space = Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self._next(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._next(), float(action), False, False, {}

    def _next(self) -> Any:
        return self.np_random.integers(0, 256, (14, 10, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    gymnasium.register("Noise-v0", entry_point=f"{__name__}:Noise", max_episode_steps=STEPS)
    yield
    del gymnasium.registry["Noise-v0"]


def recorded(folder: Path, env_id: str, env_kwargs: dict[str, Any] | None = None) -> Path:
    """Episodes of arbitrary actions, each cut after STEPS, as the environment showed them."""
    made = make_environment(env_id, env_kwargs or {})
    episodes = []
    for number in range(EPISODES):
        actions = actions_of(number)
        observations, rewards = [made.reset(seed=number)[0]], []
        for action in actions:
            observation, reward, *_ = made.step(action)
            observations.append(observation)
            rewards.append(float(reward))
        arrays = np.array(observations), actions, np.array(rewards)
        episodes.append(Episode(number, *arrays, terminated=False, truncated=True, seed=number))
    info = DatasetInfo(folder.name, "memory", "memory", env_id, env_kwargs or {}, origin_sha256="0" * 64)
    minari.write(EpisodeSource(info, episodes), folder)
    return folder


def actions_of(episode: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(episode).integers(0, 3, STEPS)


def converted(source: Path, frames: Frames) -> TransitionTable:
    destination = source.with_name("frames-v0")
    convert_dataset(str(source), destination, ConvertRequest(frames=frames))
    return open_table(Located(name="frames-v0", path=destination))


def shown(table: TransitionTable) -> list[np.ndarray[Any, Any]]:
    """The observations of the same episodes in the environment that the dataset names, flat."""
    made, found = make_environment(table.info.env_id or "", table.info.env_kwargs), []
    for number in range(EPISODES):
        found.append(made.reset(seed=number)[0])
        found += [made.step(action)[0] for action in actions_of(number)]
    return [np.ravel(observation) for observation in found]


def check_same(table: TransitionTable) -> None:
    """Every observation and successor that a sampler gives, against the environment."""
    expected = torch.from_numpy(np.array(shown(table))).float()
    rows = table.transition_rows
    batch = TransitionSampler(table, rows, torch.device("cpu"), table.episodes["start_row"].to_numpy())
    got = batch.gather(torch.arange(len(rows)))
    torch.testing.assert_close(got.observations, expected[rows], rtol=0, atol=0)
    torch.testing.assert_close(got.next_observations, expected[rows + 1], rtol=0, atol=0)
    starts = expected[table.episodes["start_row"].to_list()]
    torch.testing.assert_close(batch.initial_observations(torch.Generator()), starts, rtol=0, atol=0)


def test_atari_frames_equal_the_wrappers_pixels(tmp_path: Path):
    """Raw recordings of a real game with sticky actions, made gray, small and stacked, are what AtariPreprocessing and
    FrameStackObservation show of the same episodes.
    """
    ale_py = pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    gymnasium.register_envs(ale_py)
    source = recorded(tmp_path / "raw-v0", "ALE/Pong-v5", {"repeat_action_probability": 0.25})
    table = converted(source, Frames((84, 84), gray=True, stack=4))
    assert [w["name"] for w in table.info.env_kwargs["additional_wrappers"]] == [
        "AtariPreprocessing",
        "FrameStackObservation",
    ]
    (held,) = table.pictures.values()
    assert held.shape == (EPISODES * (STEPS + 1), 84, 84)
    check_same(table)


def test_other_frames_equal_the_wrappers_pixels(tmp_path: Path):
    """Outside Atari, Gymnasium's wrappers for gray and small pictures of any shape apply."""
    check_same(converted(recorded(tmp_path / "raw-v0", "Noise-v0"), Frames((7, 5), gray=True, stack=3)))


def test_gray_frames_equal_the_wrapper(tmp_path: Path):
    check_same(converted(recorded(tmp_path / "raw-v0", "Noise-v0"), Frames(gray=True)))


def test_colour_frames_are_stacked(tmp_path: Path):
    check_same(converted(recorded(tmp_path / "raw-v0", "Noise-v0"), Frames(stack=4)))


def test_stacks_repeat_the_first_frame():
    """No stack reaches into the episode before."""
    pictures = np.arange(7, dtype=np.uint8)[:, None, None]
    rows = np.array([0, 2, 3, 5])
    found = stacked(pictures, rows, np.array([0, 3]), 3)
    assert found[:, :, 0, 0].tolist() == [[0, 0, 0], [0, 1, 2], [3, 3, 3], [3, 4, 5]]


def test_stacks_equal_a_slow_loop():
    """Frame by frame, with the successor's newest frame behind them; episodes may be shorter than a stack."""
    random = np.random.default_rng(0)
    lengths = [1, 2, 3, 9, 5]
    starts = np.cumsum([0, *(length + 1 for length in lengths)])[:-1]
    pictures = random.integers(0, 256, (sum(lengths) + len(lengths), 3, 2), np.uint8)
    rows = np.concatenate([start + np.arange(length) for start, length in zip(starts, lengths, strict=True)])
    rows = random.permutation(rows)
    slow = []
    for row in rows:
        first = max(start for start in starts if start <= row)
        slow.append([pictures[max(first, row + back)] for back in (-3, -2, -1, 0, 1)])
    np.testing.assert_array_equal(stacked(pictures, rows, starts, 4, following=1), np.array(slow))


@pytest.mark.parametrize("number", [0, 2])
def test_batches_join_numbers_and_all_pictures(tmp_path: Path, number: int):
    """Observations and successors are the numbers, then each picture, whether there are numbers or not."""
    random, steps = np.random.default_rng(0), 6
    parts = {"a": random.integers(0, 256, (steps + 1, 3, 4), np.uint8)}
    parts["b"] = random.integers(0, 256, (steps + 1, 2, 3, 3), np.uint8)
    if number:
        parts["numbers"] = random.normal(size=(steps + 1, number)).astype(np.float32)
    end = End({path: array[-1] for path, array in parts.items()}, terminated=False, truncated=True)
    segment = Segment({path: array[:-1] for path, array in parts.items()}, np.arange(steps) % 3, np.zeros(steps), end)
    info = DatasetInfo("parts", str(tmp_path), "memory", action_space=DiscreteActions(3), origin_sha256="0" * 64)
    content = pack(EpisodeSource(info, stream=lambda **_: iter([segment])), tmp_path)
    (tmp_path / "table.json").write_text(json.dumps(content))
    table = load(tmp_path, Located(name="parts", path=tmp_path / "table.json"))
    order = ["numbers", "a", "b"] if number else ["a", "b"]
    flat = np.concatenate([parts[path].reshape(steps + 1, -1) for path in order], axis=1, dtype=np.float32)
    chosen = torch.tensor([4, 0, 5, 0])
    sampler = TransitionSampler(table, table.transition_rows, torch.device("cpu"), np.array([0]))
    batch = sampler.gather(chosen)
    np.testing.assert_allclose(sampler.mean_pixels(), flat[:-1, number:].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(batch.observations, flat[chosen])
    np.testing.assert_array_equal(batch.next_observations, flat[chosen + 1])


def test_a_second_conversion_keeps_the_stack(tmp_path: Path):
    """Another Minari copy tells of the stack, too; formats that cannot are refused, and so is a second stack."""
    first = converted(recorded(tmp_path / "raw-v0", "Noise-v0"), Frames(stack=2))
    source = str(tmp_path / "frames-v0")
    convert_dataset(source, tmp_path / "again-v0", ConvertRequest())
    again = open_table(Located(name="again-v0", path=tmp_path / "again-v0"))
    assert (again.layout, again.info.env_kwargs) == (first.layout, first.info.env_kwargs)
    with pytest.raises(ConfigError, match="d4rl has no place for how many frames"):
        convert_dataset(source, tmp_path / "out.hdf5", ConvertRequest(output_format="d4rl"))
    with pytest.raises(ConfigError, match="already holds frames, 2 an observation"):
        convert_dataset(source, tmp_path / "third-v0", ConvertRequest(frames=Frames(stack=2)))


@pytest.mark.parametrize(
    ("size", "stack", "message"),
    [("84", 1, "--frames 84 is no height and width"), ("0x4", 1, "--frames 0x4"), (None, 0, "--stack 0 is no number")],
)
def test_wrong_options_are_refused(size: str | None, stack: int, message: str):
    with pytest.raises(ConfigError, match=message):
        Frames.of_options(size, stack, gray=False)


def test_options_left_out_are_none():
    assert Frames.of_options(None, 1, gray=False) is None


def test_vectors_make_no_frames(numbered: Any, write_d4rl: Any, tmp_path: Path):
    path = write_d4rl(numbered([3], terminated=[True]))
    with pytest.raises(ConfigError, match="no single picture"):
        convert_dataset(str(path), tmp_path / "out-v0", ConvertRequest(frames=Frames(stack=2)))
    assert not (tmp_path / "out-v0").exists()


@pytest.mark.parametrize("stack", [0, -1, "4", True, 1e9])
def test_a_damaged_frame_stack_is_refused(stack: Any, tmp_path: Path):
    described = recorded(tmp_path / "raw-v0", "Noise-v0") / "data" / "metadata.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"frame_stack": stack}))
    with pytest.raises(DatasetUnreadable, match=r"frame_stack in metadata\.json is no number of frames"):
        minari.read(tmp_path / "raw-v0", "raw-v0")


def test_long_episodes_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pictures of an episode that is too large to be read at once come in pieces, and are the same."""
    source = recorded(tmp_path / "raw-v0", "Noise-v0")
    whole = list(minari.read(source, "raw-v0"))
    monkeypatch.setattr(minari, "small_array", lambda *_: None)
    monkeypatch.setattr(minari, "BYTES_AT_ONCE", 5 * 14 * 10 * 3)
    segments = list(minari.read(source, "raw-v0").segments())
    assert [len(segment.actions) for segment in segments] == [5, 5, 2] * EPISODES
    for one, other in zip(minari.read(source, "raw-v0"), whole, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
