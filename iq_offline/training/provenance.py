"""What a run must record so that it can be made again: versions, commit, platform."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import iq_offline

RECORDED_PACKAGES = (
    *("iq-offline", "torch", "numpy", "gymnasium", "mujoco", "gymnasium-robotics", "minigrid", "ale-py"),
    *("h5py", "polars", "minari", "mlflow", "d3rlpy"),
)


def package_versions() -> dict[str, str]:
    """Versions of the packages that bear on a result, those that are installed."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the checkout that the package runs from, `-dirty` if it has changes; None outside one."""
    folder = Path(iq_offline.__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    if sys.prefix != sys.base_prefix and Path(sys.prefix) in folder.parents:
        return None
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def platform_description() -> str:
    """Operating system and processor kind."""
    return f"{platform.system()} {platform.machine()}"
