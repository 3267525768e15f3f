"""`clean` removes what nothing uses, and a store that cannot be written is still read."""

import json
import os
import socket
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from iq_offline import paths
from iq_offline.cli import app
from iq_offline.data import identity, table
from iq_offline.data.files import whole_file
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.compile import aot_cache

DEAD = 2**22 + 1
"""No process has this number: it is above the largest that Linux gives."""


def cleaned(*options: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(app, ["clean", "--json", *options])
    assert result.exit_code == 0, result.output
    rows: list[dict[str, object]] = json.loads(result.stdout)["items"]
    return rows


def test_clean_leaves_what_is_used(home: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch):
    """A packed table goes when its dataset has gone; `--dry-run` lists it and removes nothing."""
    monkeypatch.setattr(identity, "SETTLED_SECONDS", -60.0)  # or the hash of a file written just now is not kept
    open_dataset(str(linear_task))
    assert cleaned() == []
    linear_task.unlink()
    listed = cleaned("--dry-run")
    assert {row["kind"] for row in listed} == {"packed table", "remembered hash"}
    assert all(int(str(row["bytes"])) > 0 for row in listed)
    assert list((home / "tables").glob("*-v*"))
    assert cleaned() == listed
    assert not [path for path in (home / "tables").iterdir() if path.is_dir()]


def test_clean_sweeps_dead_processes_only(home: Path):
    """Temporary files of dead processes of this machine go; those of living ones and of other machines stay."""
    folder = home / "datasets"
    folder.mkdir(parents=True)
    host = socket.gethostname()[:40]
    names = {
        "dead": f".data.hdf5.{host}-{DEAD}-abc123.part",
        "alive": f".data.hdf5.{host}-{os.getpid()}-abc123.part",
        "elsewhere": f".data.hdf5.other-machine-{DEAD}-abc123.part",
        "plain": "data.part",
    }
    for name in names.values():
        (folder / name).write_text("half")
    assert [Path(str(row["path"])).name for row in cleaned()] == [names["dead"]]
    assert {file.name for file in folder.iterdir()} == {names["alive"], names["elsewhere"], names["plain"]}


def test_clean_keeps_snapshots_to_resume_from(home: Path):
    runs = home / "runs"
    for name, finished in (("done", True), ("killed", False)):
        (runs / f".{name}.resume").mkdir(parents=True)
        (runs / f".{name}.resume" / "000000000100.safetensors").write_bytes(b"x" * 10)
        if finished:
            (runs / name).mkdir()
            (runs / name / "manifest.json").write_text("{}")
    assert [row["kind"] for row in cleaned()] == ["snapshots"]
    assert not (runs / ".done.resume").exists()
    assert (runs / ".killed.resume").exists()


def test_nested_temporary_files_are_swept(tmp_path: Path):
    """A writer inside a writer names its temporary file after the final one, so that the next try removes both."""
    destination = tmp_path / "out.hdf5"
    dead = f".out.hdf5.{socket.gethostname()[:40]}-{DEAD}-abc.part"
    (tmp_path / dead).write_text("half")
    with whole_file(destination) as outer:
        with whole_file(outer) as inner:
            assert inner.name.startswith(f".out.hdf5.{socket.gethostname()[:40]}-{os.getpid()}-")
            inner.write_text("whole")
        assert not (tmp_path / dead).exists()
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".out")] == []
    assert destination.read_text() == "whole"


def test_read_only_store_is_read(home: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the store cannot be written, a dataset is packed into a temporary folder and read from there."""
    expected = np.array(open_dataset(str(linear_task)).rows)
    other = linear_task.with_name("other.hdf5")
    other.write_bytes(linear_task.read_bytes() + b"")
    for file in (home / "tables").rglob("*"):
        if file.is_file():
            file.unlink()
    before = sorted(home.rglob("*"))
    monkeypatch.setattr("iq_offline.paths.os.access", lambda *_: False)
    assert paths.writable_home() != paths.home()
    found = open_dataset(str(other))
    np.testing.assert_array_equal(np.array(found.rows), expected)
    assert sorted(home.rglob("*")) == before
    assert table.paths.writable_home() in found.rows_file.parents


def test_store_that_is_a_file_is_named(home: Path, linear_task: Path):
    home.write_text("not a folder")
    result = CliRunner().invoke(app, ["inspect", str(linear_task)])
    assert f"{home} is a file" in str(result.exception)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A kept library: no code, but all that is looked at before it would be loaded."""
    folder = tmp_path / "compiled" / "key"
    folder.mkdir(parents=True, mode=0o700)
    (folder / aot_cache.LIBRARY).write_bytes(b"library")
    torch.save([1], folder / aot_cache.CONSTANTS)
    aot_cache._record(folder)
    folder.parent.chmod(0o755)
    return folder


def test_own_library_is_safe(kept: Path):
    assert aot_cache._is_safe(kept)


@pytest.mark.parametrize("fault", ["changed", "group", "others", "owner", "link", "record"])
def test_foreign_library_is_not_loaded(kept: Path, fault: str, monkeypatch: pytest.MonkeyPatch):
    """A library that others may have written, or that is not the recorded one, is not loaded."""
    library = kept / aot_cache.LIBRARY
    if fault == "changed":
        library.write_bytes(b"another")
    elif fault == "group":
        kept.chmod(stat.S_IRWXU | stat.S_IWGRP)
    elif fault == "others":
        kept.parent.chmod(0o777)
    elif fault == "owner":
        monkeypatch.setattr("iq_offline.training.compile.aot_cache.os.getuid", lambda: os.stat(library).st_uid + 1)  # noqa: PTH116
    elif fault == "link":
        library.rename(kept / "real")
        library.symlink_to(kept / "real")
    else:
        (kept / aot_cache.RECORD).write_text("{}")
    assert not aot_cache._is_safe(kept)
    assert aot_cache._loaded(kept, []) is None
