"""Damage to files of an input: their bytes, their arrays, or what lies at their place."""

import os
import pickle
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz import mutations

Damage = Callable[[Path, Random], str]
"""Changes what lies at a path, and says how."""


def _with_bytes(table: tuple[mutations.BytesMutation, ...]) -> Damage:
    def change(path: Path, random: Random) -> str:
        mutation = random.choice(table)
        path.write_bytes(mutation(path.read_bytes(), random))
        return mutation.__name__

    return change


def array(values: Any, random: Random) -> tuple[str, Any]:
    """How an array is damaged, and what comes of it."""
    values = np.asarray(values)
    flat = values.reshape(-1).astype(float, copy=True) if values.dtype.kind in "biuf" else np.zeros(3)
    spoilt = {name: flat.copy() for name in ("nan", "inf", "huge", "negative")}
    if flat.size:
        place = random.randrange(flat.size)
        for name, value in (("nan", np.nan), ("inf", -np.inf), ("huge", 1e300), ("negative", -1e9)):
            spoilt[name][place] = value
    shaped = {name: part.reshape(values.shape) if part.size == values.size else part for name, part in spoilt.items()}
    kinds: dict[str, Any] = shaped | {
        "negated": -flat.reshape(values.shape) if flat.size == values.size else flat,
        "flattened": flat,
        "as integers": np.nan_to_num(flat).astype(np.int64),
        "as int8": np.nan_to_num(flat).clip(-9, 9).astype(np.int8),
        "as float16": values.astype(np.float16) if values.dtype.kind in "biuf" else flat,
        "as complex": values.astype(complex) if values.dtype.kind in "biuf" else flat.astype(complex),
        "as text": np.array([b"x"] * max(1, len(flat) // 2)),
        "as flags": flat > 0,
        "shorter": values[:-1] if values.ndim else flat[:0],
        "longer": np.concatenate([values, values[:1]]) if values.ndim else np.repeat(flat, 2),
        "no rows": values[:0] if values.ndim else flat[:0],
        "one number": np.float64(random.random()),
        "another axis": values[..., None],
        "no columns": values[..., :0] if values.ndim else flat[:0],
        "transposed": np.ascontiguousarray(values.T),
        "constant": np.zeros_like(values),
    }
    name = random.choice(list(kinds))
    return name, kinds[name]


def hdf5(path: Path, random: Random) -> str:
    """A dataset, an attribute or a group of an HDF5 file is damaged."""
    import h5py

    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = random.choice(sorted(names))
        choice = random.randrange(10)
        if choice == 0:
            del file[name]
            return f"{name}: missing"
        if choice == 1:
            values = file[name][()]
            del file[name]
            file[f"{name}_of_another_name"] = values
            return f"{name}: renamed"
        if choice == 2:
            del file[name]
            file.create_group(name)
            return f"{name}: a group"
        if choice == 3:
            return _attribute(file, random)
        kind, values = array(file[name][()], random)
        del file[name]
        file[name] = values.astype(str).astype("S") if values.dtype.kind in "OU" else values
        return f"{name}: {kind}"


def _attribute(file: Any, random: Random) -> str:
    owners = [file, *(item for item in file.values() if len(item.attrs))]
    owner = random.choice(owners)
    key = random.choice([*owner.attrs, "total_steps", "env_id"])
    value = random.choice([-1, np.nan, "x", "[" * 5000, np.arange(3), "", b"\xff\xfe", 10**18])
    owner.attrs[key] = value
    return f"attribute {owner.name} {key}: {value!r:.40}"


def npz(path: Path, random: Random) -> str:
    """An array of an .npz file is damaged."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    name = random.choice(sorted(arrays))
    choice = random.randrange(8)
    if choice == 0:
        del arrays[name]
        kind = "missing"
    elif choice == 1:
        arrays[f"{name}s"] = arrays.pop(name)
        kind = "renamed"
    elif choice == 2:
        arrays[name] = np.array([{"a": 1}, None], dtype=object)
        kind = "objects"
    else:
        kind, arrays[name] = array(arrays[name], random)
    np.savez(path, **arrays)
    return f"{name}: {kind}"


def pickled(path: Path, random: Random) -> str:
    """A value of a pickled list of episodes is damaged."""
    episodes = pickle.loads(path.read_bytes())
    episode = random.choice(episodes)
    name = random.choice(sorted(episode))
    choice = random.randrange(6)
    if choice == 0:
        del episode[name]
        kind = "missing"
    elif choice == 1:
        other = random.choice([None, "x", {}, [], [[1], [1, 2]], 10**40, float("nan"), {"a": {"a": []}}, [None], b"x"])
        episode[name], kind = other, f"{other!r}"
    else:
        kind, episode[name] = array(episode[name], random)
    path.write_bytes(pickle.dumps(episodes, protocol=random.randrange(2, 6)))
    return f"{name}: {kind}"


def safetensors(path: Path, random: Random) -> str:
    """A tensor, or an entry of the header, of a .safetensors file is damaged."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    with safe_open(path, framework="np") as file:
        header = dict(file.metadata() or {})
    name = random.choice(sorted(tensors))
    choice = random.randrange(10)
    if choice == 0:
        del tensors[name]
        kind = "missing"
    elif choice == 1:
        tensors[f"{name}.x"] = tensors.pop(name)
        kind = "renamed"
    elif choice < 5 and header:
        name = random.choice(sorted(header))
        value = random.choice([None, "", "x", "-1", "9" * 5000, "[[1]]", "null", "nan", "[" * 5000, "{}", "[1, 2]"])
        header = {key: old for key, old in header.items() if key != name} | ({} if value is None else {name: value})
        kind = f"header {value!r:.20}"
    else:
        kind, values = array(tensors[name], random)
        tensors[name] = np.ascontiguousarray(np.zeros(3) if values.dtype.kind in "Sc" else values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_file({key: np.ascontiguousarray(values) for key, values in tensors.items()}, path, metadata=header)
    return f"{name}: {kind}"


def columns(path: Path, random: Random) -> str:
    """A column of a Parquet or Arrow table is damaged."""
    import polars as pl

    as_parquet = path.suffix == ".parquet"
    table = pl.read_parquet(path) if as_parquet else pl.read_ipc(path.read_bytes())
    name = random.choice(table.columns)
    column = pl.col(name)
    number = table[name].dtype.is_numeric()
    kinds: dict[str, Callable[[], pl.DataFrame]] = {
        "missing": lambda: table.drop(name),
        "renamed": lambda: table.rename({name: "other"}),
        "null": lambda: table.with_columns(pl.lit(None).alias(name)),
        "text": lambda: table.with_columns(pl.lit("x").alias(name)),
        "lists": lambda: table.with_columns(pl.lit([1.0]).alias(name)),
        "no rows": lambda: table.clear(),
        "fewer rows": lambda: table.head(table.height // 2),
        "more rows": lambda: pl.concat([table, table]),
        "nan": lambda: table.with_columns(pl.lit(float("nan")).alias(name)),
        "inf": lambda: table.with_columns(pl.lit(float("-inf")).alias(name)),
        "negative": lambda: table.with_columns((-1 - column.cast(pl.Float64)) if number else column),
        "huge": lambda: table.with_columns(pl.lit(2**62).alias(name)),
    }
    kind = random.choice(list(kinds))
    changed = kinds[kind]()
    changed.write_parquet(path) if as_parquet else changed.write_ipc(path)
    return f"{name}: {kind}"


def sqlite(path: Path, random: Random) -> str:
    """A table of an SQLite store is missing or of another schema, or a value is damaged."""
    with sqlite3.connect(path) as store:
        tables = sorted(row[0] for row in store.execute("select name from sqlite_master where type = 'table'"))
        choice = random.randrange(4)
        if choice == 0:
            store.execute("update alembic_version set version_num = 'ffffffffffff'")
            return "a newer schema"
        table = random.choice(tables)
        if choice == 1:
            store.execute("pragma foreign_keys = off")
            store.execute(f"drop table {table}")
            return f"{table}: missing"
        names = [row[1] for row in store.execute(f"pragma table_info({table})")]
        name = random.choice(names)
        if choice == 2:
            store.execute(f"alter table {table} rename column {name} to other_{name}")
            return f"{table}.{name}: renamed"
        try:
            store.execute(f"update {table} set {name} = ?", (random.choice([-1, "x", "9" * 40, b"\xff", 1e300]),))
        except sqlite3.IntegrityError:
            store.execute(f"delete from {table}")
        return f"{table}.{name}: another value"


def place(path: Path, random: Random) -> str:
    """Something else lies at the file's place."""
    kind = random.choice(["missing", "folder", "pipe", "link to itself", "link to nothing", "unreadable", "device"])
    if kind == "unreadable":
        path.chmod(0)
        return kind
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "link to nothing":
        path.symlink_to("nowhere")
    elif kind == "device":
        path.symlink_to("/dev/null")
    return kind


def _bytes_or(structured: Damage, often: float = 0.6) -> tuple[tuple[Damage, float], ...]:
    return ((structured, often), (_with_bytes(mutations.BYTES), 0.95 - often), (place, 0.05))


BY_SUFFIX: dict[str, tuple[tuple[Damage, float], ...]] = {
    ".json": ((_with_bytes(mutations.JSON), 0.9), (place, 0.1)),
    ".toml": ((_with_bytes(mutations.LINES), 0.9), (place, 0.1)),
    ".yaml": ((_with_bytes(mutations.LINES), 0.9), (place, 0.1)),
    ".hdf5": _bytes_or(hdf5),
    ".h5": _bytes_or(hdf5),
    ".npz": _bytes_or(npz),
    ".pkl": _bytes_or(pickled, 0.45),
    ".safetensors": _bytes_or(safetensors),
    ".parquet": _bytes_or(columns),
    ".arrow": _bytes_or(columns, 0.4),
    ".db": _bytes_or(sqlite, 0.5),
}


def damage(path: Path, random: Random) -> str:
    """Damage the file in one of the ways of its kind; says which."""
    ways = BY_SUFFIX.get(path.suffix, _bytes_or(_with_bytes(mutations.BYTES)))
    way = random.choices([way for way, _ in ways], [weight for _, weight in ways])[0]
    return f"{path.name}: {way(path, random)}"
