"""Keeps a run that is under way: snapshots by the clock, and one when a signal asks it to stop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from iq_offline.algorithms.learner import OwnLearner
from iq_offline.errors import Interrupted
from iq_offline.training.loop import Progress
from iq_offline.training.snapshot import Snapshot, SnapshotFolder

Rows = list[dict[str, float]]


@dataclass
class Stop:
    """Whether a signal has asked the run to stop, and which."""

    signal: int | None = None


_asked: Stop | None = None
"""What the main thread hears, while it listens."""


@contextmanager
def stop_asked() -> Iterator[Stop]:
    """SIGTERM and Ctrl-C ask the run to stop at its next logged update; Ctrl-C again stops it at once.

    Signals reach the main thread alone: any other is asked when that is, if it listens.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield _asked or Stop()
        return
    stop = _asked = Stop()
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
        _asked = None
        for number, handler in before.items():
            signal.signal(number, handler)


class Keeper:
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

    def heed(self) -> None:
        """Before anything is learnt. Raises Interrupted where the run was asked to stop."""
        if self._stop.signal is not None:
            remedy = "run the same command again (--resume goes on with what an earlier attempt has kept)"
            raise Interrupted("stopped while looking for more demonstrations", remedy, self._stop.signal)

    def after(self, progress: Progress, rows: Rows) -> None:
        """Write a snapshot where one is due. Raises Interrupted where the run was asked to stop before its end."""
        asked = self._stop.signal is not None
        if progress.step == progress.total or not (asked or time.monotonic() - self._last >= self._every_seconds):
            return
        kept = isinstance(progress.learner, OwnLearner) and progress.resumable
        if kept:
            self._folder.write(progress.snapshot(rows, self.seconds()), self._config_hash, progress.step)
        self._last = time.monotonic()
        if self._stop.signal is not None:
            remedy = "go on with the same command and --resume" if kept else "train it again: its method keeps nothing"
            raise Interrupted(f"stopped at update {progress.step} of {progress.total}", remedy, self._stop.signal)
