"""The loop: one generator that trains a method from its split and yields metrics as it goes."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch

from iq_offline.algorithms.bc import BCLearner, cloning_loss
from iq_offline.algorithms.iq_continuous import ContinuousIQLearner
from iq_offline.algorithms.iq_discrete import DiscreteIQLearner
from iq_offline.algorithms.learner import Learner, OwnLearner, Stream, generator, named
from iq_offline.algorithms.networks import ContinuousPolicy, DiscretePolicy, Policy
from iq_offline.batch import Batch
from iq_offline.config import (
    BCConfig,
    Compile,
    ContinuousIQConfig,
    Device,
    DiscreteIQConfig,
    IQConfig,
    ObjectiveKind,
    TrainConfig,
    ValueTerm,
)
from iq_offline.data.spaces import ActionSpace
from iq_offline.errors import ConfigError
from iq_offline.training.alarm import DivergenceAlarm
from iq_offline.training.batches import Demonstrations, SupplementarySampler, beside
from iq_offline.training.build import Data, cloned_policy, continuous_networks, discrete_networks
from iq_offline.training.checkpointing import Snapshot, learner_tensors, restore
from iq_offline.training.steps import Seconds, steps_of
from iq_offline.training.tensor_files import part

if TYPE_CHECKING:
    from iq_offline.training.compile.batched_seeds import SeedSlot

PRIOR, METHOD = "prior", "method"
LOG_EVERY = 100
"""Updates between two logged metrics; the last update is always logged."""
BC_REMEDY = "lower learning_rate (--set learning_rate=3e-4)"
CONTINUOUS_REMEDY = (
    "what holds it: action_gradient_weight=0.1 with action_gradient_at=between, entropy=prior with a larger "
    "temperature, critic_layer_norm=true, target_bound=100"
)
DISCRETE_REMEDY = "what holds it: separate_value=true, polyak_rate=0.005, target_bound=100, a smaller learning_rate"
GIVEN_REWARDS_REMEDY = (
    "what holds it: polyak_rate=0.005, target_bound=200 (as large as the greatest |reward| / (1 - gamma) is enough)"
)
MIXTURE_REMEDY = ", penalty_on=mixture beside supplementary data that a value term or value suppression reads"
SAFE_METHOD_REMEDY = "; or --method iq, which has what holds it (--set key=value)"


@dataclass(frozen=True)
class Progress:
    """Metrics at one step. Steps count all updates of a run, the prior's first."""

    step: int
    total: int
    metrics: dict[str, float]
    learner: Learner
    phase: str = METHOD
    """What is being trained: the cloned prior, or the method itself."""
    updates: int = 0
    """Updates made in this phase."""
    prior: Policy | None = None
    """The cloned prior, once it is trained."""
    taken: dict[str, list[int]] | None = None
    """Supplementary episodes cloned for demonstrations, by their table's SHA-256; None where none is looked for."""
    resumable: bool = False
    """Whether `train` can go on from a snapshot of it."""
    compiled: bool = False
    """Whether this phase's updates are."""
    prior_compiled: bool | None = None
    """Whether the prior's are; None where there is none."""
    timing: dict[str, float] = field(default_factory=dict)
    """Updates a second, and the seconds of drawing batches, of updates and of the rest since the last Progress."""

    def snapshot(self, rows: list[dict[str, float]], seconds: float) -> Snapshot:
        """All that the run's next update depends on. `rows`: metrics logged so far; `seconds`: spent so far."""
        assert isinstance(self.learner, OwnLearner)
        tensors = learner_tensors(self.learner)
        if self.prior is not None:
            tensors |= named("prior", self.prior)
        counts = tuple(adam.count for adam in self.learner.adams)
        return Snapshot(self.phase, self.updates, counts, tensors, rows, seconds, self.prior_compiled)


def resolve_device(device: Device) -> torch.device:
    """The device to train on. Raises ConfigError where CUDA is asked for and not there."""
    available = torch.cuda.is_available()
    if device is Device.CUDA and not available:
        raise ConfigError("--device cuda: PyTorch sees no CUDA device here", "use --device cpu or auto")
    return torch.device("cuda" if available and device is not Device.CPU else "cpu")


