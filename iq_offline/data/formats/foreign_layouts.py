"""Layouts that are known but not read: each by its name, with what to do."""

from pathlib import Path
from typing import Any

from iq_offline.errors import DatasetUnreadable


def refuse_folder(path: Path) -> None:
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


def refuse_hdf5(file: Any, path: Path) -> None:
    """Raises DatasetUnreadable for an HDF5 file whose groups are robomimic's, or that nests a flat layout."""
    if "data" not in file or "actions" in file:
        return
    try:
        names = list(file["data"])
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        return
    if any(isinstance(name, str) and name.startswith("demo_") for name in names):
        raise DatasetUnreadable(
            f"{path} is in robomimic's layout: a group data/demo_N for each demonstration",
            "store its demonstrations one after the other as observations, actions, rewards, terminals and timeouts; "
            "dones of robomimic mark a task's end",
        )
    if "actions" in names:
        raise DatasetUnreadable(
            f"{path}: its arrays lie in the group 'data' ({', '.join(map(str, names[:20]))})",
            "copy them to the top of the file",
        )
