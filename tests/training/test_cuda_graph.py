"""A captured update works on tensors that stay in place. A recorder stands in for the CUDA graph: no GPU is asked."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from iq_offline.training.compile.cuda_graph import CudaGraph


class Graph(TorchDispatchMode):
    """Records operations with the tensors that they read and write; a replay does them again, on those very tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.work: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.copy_.default:  # a capture computes nothing
            self.work.append((func, args, kwargs or {}, None))
            return args[0]
        found = func(*args, **(kwargs or {}))
        self.work.append((func, args, kwargs or {}, found))
        return found

    def replay(self) -> None:
        for func, args, kwargs, place in self.work:
            found = func(*args, **kwargs)
            if place is not None:
                place.copy_(found)


@pytest.fixture
def _graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def capture(graph: Graph) -> Iterator[None]:
        with graph:
            yield

    stream = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)


def step(tensors: list[Tensor]) -> list[Tensor]:
    """A parameter and its momentum, carried; a gradient; and a metric."""
    parameter, momentum, gradient = tensors
    moved = momentum * 0.5 + gradient
    return [parameter - moved, moved, gradient.square().sum()]


@pytest.mark.usefixtures("_graphs")
def test_captured_steps_equal_plain_steps():
    captured = CudaGraph(step, carried=2)
    carried = expected = [torch.tensor([1.0, 2.0]), torch.zeros(2)]
    for number in range(4):
        gradient = torch.tensor([0.25, -0.5]) * (number + 1)
        *carried, metric = captured([*carried, gradient])
        *expected, expected_metric = step([*expected, gradient])
        torch.testing.assert_close(list(carried), list(expected))
        torch.testing.assert_close(metric, expected_metric)


@pytest.mark.usefixtures("_graphs")
def test_given_tensors_stay_and_state_can_change():
    """Tensors that are given are not written to; other state, as after a resume, can be put in."""
    captured = CudaGraph(step, carried=2)
    mine = [torch.ones(2), torch.zeros(2)]
    first = captured([*mine, torch.ones(2)])
    assert mine[0].tolist() == [1.0, 1.0]
    assert first[0].tolist() == [0.0, 0.0]
    restored = [torch.full((2,), 10.0), torch.full((2,), 4.0)]  # as after a resume
    second = captured([*restored, torch.ones(2)])
    assert second[0] is first[0]
    assert (second[0].tolist(), second[1].tolist()) == ([7.0, 7.0], [3.0, 3.0])
    assert restored[0].tolist() == [10.0, 10.0]
