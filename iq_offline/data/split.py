"""Which transitions a run learns from: index sets over tables, chosen by the seed alone unless asked otherwise."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from iq_offline.config.train import Selection, SubsampleFrom
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.table import TransitionTable, rows_of_episodes
from iq_offline.errors import ConfigError

SPLIT_STREAM, SUBSAMPLE_STREAM = 1, 11
"""Keep the random streams that choose episodes, and steps of them, apart from others that start from the same seed."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """The expert's episodes and their transitions, as rows of the table; those held out are not among them."""

    episodes: tuple[int, ...]
    rows: Rows
    subsample: int
    dropped_unknown_successors: int
    subsample_from: SubsampleFrom = SubsampleFrom.FIRST
    select: Selection = Selection.RANDOM
    held_out_episodes: tuple[int, ...] = ()
    held_out_rows: Rows | None = None

    def to_json(self, table: TransitionTable, supplementary: "tuple[TransitionTable, ...]" = ()) -> dict[str, Any]:
        """What `split.json` records."""
        return {
            "dataset": table.info.name,
            "dataset_sha256": table.info.sha256,
            "select": self.select,
            "rewards_read": self.select is Selection.TOP,
            "expert_episodes": list(self.episodes),
            "subsample": self.subsample,
            "subsample_from": self.subsample_from,
            "transitions": len(self.rows),
            "rows_sha256": hashlib.sha256(self.rows.tobytes()).hexdigest(),
            "dropped_unknown_successors": self.dropped_unknown_successors,
            "held_out_episodes": list(self.held_out_episodes),
            "supplementary": [
                {
                    "dataset": other.info.name,
                    "sha256": other.info.sha256,
                    "origin_sha256": other.info.origin_sha256,
                    "episodes": len(other.episodes),
                    "transitions": len(rows_with_successors(other)),
                }
                for other in supplementary
            ],
        }


def choose_expert(
    table: TransitionTable,
    *,
    demos: int | None,
    subsample: int,
    seed: int,
    need_successors: bool,
    subsample_from: SubsampleFrom = SubsampleFrom.FIRST,
    select: Selection = Selection.RANDOM,
    held_out: float | None = None,
) -> Split:
    """`demos` episodes drawn by the seed, or those of the highest return (all if None), every `subsample`-th step.

    Each kept step keeps its true successor. With `need_successors`, steps whose successor was never recorded are
    left out (a termination needs none). `held_out`: that share of the episodes, at least one, is set aside by the
    seed. Raises ConfigError if the table has fewer episodes than asked for, or none would be left.
    """
    total = len(table.episodes)
    if demos is not None and demos > total:
        raise ConfigError(f"--demos {demos}: {table.info.name} has {total} episodes", f"ask for at most {total}")
    random = np.random.default_rng([SPLIT_STREAM, seed])
    order = random.permutation(total)
    if select is Selection.TOP:
        order = np.argsort(-table.episodes["return"].to_numpy(), kind="stable")
    chosen = np.sort(order[: demos if demos is not None else total])
    aside = np.zeros(0, dtype=chosen.dtype)
    if held_out is not None:
        aside = np.sort(random.permutation(chosen)[: max(1, round(held_out * len(chosen)))])
        chosen = np.setdiff1d(chosen, aside)
    thinned = every_kth(table, chosen, subsample, subsample_from, seed)
    rows = _followed(table, thinned) if need_successors else thinned
    if len(rows) == 0:
        raise ConfigError(
            f"{table.info.name} leaves no transitions to learn from",
            "choose more or longer episodes, or hold out fewer",
        )
    return Split(
        episodes=tuple(chosen.tolist()),
        rows=rows,
        subsample=subsample,
        dropped_unknown_successors=len(thinned) - len(rows),
        subsample_from=subsample_from,
        select=select,
        held_out_episodes=tuple(aside.tolist()),
        held_out_rows=_all_of(table, aside, need_successors=need_successors) if len(aside) else None,
    )


