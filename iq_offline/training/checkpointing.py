"""Checkpoints of a run that is under way, by the clock and when a signal asks it to stop, to resume it bit for bit.

A snapshot holds all that the next update depends on. It is written under a temporary name and renamed; its tensors'
hash stands in its header; the last two are kept. A damaged one is passed over for the one before it.
"""

import json
import math
import operator
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from iq_offline.algorithms.learner import OwnLearner
from iq_offline.algorithms.noise import Drawn
from iq_offline.data.files import make_folder, whole_file
from iq_offline.errors import ConfigError, Interrupted
from iq_offline.training.tensor_files import contiguous, part, tensors_sha256

if TYPE_CHECKING:
    from iq_offline.training.loop import Progress

KEPT = 2
SUFFIX = ".safetensors"
Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Snapshot:
    """A run after one of its logged updates.

    `phase`: what is being trained, the cloned prior or the method itself; `updates`: those made in it. `tensors`: the
    learner's, its noise generator's state, and the prior's once that is done. `rows`: metrics logged so far.
    `prior_compiled`: whether the prior's updates are; None without a prior, and in older snapshots.
    """

    phase: str
    updates: int
    counts: tuple[int, ...]
    tensors: dict[str, Tensor]
    rows: Rows
    seconds: float
    prior_compiled: bool | None = None


def learner_tensors(learner: OwnLearner) -> dict[str, Tensor]:
    """What the learner's next update depends on."""
    pieces = [piece.detach() for changed in learner.changed for piece in changed.pieces()]
    found = {f"learner.{number:04d}": piece for number, piece in enumerate(pieces)}
    if isinstance(learner.noise, Drawn):
        found["noise.state"] = learner.noise.generator.get_state()
    return found


@torch.no_grad()
def restore(learner: OwnLearner, snapshot: Snapshot) -> None:
    """Put a fresh learner of the same configuration where the snapshot's was."""
    held = part(snapshot.tensors, "learner")
    pieces = [piece for changed in learner.changed for piece in changed.pieces()]
    for own, kept in zip(pieces, (held[name] for name in sorted(held)), strict=True):
        own.copy_(kept)
    for adam, count in zip(learner.adams, snapshot.counts, strict=True):
        adam.count = count
    if isinstance(learner.noise, Drawn):
        learner.noise.generator.set_state(snapshot.tensors["noise.state"])


