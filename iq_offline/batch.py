"""One minibatch of transitions, as tensors: what the data give and the algorithms take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B transitions, and what was drawn beside them.

    Shapes: observations and next_observations (B, D); actions (B, A) floats, or (B,) integers if discrete;
    terminations (B,), 1 where the task ended with that step, else 0 (a truncation is not one).
    """

    observations: Tensor
    actions: Tensor
    next_observations: Tensor
    terminations: Tensor
    supplementary: Batch | None = None
    """Transitions of any quality, beside the expert's."""
    initial_observations: Tensor | None = None
    """First observations of the expert's episodes, (B0, D)."""

    def map_observations(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with the function of all its observations."""
        initial, supplementary = self.initial_observations, self.supplementary
        return replace(
            self,
            observations=function(self.observations),
            next_observations=function(self.next_observations),
            supplementary=None if supplementary is None else supplementary.map_observations(function),
            initial_observations=None if initial is None else function(initial),
        )
