"""`iq` clones supplementary episodes, too, where they predict held-out demonstrations better, and else none."""

import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
import torch
from tests_support import Requested, requested

from iq_offline.algorithms.bc import cloning_loss
from iq_offline.baselines.filtering import Errors, more_demonstrations, verdict
from iq_offline.baselines.sources import PeerData
from iq_offline.config.baselines import CrossValidationConfig, EpisodeFilterConfig, ResidualTestConfig, SimilarityConfig
from iq_offline.config.cloning import CloningLoss, ContinuousBCConfig
from iq_offline.config.train import algorithm_config
from iq_offline.data.split import choose_expert, rows_with_successors
from iq_offline.errors import ConfigError, Interrupted, NoSimilarTransition
from iq_offline.stages import train as stage
from iq_offline.stages.convert import ConvertRequest, convert_dataset
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import Tracker
from iq_offline.training.batches import DemonstrationMixture, SupplementarySampler, TransitionSampler
from iq_offline.training.loop import fit_clone
from iq_offline.training.run_folder import RunFolder

CPU = torch.device("cpu")
EXPERT, RANDOM = "demo/swimmer/expert-v0", "demo/swimmer/random-v0"
CLONING = ContinuousBCConfig(hidden_sizes=(16,), updates=300)
SMALL = (
    "prior.updates=300",
    "prior.hidden_sizes=[16]",
    "hidden_sizes=[16]",
    "updates=100",
    "batch_size=32",
    "accept_episodes.residual_test.updates=300",
)

SMALL_OF = {
    "bc": ("updates=300", "hidden_sizes=[16]"),
    "filtered-bc": ("cloning.updates=300", "cloning.hidden_sizes=[16]"),
}


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "start_tracking", lambda *_: Tracker())


@pytest.fixture
def more_of_the_expert(tmp_path: Path) -> str:
    """The expert's episodes in another file."""
    file = tmp_path / "again.hdf5"
    convert_dataset(EXPERT, file, ConvertRequest(output_format="d4rl"))
    return str(file)


def asked(out: Path, *supplementary: str, **more: Any) -> Requested:
    settings = {"method": "iq", "demos": 3, "subsample": 20} | more
    small = SMALL_OF.get(settings["method"], SMALL)
    settings["overrides"] = (*small, *settings.get("overrides", ()))
    return requested(EXPERT, supplementary=supplementary, device="cpu", out=out, **settings)


def trained(out: Path, *supplementary: str, warnings: list[str] | None = None, **more: Any) -> RunFolder:
    return train_run(
        *asked(out, *supplementary, **more), lambda _: None, (lambda _: None) if warnings is None else warnings.append
    )


def last_metrics(run: RunFolder) -> dict[str, float]:
    return pl.read_parquet(run.path / "metrics.parquet").row(-1, named=True)


def data_of(demos: int, subsample: int, *supplementary: str) -> tuple[PeerData, TransitionSampler]:
    table = open_dataset(EXPERT)
    split = choose_expert(table, demos=demos, subsample=subsample, seed=0, need_successors=True)
    others = tuple(open_dataset(name) for name in supplementary)
    return PeerData(table, split, others), TransitionSampler(table, split.rows, CPU)


@pytest.mark.parametrize("discrete", [True, False])
def test_iq_tests_episodes_by_default(discrete: bool):
    """`iq` asks held-out demonstrations; with continuous actions, it chooses episodes by their residuals before."""
    for method in ("iq", "iq-cql"):
        tested = algorithm_config(method, discrete=discrete).accept_episodes  # type: ignore[attr-defined]
        assert tested.cross_validation == CrossValidationConfig()
        assert (tested.residual_test is None and tested.loss is None) is discrete


def test_peers_are_not_said_to_leave_data(tmp_path: Path):
    """filtered-bc reads supplementary data, so no warning says that they go unread."""
    others, warnings = an_episode_file(tmp_path / "others.hdf5", noisy), list[str]()
    trained(tmp_path / "filtered", others, method="filtered-bc", warnings=warnings)
    assert not any("unread" in warning for warning in warnings)


