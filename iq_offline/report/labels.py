"""Names of rows and lines in a picture: folded, so that they never take the axes' room."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iq_offline.report.shortening import wrapped

SIZE = "small"
LINE_INCHES = 0.14
"""Height of a line of that size."""
GAP_INCHES = 0.07
ROW_CHARACTERS, ROW_LINES = 32, 4
LEGEND_CHARACTERS, LEGEND_LINES, LEGEND_COLUMNS = 40, 3, 2


def row_inches(names: Sequence[str], least: float) -> float:
    """The height of a row that the longest of the names, folded, fits into."""
    lines = max((text.count("\n") + 1 for text in wrapped(names, ROW_CHARACTERS, ROW_LINES)), default=1)
    return max(least, lines * LINE_INCHES + GAP_INCHES)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """The names beside the rows 0, 1, ... of the axes, the first on top."""
    axes.set_yticks(range(len(names)), wrapped(names, ROW_CHARACTERS, ROW_LINES), fontsize=SIZE)
    axes.set_ylim(len(names) - 0.5, -0.5)


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend of all that the axes name, each name once, below them; the figure grows by its height."""
    found: dict[str, Artist] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    names = wrapped(list(found), LEGEND_CHARACTERS, LEGEND_LINES)
    lines = sum(name.count("\n") + 1 for name in names)
    height = lines * LINE_INCHES + len(names) * GAP_INCHES
    figure.set_figheight(figure.get_figheight() + height / min(LEGEND_COLUMNS, len(names)) + LINE_INCHES)
    figure.legend(found.values(), names, loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=SIZE)
