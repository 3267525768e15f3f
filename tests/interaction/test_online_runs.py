"""Runs that act: what they record, how they start from another run, and how they go on after they were killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests_support import Requested, requested

from iq_offline.errors import ConfigError, RunError
from iq_offline.interaction import collector as collector_module
from iq_offline.interaction import replay as replay_module
from iq_offline.interaction.replay import LISTED, Replay
from iq_offline.report.groups import grouped
from iq_offline.report.loading import load_runs
from iq_offline.report.plots import interaction_plot
from iq_offline.report.tables import summary_table
from iq_offline.stages import train as stage
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.reproduce import reproduce_run
from iq_offline.stages.reward import RewardRequest, recover_reward
from iq_offline.stages.train import train_run
from iq_offline.tracking.metrics import recorded_points
from iq_offline.tracking.mirror import Tracker
from iq_offline.training.checkpointing import SnapshotFolder
from iq_offline.training.run_folder import RunFolder

CARTPOLE, SWIMMER = "demo/cartpole/expert-v0", "demo/swimmer/expert-v0"
SMALL = ("hidden_sizes=[8]", "batch_size=16", "warm_up_steps=60")


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store to mirror into, and a tenth of the usual updates between two log lines."""
    monkeypatch.setattr(stage, "start_tracking", lambda *_: Tracker())
    monkeypatch.setattr("iq_offline.training.loop.LOG_EVERY", 10)


def request(out: Path, dataset: str = CARTPOLE, steps: int = 200, *more: str, **asked: Any) -> Requested:
    settings = (*SMALL, *more)
    asked = {"demos": 1, "device": "cpu", "environment_steps": steps} | asked
    return requested(dataset, "iq-online", overrides=settings, out=out, **asked)


def silently(asked: Requested) -> RunFolder:
    return train_run(*asked, lambda _: None, lambda _: None)


def assert_the_same(first: RunFolder, second: RunFolder) -> None:
    assert first.manifest["checkpoint_sha256"] == second.manifest["checkpoint_sha256"]
    assert first.table("metrics.parquet").equals(second.table("metrics.parquet"))


@pytest.mark.parametrize("dataset", [CARTPOLE, SWIMMER])
def test_run_tells_its_environment_steps(dataset: str, tmp_path: Path):
    """The manifest has the environment steps; metrics have them with returns and evaluations; the replay that is kept
    holds every one of them."""
    asked = request(
        tmp_path / "run", dataset, 150, "evaluate_every=100", "evaluation_episodes=1", keep_replay=tmp_path / "all.hdf5"
    )
    run = silently(asked)
    metrics = run.table("metrics.parquet")
    assert run.manifest["environment_steps"] == metrics["environment_steps"][-1] == 150
    assert run.manifest["updates"] == 90
    assert metrics["evaluation_return"].drop_nulls().len() == 1
    kept = open_dataset(str(tmp_path / "all.hdf5"))
    assert kept.steps == 150
    assert metrics["training_episodes"][-1] == len(kept.episodes)
    first_returns = kept.episodes["return"].to_numpy()
    assert np.isfinite(first_returns).all()
    record = json.loads((tmp_path / "all.provenance.json").read_text())
    assert record["experienced_by"]["run"] == "run"
    assert not SnapshotFolder.of(tmp_path / "run").path.exists()


def test_evaluation_changes_nothing_that_is_learnt(tmp_path: Path):
    plain = silently(request(tmp_path / "plain"))
    evaluated = silently(request(tmp_path / "evaluated", CARTPOLE, 200, "evaluate_every=30", "evaluation_episodes=1"))
    assert plain.manifest["policy_sha256"] == evaluated.manifest["policy_sha256"]


def test_run_that_acts_is_reproduced(tmp_path: Path):
    run = silently(request(tmp_path / "run"))
    assert reproduce_run(run, 0.0, lambda _: None, lambda _: None).bitwise


