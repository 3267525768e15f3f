"""The flat .npz of the `imitation` library: all trajectories one after the other, and where each begins.

`obs` has one entry more a trajectory than `acts`; `indices` are the first steps of all trajectories but the first.
Its one flag, `terminal`, tells that a trajectory was recorded to its end, of either kind: one that was not was cut
off, a truncation; for the others see `step_keys`. So that nothing is lost, `write` adds arrays of its own, which
`imitation` does not look at: `terminated`, `truncated`, `successor_known` and, as JSON in bytes, `about`. Its `infos`
are pickled objects: not read, and written as an array without content, of the length that `imitation` asks for.
An unknown successor is the last observation once more there, as `imitation` has no place to say so.

An .npz of other flat arrays is read as `dictionaries` reads them.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from iq_offline.data.episodes import End, Episode, EpisodeSource, Segment
from iq_offline.data.files import whole_file
from iq_offline.data.formats import dictionaries
from iq_offline.data.formats.about import About, decode, encode
from iq_offline.data.formats.hdf5 import action_array, column, flags
from iq_offline.data.formats.numpy_files import Archive
from iq_offline.data.formats.step_keys import Ends, meaning, terminations
from iq_offline.errors import ConfigError, DatasetUnreadable, InvalidEpisode

Array = NDArray[Any]
REQUIRED = ("obs", "acts", "indices", "terminal")
OWN = ("terminated", "truncated", "successor_known")
KNOWN = {*REQUIRED, *OWN, "rews", "infos", "about"}


def read(path: Path, name: str, ends: str = Ends.AUTO) -> EpisodeSource:
    """The episodes of an .npz file, read as they are iterated. Raises DatasetUnreadable or InvalidEpisode."""
    with Archive(path) as archive:
        if not {"indices", "terminal"} <= set(archive.names):
            return _read_other(archive, path, name, Ends(ends))
        plan, notes = _plan(archive, path, Ends(ends))
        about = decode(archive.read("about"), path) if "about" in archive else About()
    return EpisodeSource(about.info(path, name, "npz", notes), stream=partial(_segments, path, plan, about.seeds))


def write(source: EpisodeSource, destination: Path) -> None:
    """Write the flat layout, whole or not at all. Raises ConfigError for observations of several arrays."""
    columns: dict[str, _Column] = {}
    lengths: list[int] = []
    seeds: list[int | None] = []
    with whole_file(destination) as temporary, ExitStack() as stack:
        for episode in source.checked():
            lengths.append(len(episode))
            seeds.append(episode.seed)
            for key, values in _rows_of(episode, destination).items():
                if key not in columns:
                    columns[key] = _Column(stack.enter_context(tempfile.TemporaryFile(dir=destination.parent)), values)
                columns[key].extend(values, f"{episode.source}: {key} of episode {episode.index}")
        if not lengths:
            raise DatasetUnreadable(f"{source.info.path} has no episodes", "use a dataset that has data")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for key, values_of in columns.items():
                values_of.store(archive, key)
            _store(archive, "infos", np.zeros((sum(lengths), 0), dtype=np.uint8))
            _store(archive, "indices", np.cumsum(lengths[:-1], dtype=np.int64))
            _store(archive, "about", encode(source.info, seeds=seeds))


class _Column:
    """Rows that wait in an unnamed file until all are there and the header can tell their number."""

    def __init__(self, file: IO[bytes], first: Array) -> None:
        self._file, self._dtype, self._row_shape, self._rows = file, first.dtype, first.shape[1:], 0

    def extend(self, values: Array, place: str) -> None:
        """Add rows."""
        if (values.dtype, values.shape[1:]) != (self._dtype, self._row_shape):
            raise InvalidEpisode(
                f"{place} is {values.dtype} of shape {values.shape[1:]}, before it {self._dtype} of {self._row_shape}",
                "give all episodes one type and shape",
            )
        self._file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        self._rows += len(values)

    def store(self, archive: zipfile.ZipFile, key: str) -> None:
        """Put the array into the archive."""
        self._file.seek(0)
        with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
            shape = (self._rows, *self._row_shape)
            header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, header)
            shutil.copyfileobj(self._file, file, 1 << 20)


def _store(archive: zipfile.ZipFile, key: str, values: Array) -> None:
    with archive.open(f"{key}.npy", "w") as file:
        npy.write_array(file, values, allow_pickle=False)


def _rows_of(episode: Episode, destination: Path) -> dict[str, Array]:
    if isinstance(episode.observations, dict):
        raise ConfigError(
            f"{destination}: observations of several arrays ({', '.join(episode.observations)}) have no place in the "
            "flat .npz layout",
            "convert to another format: --format minari, d4rl or d3rlpy",
        )
    return {
        "obs": episode.observations,
        "acts": episode.actions,
        "rews": episode.rewards,
        "terminal": np.array([not (episode.unflagged or episode.discontinuous)]),
        "terminated": np.array([episode.terminated]),
        "truncated": np.array([episode.truncated]),
        "successor_known": np.array([episode.successor_known]),
    }


def _read_other(archive: Archive, path: Path, name: str, ends: Ends) -> EpisodeSource:
    content = {key: archive.read_objects(key) if _is_wanted(archive, key) else None for key in archive.names}
    return dictionaries.from_content(content, path, name, ends, "npz")


def _is_wanted(archive: Archive, key: str) -> bool:
    """Whether an array has a known name, or may hold flags."""
    layout = archive.layout(key)
    return meaning(key) is not None or (layout.dtype.kind in "biuf" and layout.shape[1:] in ((), (1,)))


@dataclass(frozen=True)
class _Planned:
    """How long an episode is, and how it ends."""

    steps: int
    terminated: bool
    truncated: bool
    successor_known: bool


def _plan(archive: Archive, path: Path, ends: Ends) -> tuple[list[_Planned], tuple[str, ...]]:
    for key in REQUIRED:
        if key not in archive:
            raise DatasetUnreadable(
                f"{path}: the key '{key}' is missing (it has: {', '.join(archive.names)})",
                f"add '{key}'; for another layout: iq-offline convert {path} --to {path.stem}-v0 --input-format FORMAT",
            )
    lengths, notes = _lengths(archive, path), _left_out(archive)
    recorded = _flags(archive, "terminal", len(lengths), path)
    if all(key in archive for key in OWN):
        terminated, truncated, known = (_flags(archive, key, len(lengths), path) for key in OWN)
    else:
        terminated, note = terminations(lengths, recorded.tolist(), ends)
        truncated, known = ~terminated, np.ones(len(lengths), dtype=bool)
        notes.append(note)
    rows = zip(lengths, terminated.tolist(), truncated.tolist(), known.tolist(), strict=True)
    return [_Planned(*row) for row in rows], tuple(notes)


def _left_out(archive: Archive) -> list[str]:
    names = set(archive.names) - KNOWN
    if "infos" in archive and "about" not in archive:
        names.add("infos")
    notes = [f"left out, being no step's numbers: {', '.join(sorted(names))}"] if names else []
    if "rews" not in archive:
        notes.append("it records no rewards: zeros stand in their place")
    return notes


def _lengths(archive: Archive, path: Path) -> list[int]:
    """Steps of each episode; the numbers of rows must agree with them."""
    steps = archive.rows("acts").layout.shape[0]
    firsts = archive.read("indices")
    if firsts.ndim != 1 or (len(firsts) and firsts.dtype.kind not in "iu"):  # none at all are floats in NumPy
        raise DatasetUnreadable(f"{path}: 'indices' are not whole numbers, one an episode but the first", "mend it")
    bounds = [0, *firsts.tolist(), steps]
    lengths = [stop - start for start, stop in pairwise(bounds)]
    if min(lengths) < 1:
        number = lengths.index(min(lengths))
        raise InvalidEpisode(
            f"{path}: episode {number} would begin at step {bounds[number]} and end before {bounds[number + 1]}",
            "give 'indices' the first step of each episode but the first, in order",
        )
    expected = {"obs": steps + len(lengths), "rews": steps, "terminal": len(lengths)}
    for key, rows in expected.items():
        if key in archive and archive.rows(key).layout.shape[0] != rows:
            raise InvalidEpisode(
                f"{path}: {archive.rows(key).layout.shape[0]} {key} for {steps} acts of {len(lengths)} episodes, "
                f"not {rows}",
                "give every action an observation and a reward, and every episode a last observation",
            )
    return lengths


def _flags(archive: Archive, key: str, episodes: int, path: Path) -> NDArray[np.bool_]:
    values = column(archive.read(key), key, path)
    if len(values) != episodes:
        raise DatasetUnreadable(f"{path}: '{key}' has {len(values)} entries, not {episodes} flags", "mend it")
    return flags(values, key, path, unit="episode")


def _segments(  # one episode after the other; `infos` and `reuse` change nothing
    path: Path,
    plan: list[_Planned],
    seeds: list[int | None],
    **_: bool,
) -> Iterator[Segment]:
    with Archive(path) as archive:
        observations, actions = archive.rows("obs"), archive.rows("acts")
        rewards = archive.rows("rews") if "rews" in archive else None
        for number, planned in enumerate(plan):
            seen = observations.take(planned.steps + 1)
            yield Segment(
                observations={"": seen[:-1]},
                actions=action_array(actions.take(planned.steps), path),
                rewards=column(rewards.take(planned.steps), "rews", path) if rewards else np.zeros(planned.steps, "f4"),
                end=End(
                    observations={"": seen[-1]},
                    terminated=planned.terminated,
                    truncated=planned.truncated,
                    successor_known=planned.successor_known,
                    seed=seeds[number] if number < len(seeds) else None,
                ),
            )
