"""ui: MLflow's own interface on this project's store, opened at the comparison."""

import socket
import sys
from dataclasses import dataclass

from iq_offline.errors import ConfigError
from iq_offline.tracking.mlflow_store import MlflowStore


@dataclass(frozen=True)
class UserInterface:
    """The command that serves the interface, and where to look."""

    command: tuple[str, ...]
    url: str


def prepare_ui(host: str, port: int) -> UserInterface:
    """Initialise the store if it is new, and compose MLflow's command and the comparison's address.

    Raises TrackingUnavailable, and ConfigError where the port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} on {host} cannot be used: {error.strerror}", "name another: --port"
            ) from None
    store = MlflowStore.open()
    command = (sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port))
    return UserInterface((*command, "--backend-store-uri", store.uri), _comparison(store, f"http://{host}:{port}"))


def _comparison(store: MlflowStore, base: str) -> str:
    """MLflow's page that compares the latest group's runs; the experiment's page for fewer than two."""
    parent = store.latest_parent()
    runs = store.children(parent) if parent else []
    if len(runs) < 2:
        return f"{base}/#/experiments/{store.experiment_id}"
    listed = ",".join(f'"{run}"' for run in runs)
    return f'{base}/#/compare-runs?runs=[{listed}]&experiments=["{store.experiment_id}"]'
