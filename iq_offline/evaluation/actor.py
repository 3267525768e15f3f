"""The policy as evaluation calls it: a batch that always has the same rows in, their deterministic actions out.

Small matrices leave numpy with less overhead than torch has. A plain network goes through numpy, in buffers that stay
where they are; one with pictures, categories, layer norms or another activation is called as it is.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from iq_offline.algorithms.networks import LARGEST_STANDARDISED, ContinuousPolicy, Policy
from iq_offline.config.base import ActionHead

Floats = NDArray[np.float32]
Act = Callable[[Floats], NDArray[Any]]
"""From raw observations to actions in the environment's units, in memory of their own: an environment may keep them."""
Layer = Callable[[Floats], Floats]


def batch_actor(policy: Policy, rows: int) -> Act:
    """`policy.act` for batches of exactly that many rows; the policy's tensors are copied where numpy does the work."""
    unusual = {type(layer) for layer in policy.network} - {nn.Linear, nn.ReLU, nn.Tanh}
    if policy.layout.pictures or policy.layout.categories or unusual:

        @torch.inference_mode()
        def act_in_torch(observations: Floats) -> NDArray[Any]:
            return np.asarray(policy.act(torch.from_numpy(observations)).numpy())

        return act_in_torch
    mean, std = policy.observation_mean.numpy(), policy.observation_std.numpy()
    inputs = aligned(rows, len(mean))
    layers = [_layer(module, rows) for module in policy.network]
    choose = _scaled(policy) if isinstance(policy, ContinuousPolicy) else _greatest

    def act(observations: Floats) -> NDArray[Any]:
        np.subtract(observations, mean, out=inputs)
        np.divide(inputs, std, out=inputs)
        features = _clip(inputs, LARGEST_STANDARDISED)
        for layer in layers:
            features = layer(features)
        return choose(features)

    return act


def aligned(rows: int, columns: int) -> Floats:
    """Zeros in memory aligned alike in every process, which numpy's own is not: some kernels round by alignment."""
    return np.asarray(torch.zeros((rows, columns)).numpy())


def _layer(module: nn.Module, rows: int) -> Layer:
    if not isinstance(module, nn.Linear):
        return _rectify if isinstance(module, nn.ReLU) else _tanh
    weight = aligned(module.in_features, module.out_features)
    weight[:] = module.weight.detach().numpy().T
    bias = module.bias.detach().numpy()
    outputs = aligned(rows, module.out_features)

    def layer(inputs: Floats) -> Floats:
        np.matmul(inputs, weight, out=outputs)
        np.add(outputs, bias, out=outputs)
        return outputs

    return layer


def _rectify(features: Floats) -> Floats:
    return np.maximum(features, 0, out=features)


def _tanh(features: Floats) -> Floats:
    return np.tanh(features, out=features)


def _clip(features: Floats, bound: float) -> Floats:
    return np.minimum(np.maximum(features, -bound, out=features), bound, out=features)


def _greatest(outputs: Floats) -> NDArray[Any]:
    return np.asarray(outputs.argmax(axis=-1))


def _scaled(policy: ContinuousPolicy) -> Act:
    centre, half_range = policy.action_centre.numpy(), policy.action_half_range.numpy()
    squash = policy.head is ActionHead.TANH_GAUSSIAN

    def choose(outputs: Floats) -> NDArray[Any]:
        mean = outputs[:, : len(centre)]
        return np.asarray((_tanh(mean) if squash else _clip(mean, 1)) * half_range + centre)

    return choose
