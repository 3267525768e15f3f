"""Plots of methods over all tasks: performance profiles, interquartile means and improvement on cloning."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from iq_offline.evaluation.statistics import Estimate, performance_profile, stratified_iqm
from iq_offline.report.comparison import PERCENT, Values, Variant, improvement, on_scale
from iq_offline.report.groups import Group
from iq_offline.report.labels import legend_below, name_rows, row_inches
from iq_offline.report.plots import COLOURS, figure_png, look

THRESHOLDS = 101
MARGIN = 0.05
LABEL_CHARACTERS = 28
"""Of a line below one of two axes."""


def profile_plot(variants: Sequence[Variant], scale: str) -> bytes:
    """Share of runs above each score, a line a variant, with the band of its pointwise 95 % intervals."""
    values = {variant.name: own for variant in variants if (own := on_scale(variant, scale))}
    thresholds = _thresholds(list(values.values()))
    with figure_png(3.2) as (figure, png):
        axes = figure.subplots()
        for place, (name, own) in enumerate(values.items()):
            profile = performance_profile(list(own.values()), thresholds)
            own_look: dict[str, Any] = {**look(place), "drawstyle": "steps-post"}
            axes.plot(thresholds, profile.shares, linewidth=1.8, label=name, **own_look)
            if profile.low is not None and profile.high is not None:
                band = {"color": own_look["color"], "alpha": 0.13, "linewidth": 0, "step": "post"}
                axes.fill_between(thresholds, profile.low, profile.high, **band)
        axes.set(xlabel=axis_name(scale), ylabel="share of runs above it", ylim=(-0.02, 1.02))
        legend_below(figure, [axes])
    return png.getvalue()


def aggregate_plot(variants: Sequence[Variant], scale: str) -> bytes:
    """Each variant's IQM over all tasks and its probability of improvement on cloning, with 95 % intervals."""
    evaluated = [variant for variant in variants if variant.returns]
    names = [variant.name for variant in evaluated]
    with figure_png(1.4 + row_inches(names, 0.34) * len(evaluated)) as (figure, png):
        left, right = figure.subplots(1, 2, sharey=True)
        for place, variant in enumerate(evaluated):
            strata = list(on_scale(variant, scale).values())
            _mark(left, place, stratified_iqm(strata) if strata else None)
            better = improvement(variant, variants)
            _mark(right, place, better[0] if better else None)
        name_rows(left, names)
        left.set(xlabel=f"IQM, {axis_name(scale)}")
        right.axvline(0.5, color="#777777", linestyle="--", linewidth=1)
        right.set(xlabel="probability that a run beats one of bc", xlim=(-0.03, 1.03))
        for axes in (left, right):
            axes.grid(visible=False, axis="y")
            axes.set_xlabel(textwrap.fill(axes.get_xlabel(), LABEL_CHARACTERS), fontsize="small")
    return png.getvalue()


def by_demonstrations(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """One dataset's evaluated groups that differ in nothing but their demonstrations, by name; those with several."""
    lines: dict[str, list[Group]] = {}
    for group in groups:
        if group.evaluations:
            lines.setdefault(replace(group, demos=None).label, []).append(group)
    return {name: line for name, line in lines.items() if len(line) > 1}


def demonstrations_plot(lines: Mapping[str, Sequence[Group]]) -> bytes:
    """The IQM of each line's returns against its number of demonstrations, with 95 % intervals over seeds."""
    numbers = sorted({group.demos for line in lines.values() for group in line}, key=_all_of_them_last)
    with figure_png(3.2) as (figure, png):
        axes = figure.subplots()
        for place, (name, line) in enumerate(lines.items()):
            found = {numbers.index(group.demos): _iqm(group) for group in line}
            values, style = [estimate.value for estimate in found.values()], look(place)
            axes.plot(list(found), values, marker="o", markersize=4, label=name, **style)  # type: ignore[arg-type]
            for x, estimate in found.items():
                if estimate.low is not None and estimate.high is not None:
                    axes.plot([x, x], [estimate.low, estimate.high], color=style["color"], linewidth=5, alpha=0.3)
        own = next(iter(lines.values()))[0].runs[0].manifest["dataset"].get("return_mean")
        if own is not None:
            axes.axhline(own, color="#777777", linestyle="--", linewidth=1, label="mean of the dataset")
        axes.set_xticks(range(len(numbers)), ["all" if number is None else str(number) for number in numbers])
        axes.set(xlabel="demonstrations", ylabel="return of an episode")
        legend_below(figure, [axes])
    return png.getvalue()


def _all_of_them_last(demos: int | None) -> float:
    return float("inf") if demos is None else demos


def _iqm(group: Group) -> Estimate:
    return stratified_iqm([[evaluation["return_mean"] for evaluation in group.evaluations]])


def axis_name(scale: str) -> str:
    """What an axis of that scale is called."""
    return "return in % of the dataset's mean" if scale == PERCENT else f"score ({scale})"


def _mark(axes: Axes, place: int, estimate: Estimate | None) -> None:
    if estimate is None:
        return
    colour = COLOURS[place % len(COLOURS)]
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=7, alpha=0.45)
    axes.plot(estimate.value, place, "|", color="black", markersize=13, markeredgewidth=2)


def _thresholds(values: Sequence[Values]) -> NDArray[np.floating[Any]]:
    """Evenly over all runs, and a little beyond; some width where all are equal."""
    found = [one for own in values for runs in own.values() for one in runs]
    low, high = min(found), max(found)
    margin = MARGIN * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, THRESHOLDS)
