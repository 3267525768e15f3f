"""Minari's layouts: T+1 observations an episode in HDF5, Arrow or Parquet, and `metadata.json` beside them.

Read directly, without Minari's import: its Arrow and Parquet readers take record batches for episodes, so that one
of more than 32,767 steps comes back in pieces; here an episode is what its own folder holds, and is counted against
its metadata. Written as HDF5, which Minari's own reader is tested to read.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from iq_offline.data.declared import Space, with_dtypes, without
from iq_offline.data.environments import declared_action_space, environment_of_spec, environment_spec_json
from iq_offline.data.episodes import DatasetInfo, End, Episode, EpisodeSource, Segment, Stream
from iq_offline.data.files import data_path, whole_folder
from iq_offline.data.formats import minari_arrow, minari_metadata
from iq_offline.data.formats.hdf5 import (
    action_array,
    check_storage,
    column,
    member,
    members,
    odd_flag,
    open_array,
    open_hdf5,
    read_rows,
    read_small_array,
    small_array,
    unreadable,
    write_json_attribute,
    write_small_array,
)
from iq_offline.data.formats.minari_arrow import COLUMNS, Arrays
from iq_offline.data.formats.minari_infos import instructions, misfits, read_infos
from iq_offline.data.formats.minari_metadata import Unusual, damaged, decode_jpeg
from iq_offline.data.observations import Array, Leaves, in_order, leaves, map_leaves
from iq_offline.data.spaces import infer_action_space
from iq_offline.errors import DatasetUnreadable, InvalidEpisode, NotYet
from iq_offline.paths import minari_home

MAIN_FILE = "main_data.hdf5"
BYTES_AT_ONCE = 32 << 20
"""Of the pictures of a long episode."""
MINARI_VERSION = "0.5.4"
"""The dataset version that is written."""


def is_minari(path: Path) -> bool:
    """Whether a folder holds a Minari dataset (`path/data/metadata.json`, or `path` is that `data` folder).

    Up to Minari 0.4 there was no metadata.json: all was in the HDF5 file.
    """
    folder = data_path(path)
    return (folder / "metadata.json").is_file() or (folder / MAIN_FILE).is_file()


def read(path: Path, name: str) -> EpisodeSource:
    """The episodes of a local Minari dataset. Raises DatasetUnreadable, NotYet, and InvalidEpisode while iterating."""
    try:
        return _read(path, name)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise damaged(f"{path}: metadata.json is not as Minari writes it ({type(error).__name__})") from None


def _read(path: Path, name: str) -> EpisodeSource:
    folder = data_path(path)
    metadata = _metadata(folder)
    unusual = Unusual(minari_metadata.jpeg_images(metadata, path), minari_metadata.text_observations(metadata, path))
    unusual, stream = _stream(folder, metadata, unusual, path)
    space = minari_metadata.json_field(metadata, "observation_space", path)
    env_id, env_kwargs = environment_of_spec(minari_metadata.environment_spec(metadata, path))
    info = DatasetInfo(
        name=name,
        path=str(path),
        format="minari",
        env_id=env_id,
        env_kwargs=env_kwargs,
        action_space=minari_metadata.action_space(metadata, path),
        observation_space=without(space, unusual.texts) if space and unusual.texts else space,
        declared_actions=minari_metadata.json_field(metadata, "action_space", path),
        notes=unusual.notes(),
        description=metadata.get("description") or "",
        reference=minari_metadata.reference(metadata),
        origin_sha256=metadata.get("origin_sha256"),
        stack=minari_metadata.frame_stack(metadata, path),
    )
    return EpisodeSource(info, stream=stream)


def _metadata(folder: Path) -> dict[str, Any]:
    described = folder / "metadata.json"
    if described.is_file() or not (folder / MAIN_FILE).is_file():
        return minari_metadata.read_metadata(described)
    with open_hdf5(folder / MAIN_FILE) as file:
        return minari_metadata.attributes(file, folder / MAIN_FILE)


def write(source: EpisodeSource, destination: Path) -> None:
    """Write a Minari dataset folder, whole or not at all.

    The caller checks that its name ends with a version. An empty source raises DatasetUnreadable.
    """
    with whole_folder(destination) as temporary:
        write_into(source, temporary, dataset_id(destination))
    mark_namespaces(destination)


def write_into(source: EpisodeSource, folder: Path, name: str) -> None:
    """Write a Minari dataset of that id into an existing empty folder. An empty source raises DatasetUnreadable."""
    data = folder / "data"
    data.mkdir()
    metadata = _write_episodes(source, data / MAIN_FILE)
    metadata |= _describe(source.info, name)
    metadata["dataset_size"] = round((data / MAIN_FILE).stat().st_size / 1e6, 1)
    (data / "metadata.json").write_text(json.dumps(metadata))


def dataset_id(destination: Path) -> str:
    """The id that Minari's tools need: its path under Minari's store, else the folder's name."""
    store = minari_home().resolve()
    resolved = destination.resolve()
    return resolved.relative_to(store).as_posix() if resolved.is_relative_to(store) else resolved.name


