"""Updates as one compiled function, which carries what they change from call to call.

Compilers make mistakes: PyTorch 2.13's added up a scattered gradient wrongly, and a run of fifty thousand updates
diverged that is sound in eager mode. So the first call of every run is made in eager mode as well, and compared.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from iq_offline import paths
from iq_offline.algorithms.adam import Adam
from iq_offline.algorithms.learner import OwnLearner
from iq_offline.algorithms.losses import Metrics
from iq_offline.algorithms.noise import Draw, Drawn
from iq_offline.batch import Batch
from iq_offline.errors import CompilerFailed
from iq_offline.training.compile.aot_cache import cached_function
from iq_offline.training.compile.cuda_graph import CudaGraph
from iq_offline.training.compile.tracing import (
    Function,
    Traceable,
    batch_tensors,
    by_part,
    carried_by,
    carried_count,
    in_layout_of,
)
from iq_offline.training.steps import Seconds, Steps

LARGEST_DIFFERENCE = 0.02
"""Of an eager and a compiled gradient's average, relative, in the Euclidean norm: more is no rounding."""
NEGLIGIBLE = 1e-3
"""Share of the norm of all gradients below which one parameter's is rounding alone."""


class CompiledSteps(Steps):
    """Compiled updates of a learner, `count` a call; what is left over is made in eager mode. Compiles at first use.

    `make`: what else a trace becomes, and `compiled` whether that is compiled.
    """

    def __init__(
        self,
        learner: OwnLearner,
        count: int,
        make: Callable[[Traceable], Function] | None = None,
        *,
        compiled: bool = True,
    ) -> None:
        super().__init__(learner)
        self._own, self._count, self._make, self.compiled = learner, count, make, compiled
        self._function: Function | None = None
        self._carried: list[Tensor] = []
        self._checked = False

    def advance(self, batches: Iterator[Batch], count: int, seconds: Seconds) -> tuple[Metrics, Batch]:
        """Make `count` updates; returns the last one's metrics and batch. The learner then holds what it learnt.

        Raises CompilerFailed where the first call's results are not those of eager updates.
        """
        calls, left = divmod(count, self._count)
        for call in range(calls):
            started = time.perf_counter()
            several = list(islice(batches, self._count))
            drawn = time.perf_counter()
            function = self._function or self._compile(several[0])
            if call == 0:
                self._carried = carried_by(self._own)
            metrics, batch = self._update(function, several), several[-1]
            seconds.data += drawn - started
            seconds.step += time.perf_counter() - drawn
        if calls:
            self._store()
        return super().advance(batches, left, seconds) if left else (metrics, batch)

    def _compile(self, example: Batch) -> Function:
        """What the compiler makes is kept for later runs under the user's store."""
        plan = Traceable.of(self._own, example, self._count)
        self._names, self._asked = plan.dry_run()
        self._layout = batch_tensors(plan.example)
        self._function = (self._make or compiled_function)(plan)
        return self._function

    def _update(self, function: Function, batches: Sequence[Batch]) -> Metrics:
        tensors = [
            [in_layout_of(tensor, like) for tensor, like in zip(batch_tensors(batch), self._layout, strict=True)]
            for batch in batches
        ]
        noise = [[self._drawn(draw) for draw in self._asked] for _ in batches]
        scales = self._scales(len(batches))
        with torch.no_grad():
            results = function([*self._carried, *chain(*tensors), *chain(*noise), scales])
        carried, metrics = list(results[: len(self._carried)]), results[len(self._carried) :]
        if not self._checked:
            plan = Traceable.of(self._own, batches[0], self._count)
            self._compare(carried, plan.eagerly(self._carried, tensors, noise, scales)[0])
            self._checked = True
        for adam in self._own.adams:
            adam.count += self._count
        self._carried = carried
        return dict(zip(self._names, metrics, strict=True))

    @torch.no_grad()
    def _store(self) -> None:
        """Give the learner what has been carried."""
        for part, carried in zip(self._own.changed, by_part(self._own, self._carried), strict=True):
            for own, tensor in zip(part.pieces(), carried, strict=True):
                own.copy_(tensor)

    def _compare(self, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """By Adam's averages of gradients: a parameter's own first step is as large however small its gradient is."""
        compiled, eager = self._averages(found), self._averages(expected)
        everything = torch.stack([tensor.norm() for tensor in eager]).norm()
        for one, other in zip(compiled, eager, strict=True):
            apart = float((one - other).norm() / (other.norm() + NEGLIGIBLE * everything))
            if not apart <= LARGEST_DIFFERENCE:  # nor where it is no number
                raise CompilerFailed(
                    f"compiled updates are not the eager ones: a gradient of shape {tuple(other.shape)} is "
                    f"{apart:.0%} off",
                    "train without: --compile off",
                )

    def _averages(self, carried: Sequence[Tensor]) -> list[Tensor]:
        """The first moments of each Adam, which lie between its parameters and its second moments."""
        parts = zip(self._own.changed, by_part(self._own, carried), strict=True)
        adams = [tensors for part, tensors in parts if isinstance(part, Adam)]
        return [average for tensors in adams for average in tensors[len(tensors) // 3 : 2 * len(tensors) // 3]]

    def _drawn(self, draw: Draw) -> Tensor:
        assert isinstance(self._own.noise, Drawn)
        return self._own.noise.draw(draw)

    def _scales(self, count: int) -> Tensor:
        adams = self._own.adams
        numbers = [[adam.scale_at(adam.count + later).numbers() for adam in adams] for later in range(1, count + 1)]
        return torch.tensor(numbers, device=self._layout[0].device)


def compiled_function(plan: Traceable) -> Function:
    """The compiled function: on a CPU made by a process of its own, so that the compiler's memory is not the run's.

    On CUDA it is captured as a graph: what it returns is overwritten by the next call.
    """
    if not plan.example.observations.is_cuda:
        return cached_function(plan)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(paths.home() / "compiled"))
    trace = plan.trace()
    options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    function = torch.compile(trace.graph, fullgraph=True, dynamic=False, options=options)
    return CudaGraph(lambda tensors: function(*tensors, *trace.constants), carried_count(plan.learner))
