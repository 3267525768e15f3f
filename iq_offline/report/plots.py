"""The pictures of a report: over all tasks, then by dataset; the same bytes for the same runs."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from iq_offline.evaluation.scores import reference_of
from iq_offline.evaluation.statistics import Estimate, performance_profile
from iq_offline.report.comparison import PERCENT, MethodRow, method_rows
from iq_offline.report.figures import (
    GREY,
    MARKERS,
    PHONE_INCHES,
    SEED_LINES,
    WIDTH_INCHES,
    colour_of,
    encoded_figure,
    episode_sums,
    is_narrow,
    legend_below,
    line_style,
    mark_anchors,
    name_rows,
    row_inches,
    scatter_by_source,
    styled_figure,
)
from iq_offline.report.groups import Group, short_labels
from iq_offline.report.loading import RunResult
from iq_offline.report.recovered import BASELINES, LEVELS, RewardLevel, reward_levels
from iq_offline.report.shortening import wrapped
from iq_offline.training.run_folder import METRICS, RETURNS, REWARDS

MAX_ROWS = 24
"""Rows of one picture of returns or rewards; what does not fit follows in another."""
MAX_PANELS = 12
MAX_POINTS = 4000
FOLDED = ("-profiles", "-reward", "-episodes")
"""Ends of the names of pictures that the page folds."""
ANCHORS = {True: ("random", "expert"), False: ("return 0", "data's mean")}
"""What stands at 0 and 100 of a scale, by whether it is a score."""
AGGREGATE_CAPTION = (
    "Above or left: the interquartile mean over all runs of all tasks. Below or right: the probability that a run's "
    "return beats that of a bc run on the same task, mean over tasks; 0.5 is no difference. Bars: 95 % bootstrap, runs "
    "drawn anew within each task."
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
LEARNING_CURVES_CAPTION = "One line a seed.{some}{shaded} Offline quantities only: none of them chose a checkpoint."
SHADED = " Shaded: behavioural cloning, which comes before the method itself."
INTERACTION_CAPTION = (
    "Mean return of the deterministic policy in the evaluations that training was told to make, over the steps that it "
    "had taken in the environment. One line a seed. None of these chose a checkpoint: the last policy is the run's."
)
REWARDS_CAPTION = (
    "Correlation (Pearson's r) with the true reward, which training never reads: the recovered reward's, and its "
    f"baselines'. A mark is a seed. {BASELINES[0].upper()}{BASELINES[1:]} A recovered reward is worth something where "
    "it stands to the right of all of them."
)
TRANSITIONS_CAPTION = (
    f"A dot is a recorded transition (at most {MAX_POINTS}, drawn at random). The recovered reward's scale and offset "
    "are its own: read the shape, not the values."
)
EPISODES_CAPTION = "A dot is a recorded episode: its true and its recovered reward, each summed over its steps."

CURVES = {
    "loss": "loss",
    "action_error": "action error on demonstrations",
    "expert_reward": "recovered reward of expert steps",
    "expert_advantage": "expert advantage",
}
"""Metrics with a panel of their own, and what the panel is called."""
CLONING = "prior_"
"""Before the names of metrics of the cloning phase."""
SHADE = "#eeeeee"
DECADES = 100.0
"""A loss that falls by more than this factor is drawn on a logarithmic axis."""
MOST_LINES = 24
"""Learning curves that a legend still tells apart."""
MOST_SEEDS = 50
"""Learning curves of one row that are drawn: more hide each other."""
CONSTANT = 1e-6
"""Values that differ by less, relative to 1 or to the largest, are drawn as constant: in single precision they are."""
EPISODE_MARK: dict[str, Any] = {"s": 9, "alpha": 0.4, "linewidths": 0}
SEED_MARK: dict[str, Any] = {"s": 34, "marker": "D", "edgecolors": "white"}
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
    """A PNG and what it shows; beside it the same for a phone's width, unless the page folds it."""

    file_name: str
    title: str
    caption: str
    png: bytes
    phone_png: bytes | None

    @classmethod
    def of(cls, file_name: str, title: str, caption: str, plot: Callable[..., bytes], *content: Any) -> "Picture":
        """`plot(*content, width=...)`, in both widths."""
        narrow = None if is_folded(file_name) else plot(*content, width=PHONE_INCHES)
        return cls(file_name, title, caption, plot(*content, width=WIDTH_INCHES), narrow)


