"""The loop: one generator that trains a method from its split and yields metrics as it goes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from iq_offline.algorithms.bc import BCLearner, cloning_loss
from iq_offline.algorithms.iq_continuous import ContinuousIQLearner
from iq_offline.algorithms.iq_discrete import DiscreteIQLearner
from iq_offline.algorithms.learner import Learner, Metrics, Stream, generator
from iq_offline.algorithms.networks import (
    ActionScale,
    ContinuousPolicy,
    Critic,
    DiscretePolicy,
    Policy,
    Standardiser,
    initialise,
)
from iq_offline.batch import Batch
from iq_offline.config import Activation, BCConfig, ContinuousIQConfig, Device, HiddenSizes, TrainConfig
from iq_offline.data.spaces import ActionSpace, ContinuousActions
from iq_offline.errors import ConfigError, TrainingDiverged
from iq_offline.training.batches import TransitionSampler

LOG_EVERY = 100
"""Updates between two logged metrics; the last update is always logged."""


@dataclass(frozen=True)
class Progress:
    """Metrics at one step. Steps count all updates of a run, the prior's first."""

    step: int
    total: int
    metrics: dict[str, float]
    learner: Learner


def resolve_device(device: Device) -> torch.device:
    """The device to train on. Raises ConfigError where CUDA is asked for and not there."""
    available = torch.cuda.is_available()
    if device is Device.CUDA and not available:
        raise ConfigError("--device cuda: PyTorch sees no CUDA device here", "use --device cpu or auto")
    return torch.device("cuda" if available and device is not Device.CPU else "cpu")


def train(
    config: TrainConfig,
    sampler: TransitionSampler,
    space: ActionSpace,
    device: torch.device,
    held_out: Batch | None = None,
) -> Iterator[Progress]:
    """Train the method of `config` on the sampler's transitions; yields every LOG_EVERY updates and at the end.

    The last Progress carries the trained learner. Same config, data, kind of device and threads: same tensors.
    `held_out`: transitions to watch the policy's cloning loss on; it decides nothing.
    Raises TrainingDiverged where a logged metric is not finite.
    """
    for progress in _train(config, sampler, space, device):
        if held_out is None:
            yield progress
            continue
        with torch.no_grad():
            loss = cloning_loss(progress.learner.policy, held_out)
        yield replace(progress, metrics=progress.metrics | {"held_out_cloning_loss": float(loss)})


def _train(
    config: TrainConfig, sampler: TransitionSampler, space: ActionSpace, device: torch.device
) -> Iterator[Progress]:
    algorithm, seed = config.algorithm, config.seed
    if isinstance(algorithm, BCConfig):
        yield from fit_clone(algorithm, seed, sampler, space, device)
    elif isinstance(algorithm, ContinuousIQConfig):
        yield from _train_continuous_iq(algorithm, seed, sampler, space, device)
    else:
        policy = _policy(sampler, space, algorithm.hidden_sizes, algorithm.activation, seed, device)
        assert isinstance(policy, DiscretePolicy)
        batches = sampler.batches(algorithm.batch_size, generator(seed, Stream.BATCHES))
        yield from fit(DiscreteIQLearner(algorithm, policy), batches, algorithm.updates)


def fit_clone(
    config: BCConfig, seed: int, sampler: TransitionSampler, space: ActionSpace, device: torch.device
) -> Iterator[Progress]:
    """Behavioural cloning: the method `bc`, the prior of continuous IQ-Learn, and the null of reward recovery."""
    policy = _policy(sampler, space, config.hidden_sizes, config.activation, seed, device)
    batches = sampler.batches(config.batch_size, generator(seed, Stream.CLONING_BATCHES))
    yield from fit(BCLearner(config, policy), batches, config.updates)


def fit(learner: Learner, batches: Iterator[Batch], updates: int) -> Iterator[Progress]:
    """Update `learner` on `updates` batches."""
    for step in range(1, updates + 1):
        metrics = learner.update(next(batches))
        if step % LOG_EVERY == 0 or step == updates:
            yield Progress(step, updates, _finite(metrics, step), learner)


def _train_continuous_iq(
    config: ContinuousIQConfig, seed: int, sampler: TransitionSampler, space: ActionSpace, device: torch.device
) -> Iterator[Progress]:
    total = config.prior.updates + config.updates
    for progress in fit_clone(config.prior, seed, sampler, space, device):
        yield replace(progress, total=total, metrics={f"prior_{k}": v for k, v in progress.metrics.items()})
    prior = progress.learner.policy
    assert isinstance(prior, ContinuousPolicy)
    critic = Critic(
        len(prior.observation_mean),
        len(prior.action_centre),
        config.hidden_sizes,
        config.critic_activation,
        norm=config.critic_layer_norm,
    )
    initialise(critic, generator(seed, Stream.CRITIC))
    learner = ContinuousIQLearner(config, prior, critic.to(device), generator(seed, Stream.ACTIONS, device))
    if config.updates == 0:
        yield replace(progress, total=total, metrics={}, learner=learner)
    batches = sampler.batches(config.batch_size, generator(seed, Stream.BATCHES))
    for later in fit(learner, batches, config.updates):
        yield replace(later, step=config.prior.updates + later.step, total=total)


def _policy(
    sampler: TransitionSampler,
    space: ActionSpace,
    hidden: HiddenSizes,
    activation: Activation,
    seed: int,
    device: torch.device,
) -> Policy:
    """A policy with the seed's initial weights and the scaling of the split's observations."""
    standardiser = Standardiser.fit(sampler.observations().cpu())
    policy: Policy
    if isinstance(space, ContinuousActions):
        policy = ContinuousPolicy(standardiser, ActionScale.of_bounds(space.low, space.high), hidden, activation)
    else:
        policy = DiscretePolicy(standardiser, space.count, hidden, activation)
    initialise(policy, generator(seed, Stream.POLICY))
    return policy.to(device)


def _finite(metrics: Metrics, step: int) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"training diverged: {name} is {value} at update {step}",
                "lower the learning rate, or raise action_gradient_weight or temperature (--set key=value)",
            )
    return values