def train(
    config: TrainConfig,
    sampler: Demonstrations,
    space: ActionSpace,
    device: torch.device,
    held_out: Batch | None = None,
    supplementary: SupplementarySampler | None = None,
    resumed: Snapshot | None = None,
    lane: "SeedSlot | None" = None,
) -> Iterator[Progress]:
    """Train the method of `config` on the sampler's transitions; yields every LOG_EVERY updates and at the end.

    The last Progress carries the trained learner. Same config, data, kind of device and threads: same tensors.
    `held_out`: transitions to watch the policy's cloning loss on; it decides nothing. `supplementary`: read by the
    methods that learn from such data, and by no other. `resumed`: where to go on; what follows is what would have.
    `lane`: its place among seeds that are updated together.
    Raises TrainingDiverged where a logged metric is not finite or the Q-function has come apart.
    """
    data, pace = Data(sampler, space, device, supplementary), Pace(config.seed, config.compile, resumed, lane)
    for progress in watched(_train(config, data, pace), held_out):
        yield replace(progress, resumable=True)


def watched(steps: Iterator[Progress], held_out: Batch | None) -> Iterator[Progress]:
    """The same, with the policy's cloning loss on transitions that were set aside, where there are any."""
    for progress in steps:
        if held_out is None:
            yield progress
            continue
        with torch.no_grad():
            loss = cloning_loss(progress.learner.policy, held_out)
        yield replace(progress, metrics=progress.metrics | {"held_out_cloning_loss": float(loss)})


def with_metrics(
    steps: Iterator[Progress], extra: dict[str, float], taken: dict[str, list[int]] | None = None
) -> Iterator[Progress]:
    """The same, with what was found before training beside each step's metrics."""
    for progress in steps:
        yield replace(progress, metrics=progress.metrics | extra, taken=taken)


def fit_clone(
    config: BCConfig, seed: int, sampler: Demonstrations, space: ActionSpace, device: torch.device
) -> Iterator[Progress]:
    """Behavioural cloning: the method `bc`, the prior of IQ-Learn, and the null of reward recovery."""
    yield from _clone(config, Pace(seed), Data(sampler, space, device))


@dataclass(frozen=True)
class Pace:
    """The seed, whether updates are compiled, where to go on, and the place among seeds that are updated together."""

    seed: int
    compile: Compile = Compile.OFF
    resumed: Snapshot | None = None
    lane: "SeedSlot | None" = None

    def resumed_in(self, phase: str) -> Snapshot | None:
        """Where to go on, if that is in this phase."""
        return self.resumed if self.resumed is not None and self.resumed.phase == phase else None

    def fit(
        self, learner: Learner, batches: Iterator[Batch], updates: int, alarm: DivergenceAlarm, phase: str
    ) -> Iterator["Progress"]:
        """`fit` at this pace."""
        resumed = self.resumed_in(phase)
        return fit(learner, batches, updates, alarm, compile_=self.compile, resumed=resumed, lane=self.lane)


def fit(
    learner: Learner,
    batches: Iterator[Batch],
    updates: int,
    alarm: DivergenceAlarm,
    *,
    compile_: Compile = Compile.OFF,
    resumed: Snapshot | None = None,
    lane: "SeedSlot | None" = None,
) -> Iterator[Progress]:
    """Update `learner` on `updates` batches, those apart that it has seen before it was `resumed`."""
    step = 0
    if resumed is not None:
        assert isinstance(learner, OwnLearner)
        restore(learner, resumed)
        step = resumed.updates
        deque(islice(batches, step), maxlen=0)
        alarm.recall(resumed.rows)
    steps, seconds = steps_of(learner, updates, compile_, lane), Seconds()
    while step < updates:
        count = min(LOG_EVERY - step % LOG_EVERY, updates - step)
        metrics, batch = steps.advance(batches, count, seconds)
        step += count
        values = {name: float(value) for name, value in (metrics | learner.diagnostics(batch)).items()}
        alarm.check(step, values)
        timing, seconds = seconds.spent(count), Seconds()
        yield Progress(step, updates, values, learner, updates=step, compiled=steps.compiled, timing=timing)


