"""The seam between stages and a tracking store, and the tracker that does nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class TrackedData:
    """A dataset that a run learns from."""

    name: str
    sha256: str
    role: str
    """expert or supplementary."""
    path: str | None = None


@dataclass(frozen=True)
class RunDescription:
    """What a store shows of one run of (method, dataset, seed)."""

    name: str
    group: str
    """The comparison that it belongs to: one parent run a group."""
    config_hash: str
    """Of its configuration and data: what a run is found again by, within its group."""
    params: Mapping[str, str]
    datasets: tuple[TrackedData, ...]
    tags: Mapping[str, str] = field(default_factory=dict)


class Tracker(Protocol):
    """Mirrors one training run while it goes on."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics at a step; written now and then, not at once."""

    def finish(self, folder: Path) -> None:
        """The run is whole in `folder`: write what is left, and its files."""

    def fail(self) -> None:
        """The run came to nothing."""


class NullTracker:
    """Tracks nothing."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def finish(self, folder: Path) -> None:
        """Nothing."""

    def fail(self) -> None:
        """Nothing."""