def is_folded(file_name: str) -> bool:
    """Whether the page folds the picture of that name."""
    return Path(file_name).stem.endswith(FOLDED)


@dataclass(frozen=True)
class ReturnScale:
    """Returns of one dataset's environment on a scale with known marks at 0 and 100."""

    name: str
    zero: float
    hundred: float
    marks: tuple[str, str]

    @classmethod
    def of(cls, groups: Sequence[Group]) -> "ReturnScale | None":
        """Scores where the dataset has a reference, else percent of its mean return; None without either."""
        dataset = groups[0].runs[0].manifest["dataset"]
        reference, own = reference_of(dataset), dataset.get("return_mean")
        if reference is not None and reference.expert != reference.random:
            return cls(_axis_name(reference.name), reference.random, reference.expert, ANCHORS[True])
        return cls(_axis_name(PERCENT), 0.0, own, ANCHORS[False]) if own is not None and own > 0 else None

    def __call__(self, returns: ArrayLike) -> NDArray[np.floating[Any]]:
        """The returns on this scale."""
        return 100 * (np.asarray(returns, dtype=float) - self.zero) / (self.hundred - self.zero)


def pictures(groups: Sequence[Group]) -> list[Picture]:
    """The methods over all tasks, rewards beside their baselines; then by dataset returns, curves and rewards.

    Only those that have something to show.
    """
    found = [*_over_all_tasks(method_rows(groups)), *_rewards(reward_levels(groups))]
    for dataset, name in _file_names([group.dataset for group in groups]).items():
        found += _of_dataset(dataset, name, [group for group in groups if group.dataset == dataset])
    return found


def _over_all_tasks(rows: Sequence[MethodRow]) -> list[Picture]:
    found = []
    if rows:
        title = "All tasks: interquartile mean, and improvement on cloning"
        found.append(Picture.of("all-tasks-iqm.png", title, AGGREGATE_CAPTION, aggregate_plot, rows))
    on_scale = [row for row in rows if row.values]
    if on_scale:
        title, caption = "All tasks: performance profiles", PROFILE_CAPTION.format(scale=_axis_name(on_scale[0].scale))
        found.append(Picture.of("all-tasks-profiles.png", title, caption, profile_plot, on_scale))
    return found


def _rewards(levels: Sequence[RewardLevel]) -> list[Picture]:
    if not levels:
        return []
    some = f" {MAX_ROWS} of {len(levels)} rows." if len(levels) > MAX_ROWS else ""
    title, shown = "Recovered rewards beside their baselines", levels[:MAX_ROWS]
    return [Picture.of("all-tasks-rewards.png", title, REWARDS_CAPTION + some, rewards_plot, shown)]