ALL_PASS = "accept_episodes.residual_test.max_predictability=0.9"


def test_default_iq_is_safe_beside_a_foreign_agent(tmp_path: Path):
    """A foreign agent's episodes change no bit of `iq`, which stays at its `bc`; a run that clones them leaves it."""
    foreign = an_episode_file(tmp_path / "foreign.hdf5", lambda actions: noisy(-actions))
    untested = (ALL_PASS, "accept_episodes.cross_validation=none")
    accepted = trained(tmp_path / "accepted", foreign, overrides=untested)
    assert accepted.split["supplementary"][0]["accepted_episodes"]
    warnings: list[str] = []
    beside = trained(tmp_path / "beside", foreign, overrides=(ALL_PASS,), warnings=warnings)
    alone = trained(tmp_path / "alone")
    assert beside.manifest["checkpoint_sha256"] == alone.manifest["checkpoint_sha256"]
    assert any("no supplementary episode is cloned" in warning for warning in warnings)
    bc = trained(tmp_path / "bc", foreign, method="bc")
    observations = torch.from_numpy(open_dataset(EXPERT).observations(np.arange(0, 3000, 50)))

    def distance(run: RunFolder) -> float:
        return float((run.policy().act(observations) - bc.policy().act(observations)).abs().mean())

    assert distance(beside) < 0.05 < distance(accepted)


def test_refused_data_leave_no_trace(tmp_path: Path):
    """What is learnt is that without them, to the bit."""
    warnings: list[str] = []
    refused = trained(tmp_path / "refused", RANDOM, warnings=warnings)
    alone = trained(tmp_path / "alone")
    assert last_metrics(refused)["cross_validation_accepted"] == 0
    assert "cross_validation_accepted" not in last_metrics(alone)
    assert refused.manifest["checkpoint_sha256"] == alone.manifest["checkpoint_sha256"]
    assert refused.split["supplementary"][0]["accepted_episodes"] == []
    assert len(warnings) == 1
    assert "no supplementary episode is cloned" in warnings[0]
    assert "(p = " in warnings[0]


def test_learning_behaviour_is_rejected(tmp_path: Path):
    """Episodes of an ever better policy change no bit of `iq`, and the warning says why."""
    learning = an_episode_file(tmp_path / "learner.hdf5", lambda actions: noisy(growing(actions)))
    warnings: list[str] = []
    beside = trained(tmp_path / "beside", learning, overrides=(ALL_PASS,), warnings=warnings)
    assert last_metrics(beside)["drift_p_value"] < 0.01
    assert "cross_validation_accepted" not in last_metrics(beside)
    assert beside.manifest["checkpoint_sha256"] == trained(tmp_path / "alone").manifest["checkpoint_sha256"]
    assert ["the policy behind them changes over their file" in warning for warning in warnings] == [True]


def growing(actions: np.ndarray) -> np.ndarray:
    """Actions that grow from a tenth to their whole size."""
    return np.asarray(actions * np.linspace(0.1, 1, len(actions))[:, None])


@pytest.mark.slow
def test_objective_keeps_to_the_demonstrations(
    tmp_path: Path, more_of_the_expert: str, monkeypatch: pytest.MonkeyPatch
):
    drawn_from: list[int] = []
    drawn = DemonstrationMixture.batches

    def counted(self: DemonstrationMixture, size: int, random: torch.Generator) -> Any:
        drawn_from.append(size)
        return drawn(self, size, random)

    monkeypatch.setattr(DemonstrationMixture, "batches", counted)
    trained(tmp_path / "run", more_of_the_expert)
    # The tested clone, one for each left-out demonstration, two lengths, the prior; the objective's batches have 32.
    assert drawn_from == [256] * (1 + 3 + 2 + 1)


