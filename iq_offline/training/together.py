"""Seeds batched into one process: the updates of several learners, a thread each, made as one batched update.

A small network's update does not fill a GPU. Here each learner's trace (`traced.py`) is one lane of a `torch.vmap` over
all of them. Lanes wait for each other at every update; all else, batches, metrics, snapshots, is each lane's own. The
tensors are those that a seed makes alone within rounding, not bit for bit.
"""

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from iq_offline.training.captured import Captured, Function
from iq_offline.training.traced import Trace, Traceable, carried_sizes

Shapes = tuple[tuple[int, ...], ...]


@dataclass
class _Kind:
    """Learners whose updates are one graph: the batched function, and what each lane gave and got last."""

    carried: int
    trace: Trace
    compiling: bool
    constants: list[Tensor]
    """What each lane holds and does not change, (lanes, ...) each: the function reads them where they are."""
    last: dict[int, list[Tensor]] = field(default_factory=dict)
    function: Function | None = None


@dataclass
class _Call:
    kind: _Kind
    arguments: list[Tensor]
    results: list[Tensor] | None = None
    error: BaseException | None = None


class Together:
    """Where the lanes meet. Every lane runs in a thread of its own and ends with `leave`."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._live = set(range(lanes))
        self._waiting: dict[int, _Call] = {}
        self._kinds: dict[tuple[str, Shapes], _Kind] = {}
        self._condition = threading.Condition()
        self._tracing = threading.Lock()

    def lane(self, number: int) -> "Lane":
        """That lane."""
        return Lane(self, number)

    def leave(self, lane: int) -> None:
        """The lane makes no more updates; the others no longer wait for it."""
        with self._condition:
            self._live.discard(lane)
            self._go_on()

    def function_of(self, lane: int, plan: Traceable, *, compiling: bool) -> Function:
        """What `CompiledUpdates` calls: that lane's updates, made when all lanes that are left have asked."""
        with self._tracing:  # PyTorch traces in one thread at a time
            trace, carried = plan.trace(), sum(carried_sizes(plan.learner))
        shapes = tuple(tuple(tensor.shape) for tensor in [*trace.given, *trace.held])
        with self._condition:
            key = trace.graph.code, shapes
            if key not in self._kinds:
                constants = [torch.stack([tensor] * self.lanes).detach() for tensor in trace.held]
                self._kinds[key] = _Kind(carried, trace, compiling, constants)
            kind = self._kinds[key]
            for all_lanes, own in zip(kind.constants, trace.held, strict=True):
                all_lanes[lane].copy_(own.detach())
        return lambda arguments: self._run(lane, _Call(kind, arguments))

    def _run(self, lane: int, call: _Call) -> list[Tensor]:
        with self._condition:
            self._waiting[lane] = call
            self._go_on()
            self._condition.wait_for(lambda: call.results is not None or call.error is not None)
        if call.error is not None:
            raise call.error
        assert call.results is not None
        return call.results

    def _go_on(self) -> None:
        """Make the updates that are asked for, if nobody is awaited any more. The condition is held."""
        if not self._waiting or set(self._waiting) != self._live:
            return
        calls, self._waiting = self._waiting, {}
        try:
            for kind in {id(call.kind): call.kind for call in calls.values()}.values():
                self._update(kind, {lane: call for lane, call in calls.items() if call.kind is kind})
        except BaseException as error:  # noqa: BLE001 - it is every waiting lane's
            for call in calls.values():
                call.error = error
        self._condition.notify_all()

    def _update(self, kind: _Kind, calls: dict[int, _Call]) -> None:
        """One call of the batched function. A lane that is elsewhere takes part, and keeps what it had."""
        arguments = {lane: call.arguments for lane, call in calls.items()}
        anyone = next(iter(arguments.values()))
        given = [arguments.get(lane) or kind.last.get(lane) or anyone for lane in range(self.lanes)]
        before = {
            lane: [tensor.clone() for tensor in kind.last[lane][: kind.carried]]
            for lane in kind.last.keys() - calls.keys()
        }
        if kind.function is None:
            kind.function = _batched(kind, self.lanes)
        with torch.no_grad():
            found = kind.function(_by_argument(given, kind.carried))
        for lane, results in enumerate(_by_lane(found, self.lanes, kind.carried)):
            if lane in calls:
                calls[lane].results = results
                kind.last[lane] = results[: kind.carried] + arguments[lane][kind.carried :]
            elif lane in before:
                for own, kept in zip(kind.last[lane], before[lane], strict=False):
                    own.copy_(kept)


@dataclass(frozen=True)
class Lane:
    """One learner's place among those that are updated together."""

    together: Together
    number: int

    def maker(self, *, compiling: bool) -> Callable[[Traceable], Function]:
        """What makes a function of a plan."""
        return lambda plan: self.together.function_of(self.number, plan, compiling=compiling)

    def leave(self) -> None:
        """No more updates."""
        self.together.leave(self.number)


def _batched(kind: _Kind, lanes: int) -> Function:
    """A function of all lanes' arguments, first what is carried (by lane, then by argument); likewise its results."""
    constants, carried, count = kind.constants, kind.carried, len(kind.trace.given)
    batched = torch.vmap(_without_lerp(kind.trace.graph))

    def function(*tensors: Tensor) -> list[Tensor]:
        given, constant = tensors[: lanes * count], tensors[lanes * count :]
        by_lane = _by_lane(given, lanes, carried)
        results = batched(*(torch.stack(each) for each in zip(*by_lane, strict=True)), *constant)
        return _by_argument(list(zip(*(result.unbind(0) for result in results), strict=True)), carried)

    on_cuda = kind.trace.given[0].is_cuda
    if on_cuda and kind.compiling:
        examples = _by_argument([kind.trace.given for _ in range(lanes)], carried)
        graph: GraphModule = make_fx(function)(*(tensor.clone() for tensor in examples), *constants)
        compiled = torch.compile(graph, fullgraph=True, dynamic=False)
        return Captured(lambda tensors: compiled(*tensors, *constants), lanes * carried)
    plain: Function = lambda tensors: function(*tensors, *constants)  # noqa: E731
    return Captured(plain, lanes * carried) if on_cuda else plain


def _without_lerp(graph: GraphModule) -> GraphModule:
    """The same graph with `lerp_` in simpler terms: `vmap` would take its lanes one by one."""
    simpler = copy.deepcopy(graph)
    for node in simpler.graph.nodes:
        if node.target is torch.ops.aten.lerp_.Scalar:
            node.target = _lerp_
    simpler.recompile()
    return simpler


def _lerp_(start: Tensor, end: Tensor, share: float) -> Tensor:
    return start.add_((end - start) * share)


def _by_argument(by_lane: Sequence[Sequence[Tensor]], carried: int) -> list[Tensor]:
    """What is carried of every lane, then the rest of every lane."""
    first = [tensor for tensors in by_lane for tensor in tensors[:carried]]
    return first + [tensor for tensors in by_lane for tensor in tensors[carried:]]


def _by_lane(tensors: Sequence[Tensor], lanes: int, carried: int) -> list[list[Tensor]]:
    """The reverse."""
    rest = len(tensors) // lanes - carried
    after = lanes * carried
    return [
        [*tensors[lane * carried : (lane + 1) * carried], *tensors[after + lane * rest : after + (lane + 1) * rest]]
        for lane in range(lanes)
    ]
