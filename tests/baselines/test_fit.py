"""The peers end to end on small episodes: repeatable, blind to rewards, and plain cloning in the limit."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from iq_offline.baselines.filtering import Selection, similar_episodes
from iq_offline.baselines.fit import fit_baseline
from iq_offline.baselines.reward_labelling import label
from iq_offline.baselines.sources import PeerData, Pool, drawn, recorded
from iq_offline.config.baselines import (
    BaselineConfig,
    ContinuousCloneAllConfig,
    ContinuousFilteredBCConfig,
    ContinuousRecoveryBCConfig,
    ContinuousWeightedBCConfig,
    DiscreteCloneAllConfig,
    DiscreteFilteredBCConfig,
    DiscreteRecoveryBCConfig,
    DiscreteWeightedBCConfig,
    DiscriminatorConfig,
    Labeller,
    RewardLabelledConfig,
    SimilarityConfig,
    Trainer,
    WeightKind,
)
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.data.table import TransitionTable
from iq_offline.errors import ConfigError, TrainingDiverged
from iq_offline.training.batches import TransitionSampler, sizes
from iq_offline.training.loop import Progress, fit_clone
from iq_offline.training.tensor_files import tensors_sha256

CPU = torch.device("cpu")
CLONE = ContinuousBCConfig(updates=20, batch_size=32, hidden_sizes=(16,))
DISCRETE_CLONE = DiscreteBCConfig(updates=20, batch_size=32, hidden_sizes=(16,))
QUICK = DiscriminatorConfig(updates=20, batch_size=16, hidden_sizes=(16,))
LABELLED: dict[str, Any] = {"updates": 6, "batch_size": 32, "hidden_sizes": (16,)}
CONTINUOUS: list[BaselineConfig] = [
    ContinuousWeightedBCConfig(cloning=CLONE, discriminator=QUICK),
    ContinuousWeightedBCConfig(cloning=CLONE, kind=WeightKind.NEAREST),
    ContinuousFilteredBCConfig(cloning=CLONE, transitions=55),
    ContinuousRecoveryBCConfig(cloning=CLONE),
    ContinuousCloneAllConfig(cloning=CLONE),
    RewardLabelledConfig(labeller=Labeller.SEABO, trainer=Trainer.TD3BC, **LABELLED),
    RewardLabelledConfig(labeller=Labeller.OTR, trainer=Trainer.IQL, **LABELLED),
    RewardLabelledConfig(labeller=Labeller.UDS, trainer=Trainer.TD3BC, **LABELLED),
]
DISCRETE: list[BaselineConfig] = [
    DiscreteWeightedBCConfig(cloning=DISCRETE_CLONE, discriminator=QUICK),
    DiscreteWeightedBCConfig(cloning=DISCRETE_CLONE, kind=WeightKind.NEAREST),
    DiscreteFilteredBCConfig(cloning=DISCRETE_CLONE),
    DiscreteRecoveryBCConfig(cloning=DISCRETE_CLONE),
    DiscreteCloneAllConfig(cloning=DISCRETE_CLONE),
]


def called(config: BaselineConfig) -> str:
    """A name for a test's title."""
    choices = [str(getattr(config, key)) for key in ("kind", "labeller", "trainer") if hasattr(config, key)]
    return "-".join([config.name, *choices])


def last(config: BaselineConfig, data: PeerData, seed: int = 0) -> Progress:
    """The final progress of a training."""
    *_, progress = fit_baseline(config, seed, data, CPU)
    return progress


class Rewardless(TransitionTable):
    """A table whose rewards must not be read."""

    def rewards(self, rows):
        del rows
        raise AssertionError("rewards were read")


def rewardless(table: TransitionTable) -> Rewardless:
    """The same without returns, and with nonsense where rewards were."""
    rows = np.array(table.rows)
    rows[:, -2] = np.nan
    content = {field.name: getattr(table, field.name) for field in fields(table)}
    return Rewardless(**content | {"rows": rows, "episodes": table.episodes.drop("return")})


