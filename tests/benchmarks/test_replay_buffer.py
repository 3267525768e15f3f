"""Replay of policies that learn: in order, whole, and of the dataset's environment."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.record import replay_buffer
from iq_offline.stages.fetch import open_dataset

CARTPOLE = "demo/cartpole/expert-v0"


def made(out: Path, *arguments: object):
    replay_buffer.main([*map(str, arguments), "--out", str(out)])
    return open_dataset(str(out))


def test_clone_acts_while_it_is_trained(monkeypatch, tmp_path):
    """Episodes are of ever later policies, in the demonstrations' environment, until the steps are filled."""
    acting, act = [], replay_buffer.episode_of

    def watched(policy, *rest):
        acting.append(sum(float(tensor.detach().abs().sum()) for tensor in policy.parameters()))
        return act(policy, *rest)

    monkeypatch.setattr(replay_buffer, "UPDATES", 500)
    monkeypatch.setattr(replay_buffer, "episode_of", watched)
    table = made(tmp_path / "a.hdf5", "clone", CARTPOLE, "--steps", 1500, "--noise", 0.1)
    assert table.info.env_id == "CartPole-v1"
    assert 1500 <= table.episodes["steps"].sum() < 1500 + 500
    assert len(set(acting)) > 1


def test_agent_keeps_every_step(tmp_path):
    """So many steps as asked for, in whole episodes of which only the last is cut off."""
    pytest.importorskip("d3rlpy")
    arguments = ("agent", CARTPOLE, "--steps", 300, "--random-steps", 300)
    table = made(tmp_path / "a.hdf5", *arguments)
    assert table.episodes["steps"].sum() == 300
    assert table.episodes["terminated"].to_numpy()[:-1].all()
    observations = np.concatenate([table.observations(np.arange(3)), table.observations(np.arange(1, 4))])
    assert np.isfinite(observations).all()


def test_parts_hold_each_episode_once():
    """Every episode belongs to the eighth in which it begins."""

    class Counted:
        def __init__(self, steps: int, value: float) -> None:
            self.steps, self.episode_return = steps, value

        def __len__(self) -> int:
            return self.steps

    episodes = [Counted(10, float(value)) for value in range(16)]
    parts = list(replay_buffer.returns_by_part(episodes))
    assert [part.tolist() for part in parts] == [[2.0 * number, 2.0 * number + 1] for number in range(8)]
