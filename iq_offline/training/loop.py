"""The loop: one generator that trains a method from its split and yields metrics on the way."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from iq_offline.algorithms.bc import BCLearner, cloning_loss
from iq_offline.algorithms.build import clone_policy
from iq_offline.algorithms.learner import Learner, OwnLearner
from iq_offline.algorithms.networks import Policy, named
from iq_offline.algorithms.noise import Stream, generator
from iq_offline.batch import Batch
from iq_offline.config.cloning import BCConfig
from iq_offline.config.q_learning import QLearningConfig
from iq_offline.config.train import Compile, Device, TrainConfig
from iq_offline.data.spaces import ActionSpace
from iq_offline.errors import ConfigError
from iq_offline.training.alarm import DivergenceAlarm
from iq_offline.training.batches import Demonstrations, SupplementarySampler, beside
from iq_offline.training.checkpointing import Snapshot, learner_tensors, restore
from iq_offline.training.learnt import Data, build_learner
from iq_offline.training.steps import Seconds, steps_of
from iq_offline.training.tensor_files import part

if TYPE_CHECKING:
    from iq_offline.training.compile.batched_seeds import SeedSlot

PRIOR, METHOD = "prior", "method"
LOG_EVERY = 100
"""Updates between two logged metrics; the last update is always logged."""
BC_REMEDY = "lower learning_rate (--set learning_rate=3e-4)"


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
    accepted_episodes: dict[str, list[int]] | None = None
    """Supplementary episodes cloned as demonstrations, by their table's SHA-256; None where none are looked for."""
    resumable: bool = False
    """Whether `train` can go on from a snapshot of it."""
    compiled: bool = False
    """Whether this phase's updates are."""
    prior_compiled: bool | None = None
    """Whether the prior's are; None where there is none."""
    timing: dict[str, float] = field(default_factory=dict)
    """Updates a second, and the seconds of drawing batches, of updates and of the rest since the last Progress."""
    secure: Callable[[], None] = lambda: None
    """Called before a snapshot of it is written: puts on disk what else the run would go on from."""

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
    slot: "SeedSlot | None" = None,
) -> Iterator[Progress]:
    """Train the method of `config` on the sampler's transitions; yields every LOG_EVERY updates and at the end.

    The last Progress carries the trained learner. Same config, data, kind of device and threads: same tensors.
    `held_out`: transitions to watch the policy's cloning loss on; it decides nothing. `supplementary`: read by the
    methods that learn from such data, and by no other. `resumed`: where to go on; what follows is what would have.
    `slot`: its place among seeds that are updated together.
    Raises TrainingDiverged where a logged metric is not finite or the Q-function diverges.
    """
    data = Data(sampler, space, device, supplementary, config.encoder, config.shift)
    options = TrainingOptions(config.seed, config.compile, resumed, slot)
    for progress in watched(_train(config, data, options), held_out):
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
    steps: Iterator[Progress], extra: dict[str, float], accepted_episodes: dict[str, list[int]] | None = None
) -> Iterator[Progress]:
    """The same, with what was found before training beside each step's metrics."""
    for progress in steps:
        yield replace(progress, metrics=progress.metrics | extra, accepted_episodes=accepted_episodes)


def fit_clone(
    config: BCConfig, seed: int, sampler: Demonstrations, space: ActionSpace, device: torch.device
) -> Iterator[Progress]:
    """Behavioural cloning: the method `bc`, the prior of IQ-Learn, and the null of reward recovery."""
    yield from _clone(config, TrainingOptions(seed), Data(sampler, space, device))


@runtime_checkable
class BatchSource(Protocol):
    """Endless batches, which may make new transitions between updates."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def recall(self, updates: int) -> None:
        """Go on behind so many updates, as if it had made their batches; to be called first."""
        ...

    def ready(self, updates: int) -> int:
        """How many updates may follow so many before it must be asked again, one at least."""
        ...

    def log_due(self, updates: int) -> bool:
        """Whether it has something to log behind that update, whatever its number."""
        ...

    def metrics(self, updates: int) -> dict[str, float]:
        """What it has to log behind that update."""
        ...

    def timing(self) -> dict[str, float]:
        """What its own work has taken since it was last asked, `acting_seconds` among it; empty for none."""
        ...


class _Recorded:
    """Batches of data that are there."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return self._batches

    def __next__(self) -> Batch:
        return next(self._batches)

    def recall(self, updates: int) -> None:
        deque(islice(self._batches, updates), maxlen=0)

    def ready(self, updates: int) -> int:
        del updates
        return LOG_EVERY

    def log_due(self, updates: int) -> bool:
        del updates
        return False

    def metrics(self, updates: int) -> dict[str, float]:
        del updates
        return {}

    def timing(self) -> dict[str, float]:
        return {}


@dataclass(frozen=True)
class TrainingOptions:
    """The seed, whether updates are compiled, where to go on, and the place among seeds that are updated together."""

    seed: int
    compile: Compile = Compile.OFF
    resumed: Snapshot | None = None
    slot: "SeedSlot | None" = None

    def resumed_in(self, phase: str) -> Snapshot | None:
        """Where to go on, if that is in this phase."""
        return self.resumed if self.resumed is not None and self.resumed.phase == phase else None

    def fit(
        self,
        learner: Learner,
        batches: "Iterator[Batch] | BatchSource",
        updates: int,
        alarm: DivergenceAlarm,
        phase: str,
    ) -> Iterator["Progress"]:
        """`fit` with these options."""
        resumed = self.resumed_in(phase)
        return fit(learner, batches, updates, alarm, compile_=self.compile, resumed=resumed, slot=self.slot)


