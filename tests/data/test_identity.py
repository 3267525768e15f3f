"""Hashes and tables are remembered only while the files are as they were."""

import hashlib
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from iq_offline import paths
from iq_offline.data import files, identity
from iq_offline.data.catalogue import Located
from iq_offline.data.files import whole_file, whole_folder
from iq_offline.data.identity import content_key, sha256_of, state_of
from iq_offline.data.table import open_table
from iq_offline.errors import DatasetUnreadable


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed, in order."""
    hashed: list[Path] = []
    real = files.digest_of_file
    monkeypatch.setattr(files, "digest_of_file", lambda path, make: hashed.append(path) or real(path, make))
    return hashed


def slow_sha256(path: Path) -> str:
    """Of a file's bytes; of a folder's names and hashes."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    lines = [f"{file.name}\0{slow_sha256(file)}\n" for file in sorted(path.iterdir())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file that was just written count as at rest."""
    monkeypatch.setattr(identity, "SETTLED_SECONDS", -60.0)


def test_hashes_are_those_of_the_slow_way(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"1" * 1_000_000)
    (tmp_path / "a" / "two").write_bytes(b"")
    assert sha256_of(tmp_path / "a" / "one") == slow_sha256(tmp_path / "a" / "one")
    assert sha256_of(tmp_path / "a") == slow_sha256(tmp_path / "a")
    assert content_key(tmp_path / "a" / "one") != content_key(tmp_path / "a" / "two")


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, counted, monkeypatch):
    settle(monkeypatch)
    path = tmp_path / "x"
    path.write_bytes(b"data")
    assert [sha256_of(path) for _ in range(3)] == [slow_sha256(path)] * 3
    assert content_key(path) == content_key(path)
    assert len(counted) == 2


def test_a_change_keeping_size_and_time_is_seen(tmp_path: Path, monkeypatch):
    """A change that keeps size and time is seen."""
    settle(monkeypatch)
    path = tmp_path / "x"
    path.write_bytes(b"data")
    before, times = sha256_of(path), path.stat()
    path.write_bytes(b"atad")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert sha256_of(path) != before


def test_a_file_just_written_is_not_remembered(tmp_path: Path, counted):
    """A file that was just written is not remembered."""
    path = tmp_path / "x"
    path.write_bytes(b"data")
    sha256_of(path)
    sha256_of(path)
    assert len(counted) == 2


def test_a_damaged_memory_of_hashes_is_made_anew(tmp_path: Path, monkeypatch):
    settle(monkeypatch)
    path = tmp_path / "x"
    path.write_bytes(b"data")
    expected = sha256_of(path)
    for record in (paths.home() / "hashes").iterdir():
        record.write_text('{"state": 3')
    assert sha256_of(path) == expected


def test_a_folders_state_changes_with_any_file(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"1")
    before = state_of(tmp_path / "a")
    (tmp_path / "a" / "two").write_bytes(b"2")
    assert state_of(tmp_path / "a") != before


@pytest.mark.parametrize("fault", ["flipped", "cut", "missing", "no table.json", "old episodes"])
def test_a_broken_table_is_made_again(fault: str, numbered, write_d4rl):
    located = Located("x", write_d4rl(numbered([3, 2], terminated=[True, False])))
    whole = np.array(open_table(located).rows)
    (folder,) = (path for path in (paths.home() / "tables").iterdir() if path.is_dir())
    rows = folder / "rows.f32"
    times = rows.stat()
    if fault == "flipped":
        with rows.open("r+b") as file:
            file.write(b"\xff\xff")
        os.utime(rows, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif fault == "cut":
        os.truncate(rows, 8)
    elif fault == "missing":
        rows.unlink()
    elif fault == "no table.json":
        (folder / "table.json").write_text("{")
    else:
        (folder / "episodes.arrow").write_bytes((folder / "episodes.arrow").read_bytes())
    np.testing.assert_array_equal(open_table(located).rows, whole)


def test_training_cannot_change_a_table(numbered, write_d4rl):
    """A table that is trained on can not be changed by it."""
    located = Located("x", write_d4rl(numbered([3], terminated=[True])))
    table = open_table(located)
    table.rows[0, 0] = 99.0
    assert open_table(located).rows[0, 0] == 0.0


def test_copies_of_a_file_share_one_table(numbered, write_d4rl, tmp_path: Path):
    path = write_d4rl(numbered([3], terminated=[True]))
    (tmp_path / "copy.hdf5").write_bytes(path.read_bytes())
    open_table(Located("x", path))
    open_table(Located("y", tmp_path / "copy.hdf5"))
    assert len([folder for folder in (paths.home() / "tables").iterdir() if folder.is_dir()]) == 1


def test_data_changed_in_use_are_not_recorded(numbered, write_d4rl):
    """Data that change while in use are not recorded as what was read."""
    path = write_d4rl(numbered([3], terminated=[True]))
    table = open_table(Located("x", path))
    with h5py.File(path, "r+") as file:
        file["rewards"][0] = 5.0
    with pytest.raises(DatasetUnreadable, match="changed while it was in use"):
        _ = table.info.sha256


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_only_what_dead_processes_left_is_cleared(kind: str, tmp_path: Path):
    """What a dead process left is cleared and a live one's is not."""
    from iq_offline.data import files

    target = tmp_path / "x"
    dead, living = 2**22 + 5, os.getppid()
    prefix = files._prefix(target).rsplit(f"{os.getpid()}-", 1)[0]
    left = [tmp_path / f"{prefix}{process}-abc.part" for process in (dead, living)]
    for path in left:
        path.mkdir() if kind == "folder" else path.write_text("half")
    with whole_folder(target) if kind == "folder" else whole_file(target):
        pass
    assert [path.exists() for path in left] == [False, True]


def test_data_changed_while_packed_make_no_table(numbered, write_d4rl, monkeypatch):
    """Data that change while they are packed make no table."""
    from iq_offline.data import table

    path = write_d4rl(numbered([3], terminated=[True]))
    real = table.pack

    def pack_and_touch(*arguments):
        content = real(*arguments)
        with h5py.File(path, "r+") as file:
            file["rewards"][0] = 5.0
        return content

    monkeypatch.setattr(table, "pack", pack_and_touch)
    with pytest.raises(DatasetUnreadable, match="changed while it was read"):
        open_table(Located("x", path))
    assert [folder for folder in (paths.home() / "tables").iterdir() if folder.is_dir()] == []
