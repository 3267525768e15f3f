"""More demonstrations: supplementary episodes that are taken for such, unless the demonstrations speak against it.

[IQ21]'s objective asks where the expert goes and what it does there; an episode of the expert's kind among the
supplementary data answers that as a demonstration does. Finding such episodes is cloning's trick, not inverse soft-Q's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from iq_offline.algorithms.networks import ContinuousPolicy, Policy
from iq_offline.baselines.distances import Floats, Scaling
from iq_offline.baselines.episodes import best_episodes, episode_scores
from iq_offline.baselines.residuals import foretold_of, near, residual_sizes, residuals
from iq_offline.baselines.screening import Verdict, screen
from iq_offline.baselines.sources import Parts, PeerData, Recorded, recorded, supplementary_rows
from iq_offline.baselines.weights import nearest_weights
from iq_offline.config.baselines import EpisodeFilterConfig, ResidualTestConfig, ScreenConfig
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.errors import NothingAlike
from iq_offline.training.batches import DemonstrationMixture, Demonstrations, SupplementarySampler, TransitionSampler
from iq_offline.training.loop import Progress, fit_clone

CloningConfig = ContinuousBCConfig | DiscreteBCConfig
CheckInterrupt = Callable[[Progress], None]
HELD_OUT_EVERY = 10
"""Of the episodes that are taken every so many-th is held out to choose the number of updates by."""


def ignore(_: Progress) -> None:
    """Heeds nothing."""


@dataclass(frozen=True)
class Found:
    """The demonstrations with more of them, or alone where none were found or taken; how they are to be cloned.

    `metrics`: what is logged of the search. `taken`: the episodes, by their table's SHA-256.
    """

    demonstrations: Demonstrations
    cloning: CloningConfig
    metrics: dict[str, float]
    accepted_episodes: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """Supplementary rows by table, and in proportion to what they are drawn, (N,); None: uniformly."""

    parts: Parts
    weights: Floats | None
    metrics: dict[str, float]

    @classmethod
    def of(cls, weights: Floats, other: Recorded, parts: Parts) -> "Chosen":
        """The rows, of `parts` and `other` alike, of the episodes whose weight, (E,), is above zero."""
        by_step = weights[other.episodes]
        taken = by_step > 0
        ends = np.cumsum([len(rows) for _, rows in parts])[:-1]
        split = zip(parts, np.split(taken, ends), strict=True)
        kept = [(table, rows[here]) for (table, rows), here in split if here.any()]
        uniform = bool((by_step[taken] == 1).all())
        metrics = {"kept_episodes": float((weights > 0).sum()), "kept_transitions": float(taken.sum())}
        return cls(kept, None if uniform else by_step[taken], metrics)

    def episodes(self) -> dict[str, list[int]]:
        """Numbers of the episodes in their table, by its SHA-256."""
        return {table.info.sha256: np.unique(table.episode_numbers(rows)).tolist() for table, rows in self.parts}

    def beside(self, expert: TransitionSampler, share: float) -> DemonstrationMixture:
        """With the demonstrations, which are that share of each batch."""
        samplers = [TransitionSampler(table, rows, expert.device) for table, rows in self.parts]
        return DemonstrationMixture(expert, SupplementarySampler(samplers, self.weights), share)


def more_demonstrations(
    config: EpisodeFilterConfig,
    cloning: CloningConfig,
    seed: int,
    data: PeerData,
    expert: TransitionSampler,
    heed: CheckInterrupt = ignore,
) -> Found:
    """The demonstrations with supplementary episodes beside them; `expert` alone where a test refuses these.

    `cloning`: how the demonstrations alone are cloned. `heed`: called with the progress of the clones that are
    trained to tell; what it raises ends the search. Rewards are not read.
    Raises NothingAlike where nothing is like a demonstration and there is no test to say so.
    """
    if config.expert_share == 1:
        return Found(expert, cloning, {})
    return _Search(config, cloning, seed, data, expert, heed).found()


def likenesses(bandwidth: float, data: PeerData, other: Recorded) -> Floats:
    """Likeness of each transition of `other` to its nearest demonstrated one. Raises NothingAlike where all are 0."""
    expert = recorded([(data.expert, data.split.rows)])
    scaling = Scaling.fit([expert, other], data.expert.action_space)
    found = nearest_weights(scaling.pairs(other), scaling.pairs(expert), expert.episodes, bandwidth)
    if not found.any():
        raise NothingAlike(
            "no supplementary transition is anything like a demonstration",
            f"name other data, or widen what is alike (--set likeness.bandwidth={4 * bandwidth:g})",
        )
    return found


def alike_episodes(config: EpisodeFilterConfig, data: PeerData, other: Recorded) -> Floats:
    """1 for the episodes that are most like the demonstrations, else 0, (E,). Raises NothingAlike."""
    short = min(config.short_episode, round(data.demonstrated_steps))
    scores = episode_scores(likenesses(config.likeness.bandwidth, data, other), other.episodes, short)
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
    heed: CheckInterrupt

    def found(self) -> Found:
        parts = supplementary_rows(self.data)
        other = recorded(parts)
        metrics: dict[str, float] = {}
        try:
            weights = alike_episodes(self.config, self.data, other)
        except NothingAlike:
            names = {"residual_test": self.config.residual_test, "screen": self.config.screen}
            if not any(names.values()):
                raise
            return self._refused({f"{name}_accepted": 0.0 for name, test in names.items() if test})
        if self.config.residual_test is not None:
            weights, metrics = self._tested(self.config.residual_test, weights, other, parts)
            if not metrics["residual_test_accepted"]:
                return self._refused(metrics)
        chosen = Chosen.of(weights, other, parts)
        if self.config.screen is not None:
            verdict = self._screened(self.config.screen, chosen)
            metrics |= {"screen_accepted": 0.0} if verdict is None else verdict.metrics()
            if not metrics["screen_accepted"]:
                return self._refused(metrics)
        mixture = chosen.beside(self.expert, self.config.expert_share)
        factor, errors = self._update_factor(weights, other, parts)
        cloning = _times(factor, self._robust)
        return Found(mixture, cloning, metrics | chosen.metrics | errors, chosen.episodes())

    def _update_factor(self, weights: Floats, other: Recorded, parts: Parts) -> tuple[int, dict[str, float]]:
        """That of the asked factors under which clones foretell every tenth taken episode best, and its error."""
        factors, held_out = self.config.update_factors, np.zeros(len(weights), bool)
        held_out[np.flatnonzero(weights)[::HELD_OUT_EVERY]] = True
        known = np.where(held_out, 0, weights)
        if len(factors) == 1 or not known.any():
            return factors[0], {}
        beside = Chosen.of(known, other, parts).beside(self.expert, self.config.expert_share)
        counts = (weights * np.bincount(other.episodes))[held_out]

        def error(factor: int) -> float:
            longer = _times(factor, self._robust)
            clone = continuous(self._cloned(longer, beside, longer.fewest_updates))
            return float(np.average(residual_sizes(clone, other)[held_out], weights=counts))

        errors = {factor: error(factor) for factor in factors}
        best = min(factors, key=lambda factor: errors[factor])
        return best, {"update_factor": float(best), "update_factor_error": errors[best]}

    def _refused(self, metrics: dict[str, float]) -> Found:
        return Found(self.expert, self.cloning, metrics)

    @property
    def _robust(self) -> CloningConfig:
        return self.cloning.model_copy(update={"loss": self.config.loss}) if self.config.loss else self.cloning

    def _cloned(self, config: CloningConfig, demonstrations: Demonstrations, updates: int) -> Policy:
        short = config.with_updates(min(updates, config.fewest_updates))
        for progress in fit_clone(short, self.seed, demonstrations, self.data.expert.action_space, self.expert.device):
            self.heed(progress)
            policy = progress.learner.policy
        return policy.to("cpu")

    def _tested(
        self, test: ResidualTestConfig, alike: Floats, other: Recorded, parts: Parts
    ) -> tuple[Floats, dict[str, float]]:
        """Weights of the expert's episodes (of those alike where there are none), and whether they are the expert's."""
        beside = Chosen.of(alike, other, parts).beside(self.expert, self.config.expert_share)
        left = residuals(test, continuous(self._cloned(self._robust, beside, test.updates)), other)
        passed = left.expert(test)
        weights = left.weights(passed) if passed.any() else alike
        expert = recorded([(self.data.expert, self.data.split.rows)])
        scaling = Scaling.fit([expert, other], self.data.expert.action_space)
        close = (weights > 0)[other.episodes]
        close[close] = near(test.near, expert, other.observations[close], scaling)
        metrics = {"residual_test_passed": float(passed.sum()), "residual_test_near": float(close.sum())}
        dimensions = other.observations.shape[1]
        if close.sum() < max(test.fewest_near, test.fewest_near_by_dimension * dimensions):
            return weights, metrics | {"residual_test_accepted": 0.0}
        own = continuous(self._cloned(self.cloning, self.expert, test.updates))
        foretold = foretold_of(test, own, other, close)
        accepted = float(foretold <= test.largest_foretold_near)
        return weights, metrics | {"residual_test_foretold": foretold, "residual_test_accepted": accepted}

    def _screened(self, asked: ScreenConfig, chosen: Chosen) -> Verdict | None:
        def cloned(kept: PeerData, *, filtered: bool) -> Policy:
            rest = TransitionSampler(kept.expert, kept.split.rows, self.expert.device)
            if not filtered:
                return self._cloned(self.cloning, rest, asked.updates)
            return self._cloned(self._robust, chosen.beside(rest, self.config.expert_share), asked.updates)

        return screen(asked, self.data, cloned)


def _times(factor: int, cloning: CloningConfig) -> CloningConfig:
    """The same cloning with so many times its updates."""
    return cloning.with_updates(factor * cloning.fewest_updates)


def continuous(policy: Policy) -> ContinuousPolicy:
    """That policy, which is one of continuous actions."""
    assert isinstance(policy, ContinuousPolicy)
    return policy
