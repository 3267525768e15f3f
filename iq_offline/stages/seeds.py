"""Several seeds: side by side, a process each, with the tensors that each makes alone; or batched into one process."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from iq_offline.errors import Interrupted
from iq_offline.stages.train import TrainRequest, percent, train_run
from iq_offline.training.keeper import Stop, stop_asked
from iq_offline.training.loop import Progress
from iq_offline.training.run_folder import RunFolder

Note = tuple[int, int, dict[str, float] | str]
"""A seed; its percentage and metrics, or -1 and a warning."""
POLL_SECONDS = 0.2

_notes: "SimpleQueue[Note | None] | None" = None


def workers_for(seeds: int, threads: int) -> int:
    """Processes for so many seeds: one each, as far as this machine's cores go."""
    return max(1, min(seeds, len(os.sched_getaffinity(0)) // threads))


def train_seeds(
    requests: Sequence[TrainRequest],
    workers: int,
    on_progress: Callable[[int, int, dict[str, float]], None],
    warn: Callable[[str], None],
) -> list[RunFolder]:
    """Train them all, `workers` at a time; the run folders in the requests' order.

    `on_progress` gets a seed, its percentage and its metrics. A seed that fails lets the others end; then its error is
    raised. Raises Interrupted where a signal asked to stop: all that are under way keep what they have.
    """
    context = multiprocessing.get_context("spawn")
    notes: SimpleQueue[Note | None] = context.SimpleQueue()
    reader = threading.Thread(target=_read, args=(notes, on_progress, warn))
    reader.start()
    try:
        with (
            stop_asked() as stop,
            ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(notes,)) as pool,
        ):
            futures = [pool.submit(_train, request) for request in requests]
            _wait(pool, futures, stop)
            if stop.signal is not None and any(future.cancelled() for future in futures):
                _raise_first(futures)
                raise Interrupted("stopped before all seeds were trained", "give --resume to go on", stop.signal)
            return [RunFolder.open(future.result()) for future in futures]
    finally:
        notes.put(None)
        reader.join()


def train_together(
    requests: Sequence[TrainRequest],
    on_progress: Callable[[int, int, dict[str, float]], None],
    warn: Callable[[str], None],
) -> list[RunFolder]:
    """Train them all at once in this process, each update as one batched update of all; else as `train_seeds`."""
    from iq_offline.training.together import Together

    together, said = Together(len(requests)), set[str]()

    def train(number: int) -> RunFolder:
        lane, request = together.lane(number), requests[number]
        try:
            return train_run(request, lambda p: on_progress(request.seed, percent(p), p.metrics), once, lane)
        finally:
            lane.leave()

    def once(text: str) -> None:
        if text not in said:
            said.add(text)
            warn(text)

    with stop_asked(), ThreadPoolExecutor(len(requests)) as threads:
        futures = [threads.submit(train, number) for number in range(len(requests))]
        while wait(futures, timeout=POLL_SECONDS).not_done:
            pass  # signals reach this thread, which has nothing else to do
    return [future.result() for future in futures]


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


def _raise_first(futures: "Sequence[Future[Path]]") -> None:
    for future in futures:
        if not future.cancelled():
            future.result()


def _start(notes: "SimpleQueue[Note | None]") -> None:
    """In a worker: a group of its own, so that Ctrl-C reaches it through the parent alone."""
    global _notes
    _notes = notes
    os.setpgrp()


def _train(request: TrainRequest) -> Path:
    notes = _notes
    assert notes is not None

    def tell(progress: Progress) -> None:
        notes.put((request.seed, percent(progress), progress.metrics))

    return train_run(request, tell, lambda text: notes.put((request.seed, -1, text))).path


def _read(
    notes: "SimpleQueue[Note | None]",
    on_progress: Callable[[int, int, dict[str, float]], None],
    warn: Callable[[str], None],
) -> None:
    said: set[str] = set()
    while (note := notes.get()) is not None:
        seed, percent, content = note
        if isinstance(content, str):
            if content not in said:
                warn(content)
            said.add(content)
        else:
            on_progress(seed, percent, content)


def as_rows(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """What `train --json` says of each run."""
    keys = ("method", "seed", "transitions")
    return [{"run": str(run.path)} | {key: run.manifest[key] for key in keys} for run in runs]
