"""Supplementary episodes are cloned only where held-out demonstrations say that it helps."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from iq_offline.baselines.filtering import fewer_mistakes, folds, smaller_errors, verdict
from iq_offline.baselines.fit import fit_baseline
from iq_offline.baselines.sources import PeerData
from iq_offline.config.baselines import ContinuousFilteredBCConfig, CrossValidationConfig, DiscreteFilteredBCConfig
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.data.split import choose_expert
from iq_offline.stages.fetch import open_dataset

CPU = torch.device("cpu")
EXPERT, RANDOM = "demo/swimmer/expert-v0", "demo/swimmer/random-v0"


def data_of(demos: int, subsample: int, *supplementary: str) -> PeerData:
    table = open_dataset(EXPERT)
    split = choose_expert(table, demos=demos, subsample=subsample, seed=0, need_successors=False)
    return PeerData(table, split, tuple(open_dataset(name) for name in supplementary))


def test_smaller_errors_by_hand():
    """The paired t-test of the logarithms: p-values of a table for 2 degrees of freedom."""
    without = [np.array([1.0, 3.0]), np.array([2.0]), np.array([4.0, 4.0])]
    ratios = np.exp([-0.9, -1.0, -1.1])  # mean -1, standard error 0.1 / sqrt(3): t = -17.32
    better = [part * ratio for part, ratio in zip(without, ratios, strict=True)]
    assert smaller_errors(without, better) == pytest.approx(0.00166, abs=2e-5)
    assert smaller_errors(better, without) == pytest.approx(1 - 0.00166, abs=2e-5)
    one_better = [without[0] / 2, without[1] * 1.1, without[2] * 1.1]
    assert smaller_errors(without, one_better) > 0.2
    assert smaller_errors(without, without) == 1
    assert smaller_errors(without[:1], better[:1]) == 1


def test_fewer_mistakes_by_hand():
    """The sign test on the transitions where one clone alone is mistaken: 1 / 2^4 for four of four."""
    without, better = np.array([1.0, 1, 1, 1, 0, 1]), np.array([0.0, 0, 0, 0, 0, 1])
    assert fewer_mistakes([without], [better]) == pytest.approx(1 / 16)
    assert fewer_mistakes([better], [without]) == 1
    assert fewer_mistakes([without], [without]) == 1


def test_verdict_compares_with_the_level():
    without, better = [np.ones(5), np.ones(4)], [np.full(5, 0.5), np.full(4, 0.4)]
    accepted = verdict(without, better, 0.05, lambda *_: 0.049)
    assert accepted["cross_validation_accepted"] == 1
    assert accepted["cross_validation_error_without"] == 1
    assert accepted["cross_validation_error_with"] == pytest.approx((5 * 0.5 + 4 * 0.4) / 9)
    assert verdict(without, better, 0.05, lambda *_: 0.05)["cross_validation_accepted"] == 0
    assert verdict(without, better, 0.05, lambda *_: 0.026, tests=2)["cross_validation_p_value"] == 0.052
    assert verdict(without, better, 0.05, lambda *_: 0.6, tests=2)["cross_validation_p_value"] == 1


def test_folds_leave_each_demonstration_out_once():
    """Folds leave each demonstration out once and keep the others."""
    data = data_of(4, 10)
    parts = list(folds(data, 3))
    left_out = np.concatenate([rows for _, rows in parts])
    assert len(parts) == 3
    assert sorted(left_out) == sorted(data.split.rows)
    for kept, rows in parts:
        assert set(kept.split.rows) | set(rows) == set(data.split.rows)
        assert not set(kept.split.rows) & set(rows)
        assert len(rows) % len(data.split.rows[: len(data.split.rows) // 4]) == 0  # whole demonstrations


def test_a_single_demonstration_is_cut_into_stretches():
    data = data_of(1, 1)
    sizes = [len(rows) for _, rows in folds(data, 3)]
    assert len(sizes) == 3
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == len(data.split.rows)


def last_of(data: PeerData, test: CrossValidationConfig | None):
    small = ContinuousBCConfig(hidden_sizes=(32,), updates=300)
    config = ContinuousFilteredBCConfig(cloning=small, cross_validation=test)
    *_, last = fit_baseline(config, 0, data, CPU)
    return last


def test_random_episodes_are_rejected_and_cloning_unchanged():
    """Random episodes are refused and what comes out is plain cloning to the bit."""
    data = data_of(3, 20, RANDOM)
    screened = last_of(data, CrossValidationConfig(updates=300))
    plain_config = ContinuousFilteredBCConfig(
        cloning=ContinuousBCConfig(hidden_sizes=(32,), updates=300), expert_share=1
    )
    *_, plain = fit_baseline(plain_config, 0, data, CPU)
    assert screened.metrics["cross_validation_accepted"] == 0
    assert screened.metrics["cross_validation_error_with"] > screened.metrics["cross_validation_error_without"]
    for name, tensor in plain.learner.policy.state_dict().items():
        torch.testing.assert_close(screened.learner.policy.state_dict()[name], tensor, atol=0, rtol=0)


@pytest.mark.slow
def test_more_of_the_expert_is_accepted():
    """More of the expert is accepted and cloned as without a test."""
    data = data_of(3, 20, EXPERT)
    screened, filtered = last_of(data, CrossValidationConfig(updates=300)), last_of(data, None)
    assert screened.metrics["cross_validation_accepted"] == 1
    assert screened.metrics["kept_episodes"] == filtered.metrics["kept_episodes"]
    for name, tensor in filtered.learner.policy.state_dict().items():
        torch.testing.assert_close(screened.learner.policy.state_dict()[name], tensor, atol=0, rtol=0)


def discrete_verdict(data: PeerData) -> dict[str, float]:
    config = DiscreteFilteredBCConfig(
        cloning=DiscreteBCConfig(hidden_sizes=(32,), updates=300),
        cross_validation=CrossValidationConfig(updates=600, level=0.2),
    )
    *_, last = fit_baseline(config, 0, data, CPU)
    return last.metrics


def noisy(share: float) -> Callable[[np.ndarray], np.ndarray]:
    """That share of the actions is uniform."""
    random = np.random.default_rng(0)
    return lambda actions: np.where(random.random(len(actions)) < share, random.integers(2, size=len(actions)), actions)


@pytest.mark.slow
def test_noisy_expert_is_accepted_by_shares_of_mistakes(discrete_beside):
    """The expert under noise is accepted and its errors are shares of mistakes."""
    metrics = discrete_verdict(discrete_beside(noisy(0.2)))
    assert metrics["cross_validation_accepted"] == 1
    assert metrics["cross_validation_error_with"] < metrics["cross_validation_error_without"] < 1
    for name in ("cross_validation_error_with", "cross_validation_error_without"):
        assert metrics[name] * 120 == pytest.approx(round(metrics[name] * 120)), "of 120 demonstrated steps"


@pytest.mark.parametrize("change", [noisy(1.0), lambda actions: 1 - actions], ids=["random", "the opposite"])
def test_others_discrete_episodes_are_refused(discrete_beside, change):
    assert discrete_verdict(discrete_beside(change))["cross_validation_accepted"] == 0
