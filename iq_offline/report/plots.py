"""The pictures of a report: over all tasks, then by dataset; the same bytes for the same runs."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from iq_offline.evaluation.statistics import Estimate, performance_profile
from iq_offline.report.comparison import PERCENT, MethodRow, method_rows
from iq_offline.report.figures import (
    COLOURS,
    GREY,
    LINES,
    colour_of,
    encoded_figure,
    episode_sums,
    legend_below,
    line_style,
    name_rows,
    row_inches,
    scatter_by_source,
    styled_figure,
)
from iq_offline.report.groups import Group
from iq_offline.report.loading import RunResult
from iq_offline.report.shortening import wrapped
from iq_offline.training.run_folder import METRICS, RETURNS, REWARDS

MAX_ROWS = 24
"""Rows of one picture of returns; what does not fit follows in another."""
MAX_PANELS = 12
MAX_POINTS = 4000
AGGREGATE_CAPTION = (
    "Left: the interquartile mean over all runs of all tasks. Right: the probability that a run's return beats that "
    "of a bc run on the same task, mean over tasks; 0.5 is no difference. Bars: 95 % bootstrap, runs drawn anew "
    "within each task."
)
PROFILE_CAPTION = (
    "How many runs exceed each value of {scale}: the higher the line, the better; where lines cross, neither is. Tasks "
    "weigh equally. Bands: pointwise 95 % bootstrap, runs drawn anew within tasks."
)
RETURNS_CAPTION = (
    "A dot is a simulated episode, a diamond a seed's mean; the black mark is the interquartile mean of the seeds' "
    "means, its line the 95 % bootstrap interval over seeds."
)
DEMONSTRATIONS_CAPTION = (
    "The interquartile mean of the seeds' mean returns, and its 95 % bootstrap interval over seeds. A line's runs "
    "differ in nothing but the number of demonstrations."
)
LEARNING_CURVES_CAPTION = "One line a seed. Offline quantities only: none of them chose a checkpoint."
TRANSITIONS_CAPTION = (
    f"A dot is a recorded transition (at most {MAX_POINTS}, drawn at random). The recovered reward's scale and offset "
    "are its own: read the shape, not the values."
)
EPISODES_CAPTION = "A dot is a recorded episode: its true and its recovered reward, each summed over its steps."

CURVES = {"loss": "loss", "expert_reward": "recovered reward of expert steps", "expert_advantage": "expert advantage"}
"""Metrics with a panel of their own, and what the panel is called."""
JITTER_SEED = 0
JITTER = 0.16
TITLE_CHARACTERS, TITLE_LINES = 40, 3
LABEL_CHARACTERS = 28
"""Of a line below one of two axes."""
THRESHOLDS = 101
MARGIN = 0.05

Draw = Callable[[Axes], None]


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
    found = _over_all_tasks(method_rows(groups))
    for dataset, name in _file_names([group.dataset for group in groups]).items():
        found += _of_dataset(dataset, name, [group for group in groups if group.dataset == dataset])
    return found


def _over_all_tasks(rows: Sequence[MethodRow]) -> list[Picture]:
    found = []
    if rows:
        title = "All tasks: interquartile mean, and improvement on cloning"
        found.append(Picture("all-tasks-iqm.png", title, AGGREGATE_CAPTION, aggregate_plot(rows)))
    on_scale = [row for row in rows if row.values]
    if on_scale:
        title, caption = "All tasks: performance profiles", PROFILE_CAPTION.format(scale=_axis_name(on_scale[0].scale))
        found.append(Picture("all-tasks-profiles.png", title, caption, profile_plot(on_scale)))
    return found


def _of_dataset(dataset: str, name: str, groups: Sequence[Group]) -> list[Picture]:
    found = returns_pictures(dataset, name, [group for group in groups if group.evaluations])
    if lines := by_demonstrations(groups):
        title = f"{dataset}: returns by the number of demonstrations"
        found.append(Picture(f"{name}-demonstrations.png", title, DEMONSTRATIONS_CAPTION, demonstrations_plot(lines)))
    if any(run.has(METRICS) for group in groups for run in group.runs):
        title = f"{dataset}: learning curves"
        found.append(Picture(f"{name}-curves.png", title, LEARNING_CURVES_CAPTION, curves_plot(groups)))
    if runs := runs_in_turn(groups):
        some = f" {MAX_PANELS} of {len(runs)} runs." if len(runs) > MAX_PANELS else ""
        for kind, level, caption, plot in (
            ("reward", "transition", TRANSITIONS_CAPTION, transition_plot),
            ("episodes", "episode", EPISODES_CAPTION, episode_plot),
        ):
            title = f"{dataset}: recovered and true reward, by {level}"
            found.append(Picture(f"{name}-{kind}.png", title, caption + some, plot(groups, runs)))
    return found


def returns_pictures(dataset: str, name: str, groups: Sequence[Group]) -> list[Picture]:
    """The returns of one dataset's evaluated groups, at most MAX_ROWS to a picture."""
    parts = [groups[first : first + MAX_ROWS] for first in range(0, len(groups), MAX_ROWS)]
    found = []
    for number, part in enumerate(parts, start=1):
        suffix, count = (f"-{number}", f" ({number} of {len(parts)})") if len(parts) > 1 else ("", "")
        file_name, title = f"{name}-returns{suffix}.png", f"{dataset}: returns{count}"
        found.append(Picture(file_name, title, RETURNS_CAPTION, returns_plot(part)))
    return found


