"""The loop: one generator that trains a method from its split and yields metrics as it goes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from iq_offline.algorithms.bc import BCLearner, cloning_loss
from iq_offline.algorithms.iq_continuous import ContinuousIQLearner
from iq_offline.algorithms.iq_discrete import DiscreteIQLearner
from iq_offline.algorithms.learner import Learner, Stream, generator
from iq_offline.algorithms.networks import ContinuousPolicy, DiscretePolicy, Policy
from iq_offline.batch import Batch
from iq_offline.config import (
    BCConfig,
    ContinuousIQConfig,
    Device,
    DiscreteIQConfig,
    IQConfig,
    TrainConfig,
    ValueTerm,
)
from iq_offline.data.spaces import ActionSpace
from iq_offline.errors import ConfigError
from iq_offline.training.alarm import DivergenceAlarm
from iq_offline.training.batches import SupplementarySampler, TransitionSampler, beside
from iq_offline.training.build import Data, cloned_policy, continuous_networks, discrete_networks

LOG_EVERY = 100
"""Updates between two logged metrics; the last update is always logged."""
BC_REMEDY = "lower learning_rate (--set learning_rate=3e-4)"
IQ_REMEDY = (
    "what holds it: entropy=prior with a larger temperature, action_gradient_weight=0.1, critic_layer_norm=true, "
    "target_bound=100, or --method iq, which has them all (--set key=value)"
)


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
    supplementary: SupplementarySampler | None = None,
) -> Iterator[Progress]:
    """Train the method of `config` on the sampler's transitions; yields every LOG_EVERY updates and at the end.

    The last Progress carries the trained learner. Same config, data, kind of device and threads: same tensors.
    `held_out`: transitions to watch the policy's cloning loss on; it decides nothing. `supplementary`: read by the
    methods that learn from such data, and by no other.
    Raises TrainingDiverged where a logged metric is not finite or the Q-function has come apart.
    """
    yield from watched(_train(config, Data(sampler, space, device, supplementary)), held_out)


def watched(steps: Iterator[Progress], held_out: Batch | None) -> Iterator[Progress]:
    """The same, with the policy's cloning loss on transitions that were set aside, where there are any."""
    for progress in steps:
        if held_out is None:
            yield progress
            continue
        with torch.no_grad():
            loss = cloning_loss(progress.learner.policy, held_out)
        yield replace(progress, metrics=progress.metrics | {"held_out_cloning_loss": float(loss)})


def fit_clone(
    config: BCConfig, seed: int, sampler: TransitionSampler, space: ActionSpace, device: torch.device
) -> Iterator[Progress]:
    """Behavioural cloning: the method `bc`, the prior of IQ-Learn, and the null of reward recovery."""
    yield from _clone(config, seed, Data(sampler, space, device))


def fit(learner: Learner, batches: Iterator[Batch], updates: int, alarm: DivergenceAlarm) -> Iterator[Progress]:
    """Update `learner` on `updates` batches."""
    for step in range(1, updates + 1):
        batch = next(batches)
        metrics = learner.update(batch)
        if step % LOG_EVERY == 0 or step == updates:
            values = {name: float(value) for name, value in (metrics | learner.diagnostics(batch)).items()}
            alarm.check(step, values)
            yield Progress(step, updates, values, learner)


def _train(config: TrainConfig, data: Data) -> Iterator[Progress]:
    algorithm, seed = config.algorithm, config.seed
    if isinstance(algorithm, BCConfig):
        yield from _clone(algorithm, seed, replace(data, supplementary=None))
        return
    assert isinstance(algorithm, IQConfig)
    if not algorithm.uses_supplementary:
        data = replace(data, supplementary=None)
    if isinstance(algorithm, ContinuousIQConfig):
        yield from _train_continuous_iq(algorithm, seed, data)
    elif isinstance(algorithm, DiscreteIQConfig):
        yield from _train_discrete_iq(algorithm, seed, data)


def _clone(config: BCConfig, seed: int, data: Data) -> Iterator[Progress]:
    batches = data.expert.batches(config.batch_size, generator(seed, Stream.CLONING_BATCHES))
    learner = BCLearner(config, cloned_policy(config, seed, data))
    yield from fit(learner, batches, config.updates, DivergenceAlarm(None, BC_REMEDY))


def _train_continuous_iq(config: ContinuousIQConfig, seed: int, data: Data) -> Iterator[Progress]:
    def learner(prior: Policy | None) -> Learner:
        assert prior is None or isinstance(prior, ContinuousPolicy)
        networks = continuous_networks(config, seed, data, prior)
        return ContinuousIQLearner(config, networks, generator(seed, Stream.ACTIONS, data.device))

    yield from _after_prior(config, config.prior, learner, seed, data)


def _train_discrete_iq(config: DiscreteIQConfig, seed: int, data: Data) -> Iterator[Progress]:
    def learner(prior: Policy | None) -> Learner:
        assert prior is None or isinstance(prior, DiscretePolicy)
        return DiscreteIQLearner(config, discrete_networks(config, seed, data, prior))

    yield from _after_prior(config, config.prior, learner, seed, data)


def _after_prior(
    config: ContinuousIQConfig | DiscreteIQConfig,
    prior: BCConfig | None,
    learner_from: Callable[[Policy | None], Learner],
    seed: int,
    data: Data,
) -> Iterator[Progress]:
    """The prior's updates, if there is one, then the method's own; steps count both."""
    before = 0 if prior is None else prior.updates
    total = before + config.updates
    cloned = None
    if prior is not None:
        for progress in _clone(prior, seed, data):
            yield replace(progress, total=total, metrics={f"prior_{k}": v for k, v in progress.metrics.items()})
        cloned = progress.learner.policy
    learner = learner_from(cloned)
    if config.updates == 0:
        yield Progress(before, total, {}, learner)
    alarm = DivergenceAlarm(config.alarm_q, IQ_REMEDY, before=before)
    for later in fit(learner, _batches(config, seed, data), config.updates, alarm):
        yield replace(later, step=before + later.step, total=total)


def _batches(config: IQConfig, seed: int, data: Data) -> Iterator[Batch]:
    """Expert batches; with supplementary data, half of each batch is theirs."""
    supplementary, initial, expert_size = None, None, config.batch_size
    if data.supplementary is not None:
        expert_size = max(1, config.batch_size // 2)
        random = generator(seed, Stream.SUPPLEMENTARY_BATCHES)
        supplementary = data.supplementary.batches(max(1, config.batch_size - expert_size), random)
    if config.value_term is ValueTerm.INITIAL:
        initial_random = generator(seed, Stream.INITIAL_BATCHES)
        initial = (data.expert.initial_observations(initial_random) for _ in iter(int, 1))
    return beside(data.expert.batches(expert_size, generator(seed, Stream.BATCHES)), supplementary, initial)
