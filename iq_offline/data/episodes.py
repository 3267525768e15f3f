"""Episodes: the one shape in which every format's data enter, checked where they enter.

A format yields segments: consecutive steps as recorded, unchecked, which is what lets a large source stream. The
packed table takes segments as they come; everything else takes whole checked episodes, put together from them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.files import data_path
from iq_offline.data.identity import Digest, new_digest, sha256_of, state_of
from iq_offline.data.observations import Leaves, Observations, from_leaves, leaves
from iq_offline.data.spaces import ActionSpace
from iq_offline.errors import DatasetUnreadable, InvalidEpisode

Array = NDArray[Any]


@dataclass(frozen=True)
class Episode:
    """One episode of T steps.

    Shapes: observations (T+1, ...), or a dictionary of such, the last entry being the one that followed the last
    action; actions (T,) or (T, A); rewards (T,); infos by path, (T, ...) or (T+1, ...). `terminated`: the task ended,
    the next value is the absorbing value. `truncated`: the recording stopped there (clock, or end of file), the next
    value still counts. Gymnasium allows both.

    Raises InvalidEpisode where lengths disagree, a number is not finite, or neither flag is set.
    """

    index: int
    observations: Observations
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
    infos: Leaves = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = len(self.actions)
        if steps == 0:
            raise self._broken("has no steps")
        if len(self.rewards) != steps or self.rewards.ndim != 1:
            raise self._broken(f"has rewards of shape {self.rewards.shape} for {steps} actions, not ({steps},)")
        for path, values in leaves(self.observations).items():
            name = f"observations['{path}']" if path else "observations"
            if values.ndim == 0 or len(values) != steps + 1:
                raise self._broken(f"has {name} of shape {values.shape} for {steps} actions, not {steps + 1} entries")
            self._check_finite(name, values)
        for path, values in self.infos.items():
            if values.ndim == 0 or len(values) not in (steps, steps + 1):
                raise self._broken(f"has infos['{path}'] of shape {values.shape} for {steps} actions")
        for name in ("actions", "rewards"):
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
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            step = int(np.argwhere(~np.isfinite(values))[0][0])
            raise self._broken(f"has a value that is not finite in {name} at its step {step}")

    def _broken(self, what: str) -> InvalidEpisode:
        return InvalidEpisode(
            f"{self.source}: episode {self.index} {what}",
            "mend that episode, or leave it out: iq-offline convert SOURCE --to NAME-v0 --keep-going",
        )


@dataclass(frozen=True)
class End:
    """How an episode ended, and the observation that followed its last action: by path, without a step dimension."""

    observations: Leaves
    terminated: bool
    truncated: bool
    unflagged: bool = False
    discontinuous: bool = False
    successor_known: bool = True
    seed: int | None = None
    final_infos: Leaves = field(default_factory=dict)
    """The last entry of infos that have T+1 of them."""
    fault: InvalidEpisode | None = None
    """What its format found wrong with the episode, told when it is checked."""


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of one episode, as recorded, unchecked; `end` where the episode ends with the last of them.

    Shapes: observations and infos by path, (n, ...); actions (n,) or (n, A); rewards (n,).
    """

    observations: Leaves
    actions: Array
    rewards: Array
    end: End | None
    infos: Leaves = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetInfo:
    """What a source says of itself, apart from its episodes."""

    name: str
    path: str
    format: str
    env_id: str | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    action_space: ActionSpace | None = None
    observation_space: dict[str, Any] | None = None
    """As Minari describes it in JSON, where the dataset does; without the texts, which are not read."""
    declared_actions: dict[str, Any] | None = None
    """The action space, described so; it may have infinite bounds."""
    description: str = ""
    reference: tuple[str, float, float] | None = None
    """Reference scores that the dataset itself carries: name, return at 0, return at 100."""
    origin_sha256: str | None = None
    """Of the source that this dataset was converted from, if it was."""
    notes: tuple[str, ...] = ()
    """What its format cannot tell or had to decide, in sentences."""

    stack: int = 1
    """Frames of an observation, where its pictures are single frames: they are stacked when they are sampled."""
    state: str | None = None
    """Of its files when they were read, where that is known."""

    def __post_init__(self) -> None:
        # Of 'module:Env' Gymnasium would import the module, and no data file may ask that.
        if self.env_id and ":" in self.env_id:
            object.__setattr__(self, "env_id", self.env_id.rpartition(":")[2])

    @cached_property
    def sha256(self) -> str:
        """Of the source file, or of the sorted files of a dataset's folder. Raises DatasetUnreadable if it changed."""
        source = data_path(Path(self.path))
        if self.state is not None and state_of(source) != self.state:
            raise DatasetUnreadable(f"{self.path} changed while it was in use", "start again when it is at rest")
        return sha256_of(source)

    @property
    def origin(self) -> str:
        """SHA-256 of what the dataset was first made from: the same of all its conversions."""
        return self.origin_sha256 or self.sha256


class Stream(Protocol):
    """Gives the segments of a source, with infos where they are wanted.

    With `reuse`, a segment's arrays hold only until the next segment is asked for, and seeds may be left out.
    """

    def __call__(self, *, infos: bool, reuse: bool) -> Iterable[Segment]: ...


