"""d3rlpy's ReplayBuffer in HDF5: `observations_i`, `actions_i`, `rewards_i` and a flag `terminated_i` for each episode.

It has no final observation: what followed the last action is unknown in a file that d3rlpy made, and an episode
that did not terminate counts as truncated. So that nothing is lost, `write` adds a group of its own, which d3rlpy
does not look at: final observations, truncations, seeds and the environment. Observations of several arrays are
d3rlpy's tuples, `observations_i_j`; their names are in that group.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from iq_offline.data.episodes import End, Episode, EpisodeSource, Segment
from iq_offline.data.files import whole_file
from iq_offline.data.formats.about import About, decode, encode
from iq_offline.data.formats.hdf5 import (
    action_array,
    column,
    flags,
    member,
    open_array,
    open_hdf5,
    read_array,
    read_rows,
    unreadable,
)
from iq_offline.data.formats.plain_numbers import is_bomb
from iq_offline.data.observations import Leaves, in_order, leaves
from iq_offline.errors import DatasetUnreadable, InvalidEpisode

Array = NDArray[Any]
COLUMNS = ("observations", "actions", "rewards", "terminated")
VERSION = "2.1"
"""The layout's version that is written. It is not read, nor are `columns`: HDF5's library can hang on damaged texts."""
NO_FINALS = "d3rlpy keeps no final observations: the last successor of every episode is unknown"
OWN_GROUP = "iq_offline"


def read(path: Path, name: str) -> EpisodeSource:
    """The episodes of a d3rlpy file, read as they are iterated. Raises DatasetUnreadable, InvalidEpisode later."""
    with open_hdf5(path) as file, _reporting(path):
        episodes = read_array(file, "num_episodes", path)
        if episodes.ndim or episodes.dtype.kind not in "iu" or episodes < 1:
            raise DatasetUnreadable(f"{path} has no episodes (num_episodes is {episodes})", "use a file that has data")
        about = _about(file, path)
        _segment(file, about, 0, path)
    info = About().info(path, name, "d3rlpy", (NO_FINALS,)) if about is None else about.info(path, name, "d3rlpy")
    return EpisodeSource(info, stream=partial(_segments, path, int(episodes)))


def write(source: EpisodeSource, destination: Path) -> None:
    """Write a file that d3rlpy loads, whole or not at all."""
    ends: list[tuple[bool, bool, int | None]] = []
    paths: list[str] = []
    with whole_file(destination) as temporary, h5py.File(temporary, "w", libver="v108") as file:
        own = file.create_group(OWN_GROUP)
        for number, episode in enumerate(source.checked()):
            _write_episode(file, own, number, episode)
            ends.append((episode.truncated, episode.successor_known, episode.seed))
            paths = list(leaves(episode.observations))
        if not paths:
            raise DatasetUnreadable(f"{source.info.path} has no episodes", "use a dataset that has data")
        file["columns"] = list(COLUMNS)
        file["num_episodes"] = len(ends)
        file["version"] = VERSION
        truncated, known, seeds = map(list, zip(*ends, strict=True))
        own["about"] = encode(source.info, truncated=truncated, successor_known=known, seeds=seeds, paths=paths)


def _write_episode(file: h5py.File, own: h5py.Group, number: int, episode: Episode) -> None:
    arrays = leaves(episode.observations)
    for place, array in enumerate(arrays.values()):
        alone = list(arrays) == [""]
        file[f"observations_{number}" if alone else f"observations_{number}_{place}"] = array[:-1]
        _append(own, f"final_observations_{place}", array[-1:])
    file[f"actions_{number}"] = episode.actions if episode.actions.ndim > 1 else episode.actions[:, None]
    file[f"rewards_{number}"] = episode.rewards[:, None]
    file[f"terminated_{number}"] = episode.terminated


def _append(group: h5py.Group, key: str, rows: Array) -> None:
    if key not in group:
        group.create_dataset(key, data=rows, maxshape=(None, *rows.shape[1:]), chunks=True)
        return
    group[key].resize(len(group[key]) + len(rows), axis=0)
    group[key][-len(rows) :] = rows


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Damage that HDF5's library finds late as an error about the file."""
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        raise unreadable(path, error) from None


def _about(file: h5py.File, path: Path) -> About | None:
    """What `write` added, or None where d3rlpy itself made the file."""
    if OWN_GROUP not in file:
        return None
    about = decode(read_array(_own(file, path), "about", path), path)
    episodes = int(read_array(file, "num_episodes", path))
    if {len(about.truncated), len(about.successor_known), len(about.seeds)} != {episodes}:
        told = f"'{OWN_GROUP}' tells of {len(about.truncated)} episodes, num_episodes is {episodes}"
        raise _misfit(f"{path}: {told}")
    return about


