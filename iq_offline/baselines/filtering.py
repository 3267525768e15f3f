"""The episode filter: supplementary episodes that serve as more demonstrations, unless a test rejects them.

[IQ21]'s objective asks where the expert goes and what it does there; an episode of the expert's kind among the
supplementary data answers that as a demonstration does. Finding them is part of cloning, not of inverse soft-Q.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.algorithms.bc import cloning_errors
from iq_offline.algorithms.networks import ContinuousPolicy, DiscretePolicy, Policy
from iq_offline.baselines.distances import Floats, Scaling, nearest_similarities
from iq_offline.baselines.residual_test import near, predictability_near, residual_sizes, residuals
from iq_offline.baselines.sources import Parts, PeerData, Recorded, recorded, samplers_of
from iq_offline.config.baselines import CrossValidationConfig, EpisodeFilterConfig, ResidualTestConfig
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.data.spaces import DiscreteActions
from iq_offline.data.table import TransitionTable
from iq_offline.errors import NoSimilarTransition
from iq_offline.training.batches import (
    DemonstrationMixture,
    Demonstrations,
    Rows,
    SupplementarySampler,
    TransitionSampler,
)
from iq_offline.training.loop import Progress, fit_clone

CloningConfig = ContinuousBCConfig | DiscreteBCConfig
CheckInterrupt = Callable[[Progress], None]
HELD_OUT_EVERY = 10
"""Every so many-th accepted episode is held out to choose the number of updates."""
MIN_FOLD_TRANSITIONS = 10
"""Demonstrated transitions that a fold must keep for cross-validation."""


def never_interrupt(_: Progress) -> None:
    """Let training go on."""


@dataclass(frozen=True)
class Found:
    """The demonstrations with more of them, or alone where none were found or accepted; how they are to be cloned.

    `metrics`: what is logged of the search. `accepted_episodes`: their numbers, by their table's SHA-256.
    """

    demonstrations: Demonstrations
    cloning: CloningConfig
    metrics: dict[str, float]
    accepted_episodes: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """Selected supplementary rows by table, and the weights that they are drawn by, (N,); None: uniformly."""

    parts: Parts
    weights: Floats | None
    metrics: dict[str, float]

    @classmethod
    def of(cls, weights: Floats, other: Recorded, parts: Parts) -> "Selection":
        """The rows, of `parts` and `other` alike, of the episodes whose weight, (E,), is above zero."""
        found = cls.of_transitions(weights[other.episodes], parts)
        return replace(found, metrics={"kept_episodes": float((weights > 0).sum()), **found.metrics})

    @classmethod
    def of_transitions(cls, weights: Floats, parts: Parts) -> "Selection":
        """The rows of `parts` whose weight, (N,), is above zero."""
        selected = weights > 0
        ends = np.cumsum([len(rows) for _, rows in parts])[:-1]
        split = zip(parts, np.split(selected, ends), strict=True)
        kept = [(table, rows[here]) for (table, rows), here in split if here.any()]
        uniform = bool((weights[selected] == 1).all())
        return cls(kept, None if uniform else weights[selected], {"kept_transitions": float(selected.sum())})

    def episodes(self) -> dict[str, list[int]]:
        """Numbers of the episodes in their table, by its SHA-256."""
        return {table.info.sha256: np.unique(table.episode_numbers(rows)).tolist() for table, rows in self.parts}

    def beside(self, expert: TransitionSampler, share: float) -> DemonstrationMixture:
        """With the demonstrations, which are that share of each batch."""
        samplers = samplers_of(self.parts, expert.device)
        return DemonstrationMixture(expert, SupplementarySampler(samplers, self.weights), share)


def more_demonstrations(
    config: EpisodeFilterConfig,
    cloning: CloningConfig,
    seed: int,
    data: PeerData,
    expert: TransitionSampler,
    check_interrupt: CheckInterrupt = never_interrupt,
) -> Found:
    """The demonstrations with supplementary episodes beside them; `expert` alone where a test rejects these.

    `cloning`: how the demonstrations alone are cloned. `check_interrupt`: called with the progress of the clones that
    the tests train; what it raises ends the search. Rewards are not read.
    Raises NoSimilarTransition where nothing is similar to a demonstration and no test is asked for.
    """
    if config.expert_share == 1:
        return Found(expert, cloning, {})
    parts = data.supplementary_parts
    return _Search(config, cloning, seed, data, expert, check_interrupt, parts, recorded(parts)).found()


def similarities(bandwidth: float, data: PeerData, other: Recorded) -> Floats:
    """Similarity of each transition of `other` to its nearest demonstrated one.

    Raises NoSimilarTransition where all are 0.
    """
    expert = recorded(data.demonstrated_parts)
    scaling = Scaling.fit([expert, other], data.expert.action_space)
    found = nearest_similarities(scaling.pairs(other), scaling.pairs(expert), expert.episodes, bandwidth)
    if not found.any():
        raise NoSimilarTransition(
            "no supplementary transition is anything like a demonstration",
            f"name other data, or widen what is similar (--set similarity.bandwidth={4 * bandwidth:g})",
        )
    return found


def episode_scores(similarities: Floats, episodes: NDArray[np.int64], short_episode: int) -> Floats:
    """Sum of each episode's similarities, divided by its steps or by `short_episode`, whichever is more.

    So a good but short episode scores low: demonstrations that fall early are no demonstrations.
    Shapes: (N,), (N,) numbers from zero -> (episodes,).
    """
    steps = np.maximum(np.bincount(episodes), short_episode)
    return np.asarray(np.bincount(episodes, weights=similarities) / steps)


def best_episodes(scores: Floats, steps: NDArray[np.int64], transitions: int) -> NDArray[np.int64]:
    """The highest-scored episodes, best first, while they have together at most so many steps; the best in any case.

    Equal scores keep the order of the data. Shapes: (E,), (E,) -> (chosen,).
    """
    order = np.argsort(-scores, kind="stable")
    fitting = int(np.searchsorted(np.cumsum(steps[order]), transitions, side="right"))
    return order[: max(1, fitting)]


def similar_episodes(config: EpisodeFilterConfig, data: PeerData, other: Recorded) -> Floats:
    """1 for the episodes that are most similar to the demonstrations, else 0, (E,). Raises NoSimilarTransition."""
    short = min(config.short_episode, round(data.demonstrated_steps))
    scores = episode_scores(similarities(config.similarity.bandwidth, data, other), other.episodes, short)
    chosen = np.zeros(len(scores))
    chosen[best_episodes(scores, np.bincount(other.episodes), config.transitions)] = 1
    return chosen


@dataclass(frozen=True)
class _Search:
    config: EpisodeFilterConfig
    cloning: CloningConfig
    seed: int
    data: PeerData
    expert: TransitionSampler
    check_interrupt: CheckInterrupt
    parts: Parts
    other: Recorded

    def found(self) -> Found:
        config, metrics = self.config, dict[str, float]()
        rejected = Found(self.expert, self.cloning, metrics)  # with all metrics that are added below
        try:
            weights = similar_episodes(config, self.data, self.other)
        except NoSimilarTransition:
            tests = {"residual_test": config.residual_test, "cross_validation": config.cross_validation}
            metrics |= {f"{name}_accepted": 0.0 for name, test in tests.items() if test}
            if not metrics:
                raise
            return rejected
        if config.residual_test is not None:
            weights, found = self._residual_test(config.residual_test, weights)
            metrics |= found
            if not metrics["residual_test_accepted"]:
                return rejected
        selection = Selection.of(weights, self.other, self.parts)
        if config.cross_validation is not None:
            metrics |= self._cross_validation(config.cross_validation, selection)
            if not metrics["cross_validation_accepted"]:
                return rejected
        mixture = selection.beside(self.expert, config.expert_share)
        factor, errors = self._update_factor(weights)
        return Found(mixture, _times(factor, self._robust), metrics | selection.metrics | errors, selection.episodes())

    def _beside(self, weights: Floats) -> DemonstrationMixture:
        return Selection.of(weights, self.other, self.parts).beside(self.expert, self.config.expert_share)

    def _residual_test(self, test: ResidualTestConfig, similar: Floats) -> tuple[Floats, dict[str, float]]:
        """Weights of the episodes that pass (the similar ones where none does), and whether they are the expert's."""
        other, clone = self.other, self._cloned(self._robust, self._beside(similar), test.updates)
        found = residuals(test, continuous(clone), other)
        passed = found.passed(test)
        weights = found.weights(passed) if passed.any() else similar
        expert = recorded(self.data.demonstrated_parts)
        scaling = Scaling.fit([expert, other], self.data.expert.action_space)
        close = (weights > 0)[other.episodes]
        close[close] = near(test.neighbourhood, expert, other.observations[close], scaling)
        metrics = {"residual_test_passed": float(passed.sum()), "residual_test_near": float(close.sum())}
        dimensions = other.observations.shape[1]
        if close.sum() < max(test.min_steps_near, test.min_steps_near_per_dimension * dimensions):
            return weights, metrics | {"residual_test_accepted": 0.0}
        own = continuous(self._cloned(self.cloning, self.expert, test.updates))
        predictability = predictability_near(test, own, other, close)
        accepted = float(predictability <= test.max_predictability_near)
        return weights, metrics | {"residual_test_predictability": predictability, "residual_test_accepted": accepted}

    def _cross_validation(self, test: CrossValidationConfig, selection: Selection) -> dict[str, float]:
        """Clone each fold's demonstrations with and without the episodes; compare errors on those left out.

        The episodes are accepted where their clone predicts the left-out actions better (`verdict`), and rejected where
        there are too few transitions.
        """
        rejected, table = {"cross_validation_accepted": 0.0}, self.data.expert
        parts = list(folds(self.data, test.folds))
        if min(len(kept.split.rows) for kept, _ in parts) < MIN_FOLD_TRANSITIONS:
            return rejected
        without, with_episodes = [], []
        for kept, held_out in parts:
            expert = TransitionSampler(kept.expert, kept.split.rows, self.expert.device)
            mixture = selection.beside(expert, self.config.expert_share)
            without.append(_errors(self._cloned(self.cloning, expert, test.updates), table, held_out))
            with_episodes.append(_errors(self._cloned(self._robust, mixture, test.updates), table, held_out))
        plain, mixed = np.concatenate(without), np.concatenate(with_episodes)
        margin = chance(plain, mixed) if isinstance(table.action_space, DiscreteActions) else 0.0
        return verdict(plain, mixed, test.max_median_ratio, margin)

    def _update_factor(self, weights: Floats) -> tuple[int, dict[str, float]]:
        """The factor whose clones predict every tenth accepted episode best, and its error."""
        factors, held_out = self.config.update_factors, np.zeros(len(weights), bool)
        held_out[np.flatnonzero(weights)[::HELD_OUT_EVERY]] = True
        known = np.where(held_out, 0, weights)
        if len(factors) == 1 or not known.any():
            return factors[0], {}
        beside = self._beside(known)
        counts = (weights * np.bincount(self.other.episodes))[held_out]

        def error(factor: int) -> float:
            longer = _times(factor, self._robust)
            clone = continuous(self._cloned(longer, beside, longer.fewest_updates))
            return float(np.average(residual_sizes(clone, self.other)[held_out], weights=counts))

        errors = {factor: error(factor) for factor in factors}
        best = min(factors, key=lambda factor: errors[factor])
        return best, {"update_factor": float(best), "update_factor_error": errors[best]}

    @property
    def _robust(self) -> CloningConfig:
        return self.cloning.model_copy(update={"loss": self.config.loss}) if self.config.loss else self.cloning

    def _cloned(self, config: CloningConfig, demonstrations: Demonstrations, updates: int) -> Policy:
        short = config.with_updates(min(updates, config.fewest_updates))
        for progress in fit_clone(short, self.seed, demonstrations, self.data.expert.action_space, self.expert.device):
            self.check_interrupt(progress)
            policy = progress.learner.policy
        return policy.to("cpu")


