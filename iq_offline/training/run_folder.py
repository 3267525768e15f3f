"""The run folder: a finished run told by files alone, none of them a pickle."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from socket import gethostname
from typing import Any

import polars as pl
from pydantic import BaseModel
from torch import Tensor

from iq_offline.algorithms.networks import Policy
from iq_offline.config.train import TrainConfig
from iq_offline.data.files import is_leftover, whole_file
from iq_offline.data.strict_json import check_seal, first_line, read_bytes, read_json, read_toml, sealed
from iq_offline.errors import RunError
from iq_offline.training.run_schema import (
    FORMAT_VERSION,
    EvaluationRecord,
    Manifest,
    RewardModelRecord,
    RewardRecord,
    SplitRecord,
    TrackingRecord,
    fitted,
)
from iq_offline.training.tensor_files import AGAIN, load_policy, read_tensors, tensors_sha256

MANIFEST = "manifest.json"
POLICY = "policy.safetensors"
CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.toml"
SPLIT = "split.json"
METRICS = "metrics.parquet"
TIMING = "timing.parquet"
ACTIONS = "actions.parquet"
RETURNS = "returns.parquet"
EVALUATION = "evaluation.json"
REWARD = "reward.json"
REWARDS = "rewards.parquet"
REWARD_PLOT = "reward.png"
REWARD_MODEL = "reward_model.safetensors"
REWARD_MODEL_REPORT = "reward_model.json"
TRACKING = "tracking.json"
NUMBERS = {
    **{METRICS: ("step",), TIMING: ("step",), ACTIONS: ("row", "action_0")},
    **{RETURNS: ("return",), REWARDS: ("episode", "true", "recovered")},
}
"""The tables, and the columns of each in which every row has a finite number; metrics may be null where not logged."""
TEXTS = {REWARDS: ("source",)}
WRITTEN_BY = {
    **dict.fromkeys((POLICY, CHECKPOINT, CONFIG, SPLIT, METRICS, TIMING, ACTIONS), MANIFEST),
    RETURNS: EVALUATION,
    REWARDS: REWARD,
    REWARD_MODEL: REWARD_MODEL_REPORT,
}
"""The record that lists the hash of each other file: that of the stage which writes both."""
STAGE_RECORDS: dict[str, type[BaseModel]] = {
    EVALUATION: EvaluationRecord,
    REWARD: RewardRecord,
    REWARD_MODEL_REPORT: RewardModelRecord,
    TRACKING: TrackingRecord,
}
FILES = frozenset({MANIFEST, REWARD_PLOT, *WRITTEN_BY, *STAGE_RECORDS})
"""All that this tool writes into a run folder."""
COPIES = frozenset({"artifacts", "mlruns"})
"""Folders in which MLflow keeps copies of run folders' files."""
LIST_SUFFIX = ".txt"
"""Of a file that lists run folders."""
NAMED_RUNS = 3
"""Of a folder with several runs, so many are named in a message."""
FEWEST_FILES = 4
"""A folder with fewer of the eight files that training writes is no run, not even a damaged one."""
REMEDIES = {
    EVALUATION: "run `iq-offline eval` on it again",
    REWARD: "run `iq-offline reward` on it again",
    REWARD_MODEL_REPORT: "run `iq-offline distil` on it again",
    TRACKING: "remove that file, then run `iq-offline sync` on the run",
}


