"""Commands in forks of a process that has imported what they need: each with a time limit, and its signals noticed."""

import faulthandler
import importlib
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MEMORY = 24 << 30
"""Address space of one command in bytes: what asks for more is a finding, not a machine that swaps."""
NEEDED = ("torch", "scipy.stats", "matplotlib.pyplot", "gymnasium", "h5py", "polars", "yaml", "requests", "minari")
HARNESS_FAILED = 99


def import_everything() -> None:
    """Import what commands import, so that a fork starts at once. Nothing here starts a thread."""
    import iq_offline
    from iq_offline.tracking.mlflow_access import import_mlflow

    import_mlflow()
    for name in (*NEEDED, "safetensors.torch", "safetensors.numpy", "torch.onnx"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(iq_offline.__path__, "iq_offline."):
        if not module.name.endswith(("__main__", ".warm", "iq_offline_policy", "d3rlpy_adapter")):
            importlib.import_module(module.name)


def run_command(arguments: Sequence[str]) -> int:
    """Run the command line in this process as its own process would; returns its exit status."""
    from iq_offline.cli import main

    sys.argv = ["iq-offline", *arguments]
    status = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


@dataclass
class Fork:
    """A running fork; `status` once it has ended: an exit status, or minus a signal's number."""

    process: int
    folder: Path
    deadline: float
    hung: bool = False
    status: int | None = None

    def poll(self) -> bool:
        """Whether it has ended. One that runs for too long leaves its stack in its standard error, and is killed."""
        found, status = os.waitpid(self.process, os.WNOHANG)
        if found:
            self.status = os.waitstatus_to_exitcode(status)
            self._kill_group()
            return True
        if time.monotonic() > self.deadline:
            self._stop()
        return False

    def _stop(self) -> None:
        if not self.hung:
            os.kill(self.process, signal.SIGUSR1)
            self.hung, self.deadline = True, time.monotonic() + 0.5
        else:
            self._kill_group()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.process, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def fork(folder: Path, work: Callable[[], int], seconds: float) -> Fork:
    """Run `work` in a fork, in `folder`, with its output in `stdout` and `stderr` there."""
    process = os.fork()
    if process == 0:
        os._exit(_in_fork(folder, work))
    return Fork(process, folder, time.monotonic() + seconds)


def _in_fork(folder: Path, work: Callable[[], int]) -> int:
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        for number, name in ((0, os.devnull), (1, "stdout"), (2, "stderr")):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            descriptor = os.open(name, flags, 0o644)
            os.dup2(descriptor, number)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        faulthandler.enable(sys.stderr)
        faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=False)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return work()
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        sys.stderr.flush()
        return HARNESS_FAILED