def _of_dataset(dataset: str, name: str, groups: Sequence[Group]) -> list[Picture]:
    found = returns_pictures(dataset, name, [group for group in groups if group.evaluations])
    if lines := by_demonstrations(groups):
        title, file_name = f"{dataset}: returns by the number of demonstrations", f"{name}-demonstrations.png"
        found.append(Picture.of(file_name, title, DEMONSTRATIONS_CAPTION, demonstrations_plot, lines))
    if any(map(evaluations_of, (run for group in groups for run in group.runs))):
        title, file_name = f"{dataset}: returns over environment steps", f"{name}-interaction.png"
        found.append(Picture.of(file_name, title, INTERACTION_CAPTION, interaction_plot, groups))
    if logged := logged_runs(groups):
        title, cloned = f"{dataset}: learning curves", any(CLONING + "loss" in metrics for *_, metrics in logged)
        some = f" The first {MOST_SEEDS} of each row." if any(len(group.runs) > MOST_SEEDS for group in groups) else ""
        caption = LEARNING_CURVES_CAPTION.format(some=some, shaded=SHADED if cloned else "")
        found.append(Picture.of(f"{name}-curves.png", title, caption, curves_plot, groups))
    if runs := runs_in_turn(groups):
        some = f" {MAX_PANELS} of {len(runs)} runs." if len(runs) > MAX_PANELS else ""
        for kind, level, caption, plot in (
            ("reward", "transition", TRANSITIONS_CAPTION, transition_plot),
            ("episodes", "episode", EPISODES_CAPTION, episode_plot),
        ):
            title = f"{dataset}: recovered and true reward, by {level}"
            found.append(Picture.of(f"{name}-{kind}.png", title, caption + some, plot, groups, runs))
    return found


def returns_pictures(dataset: str, name: str, groups: Sequence[Group]) -> list[Picture]:
    """The returns of one dataset's evaluated groups, at most MAX_ROWS to a picture."""
    parts = [groups[first : first + MAX_ROWS] for first in range(0, len(groups), MAX_ROWS)]
    found = []
    for number, part in enumerate(parts, start=1):
        suffix, count = (f"-{number}", f" ({number} of {len(parts)})") if len(parts) > 1 else ("", "")
        file_name, title = f"{name}-returns{suffix}.png", f"{dataset}: returns{count}"
        found.append(Picture.of(file_name, title, RETURNS_CAPTION, returns_plot, part))
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


def aggregate_plot(rows: Sequence[MethodRow], width: float = WIDTH_INCHES) -> bytes:
    """Each variant's IQM over all tasks and its probability of improvement on cloning, with 95 % intervals."""
    names = [row.variant.name for row in rows]
    height = 1.4 + row_inches(names, 0.34, width) * len(rows)
    with encoded_figure(2 * height if is_narrow(width) else height, width) as (figure, png):
        scores, improvements = figure.subplots(2, 1) if is_narrow(width) else figure.subplots(1, 2, sharey=True)
        for place, row in enumerate(rows):
            for axes, estimate in ((scores, row.iqm), (improvements, row.improvement)):
                if estimate is not None:
                    _interval_bar(axes, estimate, place, color=colour_of(place), linewidth=7, alpha=0.45)
                    axes.plot(estimate.value, place, "|", color="black", markersize=13, markeredgewidth=2)
        for axes in (scores, improvements) if is_narrow(width) else (scores,):
            name_rows(axes, names, width)
        mark_anchors(scores, ANCHORS[rows[0].scale != PERCENT])
        improvements.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
        improvements.set(xlim=(-0.03, 1.03))
        for axes, label in (
            (scores, f"IQM, {_axis_name(rows[0].scale)}"),
            (improvements, "probability that a run beats one of bc"),
        ):
            axes.grid(visible=False, axis="y")
            axes.set_xlabel(textwrap.fill(label, LABEL_CHARACTERS), fontsize="small")
    return png.getvalue()


def profile_plot(rows: Sequence[MethodRow], width: float = WIDTH_INCHES) -> bytes:
    """Share of runs above each score, a line a variant, with the band of its pointwise 95 % intervals."""
    thresholds = _thresholds([value for row in rows for values in row.values for value in values])
    with encoded_figure(3.2, width) as (figure, png):
        axes = figure.subplots()
        for place, row in enumerate(rows):
            profile = performance_profile(row.values, thresholds)
            style = {**line_style(place), "drawstyle": "steps-post"}
            axes.plot(thresholds, profile.shares, linewidth=1.8, label=row.variant.name, **style)
            if profile.low is not None and profile.high is not None:
                band: dict[str, Any] = {"color": colour_of(place), "alpha": 0.13, "linewidth": 0, "step": "post"}
                axes.fill_between(thresholds, profile.low, profile.high, **band)
        mark_anchors(axes, ANCHORS[rows[0].scale != PERCENT])
        axes.set(xlabel=_axis_name(rows[0].scale), ylabel="share of runs above it", ylim=(-0.02, 1.02))
        legend_below(figure, [axes])
    return png.getvalue()


