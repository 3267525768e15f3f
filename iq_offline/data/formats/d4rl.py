"""D4RL's HDF5 layout: flat arrays over all steps, `terminals` and (since v1) `timeouts` and `next_observations`.

The traps that this reader minds: a timeout is a truncation, never a termination; the last observation of an
episode lies in `next_observations`; the file's tail may carry neither flag; some files cut episodes without
saying so, which shows as a next observation that is not the next row's observation.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.files import sha256_of_path, whole_file
from iq_offline.data.formats.hdf5 import action_array, column, matrix, open_hdf5, read_array, write_json_attribute
from iq_offline.errors import DatasetUnreadable, InvalidEpisode

Array = NDArray[Any]
T = TypeVar("T", dict[str, Any], list[int])
REQUIRED = ("observations", "actions", "rewards", "terminals")
CONTINUITY_TOLERANCE = 1e-6
"""Largest difference, absolute and relative, between a next observation and the next row's observation."""


def read(path: Path, name: str) -> EpisodeSource:
    """The episodes of a D4RL HDF5 file. Raises DatasetUnreadable or, while iterating, InvalidEpisode."""
    with open_hdf5(path) as file:
        arrays = _arrays(file, path)
        info = _info(file, path, name)
        unknown = frozenset(_json_attribute(file, "unknown_successors", [], path))
    return EpisodeSource(info, _episodes(arrays, unknown, str(path)))


def is_d4rl(path: Path) -> bool:
    """Whether a path is an HDF5 file by its name; what is inside is checked by `read`."""
    return path.suffix in {".hdf5", ".h5"}


def write(source: EpisodeSource, destination: Path) -> None:
    """Write D4RL's layout, whole or not at all: every step, and the true final observations."""
    unknown: list[int] = []
    with whole_file(destination) as temporary, h5py.File(temporary, "w") as file:
        for number, episode in enumerate(source):
            for key, values in _flat(episode).items():
                _append(file, key, values)
            if not episode.successor_known:
                unknown.append(number)
        file.attrs["env_id"] = source.info.env_id or ""
        write_json_attribute(file, "env_kwargs", source.info.env_kwargs)
        file.attrs["source"] = source.info.description
        file.attrs["origin_sha256"] = source.info.origin_sha256 or source.info.sha256
        write_json_attribute(file, "unknown_successors", unknown)


def _arrays(file: h5py.File, path: Path) -> dict[str, Array]:
    arrays = {key: read_array(file, key, path) for key in REQUIRED}
    arrays |= {key: read_array(file, key, path) for key in ("timeouts", "next_observations") if key in file}
    lengths = {key: len(np.atleast_1d(array)) for key, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise InvalidEpisode(f"{path}: unequal lengths ({listed})", "give every array one entry a step")
    if lengths["actions"] == 0:
        raise DatasetUnreadable(f"{path} has no steps", "use a file that has data")
    for key in ("observations", "next_observations"):
        if key in arrays:
            arrays[key] = matrix(arrays[key], key, path)
    arrays["actions"] = action_array(arrays["actions"], path)
    arrays["rewards"] = column(arrays["rewards"], "rewards", path)
    for key in ("terminals", "timeouts"):
        if key in arrays:
            arrays[key] = column(arrays[key], key, path).astype(bool)
    shapes = {arrays[key].shape for key in ("observations", "next_observations") if key in arrays}
    if len(shapes) != 1:
        raise InvalidEpisode(
            f"{path}: observations and next_observations have shapes {sorted(shapes)}", "give both one shape"
        )
    return arrays


def _info(file: h5py.File, path: Path, name: str) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        path=str(path),
        sha256=sha256_of_path(path),
        format="d4rl",
        env_id=_text(file.attrs.get("env_id", "")) or None,
        env_kwargs=_json_attribute(file, "env_kwargs", {}, path),
        description=_text(file.attrs.get("source", "")),
        origin_sha256=_text(file.attrs.get("origin_sha256", "")) or None,
    )


def _json_attribute(file: h5py.File, key: str, default: T, path: Path) -> T:
    """A JSON attribute of the same kind as `default`, which stands for a missing or empty one."""
    text = _text(file.attrs.get(key, ""))
    try:
        content = json.loads(text) if text else default
    except json.JSONDecodeError:
        content = None
    if not isinstance(content, type(default)):
        raise DatasetUnreadable(f"{path}: attribute {key} is not a JSON {type(default).__name__}: {text}", "mend it")
    return content


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _episodes(arrays: dict[str, Array], unknown: frozenset[int], source: str) -> Iterator[Episode]:
    flagged = arrays["terminals"] | arrays.get("timeouts", np.zeros_like(arrays["terminals"]))
    jumps = _discontinuities(arrays) & ~flagged
    ends = flagged | jumps
    ends[-1] = True
    start = 0
    for index, last in enumerate(np.flatnonzero(ends)):
        rows = slice(start, int(last) + 1)
        known = "next_observations" in arrays and index not in unknown
        yield _episode(arrays, rows, index, source, jumped=bool(jumps[last]), known=known)
        start = int(last) + 1


def _episode(arrays: dict[str, Array], rows: slice, index: int, source: str, *, jumped: bool, known: bool) -> Episode:
    last = rows.stop - 1
    final = arrays.get("next_observations", arrays["observations"])[last]
    terminated = bool(arrays["terminals"][last])
    timed_out = "timeouts" in arrays and bool(arrays["timeouts"][last])
    return Episode(
        index=index,
        observations=np.concatenate([arrays["observations"][rows], final[None]]),
        actions=arrays["actions"][rows],
        rewards=arrays["rewards"][rows],
        terminated=terminated,
        truncated=timed_out or not terminated,
        source=source,
        unflagged=not (terminated or timed_out or jumped),
        discontinuous=jumped,
        successor_known=known,
    )


def _discontinuities(arrays: dict[str, Array]) -> NDArray[np.bool_]:
    """Rows whose recorded successor is not the next row's observation; none where no successors are recorded."""
    jumps = np.zeros(len(arrays["actions"]), dtype=bool)
    if "next_observations" in arrays:
        recorded, following = arrays["next_observations"][:-1], arrays["observations"][1:]
        with np.errstate(invalid="ignore"):
            distance = np.abs(recorded - following)
            allowed = CONTINUITY_TOLERANCE * (1 + np.abs(following))
            jumps[:-1] = (distance > allowed).any(axis=1)
    return jumps


def _flat(episode: Episode) -> dict[str, Array]:
    ends = np.zeros(len(episode), dtype=bool)
    terminals, timeouts = ends.copy(), ends.copy()
    terminals[-1], timeouts[-1] = episode.terminated, episode.truncated
    return {
        "observations": episode.observations[:-1],
        "actions": episode.actions,
        "rewards": episode.rewards,
        "next_observations": episode.observations[1:],
        "terminals": terminals,
        "timeouts": timeouts,
    }


def _append(file: h5py.File, key: str, values: Array) -> None:
    if key not in file:
        file.create_dataset(key, data=values, maxshape=(None, *values.shape[1:]), chunks=True, compression="lzf")
        return
    dataset = file[key]
    dataset.resize(len(dataset) + len(values), axis=0)
    dataset[-len(values) :] = values
