"""Pickles without their power: arrays, numbers, text and plain containers, or nothing.

A pickle is a program. The machine here runs the part of its language that builds containers, and has no instruction
that imports or calls: a global is only a name, compared with the few that stand for arrays, dtypes and containers, and
any other is refused by that name. No number of the file decides how much is allocated: an array takes the bytes that
are there, and whatever its shape claims must fit them. Time and memory are linear in the file.

Python 2's pickles are read as Latin-1, which is how NumPy's arrays in them have to be read.
"""

import codecs
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from iq_offline.data.formats.pickled_values import (
    CALLS,
    Array,
    Dtype,
    Global,
    checked_key,
    dtype_in_order,
    filled,
    frozen_set,
    is_inert,
)
from iq_offline.data.formats.plain_numbers import brief
from iq_offline.errors import DatasetUnreadable

REMEDY = "export it as plain arrays where it was made: a dictionary of NumPy arrays, .npz or HDF5"


def load(path: Path) -> object:
    """What a pickle file holds. Raises DatasetUnreadable for code, and for what is no whole pickle."""
    return loads(path.read_bytes(), str(path))


def loads(data: bytes, name: str) -> object:
    """What a pickle holds; `name` stands for it in messages. Raises DatasetUnreadable, as `load` does."""
    machine = _Machine(data, name)
    try:
        content = machine.run()
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise DatasetUnreadable(
            f"{name} is not a readable pickle ({type(error).__name__} at byte {machine.position}: {str(error)[:100]})",
            "fetch or copy the file again, whole, or convert it: `iq-offline convert` with --input-format",
        ) from None
    if machine.position != len(data):
        raise DatasetUnreadable(
            f"{name} goes on after its pickle: {machine.position} of {len(data)} bytes are read", "store one object"
        )
    return content


