"""Recorded steps of one or more episodes, one after the other, and the episodes in them.

Flat layouts give their arrays and flags as a `Recording`; where its episodes end is found here, for all of them. What
no flag marks is found too: a recorded successor that is not the next row's observation ends an episode there, as
truncated.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.episodes import Array, End, Segment
from iq_offline.data.observations import Leaves, map_leaves
from iq_offline.errors import InvalidEpisode

Flags = NDArray[np.bool_]
CONTINUITY_TOLERANCE = 1e-6
"""Largest difference, absolute and relative, between a recorded successor and the next row's observation."""


@dataclass(frozen=True)
class Rows:
    """Consecutive steps, n of them.

    Shapes: observations by path (n, ...), or (n + 1, ...) where the one after the last step is there; successors by
    path (n, ...), or none; actions (n,) or (n, A); rewards (n,); infos by path (n, ...).
    """

    observations: Leaves
    successors: Leaves
    actions: Array
    rewards: Array
    infos: Leaves = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.actions)

    def part(self, start: int, stop: int, end: End | None) -> Segment:
        """Some of the steps."""
        return Segment(
            observations=map_leaves(lambda array: array[start:stop], self.observations),
            actions=self.actions[start:stop],
            rewards=self.rewards[start:stop],
            infos=map_leaves(lambda array: array[start:stop], self.infos),
            end=end,
        )

    def after(self, step: int) -> tuple[Leaves, bool]:
        """The observation after a step that ends an episode, and whether it was recorded; else that of the step."""
        if self.successors:
            return map_leaves(lambda array: array[step], self.successors), True
        known = step == len(self) - 1 and any(len(array) > len(self) for array in self.observations.values())
        return map_leaves(lambda array: array[step + known], self.observations), known

    def discontinuities(self, flagged: Flags) -> NDArray[np.int64]:
        """Unflagged steps whose recorded successor is not the next observation; none where no successors are."""
        found = [np.zeros(0, dtype=np.int64)]
        for path, successors in self.successors.items():
            following = self.observations[path][1:]
            recorded = successors[: len(following)]
            width = max(1, int(np.prod(following.shape[1:])))
            suspects = np.unique(np.flatnonzero(recorded != following) // width)
            suspects = suspects[~flagged[suspects]]
            if len(suspects):
                ours, next_row = recorded[suspects].astype(np.float64), following[suspects].astype(np.float64)
                with np.errstate(invalid="ignore"):
                    far = np.abs(ours - next_row) > CONTINUITY_TOLERANCE * (1 + np.abs(next_row))
                found.append(suspects[far.reshape(len(suspects), -1).any(axis=1)])
        return np.unique(np.concatenate(found))


@dataclass(frozen=True)
class Recording:
    """Steps, read some rows at a time, and the flags of all of them, each of shape (steps,)."""

    read: Callable[[slice], Rows]
    """Gives those rows, with the observation of the row after them where there is one."""
    terminated: Flags
    truncated: Flags
    rows_at_a_time: int
    clock: int | None = None
    """Steps after which an episode that no flag ends must have ended."""
    unknown_successors: frozenset[int] = frozenset()
    """Numbers of the episodes whose last successor was not recorded, whatever stands in its place."""
    seeds: Sequence[int | None] = ()
    final_infos: Leaves = field(default_factory=dict)
    """The infos after the last step of each episode, by path, (episodes, ...)."""
    fault: InvalidEpisode | None = None
    """What is wrong with it, told in place of its steps."""

    def segments(self) -> Iterator[Segment]:
        """The steps, cut where episodes end, and where a read ends."""
        if self.fault is not None:
            yield Rows({}, {}, np.zeros(0), np.zeros(0)).part(0, 0, End({}, False, True, fault=self.fault))
        steps, episode, age = len(self.terminated), 0, 0
        for first in range(0, steps, self.rows_at_a_time):
            rows = self.read(slice(first, min(first + self.rows_at_a_time, steps)))
            terminated, truncated = (flags[first : first + len(rows)] for flags in (self.terminated, self.truncated))
            jumps = rows.discontinuities(terminated | truncated)
            ends = np.union1d(np.flatnonzero(terminated | truncated), jumps)
            if first + len(rows) == steps:
                ends = np.union1d(ends, len(rows) - 1)
            jumped, start = frozenset(jumps.tolist()), 0
            for last in _with_clock(ends.tolist(), len(rows), age, self.clock):
                observations, known = rows.after(last)
                end = End(
                    observations=observations,
                    terminated=bool(terminated[last]),
                    truncated=bool(truncated[last] or not terminated[last]),
                    unflagged=not (terminated[last] or truncated[last] or last in jumped),
                    discontinuous=last in jumped,
                    successor_known=known and episode not in self.unknown_successors,
                    seed=self.seeds[episode] if episode < len(self.seeds) else None,
                    final_infos=map_leaves(lambda array: array[episode], self.final_infos),  # noqa: B023
                )
                yield rows.part(start, last + 1, end)
                episode, age, start = episode + 1, 0, last + 1
            if start < len(rows):
                yield rows.part(start, len(rows), None)
                age += len(rows) - start


def _with_clock(ends: list[int], count: int, age: int, clock: int | None) -> list[int]:
    """The ends, and between them every row at which the clock runs out unmarked. `age`: steps gone by before row 0."""
    if clock is None:
        return ends
    marked, start = [], -age
    for end in [*ends, count]:
        marked += [*range(start + clock - 1, end, clock), end]
        start = end + 1
    return [end for end in marked if 0 <= end < count]
