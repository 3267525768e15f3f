"""What 32 bits lose of a source's 64: found while it is read, so that only data that need it are read again.

Numbers like 1.7e9 + 0.05 t or UTM coordinates vary by less than the spacing of 32-bit floats of their size. Less an
offset they do not: the offset is subtracted in 64 bits, before the numbers are narrowed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.categories import name_of
from iq_offline.data.episodes import EpisodeSource, Segment
from iq_offline.data.observations import Array, flat, less

LEVELS = 1024.0
"""A column whose values spread over less than 1 / LEVELS of the largest of them gets an offset."""
SMALLEST_SPREAD = 0.01
"""Columns that spread over less are taken to spread so far: networks divide by no deviation below 0.001."""
LARGE = 2.0**20
"""Of values from here on, distinct ones are counted in 64 and in 32 bits."""
EXACT_INTEGERS = 2.0**24
"""Up to here 32-bit floats hold every integer."""
SAMPLED_ROWS = 64
HELD_ROWS = 4096
"""Rows of short episodes that are looked at together."""
MOST_COUNTED = 10_000_000
"""Distinct values are counted among at most so many."""

Floats64 = NDArray[np.float64]


def is_wide(dtype: np.dtype[Any]) -> bool:
    """Whether an array of this type can hold what 32-bit floats do not."""
    return (dtype.kind == "f" and dtype.itemsize > 4) or (dtype.kind in "iu" and dtype.itemsize >= 4)


class Spread:
    """Least and greatest of each column of one array, in its own type, as long as the column spreads little."""

    def __init__(self, width: int, dtype: np.dtype[Any]) -> None:
        self.watched = np.arange(width)
        """The columns that spread little so far; most are left out within a few rows."""
        self.low = self.high = np.zeros(0, dtype)
        self._integers = dtype.kind in "iu"
        self._held: list[Array] = []
        self._held_rows = 0

    def include(self, values: Array) -> None:
        """The next values, (n, width)."""
        if len(self.watched) == 0 or len(values) == 0:
            return
        if len(self.low) == 0:
            self.low = self.high = values[0].copy()
            self._extend(values[: 2 * SAMPLED_ROWS])
        if len(values) > 2 * SAMPLED_ROWS:
            self._settle()
            self._extend(values[:: len(values) // SAMPLED_ROWS][:, self.watched])
        if len(self.watched):
            self._held.append(values[:, self.watched])
            self._held_rows += len(values)
        if self._held_rows >= HELD_ROWS:
            self._settle()

    def _settle(self) -> None:
        """Take account of the rows that wait to be looked at together."""
        if self._held:
            held, self._held, self._held_rows = np.concatenate(self._held), [], 0
            self._extend(held)

    def _extend(self, here: Array) -> None:
        """Values of the watched columns."""
        if len(self.watched) == 0 or len(here) == 0:
            return
        self.low, self.high = np.minimum(self.low, here.min(axis=0)), np.maximum(self.high, here.max(axis=0))
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        little = (low.astype(np.float32) == high.astype(np.float32)) | _too_narrow(low, high)
        if not little.all():
            self.watched, self.low, self.high = self.watched[little], self.low[little], self.high[little]
            self._held = [rows[:, little] for rows in self._held]

    def offsets(self) -> dict[int, float]:
        """By column, where 32 bits are too few for the values themselves."""
        self._settle()
        if len(self.watched) == 0 or len(self.low) == 0:
            return {}
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        needed = (self.low != self.high) & _too_narrow(low, high)
        if self._integers:
            needed &= np.maximum(abs(low), abs(high)) > EXACT_INTEGERS
        return {
            int(column): _below(least) if self._integers else float(np.round(low[place] / 2 + high[place] / 2))
            for place, (column, least) in enumerate(zip(self.watched, self.low, strict=True))
            if needed[place]
        }

    def unseen(self) -> list[int]:
        """Columns that change, but by less than 32-bit floats of their size can tell."""
        self._settle()
        if len(self.watched) == 0 or len(self.low) == 0:
            return []
        same = self.low.astype(np.float32) == self.high.astype(np.float32)
        return [int(column) for column in self.watched[(self.low != self.high) & same]]


Column = tuple[str, str, int]
"""observations, actions or rewards; the array's path, and the column in it."""


