"""A noisy replay: episodes of those policies, the low ones under the middle, the same from the same seed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.record import noisy_replay
from iq_offline.algorithms.networks import DiscretePolicy
from iq_offline.cli import app
from iq_offline.data.table import TransitionTable, rows_of_episodes
from iq_offline.stages.fetch import open_dataset
from iq_offline.training.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    options = f"--method bc --updates 20 --set hidden_sizes=[8] --dataset {request.param}".split()
    result = CliRunner().invoke(app, ["train", *options, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    return tmp_path / "run"


def made(*arguments: object) -> None:
    noisy_replay.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("run", ["demo/cartpole/expert-v0", "demo/swimmer/expert-v0"], indirect=True)
def test_replay_repeats_with_its_seed(run, tmp_path):
    """A replay is of the run's environment, and the same from the same seed."""

    def table(name: str, seed: int) -> TransitionTable:
        made(run, f"{run}:0.5", "--steps", 150, "--seed", seed, "--out", tmp_path / name)
        return open_dataset(str(tmp_path / name))

    first, again, other = table("a.hdf5", 0), table("b.hdf5", 0), table("c.hdf5", 1)
    learnt_from = open_dataset(RunFolder(run).config.dataset)
    assert first.info.env_id == learnt_from.info.env_id
    assert first.action_space.to_json()["type"] == learnt_from.action_space.to_json()["type"]
    assert sum(first.episodes["steps"]) >= 150
    acted = [one.actions(rows_of_episodes(one.episodes, 1)).tolist() for one in (first, again, other)]
    assert acted[0] == acted[1] != acted[2]


@pytest.mark.parametrize("run", ["demo/cartpole/expert-v0"], indirect=True)
def test_low_episodes_earn_up_to_the_middle(run, tmp_path):
    """Low episodes earn up to the middle between the random and the expert return."""
    out = ("--out", tmp_path / "all.hdf5", "--low", tmp_path / "low.hdf5")
    made(run, "--steps", 400, *out, "--expert-return", 30, "--random-return", 10)
    everything, low = (open_dataset(str(tmp_path / name)).episodes["return"] for name in ("all.hdf5", "low.hdf5"))
    assert low.max() <= 20 < everything.max()
    assert sorted(low) == sorted(value for value in everything if value <= 20)


def test_each_episode_has_its_share_of_noise():
    """Discrete actions are replaced in up to half of the steps; the share is drawn for each episode."""
    random, policy = np.random.default_rng(0), torch.nn.Module.__new__(DiscretePolicy)
    shares = []
    for _ in range(40):
        noise = noisy_replay.noise_of(policy, 1000, random)
        shares.append(np.mean([noise(-1) != -1 for _ in range(300)]))
    assert max(shares) < 0.6
    assert min(shares) < 0.1
    assert 0.2 < np.mean(shares) < 0.3
