"""Progress of a pipeline, from lines of Snakemake's log."""

import pytest

from iq_offline import console
from iq_offline.pipeline.progress import SnakemakeLog, duration

PLAN = """Job stats:
job        count
-------  -------
fetch          1
train          4
eval           4
all            1
total         10
"""


def begin(rule, job):
    return f"[Mon Jan  1 00:00:00 2026]\nrule {rule}:\n    output: x\n    jobid: {job}\n"


def end(rule, job):
    return f"[Mon Jan  1 00:00:00 2026]\nFinished jobid: {job} (Rule: {rule})\n1 of 10 steps (10%) done\n"


def read(log, text, now):
    for line in text.splitlines(keepends=True):
        log.read(line, now)


@pytest.fixture
def log():
    found = SnakemakeLog()
    read(found, PLAN + begin("fetch", 9), now=0.0)
    read(found, end("fetch", 9) + begin("train", 1) + begin("train", 2), now=1.0)
    return found


def test_stages_are_counted_in_order(log):
    """Stages have their finished and planned jobs, in the order of the plan, without the rule that asks for all."""
    assert log.progress(2.0).stages == {"fetch": (1, 1), "train": (0, 4), "eval": (0, 4)}
    assert list(log.progress(2.0).stages) == ["fetch", "train", "eval"]


def test_time_left_needs_a_finished_training(log):
    """Two trainings run side by side and take 100 s each: after the first pair, another pair is left."""
    assert log.progress(50.0).seconds_left is None
    read(log, end("train", 1) + begin("train", 3) + end("train", 2) + begin("train", 4), now=101.0)
    assert log.progress(101.0).seconds_left == pytest.approx(100.0)
    assert log.progress(141.0).seconds_left == pytest.approx(60.0)
    assert log.progress(141.0).text == "3 of 9 steps, train 2/4, about 60 s left"


def test_failed_jobs_name_their_logs(log):
    failure = "Error in rule train:\n    jobid: 1\n    log: logs/train/x.log (check log file(s) for error details)\n"
    read(log, failure + failure, now=5.0)
    assert log.failed_logs == ["logs/train/x.log"]
    assert log.progress(6.0).stages["train"] == (0, 4)


def test_unknown_lines_are_passed_over():
    log = SnakemakeLog()
    read(log, "Nothing to be done (all requested files are present and up to date).\nrule:\n    jobid: x\n", now=0.0)
    assert (log.planned, log.progress(0.0).text) == ({}, "0 of 0 steps")


@pytest.mark.parametrize(("seconds", "text"), [(40.4, "40 s"), (100, "2 min"), (12_000, "3 h 20 min")])
def test_durations_have_one_fitting_unit(seconds, text):
    assert duration(seconds) == text


def test_progress_lines_are_half_a_minute_apart(monkeypatch, capsys):
    """Without a terminal a line comes at once, then every 30 s where something has changed."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.stages("demo") as advance:
        for moment, done in ((0.0, 0), (10.0, 1), (31.0, 2), (62.0, 2)):
            now[0] = moment
            advance({"train": (done, 4)}, f"{done} of 4 steps")
    assert capsys.readouterr().err == "note: demo: 0 of 4 steps\nnote: demo: 2 of 4 steps\n"
