"""Many updates at once: in eager mode, or compiled where that pays."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from iq_offline.algorithms.learner import Learner, OwnLearner
from iq_offline.algorithms.losses import Metrics
from iq_offline.batch import Batch
from iq_offline.config.train import Compile
from iq_offline.errors import ConfigError

if TYPE_CHECKING:
    from iq_offline.training.compile.batched_seeds import SeedSlot

SMALL_PARAMETERS = 20_000
"""A learner with at most so many learns faster than it is called: several of its updates are compiled into one."""
UNROLLED = 8
"""Updates a call of a small learner."""
PAYS_FROM = {False: 10_000, True: 40_000}
"""Updates from which compiling is about won back, of large and of small learners: an estimate, not a measurement."""


@dataclass
class Seconds:
    """Wall-clock time of a run's parts, since it was last read."""

    data: float = 0.0
    step: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def spent(self, updates: int, other: Mapping[str, float]) -> dict[str, float]:
        """Updates a second of all the time, and the seconds of each part. `other`: figures of other parts."""
        total = time.perf_counter() - self.started
        rest = sum(value for name, value in other.items() if name.endswith("_seconds"))
        return {
            "updates_per_second": updates / total,
            "data_seconds": self.data,
            "step_seconds": self.step,
            "logging_seconds": total - self.data - self.step - rest,
            **other,
        }


class Steps:
    """Updates of a learner, one after the other, in eager mode."""

    compiled = False

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def advance(self, batches: Iterator[Batch], count: int, seconds: Seconds) -> tuple[Metrics, Batch]:
        """Make `count` updates; returns the last one's metrics and batch. The learner then holds what it learnt."""
        for _ in range(count):
            started = time.perf_counter()
            batch = next(batches)
            drawn = time.perf_counter()
            metrics = self._learner.update(batch)
            seconds.data += drawn - started
            seconds.step += time.perf_counter() - drawn
        return metrics, batch


def steps_of(learner: Learner, updates: int, compile_: Compile, slot: "SeedSlot | None" = None) -> Steps:
    """How `updates` updates of this learner are made. A function of these alone and of whether a compiler is there.

    `slot`: its place among seeds that are batched into one process.
    Raises ConfigError where compiling is asked for and cannot be.
    """
    if not isinstance(learner, OwnLearner):
        if compile_ is Compile.ON:
            raise ConfigError("--compile on: this method is trained by another library", "leave --compile out")
        return Steps(learner)
    small = sum(piece.numel() for adam in learner.adams for piece in adam.leaves()) <= SMALL_PARAMETERS
    if compile_ is Compile.ON and not _has_compiler():
        raise ConfigError("--compile on: there is no C++ compiler here", "install g++ (or set CXX), or --compile off")
    pays = compile_ is Compile.AUTO and updates >= PAYS_FROM[small] and _has_compiler()
    compiling = compile_ is Compile.ON or pays
    if slot is None and not compiling:
        return Steps(learner)
    from iq_offline.training.compile.compiled_steps import CompiledSteps  # tracing takes long to import

    count = UNROLLED if small else 1
    if slot is None:
        return CompiledSteps(learner, count)
    compiling = compiling and learner.adams[0].leaves()[0].is_cuda
    return CompiledSteps(learner, count, slot.maker(compiling=compiling), compiled=compiling)


def _has_compiler() -> bool:
    return shutil.which(os.environ.get("CXX", "g++")) is not None
