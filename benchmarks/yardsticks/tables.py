"""Rounds as Markdown: medians and ranges, ratios within a round, shares of the limit. A table without rows is ""."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from benchmarks.markdown import median_and_range, table

from .candidates import COMPARISONS, FRACTION_BAR, GEMM, LIMIT_SHAPE, Candidate
from .rounds import Round

HEAD = "CPU second"


def rate(name: str) -> Callable[[Round], float]:
    """Updates a CPU second of a candidate in a round."""
    return lambda found: float(found[name]["updates"] / found[name]["cpu_seconds"])


def limit(shape: str) -> Callable[[Round], float]:
    """GFLOP a CPU second of a matrix product in a round."""
    return lambda found: float(found[GEMM]["gflop_per_second"][shape])


def speeds(candidates: Sequence[Candidate], rounds: Sequence[Round]) -> str:
    """Updates a CPU second of each candidate, and the share of the limit that they are."""
    rows = []
    for candidate in candidates:
        if candidate.name == GEMM:
            continue
        of, mflop = rate(candidate.name), candidate.mflop
        share = "-"
        if mflop is not None and GEMM in rounds[0]:
            shares = [of(found) * mflop / (1000 * limit(LIMIT_SHAPE)(found)) for found in rounds]
            share = _spread(shares, "{:.0%}" if median(shares) >= 0.1 else "{:.1%}")
            if candidate.name in FRACTION_BAR:
                share += f"; bar {FRACTION_BAR[candidate.name]:.0%}"
        work = "-" if mflop is None else f"{mflop:.4g}"
        shown = _spread([of(found) for found in rounds], "{:.4g}")
        rows.append([f"`{candidate.name}`", candidate.what, shown, work, share])
    columns = ("candidate", "update", f"updates / {HEAD}: median (least-most)", "MFLOP / update")
    return table([*columns, "share of the GEMM limit"], rows)


def ratios(names: Sequence[str], rounds: Sequence[Round]) -> str:
    """Ours over each peer: medians of the rounds' own ratios."""
    rows = []
    for pair in COMPARISONS:
        if pair.ours in names and pair.peer in names:
            found = [rate(pair.ours)(each) / rate(pair.peer)(each) for each in rounds]
            bar = "-" if pair.bar is None else f"{pair.bar}, {'met' if median(found) >= pair.bar else 'missed'}"
            rows.append([f"`{pair.ours}`", f"`{pair.peer}`", pair.work, _spread(found, "{:.2f}"), bar])
    return table(["ours", "peer", "work", "ratio: median (least-most)", "bar"], rows)


def limits(rounds: Sequence[Round]) -> str:
    """This machine's matrix products."""
    rows = []
    for shape in rounds[0][GEMM]["gflop_per_second"]:
        mark = " (the limit)" if shape == LIMIT_SHAPE else ""
        rows.append([f"{shape}{mark}", _spread([limit(shape)(found) for found in rounds], "{:.1f}")])
    return table(["rows x m x n", f"GFLOP / {HEAD}: median (least-most)"], rows)


def counts(candidates: Sequence[Candidate]) -> str:
    """How the floating-point operations of an update are counted."""
    rows = []
    for candidate in candidates:
        if candidate.ours and candidate.terms is not None:
            rows += [[f"`{candidate.name}`", what, f"{mflop:.4g}"] for what, mflop in candidate.terms.items()]
            rows.append([f"`{candidate.name}`", "together", f"{candidate.mflop:.4g}"])
    return table(["update", "of which", "MFLOP"], rows)


_spread = partial(median_and_range, separator="-")
