"""Where things lie: the data that ship with the package, and the user's store of datasets, tables and runs."""

import os
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


def minari_home() -> Path:
    """Minari's store of local datasets: `MINARI_DATASETS_PATH`, else its own default."""
    configured = os.environ.get("MINARI_DATASETS_PATH")
    return Path(configured).expanduser() if configured else Path.home() / ".minari" / "datasets"
