"""A CUDA graph of an update: its kernels launched as one, over tensors that stay where they are."""

from typing import Any

import torch
from torch import Tensor

from iq_offline.training.compile.tracing import Function

WARM_UPS = 3
"""Calls before the capture, in which kernels are chosen and libraries initialised."""


class CudaGraph:
    """A function whose first `carried` results take the places of its first `carried` arguments, as a CUDA graph.

    Those results, and all others, are overwritten by the next call.
    """

    def __init__(self, function: Function, carried: int) -> None:
        self._function, self._carried = function, carried
        self._graph: Any = None
        self._arguments: list[Tensor] = []
        self._results: list[Tensor] = []

    def __call__(self, arguments: list[Tensor]) -> list[Tensor]:
        """The function of these. What an earlier call returned is passed on as it is, without a copy."""
        if self._graph is None:
            self._capture(arguments)
        for held, given in zip(self._arguments, arguments, strict=True):
            if held is not given:
                held.copy_(given)
        self._graph.replay()
        return self._results

    def _capture(self, arguments: list[Tensor]) -> None:
        """Record the kernels; nothing is computed yet."""
        self._arguments = [tensor.clone() for tensor in arguments]
        aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                self._function(self._arguments)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            results = self._function(self._arguments)
            kept = self._arguments[: self._carried]
            for own, result in zip(kept, results[: self._carried], strict=True):
                own.copy_(result)
        self._results = [*kept, *results[self._carried :]]
