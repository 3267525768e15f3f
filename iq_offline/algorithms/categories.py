"""Categories among the numbers of an observation: one-hot in the networks, as `data/categories.py` finds them."""

import torch
from torch import Tensor, nn

from iq_offline.algorithms.encoders import ObservationLayout


class OneHot(nn.Module):
    """Standardised observations with their categories one-hot, in place: (B, D) -> (B, features).

    The tables hold a category as its number; only a batch is ever this wide. A category that the training data never
    show is taken for the nearest number that they do: no weight has learnt anything of its own.
    """

    column: Tensor
    low: Tensor
    high: Tensor
    is_number: Tensor

    def __init__(self, layout: ObservationLayout, shown: Tensor | None = None) -> None:
        """`shown`: least and greatest number that counts as each feature's category, (2, features)."""
        super().__init__()
        counts = [*layout.categories, *[0] * (layout.size - layout.vector)]
        width = torch.tensor([count or 1 for count in counts])
        column = torch.arange(len(counts)).repeat_interleave(width)
        within = (torch.arange(len(column)) - (width.cumsum(0) - width)[column]).float()
        # neither learnt nor saved: a policy file's header tells the layout
        self.register_buffer("column", column, persistent=False)
        self.register_buffer("is_number", torch.tensor(counts)[column] == 0, persistent=False)
        low, high = (within, within) if shown is None else shown
        self.register_buffer("low", low.clone())
        self.register_buffer("high", high.clone())

    def forward(self, observations: Tensor, standardised: Tensor) -> Tensor:
        """Shapes: (B, D), (B, D) -> (B, features)."""
        number = observations.index_select(-1, self.column)
        chosen = ((number >= self.low) & (number <= self.high)).to(standardised.dtype)
        return torch.where(self.is_number, standardised.index_select(-1, self.column), chosen)


def shown_categories(observations: Tensor, layout: ObservationLayout) -> Tensor:
    """What `OneHot` takes for each feature's category, (2, features): the numbers nearest to it; the lower of two.

    Shape of the training observations: (N, vector).
    """
    parts = []
    for column, count in enumerate(layout.categories):
        low, high = torch.full((2, count or 1), -1.0)
        low.fill_(count)  # of a category that is never shown there is no number: low > high
        if count and len(observations):
            shown = torch.unique(observations[:, column])
            between = ((shown[1:] + shown[:-1]) / 2).floor()
            places = shown.long()
            low[places] = torch.cat([torch.zeros(1), between + 1])
            high[places] = torch.cat([between, torch.tensor([count - 1.0])])
        parts.append(torch.stack([low, high]))
    pixels = layout.size - layout.vector
    return torch.cat([*parts, torch.zeros(2, pixels)], dim=1)
