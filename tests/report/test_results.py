"""Reading run folders: what is there, what is missing, what is broken and listed without costing the rest."""

import polars as pl
import pytest

from iq_offline.errors import RunError
from iq_offline.report.groups import not_done
from iq_offline.report.loading import load_runs


def problems(failures):
    return [(failure.folder.name, failure.problem) for failure in failures]


def test_a_folder_without_a_manifest_is_listed_and_the_other_runs_stay(write_run, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    results, failures = load_runs([write_run("a"), empty])
    assert [run.run for run in results] == ["a"]
    assert problems(failures) == [("empty", "no manifest.json: training did not end")]


def test_without_one_finished_run_and_for_a_path_that_is_not_there_there_is_no_report(write_run, tmp_path):
    with pytest.raises(RunError, match=r"no finished run to report on.*no manifest\.json") as caught:
        load_runs([tmp_path])
    assert "iq-offline train" in caught.value.remedy
    with pytest.raises(RunError, match="does not exist"):
        load_runs([write_run("a"), tmp_path / "gone"])
    with pytest.raises(RunError, match="is a file"):
        load_runs([write_run("b") / "manifest.json"])
    with pytest.raises(RunError, match="no run folders"):
        load_runs([])


def test_a_folder_of_runs_stands_for_them_and_for_what_was_cut_off_there(write_run):
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


@pytest.mark.parametrize("content", ['{"run": ', "[1, 2]", '{"run": "a"}', '{"run": 1, "method": 2}'])
def test_a_manifest_that_is_none_is_a_failure_of_its_folder(write_run, content):
    folder = write_run("a")
    (folder / "manifest.json").write_text(content)
    results, failures = load_runs([folder, write_run("b")])
    assert [run.run for run in results] == ["b"]
    assert "manifest.json" in failures[0].problem


@pytest.mark.parametrize(("name", "part"), [("evaluation.json", "evaluation"), ("reward.json", "reward")])
def test_half_a_stages_file_counts_as_none_and_is_named_with_its_command(write_run, name, part):
    folder = write_run("a", returns=[1.0], rewards={})
    (folder / name).write_text('{"run": ')
    ((run,), failures) = load_runs([folder])
    assert (getattr(run, part), failures) == (None, [])
    (failure,) = run.failures
    assert failure.problem.startswith(f"{name} is damaged")
    assert failure.remedy.startswith("run `iq-offline")
    assert len(not_done([run])) == 1


def test_a_return_that_is_not_finite_is_no_evaluation(write_run):
    ((run,), _) = load_runs([write_run("a", returns=[float("nan")])])
    assert run.evaluation is None
    assert "a number that JSON does not have" in run.failures[0].problem


def test_a_table_that_cannot_be_read_or_lacks_a_column_is_left_out(write_run):
    folder = write_run("a", returns=[1.0], rewards={})
    (folder / "returns.parquet").write_bytes(b"not parquet")
    pl.DataFrame({"source": ["s"]}).write_parquet(folder / "rewards.parquet")
    ((run,), _) = load_runs([folder])
    assert (run.returns(), run.rewards(), len(run.metrics())) == (None, None, 10)
    first, second = (failure.problem for failure in run.failures)
    assert first.startswith("returns.parquet cannot be read")
    assert second == "rewards.parquet cannot be read: has no column episode, true, recovered"


def test_a_run_whose_last_metric_is_not_finite_is_called_diverged_and_keeps_its_row(write_run):
    folder = write_run("a", method="bc", returns=[1.0])
    path = folder / "metrics.parquet"
    pl.concat([pl.read_parquet(path), pl.DataFrame({"step": [100], "loss": [float("inf")]})]).write_parquet(path)
    ((run,), _) = load_runs([folder])
    assert [failure.problem for failure in run.failures] == ["diverged: loss is inf at update 100"]
    assert run.evaluation is not None


def test_a_configuration_that_cannot_be_read_is_empty_and_said(write_run):
    folder = write_run("a")
    (folder / "config.toml").write_text("= 1")
    ((run,), _) = load_runs([folder])
    assert run.config == {}
    assert run.failures[0].problem.startswith("config.toml is damaged")


@pytest.mark.parametrize(("method", "learns"), [("iq", True), ("csil", True), ("bc", False), ("weighted-bc", False)])
def test_only_the_methods_that_learn_a_reward_owe_its_correlation(write_run, method, learns):
    lacking = not_done(load_runs([write_run("a", method=method, returns=[1.0])])[0])
    assert [item.lacking for item in lacking] == (["recovered reward"] if learns else [])


def test_stages_that_were_not_run_are_none(write_run):
    ((result,), _) = load_runs([write_run("a")])
    assert (result.evaluation, result.reward, result.returns(), result.rewards()) == (None, None, None, None)
    assert result.metrics()["loss"].null_count() == 5


def test_a_folder_named_twice_counts_once(write_run):
    folder = write_run("a")
    assert len(load_runs([folder, folder / ".." / "a"])[0]) == 1


def test_datasets_of_one_name_and_two_hashes_are_told_apart(write_run):
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
