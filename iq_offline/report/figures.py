"""What all pictures share: style, colours, size and encoding, and names that never take the axes' room."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iq_offline.report.shortening import wrapped

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#b2a400")
"""Okabe and Ito's, told apart by colour-blind readers; yellow and black replaced for white paper."""
GREY = "#777777"
LINES = ("-", "--", ":", "-.")
MARKERS = "o^sDvP*X"
WIDTH_INCHES, PHONE_INCHES = 6.5, 3.6
"""Width of a picture on a desk, and of the same picture on a phone, where text of its size can still be read."""
DPI = 160
SEED_LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (8, 3)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 4)), (0, (12, 2)))
"""Styles that tell the seeds of one method apart; they begin anew after the last."""
STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
    "lines.solid_capstyle": "butt",
}
"""A line ends where its data end: other caps would lengthen an interval by half its width."""
UNDATED = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
"""Metadata by format: without what would differ between two equal pictures."""
TEXT_SIZE = "small"
LINE_INCHES = 0.14
"""Height of a line of text of that size."""
GAP_INCHES = 0.07
ANCHOR_MARGIN = 5.0
"""Room beyond 0 and 100 on an axis of scores."""
ROW_CHARACTERS, ROW_LINES = 32, 4
PHONE_ROW_CHARACTERS, PHONE_ROW_LINES = 14, 6
LEGEND_CHARACTERS, LEGEND_LINES, LEGEND_COLUMNS = 40, 3, 2


@contextmanager
def encoded_figure(
    height: float, width: float = WIDTH_INCHES, format: str = "png"
) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure as `styled_figure` has it, and the bytes that it becomes."""
    encoded = io.BytesIO()
    with styled_figure(height, width) as figure:
        yield figure, encoded
        figure.savefig(encoded, format=format, dpi=DPI, metadata=UNDATED[format])


@contextmanager
def styled_figure(height: float, width: float = WIDTH_INCHES) -> Iterator[Figure]:
    """A figure to draw in, apart from pyplot's and the user's own settings; `height` and `width` in inches."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield Figure(figsize=(width, height), layout="constrained")


def colour_of(place: int) -> str:
    """The colour of the line, row or source at that place; they begin anew after the last."""
    return COLOURS[place % len(COLOURS)]


def line_style(place: int) -> dict[str, Any]:
    """Colour and style of a line; the colours begin anew in another style."""
    return {"color": colour_of(place), "linestyle": LINES[place // len(COLOURS) % len(LINES)]}


def is_narrow(width: float) -> bool:
    """Whether a figure of that width is for a phone: panels stand below each other, names fold sooner."""
    return width < WIDTH_INCHES


def _folded(names: Sequence[str], width: float) -> list[str]:
    """Names of rows, in lines that leave the axes their room."""
    if is_narrow(width):
        return wrapped(names, PHONE_ROW_CHARACTERS, PHONE_ROW_LINES)
    return wrapped(names, ROW_CHARACTERS, ROW_LINES)


def row_inches(names: Sequence[str], least: float, width: float = WIDTH_INCHES) -> float:
    """The height of a row that the longest of the names, folded, fits into."""
    lines = max((text.count("\n") + 1 for text in _folded(names, width)), default=1)
    return max(least, lines * LINE_INCHES + GAP_INCHES)


def name_rows(axes: Axes, names: Sequence[str], width: float = WIDTH_INCHES) -> None:
    """The names beside the rows 0, 1, ... of the axes, the first on top."""
    axes.set_yticks(range(len(names)), _folded(names, width), fontsize=TEXT_SIZE)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


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
    columns = 1 if is_narrow(figure.get_figwidth()) else min(LEGEND_COLUMNS, len(names))
    figure.set_figheight(figure.get_figheight() + height / columns + LINE_INCHES)
    figure.legend(found.values(), names, loc="outside lower center", ncols=columns, fontsize=TEXT_SIZE)


def mark_anchors(axes: Axes, marks: Sequence[str]) -> None:
    """Vertical lines at 0 and 100, named above the axes; the axis shows both whatever the data."""
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -ANCHOR_MARGIN), max(high, 100 + ANCHOR_MARGIN))
    for value, name in zip((0, 100), marks, strict=True):
        axes.axvline(value, color=GREY, linestyle="--", linewidth=1, zorder=0)
        axes.annotate(
            name, (value, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
            ha="center", va="bottom", fontsize="x-small", color=GREY,
        )  # fmt: skip


def scatter_by_source(axes: Axes, rewards: pl.DataFrame, sources: Sequence[str], **style: Any) -> None:
    """Recovered against true reward, in a colour and a marker for each source."""
    for place, source in enumerate(sources):
        own = rewards.filter(pl.col("source") == source)
        look: dict[str, Any] = {"color": colour_of(place), "marker": MARKERS[place % len(MARKERS)]}
        axes.scatter(own["true"], own["recovered"], linewidths=0, label=source, **look, **style)


def episode_sums(transitions: pl.DataFrame) -> pl.DataFrame:
    """True and recovered reward of each episode, summed over its recorded steps."""
    return transitions.group_by("source", "episode", maintain_order=True).agg(pl.col("true", "recovered").sum())