def _thresholds(values: Sequence[float]) -> NDArray[np.floating[Any]]:
    """Evenly from 0 to 100 and over all runs, and a little beyond."""
    low, high = min(0.0, *values), max(100.0, *values)
    margin = MARGIN * (high - low)
    return np.linspace(low - margin, high + margin, THRESHOLDS)


def _axis_name(scale: str) -> str:
    return "return in % of the dataset's mean" if scale == PERCENT else f"score ({scale})"


def _interval_bar(axes: Axes, estimate: Estimate, height: float, **style: Any) -> None:
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [height, height], **style)


def rewards_plot(levels: Sequence[RewardLevel], width: float = WIDTH_INCHES) -> bytes:
    """Pearson's r of each recovered reward and of its baselines: a row a task, method and level, a mark a seed."""
    names = [f"{level.method}, {level.group.dataset}, by {level.level}" for level in levels]
    kinds = list(dict.fromkeys(name for paths in LEVELS.values() for name in paths))
    with encoded_figure(1.0 + row_inches(names, 0.55, width) * len(levels), width) as (figure, png):
        axes = figure.subplots()
        for place, level in enumerate(levels):
            axes.axhspan(place - 0.42, place + 0.42, color=SHADE, linewidth=0, zorder=0)
            for number, kind in enumerate(kinds):
                values = level.pearsons.get(kind, ())
                first = number == 0
                look: dict[str, Any] = {"color": colour_of(number), "marker": MARKERS[number], "s": 70 if first else 34}
                heights = [place + 0.16 * (number - (len(kinds) - 1) / 2)] * len(values)
                axes.scatter(values, heights, alpha=0.85, linewidths=0, label=kind, zorder=3 if first else 2, **look)
        name_rows(axes, names, width)
        low = min((r for level in levels for values in level.pearsons.values() for r in values), default=0.0)
        axes.set(xlim=(min(-0.03, low - 0.05), 1.03), xlabel="correlation with the true reward")
        legend_below(figure, [axes])
    return png.getvalue()


def returns_figure(groups: Sequence[Group]) -> Figure:
    """The returns of all groups as a figure, one panel per dataset."""
    datasets = list(dict.fromkeys(group.dataset for group in groups))
    panels = [[group for group in groups if group.dataset == dataset] for dataset in datasets]
    heights = [0.8 + row_inches(short_labels(own), 0.75) * len(own) for own in panels]
    with styled_figure(sum(heights) + 0.2) as figure:
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
        for axes, dataset, own in zip(grid, datasets, panels, strict=True):
            _draw_groups(axes, own)
            axes.set_title(dataset, fontsize="small")
        legend_below(figure, list(grid))
    return figure


def returns_plot(groups: Sequence[Group], width: float = WIDTH_INCHES) -> bytes:
    """Returns of one dataset's groups: every episode, each seed's mean, their IQM with its 95 % interval.

    On an axis of scores, from the random policy's 0 to the expert's 100, where these are known.
    """
    names = short_labels(groups)
    with encoded_figure(1.0 + row_inches(names, 0.75, width) * len(groups), width) as (figure, png):
        axes = figure.subplots()
        _draw_groups(axes, groups, width)
        legend_below(figure, [axes])
    return png.getvalue()


