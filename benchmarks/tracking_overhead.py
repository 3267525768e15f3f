"""What the MLflow mirror costs a training run, in CPU seconds of its process.

Each run is a fresh process that trains once, on the bundled swimmer demonstrations, with the mirror and without it in
turn, into stores of their own. Three things are told apart: what comes once a process (importing MLflow, opening the
store), what comes once a run (making it, its files, its policy as a model), and what grows with training (logging).

    python benchmarks/tracking_overhead.py [--updates 4000] [--repeats 3]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def train_once(updates: int, *, tracked: bool) -> dict[str, float]:
    """Train in this process; CPU seconds of everything, and of each call into the tracker."""
    from iq_offline.stages import train as stage
    from iq_offline.tracking.mirror import Tracker

    spent = dict.fromkeys(("open", "log", "finish"), 0.0)

    def timed(name: str, call: Any, *arguments: Any) -> Any:
        begun = time.process_time()
        try:
            return call(*arguments)
        finally:
            spent[name] += time.process_time() - begun

    class Timed:
        def __init__(self, tracker: Any) -> None:
            self.tracker = tracker

        def log(self, *arguments: Any) -> None:
            timed("log", self.tracker.log, *arguments)

        def finish(self, *arguments: Any) -> None:
            timed("finish", self.tracker.finish, *arguments)

        def fail(self) -> None:
            self.tracker.fail()

    start = stage.start_tracking if tracked else (lambda *_: Tracker())
    stage.start_tracking = lambda *arguments: Timed(timed("open", start, *arguments))
    out = Path(os.environ["IQ_OFFLINE_HOME"]) / f"run-{os.getpid()}"
    settings = (f"updates={updates}", "prior.updates=500")
    begun = time.process_time()
    config = stage.train_config("demo/swimmer/expert-v0", "iq", overrides=settings, demos=5, device="cpu")
    stage.train_run(config, stage.RunOptions(out), lambda _: None, lambda problem: sys.exit(f"not mirrored: {problem}"))
    return spent | {"all": time.process_time() - begun}


def measured(updates: int, *, tracked: bool, home: Path) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--updates", str(updates), "--once", "tracked" if tracked else "untracked"]
    environment = os.environ | {"IQ_OFFLINE_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure in turn, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--once", choices=["tracked", "untracked"])
    options = parser.parse_args()
    if options.once:
        print(json.dumps(train_once(options.updates, tracked=options.once == "tracked")))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        measured(100, tracked=True, home=home)  # makes the store's tables and the training table
        pairs = [
            [measured(options.updates, tracked=tracked, home=home) for tracked in (False, True)]
            for _ in range(options.repeats)
        ]
    plain = statistics.median(pair[0]["all"] for pair in pairs)
    parts = {name: statistics.median(pair[1][name] for pair in pairs) for name in ("open", "log", "finish", "all")}
    print(f"CPU seconds, median of {options.repeats}: without the mirror {plain:.2f}, with it {parts['all']:.2f}")
    print(f"once a process: importing MLflow and opening the store {parts['open']:.2f}")
    print(f"once a run: its files, its policy as a model, its end {parts['finish']:.2f}")
    print(f"as training goes on: {parts['log']:.3f}, {100 * parts['log'] / plain:.2f} % of training")


if __name__ == "__main__":
    main()
