"""How MLflow's store is reached: where it is, one process at a time, its failures as one error."""

import gc
import logging
import os
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from iq_offline import paths
from iq_offline.errors import TrackingUnavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_SECONDS = 120
REASON_LENGTH = 200


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, else a SQLite file in the user's store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.home() / 'mlflow' / 'mlflow.db'}"


def import_mlflow() -> None:
    """MLflow, its SQL store and its models. None of them sees its environment's defaults once it is imported.

    A store that does not answer must not hold up training for minutes: few retries. Collecting garbage is put off:
    importing makes hundreds of thousands of objects that all stay, and looking through them is a third of its time.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():  # MLflow warns of its own type hints
            warnings.simplefilter("ignore")
            import mlflow.pyfunc
            import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    finally:
        if collecting:
            gc.enable()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def connect(uri: str) -> "MlflowClient":
    """A client of the store."""
    from mlflow import MlflowClient

    if (file := sqlite_file(uri)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def disconnect(uri: str) -> None:
    """Close the connections to a SQL store that `connect` has reached; its client makes new ones at need."""
    from mlflow.tracking._tracking_service.utils import _get_store

    store: Any = _get_store(uri)  # type: ignore[no-untyped-call]
    store.engine.dispose()


def sqlite_file(uri: str) -> Path | None:
    """The file of a store in SQLite; None for another store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextmanager
def store_lock(uri: str) -> Iterator[None]:
    """One process at a time, beside the SQLite file: several that make its tables together leave it broken."""
    file = sqlite_file(uri)
    lock = paths.home() / "mlflow" / "store.lock" if file is None else file.with_name(f"{file.name}.lock")
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
    except (MlflowException, SQLAlchemyError, OSError, TimeoutError) as error:
        told = str(error).strip()
        reason = textwrap.shorten(told, REASON_LENGTH, placeholder=" ...") if told else type(error).__name__
        raise TrackingUnavailable(
            f"MLflow's store {uri} cannot be used: {reason}", "check MLFLOW_TRACKING_URI"
        ) from None
