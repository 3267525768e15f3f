"""Damaged inputs at every door end in a result or in a refusal with a remedy; `make fuzz` tries thousands."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from fuzz import doors, mutations
from fuzz.doors import judge, plan

import iq_offline

ROOT = Path(iq_offline.__file__).parents[1]
INPUTS = 100


def fuzz(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "fuzz", "--out", str(tmp_path / "findings"), *arguments]
    return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_damaged_inputs_give_no_finding(tmp_path: Path):
    """The first hundred quick inputs of seed 0: no traceback, hang, signal, or result from damaged tensors."""
    done = fuzz(tmp_path, "--quick", "--inputs", str(INPUTS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(line.startswith("all ") for line in done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "finding"),
    [
        (0, '{"mean": 1.5}', "", None),
        (0, '{"mean": NaN}', "", "nan or inf in the result"),
        (0, "return nan ± nan", "", "nan or inf in the result"),
        (0, "note: truncations holds other values than 0 and 1: -inf at step 0", "", None),
        (0, '{"mean": 1.5', "", "the result is not JSON"),
        (2, "", "error: x.json is damaged\n  -> train the run again", None),
        (2, "", "error: x.json is damaged", "a refusal without a remedy"),
        (2, "", "Usage: iq-offline train\nNo such option", "a refusal without a remedy"),
        (1, "", "Traceback (most recent call last):\nKeyError: 'x'", "traceback"),
        (1, "", "", "exit 1"),
        (-11, "", "Fatal Python error: Segmentation fault", "signal 11"),
    ],
)
def test_ends_are_judged(status: int, stdout: str, stderr: str, finding: str | None):
    """Only a finite result, and a refusal with a remedy, are no findings."""
    assert judge("eval", status, False, stdout, stderr) == finding


def test_a_hang_is_a_finding():
    """Whatever a command that was killed after its time limit has printed."""
    assert judge("eval", 0, True, "", "") == "hang"


def test_plan_repeats_and_covers_every_door():
    """The same seed gives the same inputs; each door and each of its known commands is among 2,000."""
    inputs = plan(3, 2000)
    assert inputs == plan(3, 2000)
    assert {chosen.door for chosen in inputs} == set(doors.BY_NAME)
    assert abs(len(inputs) - 2000) < len(doors.DOORS)


@pytest.mark.parametrize("table", [mutations.BYTES, mutations.JSON, mutations.LINES])
def test_mutations_repeat_and_change_the_content(table: tuple[mutations.BytesMutation, ...]):
    """The same seed gives the same bytes; over seeds, each mutation changes a document."""
    document = b'{"a": {"b": [1, 2]},\n"c": "text",\n"d": 3}'
    for mutation in table:
        found = [mutation(document, Random(seed)) for seed in range(20)]
        assert found == [mutation(document, Random(seed)) for seed in range(20)]
        assert any(content != document for content in found), mutation.__name__
