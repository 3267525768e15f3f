"""The scaling of observations and actions, fitted to training data."""

from collections.abc import Sequence

import torch
from torch import Tensor

from iq_offline.algorithms.categories import shown_categories
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import ActionScale, Standardiser

ROWS_AT_ONCE = 8192
"""Rows that are widened to 64 bits at a time."""
SMALLEST_STD = 1e-3
"""Dimensions that vary less than this are divided by it, not by their own deviation."""
LARGEST_BYTE = 255.0
WIDEST_BOX = 20.0
"""Standard deviations of demonstrated actions that half the range of scaled ones holds, at most."""
BEYOND_FARTHEST = 1.25
"""The box of scaled actions ends so many times as far from the mean as the farthest demonstrated action."""
CONSTANT = 1e-6
"""Of the bounds' half range: what varies less does not vary."""


def fit_standardiser(
    observations: Tensor,
    layout: ObservationLayout | None = None,
    *,
    mean_pixels: Tensor | None = None,
    smallest: float = SMALLEST_STD,
) -> Standardiser:
    """Mean and deviation of training observations, (N, D), or of their vector part; `smallest` deviations at least.

    Pictures become (pixels - mean_pixels) / 255. Without the mean, (pixels,), a background takes part in every
    convolution, and small objects in front of it are learnt much later (docs/experiments/atari.md).
    """
    count = max(len(observations), 1)
    mean, squares = torch.zeros(2, observations.shape[1], dtype=torch.float64)
    for part in torch.split(observations, ROWS_AT_ONCE):
        mean += part.double().sum(dim=0) / count
    for part in torch.split(observations, ROWS_AT_ONCE):
        squares += (part.double() - mean).square().sum(dim=0) / count
    std = squares.sqrt().clamp_min(smallest)
    pixels = layout.size - layout.vector if layout else 0
    return Standardiser(
        torch.cat([mean.float(), torch.zeros(pixels) if mean_pixels is None else mean_pixels]),
        torch.cat([std.float(), torch.full((pixels,), LARGEST_BYTE)]),
        shown_categories(observations, layout) if layout and layout.categories else None,
    )


def fit_action_scale(low: Sequence[float], high: Sequence[float], actions: Tensor) -> ActionScale:
    """The bounds, or a narrower box within them in a dimension of which demonstrations use next to none.

    The box reaches to WIDEST_BOX standard deviations from the mean and past the farthest action, so that what networks
    learn is not far below one however wide the bounds. A dimension that never varies keeps the bounds.
    Shape of actions: (N, A).
    """
    bounds = ActionScale.of_bounds(low, high)
    if len(actions) == 0:
        return bounds
    spread = fit_standardiser(actions, smallest=0)
    farthest = torch.zeros_like(spread.mean)
    for part in torch.split(actions, ROWS_AT_ONCE):
        farthest = torch.maximum(farthest, (part - spread.mean).abs().amax(dim=0))
    reach = torch.maximum(WIDEST_BOX * spread.std, BEYOND_FARTHEST * farthest)
    narrow = (reach < bounds.half_range) & (farthest > CONSTANT * bounds.half_range)
    box_low = torch.maximum(torch.tensor(low), spread.mean - reach)
    box_high = torch.minimum(torch.tensor(high), spread.mean + reach)
    return ActionScale(
        torch.where(narrow, (box_high + box_low) / 2, bounds.centre),
        torch.where(narrow, (box_high - box_low) / 2, bounds.half_range),
    )
