"""Where things lie: the data that ship with the package, and the user's store of datasets, tables and runs."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import iq_offline


def shipped(folder: str) -> Path:
    """The folder `datasets` or `pipelines` that ships with the project: in a checkout, or inside the wheel."""
    package = Path(iq_offline.__file__).parent
    in_wheel = package / "_shipped" / folder
    return in_wheel if in_wheel.is_dir() else package.parent / folder


def home() -> Path:
    """The user's store: `IQ_OFFLINE_HOME`, else the platform's user data folder."""
    if configured := os.environ.get("IQ_OFFLINE_HOME"):
        return Path(configured).expanduser().resolve()
    from platformdirs import user_data_path

    return user_data_path("iq-offline")


def writable_home() -> Path:
    """The store, or a temporary folder of this process where the store cannot be written: reading needs none.

    A store that is a file, or lies below one, is reported when a folder is made in it.
    """
    there = next(folder for folder in (home(), *home().parents) if folder.exists())
    return home() if not there.is_dir() or os.access(there, os.W_OK) else _substitute(home())


@cache
def _substitute(_: Path) -> Path:
    """A temporary folder in place of that store, removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="iq-offline-store-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def minari_home() -> Path:
    """Minari's store of local datasets: `MINARI_DATASETS_PATH`, else its own default."""
    configured = os.environ.get("MINARI_DATASETS_PATH")
    return Path(configured).expanduser() if configured else Path.home() / ".minari" / "datasets"
