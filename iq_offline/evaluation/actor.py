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

from iq_offline.algorithms.networks import LARGEST_STANDARDISED, LOG_STD_BOUNDS, ContinuousPolicy, Policy
from iq_offline.config.base import ActionHead

Floats = NDArray[np.float32]
Act = Callable[[Floats], NDArray[Any]]
"""From raw observations to actions in the environment's units, in memory of their own: an environment may keep them."""
Layer = Callable[[Floats], Floats]


def batch_actor(policy: Policy, rows: int) -> Act:
    """`policy.act` for batches of exactly that many rows; the policy's tensors are copied where numpy does the work."""
    if _is_plain(policy):
        outputs = _plain_outputs(policy, rows)
        choose = _scaled(policy) if isinstance(policy, ContinuousPolicy) else _greatest
        return lambda observations: choose(outputs(observations))

    @torch.inference_mode()
    def act_in_torch(observations: Floats) -> NDArray[Any]:
        return np.asarray(policy.act(torch.from_numpy(observations)).numpy())

    return act_in_torch


def sampling_actor(policy: Policy, rows: int) -> Callable[[Floats, Floats], NDArray[Any]]:
    """As `batch_actor`, but actions drawn from the policy, by random numbers of the rows.

    Standard normal ones for continuous actions, (rows, A); one between 0 and 1 for discrete actions, (rows, 1).
    """
    draw = _drawn(policy) if isinstance(policy, ContinuousPolicy) else _drawn_category
    if _is_plain(policy):
        outputs = _plain_outputs(policy, rows)
        return lambda observations, random: draw(outputs(observations), random)

    @torch.inference_mode()
    def act_in_torch(observations: Floats, random: Floats) -> NDArray[Any]:
        return draw(policy(torch.from_numpy(observations)).numpy(), random)

    return act_in_torch


def _is_plain(policy: Policy) -> bool:
    unusual = {type(layer) for layer in policy.network} - {nn.Linear, nn.ReLU, nn.Tanh}
    return not (policy.layout.pictures or policy.layout.categories or unusual)


def _plain_outputs(policy: Policy, rows: int) -> Layer:
    """From raw observations to the network's outputs."""
    mean, std = policy.observation_mean.numpy(), policy.observation_std.numpy()
    inputs = aligned(rows, len(mean))
    layers = [_layer(module, rows) for module in policy.network]

    def outputs(observations: Floats) -> Floats:
        np.subtract(observations, mean, out=inputs)
        np.divide(inputs, std, out=inputs)
        features = _clip(inputs, LARGEST_STANDARDISED)
        for layer in layers:
            features = layer(features)
        return features

    return outputs


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


def _drawn_category(outputs: Floats, random: Floats) -> NDArray[Any]:
    """One of the actions each row, from softmax(outputs) and a number between 0 and 1."""
    weights = np.exp(outputs - outputs.max(axis=-1, keepdims=True)).cumsum(axis=-1)
    return np.asarray((weights < random * weights[:, -1:]).sum(axis=-1))


def _drawn(policy: ContinuousPolicy) -> Callable[[Floats, Floats], NDArray[Any]]:
    centre, half_range = policy.action_centre.numpy(), policy.action_half_range.numpy()
    squash, (low, high) = policy.head is ActionHead.TANH_GAUSSIAN, LOG_STD_BOUNDS

    def draw(outputs: Floats, random: Floats) -> NDArray[Any]:
        mean, rest = outputs[:, : len(centre)], outputs[:, len(centre) :]
        std = np.exp(low + (high - low) * (np.tanh(rest) + 1) / 2) if policy.learnt_std else policy.std
        drawn = (mean + std * random).astype(np.float32)
        return np.asarray((_tanh(drawn) if squash else _clip(drawn, 1)) * half_range + centre)

    return draw


def _scaled(policy: ContinuousPolicy) -> Act:
    centre, half_range = policy.action_centre.numpy(), policy.action_half_range.numpy()
    squash = policy.head is ActionHead.TANH_GAUSSIAN

    def choose(outputs: Floats) -> NDArray[Any]:
        mean = outputs[:, : len(centre)]
        return np.asarray((_tanh(mean) if squash else _clip(mean, 1)) * half_range + centre)

    return choose