def _misfit(problem: str) -> DatasetUnreadable:
    return DatasetUnreadable(problem, f"remove '{OWN_GROUP}'")


def _own(file: h5py.File, path: Path) -> h5py.Group:
    group = member(file, OWN_GROUP, path)
    if not isinstance(group, h5py.Group):
        raise _misfit(f"{path}: '{OWN_GROUP}' is not a group")
    return group


def _segments(path: Path, episodes: int, *, infos: bool, reuse: bool) -> Iterator[Segment]:  # noqa: ARG001
    made, held = 0, path.stat().st_size
    with open_hdf5(path) as file:
        with _reporting(path):
            about = _about(file, path)
        for number in range(episodes):
            with _reporting(path):
                segment = _segment(file, about, number, path)
            made += segment.actions.nbytes + sum(array.nbytes for array in segment.observations.values())
            if is_bomb(made, held):
                raise DatasetUnreadable(
                    f"{path} unfolds into {made / 1e9:,.2f} GB and more from {held / 1e6:,.2f} MB", "use another file"
                )
            yield segment


def _named(file: h5py.File, about: About, observations: Leaves, number: int, path: Path) -> tuple[Leaves, Leaves]:
    """The observations by the names that they had, and the final ones."""
    if len(set(about.paths)) != len(observations):
        raise _misfit(f"{path}: {len(observations)} arrays of observations, {len(set(about.paths))} names")
    finals: Leaves = {}
    for place, (name, array) in enumerate(zip(about.paths, observations.values(), strict=True)):
        stored = open_array(_own(file, path), f"final_observations_{place}", path)
        if stored.shape[1:] != array.shape[1:] or len(stored) <= number:
            raise _misfit(f"{path}: final observations of shape {stored.shape} for observations of {array.shape}")
        finals[name] = read_rows(stored, slice(number, number + 1), path)[0]
    return in_order(dict(zip(about.paths, observations.values(), strict=True))), finals


def _segment(file: h5py.File, about: About | None, number: int, path: Path) -> Segment:
    observations = _observations(file, number, path)
    finals = {leaf: array[-1] for leaf, array in observations.items() if len(array)}
    if about is not None:
        observations, finals = _named(file, about, observations, number, path)
    actions = action_array(read_array(file, f"actions_{number}", path), path)
    rewards = column(read_array(file, f"rewards_{number}", path), f"rewards_{number}", path)
    terminated = _flag(file, number, path)
    return Segment(
        observations=observations,
        actions=actions,
        rewards=rewards,
        end=End(
            observations=finals,
            terminated=terminated,
            truncated=not terminated if about is None else about.truncated[number],
            successor_known=about is not None and about.successor_known[number],
            seed=None if about is None else about.seeds[number],
            fault=_fault(observations, actions, rewards, f"{path}: episode {number}"),
        ),
    )


def _flag(file: h5py.File, number: int, path: Path) -> bool:
    key = f"terminated_{number}"
    values = read_array(file, key, path)
    if values.size != 1:
        raise DatasetUnreadable(f"{path}: '{key}' has {values.size} entries, not one flag", "store one flag an episode")
    return bool(flags(values.reshape(1), key, path, number, "episode")[0])


def _observations(file: h5py.File, number: int, path: Path) -> Leaves:
    """The array of an episode's observations, or those of its tuple."""
    key = f"observations_{number}"
    if f"{key}_0" not in file:
        return {"": _rows(file, key, path)}
    found: Leaves = {}
    while f"{key}_{len(found)}" in file:
        found[f"_index_{len(found)}"] = _rows(file, f"{key}_{len(found)}", path)
    return found


def _rows(file: h5py.File, key: str, path: Path) -> Array:
    array = read_array(file, key, path)
    if array.ndim == 0:
        raise DatasetUnreadable(f"{path}: '{key}' is one number, not an array", "store one entry a step")
    return array


def _fault(observations: Leaves, actions: Array, rewards: Array, name: str) -> InvalidEpisode | None:
    counts = {f"observations {leaf}".strip(): len(array) for leaf, array in observations.items()}
    counts["rewards"] = len(rewards)
    if len(actions) == 0 or set(counts.values()) != {len(actions)}:
        listed = ", ".join(f"{key} {count}" for key, count in counts.items())
        return InvalidEpisode(f"{name} has unequal lengths (actions {len(actions)}, {listed})", "make them equal")
    return None