def every_kth(
    table: TransitionTable, chosen: NDArray[np.integer[Any]], subsample: int, start: SubsampleFrom, seed: int
) -> Rows:
    """Rows of every `subsample`-th step of those episodes, from their first or one drawn by the seed.

    What is drawn for an episode does not depend on which others were chosen; none is left without a step.
    """
    episodes = table.episodes[chosen.tolist()]
    if start is SubsampleFrom.FIRST:
        return rows_of_episodes(episodes, subsample)
    drawn = np.random.default_rng([SUBSAMPLE_STREAM, seed]).random(len(table.episodes))[chosen]
    choices = np.minimum(subsample, episodes["steps"].to_numpy())
    return rows_of_episodes(episodes, subsample, (drawn * choices).astype(np.int64))


def rows_with_successors(table: TransitionTable) -> Rows:
    """Every step whose successor was recorded, or that ended the task: what supplementary data give."""
    return _followed(table, rows_of_episodes(table.episodes, 1))


def check_supplementary(expert: TransitionTable, others: tuple[TransitionTable, ...]) -> None:
    """Raises ConfigError for a supplementary set of another task's shape, without a transition, or named twice."""
    for other in others:
        kinds = [table.action_space.to_json()["type"] for table in (expert, other)]
        shapes = [(table.observation_size, table.action_space.width) for table in (expert, other)]
        if kinds[0] != kinds[1] or shapes[0] != shapes[1]:
            raise ConfigError(
                f"--supplementary {other.info.name}: {_described(other)}; {expert.info.name} has {_described(expert)}",
                "name data of the same task",
            )
        _check_contents(expert, other)
    names = [table.info.sha256 for table in (expert, *others)]
    if len(set(names)) < len(names):
        raise ConfigError("the same data are named twice, as expert or supplementary", "name each dataset once")


def _described(table: TransitionTable) -> str:
    space = table.action_space
    actions = f"one of {space.count}" if isinstance(space, DiscreteActions) else f"{space.width} numbers"
    return f"{table.observation_size} observations and {actions} as action"


def _check_contents(expert: TransitionTable, other: TransitionTable) -> None:
    spaces = (expert.action_space, other.action_space)
    counts = [space.count for space in spaces if isinstance(space, DiscreteActions)]
    if len(counts) == 2 and counts[1] > counts[0]:
        raise ConfigError(
            f"--supplementary {other.info.name}: {counts[1]} discrete actions; {expert.info.name} has {counts[0]}",
            "name data of the same task (where a file declares no count, its greatest action does: "
            "docs/reference/data.md)",
        )
    pictures = [[leaf.shown for leaf in table.layout if leaf.file] for table in (expert, other)]
    if pictures[0] != pictures[1]:
        raise ConfigError(
            f"--supplementary {other.info.name}: pictures {pictures[1]}; {expert.info.name} has {pictures[0]}",
            "name data of the same task",
        )
    if expert.categories != other.categories:
        raise ConfigError(
            f"--supplementary {other.info.name}: {_categories(other)} categories in an observation; "
            f"{expert.info.name} has {_categories(expert)}",
            "name data of the same task whose observation space is declared alike (docs/reference/data.md)",
        )
    if len(rows_with_successors(other)) == 0:
        raise ConfigError(
            f"--supplementary {other.info.name} leaves no transitions to learn from",
            "name data with longer episodes, or with their last observations",
        )


def _categories(table: TransitionTable) -> str:
    return ", ".join(str(count) for count in table.categories if count) or "no"


def _all_of(table: TransitionTable, chosen: NDArray[np.integer[Any]], *, need_successors: bool) -> Rows:
    rows = rows_of_episodes(table.episodes[chosen.tolist()], 1)
    return _followed(table, rows) if need_successors else rows


def _followed(table: TransitionTable, rows: Rows) -> Rows:
    """Those rows without the steps whose successor was never recorded; a termination needs none."""
    unknown = table.episodes.filter(~pl.col("successor_known") & ~pl.col("terminated"))
    return rows[~np.isin(rows, (unknown["start_row"] + unknown["steps"] - 1).to_numpy())]
