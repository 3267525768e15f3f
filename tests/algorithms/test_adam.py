"""Adam over flat parameters against PyTorch's, group by group; slow copies against averages by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from iq_offline.algorithms.adam import Adam, SlowCopy, descend

RATE, UPDATES = 0.02, 50
close = torch.testing.assert_close


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def fitting_error(*modules: nn.Module) -> Callable[[], Tensor]:
    """How badly the sum of the modules fits a curve."""
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = inputs.square().sum(dim=-1, keepdim=True)

    def loss() -> Tensor:
        outputs: Tensor = sum((module(inputs) for module in modules), torch.zeros_like(targets))
        return (outputs - targets).square().mean()

    return loss


def pytorchs(modules: list[nn.Module], rates: list[float], decays: list[float], loss: Callable[[], Tensor]) -> None:
    """UPDATES of PyTorch's AdamW, each module with its own rate along its own cosine."""
    optimisers = [
        torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay)
        for module, rate, decay in zip(modules, rates, decays, strict=True)
    ]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, UPDATES) for optimiser in optimisers]
    for _ in range(UPDATES):
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss().backward()
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()


def check_equal(ours: nn.Module, theirs: nn.Module) -> None:
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.1], ids=["no decay", "decay"])
def test_fifty_updates_equal_pytorch_adamw_with_cosine(decay: float):
    ours, theirs, start = network(0), network(0), network(0)
    adam, loss = Adam([ours], RATE, decay, UPDATES), fitting_error(ours)
    for _ in range(UPDATES):
        descend([adam], loss())
    pytorchs([theirs], [RATE], [decay], fitting_error(theirs))
    check_equal(ours, theirs)
    assert (ours[0].weight - start[0].weight).abs().max() > 0.1


def test_weight_decay_changes_what_is_learnt():
    plain, decayed = network(0), network(0)
    for module, decay in ((plain, 0.0), (decayed, 0.1)):
        adam, loss = Adam([module], RATE, decay, UPDATES), fitting_error(module)
        for _ in range(UPDATES):
            descend([adam], loss())
    assert sum(p.square().sum() for p in decayed.parameters()) < sum(p.square().sum() for p in plain.parameters())


def test_groups_have_their_own_rate_and_decay():
    ours, theirs = [network(1), network(2)], [network(1), network(2)]
    rates, decays = [0.02, 0.005], [0.0, 0.2]
    adams = [Adam([one], rate, decay, UPDATES) for one, rate, decay in zip(ours, rates, decays, strict=True)]
    loss = fitting_error(*ours)
    for _ in range(UPDATES):
        descend(adams, loss())
    pytorchs(theirs, rates, decays, fitting_error(*theirs))
    for one, other in zip(ours, theirs, strict=True):
        check_equal(one, other)


def test_group_of_two_modules_has_one_rate():
    ours, theirs = [network(1), network(2)], [network(1), network(2)]
    adam, loss = Adam(ours, RATE, 0.0, UPDATES), fitting_error(*ours)
    for _ in range(UPDATES):
        descend([adam], loss())
    pytorchs(theirs, [RATE] * 2, [0.0] * 2, fitting_error(*theirs))
    for one, other in zip(ours, theirs, strict=True):
        check_equal(one, other)


def test_gradient_norms_come_back_by_group():
    """A group that the loss leaves out stays as it is."""
    within, without = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    before = without.weight.detach().clone()
    adams = [Adam([within], 0.1, 0.0, 10), Adam([without], 0.1, 0.0, 10)]
    norms = descend(adams, 3 * within.weight.sum())
    close(torch.stack(norms), torch.tensor([3.0, 0.0]))
    assert torch.equal(without.weight, before)


def test_first_update_is_rate_against_gradient_sign():
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(2.0)
    descend([Adam([module], 0.1, 0.5, 10)], 7 * module.weight.sum())
    close(module.weight.item(), 2.0 * (1 - 0.1 * 0.5) - 0.1)  # decayed, then a step of the rate


def test_learning_rate_never_rises():
    adam = Adam([nn.Linear(1, 1)], 0.1, 1.0, 4)
    rates = [1 - adam.scale_at(count).numbers()[2] for count in range(1, 5)]  # with a decay of one, 1 - kept
    assert rates == pytest.approx([0.1, 0.1 * (1 + 0.5**0.5) / 2, 0.05, 0.1 * (1 - 0.5**0.5) / 2])


def test_slow_copy_is_the_average_by_hand():
    slow, fast = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        slow.weight.fill_(0.0)
        fast.weight.fill_(1.0)
    average = SlowCopy([slow], [fast], 0.25)
    average.follow()
    assert slow.weight.item() == 0.25
    average.follow()
    assert slow.weight.item() == 0.25 + 0.25 * 0.75
    with torch.no_grad():
        fast.weight.fill_(-1.0)
    average.follow()
    assert slow.weight.item() == 0.4375 + 0.25 * (-1 - 0.4375)
    assert fast.weight.item() == -1.0


def test_rate_of_one_copies_into_held_tensors():
    slow, fast = network(3), network(4)
    average = SlowCopy([slow], [fast], 1.0)
    held = [torch.zeros_like(piece) for piece in average.pieces()]
    average.hold(held)
    average.follow()
    for one, other in zip(held, fast.parameters(), strict=True):
        close(one, other.detach())