@pytest.mark.slow
def test_accepted_episodes_are_cloned_by_the_prior(tmp_path: Path, more_of_the_expert: str):
    accepted = trained(tmp_path / "accepted", more_of_the_expert)
    without = trained(tmp_path / "without", more_of_the_expert, overrides=("accept_episodes=none",))
    metrics = last_metrics(accepted)
    assert metrics["cross_validation_accepted"] == 1
    assert metrics["residual_test_passed"] == metrics["kept_episodes"] > 0
    assert metrics["kept_transitions"] > 0
    assert accepted.manifest["policy_sha256"] != without.manifest["policy_sha256"]


@pytest.mark.slow
def test_split_names_accepted_episodes_by_file(tmp_path: Path, more_of_the_expert: str):
    run = trained(tmp_path / "run", RANDOM, more_of_the_expert)
    random, more = run.split["supplementary"]
    assert random["accepted_episodes"] == []
    assert more["accepted_episodes"] == sorted(set(more["accepted_episodes"]))
    assert len(more["accepted_episodes"]) == last_metrics(run)["kept_episodes"] > 0
    table = open_dataset(more_of_the_expert)
    rows = rows_with_successors(table)
    starts = table.episodes["start_row"].to_numpy()[more["accepted_episodes"]]
    lengths = table.episodes["steps"].to_numpy()[more["accepted_episodes"]]
    kept = sum(((rows >= start) & (rows < start + length)).sum() for start, length in zip(starts, lengths, strict=True))
    assert kept == last_metrics(run)["kept_transitions"]


@pytest.mark.slow
def test_run_with_accepted_episodes_resumes_exactly(tmp_path: Path, more_of_the_expert: str):
    """Bit for bit."""
    whole = trained(tmp_path / "whole", more_of_the_expert)

    def stop(progress: Any) -> None:
        if not isinstance(progress, str) and progress.step == progress.total - 100:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"stopped at update (300 of 400|1200 of 1300)"):
        train_run(*asked(tmp_path / "cut", more_of_the_expert), stop, lambda _: None)
    again = trained(tmp_path / "cut", more_of_the_expert, resume=True)
    assert whole.manifest["checkpoint_sha256"] == again.manifest["checkpoint_sha256"]
    assert (whole.path / "metrics.parquet").read_bytes() == (again.path / "metrics.parquet").read_bytes()


