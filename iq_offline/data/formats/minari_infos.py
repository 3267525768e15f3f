"""Infos of Minari's HDF5 layout: of each episode, the arrays of numbers with T or T+1 entries. And its first texts."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import h5py

from iq_offline.data.formats.hdf5 import members, read_small_array, unreadable
from iq_offline.data.formats.minari_arrow import COMPARED_EPISODES
from iq_offline.data.observations import Leaves

DEEPEST = 12
"""Groups inside each other, as `members` allows."""


def read_infos(group: h5py.Group, left_out: frozenset[str], path: Path, prefix: str = "") -> Leaves:
    """The infos that are numbers, one entry a step; others (texts, single values) are no step's data."""
    found: Leaves = {}
    for name, item in members(group, path).items():
        if isinstance(item, h5py.Group):
            found |= read_infos(item, left_out, path, f"{prefix}{name}/")
        elif item.ndim and item.dtype.kind in "biuf" and prefix + name not in left_out:
            found[prefix + name] = read_small_array(group, name, path)
    return found


def misfits(file: h5py.File, episodes: Iterable[str], path: Path) -> frozenset[str]:
    """The infos that in some episode have neither T nor T+1 entries: no step's data, whatever they have in others.

    Goes through HDF5's own calls, as there may be thousands of episodes. What it cannot open is told when it is read.
    """
    found: set[str] = set()
    try:
        for episode in episodes:
            group = _opened(file.id, episode.encode())
            infos = _opened(group, b"infos") if isinstance(group, h5py.h5g.GroupID) else None
            if isinstance(infos, h5py.h5g.GroupID):
                steps = {_length(_opened(group, key)) for key in (b"actions", b"rewards")} - {None}
                fitting = {length + also for length in steps if length is not None for also in (0, 1)}
                found.update(_misfits(infos, fitting) if fitting else ())
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise unreadable(path, error) from None
    return frozenset(found)


def instructions(file: h5py.File, episodes: Iterable[str], texts: frozenset[str], path: Path) -> tuple[str, ...]:
    """Two different texts with which some of the first episodes begin; empty where all begin alike.

    Raises DatasetUnreadable where the file is damaged.
    """
    first: dict[str, str] = {}
    try:
        for episode in islice(episodes, COMPARED_EPISODES):
            for name in texts:
                item = file.get(f"{episode}/observations/{name}")
                if isinstance(item, h5py.Dataset) and item.shape and h5py.check_string_dtype(item.dtype):
                    text = str(item.asstr(errors="replace")[0])
                    if first.setdefault(name, text) != text:
                        return first[name], text
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise unreadable(path, error) from None
    return ()


def _misfits(group: h5py.h5g.GroupID, fitting: set[int], prefix: str = "", depth: int = 0) -> Iterator[str]:
    for name in group:
        item, info = _opened(group, name), prefix + name.decode(errors="surrogateescape")
        if isinstance(item, h5py.h5g.GroupID):
            if depth == DEEPEST:
                raise ValueError(f"groups inside groups without end at {info[:80]}")
            yield from _misfits(item, fitting, f"{info}/", depth + 1)
        length = _length(item)
        if length is not None and length not in fitting and item.dtype.kind in "biuf":
            yield info


def _length(item: Any) -> int | None:
    return item.shape[0] if isinstance(item, h5py.h5d.DatasetID) and item.shape else None


def _opened(group: h5py.h5g.GroupID, name: bytes) -> Any:
    """The group or array under a name of this file; None for a link, or nothing."""
    hard = group.links.exists(name) and group.links.get_info(name).type == h5py.h5l.TYPE_HARD
    return h5py.h5o.open(group, name) if hard else None
