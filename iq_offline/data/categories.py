"""Which numbers of an observation are categories: decided by the space that the data or their environment declare."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.declared import leaf_spaces
from iq_offline.errors import DatasetUnreadable

MOST_CATEGORIES = 16_384
"""An array with more categories in all is read as numbers: its first layer of weights would be too large."""

MANY_INTEGERS = 16
"""Whole numbers that reach over so many or more, and that nothing declares, may be categories."""
SAMPLED_ROWS = 64
READ_ROWS = 1 << 16

Array = NDArray[Any]


@dataclass(frozen=True)
class Categories:
    """Of one array, flat: how many categories each of its integers tells apart, and the least of them."""

    counts: tuple[int, ...]
    starts: tuple[int, ...]

    def outside(self, values: Array) -> Array:
        """The values, (n, D), that are none of the categories."""
        numbers = values.astype(np.float64) - np.array(self.starts)
        inside = (numbers >= 0) & (numbers < np.array(self.counts)) & (numbers == np.floor(numbers))
        found: Array = values[~inside]
        return found


@dataclass(frozen=True)
class DeclaredSpace:
    """The arrays that an observation space declares, by path: categories, None for numbers of any other kind."""

    arrays: dict[str, Categories | None]

    @classmethod
    def of(cls, space: dict[str, Any] | None, source: str) -> "DeclaredSpace":
        """From a space as Minari describes it in JSON. Raises DatasetUnreadable where it is no such description."""
        if space is None:
            return cls({})
        try:
            return cls({path: _categories(leaf) for path, leaf in leaf_spaces(space).items()})
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DatasetUnreadable(
                f"{source}: its observation space is not as Minari describes spaces ({type(error).__name__}: {error})",
                "correct the space in metadata.json, or fetch the dataset again",
            ) from None

    def categories(self) -> dict[str, Categories]:
        """Of the arrays that have not too many."""
        known = ((path, found) for path, found in self.arrays.items() if found)
        return {path: found for path, found in known if sum(found.counts) <= MOST_CATEGORIES}

    def notes(self) -> list[str]:
        """What is read in another way than it is declared."""
        return [
            f"{name_of(path)} has {sum(found.counts):,} categories, more than {MOST_CATEGORIES:,}: read as numbers"
            for path, found in self.arrays.items()
            if found and sum(found.counts) > MOST_CATEGORIES
        ]


class UndeclaredIntegers:
    """The columns of whole numbers that no space declares: they may be categories, which numbers do not tell apart."""

    def __init__(self, columns: dict[int, float]) -> None:
        """`columns`: those to look at, and what has been subtracted from each."""
        self._columns = np.array(list(columns), np.int64)
        self._offsets = np.array(list(columns.values()), np.float64)
        self._low = np.full(len(columns), np.inf)
        self._high = np.full(len(columns), -np.inf)

    def include(self, rows: NDArray[np.float32]) -> None:
        """The next rows of the table; some of them, evenly spread, are looked at."""
        if len(self._columns) and len(rows):
            self._look(rows[:: max(1, len(rows) // SAMPLED_ROWS), self._columns])

    def ranges(self, rows: Path, shape: tuple[int, int]) -> list[tuple[float, float]]:
        """Least and greatest of each such column with many values; the written rows are read to make sure."""
        self._keep(self._high - self._low >= MANY_INTEGERS)
        if len(self._columns):
            written = np.memmap(rows, dtype=np.float32, mode="r", shape=shape)
            for first in range(0, len(written), READ_ROWS):
                self._look(written[first : first + READ_ROWS, self._columns])
        low, high = self._low + self._offsets, self._high + self._offsets
        return list(zip(low.tolist(), high.tolist(), strict=True))

    def _look(self, values: NDArray[np.float32]) -> None:
        self._low = np.minimum(self._low, values.min(axis=0))
        self._high = np.maximum(self._high, values.max(axis=0))
        self._keep((values == np.rint(values)).all(axis=0))

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self._columns, self._offsets = self._columns[kept], self._offsets[kept]
        self._low, self._high = self._low[kept], self._high[kept]


def undeclared_note(dimensions: int, low: float, high: float) -> str:
    """What is said of such columns."""
    return (
        f"{dimensions} observation dimensions hold whole numbers from {low:.0f} to {high:.0f} that no space declares: "
        "read as real numbers; where they name categories, use a Minari dataset that declares them as Discrete"
    )


def name_of(path: str) -> str:
    """An observation array in words."""
    return f"observations['{path}']" if path else "observations"


def _categories(space: Mapping[str, Any]) -> Categories | None:
    if space["type"] == "Discrete":
        counts, starts = [space["n"]], [space.get("start", 0)]
    elif space["type"] == "MultiDiscrete":
        counts = np.ravel(space["nvec"]).tolist()
        starts = np.ravel(space.get("start", [0] * len(counts))).tolist()
    else:
        return None
    if not all(type(count) is int and 0 < count < math.inf for count in counts) or len(counts) != len(starts):
        raise ValueError(f"{space['type']} of {counts} from {starts}")
    return Categories(tuple(counts), tuple(map(int, starts)))
