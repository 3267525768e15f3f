"""The parent's side of a measurement: workers that stay alive, and rounds in which they take turns."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .candidates import Candidate
from .environments import NoEnvironment, python_of

ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}
Round = dict[str, dict[str, Any]]
"""Each candidate's reply in one round."""


class NotRun(Exception):
    """A candidate cannot be measured here, and why."""


class Worker:
    """One candidate in a process of its own, ready to be measured. Raises NotRun."""

    def __init__(self, candidate: Candidate, environments: Path, errors: Path) -> None:
        self.candidate = candidate
        script = Path(__file__).with_name(candidate.command[0])
        python = sys.executable
        if candidate.environment is not None:
            try:
                python = str(python_of(candidate.environment, environments))
            except NoEnvironment as reason:
                raise NotRun(str(reason)) from None
        self._errors = errors / f"{candidate.name}.txt"
        with self._errors.open("w") as errors_file:
            self._process = subprocess.Popen(
                [python, str(script), *candidate.command[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors_file,
                text=True,
                env=os.environ | ONE_THREAD,
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
    """Rounds in which every worker gets its seconds; each round begins with another worker."""
    for k in range(rounds):
        first = k % len(workers)
        turn = [*workers[first:], *workers[:first]]
        yield {worker.candidate.name: worker.go(seconds) for worker in turn}
