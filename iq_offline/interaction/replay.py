"""The replay: every transition experienced, in whole episodes, on disk as a training table has them.

Episodes are appended to files that are mapped into memory: rows [observation | action | reward | termination], one
more a final observation; pictures beside them. An episode counts once its line in the list of episodes is written,
which is last: a process that is killed leaves whole episodes and nothing else. The most recent ones are drawn from.
"""

import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.observations import from_leaves
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.table import Leaf, TransitionTable
from iq_offline.errors import RunError
from iq_offline.training.batches import TransitionSampler

ROWS, EPISODES = "rows.f32", "episodes.bin"
LISTED = np.dtype(
    [("start", "<i8"), ("steps", "<i8"), ("seed", "<i8"), ("terminated", "u1"), ("truncated", "u1"), ("crc", "<u4")]
)
"""A line of the list of episodes; `crc` is of the episode's rows."""


@dataclass(frozen=True)
class Experience:
    """One whole episode of T steps. Shapes: rows (T + 1, width), as a table has them; pictures (T + 1, ...).

    The last row has the final observation alone. A truncation is not a termination: its rows have no 1 there.
    """

    rows: NDArray[np.float32]
    pictures: dict[str, NDArray[np.uint8]]
    terminated: bool
    seed: int

    def __len__(self) -> int:
        return len(self.rows) - 1

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of rewards. Training reads no reward: this is for people."""
        return float(self.rows[:-1, -2].sum(dtype=np.float64))


class Replay:
    """Appended to between updates, and drawn from in updates, `recent` transitions at most, in whole episodes.

    `like`: the demonstrations' table, whose layout the rows have. `rows`: as many as there will ever be.
    """

    def __init__(self, folder: Path, like: TransitionTable, rows: int, recent: int, device: torch.device) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._recent, self._capacity = folder, recent, rows
        width = like.rows.shape[1]
        pictures = {
            leaf.path: _mapped(folder / f"pictures-{number}.u8", np.uint8, (rows, *leaf.shape))
            for number, leaf in enumerate(leaf for leaf in like.layout if leaf.file)
        }
        mapped = _mapped(folder / ROWS, np.float32, (rows, width))
        self._table = replace(like, rows=mapped, rows_file=folder / ROWS, pictures=pictures)
        self._listed = np.zeros(0, LISTED)
        self.sampler = _RecentSampler(self._table, device)

    @property
    def episodes(self) -> NDArray[Any]:
        """The list of episodes, LISTED."""
        return self._listed

    @property
    def steps(self) -> int:
        """Transitions experienced."""
        return int(self._listed["steps"].sum())

    def append(self, experience: Experience) -> None:
        """Write it; its line in the list last."""
        start = int(self._listed["start"][-1] + self._listed["steps"][-1] + 1) if len(self._listed) else 0
        end = start + len(experience.rows)
        self._table.rows[start:end] = experience.rows
        for path, held in self._table.pictures.items():
            held[start:end] = experience.pictures[path]
        crc = zlib.crc32(np.ascontiguousarray(experience.rows).data)
        line = (start, len(experience), experience.seed, experience.terminated, not experience.terminated, crc)
        listed = np.array([line], LISTED)
        with (self.folder / EPISODES).open("ab") as file:
            file.write(listed.tobytes())
        self._add(listed)

    def recall(self, keep: int) -> None:
        """Go on from the first `keep` episodes of an earlier process, and drop what it appended later.

        Raises RunError where they are not there as they were written.
        """
        file = self.folder / EPISODES
        held = file.read_bytes() if file.is_file() else b""
        listed = np.frombuffer(held[: len(held) // LISTED.itemsize * LISTED.itemsize], LISTED)
        whole = len(listed) >= keep and all(map(self._is_whole, listed[:keep]))
        if not whole:
            raise lost(self.folder)
        with file.open("wb") as shortened:
            shortened.write(listed[:keep].tobytes())
        self._listed = np.zeros(0, LISTED)
        self.sampler.forget()
        self._add(listed[:keep])

    def found(self) -> NDArray[Any]:
        """The list of episodes as an earlier process left it on disk."""
        file = self.folder / EPISODES
        held = file.read_bytes() if file.is_file() else b""
        return np.frombuffer(held[: len(held) // LISTED.itemsize * LISTED.itemsize], LISTED)

    def secure(self) -> None:
        """Have the disk hold what was appended."""
        for mapped in (self._table.rows, *self._table.pictures.values()):
            mapped.flush()  # type: ignore[attr-defined]
        with (self.folder / EPISODES).open("ab") as file:
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete its files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def source(self, description: str) -> EpisodeSource:
        """All of it as a dataset of the demonstrations' kind, with the rewards of the environment."""
        like = self._table.info
        info = DatasetInfo(
            name="replay",
            path=str(self.folder),
            format="replay",
            env_id=like.env_id,
            env_kwargs=like.env_kwargs,
            action_space=self._table.action_space,
            description=description,
            origin_sha256=self._sha256(),
        )
        return EpisodeSource(info, _Episodes(self))

    def episode(self, number: int) -> Episode:
        """One of them, as datasets have it."""
        line, table = self._listed[number], self._table
        rows = np.arange(line["start"], line["start"] + line["steps"] + 1)
        values = table.observations(rows)
        observations = {leaf.path: _observations(leaf, table, rows, values) for leaf in table.layout}
        actions = table.actions(rows[:-1])
        return Episode(
            number,
            from_leaves(observations),
            actions[:, 0].astype(np.int64) if isinstance(table.action_space, DiscreteActions) else actions,
            table.rewards(rows[:-1]),
            terminated=bool(line["terminated"]),
            truncated=bool(line["truncated"]),
            source=str(self.folder),
            seed=int(line["seed"]),
        )

    def _sha256(self) -> str:
        end = int(self._listed["start"][-1] + self._listed["steps"][-1] + 1) if len(self._listed) else 0
        return hashlib.sha256(np.ascontiguousarray(self._table.rows[:end]).data).hexdigest()

    def _is_whole(self, line: Any) -> bool:
        start, end = int(line["start"]), int(line["start"] + line["steps"] + 1)
        fits = 0 <= start < end <= self._capacity
        return fits and zlib.crc32(np.ascontiguousarray(self._table.rows[start:end]).data) == line["crc"]

    def _add(self, listed: NDArray[Any]) -> None:
        self._listed = np.concatenate([self._listed, listed])
        for line in listed:
            self.sampler.extend(int(line["start"]), int(line["steps"]))
        kept = np.cumsum(self._listed["steps"][::-1]) <= self._recent
        oldest = self._listed[len(kept) - max(1, int(kept.sum())) :][:1]
        self.sampler.forget(int(oldest["start"][0]) if len(oldest) else 0)


