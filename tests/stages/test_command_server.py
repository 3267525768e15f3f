"""Commands of a pipeline run in forks of a command server, and answer as they would by themselves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iq_offline.command_server.client import SOCKET, packed, unpacked
from iq_offline.tracking.mlflow_access import sqlite_file, tracking_uri
from iq_offline.tracking.mlflow_store import MlflowStore

SECONDS = 120


def started(place: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-m", "iq_offline.command_server.server", str(place)], stdin=subprocess.PIPE
    )
    wait_for(place.exists)
    return process


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a command server."""
    socket = tmp_path_factory.mktemp("warm") / "socket"
    process = started(socket)
    yield socket
    process.communicate()
    assert process.returncode == 0


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "iq_offline", *map(str, arguments)]


def ran(place: Path | None, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {SOCKET: str(place or "")}
    return subprocess.run(command(*arguments), env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def wait_for(condition) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def long_training(dataset: Path, out: Path) -> list[str]:
    settings = ["--method", "bc", "--updates", 10**7, "--set", "hidden_sizes=[8]", "--device", "cpu"]
    return command("train", "--dataset", dataset, *settings, "--compile", "off", "--out", out)


COMMANDS = {
    "an answer, in the environment of whoever asks": (("doctor", "--json"), 0),
    "a mistake": (("eval", "nothing-here"), 2),
    "the command line's own mistake": (("eval", "--episodes", "none"), 2),
    "help": (("train", "--help"), 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_answers_as_it_does_by_itself(name, place, tmp_path):
    arguments, status = COMMANDS[name]
    warm, cold = ran(place, *arguments, cwd=tmp_path), ran(None, *arguments, cwd=tmp_path)
    assert (warm.returncode, cold.returncode) == (status, status)
    assert (warm.stdout, warm.stderr) == (cold.stdout, cold.stderr)


@pytest.mark.slow
def test_server_and_own_process_train_equal_tensors(place, tmp_path, linear_task):
    """A run has the tensors that it has in a process of its own."""
    arguments = ("train", "--dataset", linear_task, "--method", "iq", "--preset", "quick", "--device", "cpu", "--out")
    for socket, folder in ((place, "warm"), (None, "cold")):
        assert ran(socket, *arguments, folder, cwd=tmp_path).returncode == 0
    warm, cold = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("warm", "cold"))
    assert warm["checkpoint_sha256"] == cold["checkpoint_sha256"]
    assert (tmp_path / "warm" / "tracking.json").is_file()


@pytest.mark.slow
def test_no_store_connection_outlives_a_fork(tmp_path, linear_task):
    """A store that exists is opened once, and no connection outlives a fork."""
    warm = started(place := tmp_path / "socket")
    arguments = ("train", "--dataset", linear_task, "--method", "bc", "--preset", "quick", "--device", "cpu", "--out")
    for name in ("first", "second", "third"):
        assert ran(place, *arguments, name, "--group", name, cwd=tmp_path).returncode == 0
    notes = [json.loads((tmp_path / name / "tracking.json").read_text()) for name in ("first", "second", "third")]
    held = [str(file.readlink()) for file in Path(f"/proc/{warm.pid}/fd").iterdir()]
    warm.communicate()
    store = MlflowStore.open()
    assert all(store.run(note["run_id"]).finished for note in notes)
    assert len({note["parent_run_id"] for note in notes}) == 3
    assert not [name for name in held if "mlflow" in name]


def test_opening_ahead_makes_no_store():
    assert not MlflowStore.open_ahead()
    assert not sqlite_file(tracking_uri()).exists()
    MlflowStore.open()
    assert MlflowStore.open_ahead()


def test_a_command_is_the_same_when_it_arrives():
    sent = (["train", "--set", "a=b=c", "", "über"], "/some where", {"A": "x=y", "EMPTY": ""})
    assert unpacked(packed(*sent)) == sent


def test_where_nobody_listens_a_command_runs_by_itself(tmp_path):
    assert "iq-offline" in ran(tmp_path / "nothing", "--version", cwd=tmp_path).stdout


@pytest.mark.slow
def test_a_command_ends_when_whoever_asked_is_killed(place, tmp_path, linear_task):
    environment = os.environ | {SOCKET: str(place)}
    with subprocess.Popen(long_training(linear_task, tmp_path / "run"), env=environment) as process:
        wait_for(lambda: list(tmp_path.glob(".run.*.part")))
        process.kill()
    wait_for(lambda: not list(tmp_path.glob(".run.*.part")))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_group_signals_end_commands_as_usual(tmp_path, linear_task):
    """A signal to the process group ends a command as if it ran by itself."""
    place = tmp_path / "socket"
    environment = os.environ | {SOCKET: str(place)}
    warm = started(place)
    with subprocess.Popen(
        long_training(linear_task, tmp_path / "run"), env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: list(tmp_path.glob(".run.*.part")))
        (training,) = children(warm.pid)
        for pid in (warm.pid, process.pid, training):
            os.kill(pid, signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped at update" in errors
    warm.communicate()
    assert warm.returncode == 0


@pytest.mark.slow
def test_server_outlives_its_commands(tmp_path, linear_task):
    """The process ends with its owner, but not before its commands."""
    place = tmp_path / "socket"
    environment = os.environ | {SOCKET: str(place)}
    warm = started(place)
    arguments = ("train", "--dataset", linear_task, "--method", "bc", "--preset", "quick", "--device", "cpu")
    with subprocess.Popen(command(*arguments, "--out", tmp_path / "run"), env=environment) as process:
        wait_for(lambda: children(warm.pid))
        warm.communicate()
    assert process.returncode == 0
    assert (tmp_path / "run" / "policy.safetensors").is_file()


def children(process: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
