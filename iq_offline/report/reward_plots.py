"""Pictures of a recovered reward: against the true one by source, by episode, and along one episode."""

import io

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iq_offline.report.plots import COLOURS, DPI, MARKERS, STYLE, WIDTH_INCHES

HEXAGONS = 40
SHOWN_STEPS = 300
"""Of the episode that is drawn step by step."""


def reward_plot(transitions: pl.DataFrame, format: str = "png") -> bytes:
    """A picture of `transitions` (source, episode, step, true, recovered): a row of densities by source, then episodes.

    Below, true and recovered reward along the first source's first episode, each less its mean and by its deviation.
    """
    sources = transitions["source"].unique(maintain_order=True).to_list()
    picture = io.BytesIO()
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        rows = (len(sources) + 2) // 3
        figure = Figure(figsize=(WIDTH_INCHES, 2.1 * rows + 4.4), layout="constrained")
        halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.1 * rows, 4.4])
        above, below = halves[:, 0]
        panels = above.subplots(rows, 3, squeeze=False).ravel()
        for axes, source in zip(panels, sources, strict=False):
            _density(axes, transitions.filter(pl.col("source") == source), source)
        for axes in panels[len(sources) :]:
            axes.set_axis_off()
        whole, along = below.subplots(2, 1)
        _episodes(whole, transitions, sources)
        _along(along, transitions, sources[0])
        figure.savefig(picture, format=format, dpi=DPI, metadata=_no_dates(format))
    return picture.getvalue()


def _density(axes: Axes, own: pl.DataFrame, source: str) -> None:
    """How many transitions lie where, on a logarithmic scale of colours."""
    axes.hexbin(own["true"], own["recovered"], gridsize=HEXAGONS, bins="log", mincnt=1, cmap="viridis", linewidths=0)
    axes.set_title(source, fontsize="small")
    axes.set_xlabel("true reward", fontsize="x-small")
    axes.set_ylabel("recovered", fontsize="x-small")
    axes.tick_params(labelsize="x-small")


def _episodes(axes: Axes, transitions: pl.DataFrame, sources: list[str]) -> None:
    sums = transitions.group_by("source", "episode", maintain_order=True).agg(pl.col("true", "recovered").sum())
    for place, source in enumerate(sources):
        own = sums.filter(pl.col("source") == source)
        look = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
        axes.scatter(own["true"], own["recovered"], s=14, alpha=0.6, linewidths=0, label=source, **look)  # type: ignore[arg-type]
    axes.set(xlabel="true return of an episode", ylabel="recovered, summed")
    axes.legend(fontsize="x-small")


def _along(axes: Axes, transitions: pl.DataFrame, source: str) -> None:
    own = transitions.filter(pl.col("source") == source)
    first = own.filter(pl.col("episode") == own["episode"][0]).head(SHOWN_STEPS)
    for column, colour in (("true", "#555555"), ("recovered", COLOURS[1])):
        values = first[column].to_numpy()
        standardised = (values - values.mean()) / max(float(np.std(values)), 1e-12)
        axes.plot(first["step"], standardised, color=colour, label=column)
    axes.set(xlabel=f"step of one episode of {source}", ylabel="standardised")
    axes.legend(fontsize="x-small")


def _no_dates(format: str) -> dict[str, None]:
    return {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[format]
