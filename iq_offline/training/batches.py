"""Uniform minibatches of transitions, gathered from packed tables by index pairs (i, i + 1)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.batch import Batch
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.table import Leaf, TransitionTable

DRAWN_AHEAD = 64
"""Batches whose rows are drawn at once; the draws are the same as one batch at a time."""
GATHERED_BYTES = 131_072
"""At most so many bytes are gathered at once, where a batch is smaller than that."""
MAPPED_SHARE = 0.5
"""From this share of a table's rows on, a CPU reads them where they lie instead of copying them."""
INITIAL_OBSERVATIONS = 256
"""At most so many first observations go with a batch."""
MEAN_OF, AT_ONCE = 1024, 64
"""Observations whose pictures make their mean, and how many of them are in memory together."""

Rows = NDArray[np.int64]


class TransitionSampler:
    """Draws rows of a split with replacement. The rows lie on `device`; the draws are made on the CPU.

    Pictures stay where the table has them, and come as bytes behind the other numbers of an observation.
    """

    def __init__(
        self,
        table: TransitionTable,
        rows: Rows,
        device: torch.device,
        initial_rows: Rows | None = None,
    ) -> None:
        used = np.zeros(len(table.rows), dtype=bool)
        used[rows] = used[rows + 1] = True
        if device.type == "cpu" and used.mean() >= MAPPED_SHARE:
            packed, first = table.rows, rows
        else:
            packed, first = np.array(table.rows[used]), (np.cumsum(used) - 1)[rows]
        self._hold(table, packed, first, device)
        self._table, self._pictures = table, [leaf for leaf in table.layout if leaf.file]
        self._picture_rows = torch.from_numpy(rows) if self._pictures else torch.empty(0, dtype=torch.int64)
        self._initial = None if initial_rows is None else self._first_observations(table, initial_rows)

    def _hold(self, table: TransitionTable, packed: NDArray[np.float32], first: Rows, device: torch.device) -> None:
        rows_on_device = torch.from_numpy(packed).to(device)
        count, width = rows_on_device.shape
        self._pairs = rows_on_device.as_strided((count - 1, 2 * width), (width, 1))
        """Each row with the next one behind it: a view, in which neighbours overlap."""
        self._index = torch.from_numpy(first).to(device)
        self._vector = table.observation_size
        self._sizes = [self._vector, table.action_space.width, 1, 1, self._vector]
        self._sizes.append(2 * width - sum(self._sizes))
        self._discrete = isinstance(table.action_space, DiscreteActions)
        self.device = device
        self.layout = observation_layout(table)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def proper(self) -> "TransitionSampler":
        """The demonstrations themselves."""
        return self

    def observations(self) -> torch.Tensor:
        """All observations of the split, pictures apart, shape (N, D)."""
        return self._pairs[self._index, : self._vector]

    def actions(self) -> torch.Tensor:
        """All actions of the split, shape (N, A)."""
        return self._pairs[self._index, self._vector : self._vector + self._sizes[1]]

    def mean_pixels(self) -> torch.Tensor:
        """Mean of each pixel of the split's pictures, over MEAN_OF observations at most, (pixels,)."""
        rows = spread_rows(self._picture_rows.numpy(), MEAN_OF)
        total = [torch.zeros(0, dtype=torch.float64)]
        for leaf in self._pictures:
            sums = np.zeros(math.prod(leaf.shown), np.int64)
            for some in np.array_split(rows, -(-len(rows) // AT_ONCE)):
                sums += self._table.pictures_of(leaf, some).reshape(len(some), -1).sum(axis=0, dtype=np.int64)
            total.append(torch.from_numpy(sums / len(rows)))
        return torch.cat(total).float()

    def initial_observations(self, generator: torch.Generator) -> torch.Tensor:
        """First observations of the split's episodes, all or INITIAL_OBSERVATIONS of them, shape (B0, D)."""
        assert self._initial is not None
        if len(self._initial) <= INITIAL_OBSERVATIONS:
            return self._initial
        drawn = torch.randint(len(self._initial), (INITIAL_OBSERVATIONS,), generator=generator)
        return self._initial[drawn.to(self.device)]

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Endless batches; `generator` is a CPU one, so that a seed draws the same rows on any device."""
        while True:
            drawn = torch.randint(len(self), (DRAWN_AHEAD * batch_size,), generator=generator)
            for positions in torch.split(drawn.to(self.device), self._gathered_together(batch_size) * batch_size):
                yield from self._apart(self.gather(positions), batch_size)

    def gather(self, positions: torch.Tensor) -> Batch:
        """The transitions at those positions of the split, in order."""
        both = self._pairs.index_select(0, self._index.index_select(0, positions))
        observations, actions, _, terminations, next_observations, _ = both.split_with_sizes(self._sizes, dim=1)
        if self._pictures:
            observations, next_observations = self._with_pictures(positions, observations, next_observations)
        if self._discrete:
            actions = actions[:, 0].long()
        return Batch(observations, actions, next_observations, terminations[:, 0])

    def _gathered_together(self, batch_size: int) -> int:
        """Batches that are gathered at once: as many small ones as stay in a processor's cache."""
        held = batch_size * self._pairs.shape[1] * self._pairs.element_size()
        return 1 if self._pictures else max(1, min(DRAWN_AHEAD, GATHERED_BYTES // held))

    def _apart(self, batch: Batch, batch_size: int) -> Iterator[Batch]:
        """Batches of one that was gathered for several, as views of it."""
        tensors = (batch.observations, batch.actions, batch.next_observations, batch.terminations)
        yield from map(Batch, *(torch.unflatten(tensor, 0, (-1, batch_size)).unbind() for tensor in tensors))

    def _with_pictures(
        self, positions: torch.Tensor, observations: torch.Tensor, next_observations: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both with their pictures behind their numbers, (B, D). A frame of both is copied and widened once."""
        rows = self._picture_rows[positions.cpu()].numpy()
        here, later = [observations], [next_observations]
        for leaf in self._pictures:
            pixels, size = self._pixels(leaf, rows, following=1), math.prod(leaf.shape)
            here.append(pixels[:, :-size])
            later.append(pixels[:, size:])
        return _side_by_side(here), _side_by_side(later)

    def _first_observations(self, table: TransitionTable, rows: Rows) -> torch.Tensor:
        vector = torch.from_numpy(table.observations(rows)).to(self.device)
        return _side_by_side([vector, *(self._pixels(leaf, rows) for leaf in self._pictures)])

    def _pixels(self, leaf: Leaf, rows: Rows, following: int = 0) -> torch.Tensor:
        """A leaf's pictures as `pictures_of` has them, flat, 32-bit floats that widen on the device, (B, pixels)."""
        pictures = self._table.pictures_of(leaf, rows, following).reshape(len(rows), -1)
        return torch.from_numpy(pictures).to(self.device).float()


def _side_by_side(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Columns of all parts, (B, D); a view where only one has any."""
    held = [part for part in parts if part.shape[1]]
    return held[0] if len(held) == 1 else torch.cat(list(parts), dim=1)


class SupplementarySampler:
    """Draws over the transitions of several tables together: uniformly, or in proportion to `weights` (N,)."""

    def __init__(self, parts: Sequence[TransitionSampler], weights: NDArray[np.float64] | None = None) -> None:
        self._parts = parts
        self._summed = None if weights is None else torch.from_numpy(np.cumsum(weights))
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self.layout = parts[0].layout

    def __len__(self) -> int:
        return int(self._ends[-1])

    def observations(self) -> torch.Tensor:
        """All observations, pictures apart, shape (N, D)."""
        return torch.cat([part.observations() for part in self._parts])

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Endless batches, each table's share of one as large as chance has it."""
        if len(self._parts) == 1 and self._summed is None:
            yield from self._parts[0].batches(batch_size, generator)
        while True:
            for positions in self._drawn((DRAWN_AHEAD, batch_size), generator):
                yield self._gather(positions)

    def _drawn(self, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        if self._summed is None:
            return torch.randint(len(self), shape, generator=generator)
        points = torch.rand(shape, dtype=torch.float64, generator=generator) * self._summed[-1]
        return torch.searchsorted(self._summed, points, right=True).clamp_max(len(self) - 1)

    def _gather(self, positions: torch.Tensor) -> Batch:
        pieces, start = [], 0
        for part, end in zip(self._parts, self._ends.tolist(), strict=True):
            here = positions[(positions >= start) & (positions < end)] - start
            pieces.append(part.gather(here.to(part.device)))
            start = end
        return joined(pieces)


class DemonstrationMixture:
    """Demonstrations, and more transitions that are taken for such, as one sampler of them."""

    def __init__(self, expert: TransitionSampler, more: SupplementarySampler, expert_share: float) -> None:
        self.proper, self._more, self._expert_share = expert, more, expert_share
        self.layout, self.device = expert.layout, expert.device

    def observations(self) -> torch.Tensor:
        """All observations of both, pictures apart, shape (N, D)."""
        return torch.cat([self.proper.observations(), self._more.observations()])

    def initial_observations(self, generator: torch.Generator) -> torch.Tensor:
        """First observations of the demonstrations proper, shape (B0, D)."""
        return self.proper.initial_observations(generator)

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Endless batches, `expert_share` of each of the demonstrations proper, which come first."""
        expert_size, other_size = sizes(batch_size, self._expert_share)
        if other_size == 0:
            yield from self.proper.batches(expert_size, generator)
        both = self.proper.batches(expert_size, generator), self._more.batches(other_size, generator)
        yield from map(joined, zip(*both, strict=True))


Demonstrations = TransitionSampler | DemonstrationMixture


def joined(pieces: Sequence[Batch]) -> Batch:
    """Batches one after the other."""
    return Batch(
        observations=torch.cat([piece.observations for piece in pieces]),
        actions=torch.cat([piece.actions for piece in pieces]),
        next_observations=torch.cat([piece.next_observations for piece in pieces]),
        terminations=torch.cat([piece.terminations for piece in pieces]),
    )


def sizes(batch_size: int, expert_share: float) -> tuple[int, int]:
    """Expert and other transitions of a batch; at least one of each where there is room."""
    expert = min(max(1, round(batch_size * expert_share)), max(1, batch_size - 1))
    return expert, batch_size - expert


def beside(
    expert: Iterator[Batch],
    supplementary: Iterator[Batch] | None,
    initial: Iterator[torch.Tensor] | None,
) -> Iterator[Batch]:
    """Expert batches with supplementary ones, and with first observations, where there are any."""
    if supplementary is None and initial is None:
        yield from expert
    for batch in expert:
        yield replace(
            batch,
            supplementary=None if supplementary is None else next(supplementary),
            initial_observations=None if initial is None else next(initial),
        )


def observation_layout(table: TransitionTable) -> ObservationLayout:
    """What the table's flat observations are made of."""
    pictures = tuple(leaf.shown for leaf in table.layout if leaf.file)
    return ObservationLayout(table.observation_size, pictures, table.categories, table.offset)


def evenly_spread(table: TransitionTable, rows: Rows, most: int, device: torch.device) -> Batch:
    """At most so many of those rows' transitions, evenly spread."""
    spread = spread_rows(rows, most)
    return TransitionSampler(table, spread, device).gather(torch.arange(len(spread), device=device))


def spread_rows(rows: Rows, most: int) -> Rows:
    """At most so many of those rows, evenly spread."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)
    return np.asarray(rows[places])
