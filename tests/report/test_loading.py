"""Reading run folders: what is there, what is missing, what is broken and listed without costing the rest."""

import json

import polars as pl
import pytest

from iq_offline.data.catalogue import catalogue
from iq_offline.errors import RunError
from iq_offline.report.groups import missing_stages
from iq_offline.report.loading import load_runs
from iq_offline.training.run_folder import METRICS, RETURNS, REWARDS


def problems(failures):
    return [(failure.folder.name, failure.problem) for failure in failures]


def test_folders_of_no_finished_run_are_listed(write_run, tmp_path):
    """A folder without a manifest is listed, told apart from one without any run, and the other runs stay."""
    empty, unfinished = tmp_path / "empty", write_run("unfinished")
    empty.mkdir()
    (unfinished / "manifest.json").unlink()
    results, failures = load_runs([write_run("a"), empty, unfinished])
    assert [run.run for run in results] == ["a"]
    assert problems(failures) == [
        ("empty", "holds no run"),
        ("unfinished", "no manifest.json: training did not end"),
    ]


def test_no_finished_run_or_missing_path_is_refused(write_run, tmp_path):
    """There is no report without a finished run, nor for a path that is not there."""
    with pytest.raises(RunError, match=r"no finished run to report on.*holds no run") as caught:
        load_runs([tmp_path])
    assert "iq-offline train" in caught.value.remedy
    with pytest.raises(RunError, match="does not exist"):
        load_runs([write_run("a"), tmp_path / "gone"])
    with pytest.raises(RunError, match="is a file"):
        load_runs([write_run("b") / "manifest.json"])
    with pytest.raises(RunError, match="no run folders"):
        load_runs([])


def test_folder_of_runs_includes_interrupted_ones(write_run):
    """A folder of runs stands for them, and for what was cut off there."""
    parent = write_run("seed-0").parent
    write_run("seed-1").joinpath("manifest.json").unlink()
    (parent / ".seed-2.somewhere-123-abc.part").mkdir()
    (parent / "notes").mkdir()
    results, failures = load_runs([parent])
    assert [run.run for run in results] == ["seed-0"]
    assert problems(failures) == [
        (".seed-2.somewhere-123-abc.part", "training of seed-2 was cut off, or still goes on"),
        ("seed-1", "no manifest.json: training did not end"),
    ]


def test_converted_dataset_keeps_its_catalogue_id(write_run):
    """A dataset that a pipeline has converted whole is called by the id that commands accept; a part of it is not."""
    entry = catalogue()["demo/swimmer/expert-v0"]
    for name, steps in (("whole", entry.steps), ("part", 500)):
        file = write_run(name, dataset="swimmer-v0", sha256=f"{steps:064}") / "manifest.json"
        manifest = json.loads(file.read_text())
        manifest["dataset"] |= {"origin_sha256": entry.sha256, "episodes": entry.episodes, "steps": steps}
        file.write_text(json.dumps(manifest))
    names = {run.run: run.dataset for run in load_runs([file.parents[1]])[0]}
    assert names == {"whole": "demo/swimmer/expert-v0", "part": "swimmer-v0"}


@pytest.mark.parametrize("content", ['{"run": ', "[1, 2]", '{"format_version": 2}', '{"format_version": 2, "run": 1}'])
def test_damaged_manifest_is_a_failure(write_run, content):
    folder = write_run("a")
    (folder / "manifest.json").write_text(content)
    results, failures = load_runs([folder, write_run("b")])
    assert [run.run for run in results] == ["b"]
    assert "manifest.json" in failures[0].problem


@pytest.mark.parametrize(("name", "part"), [("evaluation.json", "evaluation"), ("reward.json", "reward")])
def test_half_written_record_counts_as_missing(write_run, name, part):
    """Half a stage's record counts as none, and is listed with the command that writes it."""
    folder = write_run("a", returns=[1.0], rewards={})
    (folder / name).write_text('{"run": ')
    ((run,), failures) = load_runs([folder])
    assert (getattr(run, part), failures) == (None, [])
    (failure,) = run.failures
    assert failure.problem.startswith(f"{name} is damaged")
    assert failure.remedy.startswith("run `iq-offline")
    assert len(missing_stages([run])) == 1


def test_infinite_return_is_no_evaluation(write_run):
    """A mean return that is no finite number is no evaluation."""
    ((run,), _) = load_runs([write_run("a", returns=[float("nan")])])
    assert run.evaluation is None
    assert "a number that JSON does not have" in run.failures[0].problem


def test_damaged_table_is_left_out(write_run):
    """A table that cannot be read, or lacks a column, is left out and listed."""
    folder = write_run("a", returns=[1.0], rewards={})
    (folder / "returns.parquet").write_bytes(b"not parquet")
    pl.DataFrame({"source": ["s"]}).write_parquet(folder / "rewards.parquet")
    ((run,), _) = load_runs([folder])
    assert (run.table(RETURNS), run.table(REWARDS), len(run.table(METRICS))) == (None, None, 10)
    first, second = (failure.problem for failure in run.failures)
    assert first.startswith("returns.parquet cannot be read")
    assert second == "rewards.parquet cannot be read: has no column episode, true, recovered"


def test_diverged_run_is_listed_and_keeps_its_row(write_run):
    """A run whose last metric is not finite is called diverged, and keeps its row."""
    folder = write_run("a", method="bc", returns=[1.0])
    path = folder / "metrics.parquet"
    pl.concat([pl.read_parquet(path), pl.DataFrame({"step": [100], "loss": [float("inf")]})]).write_parquet(path)
    ((run,), _) = load_runs([folder])
    assert [failure.problem for failure in run.failures] == ["diverged: loss is inf at update 100"]
    assert run.evaluation is not None


def test_damaged_configuration_is_empty_and_listed(write_run):
    folder = write_run("a")
    (folder / "config.toml").write_text("= 1")
    ((run,), _) = load_runs([folder])
    assert run.config == {}
    assert run.failures[0].problem.startswith("config.toml is damaged")


@pytest.mark.parametrize(("method", "learns"), [("iq", True), ("csil", True), ("bc", False), ("weighted-bc", False)])
def test_only_reward_learners_lack_a_recovered_reward(write_run, method, learns):
    """A recovered reward is missing only where the method learns a reward."""
    lacking = missing_stages(load_runs([write_run("a", method=method, returns=[1.0])])[0])
    assert [item.lacking for item in lacking] == (["recovered reward"] if learns else [])


def test_stages_not_run_are_none(write_run):
    ((result,), _) = load_runs([write_run("a")])
    assert (result.evaluation, result.reward, result.table(RETURNS), result.table(REWARDS)) == (None, None, None, None)
    assert result.table(METRICS)["loss"].null_count() == 5


def test_folder_named_twice_counts_once(write_run):
    folder = write_run("a")
    assert len(load_runs([folder, folder / ".." / "a"])[0]) == 1


def test_datasets_of_one_name_differ_by_hash(write_run):
    """Datasets that share a name but not their bytes have their hash in the name."""
    folders = [
        write_run("a", sha256="12345678" + "0" * 56),
        write_run("b", sha256="9" * 64),
        write_run("c", dataset="d"),
    ]
    assert [result.dataset for result in load_runs(folders)[0]] == [
        "hopper-expert-v2@12345678",
        "hopper-expert-v2@99999999",
        "d",
    ]
