"""Kill fetches and conversions: nothing broken passes for whole, and the next run completes.

A server on this machine sends 8 MB slowly; a D4RL file of 400,000 steps is converted to Minari. Each time the command
starts afresh, is killed (SIGKILL) after a random pause, and what lies under the final name is compared with the truth;
after the last kill one more run must complete. Prints one Markdown row a command.
"""

import http.server
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from benchmarks.arguments import Parser
from benchmarks.markdown import print_header, print_row

CONTENT = np.random.default_rng(0).bytes(8_000_000)
SECONDS = 1.0
"""How long the server takes for all of it."""


class Slow(http.server.BaseHTTPRequestHandler):
    """One file, at a steady pace, with ranges."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """The file, or its rest."""
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        piece = len(CONTENT) // 100
        try:
            for first in range(start, len(CONTENT), piece):
                self.wfile.write(CONTENT[first : first + piece])
                time.sleep(SECONDS / 100)
        except ConnectionError:
            self.close_connection = True


def main(arguments: list[str]) -> None:
    """Run both and print the table."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse(arguments)
    random.seed(options.seed)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = Path(tempfile.mkdtemp())
    os.environ["IQ_OFFLINE_HOME"] = str(folder / "home")
    under = ("whole under its name", "broken under its name")
    print_header("command", "killed", "finished before", *under, "last run")
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/x.hdf5"
        fetched = folder / "home" / "datasets" / "url"
        trial("fetch", options.times, ["fetch", url], lambda: state_of_fetch(fetched), lambda: shutil.rmtree(fetched))
        source = make_recording(folder / "x.hdf5")
        target = folder / "out-v0"
        command = ["convert", str(source), "--to", str(target)]
        trial("convert", options.times, command, lambda: state_of_conversion(target), lambda: shutil.rmtree(target))
    finally:
        server.shutdown()
        shutil.rmtree(folder)


def trial(name: str, times: int, arguments: list[str], state: Callable[[], str], remove: Callable[[], None]) -> None:
    """Kill a command that often, look each time at what is under its final name, and let it finish at last."""
    command = [sys.executable, "-m", "iq_offline", *arguments]
    counts = {"killed": 0, "finished": 0, "whole": 0, "broken": 0, "absent": 0}
    longest = duration(command)
    remove()
    for _ in range(times):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, longest))
        counts["finished" if process.poll() is not None else "killed"] += 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = state()
        counts[found] += 1
        if found != "absent":
            remove()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    last = f"exit {done.returncode}, {state()}"
    print_row(name, *(counts[key] for key in ("killed", "finished", "whole", "broken")), last)


def duration(command: list[str]) -> float:
    """Seconds of an unbroken run."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def state_of_fetch(folder: Path) -> str:
    """Whether the file is whole, broken or absent under its final name."""
    found = list(folder.rglob("x.hdf5"))
    return "absent" if not found else "whole" if found[0].read_bytes() == CONTENT else "broken"


def make_recording(path: Path) -> Path:
    """400 episodes of 1,000 steps in D4RL's layout."""
    rng, steps = np.random.default_rng(1), 400_000
    with h5py.File(path, "w") as file:
        file["observations"] = rng.standard_normal((steps, 11)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (steps, 3)).astype(np.float32)
        file["rewards"] = np.ones(steps, dtype=np.float32)
        file["terminals"] = np.arange(steps) % 1000 == 999
        file["timeouts"] = np.zeros(steps, dtype=bool)
    return path


def state_of_conversion(target: Path) -> str:
    """Whether the dataset has all steps and its provenance, lacks some, or is absent."""
    if not target.exists():
        return "absent"
    try:
        with h5py.File(target / "data" / "main_data.hdf5") as file:
            steps = sum(len(file[name]["actions"]) for name in file)
    except (OSError, KeyError):
        return "broken"
    return "whole" if steps == 400_000 and (target / "provenance.json").is_file() else "broken"
