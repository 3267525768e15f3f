"""What makes a result stale: a change of the code that it comes from, and of no other."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from iq_offline.methods import METHODS
from iq_offline.pipeline import code

PACKAGE = Path(code.__file__).parents[1]


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of the package, which is hashed in its place."""
    shutil.copytree(PACKAGE, tmp_path / "iq_offline", ignore=shutil.ignore_patterns("__pycache__", "_shipped"))
    monkeypatch.setattr(code, "ROOT", tmp_path / "iq_offline")
    return tmp_path / "iq_offline"


def hashes() -> dict[str, str]:
    for cached in (code._source, code._imports, code._statements):
        cached.cache_clear()
    trained = {method: code.code_of_training(method) for method in ("bc", "iq", "otr-iql")}
    return trained | {stage: code.code_of_stage(stage) for stage in ("convert", "eval", "reward", "report")}


@cache
def hashes_before() -> dict[str, str]:
    """Of the package as it is, and of every copy that no test has changed yet."""
    return hashes()


def stale_after(change: Callable[[], object]) -> set[str]:
    before = hashes_before()
    change()
    after = hashes()
    return {name for name in before if before[name] != after[name]}


def append(*files: Path) -> None:
    for file in files:
        file.write_text(file.read_text() + "\nSTALE = 1\n")


def test_changed_loss_makes_its_runs_stale(copy):
    """A changed loss makes stale what is trained by it."""
    assert stale_after(lambda: append(copy / "algorithms" / "divergences.py")) == {"iq"}


def test_changed_cloning_loss_makes_our_runs_stale(copy):
    """A changed cloning loss makes all of our methods stale."""
    assert {"bc", "iq", "reward"} <= stale_after(lambda: append(copy / "algorithms" / "bc.py"))


def test_a_changed_peer_makes_peers_stale(copy):
    assert stale_after(lambda: append(copy / "baselines" / "reward_labelling.py")) == {"otr-iql"}


@pytest.mark.parametrize("module", ["filtering", "distances", "residual_test"])
def test_episode_filters_belong_to_iq_not_bc(copy, module):
    """How more demonstrations are found is part of `iq`, and not of `bc`."""
    assert (
        {"iq", "otr-iql"}
        <= stale_after(lambda: append(copy / "baselines" / f"{module}.py"))
        <= {*("iq", "otr-iql", "reward")}
    )


def test_changed_reader_makes_all_runs_stale(copy):
    """A changed reader makes the data stale, and all that learns from them."""
    assert {"convert", "bc", "iq", "otr-iql"} <= stale_after(lambda: append(copy / "data" / "formats" / "d4rl.py"))


def test_a_changed_page_makes_the_report_stale(copy):
    page = copy / "report" / "page.html.j2"
    assert stale_after(lambda: page.write_text(page.read_text() + "<!-- -->")) == {"report"}


def test_fetching_and_listing_make_nothing_stale(copy):
    """Code that fetches data or lists them makes nothing stale."""
    paths = [copy.joinpath(*module.split(".")[1:]) for module in code.WITHOUT_RESULT]
    files = [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]
    assert stale_after(lambda: append(*files)) == set()


def test_comments_docstrings_and_layout_make_nothing_stale(copy):
    file = copy / "algorithms" / "losses.py"
    text = file.read_text()
    assert "\n\n\ndef " in text
    other = text.replace('"""', '"""Another word. ', 1).replace("\n\n\ndef ", "\n\n\n\n# why\ndef ")
    assert stale_after(lambda: file.write_text(other)) == set()


def test_changed_settings_make_own_method_stale(monkeypatch):
    """The registry's entry of a method is part of its hash, and no part of another's."""
    before = {method: code.code_of_training(method) for method in ("iq", "csil")}
    changed = replace(METHODS["csil"], settings={"temperature": 2.0})
    monkeypatch.setitem(METHODS, "csil", changed)
    after = {method: code.code_of_training(method) for method in ("iq", "csil")}
    assert {method for method in before if before[method] != after[method]} == {"csil"}


def test_every_module_that_is_left_out_is_there():
    left_out = code.WITHOUT_RESULT | code.PEERS | code.ALL_PEERS
    assert [module for module in left_out if code._file(module) is None] == []
