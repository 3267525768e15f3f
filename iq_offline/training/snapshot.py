"""Snapshots of a run that is under way: all that its next update depends on, in one checked file each.

A snapshot is written under a temporary name and renamed; its tensors' hash stands in its header; the last two are kept.
A damaged one is passed over for the one before it.
"""

import json
import operator
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from iq_offline.algorithms.learner import OwnLearner
from iq_offline.algorithms.noise import Drawn
from iq_offline.data.files import make_folder, whole_file
from iq_offline.errors import ConfigError
from iq_offline.training.run_folder import contiguous, part, tensors_sha256

KEPT = 2
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Snapshot:
    """A run after one of its logged updates.

    `phase`: what is being trained, the cloned prior or the method itself; `updates`: those made in it. `tensors`: the
    learner's, its noise generator's state, and the prior's once that is done. `rows`: metrics logged so far.
    `prior_compiled`: whether the prior's updates are; None without a prior, and in older snapshots.
    """

    phase: str
    updates: int
    counts: tuple[int, ...]
    tensors: dict[str, Tensor]
    rows: list[dict[str, float]]
    seconds: float
    prior_compiled: bool | None = None


def learner_tensors(learner: OwnLearner) -> dict[str, Tensor]:
    """What the learner's next update depends on."""
    pieces = [piece.detach() for changed in learner.changed for piece in changed.pieces()]
    found = {f"learner.{number:04d}": piece for number, piece in enumerate(pieces)}
    if isinstance(learner.noise, Drawn):
        found["noise.state"] = learner.noise.generator.get_state()
    return found


@torch.no_grad()
def restore(learner: OwnLearner, snapshot: Snapshot) -> None:
    """Put a fresh learner of the same configuration where the snapshot's was."""
    held = part(snapshot.tensors, "learner")
    pieces = [piece for changed in learner.changed for piece in changed.pieces()]
    for own, kept in zip(pieces, (held[name] for name in sorted(held)), strict=True):
        own.copy_(kept)
    for adam, count in zip(learner.adams, snapshot.counts, strict=True):
        adam.count = count
    if isinstance(learner.noise, Drawn):
        learner.noise.generator.set_state(snapshot.tensors["noise.state"])


@dataclass(frozen=True)
class SnapshotFolder:
    """Where the snapshots of the run that will be `out` lie: hidden, beside it."""

    path: Path
    means: Mapping[str, str] = field(default_factory=dict)
    """What bears on the bits beside settings and data: device, threads, and the like."""

    @classmethod
    def of(cls, out: Path, means: Mapping[str, str] | None = None) -> "SnapshotFolder":
        """The folder of that run's snapshots, whether it is there or not."""
        return cls(out.parent / f".{out.name}.resume", means or {})

    def files(self) -> list[Path]:
        """Snapshots, the oldest first."""
        return sorted(item for item in self.path.glob(f"*{SUFFIX}") if not item.name.startswith("."))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training the same run. Raises ConfigError where one does, as `make_folder` does."""
        from filelock import FileLock, Timeout

        make_folder(self.path)
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"another process is training into {self.path.name[1:].removesuffix('.resume')}",
                "wait for it, or name another folder with --out",
            ) from None
        try:
            yield
        finally:
            lock.release()
            if not self.files():
                shutil.rmtree(self.path, ignore_errors=True)

    def write(self, snapshot: Snapshot, config_hash: str, step: int) -> None:
        """Write it whole, then drop all but the last two."""
        tensors = contiguous(snapshot.tensors)
        header = {
            "config_hash": config_hash,
            "phase": snapshot.phase,
            "updates": str(snapshot.updates),
            "counts": json.dumps(snapshot.counts),
            "rows": json.dumps(snapshot.rows),
            "seconds": str(snapshot.seconds),
            "prior_compiled": json.dumps(snapshot.prior_compiled),
            "means": json.dumps(dict(self.means)),
            "sha256": tensors_sha256(tensors),
        }
        with whole_file(self.path / f"{step:012d}{SUFFIX}") as temporary:
            save_file(tensors, temporary, metadata=header)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        for old in self.files()[:-KEPT]:
            old.unlink()

    def latest(self, config_hash: str, warn: Callable[[str], None]) -> Snapshot | None:
        """The newest snapshot that is whole, or None.

        Raises ConfigError where it is of other settings or data, or was made by other means.
        """
        for file in reversed(self.files()):
            found = _read(file)
            if found is None:
                warn(f"{file.name} is damaged: going on from the snapshot before it")
                continue
            snapshot, of_hash, means = found
            if of_hash != config_hash:
                raise ConfigError(
                    f"the run that was cut off in {file.parent} had other settings or data",
                    "give the options that it was started with, another --out, or leave --resume out to start anew",
                )
            self._check_means(means)
            return snapshot
        return None

    def _check_means(self, recorded: Mapping[str, str]) -> None:
        for name, before in recorded.items():
            now = self.means.get(name, before)
            if now != before:
                raise ConfigError(
                    f"the run that was cut off in {self.path} was trained with {name} {before}, not with {name} {now}",
                    "give the same flags as before, or leave --resume out to start anew",
                )

    def remove(self) -> None:
        """Drop all snapshots."""
        for file in self.files():
            file.unlink()


def _read(file: Path) -> tuple[Snapshot, str, dict[str, str]] | None:
    """The snapshot, the hash of its settings and data, and by what means it was made; older ones do not tell these."""
    try:
        with safe_open(file, framework="pt") as opened:
            header: Mapping[str, Any] = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if tensors_sha256(tensors) != header["sha256"]:
            return None
        snapshot = Snapshot(
            phase=header["phase"],
            updates=int(header["updates"]),
            counts=tuple(map(operator.index, json.loads(header["counts"]))),
            tensors=tensors,
            rows=[dict(row) for row in json.loads(header["rows"])],
            seconds=float(header["seconds"]),
            prior_compiled=json.loads(header.get("prior_compiled", "null")),
        )
        means = dict(json.loads(header.get("means", "{}")).items())
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return snapshot, header["config_hash"], means
