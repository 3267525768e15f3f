"""No method that imitates reads a reward: other rewards in the files change no bit of what is learnt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests_support import Arrays, requested, write_hdf5

from iq_offline.data.table import TransitionTable
from iq_offline.errors import InvalidEpisode
from iq_offline.methods import METHODS
from iq_offline.stages import train as stage
from iq_offline.stages.reward import RewardRequest, recover_reward
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import Tracker
from iq_offline.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("undrawn")
Rewards = Callable[[int], np.ndarray]
ORACLES = tuple(method for method in METHODS if method.startswith("oracle-"))
LABELLED = tuple(method for method in METHODS if method.startswith(("seabo-", "otr-", "uds-")))
ACTING = ("iq-online", "sqil-online")
"""Methods that act in an environment, which these data have not: tests/interaction looks at them."""
CLONING_PEERS = ("bc-all", "weighted-bc", "filtered-bc", "recovery-bc")
PRIOR = ("prior.updates=30", "prior.hidden_sizes=[16]")
LENIENT = (
    "accept_episodes.residual_test.updates=30",
    "accept_episodes.residual_test.max_predictability=0.99",
    "accept_episodes.residual_test.min_steps=2",
)
UNTESTED = ("accept_episodes.cross_validation=none",)
TAKING = {("iq", None), ("iq", "reward"), ("iq-cql", None), ("filtered-bc", None)}
"""Methods with presets that clone supplementary episodes and name them."""
CASES = [
    (method, preset, discrete)
    for method, preset in [
        *((method, None) for method in METHODS if method not in ORACLES + ACTING),
        ("iq", "reward"),
    ]
    for discrete in (False, True)
    if (METHODS[method].discrete if discrete else METHODS[method].continuous)
]
QUICK = {"bc", "iq", "filtered-bc", "sprinql"}


def discard(*_: Any) -> None:
    """Nobody listens."""


def ones(count: int) -> np.ndarray:
    return np.ones(count, dtype=np.float32)


def huge(count: int) -> np.ndarray:
    """Rewards whose squares overflow 32 bits: whatever they enter is no number any more."""
    return np.resize(np.array([1e38, -1e38, 3e30], dtype=np.float32), count)


def falling(count: int) -> np.ndarray:
    return np.linspace(1, -1, count, dtype=np.float32)


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "start_tracking", lambda *_: Tracker())
    monkeypatch.setattr("iq_offline.stages.reward.mirror_stage", discard)


def episodes(seed: int, *, discrete: bool) -> Arrays:
    """Eight episodes of 30 steps, every other one ending in a termination; the action follows the first number."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(240, 3)).astype(np.float32)
    actions = np.clip(observations[:, :1] + 0.1 * rng.normal(size=(240, 1)), -1, 1).astype(np.float32)
    ends, even = np.arange(240) % 30 == 29, np.arange(240) // 30 % 2 == 0
    return {
        "observations": observations,
        "next_observations": np.roll(observations, -1, axis=0),
        "actions": (observations[:, 0] > 0).astype(np.int64) if discrete else actions,
        "terminals": ends & even,
        "timeouts": ends & ~even,
    }


def settings(method: str, *, discrete: bool) -> tuple[str, ...]:
    """Overrides for a short run of small networks, in which supplementary episodes are taken wherever they can be."""
    if method in LABELLED + ORACLES:
        return ("updates=5", "batch_size=32", "hidden_sizes=[16]")
    if method in CLONING_PEERS:
        quick = ("discriminator.updates=5", "discriminator.hidden_sizes=[16]") if method == "weighted-bc" else ()
        return ("cloning.updates=20", "cloning.batch_size=32", "cloning.hidden_sizes=[16]", *quick)
    found = ("updates=10", "batch_size=32", "hidden_sizes=[16]")
    if method in ("iq", "iq-cql", "csil"):
        found += PRIOR
    if method in ("iq", "iq-cql"):
        found += UNTESTED if discrete else UNTESTED + LENIENT
    return found


def trained(
    folder: Path, rewards: Rewards, method: str, preset: str | None = None, *, discrete: bool = False, **more: Any
) -> RunFolder:
    """A run on demonstrations beside supplementary data, in files whose rewards are those asked for."""
    folder.mkdir()
    files = []
    for seed, name in enumerate(("expert", "supplementary")):
        arrays = episodes(seed, discrete=discrete) | {"rewards": rewards(240)}
        files.append(str(write_hdf5(folder / f"{name}.hdf5", arrays)))
    request = requested(
        files[0],
        method,
        preset,
        supplementary=(files[1],),
        overrides=settings(method, discrete=discrete),
        device="cpu",
        compile="off",
        out=folder / "run",
        **({"demos": 4} | more),
    )
    return train_run(*request, discard, discard)


