"""convert: any readable dataset to another layout, read back and compared, with its provenance beside it."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import iq_offline
from iq_offline.data.catalogue import Located
from iq_offline.data.declared import is_inside, misfit
from iq_offline.data.download import fetch
from iq_offline.data.episodes import ContentDigest, Episode, EpisodeSource, segment_of
from iq_offline.data.files import check_folder, data_path, whole_file, whole_folder
from iq_offline.data.formats.step_keys import Ends
from iq_offline.data.frames import Frames, framed
from iq_offline.data.identity import sha256_of
from iq_offline.data.observations import from_leaves, leaves, map_leaves
from iq_offline.data.reading import WRITABLE, Format, module_of, parse_format, read_episodes
from iq_offline.data.spaces import ActionSpace
from iq_offline.data.summary import summarise
from iq_offline.data.table import TransitionTable, open_table
from iq_offline.errors import ConfigError, DatasetError, DatasetUnreadable, InvalidEpisode, did_you_mean

MINARI_NAME = re.compile(r"[A-Za-z0-9][\w.-]*-v\d+")
SUFFIXES = {Format.D4RL: (".hdf5", ".h5"), Format.D3RLPY: (".h5",), Format.NPZ: (".npz",)}
WITH_INFOS = {Format.MINARI, Format.D4RL}
"""Layouts that have a place for infos."""
LISTED_FAULTS = 100


class Floats(StrEnum):
    """What to do with real numbers: keep their type, or narrow (widen) all of them."""

    KEEP = "keep"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


@dataclass(frozen=True)
class ConvertRequest:
    """What the command line asks of a conversion."""

    output_format: str = Format.MINARI
    input_format: str = "auto"
    ends: str = Ends.AUTO
    floats: str = Floats.KEEP
    keep_going: bool = False
    infos: bool = True
    frames: Frames | None = None


@dataclass(frozen=True)
class Relabelling:
    """Rewards to write in place of the recorded ones: those of each episode in order, (T,); and whence they are."""

    rewards: Sequence[NDArray[np.float64]]
    record: dict[str, Any]


def convert_dataset(
    source: str,
    destination: Path,
    request: ConvertRequest,
    advance: Callable[[int], None] = lambda _: None,
    relabelling: Relabelling | None = None,
) -> dict[str, Any]:
    """Write `source` as `destination`; returns the provenance that is written with it.

    What was written is read back and compared before it gets its name. A destination that holds the same conversion
    of the same data already is left as it is. `advance` is told the number of steps read so far.

    Raises ConfigError for a destination that holds something else or does not fit the format, and every error of
    reading. InvalidEpisode, unless `keep_going`: then such episodes are left out, counted and listed.
    """
    chosen = _writable(request.output_format)
    check_destination(destination, chosen)
    ends = _choice(Ends, request.ends, "--ends")
    _choice(Floats, request.floats, "--dtype")
    origin = read_episodes(fetch(source), request.input_format, ends)
    if request.frames:
        origin = framed(origin, request.frames)
    if origin.info.stack > 1 and chosen is not Format.MINARI:
        raise ConfigError(f"{chosen} has no place for how many frames an observation has", "write --format minari")
    made_from = _made_from(origin, request, relabelling)
    if destination.exists():
        record = _made_before(destination, chosen, made_from)
        _show_to_minari(destination, chosen)
        return record
    counted = _CountedEpisodes(origin, request, chosen, advance, relabelling)
    return _written(origin, counted, destination, chosen, made_from)


def write_episodes(source: EpisodeSource, destination: Path, chosen: Format, record: dict[str, Any]) -> dict[str, Any]:
    """Write episodes that lie in no dataset yet as one; `record`: where they come from, the first of its provenance."""
    counted = _CountedEpisodes(source, ConvertRequest(output_format=chosen), chosen, lambda _: None, None)
    return _written(source, counted, destination, chosen, record)


def _written(
    origin: EpisodeSource, counted: "_CountedEpisodes", destination: Path, chosen: Format, record: dict[str, Any]
) -> dict[str, Any]:
    """Written, read back and compared, with its provenance beside it, which is returned."""
    with whole_folder(destination) if chosen is Format.MINARI else whole_file(destination) as temporary:
        _write(EpisodeSource(origin.info, counted), temporary, destination, chosen)
        table = _read_back(Located(name=destination.stem, path=temporary), destination, chosen, counted)
        written = summarise(table)
        record |= counted.record()
        record["notes"] = [*origin.info.notes, *counted.notes(), *_lost_actions(origin, table, chosen)]
        record["written"] = {key: value for key, value in written.items() if key not in {"dataset", "path"}}
        _write_record(temporary, destination, chosen, record)
    _show_to_minari(destination, chosen)
    return record


def _lost_actions(origin: EpisodeSource, table: TransitionTable, chosen: Format) -> tuple[str, ...]:
    """A sentence about a declared action space that the written layout has no place for, if it reads as another."""
    declared, read_back = origin.info.action_space, table.action_space
    if chosen is Format.MINARI or declared is None or _bounds(declared) == _bounds(read_back):
        return ()
    return (f"{chosen} has no place for the declared action space {declared}: it reads back as {read_back}",)


def _bounds(space: ActionSpace) -> dict[str, Any]:
    return {key: value for key, value in space.to_json().items() if key != "source"}


def _show_to_minari(destination: Path, chosen: Format) -> None:
    """Give the namespaces of a dataset in Minari's store the marks by which Minari's tools find it."""
    if chosen is Format.MINARI:
        module_of(chosen).mark_namespaces(destination)


class _CountedEpisodes:
    """Passes episodes on as they are asked for, and keeps count and a hash of what went by."""

    def __init__(
        self,
        source: EpisodeSource,
        request: ConvertRequest,
        chosen: Format,
        advance: Callable[[int], None],
        relabelling: Relabelling | None,
    ) -> None:
        self._source, self._request, self._advance, self._relabelling = source, request, advance, relabelling
        self.infos = request.infos and chosen in WITH_INFOS
        self.digest = ContentDigest(infos=self.infos)
        self.counts = {"episodes": 0, "steps": 0, "unflagged_tail": 0, "discontinuity": 0, "unknown_successor": 0}
        self.faults: list[str] = []
        self.infos_left_out: set[str] = set()
        self._declared = {
            "observations": source.info.observation_space,
            "actions": source.info.declared_actions,
        }
        self._outside = dict.fromkeys(self._declared, 0)

    def __iter__(self) -> Iterator[Episode]:
        refused = self._refused if self._request.keep_going else None
        for read in self._source.checked(refused, infos=self._request.infos):
            episode = self._as_asked(self._relabelled(read))
            found = (1, len(episode), episode.unflagged, episode.discontinuous, not episode.successor_known)
            self.counts = {key: self.counts[key] + more for key, more in zip(self.counts, found, strict=True)}
            self._compare_with_declared(episode)
            self.digest.add(segment_of(episode))
            self._advance(self.counts["steps"])
            yield episode

    def _compare_with_declared(self, episode: Episode) -> None:
        """Hold the first and the last step against the declared spaces. Raises InvalidEpisode for another structure."""
        arrays = {"observations": leaves(episode.observations), "actions": {"": episode.actions}}
        for what, space in self._declared.items():
            for step in (0, -1) if space else ():
                values = map_leaves(lambda array: array[step], arrays[what])  # noqa: B023
                fault = misfit(space or {}, values)
                if fault is not None:
                    raise InvalidEpisode(
                        f"{episode.source}: of episode {episode.index}, {what} {fault}",
                        "mend the space in the dataset's metadata, or the data",
                    )
                self._outside[what] += not is_inside(space or {}, values)

    def notes(self) -> tuple[str, ...]:
        """What a comparison of each episode's first and last step with the declared spaces found."""
        return tuple(
            f"{count} of the first and last {what} of the episodes lie outside the declared space; kept as they are"
            for what, count in self._outside.items()
            if count
        )

    def record(self) -> dict[str, Any]:
        """What the provenance says of the reading."""
        return {
            "read": self.counts,
            "left_out": {
                "episodes": len(self.faults),
                "faults": self.faults[:LISTED_FAULTS],
                "infos": sorted(self.infos_left_out),
            },
        }

    def _as_asked(self, episode: Episode) -> Episode:
        if not self.infos and episode.infos:
            self.infos_left_out |= set(episode.infos)
            episode = replace(episode, infos={})
        return episode if self._request.floats == Floats.KEEP else _cast(episode, np.dtype(self._request.floats))

    def _relabelled(self, episode: Episode) -> Episode:
        if self._relabelling is None:
            return episode
        rewards = self._relabelling.rewards[self.counts["episodes"]]
        assert len(rewards) == len(episode), "the rewards of another episode"
        kind = episode.rewards.dtype if episode.rewards.dtype.kind == "f" else np.dtype(np.float32)
        return replace(episode, rewards=rewards.astype(kind))

    def _refused(self, fault: InvalidEpisode) -> None:
        self.faults.append(fault.problem)


