"""The option that trades exactness for speed: 16-bit products."""

from pathlib import Path

import pytest
import torch
from tests_support import requested

from iq_offline.algorithms.encoders import initialise, mlp, with_precision
from iq_offline.config.base import Activation, Precision
from iq_offline.stages.train import train_run
from iq_offline.training.run_folder import RunFolder


def trained(out: Path, dataset: Path, *overrides: str, method: str = "iq") -> RunFolder:
    small = ("updates=60", "hidden_sizes=[8, 8]", "batch_size=16")
    prior = ("prior.updates=30", "prior.hidden_sizes=[8, 8]") if method == "iq" else ()
    request = requested(
        str(dataset),
        method,
        demos=4,
        overrides=(*small, *prior, *overrides),
        device="cpu",
        out=out,
        compile="off",
        tracked=False,
    )
    return train_run(*request, lambda _: None, lambda _: None)


def largest_difference(first: RunFolder, second: RunFolder, part: str) -> float:
    others = second.checkpoint()
    found = [
        (tensor - others[name]).abs().max() for name, tensor in first.checkpoint().items() if name.startswith(part)
    ]
    return float(torch.stack(found).max())


def test_sixteen_bits_are_of_hidden_products_alone():
    network = mlp(5, 1, (32, 32), Activation.RELU, norm=True)
    initialise(network, torch.Generator().manual_seed(0))
    inputs = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    exact = network(inputs)
    with_precision(network, Precision.BFLOAT16)
    rounded = network(inputs)
    assert rounded.dtype is torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.02  # of a spread of 0.2: eight bits are two decimal places
    with torch.no_grad():
        for layer in network[:-1]:
            for parameter in layer.parameters():
                parameter.zero_()
        network[-1].bias.fill_(1.0009765625)  # 1 + 2^-10: not among bfloat16's numbers
    assert network(inputs)[0].item() == 1.0009765625


@pytest.mark.parametrize(("capability", "warned"), [("AVX2", True), ("AVX512", False)])
def test_processor_without_sixteen_bit_products_is_named(
    capability: str, warned: bool, tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    said: list[str] = []
    request = requested(
        str(linear_task),
        "bc",
        demos=2,
        overrides=("updates=1", "precision=bfloat16"),
        device="cpu",
        out=tmp_path / "run",
        tracked=False,
    )
    train_run(*request, lambda _: None, said.append)
    assert [capability in text and "float32" in text for text in said] == [True] * warned


@pytest.mark.parametrize("method", ["iq", "bc"])
def test_run_of_sixteen_bits_keeps_numbers_whole(method: str, tmp_path: Path, linear_task: Path):
    """It is near the exact one."""
    exact = trained(tmp_path / "exact", linear_task, method=method)
    rounded = trained(tmp_path / "rounded", linear_task, "precision=bfloat16", method=method)
    assert all(tensor.dtype is torch.float32 for tensor in rounded.checkpoint().values())
    assert 0 < largest_difference(exact, rounded, "policy.network") < 0.02
    assert exact.manifest["config_hash"] != rounded.manifest["config_hash"]
