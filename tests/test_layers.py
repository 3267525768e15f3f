"""The layers: imports point down, heavy packages have one home each, and the command line starts light."""

import ast
import subprocess
import sys
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
    "baselines": {"training", "algorithms", "data", "config", "errors", "batch"},
    "evaluation": {"algorithms", "data", "config", "errors", "batch", "paths"},
    "export": {"algorithms", "config", "errors"},
    # A run's metrics in MLflow have the names and the values of the report's columns.
    "tracking": {"report", "export", "training", "data", "config", "credentials", "errors", "paths"},
    "report": {"training", "evaluation", "data", "config", "errors", "paths", "methods"},
    "methods": set(),
    "stages": {
        *{"report", "tracking", "export", "evaluation", "baselines", "training", "algorithms", "data"},
        *{"config", "credentials", "errors", "batch", "paths", "pipeline", "tabular", "command_server", "methods"},
    },
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
    "PIL": {"data/formats"},
    "requests": {"data/remotes"},
    "huggingface_hub": {"data/remotes"},
    "xxhash": {"data/identity.py"},
    "matplotlib": {"report"},
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


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE or not file.stem.startswith("__"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_import_points_up(file: Path):
    layer = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    used = {name.split(".")[1] for name in imports(file) if name.startswith("iq_offline.")}
    assert used - {layer, "__version__"} <= MAY_IMPORT[layer]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_heavy_packages_stay_at_home(file: Path):
    where = file.relative_to(PACKAGE).as_posix()
    for name in imports(file):
        homes = HOMES.get(name.split(".")[0], {""})
        assert any(where.startswith(home) for home in homes), f"{where} imports {name}"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from iq_offline.cli import app; from typer.testing import CliRunner;"
        "result = CliRunner().invoke(app, ['--help']); assert result.exit_code == 0;"
        "print(sorted(set(sys.modules) & {'torch', 'mlflow', 'numpy', 'polars', 'h5py', 'gymnasium', 'pydantic'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
