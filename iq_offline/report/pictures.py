"""The pictures of a report: which plots its runs allow, each with a file name, a title and a caption."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from iq_offline.report.comparison import on_scale, scale_of, variants
from iq_offline.report.comparison_plots import (
    aggregate_plot,
    axis_name,
    by_demonstrations,
    demonstrations_plot,
    profile_plot,
)
from iq_offline.report.groups import Group
from iq_offline.report.plots import MAX_PANELS, MAX_POINTS, curves_plot, episode_plot, returns_plot, reward_plot
from iq_offline.report.results import RunResult

MAX_ROWS = 24
"""Rows of one picture of returns; what does not fit follows in another."""
AGGREGATE = (
    "Left: the interquartile mean over all runs of all tasks. Right: the probability that a run's return beats that "
    "of a bc run on the same task, mean over tasks; 0.5 is no difference. Bars: 95 % bootstrap, runs drawn anew "
    "within each task."
)
PROFILE = (
    "How many runs exceed each value of {scale}: the higher the line, the better; where lines cross, neither is. Tasks "
    "weigh equally. Bands: pointwise 95 % bootstrap, runs drawn anew within tasks."
)

RETURNS = (
    "A dot is a simulated episode, a diamond a seed's mean; the black mark is the interquartile mean of the seeds' "
    "means, its line the 95 % bootstrap interval over seeds."
)
DEMONSTRATIONS = (
    "The interquartile mean of the seeds' mean returns, and its 95 % bootstrap interval over seeds. A line's runs "
    "differ in nothing but the number of demonstrations."
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
    """The methods over all tasks; then for each dataset, in order, returns, learning curves and recovered reward.

    Only those that have something to show.
    """
    found = _over_all_tasks(groups)
    for dataset, name in _file_names([group.dataset for group in groups]).items():
        found += _of_dataset(dataset, name, [group for group in groups if group.dataset == dataset])
    return found


def _over_all_tasks(groups: Sequence[Group]) -> list[Picture]:
    compared, scale = variants(groups), scale_of(groups)
    found = []
    if any(variant.returns for variant in compared):
        title = "All tasks: interquartile mean, and improvement on cloning"
        found.append(Picture("all-tasks-iqm.png", title, AGGREGATE, aggregate_plot(compared, scale)))
    if any(on_scale(variant, scale) for variant in compared):
        caption = PROFILE.format(scale=axis_name(scale))
        title = "All tasks: performance profiles"
        found.append(Picture("all-tasks-profiles.png", title, caption, profile_plot(compared, scale)))
    return found


def _of_dataset(dataset: str, name: str, groups: Sequence[Group]) -> list[Picture]:
    runs = [run for group in groups for run in group.runs]
    found = _returns(dataset, name, [group for group in groups if group.evaluations])
    if lines := by_demonstrations(groups):
        title = f"{dataset}: returns by the number of demonstrations"
        found.append(Picture(f"{name}-demonstrations.png", title, DEMONSTRATIONS, demonstrations_plot(lines)))
    if any(run.has("metrics.parquet") for run in runs):
        found.append(Picture(f"{name}-curves.png", f"{dataset}: learning curves", CURVES, curves_plot(groups)))
    recovered = _in_turn(groups)
    if recovered:
        some = f" {MAX_PANELS} of {len(recovered)} runs." if len(recovered) > MAX_PANELS else ""
        title = f"{dataset}: recovered and true reward"
        found.append(
            Picture(f"{name}-reward.png", f"{title}, by transition", REWARD + some, reward_plot(groups, recovered))
        )
        found.append(
            Picture(f"{name}-episodes.png", f"{title}, by episode", EPISODES + some, episode_plot(groups, recovered))
        )
    return found


def _returns(dataset: str, name: str, groups: Sequence[Group]) -> list[Picture]:
    parts = [groups[first : first + MAX_ROWS] for first in range(0, len(groups), MAX_ROWS)]
    found = []
    for number, part in enumerate(parts, start=1):
        suffix, told = ("", "") if len(parts) == 1 else (f"-{number}", f" ({number} of {len(parts)})")
        found.append(Picture(f"{name}-returns{suffix}.png", f"{dataset}: returns{told}", RETURNS, returns_plot(part)))
    return found


def _in_turn(groups: Sequence[Group]) -> list[RunResult]:
    """The runs with a recovered reward; where not all can be shown, each row's first seed, then each one's second."""
    own = [[run for run in group.runs if run.has("rewards.parquet")] for group in groups]
    if sum(map(len, own)) <= MAX_PANELS:
        return [run for runs in own for run in runs]
    return [runs[place] for place in range(max(map(len, own))) for runs in own if place < len(runs)]


def _file_names(datasets: Sequence[str]) -> dict[str, str]:
    """A file name for each dataset; a number tells apart those that are equal once unfit characters are gone."""
    names: dict[str, str] = {"": "all-tasks"}
    for dataset in dict.fromkeys(datasets):
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", dataset).strip("-.") or "dataset"
        name, number = plain, 1
        while name in names.values():
            number += 1
            name = f"{plain}-{number}"
        names[dataset] = name
    return {dataset: name for dataset, name in names.items() if dataset}