def _draw_groups(axes: Axes, groups: Sequence[Group], width: float = WIDTH_INCHES) -> None:
    """One dataset's returns, a row a group. The legend's marks are grey: each row has a colour of its own."""
    scale = ReturnScale.of(groups)
    if any(run.has(RETURNS) for group in groups for run in group.runs):
        axes.scatter([], [], label="an episode", **EPISODE_MARK, color=GREY)
    if any(group.evaluations for group in groups):
        axes.scatter([], [], label="a seed's mean", **SEED_MARK, color=GREY)
    for place, group in enumerate(groups):
        _draw_returns(axes, place, group, scale or np.asarray)
    name_rows(axes, short_labels(groups), width)
    axes.set(xlabel="return of an episode" if scale is None else scale.name)
    if scale is not None:
        mark_anchors(axes, scale.marks)


def _draw_returns(axes: Axes, place: int, group: Group, scaled: Callable[..., Any]) -> None:
    colour = colour_of(place)
    random = np.random.default_rng(JITTER_SEED)
    found = [table["return"] for run in group.runs if (table := run.table(RETURNS)) is not None]
    if found:
        heights = [place + random.uniform(-JITTER, JITTER, len(returns)) for returns in found]
        values = scaled(pl.concat(found).to_numpy())
        axes.scatter(values, np.concatenate(heights), **EPISODE_MARK, color=colour)
    remark: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "color": GREY}
    if group.iqm is None:
        axes.annotate("not evaluated", (0.5, place), ha="center", **remark)
        return
    known = [None if value is None else float(scaled(value)) for value in vars(group.iqm).values()]
    iqm = Estimate(float(scaled(group.iqm.value)), *known[1:])
    above = [place + 0.28] * len(group.returns)
    axes.scatter(scaled(group.returns), above, **SEED_MARK, color=colour)
    mark: dict[str, Any] = {"markersize": 13, "markeredgewidth": 2, "label": "IQM and 95 % interval over seeds"}
    axes.plot(iqm.value, place - 0.28, "|k", **mark)
    _interval_bar(axes, iqm, place - 0.28, color="black", linewidth=3.5)
    if not all(run.in_own_environment for run in group.runs):
        axes.annotate(" another environment", (1, place), ha="right", **remark)


def demonstrations_plot(lines: Mapping[str, Sequence[Group]], width: float = WIDTH_INCHES) -> bytes:
    """The IQM of each line's returns against its number of demonstrations, with 95 % intervals over seeds."""
    numbers = sorted({group.demos for line in lines.values() for group in line}, key=lambda demos: demos or np.inf)
    scale = ReturnScale.of(next(iter(lines.values())))
    scaled: Callable[..., Any] = scale or np.asarray
    with encoded_figure(3.2, width) as (figure, png):
        axes = figure.subplots()
        for place, (name, line) in enumerate(lines.items()):
            found = {numbers.index(group.demos): estimate for group in line if (estimate := group.iqm)}
            values, style = [estimate.value for estimate in found.values()], line_style(place)
            axes.plot(list(found), scaled(values), marker="o", markersize=4, label=name, **style)
            for x, estimate in found.items():
                if estimate.low is not None and estimate.high is not None:
                    ends = scaled([estimate.low, estimate.high])
                    axes.plot([x, x], ends, color=style["color"], linewidth=5, alpha=0.3)
        axes.set_xticks(range(len(numbers)), ["all" if number is None else str(number) for number in numbers])
        axes.set(xlabel="demonstrations", ylabel="return of an episode" if scale is None else scale.name)
        if scale is not None:
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, -5), max(high, 105))
            for value, mark in zip((0, 100), scale.marks, strict=True):
                axes.axhline(value, color=GREY, linestyle="--", linewidth=1)
                axes.annotate(mark, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY)
        legend_below(figure, [axes])
    return png.getvalue()


@dataclass(frozen=True)
class Curve:
    """One metric of one run, over its updates."""

    label: str
    seed: int
    points: pl.DataFrame
    """Columns `step` and `value`."""
    cloning_updates: int
    """Updates of the cloning phase; 0 without one."""


