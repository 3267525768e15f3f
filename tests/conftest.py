"""Every test has a store of its own, and small episodes to work on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tests_support import Arrays, numbered_arrays, write_hdf5

WriteD4RL = Callable[..., Path]


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
    rng = np.random.default_rng(0)
    count, steps = 6, 40
    observations = rng.normal(size=(count, steps + 1, 3)).astype(np.float32)
    actions = np.clip(observations[:, :-1] @ np.array([[0.8], [-0.5], [0.3]]), -1, 1).astype(np.float32)
    ends = np.zeros((count, steps), dtype=bool)
    ends[:, -1] = True
    flat = {
        "observations": observations[:, :-1].reshape(-1, 3),
        "next_observations": observations[:, 1:].reshape(-1, 3),
        "actions": actions.reshape(-1, 1),
        "rewards": observations[:, :-1, 0].reshape(-1),
        "terminals": np.zeros(count * steps, dtype=bool),
        "timeouts": ends.reshape(-1),
    }
    return write_d4rl(flat, name="linear.hdf5")
