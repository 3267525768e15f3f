#!/usr/bin/env python3
"""Are the wheel and the sdist in dist/ whole? Run by `make package`.

The metadata pass `twine check`; each archive is installed into an empty environment, and there, in an empty folder, the
command lists the bundled data, trains, evaluates and reports.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

DIST = Path(__file__).parents[1] / "dist"
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
COMMANDS = (
    "datasets demo/*",
    "train --dataset demo/cartpole/expert-v0 --method bc --demos 2 --updates 20 --device cpu --out run",
    "eval run --episodes 1",
    "report run --out report",
)


def main() -> None:
    """Check both archives."""
    archives = [*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")]
    if len(archives) != 2:
        sys.exit(f"{DIST} holds {len(archives)} archives, not a wheel and an sdist\n  -> run: make package")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, archives)], check=True)
    for archive in archives:
        with tempfile.TemporaryDirectory(prefix="iq-offline-package-") as temporary:
            runs_in(Path(temporary), archive)
        print(f"ok    {archive.name}", flush=True)


def runs_in(folder: Path, archive: Path) -> None:
    """Install an archive into a new environment in `folder`, and run the commands there."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, archive], check=True)
    work = folder / "work"
    work.mkdir()
    environment = os.environ | {"IQ_OFFLINE_HOME": str(folder / "home"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("PYTHONPATH", None)
    for command in COMMANDS:
        program = folder / "venv" / "bin" / "iq-offline"
        subprocess.run([program, *command.split()], cwd=work, env=environment, check=True, stdout=subprocess.DEVNULL)
    if not (work / "report" / "report.html").is_file():
        sys.exit(f"{archive.name}: no report was written")


if __name__ == "__main__":
    main()
