"""Where results go: any name will do, and a place where nothing can be written is told before anything is made."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from iq_offline.cli import app
from iq_offline.data.files import make_folder, whole_file, whole_folder
from iq_offline.errors import ConfigError, UserError
from iq_offline.stages import train as train_stage
from iq_offline.stages.fetch import open_dataset

SMALL = ("--method", "bc", "--device", "cpu", "--updates", "5", "--set", "hidden_sizes=[8]")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(*arguments: object) -> UserError:
    result = call(*arguments)
    assert isinstance(result.exception, UserError), result.output + str(result.exception)
    return result.exception


@pytest.fixture
def run(linear_task, tmp_path) -> Path:
    """A small run of cloning."""
    result = call("train", "--dataset", linear_task, *SMALL, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    return tmp_path / "run"


def test_pattern_signs_in_paths_are_plain_names(linear_task, tmp_path, monkeypatch):
    monkeypatch.setenv("IQ_OFFLINE_HOME", str(tmp_path / "store[1]"))
    out = tmp_path / "a[1]" / "run*?"
    for arguments in (
        ("train", "--dataset", linear_task, *SMALL, "--out", out),
        ("reproduce", out),
        ("report", out, "--out", tmp_path / "report[1]"),
    ):
        result = call(*arguments)
        assert result.exit_code == 0, result.output + str(result.exception)
        assert "warning" not in result.stderr
    assert json.loads((out / "manifest.json").read_text())["updates"] == 5
    table = open_dataset(str(linear_task))
    assert table.rows_file.is_relative_to(tmp_path / "store[1]")
    assert table.episodes["steps"].to_list() == [40] * 6


@pytest.mark.parametrize("options", [(), ("--resume",), ("--overwrite",), ("--seeds", "0,1")])
@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_no_run_into_or_below_a_file(options, below, linear_task, tmp_path, monkeypatch):
    monkeypatch.setattr(train_stage, "training_steps", lambda *_: pytest.fail("it was trained"))
    monkeypatch.setattr("iq_offline.stages.seeds.workers_for", lambda *_: 1)
    file = tmp_path / "file"
    file.write_text("mine")
    error = refusal("train", "--dataset", linear_task, *SMALL, "--out", file / below, *options)
    assert error.problem.startswith(f"{file} is a file")
    assert file.read_text() == "mine"


def test_no_output_into_or_below_a_file(run, linear_task, tmp_path):
    """What commands make of runs or data does not go into a file or below one either."""
    file = tmp_path / "file"
    file.write_text("mine")
    for arguments in (
        ("report", run, "--out", file),
        ("report", run, "--out", file / "a"),
        ("export", run, "--to", file / "x.pt"),
        ("convert", linear_task, "--format", "d4rl", "--to", file / "x.hdf5"),
        ("convert", linear_task, "--to", file / "x-v0"),
    ):
        assert refusal(*arguments).problem.startswith(f"{file} is a file")
    (tmp_path / "x.pt").mkdir()
    assert refusal("export", run, "--to", tmp_path / "x.pt").problem == f"{tmp_path / 'x.pt'} is a folder"
    assert file.read_text() == "mine"


def test_place_that_holds_nothing_is_told(tmp_path):
    """A place that can hold nothing is told; a file that is missing within the block is not blamed on it."""
    nowhere = tmp_path / "link"
    nowhere.symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match=f"nothing can be made in {nowhere} "):
        make_folder(nowhere / "a")
    for whole in (whole_file, whole_folder):
        with pytest.raises(ConfigError, match="nothing can be made in"), whole(nowhere / "a"):
            pytest.fail("it went on")
        with pytest.raises(FileNotFoundError), whole(tmp_path / "x") as temporary:
            (temporary.parent / "missing").read_text()
