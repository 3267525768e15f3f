"""Rewards up to potential-based shaping: a policy cannot tell them apart, so no inverse method can either.

For every potential f, r(s, a) + gamma E f(s') - f(s) has the optimal policies of r ([NHR99] theorem 1), soft ones too.
"""

from dataclasses import dataclass

import numpy as np

from iq_offline.tabular.mdp import MDP, Floats


@dataclass(frozen=True, eq=False)
class ShapingFit:
    """recovered = scale * true + gamma E f(s') - f(s) + rest, by weighted least squares over scale and f.

    pearson: of the true reward with the recovered one less its shaping. partial: of the true with the recovered
    reward after the best shaping is taken from both; no less strict, since it credits nothing that shaping alone
    explains. potential f (S,). Both correlations flatter where few more pairs have positive weight than the S + 1
    fitted numbers.
    """

    pearson: float
    partial: float
    scale: float
    potential: Floats


def correlation_up_to_shaping(true: Floats, recovered: Floats, mdp: MDP, weights: Floats | None = None) -> ShapingFit:
    """Correlation of two rewards (S, A) after the best shaping term is removed; weights (S, A), even if None.

    A constant offset needs no number of its own: it is the shaping of a constant potential. So S + 1 numbers are
    fitted, to S * A pairs at most. Raises ValueError for wrong shapes, negative weights, or a true reward that is
    shaping and nothing else.
    """
    measure = np.ones_like(mdp.rewards) if weights is None else weights
    if not (true.shape == recovered.shape == measure.shape == mdp.rewards.shape):
        raise ValueError(f"expected {mdp.rewards.shape}, got {true.shape}, {recovered.shape}, {measure.shape}")
    if (measure < 0).any() or measure.sum() <= 0:
        raise ValueError("weights must not be negative, and not all zero")
    used = measure.ravel() > 0
    share = measure.ravel()[used] / measure.sum()
    columns = (mdp.gamma * mdp.dynamics - np.eye(mdp.states)[:, None]).reshape(-1, mdp.states)[used]
    x, y = true.ravel()[used], recovered.ravel()[used]

    x_rest, y_rest = _rest(columns, x, share), _rest(columns, y, share)
    if share @ x_rest**2 <= 1e-20 * max(1.0, float(share @ x**2)):
        raise ValueError("the true reward is a shaping term: nothing of it can be recovered")
    scale = float(share @ (x_rest * y_rest) / (share @ x_rest**2))
    potential = _fit(columns, y - scale * x, share)
    pearson = weighted_pearson(x, y - columns @ potential, share)
    return ShapingFit(pearson, weighted_pearson(x_rest, y_rest, share), scale, potential)


def weighted_pearson(x: Floats, y: Floats, weights: Floats) -> float:
    """Pearson correlation under weights that sum to one, (N,) each; zero where a side is constant to rounding."""
    x_rest, y_rest = x - float(weights @ x), y - float(weights @ y)
    scale = float(np.sqrt((weights @ x_rest**2) * (weights @ y_rest**2)))
    return float(weights @ (x_rest * y_rest)) / scale if scale > 1e-15 else 0.0


def _fit(columns: Floats, target: Floats, weights: Floats) -> Floats:
    """Weighted least squares, the shortest solution."""
    root = np.sqrt(weights)
    solution, *_ = np.linalg.lstsq(columns * root[:, None], target * root, rcond=None)
    return np.asarray(solution, dtype=np.float64)


def _rest(columns: Floats, target: Floats, weights: Floats) -> Floats:
    return np.asarray(target - columns @ _fit(columns, target, weights))
