"""Episodes: the one shape in which every format's data enter, checked where they enter."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.spaces import ActionSpace
from iq_offline.errors import InvalidEpisode

Array = NDArray[Any]


@dataclass(frozen=True)
class Episode:
    """One episode of T steps.

    Shapes: observations (T+1, D), the last being the one that followed the last action; actions (T,) or
    (T, A); rewards (T,). `terminated`: the task ended, the next value is the absorbing value. `truncated`:
    the recording stopped there (clock, or end of file), the next value still counts. Gymnasium allows both.

    Raises InvalidEpisode where lengths disagree, a number is not finite, or neither flag is set.
    """

    index: int
    observations: Array
    actions: Array
    rewards: Array
    terminated: bool
    truncated: bool
    source: str = "memory"
    """The file it came from, for messages."""
    unflagged: bool = False
    """Its source marked no end: the tail of a file, kept as truncated."""
    discontinuous: bool = False
    """Its source marked no end, but the next row does not continue it: cut there, kept as truncated."""
    successor_known: bool = True
    """Whether the last observation was recorded; where not, it repeats the one before."""
    seed: int | None = None

    def __post_init__(self) -> None:
        steps = len(self.actions)
        if steps == 0:
            raise self._broken("has no steps")
        if len(self.observations) != steps + 1:
            raise self._broken(f"has {len(self.observations)} observations for {steps} actions, not {steps + 1}")
        if len(self.rewards) != steps or self.rewards.ndim != 1:
            raise self._broken(f"has rewards of shape {self.rewards.shape} for {steps} actions, not ({steps},)")
        if self.observations.ndim != 2:
            raise self._broken(f"has observations of shape {self.observations.shape}, not (T+1, D)")
        for name in ("observations", "actions", "rewards"):
            self._check_finite(name, getattr(self, name))
        if not (self.terminated or self.truncated):
            raise self._broken("is neither terminated nor truncated")

    def __len__(self) -> int:
        return len(self.actions)

    @cached_property
    def episode_return(self) -> float:
        """Undiscounted sum of the rewards."""
        return float(np.sum(self.rewards, dtype=np.float64))

    def _check_finite(self, name: str, values: Array) -> None:
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            step = int(np.argwhere(~np.isfinite(values))[0][0])
            raise self._broken(f"has a value that is not finite in {name} at its step {step}")

    def _broken(self, what: str) -> InvalidEpisode:
        return InvalidEpisode(
            f"{self.source}: episode {self.index} {what}",
            "mend or leave out that episode in the source, then try again",
        )


@dataclass(frozen=True)
class DatasetInfo:
    """What a source says of itself, apart from its episodes."""

    name: str
    path: str
    sha256: str
    """Of the source file, or of the sorted files of a folder."""
    format: str
    env_id: str | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    action_space: ActionSpace | None = None
    description: str = ""
    reference: tuple[str, float, float] | None = None
    """Reference scores that the dataset itself carries: name, return at 0, return at 100."""
    origin_sha256: str | None = None
    """Of the source that this dataset was converted from, if it was."""


@dataclass(frozen=True)
class EpisodeSource:
    """A dataset being read: what it says of itself, and its episodes in order, each read once."""

    info: DatasetInfo
    episodes: Iterable[Episode]

    def __iter__(self) -> Iterator[Episode]:
        return iter(self.episodes)
