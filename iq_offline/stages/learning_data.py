"""What a run learns from, and how: demonstrations, supplementary data, and which of these a method reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iq_offline.baselines.filtering import CheckInterrupt, Found, more_demonstrations
from iq_offline.baselines.sources import PeerData
from iq_offline.batch import Batch
from iq_offline.config import (
    AlgorithmConfig,
    BaselineConfig,
    BCConfig,
    ContinuousIQConfig,
    DiscreteIQConfig,
    IQConfig,
    Method,
    Precision,
    TrainConfig,
)
from iq_offline.data.split import Split, choose_expert, rows_with_successors
from iq_offline.data.summary import recorded_defects
from iq_offline.data.table import TransitionTable
from iq_offline.training.batches import Demonstrations, SupplementarySampler, TransitionSampler, evenly_spread
from iq_offline.training.loop import Progress, train, watched, with_metrics
from iq_offline.training.snapshot import Snapshot

if TYPE_CHECKING:
    from iq_offline.training.together import Lane

HELD_OUT_TRANSITIONS = 4096
"""At most so many of the transitions that were set aside are looked at: more cost more than they tell."""

WITHOUT_16_BITS = ("DEFAULT", "NO AVX", "AVX2")
"""PyTorch's names of processors' instructions that compute no 16-bit products."""


@dataclass(frozen=True)
class LearningData:
    """What a run learns from."""

    table: TransitionTable
    split: Split
    supplementary: tuple[TransitionTable, ...]

    @property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of the expert's data, then of the supplementary ones."""
        return (self.table.info.sha256, *(table.info.sha256 for table in self.supplementary))

    def held_out(self, device: Any) -> Batch | None:
        """Some of the transitions that were set aside, evenly spread."""
        rows = self.split.held_out_rows
        if rows is None:
            return None
        return evenly_spread(self.table, rows, HELD_OUT_TRANSITIONS, device)


def needs_successors_of(config: TrainConfig) -> bool:
    """Whether the expert's transitions must have their next observation."""
    if isinstance(config.algorithm, BaselineConfig):
        from iq_offline.baselines.fit import needs_successors

        return needs_successors(config.algorithm)
    return not isinstance(config.algorithm, BCConfig)


def split_of(config: TrainConfig, table: TransitionTable) -> Split:
    """The episodes and transitions that a run's settings choose. Raises ConfigError as `choose_expert` does."""
    return choose_expert(
        table,
        demos=config.demos,
        subsample=config.subsample,
        subsample_from=config.subsample_from,
        seed=config.seed,
        need_successors=needs_successors_of(config),
        select=config.select,
        held_out=config.held_out,
    )


def reads_rewards_of(config: TrainConfig) -> bool:
    """Whether recorded rewards are learnt from: an oracle's."""
    if not isinstance(config.algorithm, BaselineConfig):
        return False
    from iq_offline.baselines.fit import reads_rewards

    return reads_rewards(config.algorithm)


def say_what_is_read(
    config: TrainConfig, supplementary: tuple[TransitionTable, ...], warn: Callable[[str], None]
) -> None:
    """Warn where supplementary data go unread, or are missed, or true rewards are read."""
    algorithm = config.algorithm
    if isinstance(algorithm, BaselineConfig):
        if reads_rewards_of(config):
            warn(f"method {config.method} learns from recorded rewards: where these are true, an oracle, no imitation")
        return
    learns = isinstance(algorithm, IQConfig) and algorithm.uses_supplementary
    finds = _clones_more(algorithm)
    if supplementary and finds and supplementary[0].pictures:
        warn("distances between pictures say little: no supplementary episode is taken for a demonstration")
    elif supplementary and not (learns or finds):
        choice = "; --preset accept-episodes clones those that a test accepts" if config.method is Method.IQ else ""
        warn(f"method {config.method} learns from demonstrations alone and leaves supplementary data unread{choice}")
    if learns and not supplementary:
        warn(f"method {config.method} can learn from supplementary data, and none are given (--supplementary)")


def say_what_is_odd(table: TransitionTable, warn: Callable[[str], None]) -> None:
    """Warn of a dataset's notes and defects, in a line each."""
    for note in table.info.notes:
        warn(f"{table.info.name}: {note}")
    for defect in recorded_defects(table):
        warn(f"{table.info.name}: {defect['count']} {defect['handling']}")


