"""ui: the address is told once the server answers."""

import socket
import sys
import time

from iq_offline.stages.ui import UserInterface, serve

SLOW_SERVER = (
    "import socket, sys, time; time.sleep(0.3);"
    "listener = socket.create_server(('127.0.0.1', int(sys.argv[1]))); listener.accept()"
)


def test_address_is_told_once_server_answers():
    """`on_ready` is called once, after the server has begun to listen, and never for a server that ends before."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ready: list[float] = []

    def served(code: str) -> int:
        command = (sys.executable, "-c", code, str(port))
        interface = UserInterface(command, "sqlite://", f"http://127.0.0.1:{port}", ("127.0.0.1", port))
        return serve(interface, lambda: ready.append(time.monotonic()), open_browser=False)

    started = time.monotonic()
    assert served(SLOW_SERVER) == 0
    assert len(ready) == 1
    assert ready[0] - started >= 0.3
    assert served("raise SystemExit(3)") == 3
    assert len(ready) == 1
