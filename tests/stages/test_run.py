"""run: a table from its name to its end; killed, it goes on; what is finished is not done again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from iq_offline.cli import app
from iq_offline.errors import UserError
from iq_offline.pipeline.plan import Plan
from iq_offline.pipeline.schema import load_table
from iq_offline.pipeline.working_folder import HOLDER, SNAKEMAKE_LOCKS
from iq_offline.stages import run as run_stage
from iq_offline.stages.dry_run import CLONING_SPEED, planned_jobs

pytest.importorskip("snakemake")
TINY = {
    "name": "tiny",
    "methods": ["bc"],
    "device": "cpu",
    "demos": 2,
    "updates": 20,
    "set": {"hidden_sizes": [8]},
    "episodes": 1,
}


@pytest.fixture
def table(tmp_path, linear_task) -> Path:
    """A table of one small run, in a file."""
    return written(tmp_path, datasets={"linear": str(linear_task)}, ends_in="outcomes")


def written(folder: Path, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY | changes))
    return file


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "iq_offline", "run", *map(str, arguments)]


def ran(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def planned(*arguments: object) -> dict[str, int]:
    """Jobs by rule that a dry run lists."""
    result = ran(*arguments, "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    return {row["stage"]: row["jobs"] for row in json.loads(result.stdout)["planned"]}


def refusal(*arguments: object) -> UserError:
    result = CliRunner().invoke(app, ["run", *map(str, arguments)])
    assert isinstance(result.exception, UserError), result.output + str(result.exception)
    return result.exception


def finished_files(out: Path) -> dict[Path, int]:
    files = [*out.glob("fetched/*"), *out.glob("datasets/*/provenance.json"), *out.glob("outcomes/*.txt")]
    return {file: file.stat().st_mtime_ns for file in files}


@pytest.mark.slow
def test_killed_run_goes_on(tmp_path, table):
    """A killed run goes on where it was, and then has nothing to do."""
    out = tmp_path / "work"
    with subprocess.Popen(command(table, "--cores", 1, "--out", out), stderr=subprocess.PIPE, text=True) as process:
        while not (out / "logs" / "outcome").is_dir() and process.poll() is None:
            time.sleep(0.02)
        refused = ran(table, "--out", out)
        snakemake = json.loads((out / HOLDER).read_text())["process"]
        os.kill(process.pid, signal.SIGKILL)
        os.kill(snakemake, signal.SIGKILL)
    before = finished_files(out)
    assert refused.returncode == 2
    assert f"a run is at work in {out}: process {snakemake}" in refused.stderr
    assert any((out / SNAKEMAKE_LOCKS).iterdir())
    again = ran(table, "--cores", 1, "--out", out)
    assert again.returncode == 0, again.stderr
    assert f"{out} was locked by a run that is dead" in again.stderr
    assert "linear-bc-2x1-seed0 exit 0" in again.stdout
    assert len(before) == 2
    assert finished_files(out).items() > before.items()
    idle = ran(table, "--cores", 1, "--out", out)
    assert "Nothing to be done" in idle.stderr
    assert "Snakemake" not in idle.stderr
    assert "Building DAG of jobs" in (out / "logs" / "snakemake.log").read_text()
    assert planned(written(tmp_path, **yaml.safe_load(table.read_text()) | {"seeds": [0, 1]}), "--out", out) == {
        "outcome": 1,
        "outcomes": 1,
    }


TIMERS = """
import atexit, os, sys, threading
if "snakemake" in sys.orig_argv:
    begun = []
    start = threading.Timer.start
    threading.Timer.start = lambda timer: (begun.append(timer), start(timer))
    atexit.register(lambda: open(os.environ["TIMERS"], "w").write(str(len(begun))))
