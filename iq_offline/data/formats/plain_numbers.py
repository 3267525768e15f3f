"""What arrays of a foreign file may be: plain numbers, of the size that the file has."""

import math
import re
from typing import Any

import numpy as np

MAX_DIMENSIONS = 32
BOMB_BYTES = 256 << 20
BOMB_FACTOR = 200
"""More than these bytes, and so many times those of the file, is no recording."""
DTYPE = re.compile(r"[<>=|]?([biuf]\d{1,2}|[SU][1-9]\d{0,6}|O8?|\?)")


def is_bomb(size: int, held: int) -> bool:
    """Whether so many bytes out of so many held are more than a recording would give."""
    return size > BOMB_BYTES and size > BOMB_FACTOR * held


def checked_dtype(text: object) -> np.dtype[Any]:
    """The dtype of that name: numbers, texts or objects. Raises ValueError for any other."""
    if not isinstance(text, str) or not DTYPE.fullmatch(text):
        raise ValueError(f"the dtype {brief(text)} is no plain number")
    try:
        return np.dtype("O" if text.strip("<>=|") == "O8" else text)
    except TypeError as error:
        raise ValueError(str(error)) from None


def checked_shape(shape: object, held: int, itemsize: int) -> tuple[int, ...]:
    """A shape whose entries take exactly the bytes held. Raises ValueError for any other."""
    lengths = shape if isinstance(shape, tuple) and len(shape) <= MAX_DIMENSIONS else (None,)
    if not all(type(length) is int and 0 <= length < 2**63 for length in lengths):
        raise ValueError(f"a {type(shape).__name__} that is no shape")
    if math.prod(max(1, length) for length in lengths) * itemsize >= 2**63:
        raise ValueError(f"the shape {lengths} is no array's")
    if math.prod(lengths) * itemsize != held:
        raise ValueError(f"the shape {lengths} takes {math.prod(lengths) * itemsize} bytes, there are {held}")
    return lengths


def brief(value: object) -> str:
    """A text of the file for a message, short and printable; of anything else only the type, as it may nest deeply."""
    if isinstance(value, str):
        return f"'{value[:100].encode('unicode_escape').decode()}'"
    return f"a {type(value).__name__}"
