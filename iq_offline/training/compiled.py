"""Updates as one compiled function, which carries what they change from call to call.

Compilers make mistakes: PyTorch 2.13's added up a scattered gradient wrongly, and a run of fifty thousand updates came
apart that is sound in eager mode. So the first call of every run is made in eager mode as well, and compared.
"""

import os
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from iq_offline import paths
from iq_offline.algorithms.adam import Adam
from iq_offline.algorithms.learner import Metrics, OwnLearner
from iq_offline.algorithms.noise import Drawn
from iq_offline.batch import Batch
from iq_offline.errors import CompilerFailed
from iq_offline.training.ahead import compiled_ahead
from iq_offline.training.captured import Captured, Function
from iq_offline.training.traced import (
    Traceable,
    batch_tensors,
    carried_by,
    carried_sizes,
    in_layout_of,
    parts_of,
)

APART = 0.02
"""Relative difference, in the Euclidean norm, of an eager and a compiled gradient's average that is no rounding."""
NEGLIGIBLE = 1e-3
"""Share of the norm of all gradients below which one parameter's is rounding alone."""


class CompiledUpdates:
    """`count` updates of a learner a call. What they change is carried along, and given back by `store`."""

    def __init__(
        self, learner: OwnLearner, example: Batch, count: int, make: Callable[[Traceable], Function] | None = None
    ) -> None:
        self._learner, self.count = learner, count
        plan = Traceable.of(learner, example, count)
        self._names, self._asked = plan.dry_run()
        self._sizes = carried_sizes(learner)
        self._layout = batch_tensors(plan.example)
        self._function = (make or compiled)(plan)
        self._carried = carried_by(learner)
        self._checked = False

    def update(self, batches: Sequence[Batch]) -> Metrics:
        """One update on each of `count` batches; returns the last one's metrics.

        Raises CompilerFailed where the first call's results are not those of eager updates.
        """
        tensors = [
            [in_layout_of(tensor, like) for tensor, like in zip(batch_tensors(batch), self._layout, strict=True)]
            for batch in batches
        ]
        noise = [self._drawn() for _ in batches]
        scales = self._scales(len(batches))
        with torch.no_grad():
            results = self._function([*self._carried, *chain(*tensors), *chain(*noise), scales])
        carried, metrics = list(results[: sum(self._sizes)]), results[sum(self._sizes) :]
        if not self._checked:
            plan = Traceable.of(self._learner, batches[0], self.count)
            self._compare(carried, plan.eagerly(self._carried, tensors, noise, scales)[0])
            self._checked = True
        for adam in self._learner.adams:
            adam.count += self.count
        self._carried = carried
        return dict(zip(self._names, metrics, strict=True))

    @torch.no_grad()
    def store(self) -> None:
        """Give the learner what has been carried."""
        for part, carried in zip(self._learner.changed, parts_of(self._carried, self._sizes), strict=True):
            for own, tensor in zip(part.pieces(), carried, strict=True):
                own.copy_(tensor)

    def fetch(self) -> None:
        """Carry on from what the learner holds."""
        self._carried = carried_by(self._learner)

    def _compare(self, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """By Adam's averages of gradients: a parameter's own first step is as large however small its gradient is."""
        ours, theirs = self._averages(found), self._averages(expected)
        everything = torch.stack([tensor.norm() for tensor in theirs]).norm()
        for one, other in zip(ours, theirs, strict=True):
            apart = float((one - other).norm() / (other.norm() + NEGLIGIBLE * everything))
            if not apart <= APART:  # nor where it is no number
                raise CompilerFailed(
                    f"compiled updates are not the eager ones: a gradient of shape {tuple(other.shape)} is "
                    f"{apart:.0%} off",
                    "train without: --compile off",
                )

    def _averages(self, carried: Sequence[Tensor]) -> list[Tensor]:
        parts = zip(self._learner.changed, parts_of(carried, self._sizes), strict=True)
        return [
            average
            for part, tensors in parts
            if isinstance(part, Adam)
            for average in tensors[len(tensors) // 3 : 2 * len(tensors) // 3]
        ]

    def _drawn(self) -> list[Tensor]:
        if not self._asked:
            return []
        noise = self._learner.noise
        assert isinstance(noise, Drawn)
        return [noise.draw(draw) for draw in self._asked]

    def _scales(self, count: int) -> Tensor:
        adams = self._learner.adams
        numbers = [[adam.scale_at(adam.count + later).numbers() for adam in adams] for later in range(1, count + 1)]
        return torch.tensor(numbers, device=self._layout[0].device)


def compiled(plan: Traceable) -> Function:
    """The compiled function: on a CPU made by a process of its own, so that the compiler's memory is not the run's.

    On CUDA it is captured as a graph: what it returns is overwritten by the next call.
    """
    if not plan.example.observations.is_cuda:
        return compiled_ahead(plan)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(paths.home() / "compiled"))
    trace, carried = plan.trace(), sum(carried_sizes(plan.learner))
    options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    function = torch.compile(trace.graph, fullgraph=True, dynamic=False, options=options)
    return Captured(lambda tensors: function(*tensors, *trace.held), carried)