def evaluations_of(run: RunResult) -> list[tuple[float, float]]:
    """Environment steps and mean return of a run's evaluations while it trained; empty where it made none."""
    metrics = run.table(METRICS) if took_steps(run) else None
    if metrics is None or not {"environment_steps", "evaluation_return"} <= set(metrics.columns):
        return []
    return metrics.select("environment_steps", "evaluation_return").drop_nulls().rows()


def interaction_plot(groups: Sequence[Group], width: float = WIDTH_INCHES) -> bytes:
    """Returns of one dataset's runs that act, over environment steps; constant lines for rows that learn from data."""
    names = dict(zip([group.label for group in groups], short_labels(groups), strict=True))
    seeds = sorted({run.seed for group in groups for run in group.runs})
    scale = ReturnScale.of(groups)
    scaled = scale or (lambda returns: np.asarray(returns, dtype=float))
    with encoded_figure(3.4, width) as (figure, png):
        axes = figure.subplots()
        for place, group in enumerate(groups):
            look: dict[str, Any] = {"color": colour_of(place)}
            acted = [(run, found) for run in group.runs if (found := evaluations_of(run))]
            for number, (run, found) in enumerate(acted):
                line = SEED_LINES[seeds.index(run.seed) % len(SEED_LINES)]
                steps, returns = zip(*found, strict=True)
                label = names[group.label] if number == 0 else None
                axes.plot(steps, scaled(returns), linestyle=line, linewidth=1.3, label=label, **look)
            if not acted and group.iqm is not None and not any(map(took_steps, group.runs)):
                axes.axhline(float(scaled(group.iqm.value)), linestyle=":", label=names[group.label], **look)
        axes.set(xlabel="environment steps", ylabel="return of an episode" if scale is None else scale.name)
        axes.set_xlim(left=0)
        legend_below(figure, [axes])
    return png.getvalue()


def took_steps(run: RunResult) -> bool:
    """Whether training took steps in the environment."""
    return bool(run.manifest.get("environment_steps"))


def logged_runs(groups: Sequence[Group]) -> list[tuple[Group, RunResult, pl.DataFrame]]:
    """The runs whose learning curves are drawn, at most MOST_SEEDS a row, with their metrics."""
    shown = [(group, run) for group in groups for run in group.runs[:MOST_SEEDS]]
    return [(group, run, metrics) for group, run in shown if (metrics := run.table(METRICS)) is not None]


def curves_plot(groups: Sequence[Group], width: float = WIDTH_INCHES) -> bytes:
    """Learning curves of one dataset's groups: a panel a method and metric, one line a seed, colours by group."""
    logged = logged_runs(groups)
    names = dict(zip([group.label for group in groups], short_labels(groups), strict=True))
    colours = {name: colour_of(place) for place, name in enumerate(names.values())}
    seeds = sorted({run.seed for _, run, _ in logged})
    panels: list[tuple[str, Draw]] = []
    for method in dict.fromkeys(group.method for group in groups):
        own = [(group, run, metrics) for group, run, metrics in logged if group.method == method]
        for metric, title in CURVES.items():
            curves = [
                curve for group, run, metrics in own if (curve := curve_of(metric, names[group.label], run, metrics))
            ]
            if curves:
                panels.append((f"{method}: {title}", _curves(curves, colours, seeds)))
    return _panels(panels, "update", "", width, height=2.2, legend=len(logged) <= MOST_LINES)


def curve_of(metric: str, label: str, run: RunResult, metrics: pl.DataFrame) -> Curve | None:
    """A metric of the cloning phase and of the method itself, in one line; None where it was never logged."""
    names = [name for name in (CLONING + metric, metric) if name in metrics]
    if not names:
        return None
    points = metrics.select("step", pl.coalesce(names).cast(pl.Float64).alias("value")).drop_nulls()
    prior = CLONING + "loss"
    cloned = metrics.filter(pl.col(prior).is_not_null())["step"].to_list() if prior in metrics else []
    return Curve(label, run.seed, points, max(cloned, default=0)) if len(points) else None


