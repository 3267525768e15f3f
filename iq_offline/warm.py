"""Commands of a pipeline on one machine, without the seconds that each start of Python with torch and MLflow costs.

`iq-offline run` starts one process that listens at a socket of its own. With the first command it imports what commands
need; then each command runs in a fork of it, in the folder, the environment and the files of the `python -m iq_offline`
that asked, which only waits. Nothing is shared between commands but what is imported. Where nobody listens, the
command runs as if there were no such process.
"""

import gc
import importlib
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from iq_offline.handover import PLACE, STREAMS, unpacked

NEEDED = (
    *("torch", "scipy.stats", "matplotlib.pyplot", "gymnasium", "h5py", "safetensors.torch"),
    *(f"iq_offline.stages.{stage}" for stage in ("convert", "train", "eval", "reward", "report")),
    *("iq_offline.training.loop", "iq_offline.training.learnt", "iq_offline.tracking.mlflow_models", "iq_offline.cli"),
)
"""Imported once, and MLflow; none of them starts a computation, or a thread that one would wait for."""


class Listener:
    """Takes commands at a socket until standard input ends, which is when `iq-offline run` does."""

    def __init__(self, place: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(place)
        self._socket.listen(128)
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._end)
        self._selector.register(self._socket, selectors.EVENT_READ, self._take)
        self._running = 0
        self._store_is_open = False

    def listen(self) -> None:
        """Serve to the end, and to that of the commands which run then."""
        while self._socket.fileno() >= 0 or self._running:
            for key, _ in self._selector.select():
                key.data()

    def _end(self) -> None:
        self._selector.unregister(sys.stdin.fileno())
        self._selector.unregister(self._socket)
        self._socket.close()

    def _take(self) -> None:
        connection, _ = self._socket.accept()
        body, streams = _received(connection)
        if body is None:  # whoever asked was killed while asking
            return connection.close()
        _import_what_is_needed()
        self._open_store()
        process = os.fork()
        if process == 0:
            self._selector.close()
            self._socket.close()
            connection.close()
            _become(body, streams)
        for stream in streams:
            os.close(stream)
        self._running += 1
        ends = os.pidfd_open(process)
        self._selector.register(ends, selectors.EVENT_READ, lambda: self._tell(process, ends, connection))
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._abandon(process, connection))
        return None

    def _open_store(self) -> None:
        """MLflow's store, for the commands to come, once the first of them has made it."""
        from iq_offline.tracking.mlflow_store import MlflowStore

        self._store_is_open = self._store_is_open or MlflowStore.open_ahead()

    def _tell(self, process: int, ends: int, connection: socket.socket) -> None:
        """The command has ended: its status to whoever asked for it."""
        _, status = os.waitpid(process, 0)
        self._running -= 1
        code = os.waitstatus_to_exitcode(status)
        with suppress(OSError):
            connection.send(bytes([code if code >= 0 else 128 - code]))
        self._selector.unregister(ends)
        self._forget(connection)
        os.close(ends)
        connection.close()

    def _abandon(self, process: int, connection: socket.socket) -> None:
        """Whoever asked for the command has been killed: it ends too."""
        if self._forget(connection):
            os.kill(process, signal.SIGTERM)

    def _forget(self, connection: socket.socket) -> bool:
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection)
            return True
        return False


def _received(connection: socket.socket) -> tuple[bytes | None, list[int]]:
    """The command that is asked for, and its standard files."""
    head, streams, _, _ = socket.recv_fds(connection, 8, len(STREAMS))
    size = int.from_bytes(head, "big")
    with connection.makefile("rb") as whole:
        body = whole.read(size)
    if size and len(body) == size and len(streams) == len(STREAMS):
        return body, list(streams)
    for stream in streams:
        os.close(stream)
    return None, []


def _import_what_is_needed() -> None:
    from iq_offline.tracking.mlflow_access import import_mlflow

    if "iq_offline.cli" not in sys.modules:
        gc.disable()  # see import_mlflow
        for name in NEEDED:
            importlib.import_module(name)
        import_mlflow()
        gc.enable()
        gc.freeze()  # what is shared with the forks stays shared


def _become(body: bytes, streams: list[int]) -> NoReturn:
    """In the fork: run the command as its own process would."""
    for number, stream in zip(STREAMS, streams, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    arguments, folder, environment = unpacked(body)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({name: value for name, value in environment.items() if name != PLACE})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = [str(Path(__file__).with_name("__main__.py")), *arguments]
    os._exit(_status_of_command())  # the interpreter's own way out takes as long as twenty starts


def _status_of_command() -> int:
    """Run it; how it ends is told here, for nothing may pass from a fork into the listener's loop."""
    from iq_offline.cli import main

    status = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001
        status = 1
        sys.excepthook(type(error), error, error.__traceback__)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Listener(sys.argv[1]).listen()
