"""Pickled and .npy demonstrations: dictionaries and rows, as IQ-Learn, rlkit and many courses keep them.

Read are: a list of dictionaries, one an episode or one a step; a dictionary of lists, one entry an episode; a
dictionary of flat arrays, with `lengths` or flags; and rows of [observation, next observation, action, reward, done].
Keys may be singular or plural, and have the names of KEYS. Nothing of the file runs: see `pickles`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from iq_offline.data.episodes import DatasetInfo, EpisodeSource, Segment
from iq_offline.data.formats import numpy_files, pickles
from iq_offline.data.formats.hdf5 import action_array, column, flags
from iq_offline.data.formats.nested import Unpacker, depth_of, entries_of
from iq_offline.data.formats.plain_numbers import brief
from iq_offline.data.formats.recordings import Flags, Recording, Rows
from iq_offline.data.formats.step_keys import (
    FLAG_KEYS,
    KEYS,
    Ends,
    check_unused,
    combined,
    ends_of,
    meaning,
    refuse_other_layout,
    settled,
)
from iq_offline.data.observations import Array, Leaves, map_leaves
from iq_offline.errors import DatasetUnreadable, InvalidEpisode

ROW = ("observations", "next_observations", "actions", "rewards", "dones")


def read(path: Path, name: str, ends: str = Ends.AUTO) -> EpisodeSource:
    """The episodes of a .pkl or .npy file, which is held in memory. Raises DatasetUnreadable, or InvalidEpisode later.

    `ends` decides what the ends of a layout with one flag are; see `step_keys`.
    """
    content = numpy_files.read_npy(path) if path.suffix == ".npy" else pickles.load(path)
    return from_content(content, path, name, Ends(ends), "dictionaries")


def from_content(content: object, path: Path, name: str, ends: Ends, layout: str) -> EpisodeSource:
    """The episodes in what a file held. Raises DatasetUnreadable, or InvalidEpisode while iterating."""
    reader = _Reader(path)
    found = reader.recordings(content)
    if not found:
        raise DatasetUnreadable(f"{path} has no episodes", "use a file that has data")
    recordings, notes = _settled(found, path, ends)
    if reader.left_out:
        notes.append(f"left out, being no step's data: {', '.join(sorted(reader.left_out))}")
    notes += sorted(reader.flags_left_out)
    info = DatasetInfo(name=name, path=str(path), format=layout, notes=tuple(notes))
    return EpisodeSource(info, stream=partial(_segments, recordings))


@dataclass(frozen=True)
class _Found:
    """Steps that are one episode or more, and their flags, (steps,); none where there is a fault."""

    rows: Rows
    terminated: Flags
    truncated: Flags
    ended: Flags
    """Ends of a kind that the layout does not tell."""
    one_episode: bool
    """Whether its source says that it is one episode, so that no flag may lie before its last step."""
    has_rewards: bool = True
    fault: InvalidEpisode | None = None

    @classmethod
    def broken(cls, fault: InvalidEpisode) -> "_Found":
        none, no_flags = np.zeros(0), np.zeros(0, dtype=bool)
        return cls(Rows({}, {}, none, none), no_flags, no_flags, no_flags, one_episode=True, fault=fault)

    def checked(self, path: Path, number: int) -> "_Found":
        """With a fault where a flag marks an end within its one episode, which has that number."""
        early = np.flatnonzero((self.terminated | self.truncated | self.ended)[:-1])
        if not (self.one_episode and len(early)):
            return self
        problem = f"{path}: episode {number} ends at its step {early[0]}, but has {len(self.rows)} steps"
        return self.broken(InvalidEpisode(problem, "split it there"))

    def stops(self) -> Array:
        """The last steps of its episodes."""
        flagged = self.terminated | self.truncated | self.ended
        ends = [*np.flatnonzero(flagged), *self.rows.discontinuities(flagged), len(self.rows) - 1]
        return np.unique(np.array(ends if len(self.rows) else [], dtype=np.int64))


def _settled(found: list[_Found], path: Path, ends: Ends) -> tuple[list[Recording], list[str]]:
    """The recordings, once the kinds of all ends are decided among all their episodes; and what had to be decided."""
    checked: list[_Found] = []
    stops: list[Array] = []
    for item in found:
        checked.append(item.checked(path, sum(max(1, len(some)) for some in stops)))
        stops.append(checked[-1].stops())
    cuts = np.cumsum([len(item.rows) for item in checked])
    stops = [start + some for start, some in zip((0, *cuts), stops, strict=False)]
    terminated, truncated, ended = (
        np.concatenate([getattr(item, key) for item in checked]) for key in ("terminated", "truncated", "ended")
    )
    terminated, truncated, notes = settled(terminated, truncated, ended, np.concatenate(stops), ends)
    if not all(item.has_rewards for item in checked):
        notes.append("it records no rewards: zeros stand in their place")
    flags_of = zip(np.split(terminated, cuts[:-1]), np.split(truncated, cuts[:-1]), strict=True)
    return [
        Recording(partial(_all, item.rows), *both, rows_at_a_time=max(1, len(item.rows)), fault=item.fault)
        for item, both in zip(checked, flags_of, strict=True)
    ], notes


def _all(rows: Rows, _: slice) -> Rows:
    return rows


def _segments(recordings: list[Recording], *, infos: bool, reuse: bool) -> Iterator[Segment]:  # noqa: ARG001
    return chain.from_iterable(recording.segments() for recording in recordings)


class _Reader:
    """Makes recordings of one file's content, and keeps what it left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unpack = Unpacker(str(path), path.stat().st_size)
        self.left_out: set[str] = set()
        self.flags_left_out: set[str] = set()

    def recordings(self, content: object) -> list[_Found]:
        """What the content holds, whatever its layout."""
        if isinstance(content, np.ndarray) and content.dtype.hasobject and content.ndim == 0:
            content = content[()]
        if isinstance(content, Mapping):
            return self._of_dictionary(self._named(content, ""))
        entries = entries_of(content)
        if entries and all(isinstance(entry, Mapping) for entry in entries):
            return self._of_dictionaries(entries)
        if entries and all(_is_row(entry) for entry in entries):
            return self._of_dictionary({key: [row[place] for row in entries] for place, key in enumerate(ROW)})
        raise DatasetUnreadable(
            f"{self._path} holds neither dictionaries nor rows of five ({', '.join(ROW)})",
            f"store a dictionary with the keys {', '.join(KEYS)}",
        )

    def _of_dictionaries(self, entries: list[Any]) -> list[_Found]:
        named = [self._named(entry, f" in entry {number}") for number, entry in enumerate(entries)]
        columns = _columns(named[0])
        if columns and depth_of(named[0][columns[0]]) == 0:
            return self._of_dictionary(self._unpack.transposed(named, "its list of steps"))
        return [self._of_episode(entry, number) for number, entry in enumerate(named)]

    def _of_dictionary(self, named: dict[str, Any]) -> list[_Found]:
        if not _is_nested(named):
            return self._of_flat(named)
        counts = {key: _count(value) for key, value in named.items()}
        if len(set(counts.values())) != 1:
            raise InvalidEpisode(f"{self._path}: unequal numbers of episodes ({_listed(counts)})", "give all as many")
        return [
            self._of_episode({key: _entry(value, number) for key, value in named.items()}, number)
            for number in range(counts["actions"])
        ]

    def _of_episode(self, named: dict[str, Any], number: int) -> _Found:
        place = f"episode {number}"
        length = named.pop("lengths", None)
        recording = self._recording(named, place, one_episode=True)
        if recording.fault is None and isinstance(length, int | np.integer) and length != len(recording.rows):
            problem = f"{place} has {len(recording.rows)} actions, its entry in lengths is {_number(length)}"
            return _Found.broken(InvalidEpisode(f"{self._path}: {problem}", "give it its own length"))
        return recording

    def _of_flat(self, named: dict[str, Any]) -> list[_Found]:
        lengths = named.pop("lengths", None)
        if lengths is None and not _flags(named):
            raise DatasetUnreadable(
                f"{self._path} does not tell where its episodes end: it has neither lengths nor a flag",
                f"add lengths, or one of {', '.join(FLAG_KEYS[:4])}",
            )
        if lengths is None:
            return [self._recording(named, "", one_episode=False)]
        counts = self._unpack.array(lengths, "lengths")
        if counts.ndim != 1 or counts.dtype.kind not in "iu" or (counts < 1).any():
            raise DatasetUnreadable(f"{self._path}: lengths are not positive whole numbers, one an episode", "mend it")
        return self._cut_by_lengths(named, counts)

    def _cut_by_lengths(self, named: dict[str, Any], lengths: Array) -> list[_Found]:
        arrays = self._arrays(named, "")
        steps, total = len(arrays.actions), int(lengths.sum(dtype=np.int64))
        if steps != total:
            raise InvalidEpisode(f"{self._path} has {steps} actions, its lengths add up to {total}", "mend lengths")
        fault = arrays.fault(str(self._path), steps + len(lengths))
        if fault is not None:
            raise fault
        found: list[_Found] = []
        stops = np.cumsum(lengths).tolist()
        for number, (stop, length) in enumerate(zip(stops, lengths.tolist(), strict=True)):
            part = arrays.episode(slice(stop - length, stop), number)
            found.append(part.recording(f"{self._path}: episode {number}", one_episode=True))
        return found

    def _recording(self, named: dict[str, Any], place: str, *, one_episode: bool) -> _Found:
        where = f"{self._path}: {place}" if place else str(self._path)
        return self._arrays(named, place).recording(where, one_episode=one_episode)

    def _arrays(self, named: dict[str, Any], place: str) -> "_Arrays":
        prefix = f"{place}, " if place else ""
        nexts = named.get("next_observations")
        return _Arrays(
            observations=self._unpack.leaves(named["observations"], f"{prefix}observations"),
            successors={} if nexts is None else self._unpack.leaves(nexts, f"{prefix}next_observations"),
            actions=action_array(self._unpack.array(named["actions"], f"{prefix}actions"), self._path),
            columns={
                key: column(self._unpack.array(named[key], f"{prefix}{key}"), f"{prefix}{key}", self._path)
                for key in _columns(named)
            },
        )

    def _named(self, content: Mapping[Any, Any], where: str) -> dict[str, Any]:
        """The dictionary with our names for its keys; the rest is noted as left out."""
        refuse_other_layout([key for key in content if isinstance(key, str)], self._path)
        found: dict[str, Any] = {}
        used: set[object] = set()
        for ours, names in KEYS.items():
            for name in names:
                if name in content and (ours not in found or ours in FLAG_KEYS):
                    found[name if ours in FLAG_KEYS else ours] = content[name]
                    used.add(name)
        for ours in ("observations", "actions"):
            if ours not in found:
                has = ", ".join(map(_shown, list(content)[:20])) or "nothing"
                raise DatasetUnreadable(
                    f"{self._path}: the key '{ours}' is missing{where} (it has: {has})",
                    f"name it one of {', '.join(KEYS[ours])}",
                )
        unused = [key for key in content if key not in used][:20]
        self.left_out |= set(map(_shown, unused))
        for key in unused:
            self._check_unused(_shown(key), content[key], _count(found["actions"]))
        return found

    def _check_unused(self, name: str, value: object, steps: int) -> None:
        """Say what flags are not read. Raises DatasetUnreadable for those that may mark ends of episodes."""
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.ndim not in (1, 2):
            return
        if value.size == len(value) == steps:
            told = check_unused(name, value.reshape(-1), self._path)
            self.flags_left_out |= {told} if told else set()


