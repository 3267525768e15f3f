"""Pickles without their power: arrays, numbers, text and plain containers, or nothing.

A pickle is a program. Here the standard library's own unpickler, in Python, runs only the instructions that build
containers: every other instruction is replaced or refused, and none imports or calls. A global is only a name, compared
with the few that stand for arrays, dtypes and containers; any other is refused by that name. No number of the file
decides how much is allocated: an array takes the bytes that are there, and whatever its shape claims must fit them.
Time and memory are linear in the file.

Python 2's pickles are read as Latin-1, which is how NumPy's arrays in them have to be read.
"""

import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from iq_offline.data.formats.plain_numbers import brief, checked_dtype, checked_shape
from iq_offline.errors import DatasetUnreadable

REMEDY = "export it as plain arrays where it was made: a dictionary of NumPy arrays, .npz or HDF5"
MAX_KEY_BITS = 64
BUILTINS = ("builtins.", "__builtin__.")
FACTORIES = {"bool", "bytes", "dict", "float", "frozenset", "int", "list", "long", "set", "str", "tuple", "unicode"}
DAMAGE = (IndexError, KeyError, TypeError, ValueError, OverflowError, AttributeError, EOFError)


def load(path: Path) -> object:
    """What a pickle file holds. Raises DatasetUnreadable for code, and for what is no whole pickle."""
    return loads(path.read_bytes(), str(path))


def loads(data: bytes, name: str) -> object:
    """What a pickle holds; `name` stands for it in messages. Raises DatasetUnreadable, as `load` does."""
    file = _Bytes(data)
    try:
        content: object = _Unpickler(file, name).load()
    except (*DAMAGE, struct.error, pickle.UnpicklingError) as error:
        raise DatasetUnreadable(
            f"{name} is not a readable pickle ({type(error).__name__} at byte {file.tell()}: {str(error)[:100]})",
            "copy the whole file again; for another format: iq-offline convert FILE --to NAME-v0 --input-format FORMAT",
        ) from None
    if file.tell() != len(data):
        raise DatasetUnreadable(
            f"{name} goes on after its pickle: {file.tell()} of {len(data)} bytes are read", "store one object"
        )
    return content


class _Bytes(io.BytesIO):
    """A file that never gives fewer bytes than are asked for."""

    def read(self, count: int | None = -1) -> bytes:
        left = len(self.getbuffer()) - self.tell()
        if count is None or not 0 <= count <= left:
            raise ValueError(f"{count} bytes are asked for, {left} are left")
        return super().read(count)


@dataclass(frozen=True)
class _Global:
    """A name that the file asks for; never what it names."""

    name: str

    @property
    def inert(self) -> bool:
        """Whether it is admitted as an argument, where it only names a type."""
        plain = self.name.removeprefix(BUILTINS[0]).removeprefix(BUILTINS[1])
        return self.name == "numpy.ndarray" or (self.name.startswith(BUILTINS) and plain in FACTORIES)


@dataclass(eq=False)
class _Dtype:
    """A dtype, before and after its byte order is known."""

    dtype: np.dtype[Any]


@dataclass(eq=False)
class _UnfilledArray:
    """An array that is named but not yet filled, and where the memo has it."""

    slots: list[int] = field(default_factory=list)


_Standard: Any = pickle._Unpickler  # type: ignore[attr-defined, unused-ignore]