"""


def test_snakemake_waits_without_polling(tmp_path, table, monkeypatch):
    """Snakemake waits for its jobs without a timer that looks again and again."""
    (tmp_path / "sitecustomize.py").write_text(TIMERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("TIMERS", str(tmp_path / "timers"))
    result = ran(table, "--cores", 1, "--out", tmp_path / "work")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "timers").read_text() == "0"
    assert re.search(r"^note: .*tiny.yaml: \d of 4 steps", result.stderr, flags=re.MULTILINE)
    assert "rule outcome" not in result.stderr


@pytest.mark.slow
def test_failed_jobs_are_shown_and_exit_1(tmp_path, numbered, write_d4rl):
    """A job that fails is shown, and the command exits 1."""
    data = write_d4rl(numbered([5], terminated=[True]))
    result = ran(
        written(tmp_path, datasets={"short": str(data)}, ends_in="outcomes"), "--cores", 1, "--out", tmp_path / "w"
    )
    assert result.returncode == 1
    assert "--demos 2: short-v0 has 1 episodes" in result.stderr
    assert f"logs: {tmp_path / 'w' / 'logs'}" in result.stderr


def test_shipped_pipelines_are_listed_by_dry_run(tmp_path):
    """A shipped pipeline is found by name; a dry run only lists its jobs."""
    assert planned("quick", "--out", tmp_path / "w") == {
        **{"fetch": 2, "convert": 2, "train": 4, "eval": 4, "reward": 2, "report": 1}
    }
    assert not (tmp_path / "w").exists()


def test_dry_run_estimates_from_finished_runs(tmp_path, table):
    """The speed of finished runs of a method counts; without any, a typical one."""
    plan = Plan.of(load_table(table))
    (tmp_path / "begun").mkdir()
    files = ["runs/a\t-\ttrain\tl\tmissing\tupdate pending", "runs/b\t-\ttrain\tl\tok\tno update"]
    listed = [sys.executable, "-c", "import sys; print(*sys.argv[1:], sep='\\n')", *files, files[0], files[0]]
    (unknown,) = planned_jobs(listed, plan, tmp_path, [])
    assert (unknown.stage, unknown.jobs, unknown.seconds) == ("train", 3, pytest.approx(3 * 20 / CLONING_SPEED))
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text(json.dumps({"method": "bc", "updates": 100, "seconds": 50.0}))
    (known,) = planned_jobs(listed, plan, tmp_path, [run, tmp_path / "none"])
    assert known.seconds == pytest.approx(3 * 20 / 2)
    with pytest.raises(UserError, match="cannot plan this table: no idea"):
        planned_jobs([sys.executable, "-c", "import sys; sys.exit('no idea')"], plan, tmp_path, [])


@pytest.mark.slow
@pytest.mark.parametrize("ends_in", ["report", "outcomes"])
def test_fresh_plan_agrees_with_snakemake(ends_in, tmp_path, linear_task):
    """In a folder without results the plan's own count is Snakemake's: by stage, also of data that only judge."""
    datasets = {"linear": {"dataset": str(linear_task), "reward_on": ["demo/swimmer/mixed-v0"]}}
    supplementary = {"alone": [], "others": ["demo/swimmer/random-v0"]}
    changes = {"methods": ["bc", "iq"], "set": {}, "seeds": "0-2", "supplementary": supplementary}
    file = written(tmp_path, datasets=datasets, ends_in=ends_in, **changes)
    by_plan = planned(file, "--out", tmp_path / "w")
    (tmp_path / "w").mkdir(exist_ok=True)
    (tmp_path / "w" / "note").touch()
    assert planned(file, "--out", tmp_path / "w") == by_plan


@pytest.mark.slow
@pytest.mark.parametrize("ends_in", ["report", "outcomes"])
def test_commands_stay_short_in_long_tables(ends_in, tmp_path, linear_task):
    """No command of a table grows with its number of runs: Linux takes 128 KiB an argument, about 4,800 paths."""

    def longest(seeds: int) -> int:
        names = list(range(100, 100 + seeds))
        file = written(tmp_path / str(seeds), datasets={"linear": str(linear_task)}, ends_in=ends_in, seeds=names)
        snakemake = run_stage._command(file, tmp_path / "w", run_stage.RunRequest(str(file)))
        planned = [*snakemake, "--dry-run", "--printshellcmds", "--quiet", "host"]
        listed = subprocess.run(planned, capture_output=True, text=True, check=True)
        lines = (listed.stdout + listed.stderr).splitlines()
        ends = [line for line in lines if "--out report" in line or "xargs" in line]
        commands = [line for line in lines if f"{sys.executable} -m iq_offline" in line]
        assert len(ends) == 1
        assert len(commands) >= seeds
        return max(map(len, [*ends, *commands]))

    assert longest(2) == longest(200)


def test_dry_run_prints_a_table(tmp_path):
    """`run --dry-run` prints jobs by stage with their times; `run` alone lists the shipped tables."""
    told = ran("quick", "--out", tmp_path / "w", "--dry-run", "--cores", 2).stdout.splitlines()
    assert told[0].split()[:2] == ["stage", "jobs"]
    assert [line.split()[0] for line in told[1:-1]] == ["fetch", "convert", "train", "eval", "reward", "report"]
    assert re.fullmatch(r"15 jobs, about .+ on 2 cores", told[-1])
    listed = CliRunner().invoke(app, ["run"]).stdout
    assert {"demo", "quick", "stability"} <= {line.split()[0] for line in listed.splitlines()}


MISTAKES = {
    "an unknown pipeline": (("demoo",), "unknown pipeline 'demoo'", "demo"),
    "a file that is not there": (("x.yaml",), "no file at x.yaml", "check the path"),
    "an unknown profile": (("demo", "--profile", "slrum"), "unknown profile 'slrum'", "slurm"),
    "a table without its data": (("stability",), "names no folder yet", "--data FOLDER"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_with_a_remedy(mistake, tmp_path, monkeypatch):
    """A mistake is answered with its name and remedy."""
    monkeypatch.chdir(tmp_path)
    arguments, problem, remedy = MISTAKES[mistake]
    error = refusal(*arguments)
    assert problem in error.problem
    assert remedy in error.remedy


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_missing_files_stop_before_planning(tmp_path, linear_task, dry, monkeypatch):
    """Missing files are reported before anything is planned or run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong").mkdir()
    error = refusal("stability", "--data", "wrong", "--out", tmp_path / "w", *dry)
    assert re.search(r"^(\d+) of the \1 datasets of table stability are not there: ", error.problem)
    assert f"{tmp_path / 'wrong' / 'hopper-expert.hdf5'}, " in error.problem
    assert error.problem.endswith(", ...")
    assert "--data FOLDER" in error.remedy
    names = {"there": str(linear_task), "gone": "gone.hdf5", "id": "demo/cartpole/expert-v0", "url": "http://a/b.hdf5"}
    file = written(tmp_path, datasets=names)
    error = refusal(file, "--out", tmp_path / "w", *dry)
    assert error.problem == "1 of the 4 datasets of table tiny are not there: gone.hdf5"
    assert error.remedy == f"mend the paths in {file}"
    assert not (tmp_path / "w").exists()


def test_data_are_checked_where_they_are_read(tmp_path, linear_task, monkeypatch):
    """Data are looked for where they will be read."""
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "home", datasets={"x": "{data}/linear.hdf5", "y": "./beside.hdf5"}, ends_in="outcomes")
    (tmp_path / "w").mkdir()
    linear_task.rename(tmp_path / "home" / "linear.hdf5")
    (tmp_path / "w" / "beside.hdf5").symlink_to(tmp_path / "home" / "linear.hdf5")
    assert planned(file, "--data", "home", "--out", tmp_path / "w")["fetch"] == 2


@pytest.mark.parametrize(
    ("profile", "module", "remedy"),
    [("local", "snakemake", "iq-offline[pipeline]"), ("slurm", run_stage.EXECUTORS["slurm"], "iq-offline[cluster]")],
)
def test_missing_packages_are_named_with_their_extra(profile, module, remedy, monkeypatch):
    """A missing package is named with the extra that installs it."""
    find = run_stage.importlib.util.find_spec
    monkeypatch.setattr(run_stage.importlib.util, "find_spec", lambda name: None if name == module else find(name))
    assert remedy in refusal("quick", "--profile", profile, "--dry-run").remedy
