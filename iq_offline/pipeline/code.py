"""Which code a stage's result depends on, as one hash: what changes it makes results stale.

From the stage's own file imports are followed through the package, up to what bears on no result. Comments, docstrings
and layout count for nothing; neither do the versions of other packages, which a run's manifest records instead.
"""

import ast
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import iq_offline
from iq_offline import paths
from iq_offline.config.cloning import BCConfig
from iq_offline.config.online import InteractionConfig
from iq_offline.config.train import algorithm_class, method_of

ROOT = Path(iq_offline.__file__).parent
WITHOUT_RESULT = frozenset(
    f"iq_offline.{name}"
    for name in (
        *("api", "errors", "paths", "console", "tracking", "methods"),
        *("stages.fetch", "data.download", "data.fetched", "data.remotes"),
    )
)
"""Modules and packages that bring data or tell of them, and change no number."""
IMPORT = re.compile(r"^[ \t]*from (iq_offline[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)
ALL_PEERS = frozenset({"iq_offline.baselines"})
PEERS = frozenset({"iq_offline.baselines.fit"})
"""The peers' own training. IQ-Learn reaches the rest: its prior may take more demonstrations, as `filtered-bc` does."""

ACTING = frozenset({"iq_offline.interaction"})
"""Read by methods that act in an environment."""


def code_of_stage(stage: str) -> str:
    """Of `convert`, `eval`, `reward` or `report`."""
    return _hash([f"iq_offline.stages.{stage}"], WITHOUT_RESULT)


def code_of_training(method: str, preset: str | None = None) -> str:
    """Of `train` with a method: its entry in the registry, and not the files of other methods; a preset's values."""
    entry = method_of(method)
    kinds = [kind for kind in (entry.continuous, entry.discrete) if kind is not None]
    own = {reference.partition(":")[0] for kind in kinds for reference in (kind.config, kind.learner) if reference}
    if issubclass(algorithm_class(method, discrete=False), BCConfig):
        others = ALL_PEERS
    else:
        others = PEERS if any(kind.learner for kind in kinds) else frozenset()
    if not issubclass(algorithm_class(method, discrete=False), InteractionConfig):
        others |= ACTING
    code = _hash(["iq_offline.stages.train", *sorted(own)], WITHOUT_RESULT | others)
    values = [repr(entry), *([] if preset is None else _preset(preset))]
    return hashlib.sha256("\n".join([code, *values]).encode()).hexdigest()[:12]


def modules_behind(roots: Iterable[str], stops: frozenset[str]) -> set[str]:
    """The package's modules that the roots import, directly or not, and not through one of `stops`."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in found or any(module == stop or module.startswith(f"{stop}.") for stop in stops):
            continue
        found.add(module)
        waiting += [*_imports(module), *(package for package in [module.rpartition(".")[0]] if package)]
    return found


def _hash(roots: list[str], stops: frozenset[str]) -> str:
    digest = hashlib.sha256()
    for module in sorted(modules_behind(roots, stops)):
        digest.update(f"{module}\n{_statements(module)}\n".encode())
    return digest.hexdigest()[:12]


@cache
def _source(module: str) -> str:
    file = _file(module)
    assert file is not None
    return file.read_text()


@cache
def _imports(module: str) -> tuple[str, ...]:
    """Modules of the package that a module imports, at its top or inside functions."""
    names: set[str] = set()
    for package, imported in IMPORT.findall(_source(module)):
        names |= {package, *(f"{package}.{name}" for name in re.findall(r"\w+", imported))}
    return tuple(sorted(name for name in names if _file(name) is not None))


@cache
def _statements(module: str) -> str:
    """A module's code without comments and docstrings, and the templates beside it that it names."""
    tree = ast.parse(_source(module))
    _drop_texts(tree)
    file = _file(module)
    assert file is not None
    templates = [template for template in sorted(file.parent.glob("*.j2")) if template.name in _source(module)]
    return "\n".join([ast.unparse(tree), *(template.read_text() for template in templates)])


def _drop_texts(block: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    block.body = [item for item in block.body if not _is_text(item)] or [ast.Pass()]
    for item in block.body:
        if isinstance(item, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_texts(item)


def _is_text(item: ast.stmt) -> bool:
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)


def _file(module: str) -> Path | None:
    """The file of a module of this package; None for a name that is none."""
    first, *rest = module.split(".")
    if first != ROOT.name:
        return None
    path = ROOT.joinpath(*rest)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file if file.is_file() else None


def _preset(name: str) -> list[str]:
    file = Path(name) if name.endswith(".toml") else paths.shipped("pipelines") / "presets" / f"{name}.toml"
    return [file.read_text()] if file.is_file() else []
