"""The speed benchmark measures like with like: the yardsticks compute what ours computes, and the counts add up."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.processes import importable
from benchmarks.speed import check
from benchmarks.yardsticks import eager, flops, tables


def test_plain_loops_make_our_updates():
    """From the same weights, batches and noise, the plain loops make our updates."""
    with check.double_precision():
        own, plain, given = check.continuous_updates()
        discrete = check.discrete_updates()
    moved = {name: float((own[name] - given[name]).abs().max()) for name in own.keys() & given.keys()}
    assert len(moved) == 5 * 6
    assert min(moved.values()) > 1e-6
    assert check.difference(own, plain) < check.TOLERANCE
    assert check.difference(*discrete) < check.TOLERANCE
    assert torch.get_default_dtype() is torch.float32


def test_another_width_of_the_policy_is_another_update(monkeypatch):
    monkeypatch.setattr(eager, "STD", 0.14)
    with check.double_precision():
        own, plain, _ = check.continuous_updates()
    assert check.difference(own, plain) > 1e-5


def test_operations_of_an_update_by_hand():
    """The operations of an update are those counted by hand."""
    critic, actor = 2 * (23 * 256 + 256 * 256 + 256), 2 * (17 * 256 + 256 * 256 + 256 * 6)
    hidden, to_action = 2 * (256 * 256 + 256), 2 * 6 * 256
    expected = 2 * 512 * (2 * critic + hidden) + 2 * 256 * critic + 512 * actor
    expected += 2 * 256 * (critic + hidden + to_action) + 256 * (actor + 2 * (256 * 256 + 256 * 6))
    assert sum(flops.iq().values()) == pytest.approx(expected / 1e6)
    assert sum(flops.bc().values()) == pytest.approx(256 * (2 * actor + 2 * (256 * 256 + 256 * 6)) / 1e6)


def test_ratio_is_the_median_over_rounds():
    """A ratio is the median of the rounds' own ratios."""
    speeds = [(10, 1), (30, 10), (1, 1)]
    rounds = [
        {
            "ours-bc": {"updates": ours, "cpu_seconds": 1.0, "loss": 0.0},
            "d3rlpy-bc": {"updates": 2 * peer, "cpu_seconds": 2.0, "loss": 0.0},
        }
        for ours, peer in speeds
    ]
    (line,) = [line for line in tables.ratios(["ours-bc", "d3rlpy-bc"], rounds).splitlines() if "d3rlpy-bc" in line]
    assert "| 3.00 (1.00-10.00) | 4.0, missed |" in line


def test_worker_answers_in_json():
    """A worker answers in JSON, whatever else is printed."""
    code = (
        "from benchmarks.yardsticks.worker import counted, serve\n"
        "def updates(count):\n"
        "    print('a greeting', count, flush=True)\n"
        "    return 0.5\n"
        "serve(lambda: counted(updates, 3))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        input="go 0\n",
        env=importable({}),
        capture_output=True,
        text=True,
        check=True,
    )
    ready, answer = map(json.loads, result.stdout.splitlines())
    assert ready == {"ready": True}
    assert (answer["updates"], answer["loss"]) == (3, 0.5)
    assert "a greeting 3" in result.stderr
