"""Dictionaries and pictures from recorded episodes to a policy, its reward and its returns in the environment."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import polars as pl
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from tests_support import requested

from iq_offline.config.pictures import PictureEncoder
from iq_offline.data.observations import leaves
from iq_offline.stages.eval import EvalRequest, evaluate_run
from iq_offline.stages.reward import RewardRequest, recover_reward
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import Tracker
from iq_offline.training.run_folder import RunFolder
from iq_offline.training.tensor_files import part

STEPS, EPISODES = 10, 8


class Reach(gymnasium.Env[Any, Any]):
    """A new place and goal every step; the right action is half the way, and a step is worth 1 less its miss."""

    observation_space = Dict({"place": Box(-1, 1, (2,)), "goal": Dict({"where": Box(-1, 1, (2,))})})
    action_space = Box(-1, 1, (2,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self._next(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = 1 - float(np.abs(action - right_way(self._seen)).mean())
        return self._next(), reward, False, False, {}

    def _next(self) -> Any:
        place, where = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        self._seen = {"place": place, "goal": {"where": where}}
        return self._seen


def right_way(observation: Any) -> np.ndarray:
    way: np.ndarray = (observation["goal"]["where"] - observation["place"]) / 2
    return way


class Lamp(gymnasium.Env[Any, Any]):
    """A picture whose left or right half is lit; the right action says which, and a step is worth 1 if it does."""

    observation_space = Box(0, 255, (7, 7, 3), np.uint8)
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return self._next(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == lit_side(self._seen))
        return self._next(), reward, False, False, {}

    def _next(self) -> Any:
        self._seen = self.np_random.integers(0, 60, (7, 7, 3), dtype=np.uint8)
        half = slice(4, 7) if self.np_random.random() < 0.5 else slice(0, 3)
        self._seen[:, half] += 150
        return self._seen


def lit_side(picture: Any) -> int:
    return int(picture[:, 4:].mean() > picture[:, :3].mean())


@pytest.fixture(autouse=True)
def environments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both registered, and no store to mirror into."""
    monkeypatch.setattr("iq_offline.stages.train.start_tracking", lambda *_: Tracker())
    for stage in ("eval", "reward"):
        monkeypatch.setattr(f"iq_offline.stages.{stage}.mirror_stage", discard)
    for name, kind in {"Reach-v0": Reach, "Lamp-v0": Lamp}.items():
        gymnasium.register(name, entry_point=kind, max_episode_steps=STEPS)
    yield
    for name in ("Reach-v0", "Lamp-v0"):
        del gymnasium.registry[name]


def discard(*_: Any) -> None:
    """Nobody listens."""


def recorded(file: Path, env_id: str, expert: Callable[[Any], Any]) -> Path:
    """Episodes of the expert, as a D4RL file."""
    environment = gymnasium.make(env_id)
    rows: dict[str, list[Any]] = {}
    for episode in range(EPISODES):
        observation, _ = environment.reset(seed=episode)
        ended = False
        while not ended:
            action = expert(observation)
            following, reward, _, ended, _ = environment.step(action)
            row = {"actions": action, "rewards": reward, "terminals": False, "timeouts": ended}
            for key, seen in {"observations": observation, "next_observations": following}.items():
                row |= {f"{key}/{path}" if path else key: array for path, array in leaves(seen).items()}
            for key, value in row.items():
                rows.setdefault(key, []).append(value)
            observation = following
    with h5py.File(file, "w") as written:
        for key, values in rows.items():
            written[key] = np.array(values)
        written.attrs["env_id"], written.attrs["env_kwargs"] = env_id, json.dumps({})
    return file


def trained_and_told(
    tmp_path: Path, file: Path, *overrides: str, **settings: Any
) -> tuple[RunFolder, dict[str, Any], dict[str, Any]]:
    """A run, its recovered reward's report and its evaluation over 5 episodes."""
    request = requested(str(file), "iq", overrides=overrides, device="cpu", out=tmp_path / "run", **settings)
    run = train_run(*request, discard, discard)
    report = recover_reward(run, RewardRequest(), discard, discard)
    return run, report, evaluate_run(run, EvalRequest(episodes=5), discard, discard)


def check_reward(run: RunFolder, report: dict[str, Any]) -> None:
    recovered = pl.read_parquet(run.path / "rewards.parquet")["recovered"].to_numpy()
    assert report["transition"]["n"] == len(recovered) == EPISODES * STEPS
    assert np.isfinite(recovered).all()
    assert recovered.std() > 0


def test_dictionaries_of_observations_train_are_rewarded_and_act(tmp_path: Path):
    file = recorded(tmp_path / "reach.hdf5", "Reach-v0", right_way)
    small = ("updates=10", "prior.updates=300", "prior.hidden_sizes=[16]", "hidden_sizes=[16]", "batch_size=32")
    run, report, evaluation = trained_and_told(tmp_path, file, *small)
    check_reward(run, report)
    assert len(run.policy().observation_mean) == 4
    assert (evaluation["episodes"], evaluation["length_mean"]) == (5, STEPS)
    assert evaluation["return_mean"] > 0.9 * STEPS  # no action at all: 0.67


def test_pictures_train_are_rewarded_and_act(tmp_path: Path):
    file = recorded(tmp_path / "lamp.hdf5", "Lamp-v0", lit_side)
    run, report, evaluation = trained_and_told(
        tmp_path, file, "updates=5", "prior.updates=15", "batch_size=16", "hidden_sizes=[16]", "prior.hidden_sizes=[16]"
    )
    check_reward(run, report)
    networks = {name.partition(".")[0] for name in run.checkpoint()}
    assert len(networks) == 5
    encoders = [{k: v for k, v in part(run.checkpoint(), name).items() if "encoder" in k} for name in sorted(networks)]
    for encoder in encoders[1:]:
        assert all(torch.equal(encoder[name], tensor) for name, tensor in encoders[0].items())
    assert len(run.policy().observation_mean) == 7 * 7 * 3
    assert evaluation["return_mean"] > 0.9 * STEPS  # a coin: 0.5


def test_residual_encoder_and_shifts_train_and_act(tmp_path: Path):
    """With another encoder and shifted pictures, too: the run's files tell which networks to build again."""
    file = recorded(tmp_path / "lamp.hdf5", "Lamp-v0", lit_side)
    small = ("updates=5", "prior.updates=40", "batch_size=16", "hidden_sizes=[16]", "prior.hidden_sizes=[16]")
    run, report, evaluation = trained_and_told(tmp_path, file, *small, encoder="impala", shift=1)
    check_reward(run, report)
    assert run.policy().layout.encoded_by is PictureEncoder.IMPALA
    assert evaluation["return_mean"] > 0.8 * STEPS
