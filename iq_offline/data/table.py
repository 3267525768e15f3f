"""The packed training table: every step one row of 32-bit floats, mapped into memory.

A row is [observation | action | reward | termination]. An episode of T steps takes T+1 rows, the last one
holding only its final observation, so that the successor of row i is always row i+1 and no observation is
stored twice. Written once for each source, keyed by the source's SHA-256; roles and splits are index sets.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock
from numpy.typing import NDArray

from iq_offline import paths
from iq_offline.data.catalogue import Located
from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.files import sha256_of_path, whole_folder
from iq_offline.data.reading import read_episodes
from iq_offline.data.spaces import (
    ActionSpace,
    ContinuousActions,
    DiscreteActions,
    action_space_from_json,
    infer_action_space,
)
from iq_offline.errors import DatasetUnreadable, InvalidEpisode

TABLE_VERSION = 1
"""Part of a table's key: a change of layout or of a reader's rules makes new tables."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TransitionTable:
    """A packed table, opened. `rows` is memory-mapped, shape (N + episodes, width)."""

    info: DatasetInfo
    action_space: ActionSpace
    observation_size: int
    rows: Floats
    episodes: pl.DataFrame
    """One row an episode: episode, start_row, steps, terminated, truncated, unflagged, discontinuous,
    successor_known, return."""

    @cached_property
    def transition_rows(self) -> NDArray[np.int64]:
        """Row numbers of all steps, shape (N,), episode after episode."""
        return rows_of_episodes(self.episodes, 1)

    @property
    def steps(self) -> int:
        """Number of transitions N."""
        return int(self.episodes["steps"].sum())

    def observations(self, rows: NDArray[np.int64]) -> Floats:
        """Observations of those rows, shape (n, D)."""
        return np.asarray(self.rows[rows, : self.observation_size])

    def actions(self, rows: NDArray[np.int64]) -> Floats:
        """Actions of those rows, shape (n, A); a discrete action is its number in one column."""
        return np.asarray(self.rows[rows, self.observation_size : -2])

    def rewards(self, rows: NDArray[np.int64]) -> Floats:
        """True rewards of those rows, shape (n,). Never read by training."""
        return np.asarray(self.rows[rows, -2])

    def terminations(self, rows: NDArray[np.int64]) -> Floats:
        """1 where the task ended with that step, else 0; shape (n,)."""
        return np.asarray(self.rows[rows, -1])


def rows_of_episodes(episodes: pl.DataFrame, subsample: int) -> NDArray[np.int64]:
    """Row numbers of every `subsample`-th step of those episodes, from each one's first."""
    spans = zip(episodes["start_row"], episodes["steps"], strict=True)
    return np.concatenate([np.arange(start, start + steps, subsample, dtype=np.int64) for start, steps in spans])


def open_table(located: Located) -> TransitionTable:
    """The table of a dataset: opened if it was made from these very bytes, else made first."""
    data = located.path / "data" if (located.path / "data").is_dir() else located.path
    key = sha256_of_path(data)
    folder = paths.home() / "tables" / f"{key[:24]}-v{TABLE_VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not _is_whole(folder, key):
            with whole_folder(folder) as temporary:
                pack(read_episodes(located), temporary)
    return load(folder, located)


def pack(source: EpisodeSource, folder: Path) -> None:
    """Write the table of a source into an existing empty folder. Raises DatasetUnreadable, InvalidEpisode."""
    records: list[dict[str, Any]] = []
    observation_size, next_row, space = 0, 0, _declared_space(source.info)
    unbounded = _ActionRange()
    with (folder / "rows.f32").open("wb") as file:
        for episode in source:
            observation_size = _same_size(episode, observation_size)
            rows = _packed(episode)
            file.write(rows.tobytes())
            records.append(_record(episode, next_row))
            unbounded.include(episode.actions)
            next_row += len(rows)
    if not records:
        raise DatasetUnreadable(f"{source.info.path} has no episodes", "use a dataset that has data")
    space = unbounded.checked(space, source.info)
    pl.DataFrame(records).write_parquet(folder / "episodes.parquet")
    content = {
        "sha256": source.info.sha256,
        "format": source.info.format,
        "env_id": source.info.env_id,
        "env_kwargs": source.info.env_kwargs,
        "description": source.info.description,
        "reference": source.info.reference,
        "origin_sha256": source.info.origin_sha256,
        "action_space": space.to_json(),
        "observation_size": observation_size,
        "shape": [next_row, observation_size + space.width + 2],
        "version": TABLE_VERSION,
    }
    (folder / "table.json").write_text(json.dumps(content, indent=1))


