"""The penalty on the change of Q under noise on the observation."""

import pytest
import torch

from iq_offline.algorithms.actor_critic import CriticInputs
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Critic, CriticEnsemble, Standardiser
from iq_offline.algorithms.noise import Drawn
from iq_offline.algorithms.regularisers import observation_noise
from iq_offline.batch import Batch
from iq_offline.config.base import Activation
from iq_offline.config.regularisers import ObservationNoiseConfig


def test_linear_critic_is_penalised_by_its_slope():
    """Of Q(s, a) = w s the penalty is std^2 |w|^2: 0.1^2 (3^2 + 4^2) = 0.25, here from 100,000 draws."""
    critic = CriticEnsemble([Critic(ObservationLayout(2), 1, (), Activation.RELU, norm=False)])
    with torch.no_grad():
        critic.members[0].network[0].weight.copy_(torch.tensor([[3.0, 4.0, 7.0]]))
    policy = ContinuousPolicy(
        Standardiser(torch.zeros(2), torch.ones(2)), ActionScale.of_bounds([-1], [1]), (), Activation.TANH
    )
    observations, actions = torch.randn(100_000, 2), torch.zeros(100_000, 1)
    batch = Batch(observations, actions, observations, torch.zeros(100_000))
    noise = Drawn(torch.Generator().manual_seed(0))
    inputs = CriticInputs(policy, critic, batch, observations, actions, critic(observations, actions), None, noise)
    assert observation_noise(ObservationNoiseConfig(std=0.1), inputs).item() == pytest.approx(0.25, rel=0.02)
