"""What a run learns from, and how: demonstrations, supplementary data, and which of these a method reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iq_offline.baselines.filtering import CheckInterrupt, Found, more_demonstrations
from iq_offline.baselines.sources import PeerData
from iq_offline.batch import Batch
from iq_offline.config.base import Precision
from iq_offline.config.baselines import EpisodeFilterConfig
from iq_offline.config.cloning import BCConfig
from iq_offline.config.iq import DiscreteIQConfig, IQConfig
from iq_offline.config.online import InteractionConfig
from iq_offline.config.pictures import PictureEncoder
from iq_offline.config.q_learning import QLearningConfig
from iq_offline.config.train import TrainConfig
from iq_offline.data.split import Split, choose_expert, rows_with_successors
from iq_offline.data.summary import recorded_defects
from iq_offline.data.table import TransitionTable
from iq_offline.training.batches import Demonstrations, SupplementarySampler, TransitionSampler, evenly_spread
from iq_offline.training.checkpointing import Snapshot
from iq_offline.training.loop import Progress, train, watched, with_metrics
from iq_offline.training.run_folder import RunFolder

if TYPE_CHECKING:
    from iq_offline.training.compile.batched_seeds import SeedSlot

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
    start: RunFolder | None = None
    """The run whose policy training starts from."""

    @property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of the expert's data, of the supplementary ones, and of the policy that training starts from."""
        start = () if self.start is None else (str(self.start.manifest["policy_sha256"]),)
        return (self.table.info.sha256, *(table.info.sha256 for table in self.supplementary), *start)

    @property
    def expert_ends(self) -> float:
        """Share of the steps of the chosen episodes, all of their steps, that a termination follows."""
        chosen = self.table.episodes[list(self.split.episodes)]
        return float(chosen["terminated"].to_numpy().sum() / chosen["steps"].to_numpy().sum())

    def held_out(self, device: Any) -> Batch | None:
        """Some of the transitions that were set aside, evenly spread."""
        rows = self.split.held_out_rows
        if rows is None:
            return None
        return evenly_spread(self.table, rows, HELD_OUT_TRANSITIONS, device)


def split_of(config: TrainConfig, table: TransitionTable) -> Split:
    """The episodes and transitions that a run's settings choose. Raises ConfigError as `choose_expert` does."""
    return choose_expert(
        table,
        demos=config.demos,
        subsample=config.subsample,
        subsample_from=config.subsample_from,
        seed=config.seed,
        need_successors=config.algorithm.needs_successors,
        select=config.select,
        held_out=config.held_out,
    )


def warn_of_unread_data(
    config: TrainConfig, supplementary: tuple[TransitionTable, ...], warn: Callable[[str], None]
) -> None:
    """Warn where supplementary data go unread, or are missed, or true rewards are read."""
    algorithm, accepts = config.algorithm, filter_of(config) is not None
    reads = algorithm.reads_supplementary or not isinstance(algorithm, BCConfig | QLearningConfig)
    if algorithm.reads_rewards:
        warn(f"method {config.method} learns from recorded rewards: where these are true, an oracle, no imitation")
    if supplementary and accepts and supplementary[0].pictures:
        warn("distances between pictures say little: no supplementary episode is accepted as a demonstration")
    elif supplementary and not (reads or accepts):
        warn(f"method {config.method} learns from demonstrations alone and leaves supplementary data unread")
    if isinstance(algorithm, QLearningConfig) and algorithm.reads_supplementary and not supplementary:
        warn(f"method {config.method} can learn from supplementary data, and none are given (--supplementary)")


def warn_of_defects(table: TransitionTable, warn: Callable[[str], None]) -> None:
    """Warn of a dataset's notes and defects, in a line each."""
    for note in table.info.notes:
        warn(f"{table.info.name}: {note}")
    for defect in recorded_defects(table):
        warn(f"{table.info.name}: {defect['count']} {defect['handling']}")


