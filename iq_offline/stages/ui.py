"""ui: MLflow's own interface on this project's store, opened at the comparison."""

import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from iq_offline.credentials import public_url
from iq_offline.errors import ConfigError
from iq_offline.tracking.mlflow_access import is_served, tracking_uri
from iq_offline.tracking.mlflow_app import APP
from iq_offline.tracking.mlflow_store import MlflowStore
from iq_offline.tracking.views import view_address

JOBS_OFF = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""MLflow's jobs judge language models: without them the server is two processes instead of a dozen."""


@dataclass(frozen=True)
class UserInterface:
    """The command that serves the interface, and where to look."""

    command: tuple[str, ...]
    """Empty where an MLflow server has its own."""
    store_uri: str
    """Handed over in the environment: a command line, which everybody on the machine can read, shows no password."""
    url: str
    address: tuple[str, int]


def prepare_ui(host: str, port: int) -> UserInterface:
    """Initialise the store if it is new, and compose MLflow's command and the comparison's address.

    Raises TrackingUnavailable, and ConfigError where the port is taken.
    """
    uri = tracking_uri()
    if is_served(uri):
        base = public_url(uri).rstrip("/")
        return UserInterface((), uri, _comparison(MlflowStore.open(), base), (host, port))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} on {host} cannot be used: {error.strerror}", "name another: --port"
            ) from None
    store = MlflowStore.open()
    command = (sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1", *_app())
    url = _comparison(store, f"http://{host}:{port}")
    return UserInterface(command, store.uri, url, (host, port))


def serve(interface: UserInterface, on_ready: Callable[[], None], *, open_browser: bool) -> int:
    """Run MLflow's server until it ends; returns its exit status.

    Once the server answers, calls `on_ready` and opens a browser. Ctrl-C and SIGTERM end the server.
    """
    if not interface.command:
        on_ready()
        if open_browser:
            webbrowser.open(interface.url)
        return 0
    environment = JOBS_OFF | os.environ | {"MLFLOW_BACKEND_STORE_URI": interface.store_uri}
    with subprocess.Popen(interface.command, env=environment) as server:

        def stop(*_: object) -> None:
            server.terminate()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if _answers(interface.address, server):
                on_ready()
                if open_browser:
                    webbrowser.open(interface.url)
            return server.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _app() -> tuple[str, ...]:
    """The option that names our app; none where the package was installed before it had one."""
    installed = APP in entry_points(group="mlflow.app").names
    return ("--app-name", APP) if installed else ()


def _answers(address: tuple[str, int], server: "subprocess.Popen[bytes]") -> bool:
    """Wait until the server takes connections; False if it ended."""
    while server.poll() is None:
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            time.sleep(0.5)
        else:
            return True
    return False


def _comparison(store: MlflowStore, base: str) -> str:
    """The view of MLflow's page of runs that compares the latest group's runs; all runs of an empty store."""
    latest = store.latest_parent()
    parent = store.run(latest) if latest else None
    return view_address(base, store.experiment_id, store.save_view(parent) if parent else None)
