"""Whether supplementary episodes help: does cloning them, too, foretell demonstrations that were left out?

The offline signal is the cloning error on held-out demonstrations. Episodes that look like more demonstrations are
cloned beside the rest in one copy, and not in another; they are accepted where the first foretells the held-out actions
better in the mean, and not much worse in the median: a few far better transitions must not pay for many worse ones.
Discrete actions: an error is a mistake of the executed action, not a cross entropy, which charges the clone of noisy
episodes for knowing their noise; and there must be clearly fewer mistakes, since they are few to count.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.algorithms.bc import cloning_errors
from iq_offline.algorithms.networks import DiscretePolicy, Policy
from iq_offline.baselines.sources import PeerData
from iq_offline.config.baselines import ScreenConfig
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.table import TransitionTable
from iq_offline.errors import NothingAlike
from iq_offline.training.batches import Rows, TransitionSampler

FEWEST_TRANSITIONS = 10
"""That a fold must keep of the demonstrations; fewer tell nothing of what is like them."""


class Clone(Protocol):
    """Clones the demonstrations of those data, with or without supplementary episodes."""

    def __call__(self, kept: PeerData, *, filtered: bool) -> Policy: ...


@dataclass(frozen=True)
class Verdict:
    """Errors on held-out demonstrations of the clone without and with supplementary episodes."""

    mean: tuple[float, float]
    median: tuple[float, float]
    largest_ratio: float
    margin: float = 0.0
    """By how much the mean must be less."""

    @property
    def accepted(self) -> bool:
        """Better in the mean by more than the margin, and the median no more than `largest_ratio` times worse."""
        return self.mean[0] - self.mean[1] > self.margin and self.median[1] <= self.largest_ratio * self.median[0]

    def metrics(self) -> dict[str, float]:
        """What is logged."""
        names = ("screen_error_without", "screen_error_with")
        found = dict(zip(names, self.mean, strict=True))
        found |= {f"{name}_median": value for name, value in zip(names, self.median, strict=True)}
        return found | {"screen_accepted": float(self.accepted)}


def screen(config: ScreenConfig, data: PeerData, cloned: Clone) -> Verdict | None:
    """Clone both ways on each fold's demonstrations, and compare on those left out.

    None, which is a refusal, where there are too few transitions, or nothing is like a fold's demonstrations.
    """
    errors: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    parts = list(folds(data, config.folds))
    if min(len(kept.split.rows) for kept, _ in parts) < FEWEST_TRANSITIONS:
        return None
    for kept, held_out in parts:
        for found, filtered in zip(errors, (False, True), strict=True):
            try:
                policy = cloned(kept, filtered=filtered)
            except NothingAlike:
                return None
            found.append(_errors(policy, data.expert, held_out))
    plain, mixed = (np.concatenate(found) for found in errors)
    return Verdict(
        mean=(float(plain.mean()), float(mixed.mean())),
        median=(float(np.median(plain)), float(np.median(mixed))),
        largest_ratio=config.largest_median_ratio,
        margin=chance(plain, mixed) if isinstance(data.expert.action_space, DiscreteActions) else 0.0,
    )


def chance(plain: NDArray[np.float64], mixed: NDArray[np.float64]) -> float:
    """Two deviations of the difference of two shares of mistakes on the same transitions, were neither clone better.

    Only transitions where one is mistaken tell, and each way is then as likely. Shapes: (N,), (N,) of 0 and 1.
    Source: McNemar 1947.
    """
    return float(2 * np.sqrt((plain != mixed).sum()) / len(plain))


def folds(data: PeerData, count: int) -> Iterator[tuple[PeerData, Rows]]:
    """Data without some demonstrations, and these ones' rows; of a single demonstration, stretches of it."""
    rows = data.split.rows
    groups = data.expert.episode_numbers(rows)
    if len(np.unique(groups)) == 1:
        groups = np.arange(len(rows)) * count // len(rows)
    numbers = np.unique(groups)
    for first in range(min(count, len(numbers))):
        left_out = np.isin(groups, numbers[first::count])
        yield replace(data, split=replace(data.split, rows=rows[~left_out])), rows[left_out]


@torch.no_grad()
def _errors(policy: Policy, table: TransitionTable, rows: Rows) -> NDArray[np.float64]:
    batch = TransitionSampler(table, rows, torch.device("cpu")).gather(torch.arange(len(rows)))
    policy = policy.to("cpu")
    if isinstance(policy, DiscretePolicy):
        return (policy.act(batch.observations) != batch.actions).double().numpy()
    return cloning_errors(policy, batch).double().numpy()
