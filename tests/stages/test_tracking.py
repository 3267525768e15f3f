"""MLflow mirrors the run folders: one run under one parent, with its dataset, and nothing lost without it."""

import json
import threading
from pathlib import Path

import polars as pl
import pytest

from iq_offline.errors import TrackingUnavailable
from iq_offline.stages.train import TrainRequest, train_run
from iq_offline.tracking.mirror import mirror_stage, sync
from iq_offline.tracking.mlflow_store import MlflowStore
from iq_offline.training.run_folder import RunFolder


def request(dataset: Path, out: Path, seed: int = 0) -> TrainRequest:
    overrides = ("updates=120", "hidden_sizes=[8]")
    return TrainRequest(str(dataset), "bc", demos=2, seed=seed, overrides=overrides, device="cpu", out=out)


def trained(dataset: Path, out: Path, warnings: list[str], seed: int = 0) -> RunFolder:
    return train_run(request(dataset, out, seed), lambda _: None, warnings.append)


def client_and_run(folder: Path):
    from mlflow import MlflowClient

    note = json.loads((folder / "tracking.json").read_text())
    client = MlflowClient(tracking_uri=note["uri"])
    return client, client.get_run(note["run_id"]), note


def test_a_run_is_mirrored_with_its_parameters_metrics_dataset_and_files(tmp_path, linear_task):
    warnings: list[str] = []
    run = trained(linear_task, tmp_path / "run", warnings)
    client, mirrored, note = client_and_run(run.path)
    assert warnings == []
    assert mirrored.data.params["method"] == "bc"
    assert mirrored.data.params["algorithm.hidden_sizes"] == "[8]"
    assert mirrored.inputs.dataset_inputs[0].dataset.digest == run.manifest["dataset"]["sha256"][:32]
    history = [(m.step, m.value) for m in client.get_metric_history(note["run_id"], "train/loss")]
    assert history == list(pl.read_parquet(run.path / "metrics.parquet").select("step", "loss").iter_rows())
    assert {file.path for file in client.list_artifacts(note["run_id"])} >= {"policy.safetensors", "manifest.json"}


def test_seeds_share_one_parent(tmp_path, linear_task):
    parents = set()
    for seed in (0, 1):
        _, mirrored, _ = client_and_run(trained(linear_task, tmp_path / str(seed), [], seed).path)
        parents.add(mirrored.data.tags["mlflow.parentRunId"])
    assert len(parents) == 1


def test_an_unreachable_store_costs_a_warning_and_not_the_run(tmp_path, linear_task, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'a file' / 'x.db'}")
    (tmp_path / "a file").write_text("not a folder")
    warnings: list[str] = []
    run = trained(linear_task, tmp_path / "run", warnings)
    assert (run.path / "policy.safetensors").is_file()
    assert len(warnings) == 1
    assert f"iq-offline sync {run.path}" in warnings[0]
    assert not (run.path / "tracking.json").exists()


def test_sync_mirrors_a_run_that_was_not_and_leaves_one_that_was(tmp_path, linear_task, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings: list[str] = []
    run = trained(linear_task, tmp_path / "run", warnings)
    assert "http://127.0.0.1:9 cannot be used" in warnings[0]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (run.path / "evaluation.json").write_text(
        json.dumps({"return_mean": 5.0, "return_std": 1.0, "length_mean": 10.0, "score": None})
    )
    assert sync(run.path)
    assert not sync(run.path)
    _, mirrored, _ = client_and_run(run.path)
    assert mirrored.data.metrics["eval/return_mean"] == 5.0
    assert mirrored.data.metrics["train/loss"] > 0


def test_a_store_that_fails_midway_costs_one_warning_and_sync_replaces_what_it_left(tmp_path, linear_task, monkeypatch):
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
    store = MlflowStore.open()
    assert len(store.children(store.parent(run.manifest["group"]))) == 1


def test_a_later_stage_adds_to_the_same_run(tmp_path, linear_task):
    run = trained(linear_task, tmp_path / "run", [])
    (run.path / "evaluation.json").write_text("{}")
    mirror_stage(run.path, {"eval/return_mean": 3.0, "eval/score": None}, ("evaluation.json",), pytest.fail)
    _, mirrored, _ = client_and_run(run.path)
    assert mirrored.data.metrics["eval/return_mean"] == 3.0
    assert "eval/score" not in mirrored.data.metrics


def test_several_openings_of_a_fresh_store_make_one_experiment(home):
    stores: list[MlflowStore] = []
    threads = [threading.Thread(target=lambda: stores.append(MlflowStore.open())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({store.experiment_id for store in stores}) == 1
    assert len(stores) == 3
    assert (home / "mlflow" / "mlflow.db").is_file()
