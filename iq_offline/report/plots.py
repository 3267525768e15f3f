"""Plots of runs as PNG bytes, the same bytes for the same runs."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iq_offline.evaluation.scores import interquartile_mean, interval95
from iq_offline.report.groups import Group, in_own_environment
from iq_offline.report.labels import legend_below, name_rows, row_inches
from iq_offline.report.results import RunResult
from iq_offline.report.shortening import wrapped

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#b2a400")
"""Okabe and Ito's, told apart by colour-blind readers; yellow and black replaced for white paper."""
LINES = ("-", "--", ":", "-.")
MARKERS = "o^sDvP*X"
CURVES = {"loss": "loss", "expert_reward": "recovered reward of expert steps", "expert_advantage": "expert advantage"}
"""Metrics with a panel of their own, and what the panel is called."""
JITTER_SEED = 0
JITTER = 0.16
MAX_POINTS = 4000
MAX_PANELS = 12
TITLE_CHARACTERS, TITLE_LINES = 40, 3
WIDTH_INCHES = 6.5
DPI = 160
STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
}

Draw = Callable[[Axes], None]


def returns_plot(groups: Sequence[Group]) -> bytes:
    """Returns of one dataset's groups: every episode, each seed's mean, their IQM with its 95 % interval.

    Groups without an evaluation keep an empty line. The dashed line is the dataset's own mean return.
    """
    names = [group.label for group in groups]
    with figure_png(1.0 + row_inches(names, 0.75) * len(groups)) as (figure, png):
        axes = figure.subplots()
        for place, group in enumerate(groups):
            _draw_returns(axes, place, group)
        own = groups[0].runs[0].manifest["dataset"].get("return_mean")
        if own is not None:
            axes.axvline(own, color="#777777", linestyle="--", linewidth=1, label="mean of the dataset")
        name_rows(axes, names)
        axes.set(xlabel="return of an episode")
        axes.grid(visible=False, axis="y")
        legend_below(figure, [axes])
    return png.getvalue()


def curves_plot(groups: Sequence[Group]) -> bytes:
    """Learning curves of one dataset's groups: a panel a method and metric, one line a seed, colours by group."""
    logged = [(group, run, metrics) for group in groups for run in group.runs if (metrics := run.metrics()) is not None]
    looks = {group.label: look(place) for place, group in enumerate(groups)}
    panels: list[tuple[str, Draw]] = []
    for method in dict.fromkeys(group.method for group in groups):
        own = [(group, run, metrics) for group, run, metrics in logged if group.method == method]
        for metric, title in CURVES.items():
            lines = [(group, run, metrics.select("step", metric)) for group, run, metrics in own if metric in metrics]
            if lines:
                panels.append((f"{method}: {title}", _curves(lines, looks)))
    return _panels(panels, "update", "", height=2.2, legend=len(groups) <= len(COLOURS) * len(LINES))


def reward_plot(groups: Sequence[Group], runs: Sequence[RunResult]) -> bytes:
    """Recovered against true reward, a dot a recorded transition (at most 4000 a run), a panel a run of the groups."""
    titles = _recoveries(groups, runs, "transition")
    panels = [(title, _scatter(_sampled(_rewards(run)))) for title, run in zip(titles, runs, strict=True)]
    return _panels(panels, "true reward", "recovered reward")


def episode_plot(groups: Sequence[Group], runs: Sequence[RunResult]) -> bytes:
    """An episode's recovered against its true reward, each summed over its recorded steps, a panel a run."""
    titles = _recoveries(groups, runs, "episode")
    panels = [(title, _scatter(_sums(_rewards(run)))) for title, run in zip(titles, runs, strict=True)]
    return _panels(panels, "true, summed", "recovered, summed")


