"""Measuring in a process of its own: functions in a fresh one, its peak memory, one thread."""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
"""The checkout: with it on PYTHONPATH, `python -m benchmarks` runs anywhere."""
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "NPROC"), "1"
)


def apart(function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None) -> Any:
    """The function's answer from a fresh process, which has these environment variables, too."""
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def importable(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables with which a child process finds this package."""
    path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH", "")]))
    return {**environment, "PYTHONPATH": path}


def peak_megabytes() -> float:
    """Peak resident memory of this process, mapped files that it has read among it.

    `ru_maxrss` would count the process that started it, too.
    """
    return _status(os.getpid(), "VmHWM")


def resident_megabytes(process: int) -> float | None:
    """Resident memory of a process; None where it has just ended."""
    try:
        return _status(process, "VmRSS")
    except (OSError, IndexError):
        return None


def _status(process: int, key: str) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split(f"{key}:")[1].split()[0]) / 1024