def runs_in_turn(groups: Sequence[Group]) -> list[RunResult]:
    """The runs with a recovered reward; where not all can be shown, each row's first seed, then each one's second."""
    own = [[run for run in group.runs if run.has(REWARDS)] for group in groups]
    if sum(map(len, own)) <= MAX_PANELS:
        return [run for runs in own for run in runs]
    return [runs[place] for place in range(max(map(len, own))) for runs in own if place < len(runs)]


def by_demonstrations(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """One dataset's evaluated groups that differ in nothing but their demonstrations, by name; those with several."""
    lines: dict[str, list[Group]] = {}
    for group in groups:
        if group.evaluations:
            lines.setdefault(replace(group, demos=None).label, []).append(group)
    return {name: line for name, line in lines.items() if len(line) > 1}


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


def aggregate_plot(rows: Sequence[MethodRow]) -> bytes:
    """Each variant's IQM over all tasks and its probability of improvement on cloning, with 95 % intervals."""
    names = [row.variant.name for row in rows]
    with encoded_figure(1.4 + row_inches(names, 0.34) * len(rows)) as (figure, png):
        left, right = figure.subplots(1, 2, sharey=True)
        for place, row in enumerate(rows):
            for axes, estimate in ((left, row.iqm), (right, row.improvement)):
                if estimate is not None:
                    _interval_bar(axes, estimate, place, color=colour_of(place), linewidth=7, alpha=0.45)
                    axes.plot(estimate.value, place, "|", color="black", markersize=13, markeredgewidth=2)
        name_rows(left, names)
        right.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
        right.set(xlim=(-0.03, 1.03))
        for axes, label in (
            (left, f"IQM, {_axis_name(rows[0].scale)}"),
            (right, "probability that a run beats one of bc"),
        ):
            axes.grid(visible=False, axis="y")
            axes.set_xlabel(textwrap.fill(label, LABEL_CHARACTERS), fontsize="small")
    return png.getvalue()


def profile_plot(rows: Sequence[MethodRow]) -> bytes:
    """Share of runs above each score, a line a variant, with the band of its pointwise 95 % intervals."""
    thresholds = _thresholds([value for row in rows for values in row.values for value in values])
    with encoded_figure(3.2) as (figure, png):
        axes = figure.subplots()
        for place, row in enumerate(rows):
            profile = performance_profile(row.values, thresholds)
            style = {**line_style(place), "drawstyle": "steps-post"}
            axes.plot(thresholds, profile.shares, linewidth=1.8, label=row.variant.name, **style)
            if profile.low is not None and profile.high is not None:
                band: dict[str, Any] = {"color": colour_of(place), "alpha": 0.13, "linewidth": 0, "step": "post"}
                axes.fill_between(thresholds, profile.low, profile.high, **band)
        axes.set(xlabel=_axis_name(rows[0].scale), ylabel="share of runs above it", ylim=(-0.02, 1.02))
        legend_below(figure, [axes])
    return png.getvalue()


def _thresholds(values: Sequence[float]) -> NDArray[np.floating[Any]]:
    """Evenly over all runs, and a little beyond; some width where all are equal."""
    low, high = min(values), max(values)
    margin = MARGIN * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, THRESHOLDS)


def _axis_name(scale: str) -> str:
    return "return in % of the dataset's mean" if scale == PERCENT else f"score ({scale})"


def _interval_bar(axes: Axes, estimate: Estimate, height: float, **style: Any) -> None:
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [height, height], **style)


