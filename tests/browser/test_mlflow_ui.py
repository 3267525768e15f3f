"""MLflow's interface as `iq-offline ui` opens it: the experiment, its runs, and two methods compared."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from iq_offline.cli import app

pytestmark = pytest.mark.slow
START_SECONDS = 240
SHOWN_SECONDS = 120
STOP_SECONDS = 60


@pytest.fixture
def two_methods(linear_task: Path, tmp_path: Path) -> tuple[str, ...]:
    """A run of bc and one of iq in one comparison; their names."""
    for method in ("bc", "iq"):
        updates = "60" if method == "bc" else "20"
        small = ["--updates", updates, "--set", "hidden_sizes=[8]", "--device", "cpu", "--group", "two methods"]
        prior = ["--set", "prior.updates=40"] if method == "iq" else []
        command = ["train", "--dataset", str(linear_task), "--method", method, "--out", str(tmp_path / f"run-{method}")]
        trained = CliRunner().invoke(app, [*command, *small, *prior])
        assert trained.exit_code == 0, f"{trained.output} {trained.exception}"
    return ("run-bc", "run-iq")


@pytest.fixture
def served(home: Path) -> Iterator[tuple[str, str, "subprocess.Popen[str]"]]:
    """`iq-offline ui` while it runs: where it serves, the comparison's address, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "iq_offline", "ui", "--port", str(port), "--no-browser"]
    log = home / "ui.log"
    with log.open("w") as output:
        environment = os.environ | {"IQ_OFFLINE_HOME": str(home), "MLFLOW_DISABLE_TELEMETRY": "true"}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, text=True)
    try:
        base = f"http://127.0.0.1:{port}"
        waited(lambda: answers(base), START_SECONDS, lambda: f"the server does not answer: {log.read_text()[-2000:]}")
        found = re.search(r"comparison: (\S+)", log.read_text())
        assert found, log.read_text()
        yield base, found[1], process
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def answers(url: str) -> bool:
    with suppress(OSError), urlopen(url, timeout=5) as response:
        return bool(response.status == 200)
    return False


def waited(true: Callable[[], bool], seconds: float, problem: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(problem())
        time.sleep(0.5)


def shows(browser: Any, *words: str) -> None:
    """Waits until the page shows all of the words."""

    def text() -> str:
        return str(browser.execute_script("return document.body.innerText"))

    waited(
        lambda: all(word in text() for word in words), SHOWN_SECONDS, lambda: f"no {words} on the page, only: {text()}"
    )


def test_interface_compares_two_methods(browser, screenshot, two_methods, served):
    """MLflow's interface shows the experiment, the runs and two methods compared."""
    base, comparison, process = served
    browser.get(f"{base}/#/experiments")
    shows(browser, "iq-offline")
    screenshot("mlflow-experiments")

    experiment = re.search(r"experiments=%5B%22(\d+)%22%5D", comparison)[1]
    browser.get(f"{base}/#/experiments/{experiment}/runs?workflowType=machine_learning")
    shows(browser, "two methods", "3 matching runs")
    browser.execute_script("document.querySelector('[role=gridcell] button').click()")
    shows(browser, *two_methods)
    screenshot("mlflow-runs")

    browser.get(comparison)
    shows(browser, "Comparing 2 Runs from 1 Experiment", *two_methods, "algorithm.hidden_sizes")
    screenshot("mlflow-comparison")
    methods = "return [...document.querySelectorAll('tr')].map(row => row.innerText.trim().split(/\\s+/))"
    assert sorted(next(row for row in browser.execute_script(methods) if row[0] == "method")[1:]) == ["bc", "iq"]

    process.send_signal(signal.SIGTERM)
    process.wait(STOP_SECONDS)
    assert not answers(base)
