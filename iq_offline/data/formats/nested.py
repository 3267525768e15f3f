"""Arrays out of plain containers from elsewhere, at a cost that the file's own size bounds.

In a pickle a list may hold another many times, and that one a third: a few bytes that are endless once walked. So
entries walked and bytes made are counted against the file.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.formats.plain_numbers import brief, is_bomb
from iq_offline.data.observations import Leaves
from iq_offline.errors import DatasetUnreadable

Array = NDArray[Any]
MAX_DEPTH = 8
FREE_WALKS = 1 << 20
WALKS_PER_BYTE = 4


class Unpacker:
    """Makes arrays of what a file of `held` bytes held. Raises DatasetUnreadable, naming the file and the place."""

    def __init__(self, source: str, held: int) -> None:
        self.source = source
        self._held, self._walked, self._made = held, 0, 0

    def leaves(self, value: object, place: str) -> Leaves:
        """Observations by path: one array, or those of a dictionary or of a list of dictionaries."""
        if isinstance(value, Mapping):
            found: Leaves = {}
            self._walk(len(value), place)
            for name, inner in value.items():
                if not isinstance(name, str) or place.count("/") > MAX_DEPTH:
                    raise self.unusable(place, "is a dictionary of something else than named arrays")
                for path, array in self.leaves(inner, f"{place}/{name}").items():
                    found[f"{name}/{path}" if path else name] = array
            return found
        entries = entries_of(value)
        if entries and isinstance(entries[0], Mapping):
            return self.leaves(self.transposed(entries, place), place)
        return {"": self.array(value, place)}

    def transposed(self, entries: list[Any], place: str) -> dict[str, list[Any]]:
        """A list of dictionaries, one a step, as a dictionary of lists."""
        self._walk(len(entries), place)
        names = entries[0].keys()
        for number, entry in enumerate(entries):
            if not isinstance(entry, Mapping) or entry.keys() != names:
                raise self.unusable(place, f"has other keys in its entry {number} than in the first")
        self._walk(len(entries) * len(names), place)
        return {name: [entry[name] for entry in entries] for name in names}

    def array(self, value: object, place: str, depth: int = 0) -> Array:
        """Numbers: an array, or lists of equal arrays or numbers as one."""
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._make(value.nbytes, place)
            return self._checked(value, place)
        entries = entries_of(value)
        if entries is None:
            if not isinstance(value, bool | int | float | np.generic):
                raise self.unusable(place, f"holds {brief(value)}, not numbers")
            return self._checked(np.asarray(value), place)
        if depth > MAX_DEPTH:
            raise self.unusable(place, "is lists inside lists without end")
        self._walk(len(entries), place)
        if all(isinstance(entry, bool | int | float) for entry in entries):
            self._make(8 * len(entries), place)
            return self._checked(np.asarray(entries), place)
        parts = [self.array(entry, place, depth + 1) for entry in entries]
        for number, part in enumerate(parts):
            if part.shape != parts[0].shape:
                raise self.unusable(
                    place, f"has shape {part.shape} in its entry {number}, {parts[0].shape} in the first"
                )
        self._make(sum(part.nbytes for part in parts), place)
        return np.stack(parts)

    def unusable(self, place: str, what: str) -> DatasetUnreadable:
        """An error about what lies at a place of the file."""
        return DatasetUnreadable(f"{self.source}: {place} {what}", "store arrays with one entry a step")

    def _checked(self, array: Array, place: str) -> Array:
        if array.dtype.kind not in "biuf":
            raise self.unusable(place, f"holds {array.dtype}, not numbers")
        return array

    def _walk(self, entries: int, place: str) -> None:
        self._walked += entries
        if self._walked > FREE_WALKS + WALKS_PER_BYTE * self._held:
            raise self.unusable(place, f"unfolds into {self._walked} entries and more, from {self._held} bytes")

    def _make(self, size: int, place: str) -> None:
        self._made += size
        if is_bomb(self._made, self._held):
            raise self.unusable(place, f"unfolds into {self._made / 1e9:,.2f} GB from {self._held / 1e6:,.2f} MB")


def entries_of(value: object) -> list[Any] | None:
    """The entries of a list, tuple or array of objects; None for anything else."""
    if isinstance(value, list):
        return value
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, np.ndarray) and value.dtype.hasobject and value.ndim:
        return list(value)
    return None


def depth_of(value: object) -> int:
    """How many indices it takes, by first entries, to come to one number; dictionaries do not count."""
    depth = 0
    for _ in range(2 * MAX_DEPTH):
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return depth + value.ndim
        if isinstance(value, Mapping):
            value = next(iter(value.values()), None)
            continue
        entries = entries_of(value)
        if entries is None:
            break
        value, depth = entries[0] if entries else None, depth + 1
    return depth
