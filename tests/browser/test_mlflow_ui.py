"""MLflow's interface as `iq-offline ui` opens it: which of two methods is better."""

import json
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
START_SECONDS = 600
SHOWN_SECONDS = 240
STOP_SECONDS = 120


RETURNS = {("bc", 0): 100.0, ("bc", 1): 120.0, ("iq", 0): 200.5, ("iq", 1): 230.5}
MEANS = {"Group: bc": "110 (average)", "Group: iq": "215.5 (average)"}
RETURN = "metrics.`eval/return_mean`"
READABLE = """
const readable = cell => {
  const box = cell.getBoundingClientRect();
  const onScreen = box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight;
  const atop = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  const whole = [cell, ...cell.querySelectorAll("*")].every(part => part.scrollWidth <= part.clientWidth + 1
    || getComputedStyle(part).display === "inline");
  return onScreen && whole && cell.contains(atop);
};
const cells = column => Object.fromEntries([...document.querySelectorAll("[role=gridcell]")]
  .filter(cell => cell.getAttribute("col-id") === column)
  .map(cell => [cell.closest("[role=row]").getAttribute("row-index"), cell]));
const label = cell => cell.innerText.split("\\n").find(line => line.trim() && !line.startsWith("#")).trim();
const names = cells("attributes.`Run Name`"), values = cells(arguments[0]);
return Object.keys(names).filter(row => row in values && readable(values[row]))
  .map(row => [label(names[row]), values[row].innerText.trim()]);
"""
"""Of each row of the table: its name and its cell in a column, where that cell can be read on the screen.

Above the name stands the number of the row's colour, which nobody sees.
"""


@pytest.fixture
def two_methods(linear_task: Path, tmp_path: Path) -> None:
    """Two runs of bc and two of iq in one comparison, with returns, and their report."""
    told = {"episodes": 2, "return_std": 1.0, "length_mean": 10.0, "score": None, "reference": None}
    for (method, seed), mean in RETURNS.items():
        out = tmp_path / f"{method}-{seed}"
        small = [
            "--updates",
            "20",
            "--seed",
            str(seed),
            "--set",
            "hidden_sizes=[8]",
            "--device",
            "cpu",
            "--compile",
            "off",
        ]
        prior = ["--set", "prior.updates=20"] if method == "iq" else []
        data = ["--dataset", str(linear_task), "--method", method, "--group", "two methods", "--out", str(out)]
        run_command("train", *data, *small, *prior)
        own = {"run": out.name, "method": method, "seed": seed, "dataset": "linear", "return_mean": mean}
        (out / "evaluation.json").write_text(json.dumps(own | told | {"env_id": None, "env_kwargs": {}}))
    runs = [str(tmp_path / f"{method}-{seed}") for method, seed in RETURNS]
    run_command("report", *runs, "--out", str(tmp_path / "report"))
    run_command("sync", *runs, "--report", str(tmp_path / "report"))


def run_command(*command: str) -> None:
    ran = CliRunner().invoke(app, list(command))
    assert ran.exit_code == 0, f"{ran.output} {ran.exception}"


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
        waited(lambda: "comparison: " in log.read_text(), START_SECONDS, lambda: f"no address: {log.read_text()}")
        found = re.search(r"comparison: (\S+)\s", log.read_text())
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


def readable_cells(browser: Any, column: str) -> dict[str, str]:
    return {name: value.replace("\n", " ") for name, value in browser.execute_script(READABLE, column)}


@pytest.mark.usefixtures("two_methods")
def test_first_screen_shows_both_mean_returns(browser, screenshot, served):
    """The page that `ui` opens shows each method's mean return without scrolling, the better method first.

    The charts and the report are one click away, and neither the assistant nor the mode for language models is open.
    """
    _, comparison, process = served
    for width in (1280, 1440):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
        )
        browser.get("about:blank")
        browser.get(comparison)
        shows(browser, *MEANS, "5 matching runs")
        waited(
            lambda: MEANS.items() <= readable_cells(browser, RETURN).items(),
            SHOWN_SECONDS,
            lambda: f"readable: {readable_cells(browser, RETURN)}; {screenshot('mlflow-unreadable')}",
        )
        screenshot(f"mlflow-comparison-{width}")
        names = list(readable_cells(browser, RETURN))
        assert names.index("Group: iq") < names.index("Group: bc")
        assert readable_cells(browser, "tags.`method`")["iq seed 1, linear"] == "iq"
        assert "Ask questions about your" not in browser.execute_script("return document.body.innerText")

    browser.find_element("link text", "report: two methods").click()
    shows(browser, "The report with its pictures")
    screenshot("mlflow-report-run")
    browser.find_element("link text", "The report with its pictures").click()
    browser.switch_to.window(browser.window_handles[-1])
    shows(browser, "report.html", "summary.csv")
    screenshot("mlflow-report")

    browser.get("about:blank")
    browser.get(f"{comparison}&compareRunsMode=CHART")
    shows(browser, "Add chart", "eval/return_mean", "Group: bc", "Group: iq")
    screenshot("mlflow-charts")

    process.send_signal(signal.SIGTERM)
    process.wait(STOP_SECONDS)
    assert not answers(comparison.partition("/#/")[0])