@dataclass(frozen=True)
class _Episodes:
    replay: Replay

    def __iter__(self) -> Iterator[Episode]:
        return map(self.replay.episode, range(len(self.replay.episodes)))


class _RecentSampler(TransitionSampler):
    """Draws from rows of a table that are written while it is in use."""

    def __init__(self, table: TransitionTable, device: torch.device) -> None:
        self._hold(table, table.rows, np.zeros(0, np.int64), device)
        self._rows, self._table = table.rows, table
        self._pictures = [leaf for leaf in table.layout if leaf.file]
        self._picture_rows = torch.zeros(0, dtype=torch.int64)
        self._initial = None

    def extend(self, start: int, steps: int) -> None:
        """Draw from these transitions, too."""
        if self._pairs.is_cuda:
            end = start + steps
            width = self._rows.shape[1]
            flat = torch.from_numpy(self._rows[start : end + 1].reshape(-1)).to(self.device)
            torch.as_strided(self._pairs, (steps * width + width,), (1,), start * width).copy_(flat)
        more = torch.arange(start, start + steps)
        self._index = torch.cat([self._index, more.to(self.device)])
        if self._pictures:
            self._picture_rows = torch.cat([self._picture_rows, more])

    def forget(self, before: int | None = None) -> None:
        """Draw no longer from rows before that one; None: from none."""
        kept = slice(0, 0) if before is None else slice(int((self._index < before).sum()), None)
        if before is None or kept.start:
            self._index = self._index[kept].clone()
            if self._pictures:
                self._picture_rows = self._picture_rows[kept].clone()


def _mapped(path: Path, dtype: Any, shape: Sequence[int]) -> NDArray[Any]:
    """A file of that size, mapped: made with holes, or the one that is there."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not path.is_file() or path.stat().st_size != size:
        with path.open("wb") as file:
            file.truncate(size)
    return np.memmap(path, dtype=dtype, mode="r+", shape=tuple(shape))


def _observations(leaf: Leaf, table: TransitionTable, rows: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
    """One array of the observations, as the environment gave it but for the precision of a table."""
    if leaf.file:
        return np.asarray(table.pictures[leaf.path][rows])
    own = values[:, leaf.start : leaf.stop]
    if leaf.offset:
        own = own.astype(np.float64) + np.array(leaf.offset)
    dtype = np.dtype(leaf.dtype)
    return own.reshape(len(rows), *leaf.shape).astype(dtype if dtype.kind != "f" else np.result_type(own))


def lost(folder: Path) -> RunError:
    """The error of a run whose experience is gone."""
    return RunError(f"{folder} does not hold what the run had experienced", "leave --resume out to start anew")


def rows_for(steps: int) -> int:
    """Rows that so many transitions may take: each might be an episode of its own."""
    return 2 * steps