def mark_namespaces(destination: Path) -> None:
    """Minari lists only namespaces that carry a metadata file of their own: give the parents of a dataset one."""
    store, folder = minari_home().resolve(), destination.resolve().parent
    while folder != store and folder.is_relative_to(store):
        marker = folder / "namespace_metadata.json"
        if not marker.exists():
            marker.write_text("{}")
        folder = folder.parent


def _stream(folder: Path, metadata: dict[str, Any], unusual: Unusual, path: Path) -> tuple[Unusual, Stream]:
    layout = metadata.get("data_format", "hdf5")
    if layout in {"arrow", "parquet"}:
        episodes = minari_arrow.episode_folders(folder, int(metadata.get("total_episodes", 0)), path)
        spaces = [minari_metadata.json_field(metadata, f"{what}_space", path) for what in ("observation", "action")]
        unusual = replace(unusual, instructions=minari_arrow.instructions(episodes, layout, unusual.texts))
        return unusual, partial(_arrow_segments, episodes, layout, (spaces[0], spaces[1]), unusual)
    discrete = declares_discrete(minari_metadata.json_field(metadata, "action_space", path))
    if layout != "hdf5":
        raise NotYet(f"{path} is in Minari's {layout} layout", "use one in hdf5, arrow or parquet")
    main = folder / MAIN_FILE
    if not main.is_file():
        raise damaged(f"{path} has metadata.json but no {MAIN_FILE}")
    with open_hdf5(main) as file:
        total, found = metadata.get("total_episodes"), [name for name in file if name.startswith("episode_")]
        if total is not None and total != len(found):
            raise damaged(f"{path}: metadata.json tells of {total} episodes, {MAIN_FILE} has {len(found)}")
        told = instructions(file, found, unusual.texts, main) if unusual.texts else ()
        unusual = replace(unusual, infos=misfits(file, found, main), instructions=told)
    return unusual, partial(_segments, main, unusual, discrete)


def _write_episodes(source: EpisodeSource, path: Path) -> dict[str, Any]:
    steps, last, unknown = 0, None, []
    extremes: list[NDArray[Any]] = []
    with h5py.File(path, "w", libver="v108") as file:
        for number, episode in enumerate(source.checked(infos=True)):
            _write_episode(file, number, episode)
            steps += len(episode)
            last = episode
            if extremes and extremes[0].shape[1:] != episode.actions.shape[1:]:
                raise InvalidEpisode(
                    f"episode {number} has actions of shape {episode.actions.shape[1:]}, the one before of shape "
                    f"{extremes[0].shape[1:]}",
                    "store one kind of actions in all episodes",
                )
            actions = np.concatenate([*extremes, episode.actions])
            extremes = [actions.min(axis=0)[None], actions.max(axis=0)[None]]
            if not episode.successor_known:
                unknown.append(number)
        write_json_attribute(file, "unknown_successors", unknown)
    if last is None:
        raise DatasetUnreadable(f"{source.info.path} has no episodes", "use a dataset that has data")
    space = declared_action_space(source.info) or infer_action_space(np.concatenate(extremes), None)
    return {
        "total_episodes": number + 1,
        "total_steps": steps,
        "observation_space": json.dumps(
            with_dtypes(source.info.observation_space, leaves(last.observations))
            if source.info.observation_space
            else minari_metadata.observation_space(last.observations)
        ),
        "action_space": json.dumps(
            with_dtypes(source.info.declared_actions, {"": last.actions})
            if source.info.declared_actions
            else minari_metadata.space_json(space, last.actions)
        ),
    }


def _write_episode(file: h5py.File, number: int, episode: Episode) -> None:
    group = file.create_group(f"episode_{number}")
    group.attrs["id"] = number
    group.attrs["total_steps"] = len(episode)
    if episode.seed is not None:
        group.attrs["seed"] = episode.seed
    terminations, truncations = np.zeros(len(episode), dtype=bool), np.zeros(len(episode), dtype=bool)
    terminations[-1], truncations[-1] = episode.terminated, episode.truncated
    for path, array in leaves(episode.observations).items():
        write_small_array(group, f"observations/{path}".rstrip("/"), array)
    write_small_array(group, "actions", episode.actions)
    write_small_array(group, "rewards", episode.rewards.astype(np.float64))
    write_small_array(group, "terminations", terminations)
    write_small_array(group, "truncations", truncations)
    group.create_group("infos")
    for path, array in episode.infos.items():
        group[f"infos/{path}"] = array


