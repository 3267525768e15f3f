"""HDF5 files that reach outside themselves, run in circles or claim what they cannot hold: refused, with no effect."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import iq_offline
from iq_offline import paths
from iq_offline.data.catalogue import Located
from iq_offline.data.formats import d4rl, minari
from iq_offline.data.table import open_table
from iq_offline.errors import DatasetUnreadable, InvalidEpisode


def external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.hdf5", "w") as secret:
        secret["x"] = np.zeros((7, 3))
    file["observations"] = h5py.ExternalLink(str(folder / "secret.hdf5"), "/x")


def soft_link_loop(file: h5py.File, _: Path) -> None:
    file["observations"] = h5py.SoftLink("/observations")


def soft_link_elsewhere(file: h5py.File, _: Path) -> None:
    file["observations"] = h5py.SoftLink("/nowhere")


def group_loop(file: h5py.File, _: Path) -> None:
    group = file.create_group("observations")
    group["again"] = group


def external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret.bin").write_bytes(bytes(84))
    file.create_dataset("observations", (7, 3), "f4", external=[(str(folder / "secret.bin"), 0, 84)])


def virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "secret.hdf5", "w") as secret:
        secret["x"] = np.zeros((7, 3), "f4")
    layout = h5py.VirtualLayout((7, 3), "f4")
    layout[:] = h5py.VirtualSource(folder / "secret.hdf5", "x", (7, 3))
    file.create_virtual_dataset("observations", layout)


def absurd_shape(file: h5py.File, _: Path) -> None:
    file.create_dataset("observations", (10**15, 3), "f4", chunks=(1000, 3))


def bomb(file: h5py.File, _: Path) -> None:
    array = file.create_dataset("observations", (200_000_000, 1), "f4", chunks=(1_000_000, 1), compression="gzip")
    array[:1_000_000] = 0


def vast_chunk(file: h5py.File, _: Path) -> None:
    file.create_dataset("observations", (7, 3), "f4", chunks=(250_000_000, 3), maxshape=(None, 3), compression="gzip")


def texts(file: h5py.File, _: Path) -> None:
    file["observations"] = np.array([b"a"] * 7)


def objects(file: h5py.File, _: Path) -> None:
    array = file.create_dataset("observations", (7,), dtype=h5py.vlen_dtype(np.float32))
    array[0] = [1.0]


def nothing(file: h5py.File, _: Path) -> None:
    file["observations"] = h5py.Empty("f4")


TRAPS: list[Callable[[h5py.File, Path], None]] = [
    *(external_link, soft_link_loop, soft_link_elsewhere, group_loop, external_storage, virtual),
    *(absurd_shape, bomb, vast_chunk, texts, objects, nothing),
]


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a_hostile_d4rl_file_has_no_effect(trap, numbered, write_d4rl, tmp_path: Path):
    """A hostile D4RL file is refused with no effect."""
    arrays = numbered([3, 4], terminated=[True, False])
    del arrays["next_observations"]
    path = write_d4rl(arrays)
    with h5py.File(path, "r+") as file:
        del file["observations"]
        trap(file, tmp_path)
    with pytest.raises((DatasetUnreadable, InvalidEpisode), match=r"demo\.hdf5"):
        open_table(Located("x", path))
    assert list((paths.home() / "tables").glob("*/*")) == []


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a_hostile_minari_dataset_has_no_effect(trap, numbered, write_d4rl, tmp_path: Path):
    """A hostile Minari dataset is refused with no effect."""
    minari.write(d4rl.read(write_d4rl(numbered([3, 7], terminated=[True, False])), "x"), tmp_path / "x-v0")
    with h5py.File(tmp_path / "x-v0" / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_1/observations"]
        trap(file["episode_1"], tmp_path)
    with pytest.raises((DatasetUnreadable, InvalidEpisode), match="main_data"):
        open_table(Located("x", tmp_path / "x-v0"))
    assert list((paths.home() / "tables").glob("*/*")) == []


def test_an_episode_that_is_a_link_is_refused(numbered, write_d4rl, tmp_path: Path):
    minari.write(d4rl.read(write_d4rl(numbered([3, 7], terminated=[True, False])), "x"), tmp_path / "x-v0")
    with h5py.File(tmp_path / "x-v0" / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_1"]
        file["episode_1"] = h5py.SoftLink("/episode_0")
    with pytest.raises(DatasetUnreadable, match="'episode_1' is not a group of this file"):
        open_table(Located("x", tmp_path / "x-v0"))


@pytest.mark.parametrize("field", ["env_spec", "observation_space", "action_space"])
def test_metadata_that_is_no_json_inside_is_refused(field: str, numbered, write_d4rl, tmp_path: Path):
    import json

    minari.write(d4rl.read(write_d4rl(numbered([3], terminated=[True])), "x"), tmp_path / "x-v0")
    path = tmp_path / "x-v0" / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: "{["}))
    with pytest.raises(DatasetUnreadable, match=f"{field} in metadata.json is not a JSON object"):
        minari.read(tmp_path / "x-v0", "x")


def test_missing_episodes_are_noticed(numbered, write_d4rl, tmp_path: Path):
    """A dataset with missing episodes is not taken for whole."""
    minari.write(d4rl.read(write_d4rl(numbered([3, 7], terminated=[True, False])), "x"), tmp_path / "x-v0")
    with h5py.File(tmp_path / "x-v0" / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_1"]
    with pytest.raises(DatasetUnreadable, match=r"tells of 2 episodes, main_data\.hdf5 has 1"):
        minari.read(tmp_path / "x-v0", "x")


def test_the_command_exits_2_without_a_traceback(numbered, write_d4rl, tmp_path: Path):
    path = write_d4rl(numbered([3], terminated=[True]))
    with h5py.File(path, "r+") as file:
        del file["observations"]
        soft_link_loop(file, tmp_path)
    command = [sys.executable, "-m", "iq_offline", "convert", str(path), "--to", str(tmp_path / "out-v0")]
    environment = os.environ | {"PYTHONPATH": str(Path(iq_offline.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out-v0").exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"data_format": "arrow", "total_episodes": "x"}',
        '{"action_space": "{}"}',
        '{"ref_min_score": "low", "ref_max_score": "high"}',
        "[" * 100_000,
    ],
    ids=["a number that is none", "a space without a type", "scores that are none", "without end"],
)
def test_metadata_of_the_wrong_kind_is_refused(text: str, numbered, write_d4rl, tmp_path: Path):
    minari.write(d4rl.read(write_d4rl(numbered([3], terminated=[True])), "x"), tmp_path / "x-v0")
    (tmp_path / "x-v0" / "data" / "metadata.json").write_text(text)
    with pytest.raises(DatasetUnreadable, match="x-v0"):
        minari.read(tmp_path / "x-v0", "x")
