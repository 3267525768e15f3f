"""What fetches found out: a record beside each dataset, and the hashes of those that have no published one.

The record says in which state a verified fetch left the data; `pins.json` outlives the data, so that a dataset that is
fetched again must be the one that it was.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iq_offline import paths
from iq_offline.data.catalogue import CatalogueEntry
from iq_offline.data.files import data_files, whole_file
from iq_offline.data.identity import state_of
from iq_offline.data.strict_json import read_json
from iq_offline.errors import ConfigError


@dataclass(frozen=True)
class Fetched:
    """What one fetch found out. `files`: a folder's, by their names below it."""

    sha256: str
    source: str
    revision: str | None = None
    files: dict[str, str] = field(default_factory=dict)


class _Pin(BaseModel):
    """What an entry of `pins.json` must hold; more is allowed."""

    model_config = ConfigDict(strict=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    source: str = ""
    revision: str | None = None


def record(entry: CatalogueEntry, fetched: Fetched) -> None:
    """Keep it beside the data, which lie under their final name: from now on they count as verified."""
    content = {
        "sha256": fetched.sha256,
        "bytes": sum(file.stat().st_size for file in data_files(entry.stored_path)),
        "state": state_of(entry.stored_path),
        "source": fetched.source,
        "revision": fetched.revision,
        "pinned": entry.sha256 is None,
        "files": fetched.files,
        "fetched": _now(),
    }
    with whole_file(entry.record_path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def pin_of(entry: CatalogueEntry) -> dict[str, Any]:
    """What the dataset is held to where no hash is published; empty before its first fetch. Raises ConfigError."""
    return {} if entry.sha256 else _pins().get(entry.id, {})


def pin(entry: CatalogueEntry, fetched: Fetched, size: int, tell: Callable[[str], None]) -> None:
    """Hold a dataset without a published hash to this one, and tell of it if it is new."""
    if entry.sha256:
        return
    with FileLock(_path().with_suffix(".lock")):
        pins = _pins()
        if pins.get(entry.id, {}).get("sha256") == fetched.sha256:
            return
        pins[entry.id] = {
            "sha256": fetched.sha256,
            "bytes": size,
            "revision": fetched.revision,
            "source": fetched.source,
            "pinned": _now(),
        }
        with whole_file(_path()) as temporary:
            temporary.write_text(json.dumps(pins, indent=1, sort_keys=True))
    at = f" at revision {fetched.revision}" if fetched.revision else ""
    tell(f"no hash is published for {entry.id}: pinned to SHA-256 {fetched.sha256}{at}")


def _pins() -> dict[str, dict[str, Any]]:
    try:
        content = read_json(_path())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{_path()} is not a JSON table of pins: {error}", "mend it, or remove it to pin anew"
        ) from None
    for name, value in content.items():
        try:
            _Pin.model_validate(value)
        except ValidationError:
            raise ConfigError(f"{_path()}: {name!r} is no pin", "mend it, or remove it to pin anew") from None
    return content


def _path() -> Path:
    return paths.home() / "pins.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
