"""The pictures of a report: which plots its runs allow, each with a file name, a title and a caption."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from iq_offline.report.groups import Group
from iq_offline.report.plots import MAX_PANELS, MAX_POINTS, curves_plot, episode_plot, returns_plot, reward_plot

RETURNS = (
    "A dot is a simulated episode, a diamond a seed's mean; the black mark is the interquartile mean of the seeds' "
    "means, its line the 95 % bootstrap interval over seeds."
)
CURVES = "One line a seed. Offline quantities only: none of them chose a checkpoint."
REWARD = (
    f"A dot is a recorded transition (at most {MAX_POINTS}, drawn at random). The recovered reward's scale and offset "
    "are its own: read the shape, not the values."
)
EPISODES = "A dot is a recorded episode: its true and its recovered reward, each summed over its steps."


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows."""

    file_name: str
    title: str
    caption: str
    png: bytes


def pictures(groups: Sequence[Group]) -> list[Picture]:
    """For each dataset, in order: returns, learning curves, recovered reward; those that have something to show."""
    found: list[Picture] = []
    for dataset, name in _file_names([group.dataset for group in groups]).items():
        found += _of_dataset(dataset, name, [group for group in groups if group.dataset == dataset])
    return found


def _of_dataset(dataset: str, name: str, groups: Sequence[Group]) -> list[Picture]:
    runs = [run for group in groups for run in group.runs]
    found = []
    if any(run.evaluation is not None for run in runs):
        found.append(Picture(f"{name}-returns.png", f"{dataset}: returns", RETURNS, returns_plot(groups)))
    if any((run.folder / "metrics.parquet").is_file() for run in runs):
        found.append(Picture(f"{name}-curves.png", f"{dataset}: learning curves", CURVES, curves_plot(groups)))
    recovered = [run for run in runs if (run.folder / "rewards.parquet").is_file()]
    if recovered:
        some = f" The first {MAX_PANELS} of {len(recovered)} runs." if len(recovered) > MAX_PANELS else ""
        title = f"{dataset}: recovered and true reward"
        found.append(Picture(f"{name}-reward.png", f"{title}, by transition", REWARD + some, reward_plot(recovered)))
        found.append(Picture(f"{name}-episodes.png", f"{title}, by episode", EPISODES + some, episode_plot(recovered)))
    return found


def _file_names(datasets: Sequence[str]) -> dict[str, str]:
    """A file name for each dataset; a number tells apart those that are equal once unfit characters are gone."""
    names: dict[str, str] = {}
    for dataset in dict.fromkeys(datasets):
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", dataset).strip("-.") or "dataset"
        name, number = plain, 1
        while name in names.values():
            number += 1
            name = f"{plain}-{number}"
        names[dataset] = name
    return names
