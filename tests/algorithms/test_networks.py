import pytest
import torch

from iq_offline.algorithms.encoders import ObservationLayout, initialise
from iq_offline.algorithms.networks import Critic
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
