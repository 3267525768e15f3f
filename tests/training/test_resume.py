"""A run that was cut off goes on to the tensors and metrics of an unbroken one, bit for bit."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from tests_support import Requested, requested

from iq_offline.errors import ConfigError, Interrupted
from iq_offline.stages import train as stage
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import Tracker
from iq_offline.training.checkpointing import SnapshotFolder
from iq_offline.training.run_folder import RunFolder

SMALL = ("prior.updates=30", "prior.hidden_sizes=[8]", "hidden_sizes=[8]", "batch_size=16")
IQ = ("updates=40", *SMALL, "cql.weight=1")
INITIAL = (*IQ, "value_term=initial", "polyak_rate=none")
BC = ("updates=40", "hidden_sizes=[8]")


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store to mirror into, and a tenth of the usual updates between two log lines."""
    monkeypatch.setattr(stage, "start_tracking", lambda *_: Tracker())
    monkeypatch.setattr("iq_offline.training.loop.LOG_EVERY", 10)


def request(out: Path, dataset: Path, method: str = "iq", **more: Any) -> Requested:
    overrides = {"bc": BC, "iq-initial": INITIAL}.get(method, IQ)
    return requested(str(dataset), method.split("-")[0], demos=3, overrides=overrides, device="cpu", out=out, **more)


def cut_off(asked: Requested, at: int) -> None:
    """Train until the signal of a preemption comes at that update."""

    def stop(progress: Any) -> None:
        if not isinstance(progress, str) and progress.step == at:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match=f"stopped at update {at}") as stopped:
        train_run(*asked, stop, lambda _: None)
    assert stopped.value.signal == signal.SIGTERM


def assert_the_same(first: RunFolder, second: RunFolder) -> None:
    assert first.manifest["checkpoint_sha256"] == second.manifest["checkpoint_sha256"]
    assert (first.path / "metrics.parquet").read_bytes() == (second.path / "metrics.parquet").read_bytes()
    assert first.split == second.split


@pytest.mark.parametrize(("method", "at"), [("bc", 20), ("iq", 10), ("iq", 30), ("iq", 50), ("iq-initial", 50)])
def test_interrupted_run_ends_as_an_unbroken_one(method: str, at: int, tmp_path: Path, linear_task: Path):
    """A run that was interrupted ends as an unbroken one, bit for bit."""
    whole = train_run(*request(tmp_path / "whole", linear_task, method), lambda _: None, lambda _: None)
    cut_off(request(tmp_path / "cut", linear_task, method), at)
    assert not (tmp_path / "cut").exists()
    again = train_run(*request(tmp_path / "cut", linear_task, method, resume=True), lambda _: None, lambda _: None)
    assert_the_same(whole, again)
    assert not SnapshotFolder.of(tmp_path / "cut").path.exists()


@pytest.mark.parametrize(("at", "overrides"), [(30, ()), (50, ()), (50, ("shared_encoder=false",))])
def test_pictures_resume_as_vectors_do(at: int, overrides: tuple[str, ...], tmp_path: Path):
    """From pictures too, moved at random, whether or not the networks share an encoder."""
    rows, random = 60, np.random.default_rng(0)
    with h5py.File(tmp_path / "pictures.hdf5", "w") as file:
        for key in ("observations", "next_observations"):
            file[key] = random.integers(0, 256, (rows, 7, 7, 3), np.uint8)
        file["actions"], file["rewards"] = random.integers(0, 3, rows), np.zeros(rows)
        file["terminals"], file["timeouts"] = np.zeros(rows, bool), np.arange(1, rows + 1) % 10 == 0
    small = ("updates=40", "prior.updates=30", "prior.hidden_sizes=[8]", "hidden_sizes=[8]", "batch_size=16")

    def asked(name: str, **more: Any) -> Requested:
        changes = {"overrides": (*small, *overrides), "shift": 1, "device": "cpu", "out": tmp_path / name}
        return requested(str(tmp_path / "pictures.hdf5"), "iq", **changes, **more)

    whole = train_run(*asked("whole"), lambda _: None, lambda _: None)
    cut_off(asked("cut"), at)
    assert_the_same(whole, train_run(*asked("cut", resume=True), lambda _: None, lambda _: None))


