"""A store in SQLite: its file and URI, what can be wrong with the file, and artifacts that follow it when it moves."""

import re
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from iq_offline.errors import TrackingUnavailable

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
            versions = _version(connection) if "alembic_version" in tables else set()
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


def _version(connection: sqlite3.Connection) -> set[str]:
    return {str(number) for (number,) in connection.execute("SELECT version_num FROM alembic_version")}


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
