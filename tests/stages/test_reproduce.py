"""reproduce: the same bits exit 0; what differs is told, with how much; what cannot be compared is refused."""

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests_support import requested, reseal
from typer.testing import CliRunner, Result

from iq_offline.cli import app
from iq_offline.config.train import TrainConfig
from iq_offline.errors import RunError, UserError
from iq_offline.stages import train as train_stage
from iq_offline.stages.reproduce import compare
from iq_offline.stages.rewarder import demonstrated_rows
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import Tracker
from iq_offline.training.run_folder import RunFolder

SMALL = ("updates=20", "hidden_sizes=[8]")


@pytest.fixture(autouse=True)
def tracked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that asked to be mirrored; none is."""
    asked: list[str] = []

    def start_tracking(description, *_):
        asked.append(description.name)
        return Tracker()

    monkeypatch.setattr(train_stage, "start_tracking", start_tracking)
    return asked


@pytest.fixture
def run(tmp_path, linear_task) -> RunFolder:
    return trained(tmp_path / "run", linear_task)


def trained(out: Path, dataset: Path, *overrides: str, method: str = "bc", **asked) -> RunFolder:
    request = requested(
        dataset=str(dataset),
        method=method,
        demos=3,
        seed=1,
        overrides=(*SMALL, *overrides),
        device="cpu",
        out=out,
        **asked,
    )
    return train_run(*request, lambda _: None, lambda _: None)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


def refusal(*arguments: object) -> UserError:
    result = call(*arguments)
    assert isinstance(result.exception, UserError), result.output + str(result.exception)
    return result.exception


def poke(run: RunFolder, amount: float) -> str:
    """Change one number of the checkpoint, as another machine's arithmetic would; returns its tensor's name."""
    file = run.path / "checkpoint.safetensors"
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if tensors[name].dtype == torch.float32 and tensors[name].dim() == 2)
    tensors[name][0, 0] += amount
    save_file(tensors, file)
    reseal(run.path)
    return name


def test_same_machine_reproduces_bits_and_leaves_nothing(run, home, tracked):
    """The same machine gives the same tensors and metrics; the store is as it was, and nothing is mirrored."""
    assert tracked == ["bc seed 1, linear"]
    before = sorted(path for path in home.rglob("*") if "hashes" not in path.parts)
    result = call(run.path, "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0, result.output
    assert (told["reproduced"], told["bitwise"], told["largest_difference"]) == (True, True, 0.0)
    assert told["tensors"] > 4
    assert told["differences"] == []
    assert tracked == ["bc seed 1, linear"], "the run alone was mirrored, and not its reproduction"
    assert sorted(path for path in home.rglob("*") if "hashes" not in path.parts) == before


def test_every_setting_of_a_run_is_taken_again(tmp_path, linear_task):
    iq = trained(
        *(tmp_path / "iq", linear_task, "prior.updates=20", "prior.hidden_sizes=[8]", "critic_learning_rate=1e-3"),
        method="iq-cql",
        select="top",
        subsample=2,
        subsample_from="random",
        held_out=0.4,
    )
    assert "bit for bit" in call(iq.path).stdout
    assert hashlib.sha256(demonstrated_rows(iq)[1].tobytes()).hexdigest() == iq.split["rows_sha256"]


@pytest.mark.parametrize(
    ("asked", "method", "prior", "expected"),
    [
        ("auto", False, True, "auto"),
        ("auto", True, False, "auto"),
        ("auto", True, True, "on"),
        ("auto", False, False, "off"),
    ],
)
def test_prior_and_method_are_compiled_as_they_were(tmp_path, linear_task, monkeypatch, asked, method, prior, expected):
    few = ("prior.updates=20", "prior.hidden_sizes=[8]")
    run = trained(tmp_path / "iq", linear_task, *few, method="iq", compile=asked)
    assert (run.manifest["compiled"], run.manifest["prior_compiled"]) == (False, False)
    reseal(run.path, compiled=method, prior_compiled=prior)
    seen: list[str] = []

    def again(config: TrainConfig, *_: object) -> RunFolder:
        seen.append(config.compile)
        return run

    monkeypatch.setattr("iq_offline.stages.reproduce.train_run", again)
    call(run.path)
    assert seen == [expected]


def test_difference_is_named_and_exits_3(run):
    """A changed number is told by its tensor and its amount, and the command exits 3."""
    name = poke(run, 0.25)
    result = call(run.path)
    assert result.exit_code == 3
    assert "not reproduced, tensors differ by up to 0.25 (tolerance 0)" in result.stdout
    assert name in result.stdout
    told = json.loads(call(run.path, "--json").stdout)
    (difference,) = told["differences"]
    assert (difference["kind"], difference["name"]) == ("tensor", name)
    assert difference["largest"] == pytest.approx(0.25)


def test_a_difference_within_the_tolerance_counts_as_reproduced(run):
    poke(run, 0.25)
    assert call(run.path, "--tolerance", "0.26").exit_code == 0
    assert call(run.path, "--tolerance", "0.24").exit_code == 3


def test_what_surrounds_a_difference_is_told(run):
    poke(run, 0.25)
    packages = json.loads((run.path / "manifest.json").read_text())["packages"]
    reseal(run.path, packages=packages | {"torch": "0.0"}, platform="Linux abacus")
    rows = {(row["kind"], row["name"]): row for row in json.loads(call(run.path, "--json").stdout)["differences"]}
    assert rows["package", "torch"]["recorded"] == "0.0"
    assert rows["platform", ""]["recorded"] == "Linux abacus"


def test_metrics_and_missing_tensors_are_compared(tmp_path, run, linear_task):
    other = trained(tmp_path / "other", linear_task, "learning_rate=0.01")
    found = compare(run, other, 0.0)
    assert not found.reproduced
    assert {"tensor", "metric", "config hash"} <= {one.kind for one in found.found}
    wider = compare(run, trained(tmp_path / "wider", linear_task, "hidden_sizes=[16]"), 1e9)
    assert wider.largest == float("inf")
    assert not wider.reproduced
    json.dumps(wider.to_json(), allow_nan=False)


def test_changed_data_are_refused_with_both_hashes(run, linear_task):
    with h5py.File(linear_task, "a") as file:
        file["actions"][0, 0] = 0.5
    error = refusal(run.path)
    assert isinstance(error, RunError)
    assert run.manifest["dataset"]["sha256"] in error.problem
    assert "bring the old data back" in error.remedy


def test_missing_data_are_refused_with_their_place(run, linear_task):
    linear_task.unlink()
    error = refusal(run.path)
    assert "cannot be had" in error.problem
    assert str(linear_task) in error.remedy
    assert run.manifest["dataset"]["sha256"] in error.remedy


def test_supplementary_data_are_looked_at_too(tmp_path, linear_task):
    other = tmp_path / "other.hdf5"
    shutil.copy(linear_task, other)
    with h5py.File(other, "a") as file:
        file["actions"][0, 0] = 0.5
    run = trained(tmp_path / "both", linear_task, supplementary=(str(other),))
    other.unlink()
    assert str(other) in refusal(run.path).remedy


def test_missing_device_is_refused(run, monkeypatch):
    """A run that was trained on CUDA is not reproduced where there is none."""
    reseal(run.path, device="cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "trained on CUDA" in refusal(run.path).problem


def test_other_versions_configuration_is_refused(run):
    """A configuration that this version cannot read is refused, with the version that trained it."""
    config = run.path / "config.toml"
    config.write_text(config.read_text() + "\nnew_key = 1\n")
    reseal(run.path)
    error = refusal(run.path)
    assert "does not fit this version" in error.problem
    assert f"iq-offline {run.manifest['packages']['iq-offline']}" in error.remedy


def test_what_is_no_run_is_refused(tmp_path):
    assert "holds no run" in refusal(tmp_path).problem
