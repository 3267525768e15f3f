"""Packing: a stream of segments into the rows of a training table, in constant memory."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from iq_offline.data.categories import Categories, DeclaredSpace, UndeclaredIntegers, name_of, undeclared_note
from iq_offline.data.environments import declared_action_space, declared_observation_space
from iq_offline.data.episodes import ContentDigest, DatasetInfo, End, EpisodeSource, Segment
from iq_offline.data.observations import Array, flat, is_image, less
from iq_offline.data.precision import LARGE, Precision
from iq_offline.data.spaces import ActionSpace, ContinuousActions, DiscreteActions, bounds_note, infer_action_space
from iq_offline.errors import DatasetUnreadable, InvalidEpisode

ROWS = "rows.f32"
EPISODES = "episodes.arrow"
BUFFER_BYTES = 1 << 20
LEAST_ROWS = 1024
"""The buffer holds a multiple of it, about BUFFER_BYTES."""

FLAGS = ("terminated", "truncated", "unflagged", "discontinuous", "successor_known")
"""What the table records of how an episode ended."""

Floats = NDArray[np.float32]


def pack(source: EpisodeSource, folder: Path, digest: ContentDigest | None = None) -> dict[str, Any]:
    """Write rows, pictures and the list of episodes into an existing empty folder; returns what describes them.

    `digest` is told every segment.

    Raises DatasetUnreadable and InvalidEpisode.
    """
    info = source.info
    packer = _packed(source, folder, digest, {})
    offsets = packer.precision.offsets()
    if offsets:  # only now is it known that 32 bits are too few: the source is read again
        for file in [ROWS, *packer.columns.pictures.values()]:
            (folder / file).unlink()
        watched, packer = packer.precision, _packed(source, folder, None, offsets)
        packer.precision = watched
    space = packer.action_space()
    packer.episodes.frame().write_ipc(folder / EPISODES)
    return {
        "format": info.format,
        "env_id": info.env_id,
        "env_kwargs": info.env_kwargs,
        "description": info.description,
        "reference": info.reference,
        "origin_sha256": info.origin_sha256,
        "notes": [*info.notes, *packer.notes()],
        "precision": packer.precision.report(source, packer.columns.offsets),
        "action_space": space.to_json(),
        "layout": packer.columns.layout(),
        "shape": [packer.written, packer.columns.width],
    }


def _packed(
    source: EpisodeSource, folder: Path, digest: ContentDigest | None, offsets: dict[str, NDArray[np.float64]]
) -> "_Packer":
    """Rows and pictures written, less the offsets of arrays that have some."""
    with ExitStack() as files, np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        packer: _Packer | None = None
        for segment in source.segments(infos=digest is not None):
            if digest:
                digest.add(segment)
            if packer is None:
                packer = _Packer(_Columns.of(segment, source.info, offsets), source.info, folder, files)
            packer.add(segment)
        if packer is None:
            raise DatasetUnreadable(f"{source.info.path} has no episodes", "use a dataset that has data")
        packer.flush()
    return packer


@dataclass(frozen=True)
class _Columns:
    """Where each array of a step goes."""

    vectors: dict[str, tuple[int, int]]
    """First and last-but-one column of each observation array that is no picture."""
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    action_shape: tuple[int, ...]
    discrete: bool
    categories: dict[str, Categories]
    """Of the arrays that are categories: these are stored counted from zero."""
    offsets: dict[str, NDArray[np.float64]]
    """What is subtracted, in 64 bits, from the arrays that have such."""
    declared: DeclaredSpace
    stack: int
    """Frames of an observation, which the pictures are."""

    @classmethod
    def of(cls, segment: Segment, info: DatasetInfo, offsets: dict[str, NDArray[np.float64]]) -> "_Columns":
        """The columns for a source whose first segment this is. Raises InvalidEpisode where it is not as declared."""
        vectors, next_column = {}, 0
        for path, array in segment.observations.items():
            if not is_image(array):
                size = int(np.prod(array.shape[1:]))
                vectors[path] = (next_column, next_column + size)
                next_column += size
        integers = any(segment.observations[path].dtype.kind in "iu" for path in vectors)
        declared = DeclaredSpace.of(declared_observation_space(info, look=integers), info.path)
        categories = {path: found for path, found in declared.categories().items() if path in vectors}
        for path, found in categories.items():
            start, stop = vectors[path]
            if stop - start != len(found.counts):
                raise InvalidEpisode(
                    f"{info.path}: {name_of(path)} holds {stop - start} numbers a step, but the declared space "
                    f"has {len(found.counts)}",
                    "correct the observations or the observation space that the dataset declares",
                )
        starts = {path: np.array(found.starts, np.float64) for path, found in categories.items() if any(found.starts)}
        return cls(
            categories=categories,
            offsets=starts | offsets,
            declared=declared,
            vectors=vectors,
            shapes={path: array.shape[1:] for path, array in segment.observations.items()},
            dtypes={path: str(array.dtype) for path, array in segment.observations.items()},
            action_shape=segment.actions.shape[1:],
            discrete=segment.actions.dtype.kind in "biu",
            stack=info.stack,
        )

    @cached_property
    def observation_size(self) -> int:
        return max((stop for _, stop in self.vectors.values()), default=0)

    @cached_property
    def width(self) -> int:
        return self.observation_size + int(np.prod(self.action_shape)) + 2

    @property
    def numbers(self) -> dict[str, tuple[int, int]]:
        """Where the arrays lie that are neither pictures nor categories."""
        return {path: place for path, place in self.vectors.items() if path not in self.categories}

    @property
    def undeclared(self) -> dict[int, float]:
        """The columns of arrays that no declared space describes, and what is subtracted from each."""
        return {
            column: float(self.offsets[path][column - start]) if path in self.offsets else 0.0
            for path, (start, stop) in self.vectors.items()
            if path not in self.declared.arrays
            for column in range(start, stop)
        }

    @property
    def pictures(self) -> dict[str, str]:
        """Name of the file of each observation array that is a picture."""
        return {path: f"pictures-{n}.u8" for n, path in enumerate(p for p in self.shapes if p not in self.vectors)}

    def layout(self) -> list[dict[str, Any]]:
        """The observation arrays in order, for `table.json`."""
        files = self.pictures
        return [
            {
                "path": path,
                "shape": shape,
                "dtype": self.dtypes[path],
                "start": self.vectors[path][0] if path in self.vectors else None,
                "stop": self.vectors[path][1] if path in self.vectors else None,
                "file": files.get(path),
                "stack": self.stack if path in files else 1,
                "categories": self.categories[path].counts if path in self.categories else (),
                "offset": self.offsets[path].tolist() if path in self.offsets else (),
            }
            for path, shape in self.shapes.items()
        ]


@dataclass
class _EpisodeList:
    """What the table records of each episode."""

    start_rows: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    flags: list[tuple[bool, ...]] = field(default_factory=list)

    def frame(self) -> pl.DataFrame:
        numbers = {"episode": range(len(self.steps)), "start_row": self.start_rows, "steps": self.steps}
        columns: dict[str, Any] = {name: pl.Series(values, dtype=pl.Int64) for name, values in numbers.items()}
        columns |= {name: [flags[place] for flags in self.flags] for place, name in enumerate(FLAGS)}
        return pl.DataFrame(columns | {"return": self.returns})


class _Packer:
    """Rows on their way into the file, a buffer at a time, checked as they leave."""

    def __init__(self, columns: _Columns, info: DatasetInfo, folder: Path, files: ExitStack) -> None:
        self.columns = columns
        self.precision = Precision(columns.numbers, columns.observation_size, columns.width)
        self.episodes = _EpisodeList()
        self.written = 0
        self._bounds_note: list[str] = []
        self._info = info
        self._path = folder / ROWS
        self._file = files.enter_context(_new_file(self._path))
        self._pictures = {
            path: files.enter_context(_new_file(folder / name)) for path, name in columns.pictures.items()
        }
        rows = LEAST_ROWS * max(1, BUFFER_BYTES // (4 * LEAST_ROWS * columns.width))
        self._buffer = np.zeros((rows, columns.width), dtype=np.float32)
        self._used = 0
        self._steps, self._return = 0, 0.0
        self._least, self._greatest = np.inf, -np.inf
        self._integers = UndeclaredIntegers(columns.undeclared)

    def add(self, segment: Segment) -> None:
        """Append a segment's steps, and the final observation where it ends an episode."""
        if segment.end and segment.end.fault:
            raise segment.end.fault
        steps = len(segment.actions)
        self._check_shapes(segment)
        self._check_categories(segment.observations)
        self.precision.include(segment)
        if self._steps == 0:
            self.episodes.start_rows.append(self.written + self._used)
        done = 0
        while done < steps:
            taken = min(steps - done, self._room())
            self._put(segment, slice(done, done + taken))
            done += taken
        for path, file in self._pictures.items():
            file.write(np.ascontiguousarray(segment.observations[path]).data)
        if steps:
            self._least = min(self._least, segment.actions.min())
            self._greatest = max(self._greatest, segment.actions.max())
        self._steps += steps
        self._return += float(segment.rewards.sum(dtype=np.float64))
        if segment.end is not None:
            assert steps, "an episode ends with a step"
            self._check_categories({path: array[None] for path, array in segment.end.observations.items()})
            self._end(segment.end)

    def flush(self) -> None:
        """Check and write what the buffer holds."""
        rows = self._buffer[: self._used]
        numbers = rows.reshape(-1)
        squares = np.dot(numbers, numbers)
        if not np.isfinite(squares):
            self._check_finite(rows)
        if not squares < LARGE**2:
            self.precision.note_large(rows)
        self._integers.include(rows)
        self._file.write(rows.data)
        self.written += self._used
        self._used = 0

    def action_space(self) -> ActionSpace:
        """The space that the source declares, or that its environment has, else one that the actions fit."""
        declared = declared_action_space(self._info)
        self._check_space(declared)
        partial = isinstance(declared, ContinuousActions) and not declared.bounded
        if not self.columns.discrete and (partial or (declared is None and (self._least < -1 or self._greatest > 1))):
            space = infer_action_space(self._action_range(), declared)
            note = bounds_note(declared, space)
            self._bounds_note = [note] if note else []
            return space
        extremes = np.full((2, *self.columns.action_shape), self._greatest)
        extremes[0] = self._least
        return infer_action_space(extremes.astype(np.int64) if self.columns.discrete else extremes, declared)

    def _put(self, segment: Segment, steps: slice) -> None:
        count, size = steps.stop - steps.start, self.columns.observation_size
        rows = self._buffer[self._used : self._used + count]
        for path, (start, stop) in self.columns.vectors.items():
            rows[:, start:stop] = self._narrowed(path, flat(segment.observations[path][steps]))
        rows[:, size:-2] = flat(segment.actions[steps])
        rows[:, -2] = segment.rewards[steps]
        rows[:, -1] = 0
        self._used += count

    def _end(self, end: End) -> None:
        self._buffer[self._used - 1, -1] = end.terminated
        self._room()
        final = self._buffer[self._used]
        final[:] = 0
        for path, (start, stop) in self.columns.vectors.items():
            final[start:stop] = self._narrowed(path, end.observations[path].reshape(-1))
        for path, file in self._pictures.items():
            file.write(np.ascontiguousarray(end.observations[path]).data)
        self.episodes.steps.append(self._steps)
        self.episodes.returns.append(self._return)
        self.episodes.flags.append(tuple(bool(getattr(end, name)) for name in FLAGS))
        self._steps, self._return = 0, 0.0
        self._used += 1

    def notes(self) -> list[str]:
        """What is to be known of how the observations were read."""
        notes = [*self._bounds_note, *self.columns.declared.notes()]
        found = self._integers.ranges(self._path, (self.written, self.columns.width))
        if found and declared_observation_space(self._info, look=True) is None:
            low, high = min(low for low, _ in found), max(high for _, high in found)
            notes.append(undeclared_note(len(found), low, high))
        return notes

    def _narrowed(self, path: str, values: Array) -> Array:
        offset = self.columns.offsets.get(path)
        return values if offset is None else less(values, offset)

    def _check_categories(self, observations: dict[str, Array]) -> None:
        for path, categories in self.columns.categories.items():
            outside = categories.outside(flat(observations[path]))
            if outside.size:
                known = [f"{low} to {low + n - 1}" for low, n in zip(categories.starts, categories.counts, strict=True)]
                raise self._broken(
                    f"has the value {outside.flat[0]} in {name_of(path)}, which the declared space does not have "
                    f"({', '.join(known[:4])})"
                )

    def _room(self) -> int:
        """Free rows of the buffer, at least one. Rows leave only now, so that the last step can still be marked."""
        if self._used == len(self._buffer):
            self.flush()
        return len(self._buffer) - self._used

    def _check_shapes(self, segment: Segment) -> None:
        known = self.columns.shapes
        same = [known.get(path) == array.shape[1:] for path, array in segment.observations.items()]
        if len(same) != len(known) or not all(same):
            shapes = {path: array.shape[1:] for path, array in segment.observations.items()}
            here, earlier = (part[""] if list(part) == [""] else part for part in (shapes, known))
            raise self._broken(f"has observations of shapes {here}, earlier ones {earlier}")
        discrete = segment.actions.dtype.kind in "biu"
        if segment.actions.shape[1:] != self.columns.action_shape or discrete != self.columns.discrete:
            raise self._broken(
                f"has actions of shape {segment.actions.shape[1:]} ({segment.actions.dtype}), earlier ones "
                f"{self.columns.action_shape}"
            )
        if len(segment.rewards) != len(segment.actions):
            raise self._broken(f"has {len(segment.rewards)} rewards for {len(segment.actions)} actions")

    def _check_finite(self, rows: Floats) -> None:
        wrong = np.argwhere(~np.isfinite(rows))
        if len(wrong) == 0:
            return
        row, place = self.written + int(wrong[0, 0]), int(wrong[0, 1])
        number = int(np.searchsorted(self.episodes.start_rows, row, side="right")) - 1
        step, size = row - self.episodes.start_rows[number], self.columns.observation_size
        paths = [path for path, (start, stop) in self.columns.vectors.items() if start <= place < stop]
        name = "rewards" if place >= self.columns.width - 2 else "actions" if place >= size else "observations"
        name += f"['{paths[0]}']" if paths and paths[0] else ""
        raise self._broken(f"has a value that is not finite in {name} at its step {step}, in 32 bits", number)

    def _check_space(self, space: ActionSpace | None) -> None:
        info = self._info
        if space is not None and isinstance(space, DiscreteActions) != self.columns.discrete:
            kind = "integers" if self.columns.discrete else "real numbers"
            raise InvalidEpisode(
                f"{info.path}: actions are {kind}, but {info.env_id} has the action space {space}",
                "store integer actions for a discrete space and real ones for a continuous space",
            )
        if self.columns.discrete:
            count = space.count if isinstance(space, DiscreteActions) else np.inf
            if not (self._least >= 0 and self._greatest < count):
                raise InvalidEpisode(
                    f"{info.path}: actions reach from {self._least} to {self._greatest}, outside 0..{count - 1}",
                    "mend the actions, or the environment that the dataset names",
                )
        elif isinstance(space, ContinuousActions) and self.columns.action_shape != (space.width,):
            raise InvalidEpisode(
                f"{info.path}: actions have shape {self.columns.action_shape}, but {info.env_id} has {space.width} "
                "dimensions",
                "mend the environment that the dataset names",
            )

    def _action_range(self) -> NDArray[np.float32]:
        """The least and the greatest of each action dimension, shape (2, A), from the rows that were written."""
        low, high = np.full(self.columns.action_shape, np.inf), np.full(self.columns.action_shape, -np.inf)
        rows = np.memmap(self._path, dtype=np.float32, mode="r", shape=(self.written, self.columns.width))
        for start, steps in zip(self.episodes.start_rows, self.episodes.steps, strict=True):
            actions = rows[start : start + steps, self.columns.observation_size : -2]
            low, high = np.minimum(low, actions.min(axis=0)), np.maximum(high, actions.max(axis=0))
        return np.stack([low, high]).astype(np.float32)

    def _broken(self, what: str, number: int | None = None) -> InvalidEpisode:
        return InvalidEpisode(
            f"{self._info.path}: episode {len(self.episodes.steps) if number is None else number} {what}",
            "mend that episode, or leave it out: iq-offline convert SOURCE --to NAME-v0 --keep-going",
        )


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is on the disk when it is closed: a table vouches for its rows after a power cut too."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