def kept_states(monkeypatch: pytest.MonkeyPatch, asked: Requested, out: Path, kept: Path) -> list[Path]:
    """Train to the end; returns copies of what a process killed at each of several moments would leave on disk."""
    moments: list[Path] = []

    def keep(name: str) -> None:
        moments.append(kept / f"{len(moments):03d} {name}")
        shutil.copytree(SnapshotFolder.of(out).path, moments[-1])

    append, add = Replay.append, Replay._add

    def watched(replay: Replay, experience: Any) -> None:
        if len(replay.episodes) % 3 == 0:
            keep("before an episode is appended")
        append(replay, experience)

    def listed(replay: Replay, lines: Any) -> None:
        if len(replay.episodes) % 3 == 1:
            keep("after it is listed")
            file = moments[-1].parent / moments[-1].name / "replay" / replay_module.EPISODES
            if len(replay.episodes) % 2:
                file.write_bytes(file.read_bytes()[: -LISTED.itemsize // 2])
        add(replay, lines)

    monkeypatch.setattr(Replay, "append", watched)
    monkeypatch.setattr(Replay, "_add", listed)

    def updated(progress: Any) -> None:
        if not isinstance(progress, str) and progress.step % 50 == 0:
            keep("at an update")

    train_run(*asked, updated, lambda _: None)
    monkeypatch.undo()
    return moments


@pytest.mark.parametrize("environments", [1, 3])
def test_killed_run_ends_as_an_unbroken_one(environments: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From what a kill leaves on disk at each of many moments, in acting, in writing and in learning, a run goes on to
    the same tensors, metrics and replay: no transition is lost or doubled."""
    monkeypatch.setattr(stage, "start_tracking", lambda *_: Tracker())
    settings = (f"environments={environments}", "evaluate_every=80", "evaluation_episodes=1")

    def asked(name: str, **more: Any) -> Requested:
        keep = tmp_path / f"{name}.hdf5"
        return request(tmp_path / name, CARTPOLE, 260, *settings, snapshot_seconds=0, keep_replay=keep, **more)

    moments = kept_states(monkeypatch, asked("whole"), tmp_path / "whole", tmp_path / "kept")
    monkeypatch.setattr(stage, "start_tracking", lambda *_: Tracker())
    whole, replay = RunFolder.open(tmp_path / "whole"), open_dataset(str(tmp_path / "whole.hdf5"))
    assert len(moments) >= 6
    for number, moment in enumerate(moments):
        shutil.copytree(moment, SnapshotFolder.of(tmp_path / f"again-{number}").path)
        again = silently(asked(f"again-{number}", resume=True))
        kept = open_dataset(str(tmp_path / f"again-{number}.hdf5"))
        assert again.manifest["checkpoint_sha256"] == whole.manifest["checkpoint_sha256"], moment
        logged = [run.table("metrics.parquet") for run in (again, whole)]
        assert (
            logged[0]
            .select("step", "environment_steps")
            .tail(1)
            .equals(logged[1].select("step", "environment_steps").tail(1))
        )
        assert np.array_equal(kept.rows, replay.rows), moment
        assert kept.episodes.equals(replay.episodes)


def test_lost_replay_stops_the_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run whose replay is not there as it was written is not gone on with."""
    out = tmp_path / "run"
    moments = kept_states(monkeypatch, request(out, snapshot_seconds=0), out, tmp_path / "kept")
    monkeypatch.setattr(stage, "start_tracking", lambda *_: Tracker())
    last = next(moment for moment in reversed(moments) if list(moment.glob("*.safetensors")))
    shutil.copytree(last, SnapshotFolder.of(tmp_path / "again").path)
    (SnapshotFolder.of(tmp_path / "again").path / "replay" / replay_module.EPISODES).write_bytes(b"")
    with pytest.raises(RunError, match="does not hold") as refused:
        silently(request(tmp_path / "again", resume=True))
    assert "--resume" in refused.value.remedy


@pytest.mark.slow
def test_kill_nine_at_ten_moments_loses_nothing(tmp_path: Path):
    """Killed by SIGKILL ten times, each time a while after it had gone on, a run ends as an unbroken one."""
    command = [
        *(sys.executable, "-m", "iq_offline", "train", "--dataset", CARTPOLE, "--demos", "1", "--method", "iq-online"),
        *("--environment-steps", "2500", "--device", "cpu", "--snapshot-seconds", "0", "--compile", "off"),
        *("--set", "hidden_sizes=[16]"),
    ]
    environment = os.environ | {"MLFLOW_TRACKING_URI": str(tmp_path / "nowhere" / "mlruns")}

    def arguments(name: str) -> list[str]:
        return [*command, "--out", str(tmp_path / name), "--keep-replay", str(tmp_path / f"{name}.hdf5")]

    subprocess.run(arguments("whole"), env=environment, check=True, capture_output=True)
    snapshots = SnapshotFolder.of(tmp_path / "cut")
    killed, seen = 0, 0
    while killed < 10:
        process = subprocess.Popen([*arguments("cut"), "--resume"], env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            latest = max((int(file.stem) for file in snapshots.files()), default=0)
            if latest > seen:
                seen = latest
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.02)
        if process.wait() != -signal.SIGKILL:
            break
        killed += 1
    assert killed == 10
    last = subprocess.run([*arguments("cut"), "--resume"], env=environment, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    first, second = (RunFolder.open(tmp_path / name) for name in ("whole", "cut"))
    assert_the_same(first, second)
    tables = [open_dataset(str(tmp_path / f"{name}.hdf5")) for name in ("whole", "cut")]
    assert np.array_equal(tables[0].rows, tables[1].rows)


@pytest.mark.parametrize("dataset", [CARTPOLE, SWIMMER])
def test_run_starts_from_a_clone(dataset: str, tmp_path: Path):
    """It starts with the clone's policy, which waits while Q is learnt, acts from the first step on, and is anchored
    by a weight that halves; the content of the clone is in the run's hash, its path is not."""
    few = ("updates=40", "hidden_sizes=[8]")
    bc = silently(requested(dataset, "bc", demos=1, overrides=few, out=tmp_path / "bc", device="cpu"))
    settings = ("start.policy_waits=1000", "start.anchor_half_life=20")
    asked = request(tmp_path / "run", dataset, 130, *settings, start_from=str(bc.path))
    run = silently(asked)
    start, end = bc.policy().state_dict(), run.policy().state_dict()
    moved = [name for name in start if not np.array_equal(start[name], end[name])]
    assert bool(moved) == (dataset == CARTPOLE)  # a soft Q-function of discrete actions is the policy: nothing waits
    weights = run.table("metrics.parquet")["anchor_weight"].to_list()
    assert weights[0] / weights[-1] == pytest.approx(2 ** ((run.manifest["updates"] - 10) / 20), rel=1e-4)
    elsewhere = tmp_path / "moved"
    shutil.copytree(bc.path, elsewhere)
    again = silently(request(tmp_path / "again", dataset, 130, *settings, start_from=str(elsewhere)))
    assert again.manifest["config_hash"] == run.manifest["config_hash"]
    assert again.manifest["policy_sha256"] == run.manifest["policy_sha256"]


def test_policy_moves_after_its_wait(tmp_path: Path):
    few = ("updates=40", "hidden_sizes=[8]")
    bc = silently(requested(SWIMMER, "bc", demos=1, overrides=few, out=tmp_path / "bc", device="cpu"))
    run = silently(request(tmp_path / "run", SWIMMER, 130, "start.policy_waits=30", start_from=str(bc.path)))
    start, end = bc.policy().state_dict(), run.policy().state_dict()
    assert not all(np.array_equal(start[name], end[name]) for name in start)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"method": "iq", "environment_steps": 100}, "environment_steps"),
        ({"method": "iq", "start_from": "run"}, "starts from no run"),
        ({"method": "iq", "keep_replay": Path("all.hdf5")}, "experiences nothing"),
        ({"method": "iq-online", "updates": 7}, "updates follow the environment steps"),
        ({"method": "iq-online", "environment_steps": 10}, "no update follows the warm-up"),
        ({"method": "iq-online", "start_from": "acted"}, "no cloned policy"),
        ({"method": "iq-online", "start_from": "other"}, "other actions"),
        ({"method": "iq-online", "keep_replay": Path("name")}, "not a name that Minari"),
    ],
)
def test_what_does_not_fit_is_refused(asked: dict[str, Any], words: str, tmp_path: Path, monkeypatch: Any):
    """Options of runs that act are refused, with a remedy, where they mean nothing."""
    monkeypatch.chdir(tmp_path)
    few = ("updates=10", "hidden_sizes=[8]")
    if "start_from" in asked:
        silently(requested(CARTPOLE, "bc", demos=1, overrides=few, out=tmp_path / "run", device="cpu"))
        silently(requested(SWIMMER, "bc", demos=1, overrides=few, out=tmp_path / "other", device="cpu"))
        silently(request(tmp_path / "acted", CARTPOLE, 90))
    asked = dict(asked)
    with pytest.raises((ConfigError, RunError)) as refused:
        silently(
            requested(CARTPOLE, asked.pop("method"), updates=asked.pop("updates", None), out=tmp_path / "o", **asked)
        )
    said = f"{refused.value.problem} {refused.value.remedy}"
    assert words in said


