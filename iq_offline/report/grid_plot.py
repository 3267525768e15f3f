"""One picture of a GridWorld: true and recovered reward and value, the numbers in the cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iq_offline.data.files import whole_file
from iq_offline.errors import ConfigError
from iq_offline.report.dataset_plot import check_picture
from iq_offline.report.plots import DPI, STYLE

SIZE_INCHES = (6.5, 6.8)
COLOUR_MAP = "cividis"
"""Even steps of lightness, told apart by colour-blind readers too."""
LIGHT = 0.6
"""Above this share of a panel's range the cell is light, and its number dark."""


def check_grid_picture(path: Path) -> None:
    """Raises ConfigError for a name that is no picture's, or in a folder that does not exist."""
    check_picture(path)
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder, so {path.name} has no place", "make it, or name another")


def write_grid_plot(panels: Mapping[str, Sequence[Sequence[float]]], path: Path) -> None:
    """Panels by name, rows of cells each, two to a row; every panel has its own colour scale. Whole or not at all."""
    with mpl.rc_context(), whole_file(path) as temporary:
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        places = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).ravel()
        for axes, (name, cells) in zip(places, panels.items(), strict=False):
            _panel(axes, name.replace("_", " "), np.asarray(cells))
        figure.savefig(temporary, format=path.suffix[1:], dpi=DPI)


def _panel(axes: Axes, title: str, cells: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
    axes.imshow(cells, cmap=COLOUR_MAP)
    low, width = cells.min(), max(float(np.ptp(cells)), 1e-12)
    for (row, column), value in np.ndenumerate(cells):
        ink = "black" if (value - low) / width > LIGHT else "white"
        axes.text(column, row, f"{round(float(value), 1) + 0.0:.1f}", color=ink, ha="center", va="center")
    axes.set(title=title, xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
