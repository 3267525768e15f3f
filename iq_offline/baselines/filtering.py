"""The episode filter: supplementary episodes that serve as more demonstrations, unless a test rejects them.

[IQ21]'s objective asks where the expert goes and what it does there; an episode of the expert's kind among the
supplementary data answers that as a demonstration does. Finding them is part of cloning, not of inverse soft-Q.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from iq_offline.algorithms.bc import cloning_errors
from iq_offline.algorithms.networks import ContinuousPolicy, DiscretePolicy, Policy
from iq_offline.baselines.distances import Floats, Scaling, nearest_similarities
from iq_offline.baselines.drift_test import drift_p_value, features_and_residuals
from iq_offline.baselines.residual_test import residual_sizes, residuals
from iq_offline.baselines.sources import Parts, PeerData, Recorded, recorded, samplers_of
from iq_offline.config.baselines import CrossValidationConfig, DriftTestConfig, EpisodeFilterConfig, ResidualTestConfig
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
STRETCHES = 5
"""Parts of a fold's held-out transitions that cross-validation compares mean errors of."""
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
        if config.cross_validation is not None and len(self.data.split.rows) < MIN_FOLD_TRANSITIONS:
            metrics["cross_validation_accepted"] = 0.0
            return rejected
        try:
            weights = similar_episodes(config, self.data, self.other)
        except NoSimilarTransition:
            if config.cross_validation is None:
                raise
            metrics["cross_validation_accepted"] = 0.0
            return rejected
        clone: Policy | None = None
        if config.residual_test is not None:
            clone = self._cloned(self._robust, self._beside(weights), config.residual_test.updates)
            weights, passed = self._residual_test(config.residual_test, continuous(clone), weights)
            metrics["residual_test_passed"] = float(passed)
        selection = Selection.of(weights, self.other, self.parts)
        if config.drift_test is not None:
            beside = selection.beside(self.expert, config.expert_share)
            clone = clone or self._cloned(self._robust, beside, config.drift_test.updates)
            metrics["drift_p_value"] = self._drift(config.drift_test, clone, selection.parts)
            if metrics["drift_p_value"] < config.drift_test.level:
                return rejected
        if config.cross_validation is not None:
            metrics |= self._cross_validation(config.cross_validation, selection)
            if not metrics["cross_validation_accepted"]:
                return rejected
        mixture = selection.beside(self.expert, config.expert_share)
        enough = metrics.get("cross_validation_update_factor", 0)
        factor, errors = self._update_factor(weights, [each for each in config.update_factors if each >= enough])
        return Found(mixture, _times(factor, self._robust), metrics | selection.metrics | errors, selection.episodes())

    def _beside(self, weights: Floats) -> DemonstrationMixture:
        return Selection.of(weights, self.other, self.parts).beside(self.expert, self.config.expert_share)

    def _residual_test(self, test: ResidualTestConfig, clone: ContinuousPolicy, similar: Floats) -> tuple[Floats, int]:
        """Weights of the episodes that pass (the similar ones where none does), and how many pass."""
        found = residuals(test, clone, self.other)
        passed = found.passed(test)
        return found.weights(passed) if passed.any() else similar, int(passed.sum())

    def _drift(self, test: DriftTestConfig, clone: Policy, chosen: Parts) -> float:
        """p-value of the hypothesis that the policy behind the chosen episodes did not change."""
        negligible = (self.config.residual_test or ResidualTestConfig()).negligible_residual
        episodes = recorded(chosen)
        counts = [len(np.unique(table.episode_numbers(rows))) for table, rows in chosen]
        found = features_and_residuals(clone, episodes, negligible)
        return drift_p_value(test, *found, episodes.episode_slices(), counts)

    def _cross_validation(self, test: CrossValidationConfig, selection: Selection) -> dict[str, float]:
        """Clone each fold's demonstrations with and without the episodes; compare errors on those left out.

        The episodes are accepted where a clone of one of the update factors predicts the left-out actions better
        (`verdict`), and rejected where there are too few transitions. The factors are tried in turn, until one accepts
        the episodes or has no smaller error than a clone without them. Folds are added until the test that is turned
        round says that the episodes harm.
        """
        parts = list(folds(self.data, test.folds))
        if min(len(kept.split.rows) for kept, _ in parts) < MIN_FOLD_TRANSITIONS:
            return {"cross_validation_accepted": 0.0}
        discrete = isinstance(self.data.expert.action_space, DiscreteActions)
        compare, factors = fewer_mistakes if discrete else smaller_errors, self.config.update_factors
        experts = [TransitionSampler(kept.expert, kept.split.rows, self.expert.device) for kept, _ in parts]
        without, metrics = list[list[Floats]](), dict[str, float]()
        for factor in factors:
            with_episodes = list[Floats]()
            for fold, (expert, (_, rows)) in enumerate(zip(experts, parts, strict=True)):
                mixture = selection.beside(expert, self.config.expert_share)
                if fold == len(without):
                    without.append(self._held_out_errors(test, self.cloning, expert, rows, 1))
                with_episodes += self._held_out_errors(test, self._robust, mixture, rows, factor)
                plain = [part for stretches in without[: fold + 1] for part in stretches]
                harmful = compare(with_episodes, plain) < test.level
                if harmful:
                    break
            metrics = verdict(plain, with_episodes, test.level, compare, tests=len(factors))
            metrics |= {"cross_validation_update_factor": float(factor), "cross_validation_folds": float(fold + 1)}
            smaller = metrics["cross_validation_error_with"] < metrics["cross_validation_error_without"]
            if metrics["cross_validation_accepted"] or harmful or not smaller:
                break
        return metrics

    def _held_out_errors(
        self, test: CrossValidationConfig, cloning: CloningConfig, shown: Demonstrations, held_out: Rows, factor: int
    ) -> list[Floats]:
        """Of a clone of what is shown: errors on the stretches that it has not seen."""
        errors = _errors(self._cloned(cloning, shown, test.updates, factor), self.data.expert, held_out)
        return [part for part in np.array_split(errors, STRETCHES) if len(part)]

    def _update_factor(self, weights: Floats, factors: Sequence[int]) -> tuple[int, dict[str, float]]:
        """The factor whose clones predict every tenth accepted episode best, and its error."""
        held_out = np.zeros(len(weights), bool)
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

    def _cloned(self, config: CloningConfig, demonstrations: Demonstrations, updates: int, factor: int = 1) -> Policy:
        short = config.with_updates(factor * min(updates, config.fewest_updates))
        for progress in fit_clone(short, self.seed, demonstrations, self.data.expert.action_space, self.expert.device):
            self.check_interrupt(progress)
            policy = progress.learner.policy
        return policy.to("cpu")