def test_runs_can_be_interrupted_repeatedly(tmp_path: Path, linear_task: Path):
    """A run can be interrupted again and again."""
    whole = train_run(*request(tmp_path / "whole", linear_task), lambda _: None, lambda _: None)
    for at in (10, 20, 40, 60):
        cut_off(request(tmp_path / "cut", linear_task, resume=True), at)
    again = train_run(*request(tmp_path / "cut", linear_task, resume=True), lambda _: None, lambda _: None)
    assert_the_same(whole, again)


def test_snapshots_change_nothing_and_two_are_kept(tmp_path: Path, linear_task: Path):
    whole = train_run(*request(tmp_path / "whole", linear_task), lambda _: None, lambda _: None)
    seen = []

    def look(_: Any) -> None:
        seen.append(len(SnapshotFolder.of(tmp_path / "often").files()))

    often = train_run(*request(tmp_path / "often", linear_task, snapshot_seconds=0), look, lambda _: None)
    assert_the_same(whole, often)
    assert max(seen) == 2


def test_damaged_snapshot_falls_back_to_previous(tmp_path: Path, linear_task: Path):
    """A damaged snapshot is passed over for the one before."""
    whole = train_run(*request(tmp_path / "whole", linear_task), lambda _: None, lambda _: None)
    cut_off(request(tmp_path / "cut", linear_task, snapshot_seconds=0), 50)
    last = SnapshotFolder.of(tmp_path / "cut").files()[-1]
    content = bytearray(last.read_bytes())
    content[-3] ^= 1
    last.write_bytes(content)
    warnings: list[str] = []
    again = train_run(*request(tmp_path / "cut", linear_task, resume=True), lambda _: None, warnings.append)
    assert_the_same(whole, again)
    assert [line for line in warnings if "damaged" in line]


@pytest.mark.parametrize("damage", ["pipe", "endless seconds"])
def test_odd_snapshot_counts_as_damaged(damage: str, tmp_path: Path, linear_task: Path):
    """A pipe in a snapshot's place is not waited for; a number of seconds that is not finite is none."""
    cut_off(request(tmp_path / "cut", linear_task), 50)
    if damage == "pipe":
        (file,) = SnapshotFolder.of(tmp_path / "cut").files()
        file.unlink()
        os.mkfifo(file)
    else:
        change_headers(tmp_path / "cut", seconds="1e999")
    heard: list[str] = []
    assert SnapshotFolder.of(tmp_path / "cut").latest("of any settings", heard.append) is None
    assert len(heard) == 1
    assert "damaged" in heard[0]


def test_other_settings_do_not_resume(tmp_path: Path, linear_task: Path):
    """Other settings are not resumed with, and nothing is deleted."""
    cut_off(request(tmp_path / "cut", linear_task), 30)
    with pytest.raises(ConfigError, match="had other settings"):
        train_run(*request(tmp_path / "cut", linear_task, seed=1, resume=True), lambda _: None, lambda _: None)
    with pytest.raises(ConfigError, match="was cut off"):
        train_run(*request(tmp_path / "cut", linear_task), lambda _: None, lambda _: None)
    assert SnapshotFolder.of(tmp_path / "cut").files()
    train_run(*request(tmp_path / "cut", linear_task, overwrite=True), lambda _: None, lambda _: None)


@pytest.mark.parametrize(
    ("other", "flag"),
    [({"threads": 2}, "--threads 1, not with --threads 2"), ({"compile": "off"}, "--compile auto, not with --compile")],
)
def test_other_means_are_not_gone_on_with(other: dict[str, Any], flag: str, tmp_path: Path, linear_task: Path):
    cut_off(request(tmp_path / "cut", linear_task), 30)
    with pytest.raises(ConfigError, match=flag) as refused:
        train_run(*request(tmp_path / "cut", linear_task, resume=True, **other), lambda _: None, lambda _: None)
    assert "the same flags as before, or leave --resume out" in refused.value.remedy