def _curves(curves: Sequence[Curve], colours: Mapping[str, str], seeds: Sequence[int]) -> Draw:
    values = np.concatenate([curve.points["value"].to_numpy() for curve in curves])
    wide_range = values.min() > 0 and values.max() > max(CONSTANT, DECADES * values.min())

    def draw(axes: Axes) -> None:
        for curve in curves:
            place = seeds.index(curve.seed) % len(SEED_LINES)
            look: dict[str, Any] = {"color": colours[curve.label], "linestyle": SEED_LINES[place]}
            look["label"] = f"{curve.label}, seed {curve.seed}"
            marker = "." if len(curve.points) == 1 else None
            axes.plot(curve.points["step"], curve.points["value"], alpha=0.8, linewidth=1.1, marker=marker, **look)
        cloning = max(curve.cloning_updates for curve in curves)
        if cloning:
            axes.axvspan(0, cloning, color=SHADE, zorder=0, label="cloning")
        axes.set_xlim(left=0)
        if wide_range:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())  # the usual one needs mathematical text, which names forbid
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.yaxis.set_major_formatter(
                StrMethodFormatter("{x:.7g}")
            )  # the usual one puts a factor beside the title
            limit_values(axes, values)

    return draw


def limit_values(axes: Axes, values: NDArray[np.floating[Any]]) -> None:
    """Give curves of these values an axis from 0 on if none is negative, with room below that shows a line at 0.

    An axis of constant values reaches from 0 to at least 1: their rounding is not enlarged.
    """
    if np.isfinite(values).all() and np.ptp(values) <= CONSTANT * max(1.0, np.abs(values).max()):
        reach = max(1.0, 2 * float(np.abs(values).max()))
        axes.set_ylim(-reach if values.min() < 0 else 0, reach)
    if values.min() >= 0:
        axes.set_ylim(bottom=-MARGIN * axes.get_ylim()[1])


def transition_plot(groups: Sequence[Group], runs: Sequence[RunResult], width: float = WIDTH_INCHES) -> bytes:
    """Recovered against true reward, a dot a recorded transition (at most 4000 a run), a panel a run of the groups."""
    shown = _recoveries(groups, runs[:MAX_PANELS], "transition")
    panels = [(title, _scatter(sampled(rewards))) for title, rewards in shown]
    return _panels(panels, "true reward", "recovered reward", width, total=len(runs))


def episode_plot(groups: Sequence[Group], runs: Sequence[RunResult], width: float = WIDTH_INCHES) -> bytes:
    """An episode's recovered against its true reward, each summed over its recorded steps, a panel a run."""
    shown = _recoveries(groups, runs[:MAX_PANELS], "episode")
    panels = [(title, _scatter(episode_sums(rewards))) for title, rewards in shown]
    return _panels(panels, "true, summed", "recovered, summed", width, total=len(runs))


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


def _panels(
    panels: Sequence[tuple[str, Draw]],
    x: str,
    y: str,
    width: float,
    height: float = 2.7,
    legend: bool = False,
    total: int = 0,
) -> bytes:
    """The first MAX_PANELS panels, two in a row; says how many there are if that is not all. One `legend` of all.

    `total`: how many there are, where no more than the first are given.
    """
    shown, total = panels[:MAX_PANELS], max(total, len(panels))
    columns = 1 if is_narrow(width) else min(2, max(1, len(shown)))
    rows = -(-max(1, len(shown)) // columns)
    with encoded_figure(height * rows + 0.3, width) as (figure, png):
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        for axes, (title, draw) in zip(grid, shown, strict=False):
            draw(axes)
            axes.set_title(title, fontsize="small")
            axes.set(xlabel=x, ylabel=y)
        if total > len(shown):
            figure.suptitle(f"{len(shown)} of {total} panels shown", fontsize="small")
        if legend:
            legend_below(figure, list(grid[: len(shown)]))
    return png.getvalue()
