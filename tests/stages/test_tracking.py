"""MLflow mirrors the run folders: one run under one parent, with its data and policy, and nothing lost without it."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests_support import Requested, requested, reseal

from iq_offline.errors import RunError, TrackingUnavailable
from iq_offline.stages.report import make_report
from iq_offline.stages.sync import sync_runs
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import describe, mirror_stage, start_tracking, stored, sync
from iq_offline.tracking.mlflow_store import MlflowStore, TrackedData
from iq_offline.training.run_folder import RunFolder
from iq_offline.training.tensor_files import read_header, tensor_bytes

EVALUATION = {"return_mean": 5.0, "return_std": 1.0, "length_mean": 10.0, "score": None, "reference": None}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database that has its tables and nothing else: making them takes seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(tables: Path, home: Path) -> Path:
    """This test's own empty store."""
    (home / "mlflow").mkdir(parents=True)
    return Path(shutil.copy(tables, home / "mlflow"))


def request(dataset: Path, out: Path, seed: int = 0, updates: int = 120) -> Requested:
    overrides = (f"updates={updates}", "hidden_sizes=[8]")
    return requested(str(dataset), "bc", demos=2, seed=seed, overrides=overrides, device="cpu", out=out)


def trained(dataset: Path, out: Path, warnings: list[str] | None = None, seed: int = 0) -> RunFolder:
    return train_run(*request(dataset, out, seed), lambda _: None, pytest.fail if warnings is None else warnings.append)


def evaluated(run: RunFolder, return_mean: float = 5.0) -> None:
    told = EVALUATION | {"return_mean": return_mean, "episodes": 2, "env_id": None, "env_kwargs": {}}
    told |= {key: run.manifest[key] for key in ("run", "method", "seed")} | {"dataset": run.manifest["dataset"]["name"]}
    (run.path / "evaluation.json").write_text(json.dumps(told))


def client_and_run(folder: Path):
    from mlflow import MlflowClient

    note = json.loads((folder / "tracking.json").read_text())
    client = MlflowClient(tracking_uri=note["uri"])
    return client, client.get_run(note["run_id"]), note


def children() -> list[str]:
    opened = MlflowStore.open()
    return opened.children(opened.latest_parent() or "")


def history(folder: Path, metric: str) -> list[tuple[int, float]]:
    client, _, note = client_and_run(folder)
    return [(point.step, point.value) for point in client.get_metric_history(note["run_id"], metric)]


@pytest.mark.usefixtures("store")
def test_run_is_mirrored_whole(tmp_path, linear_task):
    """A run is mirrored with its parameters metrics dataset and files."""
    run = trained(linear_task, tmp_path / "run")
    client, mirrored, note = client_and_run(run.path)
    assert mirrored.data.params["method"] == "bc"
    assert mirrored.data.params["algorithm.hidden_sizes"] == "[8]"
    assert mirrored.inputs.dataset_inputs[0].dataset.digest == run.manifest["dataset"]["sha256"][:32]
    logged = list(pl.read_parquet(run.path / "metrics.parquet").select("step", "loss").iter_rows())
    assert history(run.path, "train/loss") == logged
    assert mirrored.data.metrics["train/seconds"] == run.manifest["seconds"]
    assert {file.path for file in client.list_artifacts(note["run_id"])} >= {"policy.safetensors", "manifest.json"}


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_model_loads_without_this_package(tmp_path, linear_task):
    """The policy is a model that loads without this package."""
    run = trained(linear_task, tmp_path / "run")
    _, mirrored, note = client_and_run(run.path)
    model = f"models:/{mirrored.outputs.model_outputs[0].model_id}"
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    code = f"""
import json, sys
sys.modules["iq_offline"] = None  # importing it would fail
import mlflow, numpy as np
mlflow.set_tracking_uri({note["uri"]!r})
model = mlflow.pyfunc.load_model({model!r})
example = model.input_example
given = model.metadata.signature
signature = [given.inputs.inputs[0].shape, given.outputs.inputs[0].shape]
actions = model.predict(np.array({observations.tolist()}, dtype=np.float32))
print(json.dumps({{"actions": actions.tolist(), "shapes": signature, "example": np.shape(example)}}))
"""
    environment = os.environ | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    expected = run.policy().act(torch.from_numpy(observations)).numpy()
    np.testing.assert_allclose(told["actions"], expected, atol=1e-5)
    assert told["shapes"] == [[-1, 3], [-1, 1]]
    assert told["example"] == [2, 3]


