"""Commands that a page prints, run as its reader would, with few updates and short simulations."""

import importlib.util
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from iq_offline.cli import app

SMALL = {
    "bc": ["hidden_sizes=[8]"],
    "iq": ["hidden_sizes=[8]", "prior.updates=20", "prior.hidden_sizes=[8]"],
    "oracle-iql": [],
}


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    match words:
        case []:
            return
        case ["export", assignment]:
            key, _, value = assignment.partition("=")
            monkeypatch.setenv(key, os.path.expandvars(value.replace("$PWD", str(Path.cwd()))))
        case ["python", script]:
            subprocess.run([sys.executable, script], check=True, timeout=300)
        case ["iq-offline", "ui"]:
            assert interface_answers()
        case ["iq-offline", *arguments]:
            result = CliRunner().invoke(app, [*arguments, *smaller(arguments)])
            told = f"{shlex.join(words)}: {result.output} {result.exception}"
            if "slurm" in arguments and importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
                assert "iq-offline[cluster]" in str(result.exception), told
            else:
                assert result.exit_code == 0, told
        case _:
            raise AssertionError(f"no reader's command: {words}")


def smaller(arguments: list[str]) -> list[str]:
    """Options that make a command short without changing what it does."""
    if arguments[0] == "train":
        method = arguments[arguments.index("--method") + 1]
        return ["--updates", "20", "--device", "cpu", *(f"--set={setting}" for setting in SMALL[method])]
    if arguments[0] == "eval":
        return ["--episodes", "1"]
    if arguments[0] == "relabel":
        return ["--form", "canonical"]  # after so few updates no other form has a scale
    return ["--updates", "20", "--form", "canonical"] if arguments[0] == "distil" else []


def interface_answers(patience: float = 180.0) -> bool:
    """Whether `iq-offline ui` serves a page, until it is interrupted."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "iq_offline", "ui", "--no-browser", "--port", str(port)]
    server, deadline = subprocess.Popen(command, stdout=subprocess.DEVNULL), time.monotonic() + patience
    try:
        while server.poll() is None and time.monotonic() < deadline:
            try:
                with urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
                    return bool(page.status == 200)
            except OSError:
                time.sleep(0.5)
        return False
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(patience)
