"""The layers: imports point down, heavy packages have one home each, and the command line starts light."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "iq_offline"
MAY_IMPORT = {
    "credentials": set(),
    "errors": {"credentials"},
    "batch": set(),
    "paths": set(),
    "console": {"credentials"},
    "config": {"credentials", "errors", "methods"},
    "algorithms": {"config", "errors", "batch"},
    "data": {"config", "credentials", "errors", "batch", "paths"},
    "training": {"algorithms", "data", "config", "errors", "batch", "paths", "methods"},
    "tabular": set(),
    "pipeline": {"config", "credentials", "errors", "paths", "methods"},
    "baselines": {"training", "algorithms", "data", "config", "errors", "batch", "methods"},
    "interaction": {"training", "evaluation", "algorithms", "data", "config", "errors", "batch"},
    "evaluation": {"algorithms", "data", "config", "errors", "batch", "paths"},
    "export": {"algorithms", "config", "errors"},
    # A run's metrics in MLflow have the names and the values of the report's columns.
    "tracking": {"report", "export", "training", "data", "config", "credentials", "errors", "paths"},
    "report": {"training", "evaluation", "data", "config", "errors", "paths", "methods"},
    "methods": set(),
    "stages": {
        *{"report", "tracking", "export", "evaluation", "interaction", "baselines", "training", "algorithms", "data"},
        *{"config", "credentials", "errors", "batch", "paths", "pipeline", "tabular", "command_server", "methods"},
    },
    "api": {"stages", "report", "evaluation", "training", "data", "console", "errors"},
    "commands": {"stages", "training", "tracking", "data", "console", "errors", "methods"},
    "cli": {"commands", "console", "errors"},
    "command_server": {"cli", "tracking"},
}
HOMES = {
    "mlflow": {"tracking/mlflow_"},
    "gymnasium": {"data/environments.py"},
    "mujoco": {"data/environments.py"},
    "h5py": {"data/formats"},
    "pyarrow": {"data/formats"},
    "PIL": {"data/formats", "evaluation"},
    "cv2": {"data/frames.py"},
    "requests": {"data/remotes"},
    "huggingface_hub": {"data/remotes"},
    "xxhash": {"data/identity.py"},
    "matplotlib": {"report", "api.py"},
    "jinja2": {"report"},
    "yaml": {"pipeline"},
    "d3rlpy": {"baselines/d3rlpy_adapter.py"},
    "ot": {"baselines"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "onnxscript": {"export"},
    "torch": {
        "algorithms",
        "baselines",
        "interaction",
        "training",
        "export",
        "tracking/iq_offline_policy.py",
        "evaluation/actor.py",
        "stages",
        "batch.py",
    },
}


def imports(file: Path) -> set[str]:
    """Dotted names that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = {
    file.relative_to(PACKAGE).as_posix(): imports(file)
    for file in sorted(PACKAGE.rglob("*.py"))
    if file.parent != PACKAGE or not file.stem.startswith("__")
}


def upward_imports(file: str, names: set[str]) -> set[str]:
    layer = file.split("/")[0].removesuffix(".py")
    used = {name.split(".")[1] for name in names if name.startswith("iq_offline.")}
    return used - {layer, "__version__"} - MAY_IMPORT[layer]


def heavy_imports(file: str, names: set[str]) -> set[str]:
    return {name for name in names if not file.startswith(tuple(HOMES.get(name.split(".")[0], {""})))}


@pytest.mark.parametrize("misplaced", [upward_imports, heavy_imports])
def test_imports_keep_to_the_layers(misplaced: Callable[[str, set[str]], set[str]]):
    """No package imports from one above it, and each heavy package is imported only at its home."""
    found = {file: misplaced(file, names) for file, names in FILES.items()}
    assert {file: names for file, names in found.items() if names} == {}


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from iq_offline.cli import app; from typer.testing import CliRunner;"
        "result = CliRunner().invoke(app, ['--help']); assert result.exit_code == 0;"
        "print(sorted(set(sys.modules) & {'torch', 'mlflow', 'numpy', 'polars', 'h5py', 'gymnasium', 'pydantic'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_names_of_tests_have_eight_words_at_most():
    """A test's name is its subject and the expected behaviour; the full claim is in its docstring."""
    trees = [ast.parse(file.read_text()) for file in Path(__file__).parent.rglob("test_*.py")]
    names = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert {name for name in names if name.startswith("test_") and name.count("_") > 8} == set()
