"""The configurations of a report's rows side by side, the settings in which they differ first."""

from collections.abc import Sequence
from dataclasses import dataclass

from iq_offline.report.groups import Group, flat, setting

OWN = {"dataset", "method", "seed"}
"""Keys that a row's name, or the run's, already tells."""
ABSENT = "·"


@dataclass(frozen=True)
class SettingRow:
    """One setting: its value in each column, and whether columns that have it disagree."""

    name: str
    values: tuple[str, ...]
    differs: bool


@dataclass(frozen=True)
class Configurations:
    """The settings of one dataset's rows."""

    dataset: str
    labels: tuple[str, ...]
    rows: tuple[SettingRow, ...]

    @property
    def differing(self) -> int:
        """How many settings differ."""
        return sum(row.differs for row in self.rows)


def configurations(groups: Sequence[Group]) -> list[Configurations]:
    """One table a dataset. A setting that a method does not have is no difference."""
    datasets = dict.fromkeys(group.dataset for group in groups)
    return [_of_dataset(dataset, [group for group in groups if group.dataset == dataset]) for dataset in datasets]


def _of_dataset(dataset: str, groups: Sequence[Group]) -> Configurations:
    settings = [{key: setting(value) for key, value in flat(group.runs[0].config)} for group in groups]
    names = dict.fromkeys(key for own in settings for key in own if key not in OWN)
    rows = [_row(name, [own.get(name) for own in settings]) for name in names]
    ordered = sorted(rows, key=lambda row: (not row.differs, row.name))
    return Configurations(dataset, tuple(group.label for group in groups), tuple(ordered))


def _row(name: str, values: Sequence[str | None]) -> SettingRow:
    differs = len({value for value in values if value is not None}) > 1
    return SettingRow(name, tuple(ABSENT if value is None else value for value in values), differs)