@pytest.mark.parametrize("config", CONTINUOUS, ids=called)
def test_rewards_stay_unread_and_seeds_repeat(peer_data, config):
    """Rewards are never read and the same seed gives the same tensors."""
    data = peer_data()
    blind = PeerData(rewardless(data.expert), data.split, tuple(rewardless(table) for table in data.supplementary))
    first, second = last(config, data), last(config, blind)
    assert tensors_sha256(first.learner.tensors()) == tensors_sha256(second.learner.tensors())
    assert first.metrics == second.metrics
    assert first.step == first.total
    assert tensors_sha256(last(config, data, seed=1).learner.tensors()) != tensors_sha256(first.learner.tensors())


@pytest.mark.parametrize("config", DISCRETE, ids=called)
def test_cloning_peers_take_discrete_actions(peer_data, config):
    policy = last(config, peer_data(discrete=True)).learner.policy
    assert policy.act(torch.randn(10, 3)).unique().tolist() in ([0], [1], [0, 1])


def test_the_oracle_reads_rewards_and_says_so(peer_data):
    data = peer_data()
    config = RewardLabelledConfig(labeller=Labeller.TRUE, **LABELLED)
    assert config.reads_rewards
    assert not any(other.reads_rewards for other in CONTINUOUS + DISCRETE)
    (table, rows), *_ = data.supplementary_parts
    labels = label(config, data)
    np.testing.assert_array_equal(labels.expert, data.expert.rewards(data.split.rows))
    np.testing.assert_array_equal(labels.supplementary[: len(rows)], table.rewards(rows))
    blind = replace(data, supplementary=tuple(rewardless(table) for table in data.supplementary))
    with pytest.raises(AssertionError, match="rewards were read"):
        label(config, blind)


def test_rewards_are_scaled_to_return_range(peer_data):
    """Rewards are scaled to the range of the supplementary episodes sums."""
    data = peer_data()
    plain, scaled = (
        label(RewardLabelledConfig(labeller=Labeller.TRUE, return_range=spread, **LABELLED), data)
        for spread in (None, 1000.0)
    )
    sums, first = [], 0
    for table, rows in data.supplementary_parts:
        own = scaled.supplementary[first : first + len(rows)]
        numbers = table.episode_numbers(rows)
        sums += [own[numbers == number].sum() for number in set(numbers.tolist())]
        first += len(rows)
    assert max(sums) - min(sums) == pytest.approx(1000)
    factors = np.concatenate([scaled.expert / plain.expert, scaled.supplementary / plain.supplementary])
    np.testing.assert_allclose(factors, factors[0])


def test_equal_episode_sums_are_not_scaled(peer_data):
    """Rewards that tell no episode from another are not scaled."""
    data = peer_data()
    config = RewardLabelledConfig(labeller=Labeller.UDS, return_range=1000.0, **LABELLED)
    with pytest.raises(ConfigError, match="return_range"):
        label(config, data)


def test_the_oracle_needs_no_supplementary_data(peer_data):
    config = RewardLabelledConfig(labeller=Labeller.TRUE, **LABELLED)
    assert "supplementary_reward" not in last(config, replace(peer_data(), supplementary=())).metrics


@pytest.mark.parametrize(
    "config",
    [
        ContinuousWeightedBCConfig(cloning=CLONE, expert_share=1),
        ContinuousFilteredBCConfig(cloning=CLONE, expert_share=1),
    ],
    ids=called,
)
def test_expert_share_one_is_plain_cloning(peer_data, config):
    """No supplementary share is plain cloning to the bit."""
    data = peer_data()
    sampler = TransitionSampler(data.expert, data.split.rows, CPU)
    *_, plain = fit_clone(CLONE, 0, sampler, data.expert.action_space, CPU)
    peer = last(config, data)
    assert tensors_sha256(peer.learner.tensors()) == tensors_sha256(plain.learner.tensors())
    assert peer.metrics == plain.metrics


