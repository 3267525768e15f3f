"""The one entry of the benchmarks: what it lists, runs and refuses; and the JSON that measurements write."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as entry
from benchmarks.arguments import Parser
from benchmarks.processes import importable
from benchmarks.results import result_file

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", *sorted((ROOT / "pipelines").glob("*.yaml"))]
COMMAND = re.compile(r"python -m benchmarks ([^`\n;]*)")


def leaves(package: str = "benchmarks", names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, module in entry.parts_of(package).items():
        if entry.parts_of(module):
            yield from leaves(module, (*names, name))
        else:
            yield (*names, name)


def help_of(names: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        entry.main([*names, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_list_has_a_line_for_each_benchmark(capsys):
    """Without a name, each benchmark has one line with its name and purpose; a group lists its parts."""
    for package in ("benchmarks", *(f"benchmarks.{name}" for name in ("record", "speed"))):
        assert entry.main(entry.names_of(package)) == 0
        lines = capsys.readouterr().out.splitlines()
        for name in importlib.import_module(package).PARTS:
            (line,) = [line for line in lines if line.startswith(f"  {name} ")]
            assert len(line.split()) > 4


@pytest.mark.parametrize("names", list(leaves()), ids=" ".join)
def test_help_describes_the_benchmark(names, capsys):
    """`--help` of each benchmark has its own command, and its documentation."""
    told = help_of(names, capsys)
    assert told.startswith(f"usage: python -m benchmarks {' '.join(names)}")
    module = importlib.import_module(".".join(["benchmarks", *(name.replace("-", "_") for name in names)]))
    assert module.__doc__.splitlines()[0] in told


def test_every_module_is_listed():
    """Each module of the package with a `main` that takes arguments is reached by a name."""
    found = {
        tuple(file.relative_to(ROOT / "benchmarks").with_suffix("").parts)
        for file in (ROOT / "benchmarks").rglob("*.py")
        if "\ndef main(arguments: " in file.read_text() and not file.stem.startswith("__")
    }
    assert found == {tuple(name.replace("-", "_") for name in names) for names in leaves()}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["gridwrld"], "gridworld"), (["speed", "update"], "updates"), (["kill", "trainings"], "training")],
)
def test_misspelt_name_suggests_the_nearest(typed, meant, capsys):
    """A name that is none exits 2 with the nearest one."""
    assert entry.main(typed) == 2
    assert f"did you mean {meant}" in capsys.readouterr().err


def test_entry_runs_from_the_shell():
    """`python -m benchmarks` is a command; the list imports neither torch nor NumPy."""
    command = [sys.executable, "-X", "importtime", "-m", "benchmarks"]
    ran = subprocess.run(command, env=importable({}), capture_output=True, text=True, check=True)
    assert "few-demonstrations" in ran.stdout
    imported = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert not imported & {"torch", "numpy", "polars", "pydantic"}


def commands_of(page: Path) -> Iterator[list[str]]:
    text = page.read_text().replace("\\\n", " ")
    for found in COMMAND.finditer(text):
        yield shlex.split(found[1].rstrip("."), comments=True)


@pytest.mark.parametrize("page", [page for page in PAGES if [*commands_of(page)]], ids=lambda page: page.name)
def test_documented_commands_are_accepted(page, capsys):
    """Every documented command names a benchmark, and options that it has."""
    known = list(leaves())
    for words in commands_of(page):
        (names,) = [names for names in known if tuple(words[: len(names)]) == names]
        told = help_of(names, capsys)
        for word in words:
            if word.startswith("--"):
                assert re.search(rf"{word}\b", told), f"{page.name}: {' '.join(words)}: {word}"


def test_result_names_machine_versions_and_rows(tmp_path):
    """The JSON file has the command, date, machine, versions and rows; a benchmark that fails keeps its rows."""
    parser = Parser("benchmarks.speed.updates", "Measure.")
    parser.add_json()
    options = parser.parse(["--json", str(tmp_path / "found.json")])

    def measure() -> None:
        with result_file(options) as rows:
            rows.append({"candidate": "ours", "updates_a_second": 3.0})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure()
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {"command", "date", "machine", "versions", "rows"}
    assert found["command"] == f"python -m benchmarks speed updates --json {tmp_path / 'found.json'}"
    assert found["machine"].keys() >= {"processor", "cores", "memory_gb", "system", "load"}
    assert found["versions"].keys() >= {"python", "iq-offline", "torch", "commit"}
    assert found["rows"] == [{"candidate": "ours", "updates_a_second": 3.0}]


def test_measurement_writes_its_json(tmp_path, capsys):
    """A benchmark writes the file that `--json` names, with the rows of its table."""
    file = tmp_path / "found.json"
    options = ["--rounds", "2", "--seconds", "0.01", "--only", "gemm", "eager-discrete", "--json", str(file)]
    assert entry.main(["speed", "updates", *options]) == 0
    assert "| `eager-discrete` |" in capsys.readouterr().out
    rows = json.loads(file.read_text())["rows"]
    assert [(row["candidate"], row["round"]) for row in rows] == [
        *(("gemm", 1), ("eager-discrete", 1)),
        *(("eager-discrete", 2), ("gemm", 2)),
    ]
    assert all(row["updates"] > 0 for row in rows)