def returns_plot(groups: Sequence[Group]) -> bytes:
    """Returns of one dataset's groups: every episode, each seed's mean, their IQM with its 95 % interval.

    Groups without an evaluation keep an empty line. The dashed line is the dataset's own mean return.
    """
    names = [group.label for group in groups]
    with encoded_figure(1.0 + row_inches(names, 0.75) * len(groups)) as (figure, png):
        axes = figure.subplots()
        for place, group in enumerate(groups):
            _draw_returns(axes, place, group)
        own = _dataset_return(groups)
        if own is not None:
            axes.axvline(own, color=GREY, linestyle="--", linewidth=1, label="mean of the dataset")
        name_rows(axes, names)
        axes.set(xlabel="return of an episode")
        legend_below(figure, [axes])
    return png.getvalue()


def returns_figure(groups: Sequence[Group]) -> Figure:
    """The returns of all groups as a figure, one panel per dataset."""
    datasets = list(dict.fromkeys(group.dataset for group in groups))
    panels = [[group for group in groups if group.dataset == dataset] for dataset in datasets]
    heights = [0.8 + row_inches([group.label for group in own], 0.75) * len(own) for own in panels]
    with styled_figure(sum(heights) + 0.2) as figure:
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
        for axes, dataset, own in zip(grid, datasets, panels, strict=True):
            for place, group in enumerate(own):
                _draw_returns(axes, place, group)
            mean = _dataset_return(own)
            if mean is not None:
                axes.axvline(mean, color=GREY, linestyle="--", linewidth=1, label="mean of the dataset")
            name_rows(axes, [group.label for group in own])
            axes.set_title(dataset, fontsize="small")
            axes.set(xlabel="return of an episode")
        legend_below(figure, list(grid))
    return figure


def _dataset_return(groups: Sequence[Group]) -> float | None:
    """The mean return of the data that one dataset's groups learnt from."""
    own: float | None = groups[0].runs[0].manifest["dataset"].get("return_mean")
    return own


def _draw_returns(axes: Axes, place: int, group: Group) -> None:
    colour = colour_of(place)
    random = np.random.default_rng(JITTER_SEED)
    for run in group.runs:
        returns = run.table(RETURNS)
        if returns is not None:
            heights = place + random.uniform(-JITTER, JITTER, len(returns))
            axes.scatter(returns["return"], heights, s=9, color=colour, alpha=0.4, linewidths=0, label="an episode")
    remark: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "color": GREY}
    iqm = group.iqm
    if iqm is None:
        axes.annotate("not evaluated", (0.5, place), ha="center", **remark)
        return
    above = [place + 0.28] * len(group.returns)
    axes.scatter(group.returns, above, s=34, marker="D", color=colour, edgecolors="white", label="a seed's mean")
    mark: dict[str, Any] = {"markersize": 13, "markeredgewidth": 2, "label": "IQM and 95 % interval over seeds"}
    axes.plot(iqm.value, place - 0.28, "|k", **mark)
    _interval_bar(axes, iqm, place - 0.28, color="black", linewidth=3.5, solid_capstyle="butt")
    if not all(run.in_own_environment for run in group.runs):
        axes.annotate(" another environment", (1, place), ha="right", **remark)


def demonstrations_plot(lines: Mapping[str, Sequence[Group]]) -> bytes:
    """The IQM of each line's returns against its number of demonstrations, with 95 % intervals over seeds."""
    numbers = sorted({group.demos for line in lines.values() for group in line}, key=lambda demos: demos or np.inf)
    with encoded_figure(3.2) as (figure, png):
        axes = figure.subplots()
        for place, (name, line) in enumerate(lines.items()):
            found = {numbers.index(group.demos): estimate for group in line if (estimate := group.iqm)}
            values, style = [estimate.value for estimate in found.values()], line_style(place)
            axes.plot(list(found), values, marker="o", markersize=4, label=name, **style)
            for x, estimate in found.items():
                if estimate.low is not None and estimate.high is not None:
                    axes.plot([x, x], [estimate.low, estimate.high], color=style["color"], linewidth=5, alpha=0.3)
        own = _dataset_return(next(iter(lines.values())))
        if own is not None:
            axes.axhline(own, color=GREY, linestyle="--", linewidth=1, label="mean of the dataset")
        axes.set_xticks(range(len(numbers)), ["all" if number is None else str(number) for number in numbers])
        axes.set(xlabel="demonstrations", ylabel="return of an episode")
        legend_below(figure, [axes])
    return png.getvalue()


