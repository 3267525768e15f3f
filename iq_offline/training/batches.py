"""Uniform minibatches of transitions, gathered from the packed table by index pairs (i, i + 1)."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.batch import Batch
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.table import TransitionTable


class TransitionSampler:
    """Draws rows of a split with replacement. The rows lie on `device`; the draws are made on the CPU."""

    def __init__(self, table: TransitionTable, rows: NDArray[np.int64], device: torch.device) -> None:
        pairs, first = np.unique(np.concatenate([rows, rows + 1]), return_inverse=True)
        self._packed = torch.from_numpy(np.array(table.rows[pairs])).to(device)
        self._index = torch.from_numpy(first[: len(rows)].copy()).to(device)
        self._successor = torch.from_numpy(first[len(rows) :].copy()).to(device)
        self._observation_size = table.observation_size
        self._discrete = isinstance(table.action_space, DiscreteActions)
        self._device = device

    def __len__(self) -> int:
        return len(self._index)

    def observations(self) -> torch.Tensor:
        """All observations of the split, shape (N, D)."""
        return self._packed[self._index, : self._observation_size]

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Endless batches; `generator` is a CPU one, so that a seed draws the same rows on any device."""
        while True:
            drawn = torch.randint(len(self), (batch_size,), generator=generator)
            yield self.gather(drawn.to(self._device))

    def gather(self, positions: torch.Tensor) -> Batch:
        """The transitions at those positions of the split, in order."""
        rows = self._packed.index_select(0, self._index.index_select(0, positions))
        successors = self._packed.index_select(0, self._successor.index_select(0, positions))
        size = self._observation_size
        actions = rows[:, size].long() if self._discrete else rows[:, size:-2]
        return Batch(rows[:, :size], actions, successors[:, :size], rows[:, -1])
