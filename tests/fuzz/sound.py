"""Sound inputs of every kind, tiny: made once, and copied for each damaged input."""

import os
import pickle
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.processes import run_command
from tests_support import Arrays, write_hdf5

ENVIRONMENT = {"max_episode_steps": 12}
DATASET = "data.hdf5"
TABLE = """name: t
methods: [bc]
device: cpu
episodes: 1
updates: 2
demos: 2
seeds: 0-1
datasets:
  pole:
    dataset: {data}
    subsample: 2
overrides:
  small:
    set: {{hidden_sizes: [8]}}
"""
PRESET = """[bc-discrete]
updates = 2
hidden_sizes = [8]
batch_size = 8
learning_rate = 0.001

[iq-discrete]
updates = 2
hidden_sizes = [8]
gamma = 0.9
"prior.updates" = 2
"prior.hidden_sizes" = [8]
"""
SMALL = ("--preset", "small.toml", "--device", "cpu", "--compile", "off", "--demos", "2")
CUT = ("--updates", "250")
"""Of the training that is cut off: more than are made between two logged ones."""


def cartpole() -> Arrays:
    """Six short episodes of a policy that pushes to where the pole falls."""
    import gymnasium

    environment = gymnasium.make("CartPole-v1", **ENVIRONMENT)
    keys = ("observations", "next_observations", "actions", "rewards", "terminals", "timeouts")
    rows: dict[str, list[object]] = {key: [] for key in keys}
    for episode in range(6):
        observation, _ = environment.reset(seed=episode)
        ended = False
        while not ended:
            action = int(observation[2] + observation[3] > 0)
            following, reward, terminated, truncated, _ = environment.step(action)
            step = (observation, following, action, reward, terminated, truncated)
            for key, value in zip(keys, step, strict=True):
                rows[key].append(value)
            observation, ended = following, terminated or truncated
    return {key: np.array(values) for key, values in rows.items()}


def _episodes(arrays: Arrays) -> list[Arrays]:
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"]) + 1
    parts = {key: np.split(values, ends[:-1]) for key, values in arrays.items()}
    names = ("observations", "actions", "rewards", "terminals")
    return [{key: parts[key][number] for key in names} for number in range(len(ends))]


def make(folder: Path, *, quick: bool = False) -> None:
    """Write every sound input below `folder`, by the commands that write them; `quick`: without recovered rewards."""
    os.chdir(folder)
    arrays = cartpole()
    write_hdf5(folder / DATASET, arrays, env_id="CartPole-v1", env_kwargs=ENVIRONMENT)
    (folder / "list.pkl").write_bytes(pickle.dumps(_episodes(arrays), protocol=4))
    flags = {"observations": arrays["observations"], "actions": arrays["actions"], "rewards": arrays["rewards"]}
    np.savez(folder / "flat.npz", **flags, terminals=arrays["terminals"], timeouts=arrays["timeouts"])
    (folder / "small.toml").write_text(PRESET)
    (folder / "table.yaml").write_text(TABLE.format(data=folder / DATASET))
    data = str(folder / DATASET)
    recovered = () if quick else (("reward", "run"), ("distil", "run", "--form", "canonical", "--updates", "2"))
    for arguments in (
        ("convert", data, "--to", "minari/pole-v0"),
        ("convert", data, "--to", "d3rlpy.h5", "--format", "d3rlpy"),
        ("convert", data, "--to", "own.npz", "--format", "npz"),
        ("train", "--dataset", data, "--method", "iq", *SMALL, "--out", "run"),
        ("train", "--dataset", data, "--method", "bc", "--held-out", "0.3", *SMALL[:-1], "3", "--out", "cloned"),
        ("eval", "run", "cloned", "--episodes", "1"),
        *recovered,
        ("fetch", "demo/cartpole/expert-v0"),
    ):
        if status := run_command(arguments):
            raise RuntimeError(f"the sound inputs cannot be made: {' '.join(arguments)} ended with {status}")
    _write_arrow(folder / "arrow", arrays)
    _cut_training_off(data)


def _write_arrow(store: Path, arrays: Arrays) -> None:
    """The episodes as a Minari dataset in Arrow, by Minari itself."""
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    os.environ["MINARI_DATASETS_PATH"] = str(store)
    episodes = _episodes(arrays)
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=np.concatenate([episode["observations"], episode["observations"][-1:]]),
            actions=episode["actions"],
            rewards=episode["rewards"],
            terminations=episode["terminals"],
            truncations=(np.arange(len(episode["actions"])) == len(episode["actions"]) - 1) & ~episode["terminals"],
        )
        for number, episode in enumerate(episodes)
    ]
    space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "pole-v0", buffers, action_space=gymnasium.spaces.Discrete(2), observation_space=space, data_format="arrow"
        )


def _cut_training_off(data: str) -> None:
    """Snapshots of a training that a signal stops at its first logged update after the first snapshot."""
    from iq_offline.training.checkpointing import Checkpointer

    kept = Checkpointer.after

    def stop(self: Checkpointer, progress: Any, rows: Any) -> None:
        self._stop.signal = signal.SIGTERM
        kept(self, progress, rows)

    Checkpointer.after = stop  # type: ignore[method-assign]
    run_command(("train", "--dataset", data, "--method", "bc", *SMALL, *CUT, "--out", "cut"))
    Checkpointer.after = kept  # type: ignore[method-assign]
    if not list(Path(".cut.resume").glob("*.safetensors")):
        raise RuntimeError("the sound inputs cannot be made: a training that was cut off has left no snapshot")