def load(folder: Path, located: Located) -> TransitionTable:
    """Open the table in a folder; its rows are mapped, not read."""
    content = json.loads((folder / "table.json").read_text())
    reference = content["reference"]
    info = DatasetInfo(
        name=located.name,
        path=str(located.path),
        sha256=content["sha256"],
        format=content["format"],
        env_id=content["env_id"],
        env_kwargs=content["env_kwargs"],
        action_space=action_space_from_json(content["action_space"]),
        description=content["description"],
        reference=(reference[0], reference[1], reference[2]) if reference else None,
        origin_sha256=content["origin_sha256"],
    )
    return TransitionTable(
        info=info,
        action_space=action_space_from_json(content["action_space"]),
        observation_size=content["observation_size"],
        rows=np.memmap(folder / "rows.f32", dtype=np.float32, mode="r", shape=tuple(content["shape"])),
        episodes=pl.read_parquet(folder / "episodes.parquet"),
    )


class _ActionRange:
    """What the recorded actions show of their space: kind, width, least and greatest."""

    def __init__(self) -> None:
        self.low: NDArray[Any] | None = None
        self.high: NDArray[Any] | None = None

    def include(self, actions: NDArray[Any]) -> None:
        low, high = actions.min(axis=0), actions.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    def checked(self, declared: ActionSpace | None, info: DatasetInfo) -> ActionSpace:
        """The declared space if the actions fit it, else one that they do fit."""
        assert self.low is not None
        assert self.high is not None
        extremes = np.stack([self.low, self.high])
        space = infer_action_space(extremes, declared)
        discrete = np.issubdtype(extremes.dtype, np.integer)
        if isinstance(space, DiscreteActions) != discrete:
            raise InvalidEpisode(
                f"{info.path}: actions are {extremes.dtype}, but {info.env_id} has the action space {space}",
                "store integer actions for a discrete space and real ones for a continuous space",
            )
        if isinstance(space, DiscreteActions) and not (extremes.min() >= 0 and extremes.max() < space.count):
            raise InvalidEpisode(
                f"{info.path}: actions reach from {extremes.min()} to {extremes.max()}, outside 0..{space.count - 1}",
                "mend the actions, or the environment that the dataset names",
            )
        if isinstance(space, ContinuousActions) and extremes.shape[1] != space.width:
            raise InvalidEpisode(
                f"{info.path}: actions have {extremes.shape[1]} dimensions, but {info.env_id} has {space.width}",
                "mend the environment that the dataset names",
            )
        return space


def _declared_space(info: DatasetInfo) -> ActionSpace | None:
    if info.action_space or not info.env_id:
        return info.action_space
    from iq_offline.data.environments import environment_action_space

    return environment_action_space(info.env_id, info.env_kwargs)


def _same_size(episode: Episode, observation_size: int) -> int:
    size = int(episode.observations.shape[1])
    if observation_size not in (0, size):
        raise InvalidEpisode(
            f"{episode.source}: episode {episode.index} has observations of {size} numbers, earlier ones had "
            f"{observation_size}",
            "give all episodes one observation size",
        )
    return size


def _packed(episode: Episode) -> Floats:
    steps, size = len(episode), episode.observations.shape[1]
    actions = episode.actions.reshape(steps, -1)
    rows = np.zeros((steps + 1, size + actions.shape[1] + 2), dtype=np.float32)
    rows[:, :size] = episode.observations
    rows[:-1, size:-2] = actions
    rows[:-1, -2] = episode.rewards
    rows[-2, -1] = episode.terminated
    return rows


def _record(episode: Episode, start_row: int) -> dict[str, Any]:
    return {
        "episode": episode.index,
        "start_row": start_row,
        "steps": len(episode),
        "terminated": episode.terminated,
        "truncated": episode.truncated,
        "unflagged": episode.unflagged,
        "discontinuous": episode.discontinuous,
        "successor_known": episode.successor_known,
        "return": episode.episode_return,
    }


def _is_whole(folder: Path, key: str) -> bool:
    """Whether a folder holds a complete table of the source with that hash."""
    try:
        content = json.loads((folder / "table.json").read_text())
        size = (folder / "rows.f32").stat().st_size
        pl.read_parquet_schema(folder / "episodes.parquet")
    except (OSError, json.JSONDecodeError, pl.exceptions.PolarsError):
        return False
    expected: Iterable[int] = content.get("shape", [0])
    return bool(content.get("sha256") == key and size == 4 * int(np.prod(list(expected))))