@dataclass(frozen=True)
class _Arrays:
    """The arrays of one dictionary; their lengths are checked when they become a recording."""

    observations: Leaves
    successors: Leaves
    actions: Array
    columns: dict[str, Array]

    def episode(self, rows: slice, number: int) -> "_Arrays":
        """Those of one episode; observations may have one more row an episode, each array for itself."""
        longer = slice(rows.start + number, rows.stop + number + 1)
        return _Arrays(
            map_leaves(lambda array: array[longer if _rows(array) > len(self.actions) else rows], self.observations),
            map_leaves(lambda array: array[rows], self.successors),
            self.actions[rows],
            map_leaves(lambda array: array[rows], self.columns),
        )

    def recording(self, where: str, *, one_episode: bool) -> _Found:
        """One recording, or what is wrong with its lengths."""
        steps = len(self.actions)
        fault = self.fault(where, steps + one_episode)
        if fault is not None:
            return _Found.broken(fault)
        observations = map_leaves(lambda array: array[:steps] if self.successors else array, self.observations)
        try:
            marks = combined({key: flags(self.columns[key], key, where) for key in _flags(self.columns)}, where)
            found = ends_of(marks, steps, where)
        except InvalidEpisode as contradiction:
            return _Found.broken(contradiction)
        rewards = self.columns.get("rewards", np.zeros(steps, dtype=np.float32))
        rows = Rows(observations, self.successors, self.actions, rewards)
        return _Found(rows, *found, one_episode=one_episode, has_rewards="rewards" in self.columns)

    def fault(self, where: str, also: int) -> InvalidEpisode | None:
        """What is wrong with the lengths and shapes; there may also be `also` observations."""
        steps = len(self.actions)
        if steps == 0:
            return InvalidEpisode(f"{where} has no steps", "leave it out")
        counts = {key: len(array) for key, array in self.columns.items()}
        counts |= {f"next_observations{_at(path)}": _rows(array) for path, array in self.successors.items()}
        wrong = {key: count for key, count in counts.items() if count != steps}
        for path, array in self.observations.items():
            if _rows(array) not in (steps, also):
                wrong[f"observations{_at(path)}"] = _rows(array)
        if wrong:
            return InvalidEpisode(f"{where} has unequal lengths (actions {steps}, {_listed(wrong)})", "make them equal")
        seen = {f"observations{_at(path)}": _rows(array) for path, array in self.observations.items()}
        if not self.successors and len(set(seen.values())) > 1:
            return InvalidEpisode(
                f"{where} has unequal lengths ({_listed(seen)}): only some have an observation after the last action",
                "give all of them one, or none",
            )
        shapes = [
            {path: array.shape[1:] for path, array in side.items()} for side in (self.observations, self.successors)
        ]
        if self.successors and shapes[0] != shapes[1]:
            return InvalidEpisode(
                f"{where} has observations of shape {shapes[0]}, next_observations of {shapes[1]}",
                "give both one shape",
            )
        return None