@pytest.mark.parametrize("labeller", [Labeller.SEABO, Labeller.OTR])
def test_copied_demonstrations_earn_the_same_noise_less(peer_data, labeller):
    """A copy of the demonstrations earns what they earn and noise less."""
    data = peer_data()
    copied = replace(data, supplementary=(data.expert, *data.supplementary))
    labels = label(RewardLabelledConfig(labeller=labeller), copied)
    expert = recorded([(data.expert, data.split.rows)])
    supplementary = recorded(copied.supplementary_parts)
    for place in expert.episode_slices():
        (twin,) = (
            other
            for other in supplementary.episode_slices()
            if np.array_equal(supplementary.actions[other], expert.actions[place])
        )
        np.testing.assert_allclose(labels.supplementary[twin], labels.expert[place])
    noisy = labels.supplementary[-len(recorded(data.supplementary_parts)) :]
    assert noisy.mean() < 0.9 * labels.expert.mean()


def test_filter_keeps_episodes_like_the_experts(peer_data):
    """The filter keeps the episodes that act as the expert does."""
    config = ContinuousFilteredBCConfig(cloning=CLONE, transitions=40)
    data = peer_data()
    parts = data.supplementary_parts
    other = recorded(parts)
    chosen = Selection.of(similar_episodes(config, data, other), other, parts)
    # Two episodes have 30 steps: the first table's is as noisy as it is right, the second's is the expert's own.
    assert [table.info.name for table, _ in chosen.parts] == [data.supplementary[1].info.name]
    assert chosen.metrics == {"kept_episodes": 1.0, "kept_transitions": 30.0}
    assert chosen.weights is None  # drawn uniformly


@pytest.mark.parametrize("config", CONTINUOUS[1:3], ids=called)
def test_nothing_similar_is_an_error_with_remedy(peer_data, config):
    """Where nothing is like a demonstration it says so."""
    narrow = config.model_copy(update={"similarity": SimilarityConfig(bandwidth=1e-9)})
    with pytest.raises(ConfigError, match="anything like a demonstration") as caught:
        last(narrow, peer_data())
    assert "similarity.bandwidth" in caught.value.remedy


def test_pool_keeps_the_order_asked_for(peer_data):
    """A pool gives transitions of several tables in the order asked for."""
    data = peer_data()
    parts = data.supplementary_parts
    pool = Pool([TransitionSampler(table, rows, CPU) for table, rows in parts], CPU)
    whole = recorded(parts)
    positions = torch.tensor([100, 3, 66, 0, 67, 3])
    batch = pool.gather(positions)
    np.testing.assert_array_equal(batch.observations.numpy(), whole.observations[positions])
    np.testing.assert_array_equal(batch.next_observations.numpy(), whole.next_observations[positions])
    np.testing.assert_array_equal(batch.actions.numpy(), whole.actions[positions])
    assert len(pool) == len(whole)


def test_draws_follow_their_weights():
    weights = np.array([0.0, 1.0, 3.0, 0.0])
    draws = next(drawn(4, 40_000, torch.Generator().manual_seed(0), weights))
    shares = torch.bincount(draws, minlength=4) / 40_000
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.25, 0.75, 0.0]), atol=0.01, rtol=0)


def test_batch_has_one_of_each_source():
    """A batch is shared as asked with one of each at least."""
    assert sizes(256, 0.25) == (64, 192)
    assert sizes(10, 0.01) == (1, 9)
    assert sizes(10, 0.99) == (9, 1)


def test_without_supplementary_data_the_remedy_is_named(peer_data):
    with pytest.raises(ConfigError, match="weighted-bc learns from supplementary data") as caught:
        fit_baseline(CONTINUOUS[0], 0, replace(peer_data(), supplementary=()), CPU)
    assert "--supplementary" in caught.value.remedy


def test_reward_labelled_methods_refuse_discrete_actions(peer_data):
    with pytest.raises(ConfigError, match="continuous actions only") as caught:
        fit_baseline(RewardLabelledConfig(), 0, peer_data(discrete=True), CPU)
    assert "filtered-bc" in caught.value.remedy
    assert RewardLabelledConfig().needs_successors
    assert not CONTINUOUS[0].needs_successors


def test_a_diverging_peer_says_so(peer_data):
    config = RewardLabelledConfig(updates=300, hidden_sizes=(16,), td3bc={"learning_rate": 1e30})
    with pytest.raises(TrainingDiverged, match=r"training diverged: .* at update") as caught:
        last(config, peer_data())
    assert "learning_rate" in caught.value.remedy