def _describe(info: DatasetInfo, name: str) -> dict[str, Any]:
    spec = environment_spec_json(info.env_id, info.env_kwargs) if info.env_id else None
    described = {
        "dataset_id": name,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "description": info.description,
        "minari_version": MINARI_VERSION,
        "origin_sha256": info.origin,
    }
    if info.stack > 1:
        described[minari_metadata.FRAME_STACK] = info.stack
    if info.reference:
        described |= {"ref_min_score": info.reference[1], "ref_max_score": info.reference[2]}
    return described | ({"env_spec": spec} if spec else {})


def declares_discrete(space: Space | None) -> bool | None:
    """Whether the declared actions are discrete; None where that is not known."""
    return {"Discrete": True, "Box": False}.get(space.get("type", "")) if space else None


def _segments(main: Path, unusual: Unusual, discrete: bool | None, *, infos: bool, reuse: bool) -> Iterator[Segment]:
    with open_hdf5(main) as file:
        unknown = _unknown_successors(file, main)
        names = sorted((name for name in file if name.startswith("episode_")), key=_episode_number)
        for index, name in enumerate(names):
            group = _episode_group(file, name, main)
            arrays = _arrays(group, main, unusual, discrete, infos=infos, seeds=not reuse)
            yield from _in_pieces(_segment(arrays, index, main, known=index not in unknown))


def _unknown_successors(file: h5py.File, path: Path) -> frozenset[int]:
    try:
        return frozenset(json.loads(file.attrs.get("unknown_successors", "[]")))
    except (OSError, TypeError, ValueError, RecursionError):
        raise DatasetUnreadable(f"{path}: unknown_successors is not a JSON list", "remove that attribute") from None


def _episode_number(name: str) -> int:
    digits = name.removeprefix("episode_")
    return int(digits) if digits.isdigit() else -1


def _episode_group(file: h5py.File, name: str, path: Path) -> h5py.Group:
    """An episode's group. Raises DatasetUnreadable where it is something else."""
    try:
        if file.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD:
            return h5py.Group(h5py.h5g.open(file.id, name.encode()))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise unreadable(path, error) from None
    raise DatasetUnreadable(f"{path}: '{name}' is not a group of this file", "fetch the dataset again, whole")


def _arrays(
    group: h5py.Group, path: Path, unusual: Unusual, discrete: bool | None, *, infos: bool, seeds: bool
) -> Arrays:
    seed: Any = group.attrs.get("seed") if seeds else None
    return Arrays(
        observations=in_order(_tree(group, "observations", path, unusual)),
        actions=action_array(read_small_array(group, "actions", path), path, discrete),
        columns={key: column(read_small_array(group, key, path), key, path) for key in COLUMNS},
        infos=read_infos(group["infos"], unusual.infos, path) if infos and "infos" in group else {},
        seed=int(seed) if isinstance(seed, np.integer) else None,
    )


def _segment(arrays: Arrays, index: int, path: Path, *, known: bool = True) -> Segment:
    """One whole episode. `known`: whether its last observation was recorded."""
    steps, columns = len(arrays.actions), arrays.columns
    terminated, truncated = (bool(columns[key][-1]) if len(columns[key]) else False for key in COLUMNS[1:])
    return Segment(
        observations=map_leaves(lambda array: array[:steps], arrays.observations),
        actions=arrays.actions,
        rewards=columns["rewards"],
        infos=map_leaves(lambda array: array[:steps], arrays.infos),
        end=End(
            observations={leaf: array[-1] for leaf, array in arrays.observations.items() if len(array)},
            terminated=terminated,
            truncated=truncated or not terminated,
            unflagged=not (terminated or truncated),
            successor_known=known,
            seed=arrays.seed,
            final_infos={leaf: array[-1] for leaf, array in arrays.infos.items() if len(array) == steps + 1},
            fault=_fault(arrays, f"{path}: episode {index}"),
        ),
    )


def _fault(arrays: Arrays, name: str) -> InvalidEpisode | None:
    steps, columns = len(arrays.actions), arrays.columns
    if steps == 0 or any(len(values) != steps for values in columns.values()):
        listed = ", ".join(f"{key} {len(values)}" for key, values in columns.items())
        return InvalidEpisode(f"{name} has unequal lengths: actions {steps}, {listed}", "give each one entry a step")
    for leaf, array in arrays.observations.items():
        if len(array) != steps + 1:
            what = f"observations['{leaf}']" if leaf else "observations"
            return InvalidEpisode(
                f"{name} has {len(array)} {what} for {steps} actions, not {steps + 1}",
                "add the observation that followed the last action",
            )
    for key in ("terminations", "truncations"):
        odd = odd_flag(columns[key])
        if odd is not None:
            what = f"{key} holds other values than 0 and 1: {columns[key][odd]} at step {odd}"
            return InvalidEpisode(f"{name}: {what}", "store flags")
    if columns["terminations"][:-1].any() or columns["truncations"][:-1].any():
        early = np.flatnonzero((columns["terminations"] != 0) | (columns["truncations"] != 0))[0]
        return InvalidEpisode(f"{name} ends at its step {early}, but has {steps} steps", "split it there")
    return None


