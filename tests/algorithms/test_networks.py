"""Networks and the scaling of observations and actions: shapes, units, and what is fitted to data."""

import numpy as np
import pytest
import torch

from iq_offline.algorithms import scaling
from iq_offline.algorithms.bc import errors_in_bounds
from iq_offline.algorithms.encoders import ObservationLayout, initialise
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Critic, Standardiser
from iq_offline.algorithms.scaling import fit_action_scale, fit_standardiser
from iq_offline.batch import Batch
from iq_offline.config.base import Activation


@pytest.mark.parametrize("hidden", [(), (5,), (7, 5)])
@pytest.mark.parametrize("norm", [False, True])
def test_several_actions_encode_an_observation_once(
    hidden: tuple[int, ...],
    norm: bool,
) -> None:
    """Values and gradients equal those of repeated rows."""
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
def test_standardiser_is_fitted_over_all_rows(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are read at once."""
    monkeypatch.setattr(scaling, "ROWS_AT_ONCE", at_once)
    rows = 1e4 + torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    fitted = fit_standardiser(rows)
    np.testing.assert_allclose(fitted.mean, rows.double().numpy().mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(fitted.std, rows.double().numpy().std(axis=0), rtol=1e-6)


def test_action_without_choice_scales_to_zero_and_back():
    scale = ActionScale.of_bounds([-2.0, 0.5], [2.0, 0.5])
    policy = ContinuousPolicy(Standardiser(torch.zeros(3), torch.ones(3)), scale, (4,), Activation.TANH)
    assert policy.scale_actions(torch.tensor([[1.0, 0.5]])).tolist() == [[0.5, 0.0]]
    acted = policy.act(torch.randn(5, 3))
    assert acted[:, 1].eq(0.5).all()
    assert acted[:, 0].abs().max() <= 2


def spread(*deviations: float) -> torch.Tensor:
    """Two thousand rows, a dimension for each standard deviation."""
    drawn = torch.randn(2000, len(deviations), generator=torch.Generator().manual_seed(0))
    return drawn / drawn.std(dim=0, correction=0) * torch.tensor(deviations)


def test_demonstrations_filling_bounds_are_scaled_by_them():
    """To the bit."""
    low, high = [-1.0, 0.1, -3.0], [1.0, 0.7, 3.0]
    bounds, fitted = ActionScale.of_bounds(low, high), fit_action_scale(low, high, spread(0.06, 0.1, 0.2))
    assert fitted.centre.tolist() == bounds.centre.tolist()
    assert fitted.half_range.tolist() == bounds.half_range.tolist()


def test_demonstrations_of_small_actions_scaled_by_their_size():
    """Where they use next to none of their bounds."""
    actions = spread(0.5, 0.001) + torch.tensor([0.0, 0.3])
    fitted = fit_action_scale([-1.0, -1.0], [1.0, 1.0], actions)
    torch.testing.assert_close(fitted.centre, torch.tensor([0.0, actions[:, 1].mean()]))
    torch.testing.assert_close(fitted.half_range, torch.tensor([1.0, 0.020]), rtol=1e-4, atol=0)


def test_farthest_demonstrated_action_lies_within_the_box():
    actions = torch.zeros(2000, 1)
    actions[7] = 0.08
    fitted = fit_action_scale([-1.0], [1.0], actions)
    torch.testing.assert_close(fitted.half_range, torch.tensor([1.25 * 0.08]), rtol=1e-3, atol=0)


def test_the_box_ends_at_the_bounds():
    fitted = fit_action_scale([0.0], [40.0], spread(0.01).abs())
    assert (fitted.centre - fitted.half_range).tolist() == [0.0]
    assert 0.05 < float(fitted.centre) < 0.2


@pytest.mark.parametrize("actions", [torch.full((9, 1), 0.1), torch.zeros(0, 1)])
def test_a_dimension_that_never_varies_keeps_the_bounds(actions: torch.Tensor):
    fitted = fit_action_scale([-1.0], [3.0], actions)
    assert (fitted.centre.tolist(), fitted.half_range.tolist()) == ([1.0], [2.0])


def test_actions_far_outside_box_are_clipped():
    """As observations are."""
    scale = ActionScale(torch.tensor([0.5]), torch.tensor([0.01]))
    policy = ContinuousPolicy(Standardiser(torch.zeros(3), torch.ones(3)), scale, (4,), Activation.TANH)
    found = policy.scale_actions(torch.tensor([[0.505], [0.55], [0.7], [-1.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.5], [5.0], [10.0], [-10.0]]))


def policy_of(scale: ActionScale) -> ContinuousPolicy:
    """One that always says half of the way from the middle to the upper end."""
    policy = ContinuousPolicy(Standardiser(torch.zeros(3), torch.ones(3)), scale, (), Activation.TANH)
    for parameter, value in zip(policy.network.parameters(), (0.0, 0.5), strict=True):
        parameter.data.fill_(value)
    return policy


def test_errors_in_bounds_compare_different_boxes():
    bounds = ActionScale.of_bounds([-2.0], [2.0])
    box = ActionScale(torch.tensor([0.5]), torch.tensor([0.02]))
    recorded = torch.tensor([[0.51], [1.0], [2.0]])
    batch = Batch(torch.zeros(3, 3), recorded, torch.zeros(3, 3), torch.zeros(3))
    wide, narrow = (errors_in_bounds(policy_of(scale), batch, bounds) for scale in (bounds, box))
    torch.testing.assert_close(wide, torch.tensor([0.245, 0.0, 0.5]))
    torch.testing.assert_close(narrow, torch.tensor([0.0, 0.245, 0.745]))
