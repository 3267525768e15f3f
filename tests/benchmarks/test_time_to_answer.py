"""Where the time to an answer goes: by stage, its parts adding up."""

import json

import pytest

from benchmarks import __main__ as entry
from benchmarks import time_to_answer
from benchmarks.overhead import watching


def test_side_by_side_jobs_cover_their_time_once():
    """The time in which some job runs: overlaps count once, gaps not at all."""
    assert time_to_answer.covered([(0.0, 2.0), (1.0, 3.0), (1.5, 1.6), (5.0, 6.0)]) == pytest.approx(4.0)
    assert time_to_answer.covered([]) == 0


def test_parts_of_a_stage_add_up():
    """The rest of a stage's seconds is what is neither computing, nor compiling, nor MLflow."""
    jobs = [{"job": "train", "begun": 1.0, "ended": 4.0}, {"job": "train", "begun": 2.0, "ended": 6.0}]
    lines = [{"stage": "train", "computing_seconds": 2.0, "compiling_seconds": 0.5, "mlflow_seconds": 1.0}] * 2
    row = time_to_answer.of_stage("train", [*jobs, {"job": "eval", "begun": 0.0, "ended": 9.0}], lines)
    assert row == {"stage": "train", "jobs": 2, "seconds": 7, "computing": 4, "compiling": 1, "mlflow": 2, "rest": 0}


def test_generator_counts_only_while_it_works(monkeypatch):
    """The clock of a generator stands still while its caller works, and nested calls count once."""
    monkeypatch.setattr(watching, "CLOCKS", watching.defaultdict(watching.Clock))
    now = iter(range(100))
    monkeypatch.setattr(watching.time, "perf_counter", lambda: next(now))
    inner = watching.timed("computing", lambda: None)

    def numbers():
        yield inner()
        yield inner()

    for _ in watching.timed("computing", numbers)():
        next(now)
    assert watching.CLOCKS["computing"].wall == 3


@pytest.mark.slow
def test_time_to_answer_tells_every_stage(tmp_path, capsys):
    """A tiny table, cold and warm: all stages and the UI are there, and the seconds add up."""
    file = tmp_path / "time.json"
    options = ["--seeds", "0", "--updates", "20", "--episodes", "1", "--cores", "1", "--json", str(file)]
    assert entry.main(["time-to-answer", *options]) == 0
    rows = json.loads(file.read_text())["rows"]
    stages = ["fetch", "convert", "train", "eval", "reward", "report", "no job", "ui answers", "all"]
    assert [(row["home"], row["stage"]) for row in rows] == [(home, s) for home in ("cold", "warm") for s in stages]
    for row in rows:
        assert sum(row.get(part, 0) for part in time_to_answer.PARTS) == pytest.approx(row["seconds"])
        assert row["rest"] >= 0
        if row["stage"] in ("train", "eval", "reward"):
            assert row["computing"] > 0
    assert "neither numerics nor simulation" in capsys.readouterr().out


@pytest.mark.slow
def test_pipeline_overhead_watches_its_jobs(tmp_path):
    """The work of each stage is found in the jobs of `iq-offline run`."""
    file = tmp_path / "overhead.json"
    options = ["--seeds", "0", "--updates", "20", "--cores", "1", "--json", str(file)]
    assert entry.main(["overhead", "pipeline", *options]) == 0
    found = {row["part"]: row["cpu_seconds"] for row in json.loads(file.read_text())["rows"]}
    assert 0 < found["the stages' work"] < found["whole"]
    assert found["MLflow"] > 0