def say_what_is_cut_off(config: TrainConfig, warn: Callable[[str], None]) -> None:
    """Warn where the bound on bootstrapped values lies below those that fixed rewards make."""
    algorithm = config.algorithm
    if not isinstance(algorithm, IQConfig) or algorithm.target_bound is None:
        return
    largest = algorithm.largest_fixed_value
    if largest > algorithm.target_bound * (1 + 1e-6):
        warn(
            f"target_bound={algorithm.target_bound:g} cuts off the values of up to {largest:g} that fixed_rewards make "
            f"at gamma={algorithm.gamma:g}: --set target_bound={largest:g} would not"
        )


def say_what_is_slow(config: TrainConfig, device: Any, warn: Callable[[str], None]) -> None:
    """Warn where 16-bit products are asked of a processor that has no instructions for them."""
    import torch

    asked = getattr(config.algorithm, "precision", None) is Precision.BFLOAT16
    capability = torch.backends.cpu.get_cpu_capability()
    if asked and device.type == "cpu" and capability in WITHOUT_16_BITS:
        warn(f"precision=bfloat16: this processor ({capability}) has no such products; float32 is many times faster")


def training_steps(
    config: TrainConfig,
    data: LearningData,
    device: Any,
    resumed: Snapshot | None,
    warn: Callable[[str], None],
    heed: CheckInterrupt,
    lane: "Lane | None" = None,
) -> Iterator[Progress]:
    """The run's training, as a generator. `heed` is called while episodes are looked for.

    `lane`: its place among seeds that are updated together.
    """
    held_out = data.held_out(device)
    if isinstance(config.algorithm, BaselineConfig):
        from iq_offline.baselines.fit import fit_baseline

        peers = PeerData(data.table, data.split, data.supplementary)
        yield from watched(fit_baseline(config.algorithm, config.seed, peers, device, heed), held_out)
        return
    starts = data.table.episodes["start_row"].to_numpy()[list(data.split.episodes)]
    sampler = TransitionSampler(data.table, data.split.rows, device, starts)
    demonstrations: Demonstrations = sampler
    found = _more_demonstrations(config, data, sampler, heed)
    if found is not None:
        demonstrations, config = found.demonstrations, _cloned_as(config, found.cloning)
    if found is not None and found.demonstrations is sampler and found.metrics:
        by = ", ".join(name for name, value in found.metrics.items() if name.endswith("_accepted") and not value)
        warn(f"no supplementary episode is taken for a demonstration: the demonstrations speak against it ({by} is 0)")
    others = [TransitionSampler(table, rows_with_successors(table), device) for table in data.supplementary]
    supplementary = SupplementarySampler(others) if others else None
    space = data.table.action_space
    steps = train(config, demonstrations, space, device, held_out, supplementary, resumed, lane)
    yield from with_metrics(steps, found.metrics, found.accepted_episodes) if found else steps


def _clones_more(algorithm: AlgorithmConfig) -> bool:
    """Whether supplementary episodes can become demonstrations of a cloned prior."""
    if not isinstance(algorithm, ContinuousIQConfig | DiscreteIQConfig):
        return False
    return algorithm.more_demonstrations is not None and algorithm.prior is not None


def _cloned_as(config: TrainConfig, cloning: BCConfig) -> TrainConfig:
    """The same run, its prior cloned as `cloning` says."""
    algorithm = config.algorithm
    assert isinstance(algorithm, ContinuousIQConfig | DiscreteIQConfig)
    return config.model_copy(update={"algorithm": algorithm.model_copy(update={"prior": cloning})})


def _more_demonstrations(
    config: TrainConfig, data: LearningData, sampler: TransitionSampler, heed: CheckInterrupt
) -> Found | None:
    """The demonstrations with supplementary episodes that are more of them; None where the method takes none."""
    algorithm = config.algorithm
    if not (_clones_more(algorithm) and _comparable(data)):
        return None
    assert isinstance(algorithm, ContinuousIQConfig | DiscreteIQConfig)
    assert algorithm.more_demonstrations
    assert algorithm.prior
    peers = PeerData(data.table, data.split, data.supplementary)
    return more_demonstrations(algorithm.more_demonstrations, algorithm.prior, config.seed, peers, sampler, heed)


def _comparable(data: LearningData) -> bool:
    """Whether there are supplementary episodes whose distance from the demonstrations can be measured."""
    return bool(data.supplementary) and not data.table.pictures
