"""The default `iq` takes supplementary episodes for more demonstrations where the screen lets it."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from iq_offline.baselines.filtering import more_demonstrations
from iq_offline.baselines.sources import PeerData
from iq_offline.config import Method, algorithm_config
from iq_offline.config.baselines import EpisodeFilterConfig, LikenessConfig, ScreenConfig
from iq_offline.config.cloning import ContinuousBCConfig
from iq_offline.data.split import choose_expert
from iq_offline.errors import Interrupted, NothingAlike
from iq_offline.stages import train as stage
from iq_offline.stages.convert import ConvertRequest, convert_dataset
from iq_offline.stages.fetch import open_dataset
from iq_offline.stages.train import TrainRequest, recipe, train_run
from iq_offline.tracking.tracker import NullTracker
from iq_offline.training.batches import DemonstrationMixture, SupplementarySampler, TransitionSampler
from iq_offline.training.run_folder import RunFolder

CPU = torch.device("cpu")
EXPERT, RANDOM = "demo/swimmer/expert-v0", "demo/swimmer/random-v0"
CLONING = ContinuousBCConfig(hidden_sizes=(16,), updates=300)
SMALL = ("prior.updates=300", "prior.hidden_sizes=[16]", "hidden_sizes=[16]", "updates=200", "batch_size=32")


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "start_tracking", lambda *_: NullTracker())


@pytest.fixture
def more_of_the_expert(tmp_path: Path) -> str:
    """The expert's episodes in another file."""
    file = tmp_path / "again.hdf5"
    convert_dataset(EXPERT, file, ConvertRequest(output_format="d4rl"))
    return str(file)


def asked(out: Path, *supplementary: str, **more: Any) -> TrainRequest:
    sizes = {"demos": 3, "subsample": 20} | more
    return TrainRequest(EXPERT, "iq", overrides=SMALL, supplementary=supplementary, device="cpu", out=out, **sizes)


def trained(out: Path, *supplementary: str, warnings: list[str] | None = None, **more: Any) -> RunFolder:
    return train_run(
        asked(out, *supplementary, **more), lambda _: None, (lambda _: None) if warnings is None else warnings.append
    )


def last_metrics(run: RunFolder) -> dict[str, float]:
    return pl.read_parquet(run.path / "metrics.parquet").row(-1, named=True)


def data_of(demos: int, subsample: int, *supplementary: str) -> tuple[PeerData, TransitionSampler]:
    table = open_dataset(EXPERT)
    split = choose_expert(table, demos=demos, subsample=subsample, seed=0, need_successors=True)
    others = tuple(open_dataset(name) for name in supplementary)
    return PeerData(table, split, others), TransitionSampler(table, split.rows, CPU)


@pytest.mark.parametrize("discrete", [True, False])
def test_the_default_takes_more_demonstrations_and_no_other_recipe_does(discrete: bool):
    for method in (Method.IQ, Method.IQ_PAPER, Method.LS_IQ, Method.CSIL, Method.RECOIL, Method.IQ_CQL, Method.IQ_AWR):
        config = algorithm_config(method, discrete=discrete, presets=recipe(method))
        screened = config.more_demonstrations is not None and config.more_demonstrations.screen is not None
        assert screened is (method is Method.IQ)


def test_refused_data_leave_what_is_learnt_as_it_is_without_them_to_the_bit(tmp_path: Path):
    warnings: list[str] = []
    refused = trained(tmp_path / "refused", RANDOM, warnings=warnings)
    alone = trained(tmp_path / "alone")
    assert last_metrics(refused)["screen_accepted"] == 0
    assert "screen_accepted" not in last_metrics(alone)
    assert refused.manifest["checkpoint_sha256"] == alone.manifest["checkpoint_sha256"]
    assert len(warnings) == 1
    assert "no supplementary episode is taken" in warnings[0]


def test_accepted_episodes_are_learnt_from_by_prior_and_objective(tmp_path: Path, more_of_the_expert: str):
    accepted = trained(tmp_path / "accepted", more_of_the_expert)
    without = train_run(
        TrainRequest(
            EXPERT,
            "iq",
            demos=3,
            subsample=20,
            overrides=(*SMALL, "more_demonstrations=none"),
            supplementary=(more_of_the_expert,),
            device="cpu",
            out=tmp_path / "without",
        ),
        lambda _: None,
        lambda _: None,
    )
    metrics = last_metrics(accepted)
    assert metrics["screen_accepted"] == 1
    assert metrics["kept_transitions"] > 0
    assert metrics["screen_error_with"] < metrics["screen_error_without"]
    assert accepted.manifest["policy_sha256"] != without.manifest["policy_sha256"]


def test_a_run_with_more_demonstrations_goes_on_bit_for_bit(tmp_path: Path, more_of_the_expert: str):
    whole = trained(tmp_path / "whole", more_of_the_expert)

    def stop(progress: Any) -> None:
        if progress.step == 400:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped at update 400"):
        train_run(asked(tmp_path / "cut", more_of_the_expert), stop, lambda _: None)
    again = trained(tmp_path / "cut", more_of_the_expert, resume=True)
    assert whole.manifest["checkpoint_sha256"] == again.manifest["checkpoint_sha256"]
    assert (whole.path / "metrics.parquet").read_bytes() == (again.path / "metrics.parquet").read_bytes()


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


def test_too_few_transitions_to_leave_any_out_are_a_refusal():
    data, expert = data_of(1, 150, EXPERT)
    assert len(expert) < 10
    found = more_demonstrations(EpisodeFilterConfig(screen=ScreenConfig()), CLONING, 0, data, expert)
    assert found.demonstrations is expert
    assert found.metrics == {"screen_accepted": 0.0}


def test_a_fold_that_would_keep_one_transition_is_a_refusal_too():
    data, _ = data_of(2, 1, RANDOM)
    episodes = data.expert.episode_numbers(data.split.rows)
    uneven = np.concatenate([data.split.rows[episodes == episodes[0]], data.split.rows[-1:]])
    assert len(uneven) > 100
    uneven_data = replace(data, split=replace(data.split, rows=uneven))
    expert = TransitionSampler(data.expert, uneven, CPU)
    found = more_demonstrations(EpisodeFilterConfig(screen=ScreenConfig()), CLONING, 0, uneven_data, expert)
    assert found.demonstrations is expert
    assert found.metrics == {"screen_accepted": 0.0}


def test_a_share_of_one_asks_nothing_of_supplementary_data():
    data, expert = data_of(3, 20, RANDOM)
    whole = EpisodeFilterConfig(expert_share=1, screen=ScreenConfig())
    found = more_demonstrations(whole, CLONING, 0, data, expert)
    assert found.demonstrations is expert
    assert not found.metrics


def test_what_is_like_no_demonstration_is_refused_by_the_screen_and_an_error_without_one():
    data, expert = data_of(3, 20, RANDOM)
    narrow = LikenessConfig(bandwidth=1e-9)
    found = more_demonstrations(EpisodeFilterConfig(likeness=narrow, screen=ScreenConfig()), CLONING, 0, data, expert)
    assert found.demonstrations is expert
    with pytest.raises(NothingAlike, match="anything like a demonstration"):
        more_demonstrations(EpisodeFilterConfig(likeness=narrow), CLONING, 0, data, expert)
