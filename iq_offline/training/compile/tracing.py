"""An update as a pure function: the learner's own `update`, traced, so that losses are written once.

The trace is a function of all tensors that an update changes, its batches, its random numbers and Adam's scales; and of
constants: what else it reads of the learner.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from iq_offline.algorithms.adam import Scale
from iq_offline.algorithms.learner import OwnLearner
from iq_offline.algorithms.losses import Metrics
from iq_offline.algorithms.noise import Draw
from iq_offline.batch import Batch
from iq_offline.config.q_learning import QLearningConfig

Function = Callable[[list[Tensor]], Sequence[Tensor]]
"""A trace with its constants filled in."""


class RecordedDraws:
    """Zeros, and a note of what was asked for."""

    def __init__(self, device: torch.device) -> None:
        self.asked: list[Draw] = []
        self._device = device

    def draw(self, draw: Draw) -> Tensor:
        """Zeros of that shape."""
        self.asked.append(draw)
        return torch.zeros(draw.shape, device=self._device)


class ReplayedDraws:
    """Numbers that were drawn before, in the order in which they are asked for."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._next = iter(tensors)

    def draw(self, draw: Draw) -> Tensor:
        """The next, which must have that shape."""
        tensor = next(self._next)
        assert tensor.shape == draw.shape
        return tensor


@dataclass
class Trace:
    """Updates as a graph of tensor operations.

    Arguments: what is carried, each update's batch, each update's random numbers, the scales (count, Adams, 3), and
    last the constants. Results: what is carried, the last update's metrics.
    """

    graph: GraphModule
    given: list[Tensor]
    """Examples of the arguments without the constants."""
    constants: list[Tensor]
    """What it reads of the learner, or made while it was traced, and does not change."""


def _of_update(config: QLearningConfig) -> QLearningConfig:
    """The same with defaults for what an update does not depend on: how many there are, and their rates."""
    fields = type(config).model_fields
    other = [name for name in fields if name in config.beside_updates or name.endswith("learning_rate")]
    return config.model_copy(update={name: fields[name].default for name in other})


@dataclass
class Traceable:
    """`count` updates of a learner, on batches like `example`. It can be pickled: the learner draws nothing itself."""

    learner: OwnLearner
    example: Batch
    count: int

    @classmethod
    def of(cls, learner: OwnLearner, example: Batch, count: int) -> "Traceable":
        """Of a copy of the learner, and of a batch's layout. Learners that differ in their schedules are alike."""
        twin = _without_noise(learner)
        for adam in twin.adams:
            adam.forget_schedule()
        config = getattr(twin, "config", None)
        if isinstance(config, QLearningConfig):
            twin.config = _of_update(config)  # type: ignore[attr-defined]
        return cls(twin, _like(example), count)

    def dry_run(self) -> tuple[list[str], list[Draw]]:
        """The names of an update's metrics, and the random numbers that it asks for."""
        twin, noted = _without_noise(self.learner), RecordedDraws(self.example.observations.device)
        twin.noise = noted
        return list(twin.update(self.example)), noted.asked

    def trace(self) -> Trace:
        """Trace them. To be called once: it spends the learner."""
        _, asked = self.dry_run()
        # a tensor that came twice would be one input to the trace
        batches = [_like(self.example) for _ in range(self.count)]
        device = self.example.observations.device
        noise = [[torch.zeros(draw.shape, device=device) for draw in asked] for _ in batches]
        scales = torch.ones(self.count, len(self.learner.adams), 3, device=device)
        inputs = carried_by(self.learner), [batch_tensors(batch) for batch in batches], noise, scales
        updates = lambda carried, batches, noise, scales: self.eagerly(carried, batches, noise, scales)  # noqa: E731
        graph, constants = _flat(make_fx(updates)(*inputs))  # it takes no bound method
        return Trace(graph, pytree.tree_leaves(inputs), constants)

    def eagerly(
        self, carried: list[Tensor], batches: list[list[Tensor]], noise: list[list[Tensor]], scales: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What the trace computes, as PyTorch runs it; what is carried, and the metrics. It spends the learner too."""
        learner = self.learner
        own = [tensor.clone() for tensor in carried]
        for part, pieces in zip(learner.changed, by_part(learner, own), strict=True):
            part.hold(pieces)
        metrics: Metrics = {}
        for number, (tensors, drawn) in enumerate(zip(batches, noise, strict=True)):
            for adam, (size, correction, kept) in zip(learner.adams, scales[number], strict=True):
                adam.scale = Scale(size, correction, kept)
            learner.noise = ReplayedDraws(drawn)
            metrics = learner.update(_batch_of(self.example, iter(tensors)))
        return [piece for part in learner.changed for piece in part.pieces()], list(metrics.values())


def carried_by(learner: OwnLearner) -> list[Tensor]:
    """Copies of all tensors that an update changes."""
    return [piece.detach().clone() for part in learner.changed for piece in part.pieces()]


def carried_count(learner: OwnLearner) -> int:
    """How many tensors an update changes."""
    return sum(len(part.pieces()) for part in learner.changed)


def by_part(learner: OwnLearner, carried: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """Carried tensors by the part of the learner that they belong to."""
    sizes = (len(part.pieces()) for part in learner.changed)
    return [carried[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


def batch_tensors(batch: Batch) -> list[Tensor]:
    """A batch as a list, in the order of `_batch_of`."""
    found = [batch.observations, batch.actions, batch.next_observations, batch.terminations]
    if batch.initial_observations is not None:
        found.append(batch.initial_observations)
    return found if batch.supplementary is None else found + batch_tensors(batch.supplementary)


def in_layout_of(tensor: Tensor, like: Tensor) -> Tensor:
    """That tensor, copied if its strides are others."""
    return tensor if tensor.stride() == like.stride() else _copied(tensor, like)


def _batch_of(like: Batch, tensors: Iterator[Tensor]) -> Batch:
    """The batch that `batch_tensors` took apart."""
    batch = Batch(next(tensors), next(tensors), next(tensors), next(tensors))
    if like.initial_observations is not None:
        batch = replace(batch, initial_observations=next(tensors))
    if like.supplementary is not None:
        batch = replace(batch, supplementary=_batch_of(like.supplementary, tensors))
    return batch


def _without_noise(learner: OwnLearner) -> OwnLearner:
    """A copy to trace, which draws nothing."""
    noise, learner.noise = learner.noise, None
    twin = copy.deepcopy(learner)
    learner.noise = noise
    return twin


def _copied(tensor: Tensor, like: Tensor) -> Tensor:
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=like.device).copy_(tensor)


def _like(batch: Batch) -> Batch:
    """A copy in the same layout."""
    return _batch_of(batch, (_copied(tensor, tensor) for tensor in batch_tensors(batch)))


def _flat(traced: GraphModule) -> tuple[GraphModule, list[Tensor]]:
    """The same function of a flat list of tensors, its constants behind its arguments."""
    graph = traced.graph
    constants: list[Tensor] = []
    graph.set_codegen(CodeGen())
    first = next(node for node in graph.nodes if node.op != "placeholder")
    places = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            if node.target not in places:
                with graph.inserting_before(first):
                    places[node.target] = graph.placeholder(f"constant_{len(constants)}")
                constants.append(getattr(traced, node.target))
            node.replace_all_uses_with(places[node.target])
            graph.erase_node(node)
        elif node.op == "output":
            node.args = (tuple(pytree.tree_leaves(node.args[0])),)
        node.meta.clear()
    return GraphModule(torch.nn.Module(), graph), constants