class Precision:
    """What 32 bits lose of a source's wider arrays."""

    def __init__(self, numbers: dict[str, tuple[int, int]], observation_size: int, width: int) -> None:
        """`numbers`: where the observation arrays lie that are not categories; `width`: of a row of the table."""
        self._numbers, self._size = numbers, observation_size
        self._spreads: dict[tuple[str, str], Spread] = {}
        self._large = np.zeros(width, bool)

    def include(self, segment: Segment) -> None:
        """The next segment, with the last observation where it has one."""
        for path in self._numbers:
            self._watch("observations", path, segment.observations[path])
            if segment.end is not None:
                self._watch("observations", path, segment.end.observations[path][None])
        if segment.actions.dtype.kind == "f":
            self._watch("actions", "", segment.actions)
        self._watch("rewards", "", segment.rewards)

    def note_large(self, rows: NDArray[np.float32]) -> None:
        """Rows of the table among which there are large values, or very many."""
        self._large |= np.abs(rows).max(axis=0) >= LARGE

    def offsets(self) -> dict[str, Floats64]:
        """By the path of each observation array that needs some: of its columns, zero where one needs none."""
        found = {}
        for (kind, path), spread in self._spreads.items():
            if kind == "observations" and (offsets := spread.offsets()):
                start, stop = self._numbers[path]
                found[path] = np.zeros(stop - start)
                found[path][list(offsets)] = list(offsets.values())
        return found

    def report(self, source: EpisodeSource, offsets: dict[str, Floats64]) -> dict[str, Any]:
        """For `table.json`: distinct values that are lost, by column, and observation columns that change unseen.

        The source is read once more where a column has large values, or an offset.
        """
        columns = [(*key, column) for key, spread in self._spreads.items() for column in self._suspects(key, spread)]
        unseen = [
            self._numbers[path][0] + column
            for (kind, path), spread in self._spreads.items()
            if kind == "observations"
            for column in sorted(set(spread.unseen()) - set(spread.offsets()))
        ]
        return {"lost": _lost(source, columns, offsets), "unseen": unseen}

    def _watch(self, kind: str, path: str, values: Array) -> None:
        if not is_wide(values.dtype):
            return
        columns = flat(values)
        if (kind, path) not in self._spreads:
            self._spreads[kind, path] = Spread(columns.shape[1], values.dtype)
        self._spreads[kind, path].include(columns)

    def _suspects(self, key: tuple[str, str], spread: Spread) -> list[int]:
        """Columns of an array whose distinct values are worth counting."""
        kind, path = key
        if kind == "observations":
            large = self._large[slice(*self._numbers[path])]
        else:
            large = self._large[self._size : -2] if kind == "actions" else self._large[-2:-1]
        return sorted({*spread.offsets(), *np.flatnonzero(large).tolist()})


def _lost(source: EpisodeSource, columns: list[Column], offsets: dict[str, Floats64]) -> list[dict[str, Any]]:
    """Of those columns, the ones that have fewer distinct values in 32 bits than in the source: both counts of each."""
    parts: dict[Column, list[tuple[Array, Array]]] = {column: [] for column in columns}
    if columns:
        with np.errstate(over="ignore", invalid="ignore"):
            for segment in source.segments():
                for kind, path, number in columns:
                    array = segment.observations[path] if kind == "observations" else getattr(segment, kind)
                    values = flat(array)[:, number].copy()
                    known = kind == "observations" and path in offsets
                    narrowed = less(values, offsets[path][number]) if known else values.astype(np.float32)
                    parts[kind, path, number].append((values, narrowed))
    found = []
    for (kind, path, number), pieces in parts.items():
        values, narrowed = (np.concatenate(arrays)[:MOST_COUNTED] for arrays in zip(*pieces, strict=True))
        name = kind if kind == "rewards" else f"{name_of(path) if kind == 'observations' else kind}[{number}]"
        distinct, kept = len(np.unique(values)), len(np.unique(narrowed))
        if kept < distinct:
            found.append({"name": name, "distinct": distinct, "kept": kept})
    return found


def _too_narrow(low: Floats64, high: Floats64) -> NDArray[np.bool_]:
    largest = np.maximum(abs(low), abs(high))
    narrow: NDArray[np.bool_] = np.maximum(high - low, SMALLEST_SPREAD) * LEVELS < largest
    return narrow


def _below(integer: Any) -> float:
    """The greatest 64-bit float that is no more than an integer."""
    number = float(integer)
    return number if int(number) <= int(integer) else float(np.nextafter(number, -np.inf))