def fit(
    learner: Learner,
    batches: Iterator[Batch] | BatchSource,
    updates: int,
    alarm: DivergenceAlarm,
    *,
    compile_: Compile = Compile.OFF,
    resumed: Snapshot | None = None,
    slot: "SeedSlot | None" = None,
) -> Iterator[Progress]:
    """Update `learner` on `updates` batches, those apart that it has seen before it was `resumed`."""
    step = 0
    if resumed is not None:
        assert isinstance(learner, OwnLearner)
        restore(learner, resumed)
        step = resumed.updates
        alarm.recall(resumed.rows)
    source = batches if isinstance(batches, BatchSource) else _Recorded(batches)
    source.recall(step)
    steps, seconds, logged = steps_of(learner, updates, compile_, slot), Seconds(), step
    while step < updates:
        count = min(LOG_EVERY - step % LOG_EVERY, updates - step, source.ready(step))
        metrics, batch = steps.advance(iter(source), count, seconds)
        step += count
        if step % LOG_EVERY and step < updates and not source.log_due(step):
            continue
        values = {name: float(value) for name, value in (metrics | learner.diagnostics(batch)).items()}
        alarm.check(step, values)
        values |= source.metrics(step)
        timing, seconds, logged = seconds.spent(step - logged, source.timing()), Seconds(), step
        yield Progress(step, updates, values, learner, updates=step, compiled=steps.compiled, timing=timing)


def _train(config: TrainConfig, data: Data, options: TrainingOptions) -> Iterator[Progress]:
    algorithm = config.algorithm
    if not algorithm.reads_supplementary:
        data = replace(data, supplementary=None)
    if isinstance(algorithm, BCConfig):
        yield from _clone(algorithm, options, data)
    else:
        assert isinstance(algorithm, QLearningConfig)
        yield from _train_q(algorithm, options, data)


def _clone(config: BCConfig, options: TrainingOptions, data: Data) -> Iterator[Progress]:
    config = config.settled(len(data.expert.proper))
    learner = BCLearner(config, clone_policy(config, data.spec(options.seed)))
    yield from _fit_clone(learner, config, options, data, METHOD)


def _fit_clone(
    learner: BCLearner, config: BCConfig, options: TrainingOptions, data: Data, phase: str
) -> Iterator[Progress]:
    random = generator(options.seed, Stream.CLONING_BATCHES)
    batches = data.shifted(data.expert.batches(config.batch_size, random), options.seed)
    alarm = DivergenceAlarm(None, BC_REMEDY)
    yield from options.fit(learner, batches, config.fewest_updates, alarm, phase)


def _train_q(config: QLearningConfig, options: TrainingOptions, data: Data) -> Iterator[Progress]:
    """The prior's updates, if there is one, then the method's own; steps count both."""
    spec, settings = data.spec(options.seed), getattr(config, "prior", None)
    clone = settings and settings.settled(len(data.expert.proper))
    before, updates = clone.fewest_updates if clone else 0, config.updates
    total = before + updates
    resumed, prior = options.resumed_in(METHOD), None
    compiled = options.resumed.prior_compiled if options.resumed is not None else None
    if clone is not None:
        prior = clone_policy(clone, spec)
        if resumed is not None:
            prior.load_state_dict(part(resumed.tensors, "prior"))
        else:
            for progress in _fit_clone(BCLearner(clone, prior), clone, options, data, PRIOR):
                metrics = {f"prior_{name}": value for name, value in progress.metrics.items()}
                compiled = progress.compiled
                yield replace(progress, total=total, metrics=metrics, phase=PRIOR, prior_compiled=compiled)
    learner = build_learner(config, spec, prior)
    if updates == 0:
        yield Progress(before, total, {}, learner, prior_compiled=compiled)
    alarm = DivergenceAlarm(config.max_abs_q, f"{type(config).remedy} (--set key=value)", before=before)
    batches = data.shifted(_batches(config, options.seed, data), options.seed)
    for later in options.fit(learner, batches, updates, alarm, METHOD):
        yield replace(later, step=before + later.step, total=total, prior=prior, prior_compiled=compiled)


def _batches(config: QLearningConfig, seed: int, data: Data) -> Iterator[Batch]:
    """Expert batches; with supplementary data, half of each batch is theirs."""
    supplementary, initial, expert_size = None, None, config.batch_size
    if data.supplementary is not None:
        expert_size = max(1, config.batch_size // 2)
        random = generator(seed, Stream.SUPPLEMENTARY_BATCHES)
        supplementary = data.supplementary.batches(max(1, config.batch_size - expert_size), random)
    if config.needs_initial_observations:
        initial_random = generator(seed, Stream.INITIAL_BATCHES)
        initial = (data.expert.initial_observations(initial_random) for _ in iter(int, 1))
    expert = data.expert.proper.batches(expert_size, generator(seed, Stream.BATCHES))
    return beside(expert, supplementary, initial)