@dataclass(frozen=True)
class RunFolder:
    """A complete run on disk. Every file is checked when it is first read: schema, plausibility, hash."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Raises RunError where the folder is not a run, or its manifest is damaged."""
        try:
            there, folder = (path / MANIFEST).exists(), path.is_dir()
        except (OSError, ValueError) as error:
            raise RunError(f"{path} is no folder's name: {first_line(error)}", "name a run folder") from None
        if not there:
            if folder and holds_run_files(path):
                raise RunError(f"{path} has no {MANIFEST}: training did not end", AGAIN)
            what = "holds no run" if folder else "is a file" if path.exists() else "does not exist"
            raise RunError(f"{path} {what}", "name a folder that `iq-offline train` has written")
        run = cls(path)
        _ = run.manifest
        return run

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was trained, from what, with what."""
        return self._record(MANIFEST, Manifest)

    @cached_property
    def config(self) -> TrainConfig:
        """The run's configuration. Raises RunError where this version cannot read it."""
        self.check_file(CONFIG)
        try:
            config = TrainConfig.from_values(read_toml(self.path / CONFIG))
        except (OSError, ValueError) as error:
            packages, commit = self.manifest["packages"], self.manifest.get("git_commit")
            version = f"iq-offline {packages.get('iq-offline', '?')}, commit {commit or 'unknown'}"
            raise RunError(
                f"{self.path / CONFIG} does not fit this version: {first_line(error)}",
                f"use what trained it ({version}), or train the run again",
            ) from None
        for key in ("method", "seed", "demos", "subsample"):
            if getattr(config, key) != self.manifest[key]:
                raise self._damaged(CONFIG, f"{key} is {getattr(config, key)}, in {MANIFEST} {self.manifest[key]}")
        return config

    @cached_property
    def split(self) -> dict[str, Any]:
        """Which episodes it learned from."""
        self.check_file(SPLIT)
        split, dataset = self._record(SPLIT, SplitRecord), self.manifest["dataset"]
        for name, found, expected in (
            ("dataset_sha256", split["dataset_sha256"], dataset["sha256"]),
            ("transitions", split["transitions"], self.manifest["transitions"]),
            ("number of supplementary datasets", len(split["supplementary"]), len(self.config.supplementary)),
        ):
            if found != expected:
                raise self._damaged(SPLIT, f"{name} is {found}, not {expected}")
        named = [*split["expert_episodes"], *split["held_out_episodes"]]
        if max(named) >= dataset["episodes"]:
            raise self._damaged(SPLIT, f"episode {max(named)} of {dataset['episodes']}")
        if len(named) != (self.config.demos or dataset["episodes"]):
            raise self._damaged(SPLIT, f"{len(named)} episodes, not {self.config.demos or dataset['episodes']}")
        for other in split["supplementary"]:
            if any(episode >= other["episodes"] for episode in other.get("accepted_episodes", ())):
                raise self._damaged(SPLIT, f"an accepted episode that {other['dataset']} does not have")
        return split

    def policy(self) -> Policy:
        """The trained policy, on the CPU."""
        self.check_file(POLICY)
        policy = load_policy(self.path / POLICY)
        self._check_tensors(POLICY, policy.state_dict(), "policy_sha256")
        return policy

    def checkpoint(self) -> dict[str, Tensor]:
        """All learnt tensors by name, on the CPU."""
        self.check_file(CHECKPOINT)
        tensors = read_tensors(self.path / CHECKPOINT)
        self._check_tensors(CHECKPOINT, tensors, "checkpoint_sha256")
        return tensors

    def check_trained(self) -> None:
        """Raises RunError where a file that training has written is damaged."""
        _ = self.config, self.split, self.policy(), self.checkpoint(), self.table(METRICS), self.table(TIMING)

    def table(self, name: str) -> pl.DataFrame:
        """One of the tables in NUMBERS. Raises RunError where it is damaged or missing."""
        self.check_file(name)
        try:
            return _read_table(self.path / name)
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / name} cannot be read: {first_line(error)}", self._remedy(name)) from None

    def read_optional(self, name: str) -> dict[str, Any] | None:
        """A JSON file of a later stage, or None where that stage has not run."""
        return self._record(name, STAGE_RECORDS[name]) if os.path.lexists(self.path / name) else None

    def check_file(self, name: str) -> None:
        """Raises RunError where the file's bytes are not those that its record lists. Unlisted files pass."""
        if name in self._checked:
            return
        expected = self._listed(name)
        if expected is not None:
            try:
                found = hashlib.sha256(read_bytes(self.path / name)).hexdigest()
            except (OSError, ValueError) as error:
                raise self._damaged(name, first_line(error)) from None
            if found != expected:
                raise self._damaged(name, "its SHA-256 is not the recorded one, so it was changed after it was written")
        self._checked.add(name)

    @cached_property
    def _checked(self) -> set[str]:
        return set()

    def _listed(self, name: str) -> str | None:
        """The hash that the record of this file's stage lists for it."""
        stage = WRITTEN_BY.get(name)
        record = self.manifest if stage == MANIFEST else self.read_optional(stage) if stage else None
        listed: str | None = (record or {}).get("files", {}).get(name)
        return listed

    def _check_tensors(self, name: str, tensors: Mapping[str, Tensor], key: str) -> None:
        if f"{name}: tensors" in self._checked:
            return
        if tensors_sha256(tensors) != self.manifest[key]:
            raise self._damaged(name, f"its tensors do not match {key} of {MANIFEST}")
        unfit = [key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if unfit:
            raise self._damaged(name, f"{unfit[0]} holds values that are not finite numbers")
        self._checked.add(f"{name}: tensors")

    def _record(self, name: str, model: type[BaseModel]) -> dict[str, Any]:
        try:
            content = read_json(self.path / name)
            check_seal(content)
            if name == MANIFEST:
                _check_format(self.path, content)
            fitted(model, content)
        except (OSError, ValueError) as error:
            raise self._damaged(name, first_line(error)) from None
        return content

    def _damaged(self, name: str, problem: str) -> RunError:
        return RunError(f"{self.path / name} is damaged: {problem}", self._remedy(name))

    def _remedy(self, name: str) -> str:
        return REMEDIES.get(WRITTEN_BY.get(name, name), AGAIN)


def _check_format(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raises RunError for a run that another version wrote in another way. Version 0.1 wrote no number."""
    found = manifest.get("format_version", 1)
    if found != FORMAT_VERSION:
        raise RunError(
            f"{path} is a run of format {found}, and this version of iq-offline reads format {FORMAT_VERSION}",
            f"{AGAIN} with this version",
        )


def foreign_to_run(path: Path) -> list[str] | None:
    """What a folder holds beside the files of a run; None for a folder that is no run, not even a damaged one."""
    items = {item.name: item for item in path.iterdir()}
    trained = {MANIFEST, *(name for name, record in WRITTEN_BY.items() if record == MANIFEST)}
    if len(items.keys() & trained) < FEWEST_FILES:
        return None
    known = {
        name
        for name, item in items.items()
        if (name in FILES and (item.is_symlink() or not item.is_dir())) or is_leftover(name, gethostname())
    }
    return sorted(items.keys() - known)


def holds_run_files(path: Path) -> bool:
    """Whether a folder holds a file that training writes for a report to read, though not always all of them."""
    return any((path / name).is_file() for name in (MANIFEST, CONFIG, *NUMBERS))


def find_runs(paths: Sequence[Path]) -> list[RunFolder]:
    """The run folders named, or below the folders named at any depth, in a stable order.

    Raises RunError for a path that neither is nor holds a run.
    """
    return [RunFolder.open(path) for path in run_paths(paths)]


def find_run(path: Path) -> RunFolder:
    """The run in a folder that is one, or holds exactly one at any depth. Raises RunError for none and for several."""
    found = run_paths([path])
    if len(found) > 1:
        shown = ", ".join(map(str, found[:NAMED_RUNS])) + (", ..." if len(found) > NAMED_RUNS else "")
        raise RunError(f"{path} holds {len(found)} runs, and one is needed", f"name one of them: {shown}")
    return RunFolder.open(found[0])


def run_paths(paths: Sequence[Path]) -> list[Path]:
    """Where the run folders are that are named, or lie below the folders named at any depth, each once."""
    found: dict[Path, None] = {}
    for path in with_listed(paths):
        try:
            found |= dict.fromkeys(folder.resolve() for folder in folders_below(path, _holds_manifest) or [path])
        except (OSError, ValueError, RuntimeError) as error:
            raise RunError(f"{path} is no folder's name: {first_line(error)}", "name a run folder") from None
    return list(found)


def with_listed(paths: Sequence[Path]) -> list[Path]:
    """The paths, and in place of each text file (`.txt`) the paths that it lists, one a line, as if they were named."""
    found: list[Path] = []
    for path in paths:
        if path.suffix != LIST_SUFFIX or not path.is_file():
            found.append(path)
            continue
        try:
            listed = [Path(line.strip()) for line in path.read_text().splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise RunError(
                f"{path} cannot be read: {first_line(error)}", "list run folders in it, one a line"
            ) from None
        if not listed:
            raise RunError(f"{path} lists no run", "list run folders in it, one a line")
        found += listed
    return found


def folders_below(path: Path, is_wanted: Callable[[Path], bool]) -> list[Path]:
    """The folder itself if it is wanted, else those below it, in order of their paths.

    Nothing below a wanted folder is looked at, nor below links, hidden folders and MLflow's copies.
    """
    if is_wanted(path):
        return [path]
    found: list[Path] = []
    inside = sorted(path.iterdir()) if path.is_dir() else []
    for folder in (item for item in inside if item.is_dir() and item.name not in COPIES):
        if folder.is_symlink() or folder.name.startswith("."):
            found += [folder] if is_wanted(folder) else []
        else:
            found += folders_below(folder, is_wanted)
    return found


def _holds_manifest(folder: Path) -> bool:
    """Whether a folder is a run; a hidden one is what a process still writes."""
    return not folder.name.startswith(".") and (folder / MANIFEST).is_file()


def seal_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record: the content, the hashes of the files that it stands for, and a checksum of it all."""
    files = {
        name: hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
        for name, record in WRITTEN_BY.items()
        if record == path.name and (path.parent / name).is_file()
    }
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(sealed({**content, "files": files}), indent=1, allow_nan=False))


def _read_table(path: Path) -> pl.DataFrame:
    """A table. Raises OSError, and ValueError where it is damaged, lacks a column or has one of another type."""
    if not path.is_file():
        raise ValueError("is not a regular file")
    try:
        table = pl.read_parquet(path, glob=False)
        _check_columns(path.name, table)
    except pl.exceptions.PolarsError as error:
        raise ValueError(str(error)) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what Polars raises for some damaged files
            raise
        raise ValueError(str(error)) from None
    return table


def _check_columns(name: str, table: pl.DataFrame) -> None:
    texts = TEXTS.get(name, ())
    lacking = [column for column in (*texts, *NUMBERS[name]) if column not in table.columns]
    if lacking:
        raise ValueError(f"has no column {', '.join(lacking)}")
    for column, kind in table.schema.items():
        fits = kind == pl.String if column in texts else kind.is_numeric() or kind in (pl.Boolean, pl.Null)
        if not fits:
            raise ValueError(f"column {column} is of type {kind}")
    for column in NUMBERS[name]:
        if table[column].has_nulls() or not table[column].cast(pl.Float64).is_finite().all():
            raise ValueError(f"column {column} holds values that are not finite numbers")
