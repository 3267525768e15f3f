"""Updates as one compiled function: the learner's own `update`, traced, so that losses are written once.

The trace is a pure function of all tensors that an update changes, its batches, its random numbers and Adam's scales.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from iq_offline.algorithms.adam import Scale
from iq_offline.algorithms.learner import Metrics, OwnLearner
from iq_offline.algorithms.noise import Draw, Drawn, Noted, Played
from iq_offline.batch import Batch


class CompiledUpdates:
    """`count` updates of a learner a call. What they change is carried along, and given back by `store`."""

    def __init__(self, learner: OwnLearner, example: Batch, count: int) -> None:
        self._learner, self.count = learner, count
        self._names, self._asked = _dry_run(learner, example)
        self._sizes = [len(part.pieces()) for part in learner.changed]
        self._carried = self._fetched()
        apart = [_batch(example, iter([tensor.clone() for tensor in _tensors(example)])) for _ in range(count)]
        zeros = [[torch.zeros(draw.shape, device=example.observations.device) for draw in self._asked] for _ in apart]
        # a tensor that came twice would be one input to the trace
        function = make_fx(self._traced(example))(*self._inputs(apart, zeros))
        options: dict[str, Any] = {"cpp_wrapper": True, "guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
        if example.observations.is_cuda:
            options["triton.cudagraphs"] = True
        self._compiled = torch.compile(function, fullgraph=True, dynamic=False, options=options)

    def update(self, batches: Sequence[Batch]) -> Metrics:
        """One update on each of `count` batches; returns the last one's metrics."""
        with torch.no_grad():
            self._carried, metrics = self._compiled(*self._inputs(batches, [self._drawn() for _ in batches]))
        for adam in self._learner.adams:
            adam.count += self.count
        return dict(zip(self._names, metrics, strict=True))

    @torch.no_grad()
    def store(self) -> None:
        """Give the learner what has been carried."""
        for part, carried in zip(self._learner.changed, _parts(self._carried, self._sizes), strict=True):
            for own, tensor in zip(part.pieces(), carried, strict=True):
                own.copy_(tensor)

    def fetch(self) -> None:
        """Carry on from what the learner holds."""
        self._carried = self._fetched()

    @torch.no_grad()
    def _fetched(self) -> list[Tensor]:
        return [piece.detach().clone() for part in self._learner.changed for piece in part.pieces()]

    def _drawn(self) -> list[Tensor]:
        if not self._asked:
            return []
        noise = self._learner.noise
        assert isinstance(noise, Drawn)
        return [noise.draw(draw) for draw in self._asked]

    def _inputs(self, batches: Sequence[Batch], noise: Sequence[list[Tensor]]) -> tuple[object, ...]:
        scales = torch.tensor(
            [
                [adam.scale_at(adam.count + later).numbers() for adam in self._learner.adams]
                for later in range(1, len(batches) + 1)
            ],
            device=batches[0].observations.device,
        )
        return list(self._carried), [_tensors(batch) for batch in batches], list(noise), scales

    def _traced(self, example: Batch):  # type: ignore[no-untyped-def]
        twin = _twin(self._learner)

        def updates(
            carried: list[Tensor], batches: list[list[Tensor]], noise: list[list[Tensor]], scales: Tensor
        ) -> tuple[list[Tensor], list[Tensor]]:
            own = [tensor.clone() for tensor in carried]
            for part, pieces in zip(twin.changed, _parts(own, self._sizes), strict=True):
                part.hold(pieces)
            metrics: Metrics = {}
            for number, (tensors, drawn) in enumerate(zip(batches, noise, strict=True)):
                for adam, (size, correction, kept) in zip(twin.adams, scales[number], strict=True):
                    adam.scale = Scale(size, correction, kept)
                twin.noise = Played(drawn)
                metrics = twin.update(_batch(example, iter(tensors)))
            return [piece for part in twin.changed for piece in part.pieces()], list(metrics.values())

        return updates


def _twin(learner: OwnLearner) -> OwnLearner:
    """A copy to trace, which draws nothing."""
    noise, learner.noise = learner.noise, None
    twin = copy.deepcopy(learner)
    learner.noise = noise
    return twin


def _dry_run(learner: OwnLearner, example: Batch) -> tuple[list[str], list[Draw]]:
    """The names of an update's metrics, and the random numbers that it asks for."""
    twin = _twin(learner)
    noted = Noted(example.observations.device)
    twin.noise = noted
    return list(twin.update(example)), noted.asked


def _parts(tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Sequence[Tensor]]:
    return [tensors[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


def _tensors(batch: Batch) -> list[Tensor]:
    """A batch as a list, in the order of `_batch`."""
    found = [batch.observations, batch.actions, batch.next_observations, batch.terminations]
    if batch.initial_observations is not None:
        found.append(batch.initial_observations)
    return found if batch.supplementary is None else found + _tensors(batch.supplementary)


def _batch(like: Batch, tensors):  # type: ignore[no-untyped-def]
    """The batch that `_tensors` took apart."""
    batch = Batch(next(tensors), next(tensors), next(tensors), next(tensors))
    if like.initial_observations is not None:
        batch = replace(batch, initial_observations=next(tensors))
    if like.supplementary is not None:
        batch = replace(batch, supplementary=_batch(like.supplementary, tensors))
    return batch