class _Machine:
    """The stack, the memo and the place in the file."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.position = data, name, 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        """The stacks below the marks."""
        self.memo: dict[int, Any] = {}

    def run(self) -> object:
        """Run to the end of the pickle."""
        while (code := self.take(1)[0]) != ord("."):
            action = ACTIONS.get(code)
            if action is None:
                raise ValueError(f"no pickle has the instruction {code:#04x}")
            action(self)
        (content,) = self.stack
        if self.below:
            raise ValueError("a mark is left")
        return content

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if not 0 <= count <= len(self.data) - self.position:
            raise ValueError(f"{count} bytes are asked for, {len(self.data) - self.position} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def line(self) -> bytes:
        """The next bytes up to a line's end."""
        end = self.data.index(b"\n", self.position)
        text = self.data[self.position : end]
        self.position = end + 1
        return text

    def number(self, form: str) -> Any:
        """The next binary number, as `struct` writes its form."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def push(self, value: object) -> None:
        """Put on the stack."""
        self.stack.append(value)

    def mark(self) -> None:
        """Begin a new stack over the present one."""
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """All that was put since the last mark, which is gone with it."""
        values = self.stack
        self.stack = self.below.pop()
        return values

    def keep(self, slot: int) -> None:
        """Remember the top of the stack."""
        top = self.stack[-1]
        if isinstance(top, Array):
            top.slots.append(slot)
        self.memo[slot] = top

    def refuse(self, what: str) -> NoReturn:
        """Refuse what is no data."""
        raise DatasetUnreadable(f"{self.name} asks for {what}, which is code: none of it was run", REMEDY)

    def find(self, module: str, name: str) -> None:
        """A global: only its name."""
        wanted = Global(f"{module}.{name}")
        if wanted.name not in CALLS and not is_inert(wanted):
            self.refuse(brief(wanted.name))
        self.push(wanted)

    def reduce(self) -> None:
        """Where Python would call: one of a few constructions, by name."""
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Global) or called.name not in CALLS or not isinstance(arguments, tuple):
            self.refuse(f"a call of '{called.name}'" if isinstance(called, Global) else "a call of its own data")
        self.push(CALLS[called.name](*arguments))

    def build(self) -> None:
        """Where Python would set an object's state: that of an array or a dtype."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Dtype) and isinstance(state, tuple):
            target.dtype = dtype_in_order(target.dtype, state)
        elif isinstance(target, Array) and isinstance(state, tuple):
            _, shape, dtype, fortran, content = state
            array = filled(shape, dtype, content, "F" if fortran else "C")
            self.stack[-1] = array
            for slot in target.slots:
                self.memo[slot] = array
        else:
            self.refuse("a change of an object's inside")

    def set_items(self, pairs: list[Any]) -> None:
        """Add keys and values, one after the other, to the dictionary on top."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise TypeError("keys without a dictionary or value")
        target.update(zip(map(checked_key, pairs[::2]), pairs[1::2], strict=True))

    def extend(self, values: list[Any]) -> None:
        """Add to the list on top."""
        if not isinstance(self.stack[-1], list):
            raise TypeError("entries without a list")
        self.stack[-1].extend(values)

    def add(self, values: list[Any]) -> None:
        """Add to the set on top."""
        if not isinstance(self.stack[-1], set):
            raise TypeError("members without a set")
        self.stack[-1].update(map(checked_key, values))


def _integer_line(machine: _Machine) -> None:
    line = machine.line()
    machine.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))


def _text_line(machine: _Machine) -> None:
    line = machine.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a text without quotes")
    machine.push(codecs.escape_decode(line[1:-1])[0].decode("latin-1"))


def _global_line(machine: _Machine) -> None:
    machine.find(machine.line().decode("utf-8"), machine.line().decode("utf-8"))


def _global_stack(machine: _Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError("a global whose name is no text")
    machine.find(module, name)


def _instance_line(machine: _Machine) -> None:
    machine.refuse(brief(f"{machine.line().decode('utf-8')}.{machine.line().decode('utf-8')}"))


def _pop(machine: _Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.since_mark()


def _tuple(machine: _Machine, count: int) -> None:
    values = [machine.stack.pop() for _ in range(count)]
    machine.push(tuple(reversed(values)))


def _counted(form: str, convert: Callable[[bytes], object]) -> Callable[[_Machine], None]:
    """An instruction that holds a count and so many bytes."""
    return lambda machine: machine.push(convert(machine.take(machine.number(form))))


def _top_pair(machine: _Machine) -> list[Any]:
    value, key = machine.stack.pop(), machine.stack.pop()
    return [key, value]


def _dictionary(machine: _Machine) -> None:
    pairs = machine.since_mark()
    machine.push({})
    machine.set_items(pairs)


def _latin(data: bytes) -> str:
    return data.decode("latin-1")


def _utf(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _refusing(what: str) -> Callable[[_Machine], None]:
    return lambda machine: machine.refuse(what)


ACTIONS: dict[int, Callable[[_Machine], None]] = {
    ord(code): action
    for code, action in {
        "\x80": lambda machine: machine.take(1),
        "\x95": lambda machine: machine.take(8),
        "(": _Machine.mark,
        "0": _pop,
        "1": _Machine.since_mark,
        "2": lambda machine: machine.push(machine.stack[-1]),
        "N": lambda machine: machine.push(None),
        "\x88": lambda machine: machine.push(True),
        "\x89": lambda machine: machine.push(False),
        "I": _integer_line,
        "L": lambda machine: machine.push(int(machine.line().rstrip(b"L"))),
        "F": lambda machine: machine.push(float(machine.line())),
        "S": _text_line,
        "V": lambda machine: machine.push(machine.line().decode("raw-unicode-escape")),
        "J": lambda machine: machine.push(machine.number("<i")),
        "K": lambda machine: machine.push(machine.number("<B")),
        "M": lambda machine: machine.push(machine.number("<H")),
        "G": lambda machine: machine.push(machine.number(">d")),
        "\x8a": _counted("<B", _integer),
        "\x8b": _counted("<i", _integer),
        "T": _counted("<i", _latin),
        "U": _counted("<B", _latin),
        "X": _counted("<I", _utf),
        "\x8c": _counted("<B", _utf),
        "\x8d": _counted("<Q", _utf),
        "B": _counted("<I", bytes),
        "C": _counted("<B", bytes),
        "\x8e": _counted("<Q", bytes),
        "\x96": _counted("<Q", bytes),
        ")": lambda machine: machine.push(()),
        "\x85": lambda machine: _tuple(machine, 1),
        "\x86": lambda machine: _tuple(machine, 2),
        "\x87": lambda machine: _tuple(machine, 3),
        "t": lambda machine: machine.push(tuple(machine.since_mark())),
        "]": lambda machine: machine.push([]),
        "l": lambda machine: machine.push(machine.since_mark()),
        "a": lambda machine: machine.extend([machine.stack.pop()]),
        "e": lambda machine: machine.extend(machine.since_mark()),
        "}": lambda machine: machine.push({}),
        "d": _dictionary,
        "s": lambda machine: machine.set_items(_top_pair(machine)),
        "u": lambda machine: machine.set_items(machine.since_mark()),
        "\x8f": lambda machine: machine.push(set()),
        "\x90": lambda machine: machine.add(machine.since_mark()),
        "\x91": lambda machine: machine.push(frozen_set(machine.since_mark())),
        "p": lambda machine: machine.keep(int(machine.line())),
        "q": lambda machine: machine.keep(machine.number("<B")),
        "r": lambda machine: machine.keep(machine.number("<I")),
        "\x94": lambda machine: machine.keep(len(machine.memo)),
        "g": lambda machine: machine.push(machine.memo[int(machine.line())]),
        "h": lambda machine: machine.push(machine.memo[machine.number("<B")]),
        "j": lambda machine: machine.push(machine.memo[machine.number("<I")]),
        "c": _global_line,
        "\x93": _global_stack,
        "R": _Machine.reduce,
        "b": _Machine.build,
        "i": _instance_line,
        "o": _refusing("an object of a class"),
        "\x81": _refusing("an object of a class"),
        "\x92": _refusing("an object of a class"),
        "\x82": _refusing("an extension by its number"),
        "\x83": _refusing("an extension by its number"),
        "\x84": _refusing("an extension by its number"),
        "P": _refusing("an object kept elsewhere"),
        "Q": _refusing("an object kept elsewhere"),
        "\x97": _refusing("a buffer kept elsewhere"),
        "\x98": _refusing("a buffer kept elsewhere"),
    }.items()
}
"""Pickle's instructions by code, as the standard library's pickletools documents them."""