class _Unpickler(_Standard):  # type: ignore[misc]
    """The standard library's unpickler with the instructions of INSTRUCTIONS and no others."""

    stack: list[Any]
    metastack: list[list[Any]]
    memo: dict[int, Any]

    def __init__(self, file: _Bytes, name: str) -> None:
        super().__init__(file, encoding="latin-1")
        self.name = name

    def refuse(self, what: str) -> NoReturn:
        raise DatasetUnreadable(f"{self.name} asks for {what}, which is code: none of it was run", REMEDY)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def find_class(self, module: str, name: str) -> _Global:
        """A global: only its name."""
        wanted = _Global(f"{module}.{name}")
        if wanted.name not in CALLS and not wanted.inert:
            self.refuse(brief(wanted.name))
        return wanted

    def stop(self) -> None:
        (_,) = self.stack
        if self.metastack:
            raise ValueError("a mark is left")
        self.load_stop()

    def keep(self, slot: int) -> None:
        """Remember the top of the stack."""
        if isinstance(self.stack[-1], _UnfilledArray):
            self.stack[-1].slots.append(slot)
        self.memo[slot] = self.stack[-1]

    def instance(self) -> None:
        module, name = (self.readline()[:-1].decode("utf-8") for _ in range(2))
        self.refuse(brief(f"{module}.{name}"))

    def reduce(self) -> None:
        """Where Python would call: one of a few constructions, by name."""
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, _Global) or called.name not in CALLS or not isinstance(arguments, tuple):
            self.refuse(f"a call of '{called.name}'" if isinstance(called, _Global) else "a call of its own data")
        self.append(CALLS[called.name](*arguments))

    def build(self) -> None:
        """Where Python would set an object's state: that of an array or a dtype."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Dtype) and isinstance(state, tuple):
            target.dtype = _dtype_in_order(target.dtype, state)
        elif isinstance(target, _UnfilledArray) and isinstance(state, tuple):
            _, shape, dtype, fortran, content = state
            self.stack[-1] = _filled(shape, dtype, content, "F" if fortran else "C")
            self.memo |= dict.fromkeys(target.slots, self.stack[-1])
        else:
            self.refuse("a change of an object's inside")

    def set_items(self, pairs: list[Any]) -> None:
        """Add keys and values, one after the other, to the dictionary on top."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise TypeError("keys without a dictionary or value")
        target.update(zip(map(_checked_key, pairs[::2]), pairs[1::2], strict=True))

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def dictionary(self) -> None:
        pairs = self.pop_mark()
        self.append({})
        self.set_items(pairs)

    def add_items(self) -> None:
        members = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise TypeError("members without a set")
        self.stack[-1].update(map(_checked_key, members))

    def frozen_set(self) -> None:
        members = self.pop_mark()
        self.append(_frozen_set(members))


class _Dispatch(dict[int, Callable[[Any], object]]):
    def __missing__(self, code: int) -> NoReturn:
        raise ValueError(f"no pickle has the instruction {code:#04x}")


def _refusing(what: str, codes: str) -> dict[str, Callable[[Any], object]]:
    return dict.fromkeys(codes, lambda machine: machine.refuse(what))


STANDARD = "(012N\x88\x89ILFSVJKMG\x8a\x8bTUX\x8c\x8dBC\x8e)\x85\x86\x87t]lae}\x8fghjc\x93"
"""The instructions that are the standard library's: they push, pop and fill plain containers."""
INSTRUCTIONS = _Dispatch({ord(code): _Standard.dispatch[ord(code)] for code in STANDARD})
INSTRUCTIONS |= {
    ord(code): action
    for code, action in {
        "\x80": lambda machine: machine.read(1),  # the protocol
        "\x95": lambda machine: machine.read(8),  # the length of a frame
        "\x96": _Unpickler.load_binbytes8,  # as bytes: a bytearray would be allocated before it is read
        ".": _Unpickler.stop,
        "d": _Unpickler.dictionary,
        "s": _Unpickler.set_item,
        "u": lambda machine: machine.set_items(machine.pop_mark()),
        "\x90": _Unpickler.add_items,
        "\x91": _Unpickler.frozen_set,
        "p": lambda machine: machine.keep(int(machine.readline())),
        "q": lambda machine: machine.keep(machine.number("<B")),
        "r": lambda machine: machine.keep(machine.number("<I")),
        "\x94": lambda machine: machine.keep(len(machine.memo)),
        "R": _Unpickler.reduce,
        "b": _Unpickler.build,
        "i": _Unpickler.instance,
        **_refusing("an object of a class", "o\x81\x92"),
        **_refusing("an extension by its number", "\x82\x83\x84"),
        **_refusing("an object kept elsewhere", "PQ"),
        **_refusing("a buffer kept elsewhere", "\x97\x98"),
    }.items()
}
"""Pickle's instructions by code, as the standard library's pickletools documents them."""
_Unpickler.dispatch = INSTRUCTIONS


