"""The packed training table: every step one row of 32-bit floats, mapped into memory.

A row is [observation | action | reward | termination]. An episode of T steps takes T+1 rows, the last one
holding only its final observation, so that the successor of row i is always row i+1 and no observation is
stored twice. The arrays of a dictionary observation lie one after the other; pictures lie beside the rows, as
bytes, with the same row numbers. A category is its number, counted from zero. Numbers that 32 bits are too few for
are less an offset, which the layout tells. Written once for each source, keyed by the hash of its content; roles and
splits are index sets.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from filelock import FileLock
from numpy.typing import NDArray

from iq_offline import paths
from iq_offline.data.catalogue import Located
from iq_offline.data.episodes import ContentDigest, DatasetInfo
from iq_offline.data.files import data_path, make_folder, whole_folder
from iq_offline.data.frames import stacked
from iq_offline.data.identity import content_key, state_of
from iq_offline.data.packing import EPISODES, ROWS, pack
from iq_offline.data.reading import check_is_file, completed, detect, parse_format, read_episodes
from iq_offline.data.spaces import ActionSpace, action_space_from_json
from iq_offline.data.strict_json import SEAL, check_seal, read_json, sealed
from iq_offline.errors import DatasetUnreadable

TABLE_VERSION = 5
"""Part of a table's key: a change of layout or of a reader's rules makes new tables."""

T = TypeVar("T")
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Leaf:
    """One array of the observations: its path, shape a step, and its place in a row, or its file of pictures."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    start: int | None
    stop: int | None
    file: str | None
    categories: tuple[int, ...] = ()
    """How many categories each of its numbers tells apart, counted from 0; empty where they are real numbers."""
    offset: tuple[float, ...] = ()
    """What was subtracted from each of its numbers, in 64 bits, before they were narrowed; empty for nothing."""
    stack: int = 1
    """Frames of an observation, where its pictures are single frames."""

    @property
    def shown(self) -> tuple[int, ...]:
        """Shape of it in an observation: of all frames, where they are stacked."""
        return self.shape if self.stack == 1 else (self.stack, *self.shape)

    @property
    def width(self) -> int:
        """Columns of the table that it takes."""
        return (self.stop or 0) - (self.start or 0)


@dataclass(frozen=True)
class TransitionTable:
    """A packed table, opened. `rows` is memory-mapped, shape (N + episodes, width)."""

    info: DatasetInfo
    action_space: ActionSpace
    layout: tuple[Leaf, ...]
    rows: Floats
    rows_file: Path
    pictures: dict[str, NDArray[np.uint8]]
    """Memory-mapped pictures by path, each (N + episodes, ...)."""
    episodes: pl.DataFrame
    """One row an episode: episode, start_row, steps, terminated, truncated, unflagged, discontinuous,
    successor_known, return."""
    precision: dict[str, Any] = field(default_factory=dict)
    """What 32 bits lose of wider numbers: `lost`, distinct values by column; `unseen`, columns whose changes are."""

    @cached_property
    def categories(self) -> tuple[int, ...]:
        """How many categories each number of an observation tells apart, 0 for a real number; empty if all are real."""
        return self._by_column(lambda leaf: leaf.categories or (0,) * leaf.width)

    @cached_property
    def offset(self) -> tuple[float, ...]:
        """What was subtracted from each number of an observation, in 64 bits; empty for nothing."""
        return self._by_column(lambda leaf: leaf.offset or (0.0,) * leaf.width)

    def _by_column(self, of_leaf: Callable[["Leaf"], tuple[T, ...]]) -> tuple[T, ...]:
        """A value for each number of an observation, empty if all are zero."""
        flat = tuple(value for leaf in self.layout if leaf.file is None for value in of_leaf(leaf))
        return flat if any(flat) else ()

    def less(self, offset: tuple[float, ...]) -> "TransitionTable":
        """The same table with that offset in place of its own, so that its rows compare with another table's.

        Where the two differ, the rows are copied into memory.
        """
        if offset == self.offset:
            return self
        size = self.observation_size
        own, other = (np.array(one or (0.0,) * size, np.float64) for one in (self.offset, offset))
        rows = np.array(self.rows)
        rows[:, :size] = rows[:, :size].astype(np.float64) + (own - other)
        layout = tuple(
            leaf if leaf.start is None else replace(leaf, offset=tuple(offset[leaf.start : leaf.stop]))
            for leaf in self.layout
        )
        return replace(self, rows=rows, layout=layout)

    @property
    def observation_size(self) -> int:
        """Numbers in one observation, pictures apart."""
        return int(self.rows.shape[1]) - self.action_space.width - 2

    @property
    def picture_bytes(self) -> int:
        """Of all pictures together."""
        return sum(held.size for held in self.pictures.values())

    @cached_property
    def transition_rows(self) -> Rows:
        """Row numbers of all steps, shape (N,), episode after episode."""
        return rows_of_episodes(self.episodes, 1)

    @property
    def steps(self) -> int:
        """Number of transitions N."""
        return int(self.episodes["steps"].sum())

    def chunks(self, size: int) -> Iterator[tuple[slice, Floats]]:
        """All rows in order, so many at a time, read from the file: mapped ones would stay in the process's memory."""
        count, width = self.rows.shape
        for first in range(0, count, size):
            place = slice(first, min(first + size, count))
            flat = np.fromfile(
                self.rows_file, dtype=np.float32, count=(place.stop - first) * width, offset=4 * first * width
            )
            yield place, flat.reshape(-1, width)

    def pictures_of(self, leaf: Leaf, rows: Rows, following: int = 0) -> NDArray[np.uint8]:
        """A leaf's pictures of the observations at those rows, and so many after each; they are of the same episode.

        Shape (n, leaf.stack + following, *leaf.shape): the picture of one observation, or its stacked frames.
        """
        return stacked(self.pictures[leaf.path], rows, self._starts, leaf.stack, following)

    @cached_property
    def _starts(self) -> Rows:
        """The first row of each episode."""
        return self.episodes["start_row"].to_numpy()

    def observations(self, rows: Rows) -> Floats:
        """Observations of those rows, shape (n, D)."""
        return np.asarray(self.rows[rows, : self.observation_size])

    def actions(self, rows: Rows) -> Floats:
        """Actions of those rows, shape (n, A); a discrete action is its number in one column."""
        return np.asarray(self.rows[rows, self.observation_size : -2])

    def rewards(self, rows: Rows) -> Floats:
        """True rewards of those rows, shape (n,). Never read by training."""
        return np.asarray(self.rows[rows, -2])

    def episode_numbers(self, rows: Rows) -> Rows:
        """Which episode each of those rows is of, counted from zero in the order of `episodes`; shape (n,)."""
        found: Rows = np.searchsorted(self.episodes["start_row"].to_numpy(), rows, side="right") - 1
        return found

    def terminations(self, rows: Rows) -> Floats:
        """1 where the task ended with that step, else 0; shape (n,)."""
        return np.asarray(self.rows[rows, -1])


