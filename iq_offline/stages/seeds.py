"""Several seeds: side by side, a process each, with the tensors that each makes alone; or batched into one process."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from iq_offline.config.train import TrainConfig
from iq_offline.errors import Interrupted, ProcessKilled
from iq_offline.stages.train import RunOptions, Status, status, train_run
from iq_offline.training.checkpointing import Stop, stop_requested
from iq_offline.training.run_folder import RunFolder

Run = tuple[TrainConfig, RunOptions]
OnProgress = Callable[[int, Status], None]
"""Gets a seed, and how far it is."""
Note = tuple[int, Status] | str
"""What a worker says: its progress, or a warning."""
POLL_SECONDS = 0.2

_notes: "SimpleQueue[Note | None] | None" = None


def workers_for(seeds: int, threads: int) -> int:
    """Processes for so many seeds: one each, as far as this machine's cores go."""
    return max(1, min(seeds, len(os.sched_getaffinity(0)) // threads))


def train_seeds(
    runs: Sequence[Run], workers: int, on_progress: OnProgress, warn: Callable[[str], None]
) -> list[RunFolder]:
    """Train them all, `workers` at a time; the run folders in the same order.

    A seed that fails lets the others end; then its error is raised. Raises Interrupted where a signal asked to stop,
    and ProcessKilled where a process was killed: all other seeds that are under way keep what they have.
    """
    context = multiprocessing.get_context("spawn")
    notes: SimpleQueue[Note | None] = context.SimpleQueue()
    reader = threading.Thread(target=_read, args=(notes, on_progress, once(warn)))
    reader.start()
    try:
        with (
            stop_requested() as stop,
            ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(notes,)) as pool,
        ):
            futures = [pool.submit(_train, run) for run in runs]
            _wait(pool, futures, stop)
            _check_alive(runs, futures)
            ended = [RunFolder.open(future.result()) for future in futures if not future.cancelled()]
            if stop.signal is not None and len(ended) < len(runs):
                raise Interrupted("stopped before all seeds were trained", "give --resume to go on", stop.signal)
            return ended
    finally:
        notes.put(None)
        reader.join()


def train_together(runs: Sequence[Run], on_progress: OnProgress, warn: Callable[[str], None]) -> list[RunFolder]:
    """Train them all at once in this process, each update as one batched update of all; else as `train_seeds`."""
    from iq_offline.training.compile.batched_seeds import BatchedSeeds, SeedSlot

    seeds, warn_once = BatchedSeeds(len(runs)), once(warn)

    def train(number: int) -> RunFolder:
        config, options = runs[number]
        try:
            return train_run(
                config,
                options,
                lambda now: on_progress(config.seed, status(config, now)),
                warn_once,
                SeedSlot(seeds, number),
            )
        finally:
            seeds.leave(number)

    with stop_requested(), ThreadPoolExecutor(len(runs)) as threads:
        futures = [threads.submit(train, number) for number in range(len(runs))]
        while wait(futures, timeout=POLL_SECONDS).not_done:
            pass  # signals reach this thread, which has nothing else to do
    return [future.result() for future in futures]


def once(warn: Callable[[str], None]) -> Callable[[str], None]:
    """Passes each warning on once, however many seeds give it."""
    said: set[str] = set()

    def once(text: str) -> None:
        if text not in said:
            said.add(text)
            warn(text)

    return once


def _wait(pool: ProcessPoolExecutor, futures: "Sequence[Future[Path]]", stop: Stop) -> None:
    """Until all have ended. A signal is passed on once; what has not begun is not begun then."""
    passed = False
    while wait(futures, timeout=POLL_SECONDS).not_done:
        if stop.signal is not None and not passed:
            passed = True
            for future in futures:
                future.cancel()
            for process in list(pool._processes):
                os.kill(process, signal.SIGTERM)


def _check_alive(runs: Sequence[Run], futures: "Sequence[Future[Path]]") -> None:
    """Raises ProcessKilled with the seeds that a killed process has left without a run."""
    left = [
        str(config.seed)
        for (config, _), future in zip(runs, futures, strict=True)
        if not future.cancelled() and isinstance(future.exception(), BrokenProcessPool)
    ]
    if left:
        raise ProcessKilled(
            f"a training process was killed, perhaps for lack of memory; seeds not trained: {', '.join(left)}",
            "give the same command with --resume to train them; finished seeds stay as they are",
        )


def _start(notes: "SimpleQueue[Note | None]") -> None:
    """In a worker: a group of its own, so that Ctrl-C reaches it through the parent alone."""
    global _notes
    _notes = notes
    os.setpgrp()


def _train(run: Run) -> Path:
    notes, (config, options) = _notes, run
    assert notes is not None
    return train_run(config, options, lambda now: notes.put((config.seed, status(config, now))), notes.put).path


def _read(notes: "SimpleQueue[Note | None]", on_progress: OnProgress, warn: Callable[[str], None]) -> None:
    while (note := notes.get()) is not None:
        if isinstance(note, str):
            warn(note)
        else:
            on_progress(*note)


def as_rows(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """What `train --json` says of each run."""
    keys = ("method", "seed", "transitions")
    return [{"run": str(run.path)} | {key: run.manifest[key] for key in keys} for run in runs]
