"""Check that the yardsticks make our updates, from the same weights, batches and noise.

In double precision, so that only the mathematics can differ. Prints the largest difference of any loss or weight after
UPDATES updates, and exits with 1 where one is above TOLERANCE.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.arguments import Parser
from benchmarks.processes import importable
from benchmarks.yardsticks.eager import Minibatch, PlainIQ, PlainSoftQ, sampler
from benchmarks.yardsticks.environments import DEFAULT_FOLDER, python_of
from benchmarks.yardsticks.ours import CONFIGS, data_of, learner_of
from benchmarks.yardsticks.synthetic import ACTION, BATCH, SMALL_BATCH, continuous_episodes, discrete_episodes
from iq_offline.algorithms.learner import Learner
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.batch import Batch

UPDATES = 5
TOLERANCE = 1e-8

Found = dict[str, Tensor]
"""Losses (UPDATES,) and the weights after the updates, by name."""


def main(arguments: list[str]) -> None:
    """Check what the options say."""
    parser = Parser(__name__, __doc__)
    parser.add_argument("--environments", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--without-jax", action="store_true")
    options = parser.parse(arguments)
    with double_precision():
        own, plain, given = continuous_updates()
        worst = {"eager iq": difference(own, plain), "eager discrete": difference(*discrete_updates())}
    if not options.without_jax:
        worst["jax_iq"] = difference(own, jax_updates(given, python_of("jax", options.environments)))
    for name, largest in worst.items():
        print(f"{name}: largest difference from ours after {UPDATES} updates {largest:.1e} (at most {TOLERANCE:g})")
    if max(worst.values()) > TOLERANCE:
        raise SystemExit(1)


@contextmanager
def double_precision() -> Iterator[None]:
    """New tensors hold 64-bit floats."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def continuous_updates() -> tuple[Found, Found, Found]:
    """Ours, the plain loop's, and what both were given."""
    config = CONFIGS["iq"]()
    learner, plain = _unscaled(learner_of(config, data_of(config))), PlainIQ()
    before = learner.tensors()
    _load(plain.actor, before, "policy.network.")
    for k, (critic, target) in enumerate(zip(plain.critics, plain.targets, strict=True)):
        _load(critic, before, f"critic.members.{k}.network.")
        _load(target, before, f"critic.members.{k}.network.")
    given = _weights_of(plain)
    batches, random = _batches(sampler(continuous_episodes(), BATCH)), generator(0, Stream.ACTIONS)
    noise = [[torch.randn(BATCH, ACTION, generator=random) for _ in range(2)] for _ in batches]
    ours_losses = [learner.update(_batch(batch))["loss"] for batch in batches]
    losses = [plain.update(batch, *drawn) for batch, drawn in zip(batches, noise, strict=True)]
    given |= {name: torch.stack([batch[name] for batch in batches]) for name in batches[0]}
    given |= {"noise": torch.stack([n for n, _ in noise]), "next_noise": torch.stack([n for _, n in noise])}
    after, networks = learner.tensors(), PlainIQ()
    _load(networks.actor, after, "policy.network.")
    for k in range(2):
        _load(networks.critics[k], after, f"critic.members.{k}.network.")
        _load(networks.targets[k], after, f"target_critic.members.{k}.network.")
    own = _weights_of(networks) | {"losses": torch.stack(ours_losses)}
    return own, _weights_of(plain) | {"losses": torch.stack(losses)}, given


def discrete_updates() -> tuple[Found, Found]:
    """Ours and the plain loop's."""
    config = CONFIGS["discrete"]()
    learner, plain = _unscaled(learner_of(config, data_of(config))), PlainSoftQ()
    _load(plain.q, learner.tensors(), "policy.network.")
    batches = _batches(sampler(discrete_episodes(), SMALL_BATCH))
    ours_losses = torch.stack([learner.update(_batch(batch))["loss"] for batch in batches])
    losses = torch.stack([plain.update(batch) for batch in batches])
    own = PlainSoftQ()
    _load(own.q, learner.tensors(), "policy.network.")
    return _layers("q", own.q) | {"losses": ours_losses}, _layers("q", plain.q) | {"losses": losses}


def jax_updates(given: Found, python: Path) -> Found:
    """The JAX yardstick's, in a process of its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "given.npz"), Path(folder, "after.npz")
        np.savez(source, **{name: tensor.numpy() for name, tensor in given.items()})
        environment = importable(os.environ) | {"JAX_PLATFORMS": "cpu"}
        command = [str(python), "-m", "benchmarks.yardsticks.jax_iq", str(source), str(target)]
        subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
        with np.load(target) as after:
            return {name: torch.from_numpy(after[name]) for name in after.files}


def difference(first: Found, second: Found) -> float:
    """The largest of any two numbers of the same name."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def _unscaled(learner: Learner) -> Learner:
    """The yardsticks take observations as they are."""
    learner.policy.observation_mean.zero_()
    learner.policy.observation_std.fill_(1)
    return learner


def _batches(sample: object) -> list[Minibatch]:
    assert callable(sample)
    torch.manual_seed(0)
    drawn = [sample() for _ in range(UPDATES)]
    return [{k: v.double() if v.is_floating_point() else v for k, v in batch.items()} for batch in drawn]


def _batch(given: Minibatch) -> Batch:
    return Batch(given["observations"], given["actions"], given["next_observations"], given["terminations"])


def _load(module: nn.Module, tensors: Found, prefix: str) -> None:
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    module.load_state_dict(found)


def _weights_of(plain: PlainIQ) -> Found:
    parts = {"actor": plain.actor}
    parts |= {f"critic.{k}": critic for k, critic in enumerate(plain.critics)}
    parts |= {f"target.{k}": target for k, target in enumerate(plain.targets)}
    return {name: tensor for part, module in parts.items() for name, tensor in _layers(part, module).items()}


def _layers(prefix: str, module: nn.Module) -> Found:
    """Copies of weights, (inputs, outputs) as JAX has them, and biases."""
    linear = [layer for layer in module if isinstance(layer, nn.Linear)]
    weights = {f"{prefix}.weights.{k}": layer.weight.detach().T.clone() for k, layer in enumerate(linear)}
    return weights | {f"{prefix}.biases.{k}": layer.bias.detach().clone() for k, layer in enumerate(linear)}
