"""D4RL's HDF5 layout: flat arrays over all steps, `terminals` and (since v1) `timeouts` and `next_observations`.

The traps that this reader minds: a timeout is a truncation, never a termination; the last observation of an
episode lies in `next_observations`; the file's tail may carry neither flag; some files cut episodes without
saying so, which shows as a next observation that is not the next row's observation; files without `timeouts` let
the clock run out unmarked, at the task's horizon. Arrays and flags may have the other names of `step_keys`, as in
d3rlpy's first layout, whose `episode_terminals` mark both kinds of end.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from iq_offline.data.episodes import Array, DatasetInfo, Episode, EpisodeSource, Segment
from iq_offline.data.files import whole_file
from iq_offline.data.formats.hdf5 import (
    RowReader,
    action_array,
    column,
    flags,
    member,
    members,
    open_array,
    open_hdf5,
    read_array,
    shown,
    write_json_attribute,
)
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
from iq_offline.data.observations import Leaves, in_order, leaves
from iq_offline.errors import DatasetUnreadable, InvalidEpisode

T = TypeVar("T", dict[str, Any], list[Any])
OWN_KEYS = {"infos", "final_infos", "seeds", "discrete_action", "version"}
READ_BYTES = 1 << 20
"""About as much as is read at a time: it stays in the processor's cache until it is packed."""


def read(path: Path, name: str, ends: str = Ends.AUTO, horizon: int | None = None) -> EpisodeSource:
    """The episodes of a D4RL HDF5 file. Raises DatasetUnreadable or InvalidEpisode, some while iterating.

    `horizon`: the task's step limit, at which episodes are cut where the file has no `timeouts`. Where it is not given
    and nothing else in the file tells, it is that of the environment which the file names. `ends` decides what the
    ends of a layout with one flag are; see `step_keys`.
    """
    with open_hdf5(path) as file:
        steps = _Steps(file, path, Ends(ends), infos=True)
        info = _info(file, path, name, steps.left_out)
        clock = _clock(steps, info, horizon)
    info = replace(info, notes=(*info.notes, *steps.notes))
    if not steps.has_timeouts:
        info = replace(info, notes=(*info.notes, _ends_without_timeouts(steps, clock)))
    return EpisodeSource(info, stream=partial(_segments, path, clock, Ends(ends)))


def is_d4rl(path: Path) -> bool:
    """Whether a path is an HDF5 file by its name; what is inside is checked by `read`."""
    return path.suffix in {".hdf5", ".h5"}


def write(source: EpisodeSource, destination: Path) -> None:
    """Write D4RL's layout, whole or not at all: every step, and the true final observations."""
    unknown: list[int] = []
    seeds: list[int | None] = []
    with whole_file(destination) as temporary, h5py.File(temporary, "w") as file:
        columns = _Columns(file)
        for number, episode in enumerate(source.checked(infos=True)):
            columns.extend(_flat(episode))
            seeds.append(episode.seed)
            if not episode.successor_known:
                unknown.append(number)
        columns.flush()
        file.attrs["env_id"] = source.info.env_id or ""
        write_json_attribute(file, "env_kwargs", source.info.env_kwargs)
        file.attrs["source"] = source.info.description
        file.attrs["origin_sha256"] = source.info.origin
        write_json_attribute(file, "unknown_successors", unknown)
        if any(seed is not None for seed in seeds):
            file["seeds"] = np.frombuffer(json.dumps(seeds).encode(), dtype=np.uint8)


