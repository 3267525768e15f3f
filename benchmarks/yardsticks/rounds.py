"""Rounds in which what is compared takes turns; and workers that stay alive between their turns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.processes import ONE_THREAD, importable

from .candidates import Candidate
from .environments import NoEnvironment, python_of

QUIET = ONE_THREAD | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}
T = TypeVar("T")
Round = dict[str, dict[str, Any]]
"""Each candidate's reply in one round."""


class NotRun(Exception):
    """A candidate cannot be measured here, and why."""


class Worker:
    """One candidate in a process of its own, ready to be measured. Raises NotRun."""

    def __init__(self, candidate: Candidate, environments: Path, errors: Path) -> None:
        self.candidate = candidate
        python = sys.executable
        if candidate.environment is not None:
            try:
                python = str(python_of(candidate.environment, environments))
            except NoEnvironment as reason:
                raise NotRun(str(reason)) from None
        self._errors = errors / f"{candidate.name}.txt"
        with self._errors.open("w") as errors_file:
            self._process = subprocess.Popen(
                [python, "-m", f"{__package__}.{candidate.command[0]}", *candidate.command[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors_file,
                text=True,
                env=importable(os.environ) | QUIET,
            )
        self._reply()

    def go(self, seconds: float) -> dict[str, Any]:
        """Let it work for so many CPU seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"go {seconds}\n")
        self._process.stdin.flush()
        return self._reply()

    def stop(self) -> None:
        """End the process: it ends when its standard input does."""
        self._process.communicate()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        status = self._process.wait()
        said = self._errors.read_text().strip().splitlines()
        raise NotRun(said[-1] if said else f"its process ended with status {status}")


def measured(workers: Sequence[Worker], rounds: int, seconds: float) -> Iterator[Round]:
    """Rounds in which every worker gets its seconds."""
    return interleaved({worker.candidate.name: partial(worker.go, seconds) for worker in workers}, rounds)


def interleaved(works: Mapping[str, Callable[[], T]], rounds: int, *, warm_up: int = 0) -> Iterator[dict[str, T]]:
    """Rounds that do every work once; each begins with another one. What the first `warm_up` rounds give is dropped."""
    names = list(works)
    for number in range(-warm_up, rounds):
        first = number % len(names)
        found = {name: works[name]() for name in (*names[first:], *names[:first])}
        if number >= 0:
            yield found
