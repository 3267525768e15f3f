"""Recorded steps as other projects keep them, and the episodes in them.

Each has actions and observations, and some of: successors, rewards, flags, where it begins. What no flag marks is
found: a recorded successor that is not the next row's observation ends an episode there, as truncated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.episodes import Episode, attempt
from iq_offline.data.formats.one_flag import Ends, terminations
from iq_offline.data.observations import Leaves, from_leaves
from iq_offline.errors import InvalidEpisode

Array = NDArray[Any]
Flags = NDArray[np.bool_]
CONTINUITY_TOLERANCE = 1e-6
"""Largest difference, absolute and relative, between a recorded successor and the next row's observation."""


@dataclass(frozen=True)
class Recording:
    """Consecutive steps. Shapes: observations by path (n, ...), successors (n, ...) or none, others (n,).

    One that is a single episode without successors may have n + 1 observations.
    """

    observations: Leaves
    successors: Leaves
    actions: Array
    rewards: Array | None
    terminated: Flags
    truncated: Flags
    ended: Flags
    """Ends of a kind that the layout does not tell."""
    one_episode: bool
    """Whether its source says that it is one episode, so that no flag may lie before its last step."""

    def __len__(self) -> int:
        return len(self.actions)

    def part(self, start: int, stop: int, *, one_episode: bool) -> "Recording":
        """Some of its steps; all of them with the observation after the last, if there is one."""
        more = stop + (self.has_final and stop == len(self))
        return Recording(
            observations={path: array[start:more] for path, array in self.observations.items()},
            successors={path: array[start:stop] for path, array in self.successors.items()},
            actions=self.actions[start:stop],
            rewards=None if self.rewards is None else self.rewards[start:stop],
            terminated=self.terminated[start:stop],
            truncated=self.truncated[start:stop],
            ended=self.ended[start:stop],
            one_episode=one_episode,
        )

    @property
    def has_final(self) -> bool:
        """Whether there is an observation after the last action."""
        return any(len(array) > len(self) for array in self.observations.values())


@dataclass(frozen=True)
class _Cut:
    """Steps of one episode, and how its end was found."""

    steps: Recording
    index: int
    discontinuous: bool

    @property
    def flagged(self) -> bool:
        return bool(self.steps.ended[-1]) and not (self.steps.terminated[-1] or self.steps.truncated[-1])


@dataclass(frozen=True)
class Episodes:
    """The episodes in recordings, made as they are iterated, with the fault in place of an invalid one."""

    cuts: list[_Cut | InvalidEpisode]
    terminated: dict[int, bool]
    """What was decided of the episodes whose layout does not tell."""
    source: str

    def __iter__(self) -> Iterator[Episode | InvalidEpisode]:
        for cut in self.cuts:
            if isinstance(cut, InvalidEpisode):
                yield cut
            else:
                yield attempt(partial(_episode, cut, self.source, self.terminated[cut.index]))


def episodes_of(
    recordings: list[Recording | InvalidEpisode], source: str, ends: Ends
) -> tuple[Episodes, tuple[str, ...]]:
    """The episodes in recordings, and what had to be decided."""
    cuts: list[_Cut | InvalidEpisode] = []
    for recording in recordings:
        cuts += [recording] if isinstance(recording, InvalidEpisode) else _cuts(recording, len(cuts), source)
    whole = [cut for cut in cuts if isinstance(cut, _Cut)]
    flagged, notes = [cut.flagged for cut in whole], []
    terminated = np.zeros(len(whole), dtype=bool)
    if any(flagged):
        terminated, note = terminations([len(cut.steps) for cut in whole], flagged, ends)
        notes.append(note)
    if any(cut.steps.rewards is None for cut in whole):
        notes.append("it records no rewards: zeros stand in their place")
    decided = {cut.index: bool(ended) for cut, ended in zip(whole, terminated, strict=True)}
    return Episodes(cuts, decided, source), tuple(notes)


def _cuts(recording: Recording, first: int, source: str) -> Iterator[_Cut | InvalidEpisode]:
    flags = recording.terminated | recording.truncated | recording.ended
    early = np.flatnonzero(flags[:-1])
    if recording.one_episode and len(early):
        yield InvalidEpisode(
            f"{source}: episode {first} ends at its step {early[0]}, but has {len(recording)} steps", "split it there"
        )
        return
    jumps = _jumps(recording, flags)
    start = 0
    for number, last in enumerate(np.union1d(np.flatnonzero(flags), [*jumps, len(recording) - 1]).tolist()):
        yield _Cut(recording.part(start, last + 1, one_episode=True), first + number, discontinuous=last in jumps)
        start = last + 1


def _jumps(recording: Recording, flags: Flags) -> list[int]:
    """Unflagged steps whose recorded successor is not the next observation."""
    found: set[int] = set()
    for path, successors in recording.successors.items() if len(recording) > 1 else ():
        following = recording.observations[path][1:]
        differ = (successors[:-1] != following).reshape(len(following), -1).any(axis=1)
        suspects = np.flatnonzero(differ & ~flags[:-1])
        if len(suspects):
            recorded, next_row = successors[suspects].astype(np.float64), following[suspects].astype(np.float64)
            with np.errstate(invalid="ignore"):
                far = np.abs(recorded - next_row) > CONTINUITY_TOLERANCE * (1 + np.abs(next_row))
            found |= set(suspects[far.reshape(len(suspects), -1).any(axis=1)].tolist())
    return sorted(found)


def _episode(cut: _Cut, source: str, terminated: bool) -> Episode:
    steps = cut.steps
    known = steps.has_final or bool(steps.successors)
    finals = steps.successors or steps.observations
    observations = {
        path: np.concatenate([array[: len(steps)], finals[path][-1:]]) for path, array in steps.observations.items()
    }
    task_ended = terminated or bool(steps.terminated[-1])
    return Episode(
        index=cut.index,
        observations=from_leaves(observations),
        actions=steps.actions,
        rewards=np.zeros(len(steps), dtype=np.float32) if steps.rewards is None else steps.rewards,
        terminated=task_ended,
        truncated=bool(steps.truncated[-1]) or not task_ended,
        source=source,
        unflagged=not (cut.discontinuous or cut.flagged or steps.terminated[-1] or steps.truncated[-1]),
        discontinuous=cut.discontinuous,
        successor_known=known,
    )