class _Steps:
    """The arrays of an open file, checked, with the flags of all steps; others are read on demand."""

    def __init__(self, file: h5py.File, path: Path, ends: Ends, *, infos: bool, reuse: bool = False) -> None:
        self.path = path
        self._reuse = reuse
        self._readers: dict[int, RowReader] = {}
        _refuse_nested(file, path)
        named = _names(file)
        flag_names = [key for key in file if isinstance(key, str) and meaning(key) in FLAG_KEYS]
        plain = set(flag_names) <= {"terminals", "timeouts"}
        keys = {key: named.get(key, key) for key in ("actions", "rewards")}
        keys |= {key: key for key in (*(("terminals",) if plain else ()), *flag_names)}
        self.columns = {ours: open_array(file, key, path) for ours, key in keys.items()}
        self.observations = _arrays_of(file, named.get("observations", "observations"), path)
        nexts = named.get("next_observations")
        self.next_observations = _arrays_of(file, nexts, path) if nexts else {}
        self._check_lengths()
        self.count = int(self.columns["actions"].shape[0])
        self._discrete = _discrete_flag(file, path)
        self._find_ends({key for key in keys if meaning(key) in FLAG_KEYS}, ends, plain=plain)
        available = _arrays_of(file, "infos", path) if "infos" in file else {}
        available = {key or "infos": array for key, array in available.items()}
        self._infos = {key: array for key, array in available.items() if infos and array.shape[:1] == (self.count,)}
        self.final_infos = _arrays_of(file, "final_infos", path) if infos and "final_infos" in file else {}
        unused = {name if isinstance(name, str) else shown(name) for name in file}
        unused -= {*OWN_KEYS, *named.values(), *flag_names}
        if not reuse:
            self._check_unused(file, unused & {name for name in file if isinstance(name, str)})
        self.left_out = sorted({*unused, *(f"infos/{key}" for key in available if infos and key not in self._infos)})

    @property
    def rows_at_a_time(self) -> int:
        """So many rows that they take about READ_BYTES, and whole chunks of the file where it has some."""
        arrays = [*self.columns.values(), *self.observations.values(), *self.next_observations.values()]
        row_bytes = sum(array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in arrays)
        rows = max(1, READ_BYTES // max(1, row_bytes))
        chunk = max(array.chunks[0] if array.chunks else 1 for array in arrays)
        return int(rows if chunk > 8 * rows else -(-rows // chunk) * chunk)

    def rows(self, place: slice) -> Rows:
        """Those steps, with the observation of the row after them."""
        return Rows(
            observations=self._read_all(self.observations, slice(place.start, place.stop + 1)),
            successors=self._read_all(self.next_observations, place),
            actions=action_array(self._read(self.columns["actions"], place), self.path, self._discrete),
            rewards=self._read_column("rewards", place),
            infos=self._read_all(self._infos, place),
        )

    def _read(self, array: h5py.Dataset, rows: slice) -> Array:
        if id(array) not in self._readers:
            self._readers[id(array)] = RowReader(array, self.path, reuse=self._reuse)
        return self._readers[id(array)](rows)

    def _read_all(self, arrays: dict[str, h5py.Dataset], rows: slice) -> Leaves:
        return {key: self._read(array, rows) for key, array in arrays.items()}

    def _read_column(self, key: str, rows: slice) -> Array:
        return column(self._read(self.columns[key], rows), key, self.path)

    def _find_ends(self, names: set[str], ends: Ends, *, plain: bool) -> None:
        """Terminations and truncations from flags of any names. Raises InvalidEpisode where they contradict.

        In D4RL's own layout, `plain`, terminals are terminations. Raises DatasetUnreadable for other values than 0
        and 1.
        """
        read: dict[str, Flags] = {}
        for name in (key for key in self.columns if key in names):
            values = self._read_column(name, slice(0, self.count))
            read[name] = flags(values, self.columns[name].name.strip("/"), self.path)
        self.notes: list[str] = []
        if plain:
            self.has_timeouts = "timeouts" in read
            self.terminated, self.truncated = read["terminals"], read.get("timeouts", np.zeros(self.count, dtype=bool))
            return
        marks = combined(read, self.path)
        self.has_timeouts = bool(set(marks) - {"terminals", "terminations"})
        terminated, truncated, ended = ends_of(marks, self.count, self.path)
        stops = np.union1d(np.flatnonzero(terminated | truncated | ended), [self.count - 1])
        self.terminated, self.truncated, self.notes = settled(terminated, truncated, ended, stops, ends)

    def _check_unused(self, file: h5py.File, names: set[str]) -> None:
        refuse_other_layout(names, self.path)
        for name in sorted(names):
            item = member(file, name, self.path)
            one_a_step = isinstance(item, h5py.Dataset) and item.shape in ((self.count,), (self.count, 1))
            if one_a_step and item.dtype.kind in "biuf":
                told = check_unused(shown(name), read_array(file, name, self.path).reshape(-1), self.path)
                self.notes += [told] if told else []

    def _check_lengths(self) -> None:
        arrays = _named("observations", self.observations) | self.columns
        arrays |= _named("next_observations", self.next_observations)
        lengths = {key: array.shape[0] if array.ndim else 1 for key, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise InvalidEpisode(f"{self.path}: unequal lengths ({listed})", "give every array one entry a step")
        if lengths["actions"] == 0:
            raise DatasetUnreadable(f"{self.path} has no steps", "use a file that has data")
        for key in self.columns.keys() - {"actions"}:
            if int(np.prod(self.columns[key].shape[1:])) != 1:
                shape = self.columns[key].shape
                raise DatasetUnreadable(f"{self.path}: '{key}' has shape {shape}, not (N,)", "store one number a step")
        shapes = [
            {key: array.shape for key, array in side.items()} for side in (self.observations, self.next_observations)
        ]
        if self.next_observations and shapes[0] != shapes[1]:
            raise InvalidEpisode(
                f"{self.path}: observations and next_observations have shapes {shapes[0]} and {shapes[1]}",
                "give both one shape",
            )


def _arrays_of(file: h5py.File, key: str, path: Path) -> dict[str, h5py.Dataset]:
    """The array under a key, or those of a group by path."""
    if not isinstance(file.get(key, getlink=True), h5py.HardLink) or not isinstance(file[key], h5py.Group):
        return {"": open_array(file, key, path)}
    found: dict[str, h5py.Dataset] = {}
    for name, item in members(file[key], path).items():
        if isinstance(item, h5py.Group):
            found |= {f"{name}/{inner}": array for inner, array in _arrays_of(file, f"{key}/{name}", path).items()}
        else:
            found[name] = open_array(file[key], name, path)
    return in_order(found)


def _names(file: h5py.File) -> dict[str, str]:
    """The file's names of the arrays that are no flags."""
    found: dict[str, str] = {}
    for ours in ("observations", "next_observations", "actions", "rewards"):
        name = next((name for name in KEYS[ours] if name in file), None)
        found |= {ours: name} if name else {}
    return found


def _discrete_flag(file: h5py.File, path: Path) -> bool | None:
    """Whether d3rlpy's first layout says that its actions are discrete; None where the file does not say."""
    if "discrete_action" not in file:
        return None
    values = read_array(file, "discrete_action", path)
    if values.size != 1:
        problem = f"{path}: 'discrete_action' has {values.size} entries, not one flag"
        raise DatasetUnreadable(problem, "store one flag, or remove it")
    return bool(flags(values.reshape(1), "discrete_action", path)[0])


def _named(key: str, arrays: dict[str, h5py.Dataset]) -> dict[str, h5py.Dataset]:
    return {f"{key}/{path}" if path else key: array for path, array in arrays.items()}


def _refuse_nested(file: h5py.File, path: Path) -> None:
    """Raises DatasetUnreadable for an HDF5 file whose groups are robomimic's, or that nests a flat layout."""
    if "data" not in file or "actions" in file:
        return
    try:
        names = list(file["data"])
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        return
    if any(isinstance(name, str) and name.startswith("demo_") for name in names):
        raise DatasetUnreadable(
            f"{path} is in robomimic's layout: a group data/demo_N for each demonstration",
            "store its demonstrations one after the other as observations, actions, rewards, terminals and timeouts; "
            "dones of robomimic mark a task's end",
        )
    if "actions" in names:
        raise DatasetUnreadable(
            f"{path}: its arrays lie in the group 'data' ({', '.join(map(str, names[:20]))})",
            "copy them to the top of the file",
        )


def _info(file: h5py.File, path: Path, name: str, left_out: list[str]) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        path=str(path),
        format="d4rl",
        env_id=_text(file.attrs.get("env_id", "")) or None,
        env_kwargs=_json_attribute(file, "env_kwargs", {}, path),
        description=_text(file.attrs.get("source", "")),
        origin_sha256=_text(file.attrs.get("origin_sha256", "")) or None,
        notes=(f"left out, being no step's data: {', '.join(map(shown, left_out))}",) if left_out else (),
    )


def _json_attribute(file: h5py.File, key: str, default: T, path: Path) -> T:
    return _json(_text(file.attrs.get(key, "")), key, default, path)


def _json(text: str, key: str, default: T, path: Path) -> T:
    try:
        content = json.loads(text) if text else default
    except (ValueError, RecursionError):  # too many digits or levels too
        content = None
    if not isinstance(content, type(default)):
        raise DatasetUnreadable(f"{path}: {key} is not a JSON {type(default).__name__}: {shown(text[:80])}", "mend it")
    return content


def _text(value: object) -> str:
    try:
        return (value if isinstance(value, bytes) else str(value).encode()).decode()
    except UnicodeError:
        raise DatasetUnreadable(f"an attribute of the file is not UTF-8 text: {value!r}", "mend it") from None


def _clock(steps: _Steps, info: DatasetInfo, horizon: int | None) -> int | None:
    """Steps after which an unmarked episode must have ended; None where the file itself marks all ends."""
    if steps.has_timeouts:
        return None
    if horizon is None and not steps.next_observations and info.env_id:
        from iq_offline.data.environments import step_limit

        return step_limit(info.env_id, info.env_kwargs)
    return horizon


def _ends_without_timeouts(steps: _Steps, clock: int | None) -> str:
    ways = ["the terminals"]
    ways += ["where the next row does not follow"] if steps.next_observations else []
    ways += [f"the step limit of {clock}"] if clock else []
    return f"no timeouts: episodes end at {' and '.join(ways)}"


def _segments(path: Path, clock: int | None, ends: Ends, *, infos: bool, reuse: bool) -> Iterator[Segment]:
    with open_hdf5(path) as file:
        steps = _Steps(file, path, ends, infos=infos, reuse=reuse)
        unknown = frozenset(_json_attribute(file, "unknown_successors", [], path))
        seeds = []
        if not reuse and "seeds" in file:
            seeds = _json(_text(read_array(file, "seeds", path).tobytes()), "seeds", [], path)
        yield from Recording(
            read=steps.rows,
            terminated=steps.terminated,
            truncated=steps.truncated,
            rows_at_a_time=steps.rows_at_a_time,
            clock=clock,
            unknown_successors=unknown,
            seeds=seeds,
            final_infos=steps.final_infos,
        ).segments()


def _flat(episode: Episode) -> Leaves:
    ends = np.zeros(len(episode), dtype=bool)
    terminals, timeouts = ends.copy(), ends.copy()
    terminals[-1], timeouts[-1] = episode.terminated, episode.truncated
    arrays = leaves(episode.observations)
    flat = {f"observations/{path}".rstrip("/"): array[:-1] for path, array in arrays.items()}
    flat |= {"actions": episode.actions, "rewards": episode.rewards}
    flat |= {f"next_observations/{path}".rstrip("/"): array[1:] for path, array in arrays.items()}
    flat |= {"terminals": terminals, "timeouts": timeouts}
    flat |= {f"infos/{path}": array[: len(episode)] for path, array in episode.infos.items()}
    return flat | {
        f"final_infos/{path}": array[-1:] for path, array in episode.infos.items() if len(array) == len(episode) + 1
    }


class _Columns:
    """Arrays of a file that grow by whole buffers, so that many short episodes cost few writes."""

    BUFFER_BYTES = 4 << 20

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._waiting: dict[str, list[Array]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._bytes = 0

    def extend(self, arrays: Leaves) -> None:
        """Add rows to each of the arrays."""
        shapes = {key: values.shape[1:] for key, values in arrays.items()}
        self._shapes = self._shapes or shapes
        if missing := ", ".join(sorted(self._shapes.keys() ^ shapes.keys())):
            raise InvalidEpisode(f"some episodes have {missing}, others not", "convert them with --no-infos")
        for key, shape in shapes.items():
            if shape != self._shapes[key]:
                problem = f"an episode has {key} of shape {shape} a step, those before it of shape {self._shapes[key]}"
                raise InvalidEpisode(problem, "store one kind of observations and actions in all episodes")
        for key, values in arrays.items():
            self._waiting.setdefault(key, []).append(values)
            self._bytes += values.nbytes
        if self._bytes > self.BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        for key, parts in self._waiting.items():
            values = np.concatenate(parts)
            if key not in self._file:
                shape = (None, *values.shape[1:])
                self._file.create_dataset(key, data=values, maxshape=shape, chunks=True, compression="lzf")
                continue
            array = self._file[key]
            array.resize(len(array) + len(values), axis=0)
            array[-len(values) :] = values
        self._waiting, self._bytes = {}, 0