@dataclass(frozen=True)
class EpisodeSource:
    """A dataset being read: what it says of itself, and its episodes in order, read as they are iterated.

    Made from a stream of segments, or from episodes that are checked already, with the fault in place of one that
    did not pass.
    """

    info: DatasetInfo
    episodes: Iterable[Episode | InvalidEpisode] = ()
    stream: Stream | None = None

    def __iter__(self) -> Iterator[Episode]:
        return self.checked()

    def checked(
        self, on_invalid: Callable[[InvalidEpisode], None] | None = None, *, infos: bool = False
    ) -> Iterator[Episode]:
        """Whole episodes. An invalid one raises InvalidEpisode, or goes to `on_invalid` and is left out."""
        for item in self._assembled(infos) if self.stream else self.episodes:
            if isinstance(item, Episode):
                yield item
            elif on_invalid is None:
                raise item
            else:
                on_invalid(item)

    def _assembled(self, infos: bool) -> Iterator[Episode | InvalidEpisode]:
        assert self.stream is not None
        for index, segments in enumerate(_whole(self.stream(infos=infos, reuse=False))):
            try:
                yield _assemble(segments, index, self.info.path)
            except InvalidEpisode as fault:
                yield fault

    def segments(self, *, infos: bool = False) -> Iterable[Segment]:
        """The steps as they come, unchecked; each holds only until the next is asked for."""
        return map(segment_of, self.checked()) if self.stream is None else self.stream(infos=infos, reuse=not infos)


class ContentDigest:
    """A hash of all that a stream of segments holds, however it is cut: numbers, types, shapes, flags and seeds.

    Rewards count as 64-bit floats, for some layouts have no other.
    """

    def __init__(self, *, infos: bool) -> None:
        self._infos = infos
        self._arrays: dict[str, Digest] = {}
        self._episodes = new_digest()
        self.steps = 0

    def add(self, segment: Segment) -> None:
        """The next segment."""
        self._update("observations", segment.observations)
        self._update("actions", {"": segment.actions})
        self._update("rewards", {"": segment.rewards.astype(np.float64)})
        self._update("infos", segment.infos if self._infos else {})
        self.steps += len(segment.actions)
        if segment.end is not None:
            end = segment.end
            self._update("observations", {path: array[None] for path, array in end.observations.items()})
            self._update("infos", {path: array[None] for path, array in end.final_infos.items()} if self._infos else {})
            self._episodes.update(
                repr((self.steps, end.terminated, end.truncated, end.successor_known, end.seed)).encode()
            )

    def value(self) -> tuple[str, ...]:
        """Equal for equal content."""
        return (self._episodes.hexdigest(), *(f"{key} {self._arrays[key].hexdigest()}" for key in sorted(self._arrays)))

    def _update(self, name: str, arrays: Leaves) -> None:
        for path, array in arrays.items():
            key = f"{name}/{path} {array.dtype} {array.shape[1:]}"
            if key not in self._arrays:
                self._arrays[key] = new_digest()
            self._arrays[key].update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def segment_of(episode: Episode) -> Segment:
    """A whole episode as one segment."""
    arrays = leaves(episode.observations)
    steps = len(episode)
    return Segment(
        observations={path: array[:-1] for path, array in arrays.items()},
        actions=episode.actions,
        rewards=episode.rewards,
        infos={path: array[:steps] for path, array in episode.infos.items()},
        end=End(
            observations={path: array[-1] for path, array in arrays.items()},
            terminated=episode.terminated,
            truncated=episode.truncated,
            unflagged=episode.unflagged,
            discontinuous=episode.discontinuous,
            successor_known=episode.successor_known,
            seed=episode.seed,
            final_infos={path: array[-1] for path, array in episode.infos.items() if len(array) == steps + 1},
        ),
    )


def _whole(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    collected: list[Segment] = []
    for segment in segments:
        collected.append(segment)
        if segment.end is not None:
            yield collected
            collected = []
    assert not collected, "a format ended without ending its last episode"


def _assemble(segments: list[Segment], index: int, source: str) -> Episode:
    end = segments[-1].end
    assert end is not None
    if end.fault is not None:
        raise end.fault
    observations = {
        path: np.concatenate([*(segment.observations[path] for segment in segments), final[None]])
        for path, final in end.observations.items()
    }
    infos = {path: [segment.infos[path] for segment in segments] for path in segments[0].infos}
    return Episode(
        index=index,
        observations=from_leaves(observations),
        actions=_joined([segment.actions for segment in segments]),
        rewards=_joined([segment.rewards for segment in segments]),
        terminated=end.terminated,
        truncated=end.truncated,
        source=source,
        unflagged=end.unflagged,
        discontinuous=end.discontinuous,
        successor_known=end.successor_known,
        seed=end.seed,
        infos={
            path: _joined([*arrays, end.final_infos[path][None]] if path in end.final_infos else arrays)
            for path, arrays in infos.items()
        },
    )


def _joined(arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