def test_signal_is_heard_while_looking_for_episodes(
    tmp_path: Path, more_of_the_expert: str, monkeypatch: pytest.MonkeyPatch
):
    heard = stage.Checkpointer.check_interrupt

    def ask(checkpointer: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        heard(checkpointer)

    monkeypatch.setattr(stage.Checkpointer, "check_interrupt", ask)
    with pytest.raises(Interrupted, match="looking for more demonstrations"):
        trained(tmp_path / "run", more_of_the_expert)
    assert list(tmp_path.glob("*run*")) == []


def test_a_mixture_draws_its_share_of_demonstrations_first():
    data, expert = data_of(3, 20)
    other = TransitionSampler(data.expert, data.split.rows[:5] + 1, CPU)
    mixture = DemonstrationMixture(expert, SupplementarySampler([other]), expert_share=0.25)
    batch = next(mixture.batches(40, torch.Generator().manual_seed(0)))
    for observations, sampler in ((batch.observations[:10], expert), (batch.observations[10:], other)):
        drawn, known = observations.unsqueeze(1), sampler.observations().unsqueeze(0)
        assert (drawn == known).all(-1).any(-1).all()
    assert len(batch.observations) == len(batch.actions) == len(batch.terminations) == 40
    assert len(mixture.observations()) == len(expert) + 5


def an_episode_file(place: Path, change: Any, episodes: int | None = None) -> str:
    """The expert's first episodes with other actions: `change` makes them of the recorded ones."""
    convert_dataset(EXPERT, place, ConvertRequest(output_format="d4rl"))
    steps = int(open_dataset(EXPERT).episodes["steps"][:episodes].sum())
    with h5py.File(place, "r+") as file:
        file["actions"][:] = change(file["actions"][:]).astype(np.float32)
        for name in [name for name, part in file.items() if isinstance(part, h5py.Dataset)]:
            kept = file[name][:steps]
            del file[name]
            file[name] = kept
    return str(place)


def noisy(actions: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.clip(actions + 0.5 * random.normal(size=actions.shape), -1, 1)


CHOSEN = EpisodeFilterConfig(residual_test=ResidualTestConfig(updates=300), loss=CloningLoss.ABSOLUTE)
TESTED = CHOSEN.model_copy(update={"cross_validation": CrossValidationConfig()})


def test_expert_under_heavy_noise_passes_the_residual_test(tmp_path: Path):
    """The median clone predicts it better than the mean."""
    data, expert = data_of(3, 20, an_episode_file(tmp_path / "noisy.hdf5", noisy))
    found = more_demonstrations(CHOSEN, CLONING, 0, data, expert)
    assert found.metrics["residual_test_passed"] == len(data.supplementary[0].episodes)
    assert found.cloning.loss is CloningLoss.ABSOLUTE
    rows = np.setdiff1d(rows_with_successors(data.expert), data.split.rows)[::50]
    held_out = TransitionSampler(data.expert, rows, CPU).gather(torch.arange(len(rows)))

    def error(cloning: ContinuousBCConfig, demonstrations: Any) -> float:
        *_, last = fit_clone(cloning, 0, demonstrations, data.expert.action_space, CPU)
        with torch.no_grad():
            return float(cloning_loss(last.learner.policy, held_out))

    median = error(found.cloning, found.demonstrations)
    assert median < 0.7 * error(CLONING, found.demonstrations)


@pytest.mark.slow
def test_noise_bears_few_updates_clean_episodes_many(tmp_path: Path):
    lenient = ResidualTestConfig(updates=300, max_predictability=0.9)
    both = CHOSEN.model_copy(update={"residual_test": lenient, "update_factors": (1, 10)})
    short = CLONING.model_copy(update={"updates": 60})
    data, expert = data_of(3, 20, EXPERT)
    clean = more_demonstrations(both, short, 0, data, expert)
    assert (clean.metrics["update_factor"], clean.cloning.updates) == (10, 600)
    few = an_episode_file(tmp_path / "noisy.hdf5", noisy, episodes=2)
    data, expert = data_of(3, 20, few)
    learnt_by_heart = CLONING.model_copy(update={"updates": 400, "hidden_sizes": (128, 128)})
    noise = more_demonstrations(both.model_copy(update={"update_factors": (1, 8)}), learnt_by_heart, 0, data, expert)
    assert (noise.metrics["update_factor"], noise.cloning.updates) == (1, 400)
    assert noise.metrics["update_factor_error"] > clean.metrics["update_factor_error"]


def test_one_episode_leaves_none_to_choose_by(tmp_path: Path):
    data, expert = data_of(3, 20, an_episode_file(tmp_path / "noisy.hdf5", noisy, episodes=1))
    found = more_demonstrations(CHOSEN.model_copy(update={"update_factors": (2, 3)}), CLONING, 0, data, expert)
    assert found.metrics["kept_episodes"] == 1
    assert found.cloning.updates == 2 * CLONING.updates
    assert "update_factor" not in found.metrics


def test_another_policy_on_same_observations_is_refused(tmp_path: Path):
    data, expert = data_of(3, 20, an_episode_file(tmp_path / "other.hdf5", lambda actions: noisy(-actions)))
    longer = TESTED.model_copy(update={"update_factors": (1, 4)})
    found = more_demonstrations(longer, CLONING, 0, data, expert)
    assert found.metrics["cross_validation_accepted"] == 0
    assert found.metrics["cross_validation_error_with"] > found.metrics["cross_validation_error_without"]
    assert found.metrics["cross_validation_update_factor"] == 1  # more updates are not tried: the errors are larger
    assert found.metrics["cross_validation_folds"] == 1  # they are so much larger that no further part is left out
    assert found.demonstrations is expert
    assert found.cloning is CLONING


@pytest.mark.parametrize(("accepting", "updates"), [(1, 4), (2, 4), (3, 1)])
def test_second_test_makes_four_times_the_updates(accepting: int, updates: int, monkeypatch: pytest.MonkeyPatch):
    """The accepting test leaves its own and larger factors to choose from; where none accepts, nothing changes."""
    p_values = iter([0.001 if test == accepting else 0.2 for test in (1, 2)])

    def chosen_verdict(without: Errors, with_episodes: Errors, level: float, *_: Any, **tests: int) -> dict[str, float]:
        return verdict(without, with_episodes, level, lambda *_: next(p_values), **tests)

    monkeypatch.setattr("iq_offline.baselines.filtering.verdict", chosen_verdict)
    data, expert = data_of(3, 20, EXPERT)
    longer = TESTED.model_copy(update={"update_factors": (1, 4), "residual_test": None})
    found = more_demonstrations(longer, CLONING, 0, data, expert)
    assert found.metrics["cross_validation_update_factor"] == (1 if accepting == 1 else 4)
    assert found.cloning.updates == updates * (CLONING.updates or 0)
    assert ("update_factor" in found.metrics) == (accepting == 1)
    assert found.metrics["cross_validation_accepted"] == (accepting < 3)


def test_the_noisier_episode_is_drawn_less(tmp_path: Path):
    data, expert = data_of(3, 20, EXPERT, an_episode_file(tmp_path / "noisy.hdf5", noisy))
    found = more_demonstrations(CHOSEN, CLONING, 0, data, expert)
    batch = next(found.demonstrations.batches(4000, torch.Generator().manual_seed(0)))
    recorded_actions = TransitionSampler(data.expert, rows_with_successors(data.expert), CPU)
    clean = recorded_actions.gather(torch.arange(len(recorded_actions))).actions
    is_clean = (batch.actions.unsqueeze(1) == clean[:: max(1, len(clean) // 4000)].unsqueeze(0)).all(-1).any(1)
    assert found.demonstrations.proper is expert
    assert is_clean[1000:].float().mean() > 0.0
    episodes = found.metrics["kept_episodes"]
    assert episodes == 2 * len(data.expert.episodes)


@pytest.mark.parametrize(
    ("method", "setting", "match"),
    [
        ("iq", "accept_episodes.residual_test.updates=100", "discrete actions leave no residual"),
        ("filtered-bc", "loss=absolute", "discrete actions leave no residual"),
        ("filtered-bc", "update_factors=[1,4]", r"discrete actions leave no residual.*update_factors=\[1\]"),
    ],
)
def test_discrete_actions_have_no_residual_to_test(method: str, setting: str, match: str):
    with pytest.raises(ConfigError, match=match):
        algorithm_config(method, discrete=True, overrides=(setting,))


def test_too_few_transitions_to_leave_out_are_refused():
    data, expert = data_of(1, 150, EXPERT)
    assert len(expert) < 10
    found = more_demonstrations(EpisodeFilterConfig(cross_validation=CrossValidationConfig()), CLONING, 0, data, expert)
    assert found.demonstrations is expert
    assert found.metrics == {"cross_validation_accepted": 0.0}


def test_share_of_one_leaves_supplementary_data_unread():
    data, expert = data_of(3, 20, RANDOM)
    whole = EpisodeFilterConfig(expert_share=1, cross_validation=CrossValidationConfig())
    found = more_demonstrations(whole, CLONING, 0, data, expert)
    assert found.demonstrations is expert
    assert not found.metrics


def test_cross_validation_refuses_what_is_like_no_demonstration():
    """Without cross-validation it is an error."""
    data, expert = data_of(3, 20, RANDOM)
    narrow = SimilarityConfig(bandwidth=1e-9)
    found = more_demonstrations(
        EpisodeFilterConfig(similarity=narrow, cross_validation=CrossValidationConfig()), CLONING, 0, data, expert
    )
    assert found.demonstrations is expert
    with pytest.raises(NoSimilarTransition, match="anything like a demonstration"):
        more_demonstrations(EpisodeFilterConfig(similarity=narrow), CLONING, 0, data, expert)
