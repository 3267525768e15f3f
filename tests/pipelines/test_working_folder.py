"""One run at a time in a folder: the living are respected, the dead are told and cleared."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iq_offline.errors import ConfigError
from iq_offline.pipeline.working_folder import HOLDER, Holder, held

HOLD = """
import sys, time
from pathlib import Path
from iq_offline.pipeline.working_folder import held
with held(Path(sys.argv[1]), "other", print):
    print("held", flush=True)
    time.sleep(60)
"""


def lock_of_snakemake(folder: Path) -> Path:
    lock = folder / ".snakemake" / "locks" / "0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    return lock


def sleeper(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", *arguments], cwd=folder, process_group=0
    )


def write_holder(folder: Path, process: int, host: str = "") -> None:
    holder = Holder("t", host or socket.gethostname(), "2000-01-01T00:00:00+00:00", process)
    (folder / HOLDER).write_text(json.dumps(vars(holder)))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_living_run_is_named_dead_one_ignored(folder):
    """A living run is named and its folder refused; a dead one's is taken over."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError) as caught, held(folder, "t", print):
            pass
        assert f"process {other.pid}" in caught.value.problem
        assert "of pipeline other" in caught.value.problem
        other.kill()
    with held(folder, "t", print) as hold:
        assert hold.left is not None
        assert hold.left.process == other.pid
        assert json.loads((folder / HOLDER).read_text())["process"] == os.getpid()


def test_hold_lasts_as_long_as_its_inheritor(folder):
    with held(folder, "t", print) as hold:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[hold.descriptor])
        hold.record(child.pid)
    with pytest.raises(ConfigError, match=f"process {child.pid}"), held(folder, "t", print):
        pass
    child.kill()
    child.wait()
    with held(folder, "t", print):
        pass


def test_jobs_of_a_dead_run_are_ended(folder):
    orphan, stranger = sleeper(folder), sleeper(folder)
    write_holder(folder, orphan.pid)
    told: list[str] = []
    try:
        with held(folder, "t", told.append):
            assert orphan.wait(timeout=10) == -signal.SIGKILL
            assert stranger.poll() is None
        assert told == [f"ended 1 processes that the dead run had left at work in {folder}"]
    finally:
        stranger.kill()
        stranger.wait()


def test_snakemake_started_by_hand_is_respected(folder):
    lock_of_snakemake(folder)
    by_hand = sleeper(folder, "snakemake")
    time.sleep(0.2)
    try:
        with pytest.raises(ConfigError, match=f"process {by_hand.pid}"), held(folder, "t", print):
            pass
    finally:
        by_hand.kill()
        by_hand.wait()
    with held(folder, "t", print) as hold:
        assert hold.is_locked_by_the_dead()


def test_lock_of_another_machine_is_respected(folder):
    lock = lock_of_snakemake(folder)
    write_holder(folder, 1, host="elsewhere")
    with pytest.raises(ConfigError) as caught, held(folder, "t", print):
        pass
    assert "elsewhere" in caught.value.problem
    assert str(lock.parent) in caught.value.remedy
    lock.unlink()
    with held(folder, "t", print) as hold:
        assert not hold.is_locked_by_the_dead()


def test_a_damaged_record_is_as_none(folder):
    (folder / HOLDER).write_text("{")
    with held(folder, "t", print) as hold:
        assert hold.left is None