def _checked_key(key: Any) -> Any:
    """A key that costs no more to hash than it has bytes: nested tuples can cost any time."""
    if isinstance(key, str | bytes | float | None) or (isinstance(key, int) and key.bit_length() <= MAX_KEY_BITS):
        return key
    raise TypeError(f"a key or member is a {type(key).__name__}, not a text or number")


def _filled(shape: object, dtype: object, content: object, order: Any) -> NDArray[Any]:
    """An array of that content, which must be as long as the shape says. Python 2 has bytes as text."""
    if not isinstance(dtype, _Dtype):
        raise TypeError("an array without a dtype")
    if dtype.dtype.hasobject:
        if not isinstance(content, list):
            raise TypeError("an array of objects without a list of them")
        size = checked_shape(shape, len(content), 1)
        values = np.empty(len(content), dtype=object)
        for index, value in enumerate(content):
            values[index] = value
        return values.reshape(size, order=order)
    raw = content.encode("latin-1") if isinstance(content, str) else content
    if not isinstance(raw, bytes):
        raise TypeError(f"an array's content is a {type(content).__name__}, not bytes")
    size = checked_shape(shape, len(raw), dtype.dtype.itemsize)
    array = np.frombuffer(raw, dtype=dtype.dtype) if raw else np.empty(0, dtype.dtype)
    return array.astype(array.dtype.newbyteorder("=")).reshape(size, order=order)


def _from_buffer(content: object, dtype: object, shape: object, order: object) -> NDArray[Any]:
    return _filled(shape, dtype, content, "F" if order == "F" else "C")


def _scalar(dtype: object, content: object) -> Any:
    if isinstance(dtype, _Dtype) and dtype.dtype.hasobject:
        raise TypeError("a number that is an object")
    return _filled((), dtype, content, "C")[()]


def _dtype_in_order(dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    order, *compound = state[1:5]
    if order not in ("<", ">", "=", "|") or any(part is not None for part in compound):
        raise ValueError("a dtype that is no plain number")
    return dtype if order == "|" else dtype.newbyteorder(order)


def _encode(text: str, encoding: object) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes encoded as {brief(encoding)}, not latin1")
    return text.encode("latin-1")


def _set(members: Any = ()) -> set[Any]:
    if not isinstance(members, list | tuple):
        raise TypeError("a set of no list")
    return set(map(_checked_key, members))


def _frozen_set(members: Any = ()) -> frozenset[Any]:
    return frozenset(_set(members))


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple):
        raise TypeError("an ordered dictionary of no list")
    return {_checked_key(key): value for key, value in pairs}


def _default(factory: object = None) -> dict[Any, Any]:
    """A plain dictionary: who only reads has no use for its factory, which must be a plain type all the same."""
    if factory is not None and not (isinstance(factory, _Global) and factory.inert):
        raise TypeError("a dictionary whose factory is no plain type")
    return {}


def _array(kind: object, *_: object) -> _UnfilledArray:
    if kind != _Global("numpy.ndarray"):
        raise TypeError("an array of another kind than numpy.ndarray")
    return _UnfilledArray()


CALLS: dict[str, Callable[..., Any]] = {
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    "numpy.dtype": lambda text, *_: _Dtype(checked_dtype(text)),
    "_codecs.encode": _encode,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _default,
    **{f"{builtins}bytes": lambda: b"" for builtins in BUILTINS},
    **{f"{builtins}set": _set for builtins in BUILTINS},
    **{f"{builtins}frozenset": _frozen_set for builtins in BUILTINS},
}
"""What a pickle may name and build: NumPy's arrays and numbers, bytes, sets and dictionaries."""
