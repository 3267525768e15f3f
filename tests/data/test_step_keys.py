"""Flags of flat layouts under any of their names, and declared spaces, mean the same in every file."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from iq_offline.algorithms.pictures import _planes, channels_first
from iq_offline.data.catalogue import Located
from iq_offline.data.declared import misfit, without
from iq_offline.data.files import whole_file, whole_folder
from iq_offline.data.formats.hdf5 import unreadable
from iq_offline.data.reading import check_is_file, detect, read_episodes
from iq_offline.data.spaces import ContinuousActions, infer_action_space
from iq_offline.errors import DatasetError, DatasetUnreadable, InvalidEpisode

STEPS = 60
TERMINATED = np.isin(np.arange(STEPS), [29])
TRUNCATED = np.isin(np.arange(STEPS), [19, 59])
ENDS = TERMINATED | TRUNCATED
STARTS = np.isin(np.arange(STEPS), [0, 20, 30])


def write(folder: Path, suffix: str, **flags: Any) -> Path:
    """A flat recording of 20 steps (truncated), 10 (terminated) and 30 (truncated)."""
    generator = np.random.default_rng(0)
    content = {
        "observations": generator.normal(size=(STEPS, 3)).astype("f4"),
        "actions": generator.uniform(-1, 1, (STEPS, 1)).astype("f4"),
        "rewards": np.ones(STEPS, "f4"),
    } | flags
    path = folder / f"data{suffix}"
    if suffix == ".npz":
        np.savez(path, **content)
    elif suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        with h5py.File(path, "w") as file:
            for key, values in content.items():
                file[key] = values
    return path


def ends(path: Path) -> list[tuple[int, bool]]:
    """Length, and whether it terminated, of each episode."""
    return [(len(episode), episode.terminated) for episode in read_episodes(Located(name="x", path=path))]


@pytest.mark.parametrize("suffix", [".hdf5", ".npz", ".pkl"])
@pytest.mark.parametrize(
    "flags",
    [
        {"terminals": TERMINATED, "truncations": TRUNCATED},
        {"terminals": TERMINATED, "dones": ENDS},
        {"terminals": TERMINATED, "episode_starts": STARTS},
        {"terminations": TERMINATED.astype("u1"), "timeouts": TRUNCATED.astype("f4")},
        {"terminated": TERMINATED, "truncated": TRUNCATED.astype("i8")},
        {"absorbing": TERMINATED, "last": ENDS},
        {"masks": (~TERMINATED).astype("f4"), "dones_float": ENDS.astype("f4")},
        {"terminal": TERMINATED, "not_done": ~ENDS},
        {"terminals": TERMINATED[:, None], "timeout": TRUNCATED[:, None]},
    ],
)
def test_flags_of_any_name_give_same_episodes(tmp_path: Path, suffix: str, flags: dict[str, Any]) -> None:
    """Every spelling of the same ends, in every flat file, gives the same three episodes."""
    assert ends(write(tmp_path, suffix, **flags)) == [(20, False), (10, True), (30, False)]


@pytest.mark.parametrize("suffix", [".hdf5", ".npz", ".pkl"])
@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        ({"terminals": TERMINATED, "timeouts": TRUNCATED, "truncations": ENDS}, ("2 set", "3 set")),
        ({"terminals": TERMINATED, "dones": TRUNCATED}, ("1 set", "2 set")),
        ({"terminals": TERMINATED, "timeouts": np.zeros(STEPS), "dones": ENDS}, ("1 set", "3 set")),
        ({"terminals": TERMINATED, "mask": ~ENDS}, ("1 set", "3 set")),
        ({"terminals": ENDS, "episode_starts": np.arange(STEPS) == 0}, ("3 set", "1 set")),
    ],
)
def test_contradicting_flags_are_refused(
    tmp_path: Path, suffix: str, flags: dict[str, Any], numbers: tuple[str, str]
) -> None:
    """Flags that cannot all be true are refused, and both counts are named."""
    with pytest.raises(InvalidEpisode) as error:
        ends(write(tmp_path, suffix, **flags))
    assert all(number in error.value.problem for number in numbers)


@pytest.mark.parametrize("suffix", [".hdf5", ".npz", ".pkl"])
def test_unknown_flag_is_refused_or_explained(tmp_path: Path, suffix: str) -> None:
    """One that may mark ends by its name is refused; another is named in a note."""
    known = {"terminals": TERMINATED, "timeouts": TRUNCATED}
    with pytest.raises(DatasetUnreadable, match="time_limit_hit"):
        ends(write(tmp_path, suffix, **known, time_limit_hit=ENDS))
    source = read_episodes(Located(name="x", path=write(tmp_path, suffix, **known, success=ENDS)))
    assert any("'success' (3 of 60 steps) are not read" in note for note in source.info.notes)


@pytest.mark.parametrize("suffix", [".hdf5", ".npz", ".pkl"])
def test_rlds_steps_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    """RLDS's last step has no action: its flags are not read as ours."""
    with pytest.raises(DatasetUnreadable, match="RLDS"):
        ends(write(tmp_path, suffix, is_first=STARTS, is_last=ENDS, dones=ENDS))


