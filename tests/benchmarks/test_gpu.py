"""The benchmark of a GPU, rehearsed on the CPU: its parts end in time, and each failure is a row."""

import json
import os
import time

import pytest
import torch

from benchmarks import __main__ as entry
from benchmarks import gpu
from benchmarks.yardsticks import flops
from iq_offline.config.train import algorithm_config
from iq_offline.methods import METHODS

REHEARSAL = ["gpu", "--device", "cpu", "--quick"]


def rows_of(part, settings, monkeypatch, *, budget: float = 60.0) -> list[dict]:
    """The rows of a part: any function of its settings, run in a process of its own."""
    monkeypatch.setitem(gpu.PARTS, "tried", (part, budget))
    return gpu.measured("tried", settings, time.monotonic() + 100)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_it_says_how_to_rehearse(capsys):
    """Without CUDA the exit status is 2, and the remedy is a command that is accepted."""
    assert entry.main(["gpu"]) == 2
    assert "--device cpu --quick" in capsys.readouterr().err


def test_part_over_its_time_is_a_row(monkeypatch):
    """A part that takes too long is ended, and its row says so."""
    started = time.monotonic()
    assert rows_of(time.sleep, 300, monkeypatch, budget=1.0) == [
        {"part": "tried", "what": "tried", "failed": "not done after 1 seconds"}
    ]
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_failed_part_is_a_row(monkeypatch):
    """A part that raises, or whose process ends, is a row with the reason."""
    (raised,) = rows_of(float, "many", monkeypatch)
    assert raised["failed"] == "ValueError: could not convert string to float: 'many'"
    (ended,) = rows_of(os._exit, 3, monkeypatch)
    assert ended["failed"] == "its process ended with status 3"


def test_no_time_left_is_a_row():
    """Behind the end of the whole time no part begins."""
    (row,) = gpu.measured("limits", gpu.Settings("cpu", quick=True), time.monotonic() - 1)
    assert row["failed"] == "no time was left"


def test_shares_are_of_the_measured_rates():
    """Updates a second times an update's operations, over the rate of a large product; likewise its bytes."""
    rows = [
        {"part": "limits", "what": gpu.PRODUCTS, "how": "float32", "gflop_per_second": 100.0},
        {"part": "limits", "what": gpu.MEMORY, "how": "float32", "gigabytes_per_second": 10.0},
        {"what": "iq", "how": "eager", "updates_per_second": 50.0, "mflop": 1000.0, "megabytes": 20.0},
        {"what": "bc", "how": "eager", "failed": "no"},
    ]
    gpu.beside_the_limits(rows)
    assert rows[2]["share_of_products"] == pytest.approx(0.5)
    assert rows[2]["share_of_memory"] == pytest.approx(0.1)


def test_bytes_of_an_update_by_hand():
    """The bytes of cloning: three products a layer but the first, which has two, and Adam's state."""
    layers = [(17, 256), (256, 256), (256, 6)]
    each = [256 * m + m * n + 256 * n for m, n in layers]
    assert sum(flops.bc(flops.megabytes).values()) == pytest.approx(4e-6 * (3 * sum(each) - each[0]))
    parameters = sum((m + 1) * n for m, n in layers)
    assert flops.state_megabytes([flops.ACTOR], [flops.ACTOR]) == pytest.approx(4e-6 * 10 * parameters)


def test_difference_is_relative_to_the_weights():
    one = torch.tensor([3.0, 4.0])
    assert gpu.relative(one, one) == 0
    assert gpu.relative(one + torch.tensor([0.0, 0.5]), one) == pytest.approx(0.1)
    assert gpu.relative(one, torch.tensor([float("nan"), 4.0])) == float("inf")


@pytest.mark.parametrize("method", ["bc", "iq", "iq-online", "iq-mixture"])
def test_another_noise_is_another_update(method, monkeypatch):
    """The comparison is of whole updates: equal from the same data, and not with another noise or other batches."""
    discrete = METHODS[method].continuous is None
    config = gpu.small(method, ["hidden_sizes=[8]", "prior.hidden_sizes=[8]"], discrete=discrete)
    settings = gpu.Settings("cpu", quick=True)
    assert gpu.difference(config, settings, discrete=discrete)["equal"]
    seeds = iter(range(100))
    drawn = gpu.generator
    monkeypatch.setattr(gpu, "generator", lambda _, stream: drawn(next(seeds), stream))
    assert not gpu.difference(config, settings, discrete=discrete)["equal"]


def test_changes_are_those_that_the_method_has():
    assert gpu.small("bc", ["hidden_sizes=[8]", "prior.hidden_sizes=[8]"], discrete=False) == algorithm_config(
        "bc", discrete=False, overrides=["hidden_sizes=[8]"]
    )


@pytest.mark.slow
def test_rehearsal_compares_and_measures(tmp_path, capsys):
    """On the CPU: each method is equal, speeds have shares, and what needs CUDA is a row that says so."""
    file = tmp_path / "gpu.json"
    parts = ["limits", "equality", "eager", "graph", "seeds-1", "seeds-5"]
    assert entry.main([*REHEARSAL, "--json", str(file), "--only", *parts]) == 0
    rows = json.loads(file.read_text())["rows"]
    compared = [row["what"].split(",")[0] for row in rows if row.get("part") == "equality"]
    assert set(compared) == {name for name, method in METHODS.items() if name == "bc" or method.learns_reward}
    assert all(row["equal"] for row in rows if row.get("part") == "equality")
    eager = [row for row in rows if row.get("part") == "eager"]
    assert [row["what"] for row in eager] == list(gpu.COUNTED)
    assert all(0 < row["share_of_products"] < 2 for row in eager)
    assert all("needs CUDA" in row["failed"] for row in rows if row.get("part") == "graph")
    assert [row["seeds"] for row in rows if str(row.get("part")).startswith("seeds")] == [1, 1, 5, 5]
    table = capsys.readouterr().out.splitlines()
    assert len([line for line in table if line.startswith("|")]) == len(rows) + 2
