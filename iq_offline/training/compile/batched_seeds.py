"""Seeds batched into one process: the updates of several learners, a thread each, made as one batched update.

A small network's update does not fill a GPU. Here each learner's trace (`tracing.py`) is one slot of a `torch.vmap`
over all of them. Slots wait for each other at every update; all else, batches, metrics, snapshots, is each seed's own.
The tensors are those that a seed makes alone within rounding, not bit for bit.
"""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from iq_offline.training.compile.cuda_graph import CudaGraph
from iq_offline.training.compile.tracing import Function, Trace, Traceable, carried_count


@dataclass
class _Kind:
    """Learners whose updates are one graph: the batched function, and what each slot gave and got last."""

    carried: int
    trace: Trace
    compiling: bool
    constants: list[Tensor]
    """What each slot holds and does not change, (slots, ...) each: the function reads them where they are."""
    last: dict[int, list[Tensor]] = field(default_factory=dict)
    function: Function | None = None


@dataclass
class _Call:
    kind: _Kind
    arguments: list[Tensor]
    results: "Future[list[Tensor]]" = field(default_factory=Future)


class BatchedSeeds:
    """Where the slots meet. Every slot's learner runs in a thread of its own, which ends with `leave`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._live = set(range(count))
        self._waiting: dict[int, _Call] = {}
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._lock, self._tracing = threading.Lock(), threading.Lock()

    def leave(self, slot: int) -> None:
        """The slot makes no more updates; the others no longer wait for it."""
        with self._lock:
            self._live.discard(slot)
            self._go_on()

    def function_of(self, slot: int, plan: Traceable, *, compiling: bool) -> Function:
        """What `CompiledSteps` calls: that slot's updates, made when all slots that are left have asked."""
        with self._tracing:  # PyTorch traces in one thread at a time
            trace = plan.trace()
        shapes = tuple(tuple(tensor.shape) for tensor in [*trace.given, *trace.constants])
        with self._lock:
            key = trace.graph.code, shapes
            if key not in self._kinds:
                constants = [torch.stack([tensor] * self.count).detach() for tensor in trace.constants]
                self._kinds[key] = _Kind(carried_count(plan.learner), trace, compiling, constants)
            kind = self._kinds[key]
            for of_all, own in zip(kind.constants, trace.constants, strict=True):
                of_all[slot].copy_(own.detach())
        return lambda arguments: self._run(slot, _Call(kind, arguments))

    def _run(self, slot: int, call: _Call) -> list[Tensor]:
        with self._lock:
            self._waiting[slot] = call
            self._go_on()
        return call.results.result()

    def _go_on(self) -> None:
        """Make the updates that are asked for, if nobody is awaited any more. The lock is held."""
        if not self._waiting or set(self._waiting) != self._live:
            return
        calls, self._waiting = self._waiting, {}
        found: dict[int, list[Tensor]] = {}
        try:
            for kind in {id(call.kind): call.kind for call in calls.values()}.values():
                own = {slot: call.arguments for slot, call in calls.items() if call.kind is kind}
                found |= self._update(kind, own)
        except BaseException as error:  # noqa: BLE001 - it is every waiting slot's
            for call in calls.values():
                call.results.set_exception(error)
        else:
            for slot, call in calls.items():
                call.results.set_result(found[slot])

    def _update(self, kind: _Kind, arguments: dict[int, list[Tensor]]) -> dict[int, list[Tensor]]:
        """One call of the batched function. A slot that is elsewhere takes part, and keeps what it had."""
        anyone = next(iter(arguments.values()))
        given = [arguments.get(slot) or kind.last.get(slot) or anyone for slot in range(self.count)]
        before = {
            slot: [tensor.clone() for tensor in kind.last[slot][: kind.carried]]
            for slot in kind.last.keys() - arguments.keys()
        }
        if kind.function is None:
            kind.function = _batched(kind, self.count)
        with torch.no_grad():
            results = _by_slot(kind.function(_by_argument(given, kind.carried)), self.count, kind.carried)
        for slot, kept in before.items():
            for own, tensor in zip(kind.last[slot], kept, strict=False):
                own.copy_(tensor)
        for slot, given_by in arguments.items():
            kind.last[slot] = results[slot][: kind.carried] + given_by[kind.carried :]
        return {slot: results[slot] for slot in arguments}


@dataclass(frozen=True)
class SeedSlot:
    """One learner's place among those whose updates are batched."""

    seeds: BatchedSeeds
    number: int

    def maker(self, *, compiling: bool) -> Callable[[Traceable], Function]:
        """What makes a function of a plan."""
        return lambda plan: self.seeds.function_of(self.number, plan, compiling=compiling)


def _batched(kind: _Kind, slots: int) -> Function:
    """A function of all slots' arguments, first what is carried (by slot, then by argument); likewise its results."""
    constants, carried, count = kind.constants, kind.carried, len(kind.trace.given)
    batched = torch.vmap(_without_lerp(kind.trace.graph))

    def function(*tensors: Tensor) -> list[Tensor]:
        given, constant = tensors[: slots * count], tensors[slots * count :]
        by_slot = _by_slot(given, slots, carried)
        results = batched(*(torch.stack(each) for each in zip(*by_slot, strict=True)), *constant)
        return _by_argument(list(zip(*(result.unbind(0) for result in results), strict=True)), carried)

    made: Callable[..., Sequence[Tensor]] = function
    on_cuda = kind.trace.given[0].is_cuda
    if on_cuda and kind.compiling:
        examples = _by_argument([kind.trace.given for _ in range(slots)], carried)
        graph: GraphModule = make_fx(function)(*(tensor.clone() for tensor in examples), *constants)
        made = torch.compile(graph, fullgraph=True, dynamic=False)
    with_constants: Function = lambda tensors: made(*tensors, *constants)  # noqa: E731
    return CudaGraph(with_constants, slots * carried) if on_cuda else with_constants


def _without_lerp(graph: GraphModule) -> GraphModule:
    """The same graph with `lerp_` in simpler terms: `vmap` would take its slots one by one."""
    simpler = copy.deepcopy(graph)
    for node in simpler.graph.nodes:
        if node.target is torch.ops.aten.lerp_.Scalar:
            node.target = _lerp_
    simpler.recompile()
    return simpler


def _lerp_(start: Tensor, end: Tensor, share: float) -> Tensor:
    return start.add_((end - start) * share)


def _by_argument(by_slot: Sequence[Sequence[Tensor]], carried: int) -> list[Tensor]:
    """What is carried of every slot, then the rest of every slot."""
    first = [tensor for tensors in by_slot for tensor in tensors[:carried]]
    return first + [tensor for tensors in by_slot for tensor in tensors[carried:]]


def _by_slot(tensors: Sequence[Tensor], slots: int, carried: int) -> list[list[Tensor]]:
    """The reverse."""
    rest = len(tensors) // slots - carried
    after = slots * carried
    return [
        [*tensors[slot * carried : (slot + 1) * carried], *tensors[after + slot * rest : after + (slot + 1) * rest]]
        for slot in range(slots)
    ]
