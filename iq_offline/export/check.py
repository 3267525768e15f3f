"""Whether an exported policy is the original: the same actions on random and on recorded observations."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.algorithms.networks import LARGEST_STANDARDISED, DiscretePolicy, Policy
from iq_offline.algorithms.scaling import LARGEST_BYTE
from iq_offline.errors import RunError
from iq_offline.export.formats import Act, Acting, raw_observations

TOLERANCE = 1e-5
"""Of an action, relative to the largest one where that is beyond 1."""
RANDOM_OBSERVATIONS = 256
BATCH_SIZES = (1, 7)
"""Sizes of the first batches; the rest goes in one. A batch's size must be free."""

Observations = NDArray[Any]


def random_observations(policy: Policy, count: int = RANDOM_OBSERVATIONS, seed: int = 0) -> Observations:
    """Observations like the training data's and, every fourth, far outside, where clipping shows.

    Pictures are noise; categories are drawn uniformly.
    """
    random, vector = np.random.default_rng(seed), policy.layout.vector
    mean, std = policy.observation_mean.cpu().numpy(), policy.observation_std.cpu().numpy()
    spread = np.where(np.arange(count) % 4 == 3, 2 * LARGEST_STANDARDISED, 1.0)[:, None]
    drawn = mean + spread * std * random.normal(size=(count, len(mean)))
    drawn[:, vector:] = random.integers(0, int(LARGEST_BYTE), size=(count, len(mean) - vector), endpoint=True)
    for column, categories in enumerate(policy.layout.categories):
        if categories:
            drawn[:, column] = random.integers(0, categories, size=count)
    largest = np.finfo(np.float32).max
    return raw_observations(policy, np.clip(drawn, -largest, largest).astype(np.float32))


def compare(policy: Policy, act: Act, observations: Observations) -> float:
    """Largest difference of an exported policy's actions from the original's. Raises RunError beyond TOLERANCE."""
    batches = np.split(observations, np.cumsum(BATCH_SIZES))
    found = np.concatenate([act(batch) for batch in batches if len(batch)])
    narrowed = Acting(policy).narrowed(torch.from_numpy(observations))
    with torch.no_grad():
        expected = policy.act(narrowed).numpy()
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise RunError(
            f"the exported policy gives {found.dtype} {found.shape}, the original {expected.dtype} {expected.shape}",
            "export to another format (--format)",
        )
    if isinstance(policy, DiscretePolicy):
        difference, scale = _forgone(policy, narrowed, found)
    else:
        difference, scale = np.abs(found - expected), np.abs(expected)
    largest, allowed = float(difference.max()), TOLERANCE * max(1.0, float(scale.max()))
    if not largest <= allowed:
        raise RunError(
            f"the exported policy's actions differ from the original's by {largest:.3g} (allowed: {allowed:.3g})",
            "export to another format (--format)",
        )
    return largest


def _forgone(policy: DiscretePolicy, observations: torch.Tensor, actions: NDArray[Any]) -> tuple[NDArray[Any], Any]:
    """How much worse than its best the original rates the actions: zero where they are the same, or tied."""
    with torch.no_grad():
        values = policy(observations)
        chosen = values.gather(-1, torch.from_numpy(actions)[:, None]).squeeze(-1)
    return (values.amax(dim=-1) - chosen).numpy(), values.abs().numpy()
