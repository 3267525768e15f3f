"""Frames: recorded pictures made gray and small, and stacked, as Gymnasium's wrappers do it in the environment.

A dataset keeps single frames. An observation is the stack of the last frames of its episode, the first one repeated
where there are too few; it is put together when it is sampled.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.episodes import DatasetInfo, EpisodeSource, Segment, segment_of
from iq_offline.data.observations import Leaves
from iq_offline.errors import ConfigError, PackageMissing

GYMNASIUM_WEIGHTS = np.array([0.2125, 0.7154, 0.0721])
"""Of red, green and blue, as Gymnasium's GrayscaleObservation has them."""
WRAPPERS = "additional_wrappers"
ATARI = "ALE/"
REMEDY = "leave --frames, --gray and --stack out"

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Frames:
    """What is made of recorded pictures: their height and width (None: as recorded), gray, frames of an observation."""

    size: tuple[int, int] | None = None
    gray: bool = False
    stack: int = 1

    @classmethod
    def of_options(cls, size: str | None, stack: int, *, gray: bool) -> "Frames | None":
        """From the command line's options; None where all are left out. Raises ConfigError."""
        if stack < 1:
            raise ConfigError(f"--stack {stack} is no number of frames", "give a number from 1")
        found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size) if size else None
        if size and found is None:
            raise ConfigError(f"--frames {size} is no height and width", "give them as 84x84")
        frames = cls((int(found[1]), int(found[2])) if found else None, gray, stack)
        return None if frames == cls() else frames

    def record(self) -> dict[str, Any]:
        """For the provenance."""
        return {"size": self.size and f"{self.size[0]}x{self.size[1]}", "gray": self.gray, "stack": self.stack}

    def wrappers(self, info: DatasetInfo) -> list[dict[str, Any]]:
        """Gymnasium's wrappers that do the same in the environment, as it describes them in JSON, the innermost first.

        The wrapper for Atari takes each observation from the emulator's screen, and so comes only once, and first. The
        environment's own frame-skip stays; no-ops at the start are no part of the recorded episodes.
        """
        found: list[tuple[str, str, dict[str, Any]]] = []
        if self._in_emulator(info):
            assert self.size is not None
            kwargs = {"noop_max": 0, "frame_skip": 1, "screen_size": self.size[0], "grayscale_obs": self.gray}
            found.append(("atari_preprocessing", "AtariPreprocessing", kwargs))
        else:
            if self.gray:
                found.append(("transform_observation", "GrayscaleObservation", {"keep_dim": False}))
            if self.size:
                found.append(("transform_observation", "ResizeObservation", {"shape": list(self.size)}))
        if self.stack > 1:
            found.append(("stateful_observation", "FrameStackObservation", {"stack_size": self.stack}))
        return [
            {"name": name, "entry_point": f"gymnasium.wrappers.{module}:{name}", "kwargs": kwargs}
            for module, name, kwargs in found
        ]

    def converted(self, pictures: Pictures, info: DatasetInfo) -> Pictures:
        """Recorded pictures (n, height, width[, 3]) as frames. Raises ConfigError where they are none."""
        if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4) or pictures.shape[3:] not in ((), (3,)):
            shape = "x".join(map(str, pictures.shape[1:])) or "one number"
            raise ConfigError(f"{info.path}: observations are {pictures.dtype} {shape}, no single picture", REMEDY)
        if pictures.ndim == 3 and self.gray != self._in_emulator(info):  # its wrapper gives the emulator's colours
            raise ConfigError(
                f"{info.path}: pictures are gray already", f"{'leave out' if self.gray else 'add'} --gray"
            )
        if self.gray and pictures.ndim == 4:
            pictures = _gray_of_emulator(pictures) if self._in_emulator(info) else _gray_of_gymnasium(pictures)
        return pictures if self.size is None else _resized(pictures, self.size)

    def _in_emulator(self, info: DatasetInfo) -> bool:
        atari = (info.env_id or "").startswith(ATARI) and not info.env_kwargs.get(WRAPPERS)
        return bool(atari and self.size and self.size[0] == self.size[1])


def framed(source: EpisodeSource, frames: Frames) -> EpisodeSource:
    """The source with its pictures made into frames as they are read, and the wrappers that do so in its environment.

    Raises ConfigError, also while it is read, where its observations are no single pictures or are stacked already.
    """
    info = source.info
    if info.stack > 1:
        raise ConfigError(f"{info.path} already holds frames, {info.stack} an observation", REMEDY)
    wrappers = frames.wrappers(info)
    notes = info.notes
    if info.env_id is None:
        names = ", ".join(wrapper["name"] for wrapper in wrappers)
        notes = (*notes, f"no environment is named: evaluate in one with Gymnasium's wrappers {names}")
    wanted = replace(
        info,
        env_kwargs=info.env_kwargs | {WRAPPERS: [*(info.env_kwargs.get(WRAPPERS) or ()), *wrappers]},
        observation_space=None,
        stack=frames.stack,
        notes=notes,
    )
    return EpisodeSource(wanted, stream=partial(_segments, source, frames))


def _segments(source: EpisodeSource, frames: Frames, *, infos: bool, reuse: bool) -> Iterator[Segment]:
    plain = map(segment_of, source.checked()) if source.stream is None else source.stream(infos=infos, reuse=reuse)
    for segment in plain:
        end = segment.end
        if end is not None and end.fault is None:
            end = replace(end, observations=_converted(end.observations, frames, source.info, last=True))
        yield replace(segment, observations=_converted(segment.observations, frames, source.info), end=end)


def _converted(observations: Leaves, frames: Frames, info: DatasetInfo, *, last: bool = False) -> Leaves:
    if list(observations) != [""]:
        raise ConfigError(
            f"{info.path}: observations have parts ({', '.join(observations)}), no single picture", REMEDY
        )
    pictures = observations[""][None] if last else observations[""]
    found = frames.converted(pictures, info)
    return {"": found[0] if last else found}


def stacked(
    pictures: NDArray[np.uint8], rows: NDArray[np.int64], starts: NDArray[np.int64], frames: int, following: int = 0
) -> Pictures:
    """The last `frames` pictures at each of those rows, the first one of an episode repeated, and `following` more.

    Shape (n, frames + following, ...). `starts`: the first row of each episode, in order.
    """
    first = starts[np.searchsorted(starts, rows, side="right") - 1]
    places = np.maximum(rows[:, None] + np.arange(1 - frames, 1 + following), first[:, None])
    return np.asarray(pictures[places])


def _gray_of_emulator(pictures: Pictures) -> Pictures:
    """As the emulator gives its screen in gray, which is the luma of ITU-R BT.601."""
    cv2 = _opencv()
    return np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures])


def _gray_of_gymnasium(pictures: Pictures) -> Pictures:
    return np.stack([np.sum(np.multiply(picture, GYMNASIUM_WEIGHTS), axis=-1).astype(np.uint8) for picture in pictures])


def _resized(pictures: Pictures, size: tuple[int, int]) -> Pictures:
    cv2 = _opencv()
    height, width = size
    return np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures])


def _opencv() -> Any:
    try:
        import cv2
    except ModuleNotFoundError:
        raise PackageMissing(
            "OpenCV, which scales pictures as Gymnasium does, is not installed", "pip install opencv-python-headless"
        ) from None
    return cv2
