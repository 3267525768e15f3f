"""Many updates at once: in eager mode, or compiled where that pays."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from iq_offline.algorithms.learner import Learner, Metrics, OwnLearner
from iq_offline.batch import Batch
from iq_offline.config.train import Compile
from iq_offline.errors import ConfigError

if TYPE_CHECKING:
    from iq_offline.training.captured import Function
    from iq_offline.training.compiled import CompiledUpdates
    from iq_offline.training.together import Lane
    from iq_offline.training.traced import Traceable

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

    def spent(self, updates: int) -> dict[str, float]:
        """Updates a second of all the time, and the seconds of each part."""
        total = time.perf_counter() - self.started
        return {
            "updates_per_second": updates / total,
            "data_seconds": self.data,
            "step_seconds": self.step,
            "logging_seconds": total - self.data - self.step,
        }


class Steps(Protocol):
    """Makes updates of a learner."""

    compiled: bool

    def advance(self, batches: Iterator[Batch], count: int, seconds: Seconds) -> tuple[Metrics, Batch]:
        """Make `count` updates; returns the last one's metrics and batch. The learner then holds what it learnt."""
        ...


class EagerSteps:
    """One update after the other."""

    compiled = False

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def advance(self, batches: Iterator[Batch], count: int, seconds: Seconds) -> tuple[Metrics, Batch]:
        """Make `count` updates; returns the last one's metrics and batch."""
        for _ in range(count):
            started = time.perf_counter()
            batch = next(batches)
            drawn = time.perf_counter()
            metrics = self._learner.update(batch)
            seconds.data += drawn - started
            seconds.step += time.perf_counter() - drawn
        return metrics, batch


class CompiledSteps:
    """Compiled updates; what is left over of a count is made in eager mode. Compiles at its first call.

    `make`: what else a trace becomes, and `compiled` whether that is compiled.
    """

    def __init__(
        self,
        learner: OwnLearner,
        unrolled: int,
        make: "Callable[[Traceable], Function] | None" = None,
        *,
        compiled: bool = True,
    ) -> None:
        self._learner, self._unrolled, self._make = learner, unrolled, make
        self.compiled = compiled
        self._eager = EagerSteps(learner)
        self._updates: CompiledUpdates | None = None

    def advance(self, batches: Iterator[Batch], count: int, seconds: Seconds) -> tuple[Metrics, Batch]:
        """Make `count` updates; returns the last one's metrics and batch."""
        calls, left = divmod(count, self._unrolled)
        for call in range(calls):
            started = time.perf_counter()
            together = list(islice(batches, self._unrolled))
            drawn = time.perf_counter()
            if self._updates is None:
                self._updates = _compiled(self._learner, together[0], self._unrolled, self._make)
            elif call == 0:
                self._updates.fetch()
            metrics, batch = self._updates.update(together), together[-1]
            seconds.data += drawn - started
            seconds.step += time.perf_counter() - drawn
        if calls:
            assert self._updates is not None
            self._updates.store()
        return self._eager.advance(batches, left, seconds) if left else (metrics, batch)


def steps_of(learner: Learner, updates: int, compile_: Compile, lane: "Lane | None" = None) -> Steps:
    """How `updates` updates of this learner are made. A function of these alone and of whether a compiler is there.

    `lane`: its place among seeds that are updated together.
    Raises ConfigError where compiling is asked for and cannot be.
    """
    if not isinstance(learner, OwnLearner):
        if compile_ is Compile.ON:
            raise ConfigError("--compile on: this method is trained by another library", "leave --compile out")
        return EagerSteps(learner)
    small = sum(piece.numel() for adam in learner.adams for piece in adam.leaves()) <= SMALL_PARAMETERS
    if compile_ is Compile.ON and not _has_compiler():
        raise ConfigError("--compile on: there is no C++ compiler here", "install g++ (or set CXX), or --compile off")
    pays = compile_ is Compile.AUTO and updates >= PAYS_FROM[small] and _has_compiler()
    compiling = compile_ is Compile.ON or pays
    if lane is not None:
        compiling = compiling and learner.adams[0].leaves()[0].is_cuda
        return CompiledSteps(learner, UNROLLED if small else 1, lane.maker(compiling=compiling), compiled=compiling)
    if compiling:
        return CompiledSteps(learner, UNROLLED if small else 1)
    return EagerSteps(learner)


def _has_compiler() -> bool:
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def _compiled(
    learner: OwnLearner, example: Batch, unrolled: int, make: "Callable[[Traceable], Function] | None"
) -> "CompiledUpdates":
    """Compiled updates; what the compiler makes is kept for later runs under the user's store."""
    from iq_offline.training.compiled import CompiledUpdates

    return CompiledUpdates(learner, example, unrolled, make)
