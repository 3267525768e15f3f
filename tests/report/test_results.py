"""Reading run folders: what is there, what is missing, what is broken."""

import pytest

from iq_offline.errors import RunError
from iq_offline.report.results import load_results


def test_a_folder_without_a_manifest_is_not_a_run(tmp_path):
    with pytest.raises(RunError, match=r"no manifest\.json") as caught:
        load_results([tmp_path])
    assert "iq-offline train" in caught.value.remedy


def test_a_folder_that_is_not_there_and_no_folders_at_all_are_errors(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        load_results([tmp_path / "gone"])
    with pytest.raises(RunError, match="no run folders"):
        load_results([])


@pytest.mark.parametrize("name", ["manifest.json", "evaluation.json", "reward.json", "config.toml"])
def test_half_a_file_is_an_error_that_names_the_file(write_run, name):
    folder = write_run("a", returns=[1.0], rewards={})
    (folder / name).write_text('{"run": ')
    with pytest.raises(RunError, match=name):
        load_results([folder])


@pytest.mark.parametrize(("content", "said"), [("[1, 2]", "no JSON object"), ('{"run": "a"}', "lacks method, seed")])
def test_a_manifest_that_is_json_but_no_manifest_is_an_error(write_run, content, said):
    folder = write_run("a")
    (folder / "manifest.json").write_text(content)
    with pytest.raises(RunError, match=said):
        load_results([folder])


def test_a_broken_parquet_file_is_an_error_when_it_is_read(write_run):
    folder = write_run("a", returns=[1.0])
    (folder / "returns.parquet").write_bytes(b"not parquet")
    (result,) = load_results([folder])
    with pytest.raises(RunError, match=r"returns\.parquet cannot be read"):
        result.returns()


def test_stages_that_were_not_run_are_none(write_run):
    (result,) = load_results([write_run("a")])
    assert (result.evaluation, result.reward, result.returns(), result.rewards()) == (None, None, None, None)
    assert result.metrics()["loss"].null_count() == 5


def test_a_folder_named_twice_counts_once(write_run):
    folder = write_run("a")
    assert len(load_results([folder, folder / ".." / "a"])) == 1


def test_datasets_of_one_name_and_two_hashes_are_told_apart(write_run):
    folders = [
        write_run("a", sha256="12345678" + "0" * 56),
        write_run("b", sha256="9" * 64),
        write_run("c", dataset="d"),
    ]
    assert [result.dataset for result in load_results(folders)] == [
        "hopper-expert-v2@12345678",
        "hopper-expert-v2@99999999",
        "d",
    ]
