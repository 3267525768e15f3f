"""From a place on disk to its episodes, by the format that it is in."""

from dataclasses import replace
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

from iq_offline.data.catalogue import CatalogueEntry, Located
from iq_offline.data.episodes import DatasetInfo, EpisodeSource
from iq_offline.data.formats.step_keys import Ends
from iq_offline.errors import ConfigError, DatasetUnreadable, did_you_mean


class Format(StrEnum):
    """Layouts that are read. Those of WRITABLE are written too."""

    D4RL = "d4rl"
    MINARI = "minari"
    D3RLPY = "d3rlpy"
    NPZ = "npz"
    DICTIONARIES = "dictionaries"


WRITABLE = (Format.MINARI, Format.D4RL, Format.D3RLPY, Format.NPZ)


def parse_format(text: str) -> Format:
    """The format of that name. Raises ConfigError for an unknown one."""
    if text in list(Format):
        return Format(text)
    raise ConfigError(f"unknown format '{text}'", did_you_mean(text, Format))


def read_episodes(located: Located, input_format: str = "auto", ends: Ends = Ends.AUTO) -> EpisodeSource:
    """The dataset's episodes, read as they are iterated; the file is opened at once.

    What the catalogue knows of the environment counts where the data do not say. Raises DatasetUnreadable.
    """
    check_is_file(located.path)
    chosen = detect(located.path) if input_format == "auto" else parse_format(input_format)
    module, options = module_of(chosen), []
    if chosen is Format.D4RL:
        options = [ends, located.entry.max_episode_steps if located.entry else None]
    elif chosen in {Format.NPZ, Format.DICTIONARIES}:
        options = [ends]
    source: EpisodeSource = module.read(located.path, located.name, *options)
    return replace(source, info=completed(source.info, located.entry))


def module_of(chosen: Format) -> Any:
    """The module that reads a format, and has `write` if it is one of WRITABLE. Imported only now: some are heavy."""
    return import_module(f"iq_offline.data.formats.{'flat_npz' if chosen is Format.NPZ else chosen}")


def completed(info: DatasetInfo, entry: CatalogueEntry | None) -> DatasetInfo:
    """What a source says of itself, and where it does not say, what the catalogue knows."""
    if entry is None:
        return info
    if info.env_id is None and entry.env_id is not None:
        info = replace(info, env_id=entry.env_id, env_kwargs=dict(entry.env_kwargs))
    if info.reference is None and entry.reference is not None:
        info = replace(info, reference=(entry.reference.name, entry.reference.random, entry.reference.expert))
    return replace(info, description=info.description or entry.description)


def detect(path: Path) -> Format:
    """The format of what lies at a path. Raises DatasetUnreadable where it is none."""
    from iq_offline.data.formats import d4rl, hdf5, minari

    if path.is_dir():
        if minari.is_minari(path):
            return Format.MINARI
        _refuse_folder(path)
        raise DatasetUnreadable(f"{path} is not a Minari dataset: no data/metadata.json", "name a dataset's own folder")
    check_is_file(path)
    if d4rl.is_d4rl(path):
        with hdf5.open_hdf5(path) as file:
            return Format.D3RLPY if "num_episodes" in file and "columns" in file else Format.D4RL
    if path.suffix == ".npz":
        return Format.NPZ
    if path.suffix in {".pkl", ".pickle", ".npy"}:
        return Format.DICTIONARIES
    raise DatasetUnreadable(
        f"{path}: the name ends in none of .hdf5, .h5, .npz, .npy and .pkl, so its format is unknown",
        f"save the arrays as .npz or .hdf5; or, if it is in one of {', '.join(Format)}: "
        f"iq-offline convert {path} --input-format FORMAT --to {path.stem or 'name'}-v0",
    )


def check_is_file(path: Path) -> None:
    """Raises DatasetUnreadable for a pipe, socket or device, which could block for ever or never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DatasetUnreadable(f"{path} is neither a file nor a folder", "copy its content into a file, and name that")


def _refuse_folder(path: Path) -> None:
    """Raises DatasetUnreadable for a folder that another library saved, by its files' names."""
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        raise DatasetUnreadable(
            f"{path} is a folder of Hugging Face's datasets, as the library imitation saves trajectories",
            "store its trajectories as .npz: obs, acts, rews and terminal of all, and indices, their first steps",
        )
    if (path / "data").is_dir() and (path / "meta" / "info.json").is_file():
        raise DatasetUnreadable(
            f"{path} is a LeRobot dataset", "store its episodes as Minari, or as .npz with observations and actions"
        )
    if (path / "dataset_info.json").is_file() and (path / "features.json").is_file():
        raise DatasetUnreadable(
            f"{path} is an RLDS dataset of TensorFlow Datasets",
            "store its episodes as Minari, or as .npz with observations, actions, rewards, terminals and timeouts",
        )
