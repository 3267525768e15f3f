"""Seeds side by side make what each would make alone, and stop as one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support import Requested, requested

from iq_offline.config.train import Compile
from iq_offline.errors import ConfigError, Interrupted, NotYet, ProcessKilled
from iq_offline.stages.seeds import as_rows, train_seeds, workers_for
from iq_offline.stages.train import Status, status, train_run
from iq_offline.training.checkpointing import SnapshotFolder
from iq_offline.training.loop import Progress


def request(out: Path, dataset: Path, seed: int, *overrides: str) -> Requested:
    small = ("updates=120", "hidden_sizes=[8]", *overrides)
    return requested(str(dataset), "bc", demos=3, overrides=small, seed=seed, device="cpu", out=out, tracked=False)


def test_seeds_in_processes_equal_seeds_alone(tmp_path: Path, linear_task: Path):
    """Seeds trained side by side make the tensors and metrics that each makes alone."""
    alone = [train_run(*request(tmp_path / f"alone-{n}", linear_task, n), lambda _: None, print) for n in (0, 1)]
    seen: list[tuple[int, bool]] = []
    requests = [request(tmp_path / f"together-{n}", linear_task, n) for n in (0, 1)]
    together = train_seeds(requests, 2, lambda seed, now: seen.append((seed, now.step == now.total)), print)
    for first, second in zip(alone, together, strict=True):
        assert first.manifest["checkpoint_sha256"] == second.manifest["checkpoint_sha256"]
        assert (first.path / "metrics.parquet").read_bytes() == (second.path / "metrics.parquet").read_bytes()
    assert {(0, True), (1, True)} <= set(seen)
    assert [row["seed"] for row in as_rows(together)] == [0, 1]


def no_training(*_: object) -> Iterator[Progress]:
    raise NotYet("no training", "none")


@pytest.mark.parametrize(
    ("updates", "compiling", "phase"),
    [(20, "off", "cloning"), (10, "on", "compiling, then cloning"), (10_000, "auto", "compiling, then cloning")],
)
def test_phase_is_told_before_updates(updates, compiling, phase, monkeypatch, tmp_path, linear_task):
    """What a run does first is told once, before its first updates are made."""
    monkeypatch.setattr("iq_offline.stages.train.training_steps", no_training)
    config, options = request(tmp_path / "run", linear_task, 0, f"updates={updates}")
    heard: list[Status] = []
    with pytest.raises(NotYet):
        train_run(
            config.model_copy(update={"compile": Compile(compiling)}),
            options,
            lambda now: heard.append(status(config, now)),
            print,
        )
    assert heard == [(phase, 0, None, {})]


def kill_this_process(_: object) -> Path:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_killed_process_names_unfinished_seeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, linear_task: Path):
    """The error of a killed process names the seeds without a run, and `--resume` as the remedy."""
    monkeypatch.setattr("iq_offline.stages.seeds._train", kill_this_process)
    requests = [request(tmp_path / str(seed), linear_task, seed) for seed in (3, 7)]
    with pytest.raises(ProcessKilled) as caught:
        train_seeds(requests, 1, lambda *_: None, print)
    assert "seeds not trained: 3, 7" in caught.value.problem
    assert "--resume" in caught.value.remedy


@pytest.mark.slow
def test_one_seed_that_fails_lets_the_other_end(tmp_path: Path, linear_task: Path):
    (tmp_path / "bad").write_text("a file in the place of a run")
    requests = [request(tmp_path / name, linear_task, seed) for seed, name in enumerate(("bad", "good"))]
    with pytest.raises(ConfigError, match="is a file"):
        train_seeds(requests, 2, lambda *_: None, print)
    assert (tmp_path / "good" / "manifest.json").is_file()


def test_workers_fit_seeds_and_cores():
    """There are no more workers than seeds, and than cores for their threads."""
    cores = len(os.sched_getaffinity(0))
    assert workers_for(1, 1) == 1
    assert workers_for(1000, 1) == cores
    assert workers_for(1000, 2 * cores) == 1


def test_an_interruption_is_told_whole_by_another_process():
    import pickle

    told = pickle.loads(pickle.dumps(Interrupted("stopped", "go on", 15)))
    assert (told.problem, told.remedy, told.signal) == ("stopped", "go on", 15)


@pytest.mark.slow
@pytest.mark.parametrize("batched", [[], ["--together"]], ids=["processes", "together"])
def test_preempted_seeds_keep_their_checkpoints(batched: list[str], tmp_path: Path, linear_task: Path):
    """A preempted command keeps what its seeds have, and `--resume` goes on with it."""
    command = [sys.executable, "-m", "iq_offline", "train", "--dataset", str(linear_task), "--method", "bc"]
    command += ["--demos", "3", "--seeds", "0-1", "--out", str(tmp_path / "runs"), "--updates", "200000"]
    command += ["--set", "hidden_sizes=[8]", "--compile", "off", "--snapshot-seconds", "0.2", *batched]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    folders = [SnapshotFolder.of(tmp_path / "runs" / f"seed-{seed}") for seed in (0, 1)]
    folders = folders if batched else folders[: workers_for(2, 1)]
    deadline = time.monotonic() + 120
    while not all(folder.files() for folder in folders) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "--resume" in errors
    assert all(folder.files() for folder in folders)
    assert not list((tmp_path / "runs").glob("seed-*"))
