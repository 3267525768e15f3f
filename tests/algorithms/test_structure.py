"""A method is a file: IQ-Learn's names no other method, and needs little to be read."""

import ast
import re
from pathlib import Path

import pytest

from iq_offline.methods import METHODS

PACKAGE = Path(__file__).parents[2] / "iq_offline"
MOST_FILES, MOST_LINES = 12, 1500


def module_file(name: str) -> Path | None:
    """The file of a module of the package, none for a package's own."""
    file = PACKAGE.parent / f"{name.replace('.', '/')}.py"
    return file if file.is_file() else None


def imported(file: Path) -> set[Path]:
    """Files of the package that a file imports on its module level."""
    found: set[Path] = set()
    for node in ast.parse(file.read_text()).body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {other for name in names if name.startswith("iq_offline") and (other := module_file(name))}
    return found


def closure(start: Path) -> set[Path]:
    """That file and all that are imported, however far."""
    reached, waiting = {start}, [start]
    while waiting:
        new = imported(waiting.pop()) - reached
        reached |= new
        waiting += new
    return reached


@pytest.mark.parametrize("file", ["iq.py", "iq_discrete.py"])
def test_iq_files_name_no_other_method(file: str):
    """Nor another method's module."""
    text = (PACKAGE / "algorithms" / file).read_text()
    names = {*METHODS, *(name.replace("-", "_") for name in METHODS)} - {"iq"}
    assert not [name for name in names if re.search(rf"\b{name}\b", text, re.IGNORECASE)]
    assert len(text.splitlines()) <= 150


def test_reading_iq_takes_few_files():
    """What `algorithms/iq.py` imports within the package, and what that imports in turn."""
    files = closure(PACKAGE / "algorithms" / "iq.py")
    lines = {file.relative_to(PACKAGE).as_posix(): len(file.read_text().splitlines()) for file in files}
    assert len(lines) <= MOST_FILES, sorted(lines)
    assert sum(lines.values()) <= MOST_LINES, lines