Errors = Sequence[Floats]
"""Errors on the transitions of each held-out stretch."""


def verdict(
    without: Errors, with_episodes: Errors, level: float, test: Callable[[Errors, Errors], float], tests: int = 1
) -> dict[str, float]:
    """Metrics of errors on held-out stretches, of the clones without and with supplementary episodes.

    `test`: p-value of the hypothesis that the episodes do not help. They are accepted where it is below `level`, and
    the more `tests` there are, the larger it counts (Bonferroni).
    """
    p_value = min(1.0, tests * test(without, with_episodes))
    return {
        "cross_validation_error_without": float(np.concatenate(without).mean()),
        "cross_validation_error_with": float(np.concatenate(with_episodes).mean()),
        "cross_validation_p_value": p_value,
        "cross_validation_accepted": float(p_value < level),
    }


def smaller_errors(without: Errors, with_episodes: Errors) -> float:
    """p-value of a paired, one-sided t-test on the logarithms of the stretches' mean errors; 1 for fewer than two.

    Stretches stand for steps, whose errors depend on each other. The test takes stretches for independent, although
    those of one fold share two clones: its level is approximate.
    """
    from scipy.stats import ttest_1samp

    smallest = np.finfo(np.float64).tiny
    logs = [np.log([max(float(part.mean()), smallest) for part in stretches]) for stretches in (with_episodes, without)]
    differences = logs[0] - logs[1]
    if len(differences) < 2 or not differences.any():
        return 1.0
    if np.ptp(differences) == 0:  # no variance to test by: equal gains everywhere
        return 0.0 if differences[0] < 0 else 1.0
    return float(ttest_1samp(differences, 0.0, alternative="less").pvalue)


def fewer_mistakes(without: Errors, with_episodes: Errors) -> float:
    """p-value of a one-sided sign test on shares of mistakes, 0 or 1 a transition. Source: McNemar 1947.

    Only transitions where one clone alone is mistaken count, and by equal clones each way is as likely.
    """
    from scipy.stats import binomtest

    plain, mixed = np.concatenate(without), np.concatenate(with_episodes)
    better, different = int((plain > mixed).sum()), int((plain != mixed).sum())
    return float(binomtest(better, different, alternative="greater").pvalue) if different else 1.0


def folds(data: PeerData, count: int) -> Iterator[tuple[PeerData, Rows]]:
    """Data without some demonstrations, and the rows of these; of one or two demonstrations, stretches of them."""
    rows = data.split.rows
    groups = data.expert.episode_numbers(rows)
    if len(np.unique(groups)) < 3:
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
