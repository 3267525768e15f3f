"""convert: any readable dataset to an interchange layout, with its provenance and a validation summary."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import iq_offline
from iq_offline.data.catalogue import Located
from iq_offline.data.download import fetch
from iq_offline.data.episodes import DatasetInfo, Episode, EpisodeSource
from iq_offline.data.files import whole_file
from iq_offline.data.reading import Format, parse_format, read_episodes
from iq_offline.data.summary import summarise
from iq_offline.data.table import open_table
from iq_offline.errors import ConfigError

MINARI_NAME = re.compile(r"[A-Za-z0-9][\w.-]*-v\d+")


def convert_dataset(source: str, destination: Path, output_format: str, input_format: str = "auto") -> dict[str, Any]:
    """Write `source` as `destination` in a format; returns the provenance that is written beside it.

    Raises ConfigError for a destination that exists or does not fit the format, and every error of reading.
    """
    chosen = parse_format(output_format)
    _check_destination(destination, chosen)
    origin = read_episodes(fetch(source), input_format)
    counted = _Counted(origin)
    if chosen is Format.MINARI:
        from iq_offline.data.formats import minari

        minari.write(EpisodeSource(origin.info, counted), destination)
    else:
        from iq_offline.data.formats import d4rl

        d4rl.write(EpisodeSource(origin.info, counted), destination)
    written = open_table(Located(name=destination.stem, path=destination.resolve()))
    record = _provenance(origin.info, counted, summarise(written))
    _write_record(destination, chosen, record)
    return record


class _Counted:
    """Passes episodes on, and counts what was repaired on the way."""

    def __init__(self, source: EpisodeSource) -> None:
        self._source = source
        self.counts = {"episodes": 0, "steps": 0, "unflagged_tail": 0, "discontinuity": 0, "unknown_successor": 0}

    def __iter__(self) -> Iterator[Episode]:
        for episode in self._source:
            self.counts["episodes"] += 1
            self.counts["steps"] += len(episode)
            self.counts["unflagged_tail"] += episode.unflagged
            self.counts["discontinuity"] += episode.discontinuous
            self.counts["unknown_successor"] += not episode.successor_known
            yield episode


def _check_destination(destination: Path, chosen: Format) -> None:
    if destination.exists():
        raise ConfigError(f"{destination} exists", "name a new path, or remove it first")
    if chosen is Format.MINARI and not MINARI_NAME.fullmatch(destination.name):
        raise ConfigError(
            f"{destination.name} is not a name that Minari's tools accept",
            f"end it with a version, as in {destination.name or 'name'}-v0",
        )
    if chosen is Format.D4RL and destination.suffix not in {".hdf5", ".h5"}:
        raise ConfigError(f"{destination} is not an HDF5 name", f"end it with .hdf5, as in {destination.name}.hdf5")


def _provenance(origin: DatasetInfo, counted: _Counted, validation: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": {"name": origin.name, "format": origin.format, "sha256": origin.sha256},
        "converter": f"iq-offline {iq_offline.__version__}",
        "read": counted.counts,
        "written": {key: value for key, value in validation.items() if key not in {"dataset", "path"}},
    }


def _write_record(destination: Path, chosen: Format, record: dict[str, Any]) -> None:
    inside = chosen is Format.MINARI
    path = destination / "provenance.json" if inside else destination.with_suffix(".provenance.json")
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1))