@pytest.mark.parametrize("flags", [{"terminals": TERMINATED[:5]}, {"terminals": TERMINATED, "dones": ENDS * 2}])
def test_flags_of_wrong_length_or_value_are_refused(tmp_path: Path, flags: dict[str, Any]) -> None:
    """A flag that is missing for a step, or is 2, is an error in each flat file."""
    for suffix in (".hdf5", ".npz", ".pkl"):
        with pytest.raises(DatasetError):
            ends(write(tmp_path, suffix, **flags))


def test_robomimic_and_hugging_face_are_named(tmp_path: Path) -> None:
    """Layouts that are not read are refused by name."""
    with h5py.File(tmp_path / "r.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((3, 2))
    with pytest.raises(DatasetUnreadable, match="robomimic"):
        ends(tmp_path / "r.hdf5")
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DatasetUnreadable, match="Hugging Face"):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("actions", "declared", "shape", "kind"),
    [
        (np.arange(STEPS) % 3.0, True, (), "i"),
        (np.arange(STEPS)[:, None], False, (1,), "f"),
        (np.zeros((STEPS, 2), "i4"), False, (2,), "f"),
    ],
)
def test_discrete_action_flag_decides(
    tmp_path: Path, actions: np.ndarray[Any, Any], declared: bool, shape: tuple[int, ...], kind: str
) -> None:
    """What d3rlpy's first layout says of its actions counts, not their type."""
    flags = {"terminals": np.zeros(STEPS), "episode_terminals": ENDS, "discrete_action": declared}
    found = next(iter(read_episodes(Located(name="x", path=write(tmp_path, ".h5", actions=actions, **flags))))).actions
    assert (found.shape[1:], found.dtype.kind) == (shape, kind)


def test_wide_integer_actions_are_explained(tmp_path: Path) -> None:
    """Integers of two columns are neither discrete nor declared continuous; nor is 0.5 a discrete action."""
    with pytest.raises(DatasetUnreadable, match="integers") as error:
        ends(write(tmp_path, ".hdf5", actions=np.zeros((STEPS, 2), int), terminals=TERMINATED, timeouts=TRUNCATED))
    assert "MultiDiscrete" in error.value.remedy
    half = write(tmp_path, ".hdf5", actions=np.full(STEPS, 0.5), terminals=ENDS, discrete_action=True)
    with pytest.raises(DatasetUnreadable, match=r"an action is 0\.5"):
        ends(half)


def test_finite_bounds_of_a_half_infinite_box_stay() -> None:
    """Only infinite bounds are inferred: 1 for data within -1 and 1, else the greatest of the data."""
    actions = np.array([[0.1, 0.5, 7.0], [3.0, -0.5, 8.0]])
    declared = ContinuousActions((0.0, -np.inf, -np.inf), (np.inf, 2.0, np.inf), "dataset")
    space = infer_action_space(actions, declared)
    assert space == ContinuousActions((0.0, -1.0, 7.0), (3.0, 2.0, 8.0), "dataset+data")


def test_dropped_text_leaves_neighbours() -> None:
    """The spaces beside a text are kept as declared, in a Tuple under their numbers."""
    text, four = {"type": "Text"}, {"type": "Discrete", "n": 4, "start": 0}
    space = {"type": "Dict", "subspaces": {"mission": text, "direction": four}}
    assert without(space, frozenset({"mission"})) == {"type": "Dict", "subspaces": {"direction": four}}
    space = {"type": "Tuple", "subspaces": [text, four]}
    assert without(space, frozenset({"_index_0"})) == {"type": "Dict", "subspaces": {"_index_1": four}}


def test_misfit_names_both_shapes() -> None:
    """A lost shape is told with the declared one."""
    space = {"type": "MultiBinary", "n": [2, 3]}
    assert misfit(space, {"": np.zeros((2, 3), np.int8)}) is None
    assert misfit(space, {"": np.zeros(6, np.int8)}) == "has shape (6,), the declared space (2, 3)"
    box = {"type": "Box", "shape": [], "low": -1.0, "high": 1.0, "dtype": "float32"}
    assert misfit(box, {"": np.zeros(1, np.float32)}) == "has shape (1,), the declared space ()"


