"""One minibatch of transitions, as tensors: what the data give and the algorithms take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
