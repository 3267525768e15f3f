"""Every test has a store of its own, and small episodes to work on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))
from tests_support import Arrays, linear_arrays, numbered_arrays, write_hdf5

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
