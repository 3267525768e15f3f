"""export: from a run folder to a checked file, and what it says when it cannot."""

import json

import numpy as np
import pytest
import torch
from tests_support import requested
from typer.testing import CliRunner

from iq_offline.cli import app
from iq_offline.errors import ConfigError, RunError
from iq_offline.export.formats import FACTS, run_torchscript
from iq_offline.stages.export import export_run
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import Tracker
from iq_offline.training.run_folder import RunFolder


@pytest.fixture
def run(tmp_path, linear_task, monkeypatch) -> RunFolder:
    monkeypatch.setattr("iq_offline.stages.train.start_tracking", lambda *_: Tracker())
    overrides = ("updates=60", "hidden_sizes=[8]")
    request = requested(str(linear_task), "bc", overrides=overrides, device="cpu", out=tmp_path / "run")
    return train_run(*request, lambda _: None, pytest.fail)


def test_policy_is_checked_on_both_observations(tmp_path, run):
    """A policy is checked on random and recorded observations."""
    told = export_run(run, tmp_path / "policy.pt", None, pytest.fail)
    assert told["checked"] == {"random": 256, "recorded": 240}
    assert told["largest_difference"] <= 1e-5
    observations = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    actions = run_torchscript((tmp_path / "policy.pt").read_bytes())(observations)
    np.testing.assert_allclose(actions, run.policy().act(torch.from_numpy(observations)).numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_file_tells_where_it_is_from(tmp_path, run):
    export_run(run, tmp_path / "policy.pt", None, pytest.fail)
    held = {FACTS: ""}
    torch.jit.load(tmp_path / "policy.pt", _extra_files=held)
    facts = json.loads(held[FACTS])
    assert (facts["method"], facts["observation_numbers"]) == ("bc", 3)
    assert facts["policy_sha256"] == run.manifest["policy_sha256"]


def test_missing_data_leave_random_observations(tmp_path, run, linear_task):
    """Data that are gone are reported and random observations do."""
    linear_task.unlink()
    warnings: list[str] = []
    told = export_run(run, tmp_path / "policy.pt", None, warnings.append)
    assert told["checked"] == {"random": 256, "recorded": 0}
    assert "checked on random observations alone" in warnings[0]


def test_file_with_different_actions_is_not_written(tmp_path, run, monkeypatch):
    """A file whose actions differ never gets its name."""
    monkeypatch.setattr("iq_offline.export.formats.run_torchscript", lambda _: lambda seen: 2 * seen[:, :1])
    with pytest.raises(RunError, match="differ from the original's"):
        export_run(run, tmp_path / "policy.pt", None, pytest.fail)
    assert not list(tmp_path.glob("*policy.pt*"))


def test_unknown_suffix_is_refused_first(tmp_path, run):
    """An unknown suffix is refused before anything is read."""
    with pytest.raises(ConfigError, match="no format has the suffix"):
        export_run(run, tmp_path / "policy.bin", None, pytest.fail)


def test_the_command_prints_one_json_object(tmp_path, run):
    target = tmp_path / "policy.ts"
    arguments = ["export", str(run.path), "--to", str(target), "--format", "torchscript", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["format"], told["bytes"]) == ("torchscript", target.stat().st_size)