def verdict(plain: Floats, mixed: Floats, max_median_ratio: float, margin: float = 0.0) -> dict[str, float]:
    """Metrics of errors on held-out transitions, (N,) each, of the clone without and with supplementary episodes.

    Accepted where the mean is less by more than the margin, and the median is at most `max_median_ratio` times as
    large: a few far better transitions must not pay for many worse ones.
    """
    without, median_without = float(plain.mean()), float(np.median(plain))
    with_episodes, median_with = float(mixed.mean()), float(np.median(mixed))
    accepted = without - with_episodes > margin and median_with <= max_median_ratio * median_without
    return {
        "cross_validation_error_without": without,
        "cross_validation_error_with": with_episodes,
        "cross_validation_error_without_median": median_without,
        "cross_validation_error_with_median": median_with,
        "cross_validation_accepted": float(accepted),
    }


def chance(plain: Floats, mixed: Floats) -> float:
    """Two standard deviations of the difference of two shares of mistakes on the same transitions by equal clones.

    Only transitions where one clone alone is mistaken count, and each way is then as likely. Shapes: (N,), (N,) of 0
    and 1. Source: McNemar 1947.
    """
    return float(2 * np.sqrt((plain != mixed).sum()) / len(plain))


def folds(data: PeerData, count: int) -> Iterator[tuple[PeerData, Rows]]:
    """Data without some demonstrations, and the rows of these; of a single demonstration, stretches of it."""
    rows = data.split.rows
    groups = data.expert.episode_numbers(rows)
    if len(np.unique(groups)) == 1:
        groups = np.arange(len(rows)) * count // len(rows)
    numbers = np.unique(groups)
    for first in range(min(count, len(numbers))):
        left_out = np.isin(groups, numbers[first::count])
        yield replace(data, split=replace(data.split, rows=rows[~left_out])), rows[left_out]


@torch.no_grad()
def _errors(policy: Policy, table: TransitionTable, rows: Rows) -> Floats:
    """Discrete actions: mistakes of the executed action. A cross entropy charges the clone of noisy episodes for
    knowing their noise."""
    batch = TransitionSampler(table, rows, torch.device("cpu")).gather(torch.arange(len(rows)))
    if isinstance(policy, DiscretePolicy):
        return (policy.act(batch.observations) != batch.actions).double().numpy()
    return cloning_errors(policy, batch).double().numpy()


def _times(factor: int, cloning: CloningConfig) -> CloningConfig:
    """The same cloning with so many times its updates."""
    return cloning.with_updates(factor * cloning.fewest_updates)


def continuous(policy: Policy) -> ContinuousPolicy:
    """That policy, which is one of continuous actions."""
    assert isinstance(policy, ContinuousPolicy)
    return policy
