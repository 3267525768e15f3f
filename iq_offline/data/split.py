"""Which transitions a run learns from: index sets over a table, chosen by the seed alone."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.table import TransitionTable, rows_of_episodes
from iq_offline.errors import ConfigError

SPLIT_STREAM = 1
"""Keeps the random stream that chooses episodes apart from the others that start from the same seed."""


@dataclass(frozen=True)
class Split:
    """The expert's episodes and their transitions, as rows of the table."""

    episodes: tuple[int, ...]
    rows: NDArray[np.int64]
    subsample: int
    dropped_unknown_successors: int

    def to_json(self, table: TransitionTable) -> dict[str, Any]:
        """What `split.json` records."""
        return {
            "dataset": table.info.name,
            "dataset_sha256": table.info.sha256,
            "expert_episodes": list(self.episodes),
            "subsample": self.subsample,
            "transitions": len(self.rows),
            "rows_sha256": hashlib.sha256(self.rows.tobytes()).hexdigest(),
            "dropped_unknown_successors": self.dropped_unknown_successors,
            "rewards_read": False,
        }


def choose_expert(
    table: TransitionTable, *, demos: int | None, subsample: int, seed: int, need_successors: bool
) -> Split:
    """`demos` episodes drawn by the seed (all if None), keeping every `subsample`-th step of each.

    Each kept step keeps its true successor. With `need_successors`, steps whose successor was never recorded are
    left out (a termination needs none). Raises ConfigError if the table has fewer episodes than asked for.
    """
    total = len(table.episodes)
    if demos is not None and demos > total:
        raise ConfigError(f"--demos {demos}: {table.info.name} has {total} episodes", f"ask for at most {total}")
    order = np.random.default_rng([SPLIT_STREAM, seed]).permutation(total)
    chosen = np.sort(order[: demos if demos is not None else total])
    episodes = table.episodes[chosen.tolist()]
    rows = rows_of_episodes(episodes, subsample)
    dropped = 0
    if need_successors:
        unknown = episodes.filter(~episodes["successor_known"] & ~episodes["terminated"])
        last_rows = (unknown["start_row"] + unknown["steps"] - 1).to_numpy()
        keep = ~np.isin(rows, last_rows)
        dropped = int((~keep).sum())
        rows = rows[keep]
    if len(rows) == 0:
        raise ConfigError(f"{table.info.name} leaves no transitions to learn from", "choose more or longer episodes")
    return Split(tuple(chosen.tolist()), rows, subsample, dropped)
