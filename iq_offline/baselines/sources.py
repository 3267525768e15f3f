"""What the peers read: recorded transitions as arrays, and batches drawn from several tables by any weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iq_offline.batch import Batch
from iq_offline.data.split import Split, rows_with_successors
from iq_offline.data.table import TransitionTable
from iq_offline.training.batches import Rows, TransitionSampler, joined

Parts = Sequence[tuple[TransitionTable, Rows]]
"""Rows by table."""


@dataclass(frozen=True)
class PeerData:
    """The expert's table with its split, and supplementary tables of any quality."""

    expert: TransitionTable
    split: Split
    supplementary: tuple[TransitionTable, ...] = ()

    @property
    def demonstrated_steps(self) -> float:
        """The demonstrations' mean length, before any subsampling."""
        return float(self.expert.episodes["steps"].to_numpy()[list(self.split.episodes)].mean())

    @property
    def demonstrated_parts(self) -> Parts:
        """The rows of the demonstrations."""
        return [(self.expert, self.split.rows)]

    @property
    def supplementary_parts(self) -> Parts:
        """Every supplementary step whose successor is known, or that ended the task."""
        return [(table, rows_with_successors(table)) for table in self.supplementary]

    @property
    def parts(self) -> Parts:
        """The demonstrations, then the supplementary steps."""
        return [*self.demonstrated_parts, *self.supplementary_parts]


@dataclass(frozen=True)
class Recorded:
    """Transitions of one or more tables as 32-bit floats, in the order of their samplers; no rewards.

    Shapes: observations and next_observations (N, D); actions (N, A), a discrete one its number in one column;
    episodes (N,), a number for each episode, never decreasing, from zero without a gap.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    next_observations: NDArray[np.float32]
    episodes: NDArray[np.int64]
    categories: tuple[int, ...] = ()
    """How many categories each number of an observation has, 0 for a real number; empty if all are real."""

    def __len__(self) -> int:
        return len(self.episodes)

    def episode_slices(self) -> list[slice]:
        """Where each episode lies."""
        ends = np.flatnonzero(np.diff(self.episodes, append=self.episodes[-1] + 1)) + 1
        return [slice(int(start), int(end)) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def recorded(parts: Parts) -> Recorded:
    """Those rows of those tables, one table after the other."""
    episodes, first = [], 0
    for table, rows in parts:
        _, numbers = np.unique(table.episode_numbers(rows), return_inverse=True)
        episodes.append(numbers.astype(np.int64) + first)
        first += int(numbers[-1]) + 1
    return Recorded(
        observations=np.concatenate([table.observations(rows) for table, rows in parts]),
        actions=np.concatenate([table.actions(rows) for table, rows in parts]),
        next_observations=np.concatenate([table.observations(rows + 1) for table, rows in parts]),
        episodes=np.concatenate(episodes),
        categories=parts[0][0].categories,
    )


def samplers_of(parts: Parts, device: torch.device) -> list[TransitionSampler]:
    """A sampler for each part."""
    return [TransitionSampler(table, rows, device) for table, rows in parts]


class Pool:
    """Several samplers as one: positions count through the first, then the second, and so on."""

    def __init__(self, parts: Sequence[TransitionSampler], device: torch.device) -> None:
        self._parts, self._device = parts, device
        self._ends = np.cumsum([len(part) for part in parts]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def gather(self, positions: Tensor) -> Batch:
        """The transitions at those positions, (B,) on the CPU, in their order."""
        if len(self._parts) == 1:
            return self._parts[0].gather(positions.to(self._device))
        order, pieces, start = [], [], 0
        for part, end in zip(self._parts, self._ends, strict=True):
            inside = ((positions >= start) & (positions < end)).nonzero()[:, 0]
            order.append(inside)
            pieces.append(part.gather((positions[inside] - start).to(self._device)))
            start = end
        batch, back = joined(pieces), torch.cat(order).argsort().to(self._device)
        return Batch(
            batch.observations[back], batch.actions[back], batch.next_observations[back], batch.terminations[back]
        )


def drawn(
    count: int, size: int, random: torch.Generator, weights: NDArray[np.float64] | None = None
) -> Iterator[Tensor]:
    """Endless draws of `size` positions below `count`, with replacement: uniform, or in proportion to weights (count,).

    They lie on the CPU, so that a seed draws the same on any device.
    """
    if weights is None:
        while True:
            yield torch.randint(count, (size,), generator=random)
    ends = torch.from_numpy(np.cumsum(weights))
    while True:
        points = torch.rand(size, dtype=torch.float64, generator=random) * ends[-1]
        yield torch.searchsorted(ends, points, right=True).clamp_max(count - 1)
