import numpy as np
import pytest
import torch

from iq_offline.algorithms import networks
from iq_offline.algorithms.encoders import ObservationLayout, initialise
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Critic, Standardiser
from iq_offline.config import Activation


@pytest.mark.parametrize("hidden", [(), (5,), (7, 5)])
@pytest.mark.parametrize("norm", [False, True])
def test_several_actions_at_each_observation_encode_it_once_and_equal_repeated_rows(
    hidden: tuple[int, ...],
    norm: bool,
) -> None:
    critic = Critic(ObservationLayout(3), 2, hidden, Activation.TANH, norm=norm).double()
    initialise(critic, torch.Generator().manual_seed(0))
    observations = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    actions = torch.randn(6, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    repeated = critic(observations.repeat(6, 1), actions.reshape(-1, 2)).view(6, 4)
    encoded: list[int] = []
    critic.encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    once = critic(observations, actions)
    assert encoded == [4]
    assert once.shape == (6, 4)
    assert torch.allclose(once, repeated, rtol=0, atol=1e-12)
    for found, known in zip(
        torch.autograd.grad(once.square().sum(), list(critic.parameters())),
        torch.autograd.grad(repeated.square().sum(), list(critic.parameters())),
        strict=True,
    ):
        assert torch.allclose(found, known, rtol=0, atol=1e-11)


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_mean_and_deviation_are_those_of_all_rows_however_many_are_read_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "ROWS_AT_ONCE", at_once)
    rows = 1e4 + torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    fitted = Standardiser.fit(rows)
    np.testing.assert_allclose(fitted.mean, rows.double().numpy().mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(fitted.std, rows.double().numpy().std(axis=0), rtol=1e-6)


def test_an_action_without_a_choice_is_scaled_to_zero_and_back():
    scale = ActionScale.of_bounds([-2.0, 0.5], [2.0, 0.5])
    policy = ContinuousPolicy(Standardiser(torch.zeros(3), torch.ones(3)), scale, (4,), Activation.TANH)
    assert policy.scale_actions(torch.tensor([[1.0, 0.5]])).tolist() == [[0.5, 0.0]]
    acted = policy.act(torch.randn(5, 3))
    assert acted[:, 1].eq(0.5).all()
    assert acted[:, 0].abs().max() <= 2
