"""The README's commands are true: they run in order as they stand, with few updates; the Makefile has its two."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from readers import run_command

import iq_offline
from iq_offline.pipeline.plan import Plan
from iq_offline.pipeline.schema import End, load_table
from iq_offline.stages.run import ENDS, find_table

ROOT = Path(__file__).parents[1]


def code_blocks(heading: str) -> list[str]:
    section = (ROOT / "README.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```\n(.*?)```", section, flags=re.DOTALL)


@pytest.mark.slow
def test_the_commands_of_the_readme_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [line for line in code_blocks("Use")[0].splitlines() if line]
    assert len(commands) == 7
    for command in commands:
        run_command(shlex.split(command), monkeypatch)
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no scale to normalise by")
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """The ten lines of Python run as they stand, with few updates: they print returns and a reading, and draw."""
    monkeypatch.chdir(tmp_path)
    source = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    assert len([line for line in source.splitlines() if line]) <= 12
    small = {"updates": 20, "device": "cpu", "show_progress": False}
    train = iq_offline.train
    monkeypatch.setattr(iq_offline, "train", lambda *given, **options: train(*given, **options, **small))
    exec(source, {})
    assert capsys.readouterr().out.count("return=") == 4
    assert (tmp_path / "returns.png").is_file()


def test_setup_is_two_commands():
    """Set-up is the two commands of the README."""
    assert code_blocks("Start")[0].split("\n")[:2] == ["make demo", "make test"]
    for target in ("demo", "test"):
        planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert {"demo": "iq-offline run demo", "test": "pytest"}[target] in planned


@pytest.mark.slow
def test_three_commands_compare_bc_and_iq(tmp_path):
    """Three commands of the README lead to `bc` and `iq` compared on three seeds."""
    pytest.importorskip("snakemake")
    install, run, show = code_blocks("Start")[1].strip().splitlines()
    planned = subprocess.run(["make", "-n", *install.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert planned.stderr == ""
    script, command, name, out, folder = run.split()
    assert (script, command, out) == (".venv/bin/iq-offline", "run", "--out")
    plan = Plan.of(load_table(find_table(name)))
    assert {(run.method, run.seed) for run in plan.runs.values()} == {(m, s) for m in ("bc", "iq") for s in range(3)}
    listed = [sys.executable, "-m", "iq_offline", "run", name, "--out", str(tmp_path), "--dry-run"]
    assert "train" in subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    assert show == f"python3 -m webbrowser {folder}/{ENDS[End.REPORT].with_name('report.html')}"


def test_the_demonstration_plans_every_stage_of_the_line(tmp_path):
    pytest.importorskip("snakemake")
    pipelines = ROOT / "pipelines"
    files = ["--snakefile", str(pipelines / "Snakefile"), "--configfile", str(pipelines / "demo.yaml")]
    command = [sys.executable, "-m", "snakemake", *files, "--directory", str(tmp_path), "--dry-run", "--cores", "2"]
    planned = subprocess.run(command, capture_output=True, text=True, check=True)
    counts = dict(re.findall(r"^(\w+) +(\d+)$", planned.stdout + planned.stderr, flags=re.MULTILINE))
    assert counts == {
        **{"all": "1", "fetch": "6", "convert": "4", "train": "12", "eval": "12", "reward": "4", "report": "1"},
        "total": "40",
    }
