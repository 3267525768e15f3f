"""Environments of peers that do not live beside us: made when absent, with the package index that pip knows."""

import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = {
    "jax": ("jax==0.10.2", "jaxlib==0.10.2"),
    "imitation": ("imitation==1.0.1", "torch==2.13.0"),
}
DEFAULT_FOLDER = Path(__file__).parents[2] / ".benchmarks"


class NoEnvironment(Exception):
    """An environment cannot be made here, and why."""


def python_of(name: str, folder: Path) -> Path:
    """The interpreter of a peer's environment, made first where it is absent. Raises NoEnvironment."""
    place, wanted = folder / name, "\n".join(REQUIREMENTS[name])
    made, python = place / "requirements.txt", place / "bin" / "python"
    if made.exists() and made.read_text() == wanted:
        return python
    print(f"making the environment of {name} in {place}", file=sys.stderr, flush=True)
    shutil.rmtree(place, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(place))
    _run(str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name])
    made.write_text(wanted)
    return python


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or [f"exit status {result.returncode}"]
        raise NoEnvironment(lines[-1])
