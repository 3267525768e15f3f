"""From a place on disk to its episodes, by the format that it is in."""

from enum import StrEnum
from pathlib import Path

from iq_offline.data.catalogue import Located
from iq_offline.data.episodes import EpisodeSource
from iq_offline.errors import ConfigError, DatasetUnreadable, NotYet, nearest


class Format(StrEnum):
    """Layouts that are read and written."""

    D4RL = "d4rl"
    MINARI = "minari"


LATER_FORMATS = ("d3rlpy", "arrow", "npz", "pkl", "npy")


def parse_format(text: str) -> Format:
    """The format of that name. Raises NotYet for a known later one and ConfigError for an unknown one."""
    if text in list(Format):
        return Format(text)
    if text in LATER_FORMATS:
        raise NotYet(f"the format {text} is not built yet", f"use one of: {', '.join(Format)}")
    raise ConfigError(f"unknown format '{text}'", f"nearest: {nearest(text, Format)}")


def read_episodes(located: Located, input_format: str = "auto") -> EpisodeSource:
    """The dataset's episodes, read as they are iterated; hashing and opening happen at once."""
    from iq_offline.data.formats import d4rl, minari

    chosen = _detect(located.path) if input_format == "auto" else parse_format(input_format)
    reader = minari.read if chosen is Format.MINARI else d4rl.read
    return reader(located.path, located.name)


def _detect(path: Path) -> Format:
    from iq_offline.data.formats import d4rl, minari

    if path.is_dir():
        if minari.is_minari(path):
            return Format.MINARI
        raise DatasetUnreadable(f"{path} is not a Minari dataset: no data/metadata.json", "name a dataset's own folder")
    if d4rl.is_d4rl(path):
        return Format.D4RL
    if path.suffix.lstrip(".") in LATER_FORMATS:
        raise NotYet(f"{path}: files of the kind {path.suffix} are not read yet", "convert it to D4RL's HDF5 layout")
    raise DatasetUnreadable(f"{path} is in no known format", "name it with --input-format d4rl or minari")