def _is_row(entry: object) -> bool:
    values = entries_of(entry)
    if values is None or len(values) != len(ROW):
        return False
    return depth_of(values[0]) > 0 and _is_single(values[3]) and _is_single(values[4])


def _is_single(value: object) -> bool:
    return depth_of(value) == 0 or _count(value) == 1


def _is_nested(named: dict[str, Any]) -> bool:
    """Whether the entries of the lists are episodes, not steps.

    A column of single entries may be either; then the depth of the observations decides, which is 2 for steps that
    are vectors, 3 for episodes of them, 4 for steps that are pictures, 5 for episodes of those.
    """
    for key in _columns(named)[:1]:
        if depth_of(named[key]) < 2:
            return False
        entries = named[key] if isinstance(named[key], np.ndarray) else entries_of(named[key]) or ()
        return not all(map(_is_single, entries)) or depth_of(named["observations"]) in (3, 5)
    if "lengths" in named:
        return _count(named["actions"]) == _count(named["lengths"])
    return depth_of(named["observations"]) > 2 and _count(named["observations"]) == _count(named["actions"])


def _columns(named: Iterable[str]) -> list[str]:
    return [key for key in named if key == "rewards"] + _flags(named)


def _flags(named: Iterable[str]) -> list[str]:
    """The keys of flags, which keep the file's own names, in the order of FLAG_KEYS."""
    flag_names = [key for key in named if meaning(key) in FLAG_KEYS]
    return sorted(flag_names, key=lambda key: FLAG_KEYS.index(meaning(key) or ""))


def _count(value: object) -> int:
    """Entries of a list or array; of a dictionary, those of its first."""
    if isinstance(value, Mapping):
        return _count(next(iter(value.values()), None))
    if isinstance(value, np.ndarray):
        return _rows(value)
    return len(entries_of(value) or ())


def _rows(array: Array) -> int:
    return len(array) if array.ndim else 0


def _shown(key: object) -> str:
    return brief(key if isinstance(key, str) else str(key)).strip("'")


def _entry(value: Any, number: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _entry(inner, number) for name, inner in value.items()}
    return value[number]


def _number(value: Any) -> str:
    """A whole number for a message; Python does not write one of thousands of digits."""
    return str(value) if abs(value) < 2**63 else "beyond 64 bits"


def _at(path: str) -> str:
    return f"['{path}']" if path else ""


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{key} {count}" for key, count in counts.items())