def rows_of_episodes(episodes: pl.DataFrame, subsample: int, first: NDArray[np.int64] | None = None) -> Rows:
    """Row numbers of every `subsample`-th step of those episodes, from each one's first, or from step `first` of it."""
    starts, steps = episodes["start_row"].to_numpy(), episodes["steps"].to_numpy()
    if first is not None:
        starts, steps = starts + first, steps - first
    counts = -(-steps // subsample)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rows: Rows = np.repeat(starts, counts) + within * subsample
    return rows


def open_table(located: Located, input_format: str = "auto", digest: ContentDigest | None = None) -> TransitionTable:
    """The table of a dataset: opened if it was made from these very bytes, read in that format, else made first.

    `digest` is told what goes into a table that is made.

    Raises DatasetUnreadable and InvalidEpisode.
    """
    check_is_file(located.path)
    source = data_path(located.path)
    state = state_of(source)
    horizon = located.entry.max_episode_steps if located.entry else None
    chosen = detect(located.path) if input_format == "auto" else parse_format(input_format)
    name = f"{content_key(source)}-{chosen}-{horizon or 'any'}-v{TABLE_VERSION}"
    if _is_whole(paths.home() / "tables" / name):
        return load(paths.home() / "tables" / name, located)
    folder = paths.writable_home() / "tables" / name
    make_folder(folder.parent)
    with FileLock(folder.with_suffix(".lock")):
        if not _is_whole(folder):
            with whole_folder(folder) as temporary:
                content = pack(read_episodes(located, chosen), temporary, digest)
                if state_of(source) != state:
                    raise DatasetUnreadable(f"{source} changed while it was read", "start again when it is at rest")
                content["source"] = str(source.resolve())
                content["files"] = {file.name: state_of(file) for file in temporary.iterdir()}
                (temporary / "table.json").write_text(json.dumps(sealed(content), indent=1))
    return load(folder, located)


def load(folder: Path, located: Located) -> TransitionTable:
    """Open the table in a folder; its rows are mapped, not read."""
    content = json.loads((folder / "table.json").read_text())
    reference, count = content["reference"], content["shape"][0]
    space = action_space_from_json(content["action_space"])
    info = DatasetInfo(
        name=located.name,
        path=str(located.path),
        format=content["format"],
        env_id=content["env_id"],
        env_kwargs=content["env_kwargs"],
        action_space=space,
        description=content["description"],
        reference=(reference[0], reference[1], reference[2]) if reference else None,
        origin_sha256=content["origin_sha256"],
        notes=tuple(content["notes"]),
        state=state_of(data_path(located.path)),
    )
    layout = tuple(
        Leaf(**leaf | {name: tuple(leaf[name]) for name in ("shape", "categories", "offset")})
        for leaf in content["layout"]
    )
    with (folder / EPISODES).open("rb") as file:  # Polars would take a path's brackets for a pattern
        episodes = pl.read_ipc(file)
    return TransitionTable(
        info=completed(info, located.entry),
        action_space=space,
        layout=layout,
        rows=np.memmap(folder / ROWS, dtype=np.float32, mode="c", shape=tuple(content["shape"])),
        rows_file=folder / ROWS,
        pictures={
            leaf.path: np.memmap(folder / leaf.file, dtype=np.uint8, mode="c", shape=(count, *leaf.shape))
            for leaf in layout
            if leaf.file
        },
        episodes=episodes,
        precision=content["precision"],
    )


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds a table in the very state in which it was written."""
    try:
        content = read_json(folder / "table.json")
        check_seal(content)
        return (
            SEAL in content
            and bool(content["files"])
            and all(state_of(folder / name) == state for name, state in content["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
