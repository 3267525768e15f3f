"""What a pickle may name and build: NumPy's arrays and numbers, bytes, sets and dictionaries. The rest is refused."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.formats.plain_numbers import brief, checked_dtype, checked_shape

MAX_KEY_BITS = 64
BUILTINS = ("builtins.", "__builtin__.")
FACTORIES = {"bool", "bytes", "dict", "float", "frozenset", "int", "list", "long", "set", "str", "tuple", "unicode"}


@dataclass(frozen=True)
class Global:
    """A name that the file asks for; never what it names."""

    name: str


@dataclass(eq=False)
class Dtype:
    """A dtype, before and after its byte order is known."""

    dtype: np.dtype[Any]


@dataclass(eq=False)
class Array:
    """An array that is named but not yet filled, and where the memo has it."""

    slots: list[int] = field(default_factory=list)


def is_inert(name: Global) -> bool:
    """Whether a global is admitted as an argument, where it only names a type."""
    return name.name == "numpy.ndarray" or (
        name.name.startswith(BUILTINS) and name.name.removeprefix(BUILTINS[0]).removeprefix(BUILTINS[1]) in FACTORIES
    )


def checked_key(key: Any) -> Any:
    """A key that costs no more to hash than it has bytes: nested tuples can cost any time."""
    if isinstance(key, str | bytes | float | None) or (isinstance(key, int) and key.bit_length() <= MAX_KEY_BITS):
        return key
    raise TypeError(f"a key or member is a {type(key).__name__}, not a text or number")


def _bytes_of(content: object) -> bytes:
    """Raw bytes; Python 2 has them as text."""
    if isinstance(content, str):
        return content.encode("latin-1")
    if not isinstance(content, bytes):
        raise TypeError(f"an array's content is a {type(content).__name__}, not bytes")
    return content


def filled(shape: object, dtype: object, content: object, order: Any) -> NDArray[Any]:
    """An array of that content, which must be as long as the shape says."""
    if not isinstance(dtype, Dtype):
        raise TypeError("an array without a dtype")
    if dtype.dtype.hasobject:
        if not isinstance(content, list):
            raise TypeError("an array of objects without a list of them")
        size = checked_shape(shape, len(content), 1)
        values = np.empty(len(content), dtype=object)
        for index, value in enumerate(content):
            values[index] = value
        return values.reshape(size, order=order)
    raw = _bytes_of(content)
    size = checked_shape(shape, len(raw), dtype.dtype.itemsize)
    array = np.frombuffer(raw, dtype=dtype.dtype) if raw else np.empty(0, dtype.dtype)
    return array.astype(array.dtype.newbyteorder("=")).reshape(size, order=order)


def _from_buffer(content: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    return filled(shape, dtype, content, "F" if order == "F" else "C")


def _scalar(dtype: object, content: object) -> Any:
    if isinstance(dtype, Dtype) and dtype.dtype.hasobject:
        raise TypeError("a number that is an object")
    return filled((), dtype, content, "C")[()]


def _dtype(text: object, *_: object) -> Dtype:
    return Dtype(checked_dtype(text))


def dtype_in_order(dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    order, *compound = state[1:5]
    if order not in ("<", ">", "=", "|") or any(part is not None for part in compound):
        raise ValueError("a dtype that is no plain number")
    return dtype if order == "|" else dtype.newbyteorder(order)


def _encode(text: str, encoding: object) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes encoded as {brief(encoding)}, not latin1")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    return b""


def _set(members: Any = ()) -> set[Any]:
    if not isinstance(members, list | tuple):
        raise TypeError("a set of no list")
    return set(map(checked_key, members))


def frozen_set(members: Any = ()) -> frozenset[Any]:
    return frozenset(_set(members))


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple):
        raise TypeError("an ordered dictionary of no list")
    return {checked_key(key): value for key, value in pairs}


def _default(factory: object = None) -> dict[Any, Any]:
    """A plain dictionary: who only reads has no use for its factory, which must be a plain type all the same."""
    if factory is not None and not (isinstance(factory, Global) and is_inert(factory)):
        raise TypeError("a dictionary whose factory is no plain type")
    return {}


def _array(kind: object, *_: object) -> Array:
    if kind != Global("numpy.ndarray"):
        raise TypeError("an array of another kind than numpy.ndarray")
    return Array()


CALLS: dict[str, Callable[..., Any]] = {
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _default,
    **{f"{builtins}bytes": _no_bytes for builtins in BUILTINS},
    **{f"{builtins}set": _set for builtins in BUILTINS},
    **{f"{builtins}frozenset": frozen_set for builtins in BUILTINS},
}
