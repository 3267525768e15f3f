"""Mutations of bytes and of documents: pure functions of the content and a seeded random generator."""

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

BytesMutation = Callable[[bytes, Random], bytes]
BLOCK = 64
DEEP = 5_000
"""Levels of nesting, more than Python's recursion limit."""
DIGITS = 5_000
"""Digits of a number, more than Python turns into an integer."""


def _span(data: bytes, random: Random) -> tuple[int, int]:
    first = random.randrange(len(data) + 1)
    return first, min(len(data), first + random.randint(1, BLOCK))


def flip_bit(data: bytes, random: Random) -> bytes:
    """One bit is inverted."""
    if not data:
        return b"\x01"
    place = random.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


def flip_bits(data: bytes, random: Random) -> bytes:
    """Twenty bits are inverted."""
    for _ in range(20):
        data = flip_bit(data, random)
    return data


def truncate(data: bytes, random: Random) -> bytes:
    """The end is missing."""
    return data[: random.randrange(len(data) or 1)]


def zero_block(data: bytes, random: Random) -> bytes:
    """A block is zeros."""
    first, last = _span(data, random)
    return data[:first] + bytes(last - first) + data[last:]


def duplicate_block(data: bytes, random: Random) -> bytes:
    """A block comes twice."""
    first, last = _span(data, random)
    return data[:last] + data[first:last] + data[last:]


def remove_block(data: bytes, random: Random) -> bytes:
    """A block is missing."""
    first, last = _span(data, random)
    return data[:first] + data[last:]


def insert_block(data: bytes, random: Random) -> bytes:
    """Random bytes are inserted."""
    place = random.randrange(len(data) + 1)
    return data[:place] + random.randbytes(random.randint(1, BLOCK)) + data[place:]


def swap_blocks(data: bytes, random: Random) -> bytes:
    """Two halves of a span change places."""
    first, last = _span(data, random)
    middle = (first + last) // 2
    return data[:first] + data[middle:last] + data[first:middle] + data[last:]


def append_bytes(data: bytes, random: Random) -> bytes:
    """Bytes follow the end."""
    return data + random.randbytes(random.randint(1, BLOCK))


def empty(_: bytes, __: Random) -> bytes:
    """Nothing is left."""
    return b""


BYTES: tuple[BytesMutation, ...] = (
    *(flip_bit, flip_bits, truncate, zero_block, duplicate_block, remove_block),
    *(insert_block, swap_blocks, append_bytes, empty),
)

