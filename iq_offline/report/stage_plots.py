"""Pictures of single stages: a dataset (`inspect`), a recovered reward (`reward`), a GridWorld (`gridworld`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from iq_offline.data.files import whole_file
from iq_offline.data.spaces import ContinuousActions
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError
from iq_offline.report.figures import COLOURS, UNDATED, encoded_figure, episode_sums, scatter_by_source

SUFFIXES = tuple(f".{format}" for format in UNDATED)
BINS = 30
HEXAGONS = 40
SHOWN_STEPS = 300
"""Of the episode that is drawn step by step."""
COLOUR_MAP = "cividis"
"""Even steps of lightness, told apart by colour-blind readers too."""
LIGHT = 0.6
"""Above this share of a panel's range the cell is light, and its number dark."""


def check_picture(path: Path) -> None:
    """Raises ConfigError for a name that is no picture's."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path} is no picture's name", f"end it with one of: {', '.join(SUFFIXES)}")


def check_grid_picture(path: Path) -> None:
    """Raises ConfigError for a name that is no picture's, or in a folder that does not exist."""
    check_picture(path)
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder, so {path.name} has no place", "make it, or name another")


def _write(path: Path, picture: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(picture)


def write_dataset_plot(table: TransitionTable, summary: dict[str, Any], path: Path) -> None:
    """Histograms of episode returns and lengths, and each action's range, whole or not at all."""
    with encoded_figure(3.4, 11.0, path.suffix[1:]) as (figure, picture):
        returns, lengths, actions = figure.subplots(1, 3)
        figure.suptitle(f"{summary['dataset']}: {summary['episodes']:,} episodes, {summary['steps']:,} steps")
        _histogram(returns, table.episodes["return"].to_numpy(), "return of an episode")
        _histogram(lengths, table.episodes["steps"].to_numpy(), "steps of an episode")
        if isinstance(table.action_space, ContinuousActions):
            _action_ranges(actions, summary["actions"], table.action_space)
        else:
            _action_counts(actions, table, table.action_space.count)
    _write(path, picture.getvalue())


def _histogram(axes: Axes, values: np.ndarray[Any, Any], name: str) -> None:
    axes.hist(values, bins=BINS, color=COLOURS[0])
    axes.axvline(values.mean(), color=COLOURS[1], label=f"mean {values.mean():,.1f}")
    axes.set(xlabel=name, ylabel="episodes")
    axes.legend(fontsize="small")


def _action_ranges(axes: Axes, actions: list[dict[str, Any]], space: ContinuousActions) -> None:
    """Bounds in grey, the range of the data and their mean ± one deviation within; saturation in percent beside."""
    for place, (action, low, high) in enumerate(zip(actions, space.low, space.high, strict=True)):
        axes.plot([low, high], [place, place], color="#cccccc", linewidth=7)
        axes.plot([action["min"], action["max"]], [place, place], color=COLOURS[5], linewidth=4)
        axes.errorbar(action["mean"], place, xerr=action["std"], fmt="o", color=COLOURS[0], markersize=4)
        bounded = action["at_low"] is not None
        saturated = f"{100 * (action['at_low'] + action['at_high']):.0f} %" if bounded else ""
        axes.annotate(saturated, (high, place), xytext=(4, -3), textcoords="offset points", fontsize="small")
    axes.set(
        xlabel="action (grey: its bounds; right: share at a bound)", ylabel="dimension", yticks=range(len(actions))
    )
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def _action_counts(axes: Axes, table: TransitionTable, count: int) -> None:
    actions = table.actions(table.transition_rows)[:, 0].astype(int)
    axes.bar(range(count), np.bincount(actions, minlength=count) / len(actions), color=COLOURS[0])
    axes.set(xlabel="action", ylabel="share of the steps", xticks=range(count) if count <= 20 else [0, count - 1])


def reward_plot(transitions: pl.DataFrame, format: str = "png") -> bytes:
    """A picture of `transitions` (source, episode, step, true, recovered): a row of densities by source, then episodes.

    Below, true and recovered reward along the first source's first episode, each less its mean and by its deviation.
    """
    sources = transitions["source"].unique(maintain_order=True).to_list()
    rows = (len(sources) + 2) // 3
    with encoded_figure(2.1 * rows + 4.4, format=format) as (figure, picture):
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
    return picture.getvalue()


def _density(axes: Axes, own: pl.DataFrame, source: str) -> None:
    """How many transitions lie where, on a logarithmic scale of colours."""
    axes.hexbin(own["true"], own["recovered"], gridsize=HEXAGONS, bins="log", mincnt=1, cmap="viridis", linewidths=0)
    axes.set_title(source, fontsize="small")
    axes.set_xlabel("true reward", fontsize="x-small")
    axes.set_ylabel("recovered", fontsize="x-small")
    axes.tick_params(labelsize="x-small")


def _episodes(axes: Axes, transitions: pl.DataFrame, sources: list[str]) -> None:
    scatter_by_source(axes, episode_sums(transitions), sources, s=14, alpha=0.6)
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


def write_grid_plot(panels: Mapping[str, Sequence[Sequence[float]]], path: Path) -> None:
    """Panels by name, rows of cells each, two to a row; every panel has its own colour scale. Whole or not at all."""
    with encoded_figure(6.8, format=path.suffix[1:]) as (figure, picture):
        places = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).ravel()
        for axes, (name, cells) in zip(places, panels.items(), strict=False):
            _panel(axes, name.replace("_", " "), np.asarray(cells))
    _write(path, picture.getvalue())


def _panel(axes: Axes, title: str, cells: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
    axes.imshow(cells, cmap=COLOUR_MAP)
    low, width = cells.min(), max(float(np.ptp(cells)), 1e-12)
    for (row, column), value in np.ndenumerate(cells):
        ink = "black" if (value - low) / width > LIGHT else "white"
        axes.text(column, row, f"{round(float(value), 1) + 0.0:.1f}", color=ink, ha="center", va="center")
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
