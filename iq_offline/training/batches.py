"""Uniform minibatches of transitions, gathered from the packed table by index pairs (i, i + 1)."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.batch import Batch
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.table import TransitionTable
from iq_offline.errors import NotYet

DRAWN_AHEAD = 64
"""Batches whose rows are drawn at once; the draws are the same as one batch at a time."""
MAPPED_SHARE = 0.5
"""From this share of a table's rows on, a CPU reads them where they lie instead of copying them."""


class TransitionSampler:
    """Draws rows of a split with replacement. The rows lie on `device`; the draws are made on the CPU.

    Raises NotYet for pictures, which no network here takes yet.
    """

    def __init__(self, table: TransitionTable, rows: NDArray[np.int64], device: torch.device) -> None:
        if table.pictures:
            raise NotYet(
                f"{table.info.name} has pictures, for which there is no encoder yet", "use vector observations"
            )
        used = np.zeros(len(table.rows), dtype=bool)
        used[rows] = used[rows + 1] = True
        if device.type == "cpu" and used.mean() >= MAPPED_SHARE:
            packed, first = table.rows, rows
        else:
            packed, first = np.array(table.rows[used]), (np.cumsum(used) - 1)[rows]
        rows_on_device = torch.from_numpy(packed).to(device)
        count, width = rows_on_device.shape
        self._pairs = rows_on_device.as_strided((count - 1, 2 * width), (width, 1))
        """Each row with the next one behind it: a view, in which neighbours overlap."""
        self._index = torch.from_numpy(first).to(device)
        self._observation_size = table.observation_size
        self._sizes = [self._observation_size, table.action_space.width, 1, 1, self._observation_size]
        self._sizes.append(2 * width - sum(self._sizes))
        self._discrete = isinstance(table.action_space, DiscreteActions)
        self._device = device

    def __len__(self) -> int:
        return len(self._index)

    def observations(self) -> torch.Tensor:
        """All observations of the split, shape (N, D)."""
        return self._pairs[self._index, : self._observation_size]

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Endless batches; `generator` is a CPU one, so that a seed draws the same rows on any device."""
        while True:
            drawn = torch.randint(len(self), (DRAWN_AHEAD * batch_size,), generator=generator).to(self._device)
            for rows in self._index.index_select(0, drawn).view(DRAWN_AHEAD, batch_size):
                yield self._batch(rows)

    def gather(self, positions: torch.Tensor) -> Batch:
        """The transitions at those positions of the split, in order."""
        return self._batch(self._index.index_select(0, positions))

    def _batch(self, rows: torch.Tensor) -> Batch:
        both = self._pairs.index_select(0, rows)
        observations, actions, _, terminations, next_observations, _ = both.split_with_sizes(self._sizes, dim=1)
        if self._discrete:
            actions = actions[:, 0].long()
        return Batch(observations, actions, next_observations, terminations[:, 0])
