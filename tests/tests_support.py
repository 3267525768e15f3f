"""Small recorded episodes whose numbers tell where they belong."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

if TYPE_CHECKING:
    from iq_offline.config.train import TrainConfig
    from iq_offline.stages.train import RunOptions

Arrays = dict[str, np.ndarray]
Requested = tuple["TrainConfig", "RunOptions"]


def requested(
    dataset: str,
    method: str | None = None,
    preset: str | None = None,
    updates: int | None = None,
    overrides: Sequence[str] = (),
    warn: Callable[[str], None] = lambda _: None,
    **asked: Any,
) -> Requested:
    """What `train_run` takes first: the configuration, and the options, whose names are told from its own."""
    from iq_offline.stages.train import RunOptions, train_config

    options = {name: asked.pop(name) for name in RunOptions.__dataclass_fields__ if name in asked}
    return train_config(dataset, method, preset, updates, overrides, warn, **asked), RunOptions(**options)


PIXEL = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII=")
"""A PNG of one pixel."""


def numbered_arrays(lengths: list[int], *, terminated: list[bool], observation_size: int = 3) -> Arrays:
    """Episodes whose numbers tell where they belong: observation = 100 * episode + step, action = its hundredth."""
    parts: dict[str, list[np.ndarray]] = {
        key: [] for key in ("observations", "next_observations", "actions", "rewards")
    }
    terminals, timeouts = [], []
    for episode, length in enumerate(lengths):
        steps = 100.0 * episode + np.arange(length + 1)
        observations = np.repeat(steps[:, None], observation_size, axis=1).astype(np.float32)
        parts["observations"].append(observations[:-1])
        parts["next_observations"].append(observations[1:])
        parts["actions"].append((observations[:-1, :2] / 1000).astype(np.float32))
        parts["rewards"].append(np.full(length, episode + 1, dtype=np.float32))
        ends = np.zeros(length, dtype=bool)
        ends[-1] = True
        terminals.append(ends & terminated[episode])
        timeouts.append(ends & (not terminated[episode]))
    arrays = {key: np.concatenate(values) for key, values in parts.items()}
    return arrays | {"terminals": np.concatenate(terminals), "timeouts": np.concatenate(timeouts)}


def write_hdf5(path: Path, arrays: Arrays, env_id: str = "", env_kwargs: dict[str, Any] | None = None) -> Path:
    """Arrays as a D4RL file."""
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values
        file.attrs["env_id"] = env_id
        file.attrs["env_kwargs"] = json.dumps(env_kwargs or {})
    return path


def reseal(folder: Path, **changes: Any) -> None:
    """Make a run folder sound again after a change to its files; `changes`: of the manifest, None takes a key out."""
    from iq_offline.training import run_folder
    from iq_offline.training.tensor_files import read_tensors, tensors_sha256

    manifest = json.loads((folder / run_folder.MANIFEST).read_text())
    manifest |= {
        "policy_sha256": tensors_sha256(read_tensors(folder / run_folder.POLICY)),
        "checkpoint_sha256": tensors_sha256(read_tensors(folder / run_folder.CHECKPOINT)),
    }
    kept = {key: value for key, value in (manifest | changes).items() if value is not None}
    run_folder.seal_record(folder / run_folder.MANIFEST, kept)


def linear_arrays() -> Arrays:
    """Six episodes of 40 steps whose action is a clipped linear function of the observation; Pendulum-like sizes."""
    rng = np.random.default_rng(0)
    count, steps = 6, 40
    observations = rng.normal(size=(count, steps + 1, 3)).astype(np.float32)
    actions = np.clip(observations[:, :-1] @ np.array([[0.8], [-0.5], [0.3]]), -1, 1).astype(np.float32)
    ends = np.zeros((count, steps), dtype=bool)
    ends[:, -1] = True
    return {
        "observations": observations[:, :-1].reshape(-1, 3),
        "next_observations": observations[:, 1:].reshape(-1, 3),
        "actions": actions.reshape(-1, 1),
        "rewards": observations[:, :-1, 0].reshape(-1),
        "terminals": np.zeros(count * steps, dtype=bool),
        "timeouts": ends.reshape(-1),
    }


def tasks(folder: Path, linear_task: Path, *, discrete: bool) -> tuple[Path, Path]:
    """The expert's data, one episode ending in a termination, and data of the opposite actions."""
    with h5py.File(linear_task) as file:
        arrays = {key: file[key][:] for key in file}
    arrays["terminals"][79], arrays["timeouts"][79] = True, False
    files = []
    for name, sign in (("expert", 1), ("other", -1)):
        actions = sign * arrays["actions"]
        chosen = (actions[:, 0] > 0).astype("int64") if discrete else actions
        files.append(write_hdf5(folder / f"{name}.hdf5", arrays | {"actions": chosen}))
    return files[0], files[1]


@contextmanager
def without_drawing() -> Iterator[None]:
    """Lay figures out, but save a single pixel for each: for tests of `reward` and `report` that look at no picture."""
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda _, file, **__: file.write(PIXEL))
        yield