def curves_plot(groups: Sequence[Group]) -> bytes:
    """Learning curves of one dataset's groups: a panel a method and metric, one line a seed, colours by group."""
    logged = [(group, metrics) for group in groups for run in group.runs if (metrics := run.table(METRICS)) is not None]
    styles = {group.label: line_style(place) for place, group in enumerate(groups)}
    panels: list[tuple[str, Draw]] = []
    for method in dict.fromkeys(group.method for group in groups):
        own = [(group.label, metrics) for group, metrics in logged if group.method == method]
        for metric, title in CURVES.items():
            lines = [(label, metrics.select("step", metric)) for label, metrics in own if metric in metrics]
            if lines:
                panels.append((f"{method}: {title}", _curves(lines, styles)))
    return _panels(panels, "update", "", height=2.2, legend=len(groups) <= len(COLOURS) * len(LINES))


def _curves(lines: Sequence[tuple[str, pl.DataFrame]], styles: Mapping[str, Mapping[str, Any]]) -> Draw:
    several = len({label for label, _ in lines}) > 1

    def draw(axes: Axes) -> None:
        for label, curve in lines:
            known = curve.drop_nulls()
            style = {**styles[label], "marker": "." if len(known) == 1 else None, "label": label if several else None}
            axes.plot(known["step"], known[known.columns[1]], alpha=0.75, linewidth=1, **style)

    return draw


def transition_plot(groups: Sequence[Group], runs: Sequence[RunResult]) -> bytes:
    """Recovered against true reward, a dot a recorded transition (at most 4000 a run), a panel a run of the groups."""
    panels = [(title, _scatter(sampled(rewards))) for title, rewards in _recoveries(groups, runs, "transition")]
    return _panels(panels, "true reward", "recovered reward")


def episode_plot(groups: Sequence[Group], runs: Sequence[RunResult]) -> bytes:
    """An episode's recovered against its true reward, each summed over its recorded steps, a panel a run."""
    panels = [(title, _scatter(episode_sums(rewards))) for title, rewards in _recoveries(groups, runs, "episode")]
    return _panels(panels, "true, summed", "recovered, summed")


def _recoveries(groups: Sequence[Group], runs: Sequence[RunResult], level: str) -> list[tuple[str, pl.DataFrame]]:
    """For each run its rewards, under its row, its seed, and its correlation where that is defined."""
    names = {run.folder: group.label for group in groups for run in group.runs}
    pearsons = [(run.reward or {}).get(level, {}).get("pearson") for run in runs]
    titles = [
        f"{names[run.folder]}, seed {run.seed}" + ("" if pearson is None else f": r = {pearson:.2f}")
        for run, pearson in zip(runs, pearsons, strict=True)
    ]
    tables = [rewards for run in runs if (rewards := run.table(REWARDS)) is not None]
    return list(zip(wrapped(titles, TITLE_CHARACTERS, TITLE_LINES), tables, strict=True))


def sampled(transitions: pl.DataFrame) -> pl.DataFrame:
    """At most MAX_POINTS of the rows, in their order."""
    if len(transitions) <= MAX_POINTS:
        return transitions
    rows = np.random.default_rng(JITTER_SEED).choice(len(transitions), MAX_POINTS, replace=False)
    return transitions[np.sort(rows)]


def _scatter(points: pl.DataFrame) -> Draw:
    def draw(axes: Axes) -> None:
        size, alpha = (6, 0.35) if len(points) > 400 else (18, 0.7)
        scatter_by_source(axes, points, sorted(points["source"].unique()), s=size, alpha=alpha)
        for handle in axes.legend(fontsize="x-small", markerscale=1.5).legend_handles:
            if handle is not None:
                handle.set_alpha(1)

    return draw


def _panels(panels: Sequence[tuple[str, Draw]], x: str, y: str, height: float = 2.7, legend: bool = False) -> bytes:
    """The first MAX_PANELS panels, two in a row; says how many there are if that is not all. One `legend` of all."""
    shown = panels[:MAX_PANELS]
    columns = min(2, max(1, len(shown)))
    rows = -(-max(1, len(shown)) // columns)
    with encoded_figure(height * rows + 0.3) as (figure, png):
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        for axes, (title, draw) in zip(grid, shown, strict=False):
            draw(axes)
            axes.set_title(title, fontsize="small")
            axes.set(xlabel=x, ylabel=y)
        if len(panels) > len(shown):
            figure.suptitle(f"{len(shown)} of {len(panels)} panels shown", fontsize="small")
        if legend:
            legend_below(figure, list(grid[: len(shown)]))
    return png.getvalue()
