"""What stands for library functions in compiled updates."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from iq_offline.training.arithmetic import cheaper_on, rational_tanh

CPU = torch.device("cpu")


def test_the_rational_tanh_is_tanh_within_rounding_and_never_beyond_one():
    x = torch.cat([torch.linspace(-30, 30, 600_001), torch.logspace(-30, 0, 3001), torch.tensor([0.0])])
    exact = x.double().tanh()
    found = rational_tanh(x)
    assert (found.double() - exact).abs().max() < 4e-7
    assert ((found.double() - exact)[exact != 0] / exact[exact != 0]).abs().max() < 4e-7
    assert found.abs().max() == 1
    assert torch.equal(rational_tanh(-x), -found)


def test_infinities_saturate_and_what_is_no_number_stays_none():
    found = rational_tanh(torch.tensor([torch.inf, -torch.inf, torch.nan]))
    assert found[:2].tolist() == [1, -1]
    assert found[2].isnan()


@pytest.mark.parametrize(
    ("dtype", "replaced"), [(torch.float32, True), (torch.float64, False), (torch.bfloat16, False)]
)
def test_a_trace_for_a_processor_has_no_tanh_of_32_bits_and_the_same_gradient(dtype: torch.dtype, replaced: bool):
    def function(x: torch.Tensor) -> list[torch.Tensor]:
        leaf = x.detach().clone().requires_grad_(True)
        y = torch.tanh(leaf).square().sum()
        return [y, *torch.autograd.grad(y, leaf)]

    x = torch.linspace(-4, 4, 101, dtype=dtype)
    traced = make_fx(function, decomposition_table=cheaper_on(CPU))(x)
    targets = {node.target for node in traced.graph.nodes}
    assert (torch.ops.aten.tanh.default not in targets) == replaced
    for found, expected in zip(traced(x), function(x), strict=True):
        assert torch.allclose(found, expected, atol=2e-6, rtol=1e-6)


def test_a_gpus_trace_keeps_its_own():
    assert cheaper_on(torch.device("cuda")) == {}
