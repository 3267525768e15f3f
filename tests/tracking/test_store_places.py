"""Where MLflow's store lies: a home that moves, odd characters, and files that are no store, told within seconds."""

import json
import shutil
import socket
import sqlite3
import time
from pathlib import Path

import pytest

from iq_offline.errors import TrackingUnavailable
from iq_offline.tracking import mlflow_access
from iq_offline.tracking.mirror import _read_note
from iq_offline.tracking.mlflow_access import sqlite_file, sqlite_uri, tracking_uri
from iq_offline.tracking.mlflow_store import MlflowStore, RunDescription


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database that has its tables and nothing else."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


def made_in(home: Path, tables: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[MlflowStore, str]:
    """A store in that home, with a run that has one artifact."""
    (home / "mlflow").mkdir(parents=True)
    shutil.copy(tables, home / "mlflow")
    monkeypatch.setenv("IQ_OFFLINE_HOME", str(home))
    store = MlflowStore.open()
    run_id = store.create(RunDescription("run", "group", "hash", {}, ()), store.parent("group"))
    (home / "note.txt").write_text("here")
    store.log_files(run_id, [home / "note.txt"])
    return store, run_id


@pytest.mark.parametrize("moved", [True, False], ids=["moved", "copied"])
def test_artifacts_follow_their_home(moved: bool, tables, tmp_path, monkeypatch):
    """After a move or a copy, artifacts are read and written beside the database, and the old place stays as it is."""
    old, new = tmp_path / "old", tmp_path / "new"
    _, run_id = made_in(old, tables, monkeypatch)
    (shutil.move if moved else shutil.copytree)(old, new)
    before = sorted(old.rglob("*"))
    monkeypatch.setenv("IQ_OFFLINE_HOME", str(new))
    store = MlflowStore.open()
    (new / "later.txt").write_text("later")
    store.log_files(run_id, [new / "later.txt"])
    assert store.files(run_id) == {"note.txt", "later.txt"}
    assert sorted(old.rglob("*")) == before
    assert old.exists() is not moved


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "a b", "a?b=c"])
def test_odd_characters_do_not_cut_the_path(name: str, tables, tmp_path, monkeypatch):
    """Database and artifacts lie in the home, whatever its name."""
    store, run_id = made_in(tmp_path / name, tables, monkeypatch)
    assert store.files(run_id) == {"note.txt"}
    assert sqlite_file(store.uri) == tmp_path / name / "mlflow" / "mlflow.db"
    assert sorted(item.name for item in tmp_path.iterdir()) == [name]


def test_artifacts_lie_beside_a_named_database(tables, tmp_path, monkeypatch):
    """A relative `MLFLOW_TRACKING_URI` too; the current folder stays empty."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    shutil.copy(tables, tmp_path / "elsewhere.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///../elsewhere.db")
    store = MlflowStore.open()
    (tmp_path / "note.txt").write_text("here")
    store.log_files(store.parent("group"), [tmp_path / "note.txt"])
    assert len(list((tmp_path / "artifacts").rglob("note.txt"))) == 1
    assert list((tmp_path / "work").iterdir()) == []


def test_uris_and_files_name_each_other(tmp_path, monkeypatch):
    """A file's URI gives the file again; a query is no part of the path."""
    for name in ("a.db", "a?b.db", "a%b.db", "a?b=c/d.db"):
        assert sqlite_file(sqlite_uri(tmp_path / name)) == tmp_path / name
    assert sqlite_file("sqlite:////x/a.db?timeout=5") == Path("/x/a.db")
    assert sqlite_file("http://host") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host/mlflow")
    assert tracking_uri() == "http://host/mlflow"


def test_damaged_store_is_told_at_once(home):
    """What is no database costs less than a second, with the file and a remedy."""
    (home / "mlflow").mkdir(parents=True)
    (home / "mlflow" / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(TrackingUnavailable, match=r"not a database[\s\S]*move the file aside"):
        MlflowStore.open()


def test_newer_store_names_the_remedy(tables, home):
    """Tables of a version that this MLflow does not know were made by a newer one."""
    (home / "mlflow").mkdir(parents=True)
    file = shutil.copy(tables, home / "mlflow" / "mlflow.db")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(TrackingUnavailable, match=r"newer MLflow[\s\S]*pip install -U mlflow"):
        MlflowStore.open()


def test_silent_server_is_given_up(monkeypatch):
    """A server that takes the connection and never answers; its password is not shown."""
    monkeypatch.setattr(mlflow_access, "REACH_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:secret@127.0.0.1:{silent.getsockname()[1]}/mlflow")
        began = time.monotonic()
        with pytest.raises(TrackingUnavailable) as caught:
            MlflowStore.open()
    assert time.monotonic() - began < 2
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"[]", b'{"run_id": 3}', b"{"])
def test_damaged_note_counts_as_none(content: bytes, tmp_path):
    """A `tracking.json` that cannot be read says nothing of where the mirror is."""
    (tmp_path / "tracking.json").write_bytes(content)
    assert _read_note(tmp_path) is None
    whole = {"uri": "sqlite:///x", "experiment_id": "1", "run_id": "r", "parent_run_id": "p"}
    (tmp_path / "tracking.json").write_text(json.dumps(whole))
    assert _read_note(tmp_path) == whole