def _cast(episode: Episode, dtype: np.dtype[Any]) -> Episode:
    def narrow(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with np.errstate(over="ignore"):  # a number too large for the type is refused as not finite
            return array.astype(dtype) if array.dtype.kind == "f" else array

    return replace(
        episode,
        observations=from_leaves(map_leaves(narrow, leaves(episode.observations))),
        actions=narrow(episode.actions),
        rewards=narrow(episode.rewards),
    )


def _write(source: EpisodeSource, temporary: Path, destination: Path, chosen: Format) -> None:
    module = module_of(chosen)
    if chosen is Format.MINARI:
        module.write_into(source, temporary, module.dataset_id(destination))
    else:
        module.write(source, temporary)


def _read_back(located: Located, destination: Path, chosen: Format, counted: _CountedEpisodes) -> TransitionTable:
    """The table of what was written, which must read to the bit as what the writer was given."""
    digest = ContentDigest(infos=counted.infos)
    try:
        table = open_table(located, chosen, digest)
    except DatasetError as error:  # told of the name that it would have had
        raise type(error)(error.problem.replace(str(located.path), str(destination)), error.remedy) from None
    if digest.steps == 0:  # the table of the same bytes was there already
        for segment in read_episodes(located, chosen).segments(infos=True):
            digest.add(segment)
    if digest.value() != counted.digest.value():
        raise DatasetUnreadable(
            f"{destination}: what was written as {chosen} does not read back as it was",
            "report this with the dataset's name; another --format may hold it",
        )
    return table


def _write_record(temporary: Path, destination: Path, chosen: Format, record: dict[str, Any]) -> None:
    """The provenance lies inside a folder; beside a file, where it is before the file has its name."""
    text = json.dumps(record, indent=1)
    if chosen is Format.MINARI:
        (temporary / "provenance.json").write_text(text)
        return
    with whole_file(record_path(destination, chosen)) as beside:
        beside.write_text(text)


def record_path(destination: Path, chosen: Format) -> Path:
    return destination / "provenance.json" if chosen is Format.MINARI else destination.with_suffix(".provenance.json")


def _made_from(origin: EpisodeSource, request: ConvertRequest, relabelling: Relabelling | None) -> dict[str, Any]:
    info = origin.info
    return ({} if relabelling is None else {"relabelled": relabelling.record}) | {
        "source": {"name": info.name, "format": info.format, "sha256": info.sha256},
        "converter": f"iq-offline {iq_offline.__version__}",
        "request": _asked(request),
    }


def _asked(request: ConvertRequest) -> dict[str, Any]:
    asked = asdict(replace(request, frames=None))
    del asked["frames"]
    return asked | ({"frames": request.frames.record()} if request.frames else {})


def _made_before(destination: Path, chosen: Format, made_from: dict[str, Any]) -> dict[str, Any]:
    """The record of a destination that holds this very conversion, unchanged. Raises ConfigError for any other."""
    try:
        record: dict[str, Any] = json.loads(record_path(destination, chosen).read_text())
        if made_from.items() <= record.items() and record["written"]["sha256"] == sha256_of(data_path(destination)):
            return record
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ConfigError(
        f"{destination} exists, and is not this conversion of these data", "name a new path, or remove it first"
    )


def _writable(text: str) -> Format:
    chosen = parse_format(text)
    if chosen not in WRITABLE:
        raise ConfigError(f"the format {chosen} is read only", f"write one of: {', '.join(WRITABLE)}")
    return chosen


def check_destination(destination: Path, chosen: Format) -> None:
    """Raises ConfigError for a path that does not fit the format, or that nothing can be made at."""
    _check_name(destination, chosen)
    check_folder(destination.parent)


def _check_name(destination: Path, chosen: Format) -> None:
    if chosen is Format.MINARI:
        if not MINARI_NAME.fullmatch(destination.name):
            raise ConfigError(
                f"{destination.name} is not a name that Minari's tools accept",
                f"end it with a version, as in {destination.name or 'name'}-v0",
            )
    elif destination.suffix not in SUFFIXES[chosen]:
        wanted = SUFFIXES[chosen][0]
        raise ConfigError(f"{destination} is no name for {chosen}", f"end it with {wanted}: {destination.name}{wanted}")


def _choice(kind: type[StrEnum], text: str, option: str) -> Any:
    if text not in list(kind):
        raise ConfigError(f"{option} {text} is unknown", did_you_mean(text, kind))
    return kind(text)
