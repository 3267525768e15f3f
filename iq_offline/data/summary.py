"""What a dataset holds: counts, ranges, returns, saturated actions, duplicates and defects, from its table."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from iq_offline.data.spaces import ContinuousActions
from iq_offline.data.table import TransitionTable

CHUNK_ROWS = 1 << 16
COMPARED_STEPS = 10_000_000
"""Duplicates are counted up to so many steps: their hashes are held in memory together."""
COMPARED_BYTES = 1 << 33
"""Duplicates among pictures are counted up to so many bytes of them."""
PICTURES_AT_ONCE = 1024
MOST_NAMED = 4
"""Columns that one defect names."""
AT_BOUND = 1e-6
"""Within this share of its range from a bound, an action counts as saturated."""


def summarise(table: TransitionTable) -> dict[str, Any]:
    """The object that `inspect --json` prints. Returns are undiscounted sums of the recorded rewards."""
    episodes, columns = table.episodes, _Columns(table)
    actions = columns.actions
    return {
        "dataset": table.info.name,
        "path": table.info.path,
        "format": table.info.format,
        "episodes": len(episodes),
        "steps": table.steps,
        "terminations": int(episodes["terminated"].sum()),
        "truncations": int(episodes["truncated"].sum()),
        "observation_shape": _observation_shape(table),
        "observation_layout": {leaf.path or "observations": [leaf.dtype, *leaf.shown] for leaf in table.layout},
        "observation_categories": {
            leaf.path or "observations": list(leaf.categories) for leaf in table.layout if leaf.categories
        },
        "observation_range": columns.observation_range(),
        "action_space": table.action_space.to_json(),
        "action_range": actions.range(),
        "actions": columns.per_action(),
        "return": _statistics(episodes["return"].to_numpy()),
        "length": _statistics(episodes["steps"].to_numpy()),
        "reward_range": columns.rewards.range(),
        "duplicates": {"transitions": columns.duplicates, "episodes": columns.duplicate_episodes},
        "env_id": table.info.env_id,
        "env_kwargs": table.info.env_kwargs,
        "sha256": table.info.sha256,
        "notes": list(table.info.notes),
        "defects": _defects(table, columns),
    }


def per_episode(table: TransitionTable) -> pl.DataFrame:
    """A row an episode: number, steps, return, how it ended, the share of its actions at a bound, what was repaired."""
    numbers = table.episodes.drop("start_row")
    if not _has_bounds(table):
        return numbers
    chunks = (values for _, values in table.chunks(CHUNK_ROWS))
    saturated = np.concatenate([np.logical_or(*_at_bound(table, values)).any(axis=1) for values in chunks])
    of_steps = saturated[_is_step(table)]
    starts = np.cumsum(table.episodes["steps"].to_numpy()) - table.episodes["steps"].to_numpy()
    share = np.add.reduceat(of_steps.astype(np.float64), starts) / table.episodes["steps"].to_numpy()
    return numbers.with_columns(pl.Series("saturated_share", share))


class _Range:
    """Least, greatest, mean and spread of each column, chunk by chunk."""

    def __init__(self, width: int) -> None:
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)
        self._sum, self._squares, self._count = np.zeros(width), np.zeros(width), 0

    def include(self, values: NDArray[Any]) -> None:
        """Values of shape (n, width)."""
        if len(values):
            columns = np.ascontiguousarray(values.T)  # a reduction along memory is several times faster
            self.low = np.minimum(self.low, columns.min(axis=1))
            self.high = np.maximum(self.high, columns.max(axis=1))
            self._sum += columns.sum(axis=1, dtype=np.float64)
            self._squares += np.einsum("ij,ij->i", columns, columns, dtype=np.float64)
            self._count += len(values)

    def range(self) -> list[float] | None:
        """Over all columns; None where there are none."""
        return [float(self.low.min()), float(self.high.max())] if len(self.low) else None

    def mean(self, column: int) -> float:
        """Of one column."""
        return float(self._sum[column] / self._count)

    def std(self, column: int) -> float:
        """Of one column."""
        return float(np.sqrt(max(0.0, self._squares[column] / self._count - self.mean(column) ** 2)))


class _Columns:
    """One pass over the rows."""

    def __init__(self, table: TransitionTable, *, duplicates: bool = True) -> None:
        size, width = table.observation_size, table.action_space.width
        self._table = table
        self.observations, self.actions, self.rewards = _Range(size), _Range(width), _Range(1)
        self._pixels: list[tuple[int, int]] = []
        self._saturated = np.zeros((2, width), dtype=np.int64)
        self.out_of_bounds = 0
        is_step, hashes = _is_step(table), []
        compared = duplicates and table.steps <= COMPARED_STEPS and table.picture_bytes <= COMPARED_BYTES
        for rows, values in table.chunks(CHUNK_ROWS):
            of_steps = values[is_step[rows]]
            self.observations.include(values[:, :size])
            self.actions.include(of_steps[:, size:-2])
            self.rewards.include(of_steps[:, -2:-1])
            if compared:
                pictures = self._hashes_of_pictures(rows)
                hashes.append(_hashes(of_steps, *(found[is_step[rows]] for found in pictures)))
            if _has_bounds(table):
                self._count_bounds(of_steps)
        self.duplicates: int | None = None
        self.duplicate_episodes: int | None = None
        if hashes:
            self._count_duplicates(np.concatenate(hashes))

    def per_action(self) -> list[dict[str, float | None]] | None:
        """Range, mean and saturation of each dimension of continuous actions; None for discrete ones.

        There is no saturation where the bounds are the data's own range.
        """
        bounded = _has_bounds(self._table)
        if not isinstance(self._table.action_space, ContinuousActions):
            return None
        return [
            {
                "min": float(self.actions.low[column]),
                "max": float(self.actions.high[column]),
                "mean": self.actions.mean(column),
                "std": self.actions.std(column),
                "at_low": float(self._saturated[0, column] / self._table.steps) if bounded else None,
                "at_high": float(self._saturated[1, column] / self._table.steps) if bounded else None,
            }
            for column in range(self._table.action_space.width)
        ]

    @property
    def constant_observations(self) -> int:
        """Observation columns that never change, in the source's own bits."""
        constant = self.observations.low == self.observations.high
        constant[list(self._table.precision.get("unseen", ()))] = False
        return int(constant.sum())

    def observation_range(self) -> list[float] | None:
        """Over all numbers of an observation as they were recorded, and its pictures' bytes where these were read."""
        offset = np.array(self._table.offset or (0.0,) * self._table.observation_size)
        low, high = (bound + offset for bound in (self.observations.low, self.observations.high))
        ends = [*zip(low.tolist(), high.tolist(), strict=True), *self._pixels]
        if self._table.pictures and not self._pixels:
            ends.append((0, 255))
        return [float(min(low for low, _ in ends)), float(max(high for _, high in ends))] if ends else None

    def _hashes_of_pictures(self, rows: slice) -> list[NDArray[np.uint64]]:
        """A 64-bit hash of each row's picture, of each array of them."""
        found = []
        for held in self._table.pictures.values():
            hashes = np.empty(rows.stop - rows.start, np.uint64)
            for first in range(rows.start, rows.stop, PICTURES_AT_ONCE):
                part = np.asarray(held[first : min(first + PICTURES_AT_ONCE, rows.stop)])
                self._pixels.append((int(part.min()), int(part.max())))
                series = pl.Series([picture.tobytes() for picture in part], dtype=pl.Binary)
                hashes[first - rows.start :][: len(part)] = series.hash(seed=0).to_numpy()
            found.append(hashes)
        return found

    def _count_bounds(self, of_steps: NDArray[np.float32]) -> None:
        low, high = _at_bound(self._table, of_steps)
        self._saturated += np.stack([low.sum(axis=0), high.sum(axis=0)])
        space = self._table.action_space
        assert isinstance(space, ContinuousActions)
        actions = of_steps[:, self._table.observation_size : -2]
        outside = (actions < np.array(space.low, dtype=np.float32)) | (actions > np.array(space.high, dtype=np.float32))
        self.out_of_bounds += int(outside.any(axis=1).sum())

    def _count_duplicates(self, hashes: NDArray[np.uint64]) -> None:
        lengths = self._table.episodes["steps"].to_numpy()
        starts = np.cumsum(lengths) - lengths
        within = (np.arange(len(hashes)) - np.repeat(starts, lengths)).astype(np.uint64)
        of_episodes = np.add.reduceat(hashes * (within * np.uint64(2) + np.uint64(1)), starts)
        self.duplicates = len(hashes) - pl.Series(hashes).n_unique()
        self.duplicate_episodes = len(of_episodes) - pl.Series(of_episodes).n_unique()


