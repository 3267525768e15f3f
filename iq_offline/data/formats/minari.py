"""Minari's HDF5 layout: one group an episode with T+1 observations, and `metadata.json` beside it.

Read and written here directly with h5py: it needs neither the network nor Minari's import, and is checked
against Minari's own reader in the tests. Minari's Arrow and Parquet layouts come in a later release.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.files import sha256_of_path, whole_folder
from iq_offline.data.formats.hdf5 import action_array, column, matrix, open_hdf5, read_array, write_json_attribute
from iq_offline.data.spaces import ActionSpace, ContinuousActions, DiscreteActions, infer_action_space
from iq_offline.errors import DatasetUnreadable, InvalidEpisode, NotYet
from iq_offline.paths import minari_home

MAIN_FILE = "main_data.hdf5"
MINARI_VERSION = "0.5.4"
"""The dataset version that is written."""


def is_minari(path: Path) -> bool:
    """Whether a folder holds a Minari dataset (`path/data/metadata.json`, or `path` is that `data` folder)."""
    return (_data_folder(path) / "metadata.json").is_file()


def read(path: Path, name: str) -> EpisodeSource:
    """The episodes of a local Minari dataset. Raises DatasetUnreadable, NotYet, and InvalidEpisode while iterating."""
    folder = _data_folder(path)
    metadata = _metadata(folder / "metadata.json")
    main = folder / MAIN_FILE
    if metadata.get("data_format", "hdf5") != "hdf5":
        raise NotYet(f"{path} is in Minari's {metadata['data_format']} layout", "use one in hdf5 for now")
    if not main.is_file():
        raise DatasetUnreadable(
            f"{path} has metadata.json but no {MAIN_FILE}", "fetch or copy the dataset again, whole"
        )
    with open_hdf5(main):
        pass
    env_spec = json.loads(metadata.get("env_spec") or "{}")
    info = DatasetInfo(
        name=name,
        path=str(path),
        sha256=sha256_of_path(folder),
        format="minari",
        env_id=env_spec.get("id"),
        env_kwargs=env_spec.get("kwargs", {}),
        action_space=_action_space(metadata, path),
        description=metadata.get("description") or "",
        reference=_reference(metadata),
        origin_sha256=metadata.get("origin_sha256"),
    )
    return EpisodeSource(info, _episodes(main))


def write(source: EpisodeSource, destination: Path) -> None:
    """Write a Minari dataset folder, whole or not at all.

    Its id, needed by Minari's tools, is its path under Minari's store, else the folder's name; the caller checks
    that the name ends with a version. An empty source raises DatasetUnreadable.
    """
    with whole_folder(destination) as temporary:
        data = temporary / "data"
        data.mkdir()
        metadata = _write_episodes(source, data / MAIN_FILE)
        metadata |= _describe(source.info, destination)
        metadata["dataset_size"] = round((data / MAIN_FILE).stat().st_size / 1e6, 1)
        (data / "metadata.json").write_text(json.dumps(metadata))
    _mark_namespaces(destination)


def _write_episodes(source: EpisodeSource, path: Path) -> dict[str, Any]:
    steps, last, unknown = 0, None, []
    with h5py.File(path, "w") as file:
        for number, episode in enumerate(source):
            _write_episode(file, number, episode)
            steps += len(episode)
            last = episode
            if not episode.successor_known:
                unknown.append(number)
        write_json_attribute(file, "unknown_successors", unknown)
    if last is None:
        raise DatasetUnreadable(f"{source.info.path} has no episodes", "use a dataset that has data")
    width = last.observations.shape[1]
    space = infer_action_space(last.actions, source.info.action_space)
    return {
        "total_episodes": number + 1,
        "total_steps": steps,
        "observation_space": json.dumps(_box(str(last.observations.dtype), [-np.inf] * width, [np.inf] * width)),
        "action_space": json.dumps(_space_json(space, last.actions)),
    }


def _write_episode(file: h5py.File, number: int, episode: Episode) -> None:
    group = file.create_group(f"episode_{number}")
    group.attrs["id"] = number
    group.attrs["total_steps"] = len(episode)
    if episode.seed is not None:
        group.attrs["seed"] = episode.seed
    terminations, truncations = np.zeros(len(episode), dtype=bool), np.zeros(len(episode), dtype=bool)
    terminations[-1], truncations[-1] = episode.terminated, episode.truncated
    group.create_dataset("observations", data=episode.observations)
    group.create_dataset("actions", data=episode.actions)
    group.create_dataset("rewards", data=episode.rewards.astype(np.float64))
    group.create_dataset("terminations", data=terminations)
    group.create_dataset("truncations", data=truncations)
    group.create_group("infos")


def _describe(info: DatasetInfo, destination: Path) -> dict[str, Any]:
    from iq_offline.data.environments import environment_spec_json

    spec = environment_spec_json(info.env_id, info.env_kwargs) if info.env_id else None
    described = {
        "dataset_id": _dataset_id(destination),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "description": info.description,
        "minari_version": MINARI_VERSION,
        "origin_sha256": info.origin_sha256 or info.sha256,
    }
    return described | ({"env_spec": spec} if spec else {})


def _dataset_id(destination: Path) -> str:
    store = minari_home().resolve()
    resolved = destination.resolve()
    return resolved.relative_to(store).as_posix() if resolved.is_relative_to(store) else resolved.name


def _mark_namespaces(destination: Path) -> None:
    """Minari lists only namespaces that carry a metadata file of their own."""
    store, folder = minari_home().resolve(), destination.resolve().parent
    while folder != store and folder.is_relative_to(store):
        marker = folder / "namespace_metadata.json"
        if not marker.exists():
            marker.write_text("{}")
        folder = folder.parent


def _data_folder(path: Path) -> Path:
    return path / "data" if (path / "data").is_dir() else path


def _metadata(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetUnreadable(f"{path} is not JSON ({error})", "fetch or copy the dataset again, whole") from None
    if not isinstance(content, dict):
        raise DatasetUnreadable(f"{path} is not a JSON object", "fetch or copy the dataset again, whole")
    return content


def _action_space(metadata: dict[str, Any], path: Path) -> ActionSpace | None:
    space = json.loads(metadata.get("action_space") or "null")
    if space is None:
        return None
    if space["type"] == "Discrete" and space.get("start", 0) == 0:
        return DiscreteActions(int(space["n"]))
    if space["type"] == "Box" and len(space["shape"]) == 1:
        low, high = np.array(space["low"], dtype=float), np.array(space["high"], dtype=float)
        bounded = bool(np.isfinite(low).all() and np.isfinite(high).all())
        return ContinuousActions(tuple(low.tolist()), tuple(high.tolist()), "dataset") if bounded else None
    raise NotYet(f"{path}: action space {space} is not supported", "use Discrete from 0, or a Box of one dimension")


def _reference(metadata: dict[str, Any]) -> tuple[str, float, float] | None:
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    return None if low is None or high is None else ("minari", float(low), float(high))


def _episodes(path: Path) -> Iterator[Episode]:
    with open_hdf5(path) as file:
        unknown = frozenset(json.loads(file.attrs.get("unknown_successors", "[]")))
        names = sorted((name for name in file if name.startswith("episode_")), key=lambda name: int(name[8:]))
        for index, name in enumerate(names):
            yield _episode(file[name], index, path, known=index not in unknown)


def _episode(group: h5py.Group, index: int, path: Path, *, known: bool) -> Episode:
    if isinstance(group.get("observations"), h5py.Group):
        raise NotYet(f"{path}: {group.name} has dictionary or tuple observations", "use vector observations for now")
    terminations = column(read_array(group, "terminations", path), "terminations", path).astype(bool)
    truncations = column(read_array(group, "truncations", path), "truncations", path).astype(bool)
    actions = action_array(read_array(group, "actions", path), path)
    if not len(actions) == len(terminations) == len(truncations) > 0:
        raise InvalidEpisode(
            f"{path}: episode {index} has unequal lengths: actions {len(actions)}, terminations {len(terminations)}, "
            f"truncations {len(truncations)}",
            "give each of them one entry a step",
        )
    early = np.flatnonzero((terminations | truncations)[:-1])
    if len(early):
        raise InvalidEpisode(
            f"{path}: episode {index} ends at its step {early[0]}, but has {len(actions)} steps", "split it there"
        )
    terminated, truncated = bool(terminations[-1]), bool(truncations[-1])
    return Episode(
        index=index,
        observations=matrix(read_array(group, "observations", path), "observations", path),
        actions=actions,
        rewards=column(read_array(group, "rewards", path), "rewards", path),
        terminated=terminated,
        truncated=truncated or not terminated,
        source=str(path),
        unflagged=not (terminated or truncated),
        successor_known=known,
        seed=int(group.attrs["seed"]) if np.isscalar(group.attrs.get("seed")) else None,
    )


def _space_json(space: ActionSpace, actions: NDArray[Any]) -> dict[str, Any]:
    if isinstance(space, DiscreteActions):
        return {"type": "Discrete", "dtype": "int64", "start": 0, "n": space.count}
    return _box(str(actions.dtype), list(space.low), list(space.high))


def _box(dtype: str, low: list[float], high: list[float]) -> dict[str, Any]:
    return {"type": "Box", "dtype": dtype, "shape": [len(low)], "low": low, "high": high}