VALUES: tuple[str, ...] = (
    *("null", "true", "-1", "0", "1.5", "1e400", "-1e308", "NaN", "Infinity", "-Infinity", "9" * 30, "9" * DIGITS),
    *('""', '"x"', '"\\u0000\\u001b[2J"', '"\\ud800"', '"../../x"', f'"{"n" * 300}"', "[]", "{}", "[[]]", '{"a": 1}'),
    *("[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP),
)
"""Values of JSON and of its common extensions, each wrong in most places."""
MARK = "a value to be replaced"


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    return [place for key in keys for place in ((content, key), *_places(content[key]))]


def _document(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def drop_key(data: bytes, random: Random) -> bytes:
    """A key, or an item, of a JSON document is missing."""
    content = _document(data)
    if not (places := _places(content)):
        return empty(data, random)
    container, key = random.choice(places)
    del container[key]
    return json.dumps(content).encode()


def replace_value(data: bytes, random: Random) -> bytes:
    """A value of a JSON document has another type or size; the whole document, now and then."""
    content, value = _document(data), random.choice(VALUES)
    places = _places(content)
    if not places or random.random() < 0.1:
        return value.encode()
    container, key = random.choice(places)
    container[key] = MARK
    return json.dumps(content).replace(f'"{MARK}"', value, 1).encode()


def duplicate_key(data: bytes, random: Random) -> bytes:
    """A key of a JSON document comes twice, with two values."""
    keys = re.findall(rb'"[^"\n]+"\s*:', data)
    if not keys:
        return data + data
    key = random.choice(keys)
    return data.replace(key, key + b" null, " + key, 1)


def rename_key(data: bytes, random: Random) -> bytes:
    """A key of a JSON document has another name."""
    keys = re.findall(rb'"[^"\n]+"\s*:', data)
    if not keys:
        return b"x" + data
    key = random.choice(keys)
    return data.replace(key, b'"unknown":', 1)


def bad_encoding(data: bytes, random: Random) -> bytes:
    """Bytes that are not UTF-8, or a byte order mark, or UTF-16."""
    place = random.randrange(len(data) + 1)
    return random.choice(
        (
            data[:place] + b"\xff\xfe\x80" + data[place:],
            b"\xef\xbb\xbf" + data,
            data.decode("utf-8", "replace").encode("utf-16"),
        )
    )


def control_characters(data: bytes, random: Random) -> bytes:
    """Zeros and terminal escapes in the text."""
    place = random.randrange(len(data) + 1)
    return data[:place] + random.choice((b"\x00", b"\x1b[31m", b"\r", b"\x7f")) + data[place:]


TEXT: tuple[BytesMutation, ...] = (bad_encoding, control_characters, flip_bit, truncate, remove_block, empty)
JSON: tuple[BytesMutation, ...] = (
    *(drop_key, replace_value, replace_value, replace_value, duplicate_key, rename_key),
    *TEXT,
)

LINE_VALUES: tuple[str, ...] = (
    *("-1", "0", "1.5", "1e400", "nan", "inf", "true", '""', '"x"', "[]", "{}", "[1, 'a']", "9" * 30, "9" * DIGITS),
    *('"\\u0000"', "2001-01-01", f'"{"n" * 300}"', "[" * DEEP + "]" * DEEP, "~", "0-999999999", "*a", "&a [*a]"),
    *("!!python/object/apply:os.system [true]", "{a: 1}", "'{'", '"{x}"'),
)
"""Values of TOML and YAML, each wrong in most places."""


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").splitlines()


def drop_line(data: bytes, random: Random) -> bytes:
    """A line is missing."""
    lines = _lines(data)
    del lines[random.randrange(len(lines))]
    return "\n".join(lines).encode()


def repeat_line(data: bytes, random: Random) -> bytes:
    """A line comes twice."""
    lines = _lines(data)
    place = random.randrange(len(lines))
    return "\n".join([*lines[: place + 1], *lines[place:]]).encode()


def replace_line_value(data: bytes, random: Random) -> bytes:
    """The value of a `key = value` or `key: value` line has another type or size."""
    lines = _lines(data)
    place = random.choice([number for number, line in enumerate(lines) if re.search(r"[=:]", line)] or [0])
    key, sign, _ = re.split(r"([=:])", lines[place] + ("" if re.search(r"[=:]", lines[place]) else "="), maxsplit=1)
    lines[place] = f"{key}{sign} {random.choice(LINE_VALUES)}"
    return "\n".join(lines).encode()


def rename_line_key(data: bytes, random: Random) -> bytes:
    """The key of a line has another name."""
    lines = _lines(data)
    place = random.randrange(len(lines))
    lines[place] = re.sub(r"[A-Za-z_]+", "unknown", lines[place], count=1)
    return "\n".join(lines).encode()


def indent_line(data: bytes, random: Random) -> bytes:
    """A line belongs to another level."""
    lines = _lines(data)
    place = random.randrange(len(lines))
    lines[place] = random.choice(("  ", "\t", "- ")) + lines[place]
    return "\n".join(lines).encode()


LINES: tuple[BytesMutation, ...] = (
    *(drop_line, repeat_line, replace_line_value, replace_line_value, replace_line_value, rename_line_key, indent_line),
    *TEXT,
)

HTTP: tuple[str, ...] = (
    *("length too large", "length too small", "no length", "negative length", "length of 5000 digits", "two lengths"),
    *("redirect loop", "redirect to a bad address", "redirect to a file", "redirect to nothing", "redirect port"),
    *("chunked garbage", "chunk too large", "chunk cut", "gzip garbage", "deflate garbage", "status 204", "status 206"),
    *("status 404", "status 500", "status 999", "status garbage", "no answer", "headers without end", "slow", "html"),
    *("bad range", "control characters in a header", "not UTF-8 header", "retry-after garbage", "empty", "flipped"),
)
"""What an HTTP answer may do wrong (see `answers.answer`)."""
