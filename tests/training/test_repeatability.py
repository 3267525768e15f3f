"""Same seed, same thread: the same tensors, bit for bit. And what is paired is paired."""

from pathlib import Path

import pytest
import torch
from tests_support import requested

from iq_offline.errors import TrainingDiverged
from iq_offline.stages.train import train_run
from iq_offline.training.run_folder import RunFolder
from iq_offline.training.tensor_files import load_policy, part, save_policy, tensors_sha256

QUICK = ("prior.updates=30", "prior.hidden_sizes=[16]", "hidden_sizes=[16]")


def run(out: Path, dataset: Path, method: str, *overrides: str, seed: int = 0) -> RunFolder:
    request = requested(
        dataset=str(dataset), method=method, demos=3, seed=seed, overrides=overrides, device="cpu", out=out
    )
    return train_run(*request, lambda _: None, lambda _: None)


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch):
    from iq_offline.stages import train
    from iq_offline.tracking.mirror import Tracker

    monkeypatch.setattr(train, "start_tracking", lambda *_: Tracker())


@pytest.mark.parametrize(
    ("method", "overrides"), [("bc", ("updates=40", "hidden_sizes=[16]")), ("iq", ("updates=20", *QUICK))]
)
def test_same_seed_gives_same_tensors_and_metrics(tmp_path, linear_task, method, overrides):
    first = run(tmp_path / "a", linear_task, method, *overrides)
    second = run(tmp_path / "b", linear_task, method, *overrides)
    other = run(tmp_path / "c", linear_task, method, *overrides, seed=1)
    assert tensors_sha256(first.checkpoint()) == tensors_sha256(second.checkpoint())
    assert (first.path / "metrics.parquet").read_bytes() == (second.path / "metrics.parquet").read_bytes()
    assert tensors_sha256(first.checkpoint()) != tensors_sha256(other.checkpoint())
    assert first.split == second.split


def test_prior_of_iq_is_bc_bit_for_bit(tmp_path, linear_task):
    clone = run(tmp_path / "bc", linear_task, "bc", "updates=30", "hidden_sizes=[16]")
    iq = run(tmp_path / "iq", linear_task, "iq", "updates=20", *QUICK)
    prior = part(iq.checkpoint(), "prior")
    assert tensors_sha256(prior) == tensors_sha256(clone.policy().state_dict())
    assert tensors_sha256(prior) != tensors_sha256(iq.policy().state_dict())


def test_without_updates_the_prior_stays(tmp_path, linear_task):
    iq = run(tmp_path / "iq", linear_task, "iq", "updates=0", *QUICK)
    assert tensors_sha256(part(iq.checkpoint(), "prior")) == tensors_sha256(iq.policy().state_dict())


def test_cloning_a_clipped_linear_policy_finds_it(tmp_path, linear_task):
    policy = run(tmp_path / "bc", linear_task, "bc", "updates=600", "hidden_sizes=[32]").policy()
    observations = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    expected = (observations @ torch.tensor([[0.8], [-0.5], [0.3]])).clamp(-1, 1)
    assert (policy.act(observations) - expected).abs().mean() < 0.1


def test_a_saved_policy_is_loaded_whole(tmp_path, linear_task):
    policy = run(tmp_path / "bc", linear_task, "bc", "updates=5", "hidden_sizes=[8, 8]", "activation=relu").policy()
    save_policy(policy, tmp_path / "copy.safetensors")
    again = load_policy(tmp_path / "copy.safetensors")
    observations = torch.randn(10, 3)
    assert torch.equal(policy.act(observations), again.act(observations))


def test_actions_are_scaled_by_bounds_and_clipped(tmp_path, numbered, write_d4rl):
    arrays = numbered([30], terminated=[True])
    arrays["actions"] = 5 + arrays["observations"][:, :1] / 3
    policy = run_one(tmp_path, write_d4rl(arrays))
    far = torch.tensor([[-1e3] * 3, [1e3] * 3])
    low, high = arrays["actions"].min(), arrays["actions"].max()
    assert policy.act(far).min() >= low - 1e-5
    assert policy.act(far).max() <= high + 1e-5


def run_one(tmp_path: Path, dataset: Path):
    request = requested(
        str(dataset), "bc", overrides=("updates=300", "hidden_sizes=[16]"), device="cpu", out=tmp_path / "r"
    )
    return train_run(*request, lambda _: None, lambda _: None).policy()


def test_diverging_run_leaves_nothing(tmp_path, linear_task):
    """A run that diverges ends with a message, and without a folder."""
    with pytest.raises(TrainingDiverged, match=r"training diverged: .* at update"):
        run(tmp_path / "x", linear_task, "iq", "updates=300", "critic_learning_rate=1e30", *QUICK)
    assert not (tmp_path / "x").exists()
    assert [item for item in tmp_path.iterdir() if item.suffix == ".part"] == []
