"""What supplementary data are worth: weights of transitions, scores of episodes."""

import math

import numpy as np
import pytest
import torch

from iq_offline.baselines.cloning import (
    discriminator_loss,
    discriminator_weights,
    effective_share,
)
from iq_offline.baselines.distances import nearest_similarities
from iq_offline.baselines.filtering import best_episodes, episode_scores, similar_episodes, similarities
from iq_offline.baselines.sources import Recorded
from iq_offline.config.baselines import DiscriminatorConfig, EpisodeFilterConfig

RNG = np.random.default_rng(0)


def slow_scores(similarities: np.ndarray, episodes: np.ndarray, short_episode: int) -> list[float]:
    """One episode after the other."""
    found = []
    for number in range(episodes.max() + 1):
        own = [value for value, episode in zip(similarities, episodes, strict=True) if episode == number]
        found.append(sum(own) / max(len(own), short_episode))
    return found


def test_a_nearest_weight_by_hand():
    # Steps 2 apart between demonstrations: the bandwidth is 1.5 * 2 = 3.
    weights = nearest_similarities(np.array([[0.0], [-3.0]]), np.array([[0.0], [2.0]]), np.array([0, 1]), bandwidth=1.5)
    np.testing.assert_allclose(weights, [1.0, math.exp(-0.5)])


def test_copied_step_has_the_greatest_weight():
    """A copy of a demonstrated step has the greatest weight."""
    demonstrated = RNG.normal(size=(10, 4))
    points = np.concatenate([RNG.normal(size=(30, 4)), demonstrated[2:3]])
    weights = nearest_similarities(points, demonstrated, np.repeat([0, 1], 5), bandwidth=1.5)
    assert weights[30] == 1.0
    assert weights[:30].max() < 1.0


def test_repeated_demonstrations_count_only_equals():
    """Demonstrations that repeat each other count only their equals."""
    repeated = np.repeat(RNG.normal(size=(5, 2)), 2, axis=0)
    weights = nearest_similarities(np.array([repeated[0], [9.0, 9.0]]), repeated, np.tile([0, 1], 5), bandwidth=1.5)
    np.testing.assert_array_equal(weights, [1.0, 0.0])


def test_ignorant_discriminator_has_loss_log_two():
    """The loss of a discriminator that knows nothing is log two."""
    assert discriminator_loss(torch.zeros(3), torch.zeros(5)).item() == pytest.approx(math.log(2))


def test_discriminator_gradient_raises_expert_logits():
    """The discriminator raises expert logits and lowers the others."""
    logits = torch.zeros(2, requires_grad=True)
    discriminator_loss(logits[:1], logits[1:]).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([-0.25, 0.25]))


def test_discriminator_finds_density_ratio_within_bounds():
    """The discriminator finds the ratio of densities and keeps to its bounds."""
    random = torch.Generator().manual_seed(0)
    expert = torch.randn(2000, 1, generator=random) + 1
    other = torch.randn(2000, 1, generator=random)
    config = DiscriminatorConfig(updates=400, hidden_sizes=(32,), noise=0.0)
    weights, metrics = discriminator_weights(config, 0, expert, other)
    # Two Gaussians a deviation apart: log ratio x - 1/2.
    inside = (other[:, 0].abs() < 1).numpy()
    errors = np.log(weights) - (other[:, 0].double().numpy() - 0.5)
    assert np.abs(errors[inside]).mean() < 0.25
    assert metrics["discriminator_loss"] < math.log(2)
    far, _ = discriminator_weights(config, 0, expert + 100, other - 100)
    np.testing.assert_allclose(np.log(far), -6.0)


def test_the_effective_share_of_weights():
    assert effective_share(np.ones(8)) == 1.0
    assert effective_share(np.array([1.0, 0.0, 0.0, 0.0])) == 0.25
    assert effective_share(np.zeros(3)) == 0.0


def test_episode_scores_equal_their_slow_twin():
    episodes = np.repeat([0, 1, 2], [3, 300, 40])
    similarities = RNG.uniform(size=343)
    np.testing.assert_allclose(episode_scores(similarities, episodes, 200), slow_scores(similarities, episodes, 200))


def test_short_episode_scores_low():
    """A short episode scores low however good it is."""
    scores = episode_scores(np.ones(250), np.repeat([0, 1], [50, 200]), short_episode=200)
    np.testing.assert_allclose(scores, [0.25, 1.0])


def test_the_best_episodes_are_taken_while_they_fit():
    scores, steps = np.array([0.1, 0.9, 0.5, 0.7]), np.array([10, 40, 30, 60])
    np.testing.assert_array_equal(best_episodes(scores, steps, transitions=100), [1, 3])
    np.testing.assert_array_equal(best_episodes(scores, steps, transitions=139), [1, 3, 2])
    np.testing.assert_array_equal(best_episodes(scores, steps, transitions=1), [1])


def test_short_good_episode_beats_long_mediocre_one(peer_data):
    """Where demonstrations are short a short good episode beats a long mediocre one."""
    data = peer_data()
    assert data.demonstrated_steps == 30
    rows = data.split.rows
    steps = data.expert.observations(rows), data.expert.actions(rows), data.expert.observations(rows + 1)
    good = [part[:30] for part in steps]
    mediocre = [np.resize(part, (200, part.shape[1])) for part in steps]
    mediocre[1] = mediocre[1] + 0.6 * RNG.choice([-1, 1], size=mediocre[1].shape)
    both = [np.concatenate(pair).astype(np.float32) for pair in zip(good, mediocre, strict=True)]
    other = Recorded(*both, episodes=np.repeat([0, 1], [30, 200]))
    config = EpisodeFilterConfig(transitions=200)
    assert similar_episodes(config, data, other).tolist() == [1, 0]
    scores = episode_scores(similarities(config.similarity.bandwidth, data, other), other.episodes, 200)
    assert scores[1] > scores[0], "by 200 steps the mediocre one is the better"
