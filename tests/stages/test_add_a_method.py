"""CONTRIBUTING.md's "Add a method", literally: its code is trained, evaluated and reported."""

import json
import re
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iq_offline import methods
from iq_offline.cli import app
from iq_offline.config.cloning import DiscreteBCConfig
from iq_offline.errors import ConfigError

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def sqil(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method of the guide, in the registry for one test; the clone that its reward is compared with is small."""
    section = GUIDE.read_text().split("## Add a method")[1].split("\n## ")[0]
    config, learner, entry = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for name, code in (("iq_offline.config.sqil", config), ("iq_offline.algorithms.sqil", learner)):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(code, module.__dict__)
    monkeypatch.setitem(methods.METHODS, "sqil", eval(entry, vars(methods)))
    null = DiscreteBCConfig(updates=20, hidden_sizes=(16,))
    monkeypatch.setattr("iq_offline.stages.reward.DiscreteBCConfig", lambda: null)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.usefixtures("sqil", "home")
def test_method_of_the_guide_is_reported(tmp_path: Path):
    """Trained beside random data for 200 updates it is evaluated, reported, and its reward is recovered."""
    expert, other = "demo/cartpole/expert-v0", "demo/cartpole/random-v0"
    out = str(tmp_path / "run")
    options = ["--demos", "3", "--set", "updates=200", "--set", "hidden_sizes=[16,16]", "--set", "cql.weight=0.1"]
    run("train", "--dataset", expert, "--supplementary", other, "--method", "sqil", *options, "--out", out)
    evaluated = json.loads(run("eval", out, "--episodes", "2", "--json"))["runs"][0]
    assert (evaluated["method"], evaluated["episodes"]) == ("sqil", 2)
    correlations = json.loads(run("reward", out, "--json"))
    assert correlations["transition"]["n"] > 0
    run("report", out, "--out", str(tmp_path / "report"))
    assert "sqil" in (tmp_path / "report" / "report.html").read_text()
    assert "sqil" in run("methods")


@pytest.mark.usefixtures("sqil", "home")
def test_method_of_discrete_actions_refuses_continuous():
    """With both named, and with a method that takes them."""
    result = CliRunner().invoke(app, ["train", "--dataset", "demo/swimmer/expert-v0", "--method", "sqil"])
    assert isinstance(result.exception, ConfigError)
    assert "sqil trains discrete actions only; demo/swimmer/expert-v0 has continuous ones" in str(result.exception)
