"""Recovered reward against true reward: correlations by transition, by episode and within each source, with intervals.

Steps of one episode are alike, so every interval is a bootstrap that draws whole episodes anew, within each source.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata, spearmanr

from iq_offline.evaluation.scores import BOOTSTRAP_SEED, Floats

Integers = NDArray[np.int64]

CAPPED_AT = 5.0
"""Squared error, in units of 2 std^2, from which on the cloning null is 0."""
RESAMPLES = 500
"""Bootstrap samples of an interval."""
TIE = 0.02
"""Without an interval, correlations that differ by less count as equal."""
RANKED_EPISODES = 1000
"""Episodes of which all pairs are compared; of more, so many are drawn."""


@dataclass(frozen=True)
class Correlation:
    """Pearson and Spearman correlation of n pairs with 95 % intervals; None where either side is constant or n < 3.

    Its fields are the keys of the object that `reward --json` prints.
    """

    pearson: float | None
    spearman: float | None
    n: int
    pearson_ci95: list[float] | None = None
    spearman_ci95: list[float] | None = None


@dataclass(frozen=True)
class Clusters:
    """What a bootstrap draws anew: rows that belong together, drawn within their stratum.

    Shapes: cluster (N,), each row's number from 0 without a gap; stratum (clusters,).
    """

    cluster: Integers
    stratum: Integers

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "Clusters":
        """Episodes, within sources, of a frame with `source` and `episode`; its rows in their order."""
        pair = ["source", "episode"]
        keys = frame.select(pair).unique(maintain_order=True).with_row_index("cluster")
        joined = frame.select(pair).join(keys, on=pair, how="left", maintain_order="left")
        stratum = keys["source"].rank("dense").to_numpy().astype(np.int64)
        return cls(joined["cluster"].to_numpy().astype(np.int64), stratum)

    def draws(self, count: int) -> Floats:
        """How often each cluster is drawn, (count, clusters), seeded."""
        rng = np.random.default_rng(BOOTSTRAP_SEED)
        drawn = np.zeros((count, len(self.stratum)))
        for stratum in np.unique(self.stratum):
            here = np.flatnonzero(self.stratum == stratum)
            drawn[:, here] = rng.multinomial(len(here), np.full(len(here), 1 / len(here)), size=count)
        return drawn


def correlate(true: Floats, recovered: Floats, clusters: Clusters | None = None) -> Correlation:
    """Correlation of two vectors of one length; with intervals where `clusters` says what to draw anew.

    Spearman's interval takes the ranks as they are in all the data.
    """
    n = len(true)
    if n < 3 or np.ptp(true) == 0 or np.ptp(recovered) == 0:
        return Correlation(None, None, n)
    pearson, spearman = float(pearsonr(true, recovered)[0]), float(spearmanr(true, recovered)[0])
    if clusters is None or len(clusters.stratum) < 3:
        return Correlation(pearson, spearman, n)
    ranks = rankdata(true), rankdata(recovered)
    return Correlation(pearson, spearman, n, _interval(true, recovered, clusters), _interval(*ranks, clusters))


def ranking_accuracy(true: Floats, recovered: Floats) -> float | None:
    """Share of pairs of different true value that `recovered` puts in the same order, an equal value counting half.

    0.5 is guessing. None where no two true values differ. Of more than RANKED_EPISODES values so many are drawn.
    """
    if len(true) > RANKED_EPISODES:
        chosen = np.random.default_rng(BOOTSTRAP_SEED).choice(len(true), RANKED_EPISODES, replace=False)
        true, recovered = true[chosen], recovered[chosen]
    true_signs, signs = (np.sign(values[:, None] - values[None, :]) for values in (true, recovered))
    differ = true_signs > 0
    if not differ.any():
        return None
    return float(((signs[differ] + 1) / 2).mean())


def partial_correlation(true: Floats, recovered: Floats, given: Floats) -> float | None:
    """Pearson correlation of what a straight line in `given` leaves of both; None where nothing is left.

    Where `given` is constant this is Pearson's own. Shapes: all (N,).
    """
    if len(true) < 4:
        return None
    line = np.stack([np.ones(len(given)), given - given.mean()], axis=1)
    left = []
    for values in (true, recovered):
        residual = values - line @ np.linalg.lstsq(line, values, rcond=None)[0]
        if np.linalg.norm(residual) <= 1e-9 * float(np.linalg.norm(values)):
            return None
        left.append(residual)
    return float(pearsonr(*left)[0])


def reward_report(transitions: pl.DataFrame) -> dict[str, Any]:
    """The correlations of DESIGN's `reward` object.

    `transitions` has one row a step: source, episode, true, recovered, null_bc; and implicit and null_linear, where
    there are. An episode's value is the undiscounted sum over its steps; `null_length` sets the episode's length in
    place of the recovered return; `within_source` is the mean over sources of each source's own correlation, listed
    under `sources`.
    """
    episodes = transitions.group_by("source", "episode", maintain_order=True).agg(
        pl.col("true", "recovered", "null_bc").sum(),
        *(pl.col(name).sum() for name in ("implicit", "null_linear") if name in transitions.columns),
        pl.len().alias("length"),
    )
    report = _figures(transitions, episodes)
    report["within_source"] = _within(transitions, episodes)
    if "implicit" in transitions.columns:
        report["implicit"] = _with_episodes(transitions, episodes, "implicit")
    return report


def reading(report: Mapping[str, Any]) -> str:
    """What `reward_report` says of the recovered reward beside its strongest baselines, in one or two sentences."""
    linear, cloned = report.get("null_linear"), report["null_bc"]
    of_transitions = {"the cloning baseline": cloned, "the linear cloning baseline": linear}
    of_episodes = {"the episode's length": report["null_length"], "the cloning baseline": cloned["episode"]}
    of_episodes["the linear cloning baseline"] = (linear or {}).get("episode")
    sentences = [
        _comparison("transitions", report["transition"], of_transitions),
        _comparison("episodes", report["episode"], of_episodes),
    ]
    told = " ".join(filter(None, sentences))
    return told or "No correlation is defined: the true or the recovered reward is constant on these data."


def _comparison(level: str, recovered: Mapping[str, Any], baselines: Mapping[str, Any]) -> str | None:
    """The recovered reward beside the strongest baseline; a baseline inside its 95 % interval is a tie."""
    known = {name: found["pearson"] for name, found in baselines.items() if (found or {}).get("pearson") is not None}
    value = recovered["pearson"]
    if value is None:
        return None
    if not known:
        return f"Over {level}, the recovered reward correlates with the true one at {value:.2f} (Pearson)."
    strongest = max(known, key=lambda name: known[name])
    low, high = recovered.get("pearson_ci95") or (value - TIE, value + TIE)
    better, worse = low > known[strongest], high < known[strongest]
    if not better and not worse and abs(value - known[strongest]) > TIE:
        spread = f"Pearson {value:.2f}, 95 % interval {low:.2f} to {high:.2f}, against {known[strongest]:.2f}"
        return f"Over {level}, these data cannot tell the recovered reward from {strongest} ({spread})."
    how = "better than" if better else "worse than" if worse else "about as well as"
    figures = f"Pearson {value:.2f} against {known[strongest]:.2f}"
    return f"Over {level}, the recovered reward explains the true reward {how} {strongest} ({figures})."


def _figures(transitions: pl.DataFrame, episodes: pl.DataFrame) -> dict[str, Any]:
    """What is reported of all data, and of each source."""
    figures = {
        "transition": _of(transitions, "recovered"),
        "episode": _of(episodes, "recovered"),
        "null_length": _of(episodes, "length"),
        "null_bc": _with_episodes(transitions, episodes, "null_bc"),
        "length_controlled": _length_controlled(episodes),
        "ranking": _ranking(episodes),
    }
    if "null_linear" in transitions.columns:
        figures["null_linear"] = _with_episodes(transitions, episodes, "null_linear")
    return figures


def _with_episodes(transitions: pl.DataFrame, episodes: pl.DataFrame, candidate: str) -> dict[str, Any]:
    return _of(transitions, candidate) | {"episode": _of(episodes, candidate)}


def cloning_null(squared_error: Floats, std: float) -> Floats:
    """A reward that knows no dynamics: 1 where the clone's action is the recorded one, 0 from the cap on.

    `squared_error`: |policy(s) - a|^2 in scaled actions, shape (N,); `std` the policy's.
    """
    return np.asarray(1 - np.minimum(CAPPED_AT, squared_error / (2 * std**2)) / CAPPED_AT)


def _of(frame: pl.DataFrame, candidate: str) -> dict[str, Any]:
    true, other = frame["true"].to_numpy(), frame[candidate].to_numpy().astype(float)
    return asdict(correlate(true, other, Clusters.of(frame)))


def _length_controlled(episodes: pl.DataFrame) -> dict[str, Any]:
    """Episodes with their length taken out: sums over length, and the partial correlation of the sums given it."""
    true, other, length = (episodes[name].to_numpy().astype(float) for name in ("true", "recovered", "length"))
    rate = asdict(correlate(true / length, other / length, Clusters.of(episodes)))
    return {"per_step": rate, "partial": partial_correlation(true, other, length)}


def _ranking(episodes: pl.DataFrame) -> dict[str, Any]:
    true = episodes["true"].to_numpy()
    return {
        name: ranking_accuracy(true, episodes[column].to_numpy().astype(float))
        for name, column in (("accuracy", "recovered"), ("null_length", "length"), ("null_bc", "null_bc"))
    }


def _within(transitions: pl.DataFrame, episodes: pl.DataFrame) -> dict[str, Any]:
    sources = {}
    for name in transitions["source"].unique(maintain_order=True):
        own = pl.col("source") == name
        sources[name] = _figures(transitions.filter(own), episodes.filter(own))
    mean = {kind: _mean([entry["transition"][kind] for entry in sources.values()]) for kind in ("pearson", "spearman")}
    return mean | {"n": len(transitions), "sources": sources}


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def _interval(x: Floats, y: Floats, clusters: Clusters) -> list[float] | None:
    """Percentile interval of Pearson's correlation, from each cluster's sums; None where samples are constant."""
    x, y = (np.asarray(values, dtype=np.float64) - np.mean(values) for values in (x, y))
    columns = (np.ones_like(x), x, y, x * x, y * y, x * y)
    size = len(clusters.stratum)
    sums = np.stack([np.bincount(clusters.cluster, column, minlength=size) for column in columns], axis=1)
    n, sx, sy, sxx, syy, sxy = (clusters.draws(RESAMPLES) @ sums).T
    variances = (sxx - sx * sx / n) * (syy - sy * sy / n)
    usable = variances > 1e-12 * sxx * syy
    if usable.mean() < 0.95:
        return None
    drawn = (sxy - sx * sy / n)[usable] / np.sqrt(variances[usable])
    interval: list[float] = np.quantile(drawn, [0.025, 0.975]).tolist()
    return interval