def test_arrow_keeps_declared_shapes() -> None:
    """Arrow keeps flat lists: a MultiBinary((2, 3)) and a scalar Box get their shapes from the declared space."""
    import pyarrow

    from iq_offline.data.formats.minari_arrow import _array

    flat = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.arange(12, dtype=np.int8)), 6)
    shaped = _array(flat, {"type": "MultiBinary", "n": [2, 3]}, encoded=False, folder=Path("x"))
    np.testing.assert_array_equal(shaped, np.arange(12).reshape(2, 2, 3))
    single = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array([1.0, 2.0]), 1)
    np.testing.assert_array_equal(_array(single, {"type": "Box", "shape": []}, encoded=False, folder=Path("x")), [1, 2])


def test_frames_of_a_stack_are_channels() -> None:
    """Each frame's colours are channels, in the order of the frames, for either order of the axes."""
    import torch

    stack = np.random.default_rng(0).integers(0, 256, (2, 4, 9, 8, 3))
    pixels = torch.as_tensor(stack.reshape(2, -1), dtype=torch.float32)
    expected = stack.transpose(0, 1, 4, 2, 3).reshape(2, 12, 9, 8)
    assert channels_first((4, 9, 8, 3)) == channels_first((4, 3, 9, 8)) == (12, 9, 8)
    np.testing.assert_array_equal(_planes(pixels, (4, 9, 8, 3)), expected)


def test_minari_04_is_read_from_attributes(tmp_path: Path) -> None:
    """Up to Minari 0.4 all metadata were attributes of the HDF5 file."""
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "w") as file:
        box = {"type": "Box", "dtype": "int32", "shape": [2], "low": [-5, -5], "high": [5, 5]}
        file.attrs.update({"total_episodes": 1, "total_steps": 3, "dataset_id": "old-v0"})
        file.attrs.update({"action_space": json.dumps(box), "observation_space": json.dumps(box | {"shape": [4]})})
        group = file.create_group("episode_0")
        group["observations"], group["actions"] = np.zeros((4, 4), "f4"), np.ones((3, 2), "i4")
        group["rewards"], group["terminations"] = np.ones(3), np.array([False, False, True])
        group["truncations"] = np.zeros(3, bool)
    (episode,) = read_episodes(Located(name="old", path=tmp_path))
    assert (len(episode), episode.terminated, episode.actions.dtype.kind) == (3, True, "f")


def test_locked_file_is_told_so() -> None:
    """HDF5's own words for a lock become: another process writes."""
    error = unreadable(Path("x.hdf5"), OSError("unable to lock file, errno = 11"))
    assert "another process is writing it" in error.problem


def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO would block for ever."""
    os.mkfifo(tmp_path / "data.npz")
    with pytest.raises(DatasetUnreadable, match="neither a file nor a folder"):
        check_is_file(tmp_path / "data.npz")
    with pytest.raises(DatasetUnreadable):
        detect(tmp_path / "data.npz")


@pytest.mark.parametrize(("mask", "file_mode", "folder_mode"), [(0o077, 0o600, 0o700), (0o002, 0o664, 0o775)])
def test_umask_is_honoured(tmp_path: Path, mask: int, file_mode: int, folder_mode: int) -> None:
    """What is written has the permissions that the umask leaves."""
    before = os.umask(mask)
    try:
        with whole_file(tmp_path / ("é" * 120)) as temporary:
            temporary.write_text("x")
        with whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / ("é" * 120)).stat().st_mode & 0o777 == file_mode
    assert (tmp_path / "folder").stat().st_mode & 0o777 == folder_mode


def test_names_that_are_not_utf8_are_shown_escaped(tmp_path: Path) -> None:
    """An unused array of such a name is left out by name; an observation of such a name is refused."""
    path = write(tmp_path, ".hdf5", terminals=TERMINATED, timeouts=TRUNCATED)
    with h5py.File(path, "a") as file:
        h5py.h5g.create(file.id, b"bad\xff")
    source = read_episodes(Located(name="x", path=path))
    assert source.info.notes == (r"left out, being no step's data: bad\xff",)
    with h5py.File(path, "a") as file:
        del file["observations"]
        group = file.create_group("observations")
        h5py.h5d.create(group.id, b"bad\xff", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((STEPS, 3)))
    with pytest.raises(DatasetUnreadable, match="no name for an array"):
        ends(path)


def test_length_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    """Python does not print such a number; the message does without."""
    episode = {"observations": np.zeros((3, 2)), "actions": np.zeros((3, 1)), "lengths": 10**5000}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([episode]))
    with pytest.raises(DatasetError, match="beyond 64 bits"):
        ends(tmp_path / "x.pkl")