@pytest.mark.usefixtures("store")
def test_run_is_found_by_params_and_tags(tmp_path, linear_task):
    """What runs are compared by is a parameter and a tag from the start, under one name; its name begins with it."""
    run = trained(linear_task, tmp_path / "seed-0")
    _, mirrored, _ = client_and_run(run.path)
    compared = {
        "method": "bc",
        "dataset": "linear",
        "demonstrations": "2",
        "subsample": "1",
        "supplementary": "none",
        "seed": "0",
    }
    assert compared.items() <= mirrored.data.params.items()
    assert compared.items() <= mirrored.data.tags.items()
    assert mirrored.info.run_name == "bc seed 0, linear"


def test_minari_id_is_shown_short():
    """Of a Minari id the name of a run shows all but the first part; supplementary data are shown by name."""
    dataset = {"name": "mujoco/hopper/expert-v0", "sha256": "a" * 64, "path": None}
    manifest = {"dataset": dataset, "method": "iq", "seed": 3, "demos": None, "subsample": 1, "group": "g"}
    other = TrackedData("mujoco/hopper/simple-v0", "b" * 64, "supplementary")
    shown = describe(manifest | {"config_hash": "c", "algorithm": {}}, Path("/runs/a"), [other])
    assert shown.name == "iq seed 3, hopper/expert-v0"
    assert shown.params["supplementary"] == shown.tags["supplementary"] == "mujoco/hopper/simple-v0"
    assert shown.params["demonstrations"] == "all"


@pytest.mark.usefixtures("store")
def test_seeds_share_one_parent(tmp_path, linear_task):
    runs = [client_and_run(trained(linear_task, tmp_path / str(seed), seed=seed).path)[1] for seed in (0, 1)]
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs}) == 1
    assert {run.info.run_id for run in runs} == set(children())


@pytest.mark.usefixtures("store")
def test_equal_settings_with_different_tensors_both_stay(tmp_path, linear_task):
    """Equal settings with other tensors stay beside each other."""
    here = trained(linear_task, tmp_path / "here")
    there = RunFolder(Path(shutil.copytree(here.path, tmp_path / "there")))
    nudged = {name: tensor + 1 for name, tensor in here.policy().state_dict().items()}
    (there.path / "policy.safetensors").write_bytes(tensor_bytes(nudged, read_header(here.path / "policy.safetensors")))
    reseal(there.path)
    assert sync(there.path)
    told = sync_runs([here, there], None, None, lambda: None)
    assert [run["written"] for run in told["runs"]] == [False, False]
    assert len({run["run_id"] for run in told["runs"]}) == len(children()) == 2


@pytest.mark.usefixtures("store")
def test_equal_runs_stay_until_one_is_moved(tmp_path, linear_task):
    """Two folders with one configuration and equal tensors are two runs; a run whose folder is gone makes place."""
    first, second = trained(linear_task, tmp_path / "first"), trained(linear_task, tmp_path / "second")
    assert first.manifest["policy_sha256"] == second.manifest["policy_sha256"]
    assert len(children()) == 2
    shutil.move(tmp_path / "first", tmp_path / "moved")
    trained(linear_task, tmp_path / "third")
    assert len(children()) == 2


@pytest.mark.usefixtures("store")
def test_a_run_that_another_process_is_writing_stays(tmp_path, linear_task):
    description = describe(trained(linear_task, tmp_path / "run").manifest, tmp_path / "first")
    start_tracking(description, tmp_path / "first", pytest.fail)
    again = trained(linear_task, tmp_path / "second")
    assert len(children()) == 3
    assert client_and_run(again.path)[1].data.tags["run_folder"] == str(tmp_path / "second")


@pytest.mark.usefixtures("store")
def test_missing_mirror_names_the_remedy(tmp_path, linear_task):
    """A mirror that is gone is reported with the remedy."""
    run = trained(linear_task, tmp_path / "run")
    opened = MlflowStore.open()
    opened.discard([opened.run(children()[0])])
    with pytest.raises(RunError, match=r"not in MLflow's store .* any more[\s\S]*iq-offline sync"):
        stored(run.path, opened)


@pytest.mark.usefixtures("store")
def test_leftovers_of_a_killed_run_are_replaced(tmp_path, linear_task):
    """What a killed run has left is replaced when it is run again."""
    finished = trained(linear_task, tmp_path / "run")
    description = describe(finished.manifest | {"config_hash": "of a killed run"}, tmp_path / "killed")
    start_tracking(description, tmp_path / "killed", pytest.fail).log(100, {"loss": 1.0})
    assert len(children()) == 2
    start_tracking(description, tmp_path / "killed", pytest.fail)
    assert len(children()) == 2