def test_dataset_without_environment_is_refused(tmp_path: Path, linear_task: Path):
    with pytest.raises(ConfigError, match="names no environment to act in"):
        silently(request(tmp_path / "run", str(linear_task)))


@pytest.mark.parametrize("method", ["iq-online", "sqil-online"])
@pytest.mark.parametrize("dataset", [CARTPOLE, SWIMMER])
def test_rewards_of_the_environment_are_unread(
    method: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With other rewards from the environment, the same tensors are learnt: the replay alone holds them."""

    def run(name: str) -> RunFolder:
        few = {"demos": 1, "device": "cpu", "environment_steps": 130}
        return silently(requested(dataset, method, overrides=SMALL, out=tmp_path / name, **few))

    plain = run("plain")
    made = collector_module.make_raw_environment

    def other_rewards(*arguments: Any) -> Any:
        environment = made(*arguments)

        def step(action: Any) -> Any:
            observation, _, *rest = environment.step(action)
            return observation, 1e30, *rest

        return replace(environment, step=step)

    monkeypatch.setattr(collector_module, "make_raw_environment", other_rewards)
    other = run("other")
    assert other.manifest["checkpoint_sha256"] == plain.manifest["checkpoint_sha256"]
    assert other.table("metrics.parquet")["training_return"].max() > 1e30


def test_curves_lie_over_environment_steps(tmp_path: Path):
    """In MLflow; the table itself has the updates."""
    run = silently(request(tmp_path / "run", CARTPOLE, 200, "evaluate_every=80", "evaluation_episodes=1"))
    metrics = run.table("metrics.parquet")
    points = [point for point in recorded_points(metrics) if point[0] == "train/evaluation_return"]
    assert [clock for _, _, clock in points] == metrics.drop_nulls("evaluation_return")["environment_steps"].to_list()


def test_resumed_run_may_replace_its_own_replay(tmp_path: Path):
    """What is there is the same run's; any other file is left alone, and so is a folder."""
    asked = request(tmp_path / "run", keep_replay=tmp_path / "all.hdf5")
    silently(asked)
    silently((asked[0], replace(asked[1], resume=True)))
    shutil.rmtree(tmp_path / "run")
    silently((asked[0], replace(asked[1], resume=True)))
    with pytest.raises(ConfigError, match=r"all\.hdf5 exists"):
        silently((asked[0], replace(asked[1], out=tmp_path / "other")))
    other = request(tmp_path / "third", CARTPOLE, 150, keep_replay=tmp_path / "all.hdf5", resume=True)
    with pytest.raises(ConfigError, match=r"all\.hdf5 exists"):
        silently(other)


def test_reward_of_a_run_that_acts_is_recovered(tmp_path: Path):
    run = silently(request(tmp_path / "run"))
    report = recover_reward(run, RewardRequest(), lambda *_: None, lambda _: None)
    assert report["transition"]["n"] > 0


def test_report_keeps_acting_and_offline_apart(tmp_path: Path):
    """Each has a row of its own, with the environment steps of the one that acted, and a figure over them."""
    settings = ("evaluate_every=80", "evaluation_episodes=1")
    silently(request(tmp_path / "acted", CARTPOLE, 200, *settings))
    few = ("updates=20", "hidden_sizes=[8]")
    bc = silently(requested(CARTPOLE, "bc", demos=1, overrides=few, out=tmp_path / "bc", device="cpu"))
    assert bc.manifest["environment_steps"] == 0
    groups = grouped(load_runs([tmp_path / "acted", tmp_path / "bc"])[0])
    table = summary_table(groups)
    assert dict(zip(table["method"], table["environment_steps"], strict=True)) == {"bc": None, "iq-online": 200}
    assert interaction_plot(groups).startswith(b"\x89PNG")


def test_metrics_name_what_was_experienced(tmp_path: Path):
    run = silently(request(tmp_path / "run"))
    found = set(run.table("metrics.parquet").columns)
    assert {"environment_steps", "training_episodes", "training_return", "supplementary_q"} <= found
    timing = run.table("timing.parquet")
    assert (timing["environment_steps_per_second"].drop_nulls() > 0).all()
    assert isinstance(timing, pl.DataFrame)
