"""How far a pipeline is, and which of its jobs failed: read from Snakemake's log, line by line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

TRAINING = ("train", "outcome")
"""The stages that take most of the time."""
COUNT = re.compile(r"^(\w+) +(\d+)$")
BEGUN = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
JOB = re.compile(r"^ +jobid: (\d+)$")
FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)$")
FAILED = re.compile(r"^Error in rule (\w+)")
JOB_LOG = re.compile(r"^ +log: (.+?) \(check log file")


@dataclass(frozen=True)
class PipelineProgress:
    """The stages that are to be run, with the number of finished jobs and of all, and the seconds that are left."""

    stages: Mapping[str, tuple[int, int]]
    seconds_left: float | None
    """None until a job of the stage that takes longest has finished."""

    @property
    def text(self) -> str:
        """In one line: the stages that have begun and not ended."""
        running = [f"{name} {done}/{total}" for name, (done, total) in self.stages.items() if 0 < done < total]
        done, total = (sum(counts) for counts in zip(*self.stages.values(), strict=True)) if self.stages else (0, 0)
        left = "" if self.seconds_left is None else f"about {duration(self.seconds_left)} left"
        return ", ".join(filter(None, (f"{done} of {total} steps", *running, left)))


def duration(seconds: float) -> str:
    """A time in the unit that fits: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@dataclass
class SnakemakeLog:
    """What has been read of a log so far. Lines of another form are passed over."""

    planned: dict[str, int] = field(default_factory=dict)
    """Jobs by rule, in the order of Snakemake's table."""
    done: dict[str, int] = field(default_factory=dict)
    failed_logs: list[str] = field(default_factory=list)
    """Of jobs that failed, relative to the working folder."""
    _began: dict[str, float] = field(default_factory=dict)
    _rule_of: dict[str, str] = field(default_factory=dict)
    _seconds: dict[str, list[float]] = field(default_factory=dict)
    _rule: str | None = None
    _counting: bool = False
    _failing: bool = False

    def read(self, line: str, now: float) -> None:
        """Count a line, read at that moment in seconds."""
        line = line.rstrip("\n")
        if line == "Job stats:":
            self._counting = True
        elif self._counting:
            self._count(line)
        elif begun := BEGUN.match(line):
            self._rule, self._failing = begun[1], False
        elif FAILED.match(line):
            self._rule, self._failing = None, True
        elif (job := JOB.match(line)) and self._rule:
            self._began[job[1]], self._rule_of[job[1]], self._rule = now, self._rule, None
        elif ended := FINISHED.match(line):
            self._finish(ended[1], ended[2], now)
        elif self._failing and (log := JOB_LOG.match(line)) and log[1] not in self.failed_logs:
            self.failed_logs.append(log[1])

    def progress(self, now: float) -> PipelineProgress:
        """At that moment in seconds."""
        stages = {rule: (self.done.get(rule, 0), total) for rule, total in self.planned.items()}
        return PipelineProgress(stages, self._seconds_left(now))

    def _count(self, line: str) -> None:
        counted = COUNT.match(line)
        if counted and counted[1] == "total":
            self._counting = False
        elif counted and counted[1] != "all":
            self.planned[counted[1]] = int(counted[2])

    def _finish(self, job: str, rule: str, now: float) -> None:
        self.done[rule] = self.done.get(rule, 0) + 1
        self._rule_of.pop(job, None)
        if job in self._began:
            self._seconds.setdefault(rule, []).append(now - self._began.pop(job))

    def _seconds_left(self, now: float) -> float | None:
        """Of all jobs to come, as long as those of their stage before, as many at once as now."""
        slow = [rule for rule in TRAINING if self.done.get(rule, 0) < self.planned.get(rule, 0)]
        if not self.planned or any(rule not in self._seconds for rule in slow):
            return None
        means = {rule: sum(taken) / len(taken) for rule, taken in self._seconds.items()}
        work = sum(means.get(rule, 0.0) * (total - self.done.get(rule, 0)) for rule, total in self.planned.items())
        spent = sum(min(now - self._began[job], means.get(rule, 0.0)) for job, rule in self._rule_of.items())
        return (work - spent) / max(1, len(self._rule_of))
