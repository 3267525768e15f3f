"""Tables as plain lines of a limited width."""

from collections.abc import Sequence

from iq_offline.report.cells import Cells
from iq_offline.report.shortening import shortened

GAP = "  "
SHORTEST = 12
"""Characters that a name keeps at least."""
NAMES = ("run", "dataset", "method", "demos", "sub", "settings")
"""Headers that every part of a table too wide for one line begins with."""
BREAKS = ("r trans",)
"""Headers that begin a part of their own where one line is not enough, so that a correlation stays with its nulls."""


def aligned(shown: Cells, width: int) -> str:
    """The table in aligned lines of at most `width` characters.

    What does not fit beside the rest follows in a further part that repeats what names the row; names that
    fill more than two thirds of a line are shortened.
    """
    columns = [list(column) for column in zip(shown.headers, *shown.rows, strict=True)]
    names = [place for place, header in enumerate(shown.headers) if header in NAMES]
    _shorten(columns, names, 2 * width // 3)
    sizes = [max(map(len, column)) for column in columns]
    parts = _parts(sizes, names, [shown.headers.index(header) for header in BREAKS if header in shown.headers], width)
    return "\n\n".join(_part([columns[i] for i in part], [shown.numeric[i] for i in part]) for part in parts)


def _parts(sizes: Sequence[int], names: Sequence[int], breaks: Sequence[int], width: int) -> list[list[int]]:
    """Places of the columns of each part: all where they fit, else the names and then as many others as fit."""

    def line(part: Sequence[int]) -> int:
        return sum(sizes[place] + len(GAP) for place in part) - len(GAP)

    if line(range(len(sizes))) <= width:
        return [list(range(len(sizes)))]
    parts = [list(names)]
    for place in (place for place in range(len(sizes)) if place not in names):
        if len(parts[-1]) > len(names) and (place in breaks or line([*parts[-1], place]) > width):
            parts.append(list(names))
        parts[-1].append(place)
    return parts


def _shorten(columns: list[list[str]], names: Sequence[int], limit: int) -> None:
    """Shorten the longest names until they fit the limit together; different ones stay different."""
    sizes = {place: max(map(len, columns[place])) for place in names}
    while names and sum(sizes.values()) + len(GAP) * len(names) > limit and max(sizes.values()) > SHORTEST:
        sizes[max(sizes, key=lambda place: sizes[place])] -= 1
    for place, size in sizes.items():
        columns[place] = [columns[place][0], *shortened(columns[place][1:], size)]


def _part(columns: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    sizes = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return "\n".join(
        GAP.join(
            f"{cell:{'>' if right else '<'}{size}}" for cell, right, size in zip(row, numeric, sizes, strict=True)
        ).rstrip()
        for row in rows
    )