def warn_of_low_bound(config: TrainConfig, warn: Callable[[str], None]) -> None:
    """Warn where the bound on bootstrapped values lies below those that fixed rewards make."""
    algorithm = config.algorithm
    largest = getattr(algorithm, "largest_true_value", 0.0)
    bound = getattr(algorithm, "target_bound", None)
    if bound is not None and largest > bound * (1 + 1e-6):
        warn(
            f"target_bound={bound:g} cuts off the values of up to {largest:g} that fixed_rewards make: "
            f"--set target_bound={largest:g} would not"
        )


def warn_of_unused_pictures(config: TrainConfig, table: TransitionTable, warn: Callable[[str], None]) -> None:
    """Warn where settings for pictures meet observations without any."""
    if not table.pictures and (config.encoder is not PictureEncoder.NATURE or config.shift):
        warn(f"{table.info.name} has no pictures: --encoder and --shift change nothing")


def warn_of_slow_precision(config: TrainConfig, device: Any, warn: Callable[[str], None]) -> None:
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
    check_interrupt: CheckInterrupt,
    slot: "SeedSlot | None" = None,
    replay: Path | None = None,
) -> Iterator[Progress]:
    """The run's training, as a generator. `check_interrupt` is called while episodes are chosen.

    `slot`: its place among seeds that are updated together. `replay`: where a run that acts keeps what it experiences.
    """
    held_out, algorithm = data.held_out(device), config.algorithm
    if not isinstance(algorithm, BCConfig | QLearningConfig):
        from iq_offline.baselines.fit import fit_baseline

        peers = PeerData(data.table, data.split, data.supplementary)
        yield from watched(fit_baseline(algorithm, config.seed, peers, device, check_interrupt), held_out)
        return
    starts = data.table.episodes["start_row"].to_numpy()[list(data.split.episodes)]
    sampler = TransitionSampler(data.table, data.split.rows, device, starts)
    if isinstance(algorithm, InteractionConfig):
        from iq_offline.interaction.train import OnlineData, train_online

        assert replay is not None
        start = None if data.start is None else data.start.policy()
        online = OnlineData(data.table, sampler, data.expert_ends, replay, start)
        yield from watched(train_online(config, online, device, resumed), held_out)
        return
    demonstrations: Demonstrations = sampler
    found = _accepted_episodes(config, data, sampler, check_interrupt)
    if found is not None:
        demonstrations = found.demonstrations
        config = config.model_copy(update={"algorithm": algorithm.model_copy(update={"prior": found.cloning})})
    if found is not None and found.demonstrations is sampler and found.metrics:
        warn(
            f"no supplementary episode is cloned as a demonstration: {_why_rejected(found.metrics)}; "
            f"{config.method} trains as without them"
        )
    others = [TransitionSampler(table, rows_with_successors(table), device) for table in data.supplementary]
    supplementary = SupplementarySampler(others) if others else None
    space = data.table.action_space
    steps = train(config, demonstrations, space, device, held_out, supplementary, resumed, slot)
    yield from with_metrics(steps, found.metrics, found.accepted_episodes) if found else steps


def _why_rejected(metrics: dict[str, float]) -> str:
    if "cross_validation_accepted" not in metrics:
        return f"the policy behind them changes over their file (p = {metrics['drift_p_value']:.2g})"
    found = metrics.get("cross_validation_p_value")
    told = ", or there are too few to tell" if found is None else f" (p = {found:.2g})"
    return f"held-out demonstrations are not predicted better with them{told}"


def filter_of(config: TrainConfig) -> EpisodeFilterConfig | None:
    """How supplementary episodes are chosen that the prior clones, too; None where none are."""
    return getattr(config.algorithm, "accept_episodes", None)


def _accepted_episodes(
    config: TrainConfig, data: LearningData, sampler: TransitionSampler, check_interrupt: CheckInterrupt
) -> Found | None:
    """The demonstrations with accepted supplementary episodes; None where the method looks for none."""
    chosen_by = filter_of(config)
    if chosen_by is None or not data.supplementary or data.table.pictures:
        return None
    assert isinstance(config.algorithm, IQConfig | DiscreteIQConfig)
    peers = PeerData(data.table, data.split, data.supplementary)
    return more_demonstrations(chosen_by, config.algorithm.prior, config.seed, peers, sampler, check_interrupt)
