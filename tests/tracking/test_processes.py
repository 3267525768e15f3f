"""Real processes: eight that start at once on a fresh store, and a server that is killed while a run trains."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support import requested, reseal

from iq_offline.stages.train import train_run
from iq_offline.tracking import mirror
from iq_offline.tracking.mirror import Tracker, start_tracking, sync
from iq_offline.tracking.mlflow_store import MlflowStore
from iq_offline.training.run_folder import RunFolder

PROCESSES = 8
START_SECONDS = 300


def trained(dataset: Path, out: Path, on_progress=lambda _: None, warn=pytest.fail) -> RunFolder:
    overrides = ("updates=400", "hidden_sizes=[8]")
    request = requested(str(dataset), "bc", demos=2, overrides=overrides, device="cpu", out=out)
    return train_run(*request, on_progress, warn)


def copies(run: RunFolder, count: int) -> list[Path]:
    """The run's folder as so many runs of different seeds."""
    folders = [Path(shutil.copytree(run.path, run.path.with_name(f"seed-{seed}"))) for seed in range(count)]
    for seed, folder in enumerate(folders):
        config = folder / "config.toml"
        config.write_text(config.read_text().replace("\nseed = 0\n", f"\nseed = {seed}\n"))
        reseal(folder, run=folder.name, seed=seed, config_hash=f"hash {seed}")
    return folders


@pytest.mark.slow
def test_eight_processes_make_eight_whole_runs(tmp_path, linear_task, monkeypatch):
    """Eight processes at once on a fresh store give eight whole runs."""
    with monkeypatch.context() as untracked:
        untracked.setattr("iq_offline.stages.train.start_tracking", lambda *_: Tracker())
        folders = copies(trained(linear_task, tmp_path / "run"), PROCESSES)
    script = Path(__file__).with_name("starting_together.py")
    command = [sys.executable, str(script), *map(str, folders)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(ran.stdout) == [0] * PROCESSES, ran.stderr
    store = MlflowStore.open()
    parent = store.latest_parent()
    assert parent is not None
    runs = [store.run(run_id) for run_id in store.children(parent)]
    names = sorted(run.tags["mlflow.runName"] for run in runs if run)
    assert names == [f"bc seed {seed}, linear" for seed in range(PROCESSES)]
    assert all(run and run.finished and run.model and run.datasets for run in runs)
    assert {run.metrics["train/loss"] for run in runs if run} == {2000.0}
    assert len(parents(store)) == 1


def parents(store: MlflowStore) -> list[str]:
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri=store.uri).search_runs([store.experiment_id], "tags.`iq_offline.group` != ''")
    return [run.info.run_id for run in found]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """MLflow's own server on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    database, artifacts = f"sqlite:///{tmp_path}/server.db", (tmp_path / "artifacts").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--no-serve-artifacts", "--default-artifact-root", artifacts]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, cwd=tmp_path, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}", process
    finally:
        kill(process)


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail("MLflow's server did not start")


def kill(process: "subprocess.Popen[bytes]") -> None:
    """The server and its workers, at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_training_outlives_a_killed_server(tmp_path, linear_task, server, monkeypatch):
    """Training outlives a server that is killed and sync then shows all."""
    url, process = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    monkeypatch.setattr(mirror, "POINTS_PER_BATCH", 2)
    warnings, seen = list[str](), list[dict[str, float]]()

    def on_progress(progress) -> None:
        if not isinstance(progress, str) and progress.step == 200:
            before = MlflowStore.open()
            (run_id,) = before.children(before.latest_parent() or "")
            stored = before.run(run_id)
            assert stored is not None
            seen.append(dict(stored.metrics))
            kill(process)

    run = trained(linear_task, tmp_path / "run", on_progress, warnings.append)
    assert "train/loss" in seen[0]  # it was being mirrored when the server went
    assert len(warnings) == 1
    assert f"iq-offline sync {run.path}" in warnings[0]
    assert not (run.path / "tracking.json").exists()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/server.db")
    assert sync(run.path)
    store = MlflowStore.open()
    (run_id,) = store.children(store.latest_parent() or "")
    whole = store.run(run_id)
    assert whole is not None
    assert whole.finished
    assert whole.model
    from mlflow import MlflowClient

    history = MlflowClient(tracking_uri=store.uri).get_metric_history(run_id, "train/loss")
    assert [point.step for point in history] == [100, 200, 300, 400]


def test_missing_server_costs_a_warning_and_seconds(tmp_path, linear_task, monkeypatch):
    """A server that is not there costs a warning and seconds."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings: list[str] = []
    run = trained(linear_task, tmp_path / "run", warn=warnings.append)
    assert "http://127.0.0.1:9 cannot be used" in warnings[0]
    assert (run.path / "policy.safetensors").is_file()
    assert type(start_tracking(mirror.describe(run.manifest, run.path), run.path, warnings.append)) is Tracker


@pytest.mark.slow
def test_mlflows_telemetry_is_off_unless_asked_for(tmp_path):
    code = """
from iq_offline.tracking.mlflow_store import MlflowStore
MlflowStore.open()
from mlflow.telemetry import get_telemetry_client
print(get_telemetry_client())
"""
    plain = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "IQ_OFFLINE_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "None"
