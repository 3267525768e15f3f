"""One picture of a dataset: returns, lengths, and where its actions lie within their bounds."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iq_offline.data.files import whole_file
from iq_offline.data.spaces import ContinuousActions
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError
from iq_offline.report.plots import COLOURS, DPI, STYLE

SIZE_INCHES = (11.0, 3.4)
BINS = 30
SUFFIXES = (".png", ".pdf", ".svg")


def check_picture(path: Path) -> None:
    """Raises ConfigError for a name that is no picture's."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path} is no picture's name", f"end it with one of: {', '.join(SUFFIXES)}")


def write_dataset_plot(table: TransitionTable, summary: dict[str, Any], path: Path) -> None:
    """Histograms of episode returns and lengths, and each action's range, whole or not at all."""
    with mpl.rc_context(), whole_file(path) as temporary:
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        returns, lengths, actions = figure.subplots(1, 3)
        figure.suptitle(f"{summary['dataset']}: {summary['episodes']:,} episodes, {summary['steps']:,} steps")
        _histogram(returns, table.episodes["return"].to_numpy(), "return of an episode")
        _histogram(lengths, table.episodes["steps"].to_numpy(), "steps of an episode")
        if isinstance(table.action_space, ContinuousActions):
            _action_ranges(actions, summary["actions"], table.action_space)
        else:
            _action_counts(actions, table, table.action_space.count)
        figure.savefig(temporary, format=path.suffix[1:], dpi=DPI)


def _histogram(axes: Axes, values: np.ndarray[Any, Any], name: str) -> None:
    axes.hist(values, bins=BINS, color=COLOURS[0])
    axes.axvline(values.mean(), color=COLOURS[1], label=f"mean {values.mean():,.1f}")
    axes.set(xlabel=name, ylabel="episodes")
    axes.legend(fontsize="small")


def _action_ranges(axes: Axes, actions: list[dict[str, Any]], space: ContinuousActions) -> None:
    """Bounds in grey, the range of the data and their mean ± one deviation within; saturation in percent beside."""
    for place, (action, low, high) in enumerate(zip(actions, space.low, space.high, strict=True)):
        axes.plot([low, high], [place, place], color="#cccccc", linewidth=7, solid_capstyle="butt")
        axes.plot([action["min"], action["max"]], [place, place], color=COLOURS[5], linewidth=4, solid_capstyle="butt")
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
    taken = table.actions(table.transition_rows)[:, 0].astype(int)
    axes.bar(range(count), np.bincount(taken, minlength=count) / len(taken), color=COLOURS[0])
    axes.set(xlabel="action", ylabel="share of the steps", xticks=range(count) if count <= 20 else [0, count - 1])
