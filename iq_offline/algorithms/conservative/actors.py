"""Actor losses that stay with the recorded actions."""

import torch
from torch import Tensor


def advantage_weights(advantages: Tensor, temperature: float, largest: float) -> Tensor:
    """min(exp(advantage / temperature), largest), without a gradient. Shapes: (B,) -> (B,).

    Source: [AWR19] eq. 8. At an infinite temperature all are 1: behavioural cloning.
    """
    exponent = (advantages.detach() / temperature).clamp(max=torch.tensor(largest).log().item())
    return exponent.exp()


def weighted_cloning(errors: Tensor, weights: Tensor) -> Tensor:
    """E[weight * error], errors such as the squared error or -log likelihood of each. Shapes: (B,), (B,) -> ()."""
    if errors.shape != weights.shape:
        raise ValueError(f"errors {tuple(errors.shape)} with weights {tuple(weights.shape)}")
    return (weights * errors).mean()


def scaled_q(q: Tensor, scale: float | None) -> Tensor:
    """Q / mean |Q| * scale, its size without a gradient; Q itself for None. Shapes: (B,) -> (B,).

    Source: [TD3BC21] eq. 5: an anchor's weight then means the same whatever the size of rewards.
    """
    return q if scale is None else q * (scale / q.detach().abs().mean().clamp_min(1e-6))
