"""Help: fast, in groups, with examples that are true; and what people see of a command's progress and numbers."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iq_offline import console
from iq_offline.cli import app
from iq_offline.commands.index import COMMANDS, GROUPS, OPTIONS

PROGRAM = "import sys, time; sys.argv = ['iq-offline', '--help']; from iq_offline.cli import main; main();"


def test_help_is_fast():
    """`iq-offline --help` takes less than 200 ms of the processor, without Typer and Rich."""
    code = f"{PROGRAM} print(time.process_time(), sorted({{'typer', 'rich'}} & set(sys.modules)), file=sys.stderr)"
    spent = []
    for _ in range(3):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds, _, imported = result.stderr.strip().partition(" ")
        spent.append(float(seconds))
        assert imported == "[]"
    assert min(spent) < 0.2
    assert all(f"─ {group} ─" in result.stdout for group in GROUPS)
    assert CliRunner().invoke(app, ["--help"]).stdout.split() == result.stdout.split()


def test_every_command_has_a_group_and_examples():
    """Each command's examples end its help and are accepted by its parser."""
    import typer

    group = typer.main.get_command(app)
    assert set(COMMANDS) == set(group.commands)
    for name, entry in COMMANDS.items():
        assert entry.group in GROUPS
        command = group.commands[name]
        for example in entry.examples:
            called, *arguments = shlex.split(example)
            assert called == name
            command.make_context(name, arguments, resilient_parsing=False).close()
        shown = " ".join(CliRunner().invoke(app, [name, "--help"]).stdout.split())
        assert f"iq-offline {' '.join(entry.examples[0].split())}" in shown.replace("│ ", "")


def test_updates_help_names_the_clones_setting():
    """`train --help` says that --updates leaves the clone's updates as they are, and which setting changes them."""
    from iq_offline.config.train import algorithm_class, valid_keys

    shown = " ".join(CliRunner().invoke(app, ["train", "--help"]).stdout.replace("│", " ").split())
    assert "Gradient updates of the method. Of the clone" in shown
    assert "prior.updates=N" in shown
    assert all("prior.updates" in valid_keys(algorithm_class("iq", discrete=kind)) for kind in (False, True))


def test_options_of_the_overview_exist():
    """The overview lists the application's own options, all of them."""
    import typer

    own = {option for parameter in typer.main.get_command(app).params for option in parameter.opts}
    assert set(OPTIONS) - {"--help"} == own


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.0, "0"),
        (3.14159265, "3.142"),
        (12345.678, "12,350"),
        (-0.000123456, "-0.0001235"),
        (1.5e-7, "1.500e-07"),
        (float("nan"), "nan"),
        ([0.5, 2.0], "0.5, 2"),
        ({"mean": 1.23456, "n": 3}, "mean 1.235, n 3"),
        ({}, "-"),
    ],
)
def test_people_read_four_digits_without_braces(value: object, shown: str):
    assert console.readable(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(4.21, "4.2 s"), (31.4, "31 s"), (302.0, "5 min 02 s"), (12_000.0, "3 h 20 min")]
)
def test_durations_have_units_that_fit(seconds: float, shown: str):
    assert console.duration(seconds) == shown


def test_progress_without_a_terminal_is_lines(monkeypatch, capsys):
    """A line now and then tells phase, amount, speed and time left of each task that has gone on and not ended."""
    monkeypatch.setattr(console, "LINE_SECONDS", 0.05)
    with console.progress("iq seed 0", "iq seed 1", unit="updates") as advance:
        time.sleep(0.18)
        advance(0, phase="opening MLflow's store")
        time.sleep(0.18)
        advance(1000, phase="cloning", total=10_000)
        advance(10_000, phase="IQ-Learn", total=10_000, task=1)
        time.sleep(0.01)
        advance(2000, "loss 0.5", phase="cloning")
        time.sleep(0.15)
    lines = capsys.readouterr().err.splitlines()
    before = ["iq seed 0: starting", "iq seed 1: starting", "iq seed 0: opening MLflow's store"]
    assert lines[:3] == [f"note: {line}" for line in before]
    assert lines[-1].startswith("note: iq seed 0: cloning, 2,000 of 10,000 updates, ")
    assert "/s, " in lines[-1]
    assert lines[-1].endswith(" left, loss 0.5")
    assert not any("10,000 of 10,000" in line for line in lines)
    assert len(set(lines)) == len(lines)


def test_progress_on_a_terminal_begins_at_once(monkeypatch, capsys):
    """A bar stands there before the first update, and shows phase, amount, speed and time left after it."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with console.progress("bc seed 0", unit="updates") as advance:
        assert "starting" in capsys.readouterr().err
        advance(100, phase="cloning", total=400)
        time.sleep(0.01)
        advance(200, "loss 1.5", phase="cloning", total=400)
    shown = capsys.readouterr().err
    for text in ("bc seed 0", "cloning", "200 of 400 updates", "/s", "left", "loss 1.5"):
        assert text in shown


def test_speed_is_that_of_a_phase(monkeypatch):
    """A new phase begins a new speed; a run that was resumed counts what it did itself."""
    clock = iter([0.0, 10.0, 12.0, 20.0, 25.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    task = console._Task("run", "updates", 5000)
    task.advance(1000, "", "cloning", None)
    assert task.speed is None
    task.advance(1200, "", "cloning", None)
    assert task.speed == 100
    task.advance(2000, "", "IQ-Learn", None)
    assert task.speed is None
    task.advance(2500, "", "IQ-Learn", None)
    assert task.texts() == ["IQ-Learn", "2,500 of 5,000 updates", "100/s", "25 s left", ""]


def test_transfers_tell_bytes_and_speed(monkeypatch, capsys):
    """A transfer shows bytes and speed, and then how long it took; one without bytes says nothing."""
    with console.transfer("here already"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(console, "LINE_SECONDS", 0.02)
    with console.transfer("hopper") as advance:
        advance(0, 4_000_000)
        time.sleep(0.05)
        advance(1_000_000, 4_000_000)
        time.sleep(0.05)
        advance(4_000_000, 4_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "note: hopper: fetching, 0 B of 4 MB"
    assert any(line.startswith("note: hopper: fetching, 1 MB of 4 MB, ") and "MB/s" in line for line in lines)
    assert lines[-1].startswith("note: hopper: fetched 4 MB in 0.")


def test_paths_are_typed_as_one_would(tmp_path, monkeypatch):
    """A path below the working folder is relative, another absolute; both are quoted for a shell."""
    from iq_offline.commands.arguments import typed

    monkeypatch.chdir(tmp_path)
    assert typed(tmp_path / "runs" / "bc 1") == "'runs/bc 1'"
    assert typed(Path("/elsewhere/run")) == "/elsewhere/run"
