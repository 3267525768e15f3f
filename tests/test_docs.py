"""The documentation is true: its commands run, its names are those of the program, its lines wrap."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from readers import run_command

from iq_offline import __version__
from iq_offline.cli import COMMANDS, app
from iq_offline.config.train import algorithm_config
from iq_offline.methods import METHODS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PROSE = [*PAGES, ROOT / "README.md"]
BLOCK = re.compile(r'^ *```(\w*)(?: title="([^"]+)")?\n(.*?)^ *```', flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TINY_METHODS = {"bc": {"updates": 20}, "iq": {"updates": 20, "set": {"prior.updates": 20}}}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_commands_of_a_tutorial_run(page, tmp_path, monkeypatch):
    """Every file and command of a tutorial, in order, with few updates and short simulations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    commands = 0
    for language, title, text in BLOCK.findall(page.read_text()):
        if title:
            (tmp_path / title).write_text(small_table(text) if language == "yaml" else text)
        elif language == "sh":
            for command in text.replace("\\\n", " ").splitlines():
                run_command(shlex.split(command, comments=True), monkeypatch)
                commands += 1
    assert commands >= 5


def small_table(text: str) -> str:
    table = yaml.safe_load(text)
    assert table["methods"] == ["bc", "iq"]
    return yaml.safe_dump(table | {"methods": TINY_METHODS, "episodes": 1, "device": "cpu"})


def test_pages_train_into_different_folders():
    """Whoever follows the README, the front page, a tutorial and a guide in one folder overwrites no run or report."""
    pages: dict[str, set[str]] = {}
    for page in PROSE:
        for name, *arguments in commands_of(page):
            if name in ("train", "report") and "--out" in arguments:
                pages.setdefault(arguments[arguments.index("--out") + 1], set()).add(name_of(page))
    assert {folder: names for folder, names in pages.items() if len(names) > 1} == {}
    assert "runs/iq" in pages


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_prose_wraps_at_100_characters(page):
    """No line of prose is longer than 100 characters; tables, code and links that cannot be broken may be."""
    prose = BLOCK.sub("", page.read_text())
    lines = [line for line in prose.splitlines() if not line.lstrip().startswith(("|", "[!["))]
    assert [line for line in lines if len(line) > 100 and " " in line.strip(" -")] == []


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_tables_have_at_most_eight_columns(page):
    rows = [line for line in BLOCK.sub("", page.read_text()).splitlines() if re.fullmatch(r"\|(-+\|)+", line)]
    assert [row for row in rows if row.count("|") > 9] == []


@pytest.mark.parametrize("page", [*PROSE, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_relative_links_exist(page):
    """Relative links lead to files of the repository: pages are read there, too, where nothing is generated."""
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_commands_and_options_exist(page):
    """Every `iq-offline` command in a code block names a command of the program and options that it has."""
    for command in commands_of(page):
        name, *arguments = command
        assert name in COMMANDS, command
        known = {option for parameter in parameters(name) for option in parameter.opts + parameter.secondary_opts}
        named = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        assert named <= known, f"{command}: {named - known}"


def commands_of(page: Path) -> Iterator[list[str]]:
    for language, _, text in BLOCK.findall(page.read_text()):
        if language in ("", "sh"):
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] in (["iq-offline"], [".venv/bin/iq-offline"]):
                    yield words[1:]


def parameters(command: str):
    return typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]


def test_every_method_has_a_page():
    """Every method is in the guide that chooses one, by its name or as labeller and trainer."""
    guide = (DOCS / "how-to" / "choose-method.md").read_text()
    missing = [name for name in METHODS if f"`{name}`" not in guide and f"`{name.split('-')[0]}-`" not in guide]
    assert [name for name in missing if f", {name}" not in guide and f"`{name}," not in guide] == []


def test_preset_of_the_guide_is_accepted():
    """The TOML file of the guide to settings fits the configurations that it names."""
    text = (DOCS / "how-to" / "change-settings.md").read_text()
    preset = tomllib.loads(next(block for language, _, block in BLOCK.findall(text) if language == "toml"))
    assert set(preset) == {"iq-continuous", "iq-discrete"}
    for discrete in (False, True):
        config = algorithm_config("iq", discrete=discrete, presets=[preset])
        assert config.model_dump()["temperature"] == preset[config.name]["temperature"]


def test_project_addresses_agree():
    """One repository, one site and one version in pyproject.toml, mkdocs.yml and CITATION.cff."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text().replace("!!", ""))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    urls = project["urls"]
    assert urls["Repository"] == site["repo_url"] == citation["repository-code"]
    assert urls["Documentation"] == site["site_url"] == citation["url"]
    assert project["version"] == citation["version"] == __version__