def _draw_returns(axes: Axes, place: int, group: Group) -> None:
    colour = COLOURS[place % len(COLOURS)]
    random = np.random.default_rng(JITTER_SEED)
    for run in group.runs:
        returns = run.returns()
        if returns is not None:
            heights = place + random.uniform(-JITTER, JITTER, len(returns))
            axes.scatter(returns["return"], heights, s=9, color=colour, alpha=0.4, linewidths=0, label="an episode")
    means = [evaluation["return_mean"] for evaluation in group.evaluations]
    if not means:
        axes.annotate("not evaluated", (0.5, place), xycoords=("axes fraction", "data"), ha="center", color="#777777")
        return
    axes.scatter(
        means, [place + 0.28] * len(means), s=34, marker="D", color=colour, edgecolors="white", label="a seed's mean"
    )
    low, high = interval95(means) or (None, None)
    iqm = interquartile_mean(means)
    axes.plot(iqm, place - 0.28, "|k", markersize=13, markeredgewidth=2, label="IQM and 95 % interval over seeds")
    if low is not None and high is not None:
        axes.plot([low, high], [place - 0.28] * 2, color="black", linewidth=3.5, solid_capstyle="butt")
    if not all(in_own_environment(run) for run in group.runs):
        axes.annotate(
            " another environment", (1, place), xycoords=("axes fraction", "data"), ha="right", color="#777777"
        )


def look(place: int) -> dict[str, str]:
    """Colour and style of a line; the colours begin anew in another style."""
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": LINES[place // len(COLOURS) % len(LINES)]}


def _curves(lines: Sequence[tuple[Group, RunResult, pl.DataFrame]], looks: Mapping[str, dict[str, str]]) -> Draw:
    several = len({group.label for group, _, _ in lines}) > 1

    def draw(axes: Axes) -> None:
        for group, _, curve in lines:
            known = curve.drop_nulls()
            own: dict[str, Any] = {**looks[group.label], "marker": "." if len(known) == 1 else None}
            own |= {"label": group.label if several else None}
            axes.plot(known["step"], known[known.columns[1]], alpha=0.75, linewidth=1, **own)

    return draw


def _scatter(points: pl.DataFrame) -> Draw:
    sources = sorted(points["source"].unique())

    def draw(axes: Axes) -> None:
        for place, source in enumerate(sources):
            own = points.filter(pl.col("source") == source)
            look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
            size, alpha = (6, 0.35) if len(points) > 400 else (18, 0.7)
            axes.scatter(own["true"], own["recovered"], s=size, alpha=alpha, linewidths=0, label=source, **look)
        for handle in axes.legend(fontsize="x-small", markerscale=1.5).legend_handles:
            if handle is not None:
                handle.set_alpha(1)

    return draw


def _recoveries(groups: Sequence[Group], runs: Sequence[RunResult], level: str) -> list[str]:
    """Each run's row, its seed, and its correlation where that is defined."""
    names = {run.folder: group.label for group in groups for run in group.runs}
    pearsons = [(run.reward or {}).get(level, {}).get("pearson") for run in runs]
    titles = [
        f"{names[run.folder]}, seed {run.seed}" + ("" if pearson is None else f": r = {pearson:.2f}")
        for run, pearson in zip(runs, pearsons, strict=True)
    ]
    return wrapped(titles, TITLE_CHARACTERS, TITLE_LINES)


def _rewards(run: RunResult) -> pl.DataFrame:
    rewards = run.rewards()
    assert rewards is not None, "the caller passes runs with rewards"
    return rewards


def _sampled(transitions: pl.DataFrame) -> pl.DataFrame:
    if len(transitions) <= MAX_POINTS:
        return transitions
    rows = np.random.default_rng(JITTER_SEED).choice(len(transitions), MAX_POINTS, replace=False)
    return transitions[np.sort(rows)]


def _sums(transitions: pl.DataFrame) -> pl.DataFrame:
    return transitions.group_by("source", "episode", maintain_order=True).agg(pl.col("true", "recovered").sum())


def _panels(panels: Sequence[tuple[str, Draw]], x: str, y: str, height: float = 2.7, legend: bool = False) -> bytes:
    """The first MAX_PANELS panels, two in a row; says how many there are if that is not all. One `legend` of all."""
    shown = panels[:MAX_PANELS]
    columns = min(2, max(1, len(shown)))
    rows = -(-max(1, len(shown)) // columns)
    with figure_png(height * rows + 0.3) as (figure, png):
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


@contextmanager
def figure_png(height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure to draw in, apart from pyplot's and the user's own settings, and the PNG that it becomes."""
    png = io.BytesIO()
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        yield figure, png
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
