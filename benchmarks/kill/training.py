"""Kill -9 a training run, go on with --resume, and compare with an unbroken run.

python -m benchmarks kill training --kills 20

A snapshot is written at every logged update, so that kills fall into writes of snapshots too. Prints where each kill
came; exits 1 where the run did not go on, or its tensors or metrics differ in a single bit.
"""

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.arguments import Parser

OPTIONS = [
    *("--dataset", "demo/swimmer/expert-v0", "--method", "iq", "--demos", "5", "--device", "cpu"),
    *("--set", "prior.updates=3000", "--set", "updates=3000", "--set", "hidden_sizes=[16]"),
    *("--set", "prior.hidden_sizes=[16]", "--set", "batch_size=16", "--snapshot-seconds", "0", "--resume"),
]


def main(arguments: list[str]) -> None:
    """Train once whole, then in pieces, as many runs as the kills take."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse(arguments)
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        seconds = _trained(whole)
        print(f"unbroken: {seconds:.1f} s")
        kills, runs, differing = 0, 0, 0
        while kills < options.kills:
            cut = Path(folder) / f"cut-{runs}"
            kills = _killed(cut, kills, options.kills, lambda: moments.uniform(0, 2 * seconds / options.kills))
            _trained(cut)
            runs, differing = runs + 1, differing + (_told(whole) != _told(cut))
        print(f"{kills} kills in {runs} runs; {runs - differing} end with the same tensors and metrics, bit for bit")
    sys.exit(differing > 0)


def _killed(out: Path, kills: int, most: int, moment: Callable[[], float]) -> int:
    """Train a run in pieces until it is done, or that many kills have been dealt; the number dealt by then."""
    while kills < most and not (out / "manifest.json").is_file():
        process = subprocess.Popen(_command(out), stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=_snapshot_age(out, process) + moment())
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            print(f"kill {kills}: last snapshot {_last(out)}", flush=True)
    return kills


def _snapshot_age(out: Path, process: subprocess.Popen[bytes]) -> float:
    """Wait until this process has written a snapshot of its own, so that every piece goes on a little; 0."""
    before = _last(out)
    while process.poll() is None and _last(out) == before:
        time.sleep(0.02)
    return 0.0


def _trained(out: Path) -> float:
    started = time.monotonic()
    subprocess.run(_command(out), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def _command(out: Path) -> list[str]:
    return [sys.executable, "-m", "iq_offline", "train", *OPTIONS, "--out", str(out)]


def _last(out: Path) -> str:
    names = sorted(item.name for item in (out.parent / f".{out.name}.resume").glob("*.safetensors"))
    return names[-1] if names else "-"


def _told(out: Path) -> tuple[str, bytes]:
    manifest = json.loads((out / "manifest.json").read_text())
    return manifest["checkpoint_sha256"], (out / "metrics.parquet").read_bytes()
