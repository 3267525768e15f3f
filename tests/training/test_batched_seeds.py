"""Seeds batched into one process are the seeds alone, within rounding; slots come, fail and go."""

import threading
from pathlib import Path

import pytest
import torch
from tests_support import Requested, requested, tasks

from iq_offline.algorithms.bc import BCLearner
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Standardiser
from iq_offline.batch import Batch
from iq_offline.config.base import Activation
from iq_offline.config.cloning import ContinuousBCConfig
from iq_offline.config.train import Compile
from iq_offline.errors import ConfigError
from iq_offline.stages.seeds import train_together
from iq_offline.stages.train import train_run
from iq_offline.training import steps
from iq_offline.training.compile.batched_seeds import BatchedSeeds, SeedSlot
from iq_offline.training.steps import Seconds, steps_of

TOLERANCE = 2e-4
"""Largest difference of any tensor after so few updates."""


def requests(out: Path, data: tuple[Path, Path], method: str, *overrides: str) -> list[Requested]:
    """Three seeds of a small run."""
    return [
        requested(
            str(data[0]),
            method,
            demos=3,
            supplementary=(str(data[1]),),
            overrides=("updates=13", "hidden_sizes=[8]", "batch_size=16", *overrides),
            device="cpu",
            seed=seed,
            out=out / f"seed-{seed}",
            compile="off",
            tracked=False,
        )
        for seed in range(3)
    ]


@pytest.mark.parametrize(
    ("method", "discrete"),
    [
        ("bc", False),
        ("iq", True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("iq", False), ("recoil", False), ("iq-awr", True)]),
    ],
)
def test_seeds_together_make_what_each_makes_alone(
    method: str, discrete: bool, tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(steps, "UNROLLED", 3)  # of 13 updates one is left over
    data = tasks(tmp_path, linear_task, discrete=discrete)
    prior = ("prior.updates=5", "prior.hidden_sizes=[8]") if method == "iq" else ()
    alone = [train_run(*each, lambda _: None, print) for each in requests(tmp_path / "alone", data, method, *prior)]
    seen: list[tuple[int, bool]] = []
    asked = requests(tmp_path / "together", data, method, *prior)
    together = train_together(asked, lambda seed, now: seen.append((seed, now.step == now.total)), print)
    for first, second in zip(alone, together, strict=True):
        others = second.checkpoint()
        for name, tensor in first.checkpoint().items():
            assert (tensor - others[name]).abs().max() <= TOLERANCE, name
        assert first.manifest["config_hash"] == second.manifest["config_hash"]
        assert (second.manifest["together"], second.manifest["compiled"]) == (3, False)
    assert {(0, True), (1, True), (2, True)} <= set(seen)
    different = [run.checkpoint() for run in together]
    assert any((different[0][name] - tensor).abs().max() > 1e-3 for name, tensor in different[1].items())


def test_a_seed_that_fails_lets_the_others_end(tmp_path: Path, linear_task: Path):
    data = tasks(tmp_path, linear_task, discrete=False)
    asked = requests(tmp_path / "runs", data, "bc")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "seed-1").write_text("a file in the place of a run")
    with pytest.raises(ConfigError, match="is a file"):
        train_together(asked, lambda *_: None, print)
    assert [(tmp_path / "runs" / f"seed-{seed}" / "manifest.json").is_file() for seed in (0, 2)] == [True, True]


def test_a_method_without_updates_of_ours_is_refused(tmp_path: Path, linear_task: Path):
    data = tasks(tmp_path, linear_task, discrete=False)
    asked = [requested(str(data[0]), "bc-all", seed=seed, out=tmp_path / f"seed-{seed}") for seed in (0, 1)]
    with pytest.raises(ConfigError, match="--together"):
        train_together(asked, lambda *_: None, print)


@pytest.mark.slow
def test_seeds_of_several_graphs_end(tmp_path: Path, linear_task: Path):
    """Seeds whose updates are different graphs do not wait for each other for ever."""
    data = tasks(tmp_path, linear_task, discrete=False)
    asked = requests(tmp_path / "runs", data, "bc")
    asked[0] = requests(tmp_path / "runs", data, "bc", "hidden_sizes=[4]")[0]  # another graph, of the same length
    alone = train_run(*requests(tmp_path / "alone", data, "bc", "hidden_sizes=[4]")[0], lambda _: None, print)
    first = train_together(asked, lambda *_: None, print)[0]
    others = alone.checkpoint()
    for name, tensor in first.checkpoint().items():
        assert (tensor - others[name]).abs().max() <= TOLERANCE, name


def cloner(seed: int) -> BCLearner:
    """One number to one action, of random weights."""
    policy = ContinuousPolicy(
        Standardiser(torch.tensor([float(seed)]), torch.ones(1)),
        ActionScale.of_bounds([-1], [1]),
        (4,),
        Activation.TANH,
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return BCLearner(ContinuousBCConfig(updates=100), policy)


def batch(number: int) -> Batch:
    """Eight transitions of that number."""
    random = torch.Generator().manual_seed(number)
    observations = torch.randn(8, 1, generator=random)
    return Batch(observations, observations.sin(), observations, torch.zeros(8))


def test_slots_that_come_late_keep_their_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(steps, "UNROLLED", 1)
    counts = {0: [(1, 3)], 1: [(2, 5)], 2: [(7, 2), (3, 4)]}  # (seed of a learner, its updates), one after the other
    seeds, learnt = BatchedSeeds(3), dict[int, BCLearner]()

    def run(number: int) -> None:
        slot = SeedSlot(seeds, number)
        for seed, count in counts[number]:
            learner = cloner(seed)
            steps_of(learner, count, Compile.OFF, slot).advance(iter(map(batch, range(count))), count, Seconds())
            learnt[seed] = learner
        seeds.leave(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    for seed, count in [own for several in counts.values() for own in several]:
        alone = cloner(seed)
        for number in range(count):
            alone.update(batch(number))
        for first, second in zip(alone.policy.parameters(), learnt[seed].policy.parameters(), strict=True):
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
