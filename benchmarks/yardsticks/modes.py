"""The ways to make updates: eager, compiled, as a CUDA graph, both, and several seeds at once."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from iq_offline.algorithms.learner import OwnLearner
from iq_offline.batch import Batch
from iq_offline.config.train import Compile
from iq_offline.training.compile.batched_seeds import BatchedSeeds, SeedSlot
from iq_offline.training.compile.compiled_steps import CompiledSteps
from iq_offline.training.compile.cuda_graph import CudaGraph
from iq_offline.training.compile.tracing import Function, Traceable, carried_count
from iq_offline.training.steps import Seconds, Steps, steps_of

Batches = Iterator[Batch]
Made = Callable[[], tuple[OwnLearner, Batches]]
"""A new learner and its batches."""
FOR_EVER = 10**9


class NotAvailable(Exception):
    """A way that this device does not have, and why."""


def eager(learner: OwnLearner) -> Steps:
    """As PyTorch runs them."""
    return Steps(learner)


def compiled(learner: OwnLearner) -> Steps:
    """Compiled, its kernels launched one by one."""

    def make(plan: Traceable) -> Function:
        trace = plan.trace()
        options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        function = torch.compile(trace.graph, fullgraph=True, dynamic=False, options=options)
        return lambda tensors: function(*tensors, *trace.constants)

    return CompiledSteps(learner, 1, make)


def graph(learner: OwnLearner) -> Steps:
    """Not compiled, captured as a CUDA graph."""

    def make(plan: Traceable) -> Function:
        if not plan.example.observations.is_cuda:
            raise NotAvailable("a CUDA graph needs CUDA")
        trace = plan.trace()
        return CudaGraph(lambda tensors: trace.graph(*tensors, *trace.constants), carried_count(plan.learner))

    return CompiledSteps(learner, 1, make, compiled=False)


def compile_on(learner: OwnLearner) -> Steps:
    """As `train --compile on` makes them: compiled, and on CUDA captured as a graph."""
    return steps_of(learner, FOR_EVER, Compile.ON)


def updates_a_second(made: Made, way: Callable[[OwnLearner], Steps], seconds: float, at_once: int) -> float:
    """Of one learner, once it is warm; `at_once`: updates between two waits for the device."""
    learner, batches = made()
    steps, spent = way(learner), Seconds()
    steps.advance(batches, at_once, spent)
    done, started, passed = 0, now(), 0.0
    while not done or passed < seconds:
        steps.advance(batches, at_once, spent)
        done += at_once
        passed = now() - started
    return done / passed


def together(made: list[Made], updates: int) -> float:
    """Updates a second of several learners whose updates are made as one, those of all of them added up."""
    seeds, start = BatchedSeeds(len(made)), threading.Barrier(len(made))
    learners = [make() for make in made]

    def train(number: int) -> tuple[float, float]:
        learner, batches = learners[number]
        try:
            steps = steps_of(learner, FOR_EVER, Compile.ON, SeedSlot(seeds, number))
            steps.advance(batches, updates, Seconds())
            start.wait()
            begun = now()
            steps.advance(batches, updates, Seconds())
            return begun, now()
        except BaseException:
            start.abort()
            raise
        finally:
            seeds.leave(number)

    with ThreadPoolExecutor(len(made)) as threads:
        spans = list(threads.map(train, range(len(made))))
    return len(made) * updates / (max(ended for _, ended in spans) - min(begun for begun, _ in spans))


def now() -> float:
    """The time at which the device has done what was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
