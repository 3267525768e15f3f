"""What was measured, as a JSON file: the command, the machine, versions, the date, and one object for each row."""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from iq_offline.training.provenance import git_commit

PACKAGES = ("iq-offline", "torch", "numpy", "gymnasium", "mujoco", "minari", "d3rlpy", "mlflow", "snakemake")
Row = dict[str, Any]
"""Numbers by their names, with their units in the names."""


@contextmanager
def result_file(options: Any) -> Iterator[list[Row]]:
    """A list for the rows. It is written to `options.json`, where that is a path, even if the benchmark fails."""
    rows: list[Row] = []
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        yield rows
    finally:
        if options.json:
            about = {"command": options.command, "date": begun, "machine": machine(), "versions": versions()}
            options.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


def machine() -> Row:
    """Processor, cores, memory and system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """The processor's name, as the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that speed depends on, None where one is absent; and the commit."""
    found: dict[str, str | None] = {"python": platform.python_version(), "commit": git_commit()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found