def change_headers(out: Path, **changes: str | None) -> None:
    """Change the headers of all snapshots; None takes an entry out."""
    for file in SnapshotFolder.of(out).files():
        with safe_open(file, framework="pt") as opened:
            header = {key: value for key, value in (opened.metadata() | changes).items() if value is not None}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        save_file(tensors, file, metadata=header)


def test_snapshots_of_other_means_are_refused(tmp_path: Path, linear_task: Path):
    """A snapshot of another device, or of batched seeds, is refused."""
    cut_off(request(tmp_path / "cut", linear_task), 30)
    for means in ({"--device": "cuda"}, {"--together": "of 3 seeds"}):
        change_headers(tmp_path / "cut", means=json.dumps(means))
        ((flag, value),) = means.items()
        with pytest.raises(ConfigError, match=f"was trained with {flag} {value}, not with {flag} (cpu|off)"):
            train_run(*request(tmp_path / "cut", linear_task, resume=True), lambda _: None, lambda _: None)


def test_older_snapshots_resume(tmp_path: Path, linear_task: Path):
    """A snapshot of an older version is resumed."""
    whole = train_run(*request(tmp_path / "whole", linear_task), lambda _: None, lambda _: None)
    cut_off(request(tmp_path / "cut", linear_task), 50)
    change_headers(tmp_path / "cut", means=None, prior_compiled=None)
    again = train_run(*request(tmp_path / "cut", linear_task, resume=True), lambda _: None, lambda _: None)
    assert_the_same(whole, again)
    assert "prior_compiled" not in again.manifest


@pytest.mark.parametrize("at", [20, 30, 50])
def test_resumed_runs_know_how_priors_ran(at: int, tmp_path: Path, linear_task: Path):
    """Whether the prior was compiled is known after an interruption."""
    cut_off(request(tmp_path / "cut", linear_task), at)
    again = train_run(*request(tmp_path / "cut", linear_task, resume=True), lambda _: None, lambda _: None)
    assert again.manifest["prior_compiled"] is False


def test_a_finished_run_is_not_trained_again(tmp_path: Path, linear_task: Path):
    done = train_run(*request(tmp_path / "done", linear_task, "bc"), lambda _: None, lambda _: None)
    steps: list[Any] = []
    again = train_run(*request(tmp_path / "done", linear_task, "bc", resume=True), steps.append, lambda _: None)
    assert steps == []
    assert again.manifest == done.manifest
    with pytest.raises(ConfigError, match="finished run of other settings"):
        train_run(*request(tmp_path / "done", linear_task, "iq", resume=True), steps.append, lambda _: None)


def test_two_processes_do_not_train_the_same_run(tmp_path: Path, linear_task: Path):
    with (
        SnapshotFolder.of(tmp_path / "run").held(),
        pytest.raises(ConfigError, match="another process is training into run"),
    ):
        train_run(*request(tmp_path / "run", linear_task, "bc"), lambda _: None, lambda _: None)


def test_full_disk_leaves_the_last_snapshot(tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch):
    """A full disk stops the run and leaves the last snapshot."""
    whole = train_run(*request(tmp_path / "whole", linear_task), lambda _: None, lambda _: None)
    good = os.fsync
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        good(handle)

    monkeypatch.setattr("iq_offline.training.checkpointing.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train_run(*request(tmp_path / "cut", linear_task, snapshot_seconds=0), lambda _: None, lambda _: None)
    assert len(SnapshotFolder.of(tmp_path / "cut").files()) == 2
    again = train_run(*request(tmp_path / "cut", linear_task, resume=True), lambda _: None, lambda _: None)
    assert_the_same(whole, again)


def test_only_the_main_thread_waits_for_signals(tmp_path: Path, linear_task: Path):
    """Outside the main thread no signal is waited for."""
    before = signal.getsignal(signal.SIGTERM)
    runs: list[RunFolder] = []

    def train() -> None:
        runs.append(train_run(*request(tmp_path / "thread", linear_task, "bc"), lambda _: None, lambda _: None))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert len(runs) == 1
    assert signal.getsignal(signal.SIGTERM) is before
