"""The folder that a pipeline works in: one run at a time, and what a run that died has left is told and cleared.

Snakemake's own lock is a file that a killed run leaves behind, and that tells nothing of who holds it. Beside it lies
one of ours under `flock`, which the kernel releases when the last process that holds it is gone: Snakemake inherits
it, so it holds while either lives.
"""

import fcntl
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from iq_offline.errors import ConfigError

HOLDER = ".iq-offline-run.json"
SNAKEMAKE_LOCKS = Path(".snakemake") / "locks"
PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Holder:
    """Who works, or worked last, in a folder."""

    pipeline: str
    host: str
    started: str
    process: int
    """Of `iq-offline run`, until Snakemake has started; then Snakemake's, which leads the group of all its jobs."""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, of pipeline {self.pipeline}, since {self.started}"


@dataclass(frozen=True)
class Hold:
    """A folder that is ours. `descriptor` is to be inherited by what works in it."""

    folder: Path
    descriptor: int
    pipeline: str
    left: Holder | None
    """Who held it before."""

    def record(self, process: int) -> None:
        """Write down who holds it."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        content = json.dumps(asdict(Holder(self.pipeline, socket.gethostname(), started, process)))
        os.truncate(self.descriptor, 0)
        os.pwrite(self.descriptor, content.encode(), 0)

    def is_locked_by_the_dead(self) -> bool:
        """Whether Snakemake's lock is there. Whoever made it is gone: `held` has looked."""
        return any((self.folder / SNAKEMAKE_LOCKS).glob("*.lock"))


@contextmanager
def held(folder: Path, pipeline: str, tell: Callable[[str], None]) -> Iterator[Hold]:
    """Hold a folder, which is made if need be, against every other run. Jobs that a dead run left working are ended.

    Raises ConfigError where a run is alive in it, or may be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / HOLDER, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        left = _read(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _alive(folder, str(left or "another process")) from None
        hold = Hold(folder, descriptor, pipeline, left)
        _refuse_the_living(hold)
        _end_orphans(hold, tell)
        hold.record(os.getpid())
        yield hold
    finally:
        os.close(descriptor)


def _refuse_the_living(hold: Hold) -> None:
    """Raises ConfigError for a Snakemake that was started by hand, or on a machine that we cannot look into."""
    if not hold.is_locked_by_the_dead():
        return
    for process in _processes_in(hold.folder):
        if b"snakemake" in _command(process):
            raise _alive(hold.folder, f"process {process}, a Snakemake of its own")
    if hold.left and hold.left.host != socket.gethostname():
        raise ConfigError(
            f"{hold.folder} is locked by {hold.left}, and whether that lives cannot be seen from here",
            f"go on there; if it is dead, remove {hold.folder / SNAKEMAKE_LOCKS} first",
        )


def _end_orphans(hold: Hold, tell: Callable[[str], None]) -> None:
    """Kill what a killed Snakemake has left at work: its jobs will be run again, and two must not write one output."""
    if hold.left is None or hold.left.host != socket.gethostname():
        return
    orphans = [process for process in _processes_in(hold.folder) if _group(process) == hold.left.process]
    for process in orphans:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    if orphans:
        tell(f"ended {len(orphans)} processes that the dead run had left at work in {hold.folder}")


def _alive(folder: Path, who: str) -> ConfigError:
    return ConfigError(f"a run is at work in {folder}: {who}", "wait for its end, or name another folder with --out")


def _read(descriptor: int) -> Holder | None:
    try:
        return Holder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None


def _processes_in(folder: Path) -> list[int]:
    """Processes, other than this one, whose working folder that is."""
    found, wanted = [], str(folder.resolve())
    for entry in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):
            if str((entry / "cwd").readlink()) == wanted and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def _command(process: int) -> bytes:
    with suppress(OSError):
        return (PROCESSES / str(process) / "cmdline").read_bytes()
    return b""


def _group(process: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(process)
    return None
