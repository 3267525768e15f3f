"""Minari's Arrow and Parquet layouts: a folder an episode, its columns padded to the T+1 rows of the observations."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iq_offline.data.declared import Space, shape_of
from iq_offline.data.formats.minari_metadata import Unusual, damaged, decode_jpeg, read_metadata
from iq_offline.data.observations import INDEX, Array, Leaves, in_order
from iq_offline.errors import DatasetUnreadable

COMPARED_EPISODES = 100
"""Texts are compared over so many episodes."""
COLUMNS = ("rewards", "terminations", "truncations")


@dataclass(frozen=True)
class Arrays:
    """One episode as Minari keeps it: T+1 observations, T actions and columns, T or T+1 infos."""

    observations: Leaves
    actions: Array
    columns: dict[str, Array]
    infos: Leaves
    seed: int | None = None


def episode_folders(folder: Path, total: int, path: Path) -> list[Path]:
    """The folders of all episodes in order. Raises DatasetUnreadable where some are missing."""
    found = sorted(
        (item for item in folder.iterdir() if item.is_dir() and item.name.isdigit()), key=lambda p: int(p.name)
    )
    if len(found) != total:
        raise damaged(f"{path}: metadata.json tells of {total} episodes, {len(found)} folders are there")
    return found


def read_episode(
    folder: Path,
    data_format: str,
    spaces: tuple[Space | None, Space | None],
    unusual: Unusual,
    *,
    infos: bool,
) -> Arrays:
    """All rows of one folder, whatever their record batches. Raises DatasetUnreadable for what does not add up.

    `spaces`: of observations and actions, as the dataset declares them.
    """
    observation_space, action_space = spaces
    table = _read_table(folder, data_format)
    missing = {"observations", "actions", *COLUMNS} - set(table.column_names)
    if missing or observation_space is None or action_space is None:
        raise DatasetUnreadable(f"{folder}: no {', '.join(sorted(missing)) or 'spaces'}", "fetch the dataset again")
    metadata = read_metadata(folder / "metadata.json")
    steps = table.num_rows - 1
    if metadata.get("total_steps", steps) != steps:
        raise damaged(f"{folder}: metadata.json tells of {metadata['total_steps']} steps, the data have {steps}")
    seed = metadata.get("seed")
    if seed is not None and type(seed) is not int:
        raise DatasetUnreadable(f"{folder}: the seed in metadata.json is no whole number", "mend it")
    actions = _leaves(_joined(table, "actions"), action_space, Unusual(frozenset(), frozenset()), folder)
    if list(actions) != [""]:
        raise DatasetUnreadable(f"{folder}: dictionary actions are not supported", "use Discrete or Box actions")
    return Arrays(
        observations=_leaves(_joined(table, "observations"), observation_space, unusual, folder),
        actions=actions[""][:-1],
        columns={key: _numbers(table, key, folder)[:-1] for key in COLUMNS},
        infos=_infos(_joined(table, "infos")) if infos and "infos" in table.column_names else {},
        seed=seed,
    )


def instructions(folders: list[Path], data_format: str, texts: frozenset[str]) -> tuple[str, ...]:
    """Two different texts with which some of the first episodes begin; empty where all begin alike.

    Raises DatasetUnreadable where a table cannot be read.
    """
    first: dict[str, str] = {}
    for folder in folders[: COMPARED_EPISODES if texts else 0]:
        table = _read_table(folder, data_format)
        for name in texts if "observations" in table.column_names and table.num_rows else ():
            values = _joined(table, "observations")
            for part in name.split("/"):
                values = values.field(part.removeprefix(INDEX))
            text = str(values[0].as_py())
            if first.setdefault(name, text) != text:
                return first[name], text
    return ()


def _numbers(table: Any, key: str, folder: Path) -> Array:
    values: Array = _joined(table, key).to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "biuf":
        raise DatasetUnreadable(f"{folder}: {key} are no numbers ({values.dtype})", "store one number a step")
    return values


def _read_table(folder: Path, data_format: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    found = [part for part in folder.glob(f"part-*.{data_format}") if part.is_file() and part.stem[5:].isdecimal()]
    parts = sorted(found, key=lambda part: int(part.stem[5:]))
    if not parts:
        raise damaged(f"{folder} has no part-0.{data_format}")
    try:
        if data_format == "parquet":
            return pyarrow.concat_tables([pyarrow.parquet.read_table(part, partitioning=None) for part in parts])
        return pyarrow.concat_tables([_read_ipc(part) for part in parts])
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(f"{folder} is not readable ({error})") from None


def _read_ipc(part: Path) -> Any:
    import pyarrow

    with pyarrow.OSFile(str(part)) as file:
        return pyarrow.ipc.open_file(file).read_all()


def _joined(table: Any, key: str) -> Any:
    import pyarrow

    chunks = table.column(key).chunks
    return chunks[0] if len(chunks) == 1 else pyarrow.concat_arrays(chunks)


def _leaves(values: Any, space: Space, unusual: Unusual, folder: Path, prefix: str = "") -> Leaves:
    inner = space.get("subspaces")
    if inner is None:
        return {"": _array(values, space, encoded=prefix.rstrip("/") in unusual.images, folder=folder)}
    named = [(f"_index_{n}", str(n), item) for n, item in enumerate(inner)] if isinstance(inner, list) else None
    found: Leaves = {}
    for name, field, item in named or [(name, name, item) for name, item in sorted(inner.items())]:
        if f"{prefix}{name}" not in unusual.texts:
            for path, array in _leaves(values.field(field), item, unusual, folder, f"{prefix}{name}/").items():
                found[f"{name}/{path}" if path else name] = array
    return in_order(found)


def _array(values: Any, space: Space, *, encoded: bool, folder: Path) -> Array:
    import pyarrow

    if encoded:
        return decode_jpeg([value.as_py() for value in values])
    if pyarrow.types.is_fixed_size_list(values.type):
        shape = shape_of(space)
        if shape is None:
            shape = (values.type.list_size,)
        if math.prod(shape) != values.type.list_size:
            raise damaged(f"{folder}: {values.type.list_size} numbers a step in a space of shape {shape}")
        return np.asarray(values.flatten().to_numpy(zero_copy_only=False)).reshape(len(values), *shape)
    array = np.asarray(values.to_numpy(zero_copy_only=False))
    if array.dtype.kind not in "biuf":
        raise DatasetUnreadable(f"{folder}: {values.type} is not an array of numbers", "use a dataset of numbers")
    return array


def _infos(values: Any) -> Leaves:
    import pyarrow

    found: Leaves = {}
    for field in values.type:
        inner = values.field(field.name)
        if pyarrow.types.is_struct(field.type):
            found |= {f"{field.name}/{path}": array for path, array in _infos(inner).items()}
        elif pyarrow.types.is_fixed_size_list(field.type):
            told = (field.metadata or {}).get(b"shape", str(field.type.list_size).encode())
            shape = [int(number) for number in told.split(b",") if number]
            found[field.name] = np.asarray(inner.flatten().to_numpy(zero_copy_only=False)).reshape(len(inner), *shape)
        elif pyarrow.types.is_primitive(field.type):
            array = np.asarray(inner.to_numpy(zero_copy_only=False))
            found |= {field.name: array} if array.dtype.kind in "biuf" else {}
    return found