def _is_step(table: TransitionTable) -> NDArray[np.bool_]:
    """Whether a row is a step, and not an episode's final observation; shape (N + episodes,)."""
    is_step = np.ones(len(table.rows), dtype=bool)
    is_step[(table.episodes["start_row"] + table.episodes["steps"]).to_numpy()] = False
    return is_step


def _has_bounds(table: TransitionTable) -> bool:
    """Whether the actions have bounds that are more than their own range."""
    return isinstance(table.action_space, ContinuousActions) and table.action_space.source != "data"


def _at_bound(table: TransitionTable, rows: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each action of those rows lies at its lower and at its upper bound, each of shape (n, A)."""
    assert isinstance(table.action_space, ContinuousActions)
    low, high = (np.array(bound, dtype=np.float32) for bound in (table.action_space.low, table.action_space.high))
    actions, margin = rows[:, table.observation_size : -2], AT_BOUND * (high - low)
    return np.asarray(actions <= low + margin), np.asarray(actions >= high - margin)


def _hashes(rows: NDArray[np.float32], *pictures: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row, and of its pictures' hashes."""
    frame = pl.DataFrame(np.ascontiguousarray(rows))
    beside = [pl.Series(f"picture_{number}", hashes) for number, hashes in enumerate(pictures)]
    return frame.with_columns(beside).hash_rows(seed=0).to_numpy()


def _observation_shape(table: TransitionTable) -> list[int]:
    """Of a single picture its own; else how many numbers an observation has, pictures' bytes included."""
    if len(table.layout) == 1 and table.pictures:
        return list(table.layout[0].shown)
    pixels = sum(int(np.prod(leaf.shown)) for leaf in table.layout if leaf.file)
    return [table.observation_size + pixels]


def _statistics(values: NDArray[Any]) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def recorded_defects(table: TransitionTable) -> list[dict[str, Any]]:
    """The defects of a summary, but for duplicates, which take the longest to find."""
    return _defects(table, _Columns(table, duplicates=False))


def _defects(table: TransitionTable, columns: _Columns) -> list[dict[str, Any]]:
    """What is wrong with the recording, how often, and what is done about it. Empty if nothing is."""
    episodes = table.episodes
    unknown = int((~episodes["successor_known"]).sum())
    lost = table.precision.get("lost", [])
    merged = ", ".join(f"{one['name']} {one['distinct']} to {one['kept']}" for one in lost[:MOST_NAMED])
    merged += ", ..." if len(lost) > MOST_NAMED else ""
    found = [
        ("unflagged_tail", int(episodes["unflagged"].sum()), "episodes with no end marked; kept, as truncated"),
        ("discontinuity", int(episodes["discontinuous"].sum()), "unmarked cuts in the data; split there, as truncated"),
        ("unknown_successor", unknown, "episodes whose last observation was not recorded; it repeats the one before"),
        ("action_out_of_bounds", columns.out_of_bounds, "steps with an action outside the bounds; kept as they are"),
        ("constant_observation", columns.constant_observations, "observation dimensions that never change; kept"),
        (
            "lost_values",
            sum(one["distinct"] - one["kept"] for one in lost),
            f"distinct values lost in 32 bits ({merged}); kept, rounded: store differences from a start",
        ),
        (
            "lost_changes",
            len(table.precision.get("unseen", ())),
            "observation dimensions whose changes are too small for 32 bits; constant to training: scale them up",
        ),
        ("duplicate_episode", columns.duplicate_episodes or 0, "episodes that repeat another step by step; kept"),
    ]
    return [{"kind": kind, "count": count, "handling": handling} for kind, count, handling in found if count]