def learnt(run: RunFolder) -> dict[str, Any]:
    """The hashes of the tensors, the metrics, and the episodes that were chosen and taken."""
    return {
        "policy": run.manifest["policy_sha256"],
        "checkpoint": run.manifest["checkpoint_sha256"],
        "metrics": pl.read_parquet(run.path / "metrics.parquet").to_dict(as_series=False),
        "demonstrations": run.split["expert_episodes"],
        "taken": [other.get("accepted_episodes") for other in run.split["supplementary"]],
    }


@pytest.mark.parametrize(
    ("method", "preset", "discrete"),
    [pytest.param(*case, marks=() if case[0] in QUICK else pytest.mark.slow) for case in CASES],
)
def test_other_rewards_change_no_tensor(tmp_path: Path, method: str, preset: str | None, discrete: bool):
    """Files that differ in their rewards alone teach the same, episodes taken as demonstrations included."""
    plain = trained(tmp_path / "ones", ones, method, preset, discrete=discrete)
    other = trained(tmp_path / "huge", huge, method, preset, discrete=discrete)
    assert plain.manifest["dataset"]["sha256"] != other.manifest["dataset"]["sha256"]
    assert learnt(plain) == learnt(other)
    assert plain.split["rewards_read"] is other.split["rewards_read"] is False
    assert bool(learnt(plain)["taken"][0]) is ((method, preset) in TAKING)


@pytest.mark.parametrize(("method", "preset"), [("sprinql", None), ("filtered-bc", None)])
def test_packed_rewards_reach_no_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, preset: str | None
):
    """NaN in the rewards' column of the packed rows, which samplers gather whole, reaches no tensor."""
    plain = trained(tmp_path / "plain", ones, method, preset)
    opened = stage.open_dataset

    def poisoned(dataset: str) -> TransitionTable:
        table = opened(dataset)
        rows = np.array(table.rows)
        rows[:, -2] = np.nan
        return replace(table, rows=rows)

    monkeypatch.setattr(stage, "open_dataset", poisoned)
    assert learnt(trained(tmp_path / "poisoned", ones, method, preset)) == learnt(plain)


def test_rewards_that_are_no_number_are_refused(tmp_path: Path):
    """A file with NaN among its rewards is refused by name, and so is one whose rewards exceed 32 bits."""
    for name, value in (("nan", np.nan), ("wide", 1e300)):
        with pytest.raises(InvalidEpisode, match="not finite in rewards"):
            trained(tmp_path / name, lambda count, value=value: np.full(count, value), "bc")


@pytest.mark.parametrize("method", ORACLES)
def test_an_oracle_learns_from_the_rewards(tmp_path: Path, method: str):
    """What no other method reads changes an oracle's tensors, and its split says that rewards were read."""
    runs = [trained(tmp_path / made.__name__, made, method) for made in (ones, falling)]
    assert learnt(runs[0])["checkpoint"] != learnt(runs[1])["checkpoint"]
    assert all(run.split["rewards_read"] for run in runs)


def test_selecting_the_best_reads_the_rewards(tmp_path: Path):
    """`select=top` takes the episodes of the highest return, and the split says that rewards were read."""
    run = trained(tmp_path / "top", falling, "bc", select="top", demos=2)
    assert run.split["expert_episodes"] == [0, 1]
    assert run.split["rewards_read"] is True
    other = trained(tmp_path / "rising", lambda count: -falling(count), "bc", select="top", demos=2)
    assert other.split["expert_episodes"] == [6, 7]


@pytest.mark.parametrize("form", ["linear", "implicit"])
@pytest.mark.parametrize("discrete", [False, True])
def test_recovered_rewards_do_not_depend_on_true_ones(tmp_path: Path, form: str, discrete: bool):
    """What `reward` recovers, its nulls too, is the same whatever the true rewards are."""
    found = []
    for made in (ones, huge):
        run = trained(tmp_path / made.__name__, made, "iq", discrete=discrete)
        recover_reward(run, RewardRequest(form=form), discard, discard)
        found.append(pl.read_parquet(run.path / "rewards.parquet").drop("true"))
    assert found[0].equals(found[1])