@dataclass(frozen=True)
class SnapshotFolder:
    """Where the snapshots of the run that will be `out` lie: hidden, beside it."""

    path: Path
    flags: Mapping[str, str] = field(default_factory=dict)
    """What bears on the bits beside settings and data, by the flags' names: device, threads, and the like."""

    @classmethod
    def of(cls, out: Path, flags: Mapping[str, str] | None = None) -> "SnapshotFolder":
        """The folder of that run's snapshots, whether it is there or not."""
        return cls(out.parent / f".{out.name}.resume", flags or {})

    def files(self) -> list[Path]:
        """Snapshots, the oldest first."""
        return sorted(item for item in self.path.glob(f"*{SUFFIX}") if not item.name.startswith("."))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training the same run. Raises ConfigError where one does, as `make_folder` does."""
        from filelock import FileLock, Timeout

        make_folder(self.path)
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"another process is training into {self.path.name[1:].removesuffix('.resume')}",
                "wait for it, or name another folder with --out",
            ) from None
        try:
            yield
        finally:
            lock.release()
            if not self.files():
                shutil.rmtree(self.path, ignore_errors=True)

    def write(self, snapshot: Snapshot, config_hash: str, step: int) -> None:
        """Write it whole, then drop all but the last two."""
        tensors = contiguous(snapshot.tensors)
        header = {
            "config_hash": config_hash,
            "phase": snapshot.phase,
            "updates": str(snapshot.updates),
            "counts": json.dumps(snapshot.counts),
            "rows": json.dumps(snapshot.rows),
            "seconds": str(snapshot.seconds),
            "prior_compiled": json.dumps(snapshot.prior_compiled),
            "means": json.dumps(dict(self.flags)),
            "sha256": tensors_sha256(tensors),
        }
        with whole_file(self.path / f"{step:012d}{SUFFIX}") as temporary:
            save_file(tensors, temporary, metadata=header)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        for old in self.files()[:-KEPT]:
            old.unlink()

    def latest(self, config_hash: str, warn: Callable[[str], None]) -> Snapshot | None:
        """The newest snapshot that is whole, or None.

        Raises ConfigError where it is of other settings or data, or was made with other flags.
        """
        for file in reversed(self.files()):
            found = _read(file)
            if found is None:
                warn(f"{file.name} is damaged: going on from the snapshot before it")
                continue
            snapshot, of_hash, flags = found
            if of_hash != config_hash:
                raise ConfigError(
                    f"the run that was cut off in {file.parent} had other settings or data",
                    "give the options that it was started with, another --out, or leave --resume out to start anew",
                )
            for name, before in flags.items():
                if (now := self.flags.get(name, before)) != before:
                    raise ConfigError(
                        f"the run that was cut off in {self.path} was trained with {name} {before}, "
                        f"not with {name} {now}",
                        "give the same flags as before, or leave --resume out to start anew",
                    )
            return snapshot
        return None

    def remove(self) -> None:
        """Drop all snapshots."""
        for file in self.files():
            file.unlink()


def _read(file: Path) -> tuple[Snapshot, str, dict[str, str]] | None:
    """The snapshot, the hash of its settings and data, and its flags; older ones do not tell these."""
    if not file.is_file():  # a pipe would be waited for
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            header: Mapping[str, Any] = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if tensors_sha256(tensors) != header["sha256"]:
            return None
        snapshot = Snapshot(
            phase=header["phase"],
            updates=int(header["updates"]),
            counts=tuple(map(operator.index, json.loads(header["counts"]))),
            tensors=tensors,
            rows=[dict(row) for row in json.loads(header["rows"])],
            seconds=float(header["seconds"]),
            prior_compiled=json.loads(header.get("prior_compiled", "null")),
        )
        flags = dict(json.loads(header.get("means", "{}")).items())
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return (snapshot, header["config_hash"], flags) if math.isfinite(snapshot.seconds) else None


@dataclass
class Stop:
    """Whether a signal has asked the run to stop, and which."""

    signal: int | None = None


_stop: Stop | None = None
"""What the main thread hears, while it listens."""


@contextmanager
def stop_requested() -> Iterator[Stop]:
    """SIGTERM and Ctrl-C ask the run to stop at its next logged update; Ctrl-C again stops it at once.

    Signals reach the main thread alone: any other is asked when that is, if it listens.
    """
    global _stop
    if threading.current_thread() is not threading.main_thread():
        yield _stop or Stop()
        return
    stop = _stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, _: FrameType | None) -> None:
        if stop.signal is not None:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        stop.signal = number

    try:
        for number in before:
            signal.signal(number, ask)
        yield stop
    finally:
        _stop = None
        for number, handler in before.items():
            signal.signal(number, handler)


class Checkpointer:
    """Writes a run's snapshots. A method that another library trains has none."""

    def __init__(
        self, folder: SnapshotFolder, config_hash: str, every_seconds: float, stop: Stop, resumed: Snapshot | None
    ) -> None:
        self._folder, self._config_hash, self._every_seconds, self._stop = folder, config_hash, every_seconds, stop
        self._before = 0.0 if resumed is None else resumed.seconds
        self._started = self._last = time.monotonic()
        self.rows: Rows = [] if resumed is None else resumed.rows
        """Metrics logged before the run was cut off."""

    def seconds(self) -> float:
        """Wall-clock time that training has taken, before it was cut off and since."""
        return self._before + time.monotonic() - self._started

    def check_interrupt(self) -> None:
        """Before anything is learnt. Raises Interrupted where the run was asked to stop."""
        if self._stop.signal is not None:
            remedy = "run the same command again (--resume goes on with what an earlier attempt has kept)"
            raise Interrupted("stopped while looking for more demonstrations", remedy, self._stop.signal)

    def after(self, progress: "Progress", rows: Rows) -> None:
        """Write a snapshot where one is due. Raises Interrupted where the run was asked to stop before its end."""
        asked = self._stop.signal is not None
        if progress.step == progress.total or not (asked or time.monotonic() - self._last >= self._every_seconds):
            return
        kept = isinstance(progress.learner, OwnLearner) and progress.resumable
        if kept:
            progress.secure()
            self._folder.write(progress.snapshot(rows, self.seconds()), self._config_hash, progress.step)
        self._last = time.monotonic()
        if self._stop.signal is not None:
            remedy = "go on with the same command and --resume" if kept else "train it again: its method keeps nothing"
            raise Interrupted(f"stopped at update {progress.step} of {progress.total}", remedy, self._stop.signal)
