"""How MLflow's store is reached: where it is, one process at a time, its failures as one error."""

import gc
import logging
import os
import sqlite3
import ssl
import textwrap
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from iq_offline import paths
from iq_offline.credentials import masked, public_url
from iq_offline.errors import TrackingUnavailable
from iq_offline.tracking.mlflow_sqlite import UNUSABLE, check_sqlite, sqlite_file, sqlite_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_SECONDS = 120
REACH_SECONDS = 8.0
"""A store that has not answered by then counts as out of reach."""
CONNECTION_TRIES = 2
"""Of a SQL store. MLflow's own ten take 100 seconds."""
REASON_LENGTH = 200


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else a SQLite file in the user's store. Show its `public_url` alone."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or ""
    file = sqlite_file(uri) if uri else paths.home() / "mlflow" / "mlflow.db"
    if file is None or (str(file) in uri and "?" not in uri):
        return uri
    return uri if "=" in uri.rpartition("?")[2] and str(file) in uri else sqlite_uri(file)


def is_served(uri: str) -> bool:
    """Whether an MLflow server keeps the store."""
    return uri.startswith(("http://", "https://"))


def import_mlflow() -> None:
    """MLflow, its SQL store and its models. None of them sees its environment's defaults once it is imported.

    A store that does not answer must not hold up training for minutes: few retries. Collecting garbage is put off:
    importing makes hundreds of thousands of objects that all stay, and looking through them is a third of its time.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():  # MLflow warns of its own type hints
            warnings.simplefilter("ignore")
            import mlflow.pyfunc
            import mlflow.store.db.utils
            import mlflow.store.tracking.sqlalchemy_store
    finally:
        if collecting:
            gc.enable()
    mlflow.store.db.utils.MAX_RETRY_COUNT = CONNECTION_TRIES
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # its tracebacks: the error itself is told


def check_reachable(uri: str) -> None:
    """Raises TrackingUnavailable, within REACH_SECONDS, where no store answers."""
    if (file := sqlite_file(uri)) is not None:
        return check_sqlite(file, uri)
    if is_served(uri):
        return _within(REACH_SECONDS, lambda: _ask_server(uri), uri)
    if uri.partition("://")[0].partition("+")[0] in {"postgresql", "mysql", "mssql"}:
        return _within(REACH_SECONDS, lambda: _ask_database(uri), uri)
    return None


def _within(seconds: float, ask: Callable[[], None], uri: str) -> None:
    """Ask in a thread of its own, which is left alone when it takes longer: names have no time limit of their own."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            ask()
        except Exception as error:  # noqa: BLE001  whatever a driver fails with is why there is no store
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise _unavailable(uri, f"no answer within {seconds:.0f} seconds")
    if failures:
        raise _unavailable(uri, str(failures[0]) or type(failures[0]).__name__)


def _ask_server(uri: str) -> None:
    try:
        urllib.request.urlopen(f"{public_url(uri).rstrip('/')}/health", timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError as answer:
        answer.close()  # it is there; MLflow's client has its own way to log in
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):
            raise


def _ask_database(uri: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _unavailable(uri: str, told: str) -> TrackingUnavailable:
    reason = textwrap.shorten(masked(told, uri), REASON_LENGTH, placeholder=" ...")
    remedy = "check MLFLOW_TRACKING_URI" if sqlite_file(uri) is None else UNUSABLE
    return TrackingUnavailable(f"MLflow's store {public_url(uri)} cannot be used: {reason}", remedy)


def connect(uri: str) -> "MlflowClient":
    """A client of the store. MLflow remembers a run's place by the run's id alone: not from one store to its copy."""
    from mlflow import MlflowClient
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def disconnect(uri: str) -> None:
    """Close the connections to a SQL store that `connect` has reached; its client makes new ones at need."""
    from mlflow.tracking._tracking_service.utils import _get_store

    store: Any = _get_store(uri)  # type: ignore[no-untyped-call]
    store.engine.dispose()


@contextmanager
def store_lock(uri: str) -> Iterator[None]:
    """One process at a time, beside the SQLite file: several that make its tables together leave it broken."""
    file = sqlite_file(uri)
    lock = paths.home() / "mlflow" / "store.lock" if file is None else file.with_name(f"{file.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, timeout=LOCK_SECONDS):
        yield


@contextmanager
def mirror_lock(uri: str) -> Iterator[None]:
    """One process at a time brings a run into the store: of several that do, all but the first find it there."""
    file = sqlite_file(uri)
    lock = paths.home() / "mlflow" / "mirror.lock" if file is None else file.with_name(f"{file.name}.mirror.lock")
    with mlflow_errors(uri):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=LOCK_SECONDS):
            yield


@contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Whatever a store may fail with, as one error that names it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ValueError) as error:
        raise _unavailable(uri, str(error).strip() or type(error).__name__) from None
