"""JSON and TOML read strictly: what the tool itself writes, and nothing that would be understood in two ways."""

import hashlib
import json
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGEST_BYTES = 256 << 20
SEAL = "content_sha256"
"""Key of a sealed object that holds the SHA-256 of all its other keys."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises ValueError for anything that is not UTF-8 and plain JSON: repeated keys, NaN and infinities, numbers of
    thousands of digits, thousands of levels.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refused, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises OSError, and ValueError as `parse_json` does and for any other value."""
    content = parse_json(read_bytes(path))
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__} where a JSON object is expected")
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises OSError, and ValueError where it is not UTF-8 or not TOML."""
    try:
        return tomllib.loads(read_bytes(path).decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises OSError, and ValueError for anything but a regular file of a plausible size."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("is not a regular file")
    if found.st_size > LARGEST_BYTES:
        raise ValueError(f"has {found.st_size:,} bytes, more than {LARGEST_BYTES:,}")
    return path.read_bytes()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The object with a hash of its content, so that a change to any key is found."""
    plain = {key: value for key, value in content.items() if key != SEAL}
    return plain | {SEAL: _digest(plain)}


def check_seal(content: Mapping[str, Any]) -> None:
    """Raises ValueError where the content is not the one that was sealed. An object without a seal passes."""
    if SEAL in content and sealed(content)[SEAL] != content[SEAL]:
        raise ValueError("does not match its own checksum: it was changed after it was written")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode()).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated[:100]!r} stands twice in one object")
    return content


def _refused(_: str) -> float:
    raise ValueError("holds a number that JSON does not have")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:20]} is out of range")
    return value