def _train(config: TrainConfig, data: Data, pace: Pace) -> Iterator[Progress]:
    algorithm = config.algorithm
    if isinstance(algorithm, BCConfig):
        yield from _clone(algorithm, pace, replace(data, supplementary=None))
        return
    assert isinstance(algorithm, IQConfig)
    if not algorithm.uses_supplementary:
        data = replace(data, supplementary=None)
    if isinstance(algorithm, ContinuousIQConfig):
        yield from _train_continuous_iq(algorithm, pace, data)
    elif isinstance(algorithm, DiscreteIQConfig):
        yield from _train_discrete_iq(algorithm, pace, data)


def _clone(config: BCConfig, pace: Pace, data: Data) -> Iterator[Progress]:
    config = config.settled(len(data.expert.proper))
    learner = BCLearner(config, cloned_policy(config, pace.seed, data))
    yield from _fit_clone(learner, config, pace, data, METHOD)


def _fit_clone(learner: BCLearner, config: BCConfig, pace: Pace, data: Data, phase: str) -> Iterator[Progress]:
    batches = data.expert.batches(config.batch_size, generator(pace.seed, Stream.CLONING_BATCHES))
    alarm = DivergenceAlarm(None, BC_REMEDY)
    yield from pace.fit(learner, batches, config.fewest_updates, alarm, phase)


def _train_continuous_iq(config: ContinuousIQConfig, pace: Pace, data: Data) -> Iterator[Progress]:
    def learner(prior: Policy | None) -> Learner:
        assert prior is None or isinstance(prior, ContinuousPolicy)
        networks = continuous_networks(config, pace.seed, data, prior)
        return ContinuousIQLearner(config, networks, generator(pace.seed, Stream.ACTIONS, data.device))

    yield from _after_prior(config, config.prior, learner, pace, data)


def _train_discrete_iq(config: DiscreteIQConfig, pace: Pace, data: Data) -> Iterator[Progress]:
    def learner(prior: Policy | None) -> Learner:
        assert prior is None or isinstance(prior, DiscretePolicy)
        return DiscreteIQLearner(config, discrete_networks(config, pace.seed, data, prior))

    yield from _after_prior(config, config.prior, learner, pace, data)


def _after_prior(
    config: ContinuousIQConfig | DiscreteIQConfig,
    prior: BCConfig | None,
    learner_from: Callable[[Policy | None], Learner],
    pace: Pace,
    data: Data,
) -> Iterator[Progress]:
    """The prior's updates, if there is one, then the method's own; steps count both."""
    prior = prior and prior.settled(len(data.expert.proper))
    before = 0 if prior is None else prior.fewest_updates
    total = before + config.updates
    resumed, cloned = pace.resumed_in(METHOD), None
    compiled = pace.resumed.prior_compiled if pace.resumed is not None else None
    if prior is not None and resumed is not None:
        cloned = cloned_policy(prior, pace.seed, data)
        cloned.load_state_dict(part(resumed.tensors, "prior"))
    elif prior is not None:
        cloner = BCLearner(prior, cloned_policy(prior, pace.seed, data))
        for progress in _fit_clone(cloner, prior, pace, data, PRIOR):
            metrics = {f"prior_{name}": value for name, value in progress.metrics.items()}
            compiled = progress.compiled
            yield replace(progress, total=total, metrics=metrics, phase=PRIOR, prior_compiled=compiled)
        cloned = cloner.policy
    learner = learner_from(cloned)
    if config.updates == 0:
        yield Progress(before, total, {}, learner, prior_compiled=compiled)
    alarm = DivergenceAlarm(config.alarm_q, remedy_of(config), before=before)
    batches = _batches(config, pace.seed, data)
    for later in pace.fit(learner, batches, config.updates, alarm, METHOD):
        yield replace(later, step=before + later.step, total=total, prior=cloned, prior_compiled=compiled)


def remedy_of(config: IQConfig) -> str:
    """What to try where a run of `config` has come apart: settings that its learner has and does not contradict."""
    if config.objective is not ObjectiveKind.INVERSE:
        return GIVEN_REWARDS_REMEDY + SAFE_METHOD_REMEDY
    remedy = CONTINUOUS_REMEDY if isinstance(config, ContinuousIQConfig) else DISCRETE_REMEDY
    return remedy + (MIXTURE_REMEDY if config.uses_supplementary else "") + SAFE_METHOD_REMEDY


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
    expert = data.expert.proper.batches(expert_size, generator(seed, Stream.BATCHES))
    return beside(expert, supplementary, initial)
