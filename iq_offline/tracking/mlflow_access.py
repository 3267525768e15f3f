"""How MLflow's store is reached: where it is, one process at a time, its failures as one error; and its SQLite file."""

import gc
import logging
import os
import re
import sqlite3
import ssl
import textwrap
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock

from iq_offline import paths
from iq_offline.credentials import masked, public_url
from iq_offline.errors import TrackingUnavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFIX = re.compile(r"sqlite(?:\+pysqlite)?:///")
QUERY = re.compile(r"\?\w+=[^?/]*$")
"""A URI's query; any other `?` is part of the file's path."""
ARTIFACTS = "artifacts"
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow keeps absolute places of artifacts."""
BUSY_SECONDS = 5
UNUSABLE = "move the file aside to begin a new store (iq-offline sync fills it), or name another: MLFLOW_TRACKING_URI"
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
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # the error is reported without a traceback


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


def _unavailable(uri: str, message: str) -> TrackingUnavailable:
    reason = textwrap.shorten(masked(message, uri), REASON_LENGTH, placeholder=" ...")
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
def store_lock(uri: str, kind: str = "") -> Iterator[None]:
    """One process at a time, by a file beside the SQLite file: several that make its tables together leave it broken.

    kind "mirror.": one at a time brings a run into the store; of several that do, all but the first find it there.
    """
    file = sqlite_file(uri)
    lock = file.with_name(f"{file.name}.{kind}lock") if file else paths.home() / "mlflow" / f"{kind or 'store.'}lock"
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


def sqlite_uri(file: Path) -> str:
    """The URI of a file. SQLAlchemy ends a path at its first `?`; SQLite's own URIs can quote one."""
    if "?" not in str(file):
        return f"sqlite:///{file}"
    return f"sqlite+pysqlite:///file:{quote(str(file))}?uri=true"  # for `sqlite:` MLflow makes a folder `file:`


def sqlite_file(uri: str) -> Path | None:
    """The file of a store in SQLite, as an absolute path; None for another store, and for one in memory."""
    if not (prefix := PREFIX.match(uri)):
        return None
    place = QUERY.sub("", uri[prefix.end() :])
    if place.startswith("file:"):
        place = unquote(place.removeprefix("file:"))
    return None if place in {"", ":memory:"} else Path(place).absolute()


def beside(file: Path) -> str:
    """Where artifacts of the store in that file lie, as a URI."""
    return (file.parent / ARTIFACTS).as_uri()


def check_sqlite(file: Path, uri: str) -> None:
    """Raises TrackingUnavailable where the file cannot be opened, is no database, or has a newer MLflow's tables.

    MLflow itself would try for 100 seconds.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            rows = connection.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else ()
            versions = {str(number) for (number,) in rows}
    except sqlite3.DatabaseError as error:
        remedy = "try again when no other program holds it" if "locked" in str(error) else UNUSABLE
        raise TrackingUnavailable(f"MLflow's store {uri} cannot be used: {error}", remedy) from None
    except OSError as error:
        raise TrackingUnavailable(f"MLflow's store {uri} cannot be used: {error}", UNUSABLE) from None
    if unknown := versions - _known_versions():
        raise TrackingUnavailable(
            f"MLflow's store {uri} was made by a newer MLflow (its tables' version is {min(unknown)})",
            "update it: pip install -U mlflow; or name another store: MLFLOW_TRACKING_URI",
        )


def _known_versions() -> set[str]:
    """Versions of the tables that the installed MLflow knows."""
    found = find_spec("mlflow")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "store" / "db_migrations" / "versions"
    return {file.name.partition("_")[0] for file in folder.glob("*.py")}


def follow(file: Path, experiment: str) -> None:
    """Point a store that was moved or copied to the artifacts beside it.

    Artifacts that the user keeps elsewhere stay: only a folder that is named as ours, and is gone or was copied along,
    is followed.
    """
    if not file.is_file():
        return
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return
        found = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)).fetchone()
        old, new = found[0] if found else None, beside(file)
        if old is None or not _is_left(old, file.parent / ARTIFACTS):
            return
        for table, column in LOCATIONS:
            if table in tables:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )


def _is_left(location: str, here: Path) -> bool:
    """Whether a store's artifacts have another place by now: `here`, beside its file."""
    parts = urlsplit(location)
    if parts.scheme not in {"", "file"}:
        return False
    place = Path(unquote(parts.path) if parts.scheme else location)
    if place.name != ARTIFACTS or place == here:
        return False
    if not place.exists():
        return True
    return here.is_dir() and not here.samefile(place)
