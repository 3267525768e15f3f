"""Commands of a pipeline on one machine, without the seconds that each start of Python with torch and MLflow costs.

`iq-offline run` starts one server, which listens at a socket of its own. With the first command it imports what
commands need; then each command runs in a fork of it, in the folder, the environment and the files of the
`python -m iq_offline` that asked, which only waits. Nothing is shared between commands but what is imported. Without
a server, the command runs in its own process.
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

import iq_offline
from iq_offline.command_server.client import SOCKET, STREAMS, unpacked

NEEDED = (
    *("torch", "scipy.stats", "matplotlib.pyplot", "gymnasium", "h5py", "safetensors.torch"),
    *(f"iq_offline.stages.{stage}" for stage in ("convert", "train", "eval", "reward", "report")),
    *("iq_offline.training.loop", "iq_offline.training.learnt", "iq_offline.tracking.mlflow_models"),
    *("iq_offline.cli", "iq_offline.commands.application"),
)
"""Imported once, and MLflow; none of them starts a computation, or a thread that one would wait for."""


class Server:
    """Takes commands at a socket until standard input ends, which is when `iq-offline run` does."""

    def __init__(self, place: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(place)
        self._socket.listen(128)
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._close)
        self._selector.register(self._socket, selectors.EVENT_READ, self._start)
        self._running = 0
        self._store_is_open = False

    def serve(self) -> None:
        """Serve to the end, and to that of the commands which run then."""
        while self._socket.fileno() >= 0 or self._running:
            for key, _ in self._selector.select():
                key.data()

    def _close(self) -> None:
        self._selector.unregister(sys.stdin.fileno())
        self._selector.unregister(self._socket)
        self._socket.close()

    def _start(self) -> None:
        """Start the command of the client that has connected."""
        connection, _ = self._socket.accept()
        body, streams = _received(connection)
        if body is None:  # the client was killed while asking
            connection.close()
            return
        _import_what_is_needed()
        from iq_offline.tracking.mlflow_store import MlflowStore

        # MLflow's store, for the commands to come, once the first of them has made it
        self._store_is_open = self._store_is_open or MlflowStore.open_ahead()
        process = os.fork()
        if process == 0:
            self._selector.close()
            self._socket.close()
            connection.close()
            _run(body, streams)
        for stream in streams:
            os.close(stream)
        self._running += 1
        ends = os.pidfd_open(process)
        self._selector.register(ends, selectors.EVENT_READ, lambda: self._finish(process, ends, connection))
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._abandon(process, connection))

    def _finish(self, process: int, ends: int, connection: socket.socket) -> None:
        """The command has ended: send its status to the client."""
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
        """The client has been killed: its command ends too."""
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


def _run(body: bytes, streams: list[int]) -> NoReturn:
    """In the fork: run the command as its own process would, and end here, not in the server's loop."""
    for number, stream in zip(STREAMS, streams, strict=True):
        os.dup2(stream, number)
        os.close(stream)
    arguments, folder, environment = unpacked(body)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({name: value for name, value in environment.items() if name != SOCKET})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.modules["__main__"].__package__ = "iq_offline"  # what messages call the program
    sys.argv = [str(Path(iq_offline.__file__).with_name("__main__.py")), *arguments]
    status = _status_of_command()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the interpreter's own way out takes as long as twenty starts


def _status_of_command() -> int:
    from iq_offline.cli import main

    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:  # noqa: BLE001
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Server(sys.argv[1]).serve()