@pytest.mark.usefixtures("store")
def test_unlogged_steps_come_from_the_folder(tmp_path, linear_task):
    """Steps that this process has not logged come from the folder."""
    run = trained(linear_task, tmp_path / "run")
    tracker = start_tracking(describe(run.manifest, run.path), run.path, pytest.fail)
    tracker.log(120, {"loss": 0.5})
    tracker.finish(run.path)
    assert [step for step, _ in history(run.path, "train/loss")] == [120, 100]


def test_unreachable_store_costs_a_warning(tmp_path, linear_task, monkeypatch):
    """An unreachable store costs a warning and not the run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'a file' / 'x.db'}")
    (tmp_path / "a file").write_text("not a folder")
    warnings: list[str] = []
    run = trained(linear_task, tmp_path / "run", warnings)
    assert (run.path / "policy.safetensors").is_file()
    assert len(warnings) == 1
    assert f"iq-offline sync {run.path}" in warnings[0]
    assert not (run.path / "tracking.json").exists()


@pytest.mark.usefixtures("store")
def test_store_failing_midway_costs_one_warning(tmp_path, linear_task, monkeypatch):
    """A store that fails midway costs one warning and sync replaces what it left."""

    def fail(*_):
        raise TrackingUnavailable("MLflow's store is gone", "check it")

    warnings: list[str] = []
    with monkeypatch.context() as broken:
        broken.setattr(MlflowStore, "log_points", fail)
        run = trained(linear_task, tmp_path / "run", warnings)
    assert len(warnings) == 1
    assert "iq-offline sync" in warnings[0]
    assert (run.path / "metrics.parquet").is_file()
    assert sync(run.path)
    assert len(children()) == 1


@pytest.mark.usefixtures("store")
def test_sync_rebuilds_a_lost_store_once(tmp_path, linear_task, tables, monkeypatch):
    """Sync builds a lost store again and does nothing the second time."""
    runs = [trained(linear_task, tmp_path / "runs" / str(seed), seed=seed) for seed in (0, 1)]
    before = history(runs[0].path, "train/loss")
    for run, mean in zip(runs, (4.0, 6.0), strict=True):
        evaluated(run, mean)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shutil.copy(tables, tmp_path / 'new.db')}")
    monkeypatch.chdir(tmp_path)
    first = sync_runs(runs, None, None, lambda: None)
    assert [run["written"] for run in first["runs"]] == [True, True]
    assert first["comparisons"][0]["rows_written"]
    client, mirrored, note = client_and_run(runs[0].path)
    assert history(runs[0].path, "train/loss") == before
    assert mirrored.data.metrics["eval/return_mean"] == 4.0
    assert mirrored.outputs.model_outputs
    assert {file.path for file in client.list_artifacts(note["run_id"])} >= {"policy.safetensors", "evaluation.json"}
    assert [history(run.path, "summary/return_iqm") for run in runs] == [[(0, 5.0)]] * 2
    assert "| linear | bc |" in client.get_run(note["parent_run_id"]).data.tags["mlflow.note.content"]
    second = sync_runs(runs, None, None, lambda: None)
    assert [run["written"] for run in second["runs"]] == [False, False]
    assert second["comparisons"][0]["rows_written"] is False
    assert history(runs[0].path, "train/loss") == before


@pytest.mark.usefixtures("store")
def test_sync_adds_later_stages_once(tmp_path, linear_task):
    """Sync completes a run with the stages that came later and no more."""
    run = trained(linear_task, tmp_path / "run")
    before = history(run.path, "train/loss")
    evaluated(run)
    assert sync(run.path)
    assert not sync(run.path)
    assert history(run.path, "eval/return_mean") == [(0, 5.0)]
    assert history(run.path, "train/loss") == before
    assert len(children()) == 1


@pytest.mark.usefixtures("store")
def test_sync_tags_runs_of_an_older_store(tmp_path, linear_task):
    """Sync adds the tags that runs are compared by to a run that an earlier version has mirrored without them."""
    run = trained(linear_task, tmp_path / "run")
    client, mirrored, note = client_and_run(run.path)
    for tag in ("seed", "comparison", "row"):
        client.delete_tag(note["run_id"], tag)
    sync_runs([run], None, None, lambda: None)
    tags = client_and_run(run.path)[1].data.tags
    assert tags == mirrored.data.tags | {"row": "bc"}


@pytest.mark.usefixtures("store")
def test_rows_stay_when_runs_are_missing(tmp_path, linear_task):
    """A comparisons rows stay as they are when only some of its runs are given."""
    runs = [trained(linear_task, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    evaluated(runs[0])
    told = sync_runs(runs[:1], None, None, lambda: None)["comparisons"][0]
    assert (told["runs_not_given"], told["rows_written"]) == (1, None)
    (tmp_path / "report.html").write_text("a page")
    with pytest.raises(RunError, match="1 more runs belong to that comparison"):
        sync_runs(runs[:1], None, tmp_path, lambda: None)
    with pytest.raises(RunError, match=r"holds no report\.html"):
        sync_runs(runs, None, runs[0].path, lambda: None)


@pytest.mark.usefixtures("store")
def test_a_policy_is_registered_once(tmp_path, linear_task):
    run = trained(linear_task, tmp_path / "run")
    versions = [sync_runs([run], "hopper-policy", None, lambda: None)["runs"][0]["version"] for _ in range(2)]
    client, mirrored, _ = client_and_run(run.path)
    assert versions == ["1", "1"]
    registered = client.get_model_version("hopper-policy", "1")
    assert registered.run_id == mirrored.info.run_id
    assert (Path(registered.source.removeprefix("file://")) / "MLmodel").is_file()


@pytest.mark.usefixtures("store")
def test_report_is_on_the_parent_run(tmp_path, linear_task):
    """A report lies on the parent, with a link to it in the description, and its rows on their runs."""
    runs = [trained(linear_task, tmp_path / "runs" / str(seed), seed=seed) for seed in (0, 1)]
    for run, mean in zip(runs, (4.0, 6.0), strict=True):
        evaluated(run, mean)
    make_report([run.path for run in runs], tmp_path / "report", pytest.fail)
    client, run, note = client_and_run(runs[0].path)
    figures = run.data.metrics
    assert figures["summary/return_iqm"] == 5.0
    assert figures["summary/return_low"] <= 5.0 <= figures["summary/return_high"]
    assert run.data.tags["row"] == "bc"
    parent = client.get_run(note["parent_run_id"])
    assert not parent.data.metrics
    assert parent.info.run_name.startswith("report: linear")
    link = f"(#/experiments/{note['experiment_id']}/runs/{note['parent_run_id']}/artifacts/report.html)"
    assert link in parent.data.tags["mlflow.note.content"]
    assert {"report.html", "summary.csv", "plots"} <= {f.path for f in client.list_artifacts(note["parent_run_id"])}
    assert client.list_artifacts(note["parent_run_id"], "plots")


@pytest.mark.usefixtures("store")
def test_interval_that_is_gone_becomes_nan(tmp_path, linear_task):
    """A report on fewer runs leaves no interval of an earlier one on its runs."""
    runs = [trained(linear_task, tmp_path / "runs" / str(seed), seed=seed) for seed in (0, 1)]
    for run, mean in zip(runs, (4.0, 6.0), strict=True):
        evaluated(run, mean)
    make_report([run.path for run in runs], tmp_path / "two", pytest.fail)
    make_report([runs[0].path], tmp_path / "one", pytest.fail)
    figures = client_and_run(runs[0].path)[1].data.metrics
    assert figures["summary/return_iqm"] == 4.0
    assert np.isnan(figures["summary/return_low"])


@pytest.mark.usefixtures("store")
def test_a_later_stage_adds_to_the_same_run(tmp_path, linear_task):
    run = trained(linear_task, tmp_path / "run")
    evaluated(run)
    mirror_stage(run.path, {"eval/return_mean": 3.0, "eval/score": None}, ("evaluation.json",), pytest.fail)
    _, mirrored, _ = client_and_run(run.path)
    assert mirrored.data.metrics["eval/return_mean"] == 3.0
    assert "eval/score" not in mirrored.data.metrics


def test_concurrent_openings_make_one_experiment(home):
    """Several openings of a fresh store make one experiment."""
    stores: list[MlflowStore] = []
    threads = [threading.Thread(target=lambda: stores.append(MlflowStore.open())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({store.experiment_id for store in stores}) == 1
    assert len(stores) == 3
    assert (home / "mlflow" / "mlflow.db").is_file()