def _tree(group: h5py.Group, key: str, path: Path, unusual: Unusual, prefix: str = "") -> Leaves:
    """The array under a key, or those of its groups by path, pictures decoded."""
    if prefix.rstrip("/") in unusual.images:
        encoded: Any = _pictures(group, key, path)
        return {"": encoded if prefix == "" else encoded.read()}
    plain = small_array(group, key, path)
    if plain is not None:
        return {"": plain}
    if prefix == "" and _is_picture_array(group, key, path):
        stored: Any = open_array(group, key, path)
        return {"": _Pictures(stored, path, range(len(stored)), encoded=False)}
    if key not in group or not isinstance(member(group, key, path), h5py.Group):
        return {"": read_small_array(group, key, path)}
    found: Leaves = {}
    for name in members(group[key], path):
        if f"{prefix}{name}" not in unusual.texts:
            for inner, array in _tree(group[key], name, path, unusual, f"{prefix}{name}/").items():
                found[f"{name}/{inner}" if inner else name] = array
    return found


class _Pictures:
    """Pictures of an episode that are read when they are asked for."""

    def __init__(self, stored: h5py.Dataset, path: Path, rows: range, *, encoded: bool) -> None:
        self._stored, self._path, self._rows, self._encoded = stored, path, rows, encoded

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        """One picture, or a part of them that is not read yet."""
        rows = self._rows[place] if isinstance(place, slice) else range(self._rows[place], self._rows[place] + 1)
        part = _Pictures(self._stored, self._path, rows, encoded=self._encoded)
        return part if isinstance(place, slice) else part.read()[0]

    def read(self) -> Array:
        """Shape (n, height, width[, channels])."""
        rows = slice(self._rows.start, self._rows.stop)
        if not self._encoded:
            return read_rows(self._stored, rows, self._path)
        try:
            return decode_jpeg([bytes(encoded.astype(np.uint8)) for encoded in self._stored[rows]])
        except OSError as error:
            raise unreadable(self._path, error) from None

    def pieces(self) -> list[range]:
        """Places of pictures that are read together, of about BYTES_AT_ONCE."""
        count, size = len(self), self[:1].read().nbytes if len(self) else 1
        step = max(1, BYTES_AT_ONCE // size)
        return [range(first, min(first + step, count)) for first in range(0, count, step)]


def _pictures(group: h5py.Group, key: str, path: Path) -> _Pictures:
    """Pictures that are stored as JPEG."""
    stored = group[key]
    check_storage(stored, path)
    if stored.ndim == 0:
        raise damaged(f"{path}: '{stored.name}' has no entry a step")
    return _Pictures(stored, path, range(len(stored)), encoded=True)


def _is_picture_array(group: h5py.Group, key: str, path: Path) -> bool:
    """Whether a key holds an array of bytes of at least two dimensions a step."""
    if key not in group or not isinstance(member(group, key, path), h5py.Dataset):
        return False
    stored = open_array(group, key, path)
    return bool(stored.dtype == np.uint8 and stored.ndim >= 3)


def _in_pieces(segment: Segment) -> Iterator[Segment]:
    """A segment whose pictures have not been read, in pieces that have; any other as it is."""
    pictures: Any = segment.observations.get("")
    if not isinstance(pictures, _Pictures):
        yield segment
        return
    if segment.end is not None and segment.end.fault is not None:
        nothing = segment.rewards[:0]
        yield replace(segment, observations={"": pictures[:0].read()}, actions=nothing, rewards=nothing, infos={})
        return
    pieces = pictures.pieces() or [range(0)]
    for piece in pieces:
        rows = slice(piece.start, piece.stop)
        yield Segment(
            observations={"": pictures[rows].read()},
            actions=segment.actions[rows],
            rewards=segment.rewards[rows],
            infos=map_leaves(lambda array: array[rows], segment.infos),  # noqa: B023
            end=segment.end if piece is pieces[-1] else None,
        )


def _arrow_segments(
    folders: list[Path],
    data_format: str,
    spaces: tuple[Space | None, Space | None],
    unusual: Unusual,
    *,
    infos: bool,
    reuse: bool,  # noqa: ARG001
) -> Iterator[Segment]:
    for index, folder in enumerate(folders):
        arrays = minari_arrow.read_episode(folder, data_format, spaces, unusual, infos=infos)
        arrays = replace(arrays, actions=action_array(arrays.actions, folder, declares_discrete(spaces[1])))
        yield _segment(arrays, index, folder)
