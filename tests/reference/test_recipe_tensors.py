"""Every recipe learns the recorded tensors, bit for bit: a change of structure changes no number.

`python tests/reference/test_recipe_tensors.py` records them anew; CHANGELOG.md names each change of a recipe's numbers.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests_support import linear_arrays, requested, tasks, write_hdf5

from iq_offline.stages.train import train_run

RECORD = Path(__file__).with_name("recipe_tensors.json")
RECIPES = ("bc", "iq", "iq-paper", "iq-cql", "iq-awr", "ls-iq", "csil", "recoil", "sprinql", "iq-mixture")
CASES = [
    (recipe, discrete, beside)
    for recipe in (*RECIPES, "iq+reward")
    for discrete in (False, True)
    for beside in (False, True)
    if not (recipe == "iq+reward" and discrete)
]

QUICK = {("bc", False, False), ("iq", False, False), ("iq", False, True), ("iq", True, True)}


def case_name(recipe: str, discrete: bool, beside: bool) -> str:
    return f"{recipe}, {'discrete' if discrete else 'continuous'}{', supplementary' if beside else ''}"


def surroundings() -> str:
    """What the bits depend on besides the code."""
    return f"torch {torch.__version__.partition('+')[0]}, {torch.backends.cpu.get_cpu_capability()}"


def learn(folder: Path, recipe: str, *, discrete: bool, beside: bool) -> dict[str, str]:
    """Hashes of the policy and the checkpoint after 200 updates of a small network."""
    linear = write_hdf5(folder / "linear.hdf5", linear_arrays())
    expert, other = tasks(folder, linear, discrete=discrete)
    method, _, preset = recipe.partition("+")
    overrides = ["batch_size=32", "hidden_sizes=[16,16]"]
    if method in ("iq", "csil", "iq-cql"):
        overrides += ["prior.updates=200", "prior.hidden_sizes=[16,16]"]
    run = train_run(
        *requested(
            str(expert),
            method,
            preset or None,
            demos=3,
            updates=200,
            supplementary=(str(other),) if beside else (),
            overrides=tuple(overrides),
            device="cpu",
            compile="off",
            out=folder / "run",
            tracked=False,
        ),
        lambda _: None,
        lambda _: None,
    )
    return {name: run.manifest[f"{name}_sha256"] for name in ("policy", "checkpoint")}


@pytest.mark.parametrize(
    ("recipe", "discrete", "beside"),
    [pytest.param(*case, id=case_name(*case), marks=() if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_recipe_tensors_stay_the_same(tmp_path: Path, recipe: str, discrete: bool, beside: bool):
    recorded: dict[str, Any] = json.loads(RECORD.read_text())
    if recorded["surroundings"] != surroundings():
        pytest.skip(f"recorded with {recorded['surroundings']}, here {surroundings()}")
    found = learn(tmp_path, recipe, discrete=discrete, beside=beside)
    assert found == recorded["tensors"][case_name(recipe, discrete, beside)]


def _recorded() -> Iterator[tuple[str, dict[str, str]]]:
    for recipe, discrete, beside in CASES:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["IQ_OFFLINE_HOME"] = f"{folder}/home"
            yield case_name(recipe, discrete, beside), learn(Path(folder), recipe, discrete=discrete, beside=beside)


if __name__ == "__main__":
    RECORD.write_text(json.dumps({"surroundings": surroundings(), "tensors": dict(_recorded())}, indent=1) + "\n")
