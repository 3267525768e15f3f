"""Every test has a store of its own, and small episodes to work on."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
from tests_support import Arrays, linear_arrays, numbered_arrays, without_drawing, write_hdf5

WriteD4RL = Callable[..., Path]
for name, examples in {"few": 8, "all": 40}.items():
    fixtures = [HealthCheck.function_scoped_fixture]
    settings.register_profile(name, max_examples=examples, deadline=None, suppress_health_check=fixtures)
settings.load_profile("few")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh IQ_OFFLINE_HOME, and no tracking server or Minari store from outside."""
    folder = tmp_path / "home"
    monkeypatch.setenv("IQ_OFFLINE_HOME", str(folder))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first SQLite store of MLflow that this process makes is kept, with its tables and no run."""
    return tmp_path_factory.mktemp("store") / "mlflow.db"


@pytest.fixture(autouse=True)
def stores_are_copied(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later SQLite stores start as copies of the first: MLflow takes more than a second to make its tables."""
    from iq_offline.tracking import mlflow_store
    from iq_offline.tracking.mlflow_access import sqlite_file

    def connect(uri: str) -> Any:
        file = sqlite_file(uri)
        is_new = file is not None and (not file.exists() or file.stat().st_size == 0)
        if is_new and empty_store.exists():
            shutil.copy(empty_store, file)
        client = make_client(uri)
        if is_new and not empty_store.exists():
            client.search_experiments()
            shutil.copy(file, empty_store)
        return client

    make_client = mlflow_store.connect
    monkeypatch.setattr(mlflow_store, "connect", connect)


@pytest.fixture
def undrawn() -> Iterator[None]:
    """`without_drawing` for a whole test."""
    with without_drawing():
        yield


@pytest.fixture
def numbered() -> Callable[..., Arrays]:
    """`numbered_arrays`."""
    return numbered_arrays


@pytest.fixture
def write_d4rl(tmp_path: Path) -> WriteD4RL:
    """`write_hdf5` into the test's folder: write_d4rl(arrays, name=..., env_id=...)."""

    def write(arrays: Arrays, name: str = "demo.hdf5", **attributes: Any) -> Path:
        return write_hdf5(tmp_path / name, arrays, **attributes)

    return write


@pytest.fixture
def linear_task(write_d4rl: WriteD4RL) -> Path:
    """Six episodes of 40 steps whose action is a clipped linear function of the observation; Pendulum-like sizes."""
    return write_d4rl(linear_arrays(), name="linear.hdf5")
