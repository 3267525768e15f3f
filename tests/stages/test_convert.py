"""Conversions are whole, read back, recorded, repeatable, and survive being killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from iq_offline.data.episodes import EpisodeSource
from iq_offline.data.formats import d3rlpy, d4rl, flat_npz, minari
from iq_offline.errors import ConfigError, DatasetUnreadable, InvalidEpisode
from iq_offline.stages import convert
from iq_offline.stages.convert import ConvertRequest, convert_dataset

TARGETS = {"minari": "out-v0", "d4rl": "out.hdf5", "d3rlpy": "out.h5", "npz": "out.npz"}
READERS = {"minari": minari.read, "d4rl": d4rl.read, "d3rlpy": d3rlpy.read, "npz": flat_npz.read}


def observations(source: EpisodeSource) -> list[list[float]]:
    return [episode.observations[:, 0].tolist() for episode in source]


@pytest.fixture
def recording(numbered, write_d4rl) -> Path:
    arrays = numbered([3, 1, 4], terminated=[True, False, False])
    arrays["timeouts"][-1] = False
    return write_d4rl(arrays)


def test_a_source_unlike_its_environment_is_refused(numbered, write_d4rl, tmp_path: Path):
    """A source that does not fit its environment is told by name."""
    path = write_d4rl(numbered([3], terminated=[True]), env_id="Pendulum-v1")
    request = ConvertRequest(output_format="d4rl")
    with pytest.raises(InvalidEpisode, match=r"/out.hdf5: actions have shape \(2,\), but Pendulum-v1 has 1"):
        convert_dataset(str(path), tmp_path / "out.hdf5", request)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_holds_the_same_episodes(target: str, recording: Path, tmp_path: Path):
    """Every target holds the same episodes and its provenance."""
    destination = tmp_path / TARGETS[target]
    record = convert_dataset(str(recording), destination, ConvertRequest(output_format=target))
    assert observations(READERS[target](destination, "x")) == observations(d4rl.read(recording, "x"))
    assert record["read"] == {
        **{"episodes": 3, "steps": 8, "unflagged_tail": 1},
        **{"discontinuity": 0, "unknown_successor": 0},
    }
    assert record["source"]["sha256"] == d4rl.read(recording, "x").info.sha256
    beside = destination / "provenance.json" if target == "minari" else destination.with_suffix(".provenance.json")
    assert json.loads(beside.read_text()) == json.loads(json.dumps(record))
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_conversion_is_left_alone(target: str, recording: Path, tmp_path: Path):
    """The same conversion again is left as it is."""
    destination, request = tmp_path / TARGETS[target], ConvertRequest(output_format=target)
    first = convert_dataset(str(recording), destination, request)
    changed = destination.stat().st_mtime_ns
    again = convert_dataset(str(recording), destination, request)
    assert again == json.loads(json.dumps(first))
    assert destination.stat().st_mtime_ns == changed


def test_a_conversion_killed_late_is_completed(recording: Path, tmp_path: Path):
    """A conversion that died at its last step is made whole."""
    destination = tmp_path / "minari" / "space" / "out-v0"
    convert_dataset(str(recording), destination, ConvertRequest())
    marker = destination.parent / "namespace_metadata.json"
    marker.unlink()
    convert_dataset(str(recording), destination, ConvertRequest())
    assert marker.is_file()


def test_another_conversion_never_replaces_one_that_is_there(recording: Path, tmp_path: Path):
    convert_dataset(str(recording), tmp_path / "out.hdf5", ConvertRequest(output_format="d4rl"))
    narrowed = ConvertRequest(output_format="d4rl", floats="float64")
    with pytest.raises(ConfigError, match="exists, and is not this conversion"):
        convert_dataset(str(recording), tmp_path / "out.hdf5", narrowed)


def test_a_changed_destination_is_refused(recording: Path, tmp_path: Path):
    """A changed destination is not taken for the conversion."""
    request = ConvertRequest(output_format="d4rl")
    convert_dataset(str(recording), tmp_path / "out.hdf5", request)
    with h5py.File(tmp_path / "out.hdf5", "r+") as file:
        file["rewards"][0] = 7.0
    with pytest.raises(ConfigError, match="exists, and is not this conversion"):
        convert_dataset(str(recording), tmp_path / "out.hdf5", request)


@pytest.mark.parametrize(("floats", "dtype"), [("keep", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_real_numbers_are_kept_or_cast_as_asked(floats: str, dtype: str, recording: Path, tmp_path: Path):
    convert_dataset(str(recording), tmp_path / "out-v0", ConvertRequest(floats=floats))
    (first, *_) = minari.read(tmp_path / "out-v0", "x")
    assert first.observations.dtype == first.actions.dtype == dtype


def test_numbers_too_large_for_the_type_are_refused(numbered, write_d4rl, tmp_path: Path):
    arrays = numbered([3], terminated=[True])
    arrays["observations"] = arrays["observations"].astype(np.float64) * 1e300
    arrays["next_observations"] = arrays["next_observations"].astype(np.float64) * 1e300
    with pytest.raises(InvalidEpisode, match="not finite in observations"):
        convert_dataset(str(write_d4rl(arrays)), tmp_path / "out-v0", ConvertRequest(floats="float32"))


def broken(numbered, write_d4rl) -> Path:
    arrays = numbered([3, 4, 5, 2], terminated=[True, False, True, True])
    arrays["actions"][4] = np.nan
    arrays["rewards"][-1] = np.inf
    return write_d4rl(arrays)


def test_a_broken_episode_stops_the_conversion(numbered, write_d4rl, tmp_path: Path):
    """A broken episode stops the conversion and leaves nothing."""
    with pytest.raises(InvalidEpisode, match=r"episode 1 has a value that is not finite in actions at its step 1"):
        convert_dataset(str(broken(numbered, write_d4rl)), tmp_path / "out-v0", ConvertRequest())
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["demo.hdf5"]


def test_keep_going_skips_and_counts_broken_episodes(numbered, write_d4rl, tmp_path: Path):
    """Keep going leaves broken episodes out and counts them."""
    path = broken(numbered, write_d4rl)
    record = convert_dataset(str(path), tmp_path / "out-v0", ConvertRequest(keep_going=True))
    assert (record["read"]["episodes"], record["read"]["steps"]) == (2, 8)
    assert record["left_out"]["episodes"] == 2
    assert "episode 1 " in record["left_out"]["faults"][0]
    assert "episode 3 " in record["left_out"]["faults"][1]
    assert [episode.observations[0, 0] for episode in minari.read(tmp_path / "out-v0", "x")] == [0.0, 200.0]


def test_keep_going_with_nothing_left_writes_nothing(numbered, write_d4rl, tmp_path: Path):
    arrays = numbered([3], terminated=[True])
    arrays["rewards"][0] = np.nan
    with pytest.raises(DatasetUnreadable, match="no episodes"):
        convert_dataset(str(write_d4rl(arrays)), tmp_path / "out-v0", ConvertRequest(keep_going=True))
    assert not (tmp_path / "out-v0").exists()


def test_infos_are_carried_or_named(numbered, write_d4rl, tmp_path: Path):
    """Infos are carried where the format can and named where it cannot."""
    arrays = numbered([3, 2], terminated=[True, False])
    path = write_d4rl(arrays | {"infos/qpos": np.arange(5.0), "metadata/policy": np.zeros(7)})
    kept = convert_dataset(str(path), tmp_path / "out-v0", ConvertRequest())
    infos = [episode.infos["qpos"].tolist() for episode in minari.read(tmp_path / "out-v0", "x").checked(infos=True)]
    assert infos == [[0.0, 1.0, 2.0], [3.0, 4.0]]
    assert kept["notes"] == ["left out, being no step's data: metadata"]
    lost = convert_dataset(str(path), tmp_path / "out.npz", ConvertRequest(output_format="npz"))
    assert lost["left_out"]["infos"] == ["qpos"]
    without = convert_dataset(str(path), tmp_path / "bare-v0", ConvertRequest(infos=False))
    assert without["left_out"]["infos"] == []
    assert all(not episode.infos for episode in minari.read(tmp_path / "bare-v0", "x").checked(infos=True))


@pytest.mark.parametrize("target", TARGETS)
def test_infos_of_one_array_stay_one(target: str, numbered, write_d4rl, tmp_path: Path):
    """Infos that are one array are carried as one."""
    path = write_d4rl(numbered([3, 2], terminated=[True, False]) | {"infos": np.arange(5.0)})
    record = convert_dataset(str(path), tmp_path / TARGETS[target], ConvertRequest(output_format=target))
    if target in {"minari", "d4rl"}:
        read = READERS[target](tmp_path / TARGETS[target], "x").checked(infos=True)
        assert [episode.infos["infos"].tolist() for episode in read] == [[0.0, 1.0, 2.0], [3.0, 4.0]]
    else:
        assert record["left_out"]["infos"] == ["infos"]


def test_infos_of_some_episodes_stay_aligned(numbered, write_d4rl, tmp_path: Path):
    """Infos that only some episodes have are not misaligned."""
    minari.write(d4rl.read(write_d4rl(numbered([3, 2], terminated=[True, True])), "x"), tmp_path / "x-v0")
    with h5py.File(tmp_path / "x-v0" / "data" / "main_data.hdf5", "r+") as file:
        file["episode_1/infos/late"] = np.zeros(2)
    with pytest.raises(InvalidEpisode, match="some episodes have infos/late, others not"):
        convert_dataset(str(tmp_path / "x-v0"), tmp_path / "out.hdf5", ConvertRequest(output_format="d4rl"))
    plain = ConvertRequest(output_format="d4rl", infos=False)
    assert convert_dataset(str(tmp_path / "x-v0"), tmp_path / "out.hdf5", plain)["read"]["episodes"] == 2


def test_a_writer_that_loses_something_is_found_out(recording: Path, tmp_path: Path, monkeypatch):
    def lossy(source: EpisodeSource, temporary: Path, *_: object) -> None:
        whole = list(source)
        whole[0].rewards[0] += 1e-6
        d4rl.write(EpisodeSource(source.info, whole), temporary)

    monkeypatch.setattr(convert, "_write", lossy)
    with pytest.raises(DatasetUnreadable, match="does not read back as it was"):
        convert_dataset(str(recording), tmp_path / "out.hdf5", ConvertRequest(output_format="d4rl"))
    assert not (tmp_path / "out.hdf5").exists()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["minari", "d4rl"])
def test_a_killed_conversion_leaves_nothing_whole(target: str, numbered, write_d4rl, tmp_path: Path):
    """Killed at any moment it leaves nothing that passes for whole."""
    path = write_d4rl(numbered([50] * 100, terminated=[True] * 100))
    destination = tmp_path / TARGETS[target]
    command = [sys.executable, "-m", "iq_offline", "convert", str(path), "--to", str(destination), "--format", target]
    environment = os.environ | {"PYTHONPATH": str(Path(convert.__file__).parents[2])}
    rng = np.random.default_rng(0)
    for moment in rng.uniform(0.5, 2.0, size=4):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if destination.exists():
            assert len(list(READERS[target](destination, "x"))) == 100
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert observations(READERS[target](destination, "x")) == observations(d4rl.read(path, "x"))
    assert list(tmp_path.glob(".*")) == []
