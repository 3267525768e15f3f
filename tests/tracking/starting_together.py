"""A process that starts several others, which mirror a run each into a fresh store at the same moment.

Arguments: the run folders. They start as copies of a process that has MLflow imported and no store open, so that they
meet at the store and not one after the other. Prints the exit status of each.
"""

import json
import multiprocessing
import sys
from pathlib import Path

import mlflow.pyfunc
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

from iq_offline.tracking import mlflow_models  # noqa: F401
from iq_offline.tracking.mirror import describe, start_tracking


def mirror(folder: Path, barrier: "multiprocessing.synchronize.Barrier") -> None:
    """Track the run as if it were being trained."""
    warnings: list[str] = []
    manifest = json.loads((folder / "manifest.json").read_text())
    barrier.wait()
    tracker = start_tracking(describe(manifest, folder), folder, warnings.append)
    for step in range(100, 2100, 100):
        tracker.log(step, {"loss": float(step)})
    tracker.finish(folder)
    sys.exit("\n".join(warnings) or 0)


if __name__ == "__main__":
    forking = multiprocessing.get_context("fork")
    together = forking.Barrier(len(sys.argv) - 1)
    processes = [forking.Process(target=mirror, args=(Path(name), together)) for name in sys.argv[1:]]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(json.dumps([process.exitcode for process in processes]))
