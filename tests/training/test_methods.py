"""Every method trains, keeps and reloads what it learnt; a weight of zero changes nothing; the alarm stops a run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests_support import requested, write_hdf5

from iq_offline.algorithms.losses import Metrics
from iq_offline.batch import Batch
from iq_offline.config.cloning import ContinuousBCConfig, DiscreteBCConfig
from iq_offline.config.q_learning import QLearningConfig
from iq_offline.config.regularisers import ContinuousRegularisers, DiscreteRegularisers
from iq_offline.config.train import algorithm_class, algorithm_config, valid_keys
from iq_offline.errors import ConfigError, TrainingDiverged
from iq_offline.methods import METHODS
from iq_offline.stages.reward import RewardRequest, recover_reward
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import Tracker
from iq_offline.training.alarm import DivergenceAlarm
from iq_offline.training.learnt import learner_of
from iq_offline.training.loop import fit
from iq_offline.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("undrawn")
IQ_METHODS = ["iq", "iq-paper", "iq-cql", "iq-awr", "ls-iq", "csil", "recoil", "sprinql", "iq-mixture"]
PEERS = ["bc-all", "weighted-bc", "filtered-bc", "recovery-bc", "seabo-iql", "otr-td3bc", "uds-td3bc", "oracle-td3bc"]
SMALL = {"batch_size": 32, "hidden_sizes": [16, 16]}


def discard(*_: Any) -> None:
    """Nobody listens."""


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store to mirror into, and a short null for methods without a prior."""
    monkeypatch.setattr("iq_offline.stages.train.start_tracking", lambda *_: Tracker())
    monkeypatch.setattr("iq_offline.stages.reward.mirror_stage", discard)
    short = {"updates": 20, "hidden_sizes": (16,)}
    monkeypatch.setattr("iq_offline.stages.reward.ContinuousBCConfig", lambda: ContinuousBCConfig(**short))
    monkeypatch.setattr("iq_offline.stages.reward.DiscreteBCConfig", lambda: DiscreteBCConfig(**short))


def settings(updates: int, *, prior: bool = True) -> tuple[str, ...]:
    """Overrides for a short run of small networks."""
    text = [f"updates={updates}", *(f"{key}={value}" for key, value in SMALL.items())]
    if prior:
        text += ["prior.updates=60", "prior.hidden_sizes=[16, 16]"]
    return tuple(text)


def discrete_task(tmp_path: Path, name: str, *, noise: float, seed: int) -> Path:
    """Six episodes of 30 steps over two actions; the action is the sign of the first number, more or less often."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(6 * 30, 3)).astype(np.float32)
    actions = np.where(rng.random(180) < noise, rng.integers(2, size=180), observations[:, 0] > 0)
    ends = np.arange(180) % 30 == 29
    arrays = {
        "observations": observations,
        "next_observations": np.roll(observations, -1, axis=0),
        "actions": actions.astype(np.int64),
        "rewards": np.ones(180, dtype=np.float32),
        "terminals": ends & (np.arange(180) < 90),
        "timeouts": ends & (np.arange(180) >= 90),
    }
    return write_hdf5(tmp_path / f"{name}.hdf5", arrays)


def continuous_task(tmp_path: Path, name: str, *, noise: float, seed: int) -> Path:
    """Six episodes of 30 steps, half of them ending in a termination; the action is linear, and noisy."""
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(180, 3)).astype(np.float32)
    actions = observations @ np.array([[0.8, 0.1], [-0.5, 0.2], [0.3, -1.5]]) + noise * rng.normal(size=(180, 2))
    ends = np.arange(180) % 30 == 29
    arrays = {
        "observations": observations,
        "next_observations": np.roll(observations, -1, axis=0),
        "actions": np.clip(actions, -1, 1).astype(np.float32),
        "rewards": observations[:, 0],
        "terminals": ends & (np.arange(180) < 90),
        "timeouts": ends & (np.arange(180) >= 90),
    }
    return write_hdf5(tmp_path / f"{name}.hdf5", arrays)


EVERY_METHOD = pytest.mark.parametrize(
    ("method", "task"),
    [
        *(pytest.param(name, continuous_task, id=f"{name}-continuous") for name in IQ_METHODS),
        *(pytest.param(name, discrete_task, id=f"{name}-discrete") for name in IQ_METHODS),
    ],
)


def trained(
    tmp_path: Path,
    task: Any,
    method: str,
    overrides: tuple[str, ...],
    *,
    name: str = "run",
    supplementary: bool = True,
) -> RunFolder:
    """A run on the task's expert data, with its noisy data beside or without them."""
    tmp_path.mkdir(exist_ok=True, parents=True)
    expert = task(tmp_path, "expert", noise=0.0, seed=0)
    noisy = task(tmp_path, "noisy", noise=1.0, seed=1)
    request = requested(
        dataset=str(expert),
        method=method,
        demos=4,
        supplementary=(str(noisy),) if supplementary else (),
        overrides=overrides,
        out=tmp_path / name,
    )
    return train_run(*request, discard, discard)


@EVERY_METHOD
def test_every_method_trains_and_its_reward_is_recovered(method: str, task: Any, tmp_path: Path):
    """From the run folder's files."""
    has_prior = method in ("iq", "iq-cql", "csil")
    run = trained(tmp_path, task, method, settings(20, prior=has_prior))
    metrics = pl.read_parquet(run.path / "metrics.parquet").tail(1).to_dicts()[0]
    assert {"expert_q", "policy_q", "random_q", "expert_value", "expert_reward", "action_error"} <= metrics.keys()
    assert run.manifest["method"] == method
    report = recover_reward(run, RewardRequest(), discard, discard)
    recovered = pl.read_parquet(run.path / "rewards.parquet")["recovered"].to_numpy()
    assert report["transition"]["n"] == len(recovered) == 360
    assert np.isfinite(recovered).all()
    assert recovered.std() > 0


@EVERY_METHOD
def test_every_method_trains_without_supplementary_data(method: str, task: Any, tmp_path: Path):
    has_prior = method in ("iq", "iq-cql", "csil")
    run = trained(tmp_path, task, method, settings(10, prior=has_prior), supplementary=False)
    metrics = pl.read_parquet(run.path / "metrics.parquet").tail(1).to_dicts()[0]
    assert np.isfinite(metrics["expert_q"])
    assert not [name for name in metrics if name.startswith("supplementary")]
    assert run.policy().act(torch.zeros(2, 3)).shape == ((2, 2) if task is continuous_task else (2,))


@pytest.mark.parametrize("method", PEERS)
def test_every_peer_trains_into_a_run_folder(method: str, tmp_path: Path):
    peer = method.split("-")[-1] not in ("iql", "td3bc")
    small = "hidden_sizes=[16, 16]"
    overrides = ("cloning.updates=20", f"cloning.{small}") if peer else ("updates=10", small)
    if method == "weighted-bc":
        overrides += ("discriminator.updates=5", f"discriminator.{small}")
    run = trained(tmp_path, continuous_task, method, overrides)
    actions = run.policy().act(torch.zeros(2, 3))
    assert actions.shape == (2, 2)
    assert actions.abs().max() <= 1
    assert run.split["rewards_read"] is method.startswith("oracle")


def checkpoints(tmp_path: Path, task: Any, *choices: tuple[str, ...]) -> list[str]:
    """Hashes of all that is learnt under each choice, from expert and supplementary data."""
    runs = [
        trained(tmp_path, task, "iq", (*settings(20), *choice), name=f"choice-{number}")
        for number, choice in enumerate(choices)
    ]
    return [run.manifest["checkpoint_sha256"] for run in runs]


@pytest.mark.parametrize("task", [continuous_task, discrete_task], ids=["continuous", "discrete"])
def test_regularisers_of_weight_zero_leave_no_trace(task: Any, tmp_path: Path):
    """A run with all of them at weight 0 has the tensors of one without any, to the bit."""
    kinds = ContinuousRegularisers if task is continuous_task else DiscreteRegularisers
    without, off = ([f"{name}{value}" for name in kinds.model_fields] for value in ("=none", ".weight=0"))
    several = ("value_term=mixture", *(("ensemble.members=2",) if task is continuous_task else ()))
    plain, zero = checkpoints(tmp_path, task, (*several, *without), (*several, *off))
    assert zero == plain


@pytest.mark.parametrize("decay", ["actor_weight_decay", "critic_weight_decay"])
def test_no_weight_decay_is_limit_of_little(decay: str, tmp_path: Path):
    """To the bit."""
    none, hardly, some = checkpoints(tmp_path, continuous_task, *((f"{decay}={value}",) for value in (0, 1e-30, 0.1)))
    assert none == hardly
    assert none != some


@pytest.mark.parametrize(
    ("method", "choice"),
    [
        ("iq", ("value_term=initial", "polyak_rate=none")),
        ("iq", ("ensemble.members=3", "ensemble.pessimism=bound", "diversity.weight=1")),
        ("iq", ("behavioural_cloning.weight=1", "observation_noise.weight=1")),
        ("iq", ("divergence=jensen-shannon", "value_suppression.weight=0.1", "polyak_rate=none")),
        ("iq-paper", ("policy_std=0.2", "divergence=kl-donsker-varadhan")),
        ("csil", ("coherence=2", "ensemble.members=2", "action_gradient.at=between")),
        ("recoil", ("ensemble.members=2", "polyak_rate=none", "target_bound=none")),
        ("sprinql", ("reward_reference=[2,-1]", "ensemble.members=1")),
    ],
    ids=lambda part: part if isinstance(part, str) else part[0],
)
def test_every_choice_composes_and_reloads(method: str, choice: tuple[str, ...], tmp_path: Path):
    """A reward is recovered from the run folder's files alone."""
    prior = method in ("iq", "csil")
    run = trained(tmp_path, continuous_task, method, (*settings(10, prior=prior), *choice))
    recover_reward(run, RewardRequest(), discard, discard)
    assert np.isfinite(pl.read_parquet(run.path / "rewards.parquet")["recovered"].to_numpy()).all()


@pytest.mark.parametrize("task", [continuous_task, discrete_task], ids=["continuous", "discrete"])
def test_value_behind_terminations_is_learnt_or_zero(task: Any, tmp_path: Path):
    """At recovery: what `ls-iq` has learnt; the least value of `recoil` is training's alone."""
    learnt = trained(tmp_path, task, "ls-iq", settings(20, prior=False), name="learnt")
    lowest = trained(tmp_path, task, "recoil", settings(5, prior=False), name="lowest")
    value = learner_of(learnt).recovery_absorbing_value
    assert isinstance(value, torch.Tensor)
    assert value.item() == pytest.approx(learnt.checkpoint()["absorbing.reward"].item() / (1 - 0.99))
    assert value.item() != 0
    assert learner_of(lowest).recovery_absorbing_value is None
    assert learner_of(lowest).absorbing_value == -200


@EVERY_METHOD
def test_learner_of_a_run_is_the_trained_one(method: str, task: Any, tmp_path: Path):
    """Its networks hold what the checkpoint does, all of it, and need no gradient."""
    run = trained(tmp_path, task, method, settings(5, prior=method in ("iq", "iq-cql", "csil")))
    learner, kept = learner_of(run), run.checkpoint()
    assert learner.tensors().keys() == kept.keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in learner.tensors().items())
    assert not [True for module in learner.modules.values() for one in module.parameters() if one.requires_grad]


def test_method_named_as_preset_is_trained(tmp_path: Path):
    """Two names that differ are refused."""
    expert = continuous_task(tmp_path, "expert", noise=0.0, seed=0)
    request = requested(str(expert), preset="ls-iq", overrides=settings(5, prior=False), out=tmp_path / "named")
    assert train_run(*request, discard, discard).manifest["method"] == "ls-iq"
    with pytest.raises(ConfigError, match="a method of its own"):
        requested(str(expert), method="bc", preset="ls-iq")


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("prior=none", "unknown key 'prior'"),
        ("divergence=wasserstein", "gradient penalty"),
        ("cql=1", "group of settings"),
        ("diversity.weight=1", "ensemble.members=2"),
    ],
)
def test_contradicting_settings_are_refused_with_remedy(setting: str, text: str, tmp_path: Path):
    expert = continuous_task(tmp_path, "expert", noise=0.0, seed=0)
    with pytest.raises(ConfigError) as error:
        train_run(*requested(str(expert), method="iq", overrides=(setting,)), discard, discard)
    assert text in str(error.value) + error.value.remedy


def test_pictures_train_through_the_encoder(tmp_path: Path):
    rng = np.random.default_rng(0)
    ends = np.arange(60) % 30 == 29
    pictures = rng.integers(0, 256, size=(60, 8, 8, 3), dtype=np.uint8)
    arrays = {
        "observations": pictures,
        "next_observations": np.roll(pictures, -1, axis=0),
        "actions": (pictures[:, 0, 0, 0] > 127).astype(np.int64),
        "rewards": np.zeros(60, dtype=np.float32),
        "terminals": np.zeros(60, dtype=bool),
        "timeouts": ends,
    }
    file = write_hdf5(tmp_path / "pictures.hdf5", arrays)
    overrides = ("updates=5", "prior.updates=40", "batch_size=16")
    run = train_run(*requested(str(file), method="iq", overrides=overrides, out=tmp_path / "run"), discard, discard)
    metrics = pl.read_parquet(run.path / "metrics.parquet")["prior_action_error"].drop_nulls()
    assert metrics[-1] <= 0.1
    assert run.policy().act(torch.from_numpy(pictures[:4].reshape(4, -1)).float()).shape == (4,)
    recover_reward(run, RewardRequest(), discard, discard)


class _Runaway:
    """A learner whose Q doubles."""

    policy: Any = None
    q = 1.0

    def update(self, batch: Batch) -> Metrics:
        del batch
        self.q *= 1.01
        return {"loss": torch.tensor(0.0)}

    def diagnostics(self, batch: Batch) -> Metrics:
        del batch
        return {"expert_q": torch.tensor(self.q)}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}


def test_alarm_stops_a_run_that_diverges():
    """It says since when, and what to try."""
    batches = iter([None] * 3000)  # type: ignore[list-item]
    with pytest.raises(TrainingDiverged) as error:
        for _ in fit(_Runaway(), batches, 3000, DivergenceAlarm(1000.0, "raise the temperature")):  # type: ignore[arg-type]
            pass
    assert "since update 700" in error.value.problem
    assert "at update 900" in error.value.problem
    assert error.value.remedy == "raise the temperature"


def test_one_large_value_is_no_alarm():
    """One that is not finite is."""
    alarm = DivergenceAlarm(10.0, "remedy")
    for step, q in [(100, 50.0), (200, 50.0), (300, 1.0), (400, 50.0), (500, -50.0)]:
        alarm.check(step, {"expert_q": q})
    with pytest.raises(TrainingDiverged, match="loss is nan at update 600"):
        alarm.check(600, {"loss": float("nan")})


def test_diverging_value_is_stopped_without_q():
    alarm = DivergenceAlarm(10.0, "remedy", patience=2)
    alarm.check(100, {"expert_q": 5.0, "expert_value": -30.0})
    with pytest.raises(TrainingDiverged, match=r"mean V is -40 at update 200, beyond 10 \(since update 100\)"):
        alarm.check(200, {"expert_q": 5.0, "expert_value": -40.0})


def test_diverging_supplementary_values_are_stopped():
    alarm = DivergenceAlarm(10.0, "remedy", patience=2)
    for name in ("supplementary_q", "supplementary_value"):
        alarm.check(100, {"expert_q": 5.0, name: -30.0})
        with pytest.raises(TrainingDiverged, match=r"supplementary data's mean [QV] is -40 at update 200, beyond 10"):
            alarm.check(200, {"expert_q": 5.0, name: -40.0})
        alarm.check(300, {"expert_q": 5.0, name: 0.0})


Q_METHODS = [
    (name, discrete)
    for name, method in METHODS.items()
    for discrete in (False, True)
    if issubclass(method.config_class(discrete=discrete), QLearningConfig)
]


@pytest.mark.parametrize(("method", "discrete"), Q_METHODS)
def test_remedies_of_divergence_are_accepted(method: str, discrete: bool):
    """What a diverged run says to set is a setting of its method; another method that it names is there."""
    model: Any = algorithm_class(method, discrete=discrete)
    overrides = re.findall(r"[\w.]+=[\w.]+", model.remedy)
    assert {override.partition("=")[0] for override in overrides} <= valid_keys(model).keys()
    for override in overrides:
        algorithm_config(method, discrete=discrete, overrides=[override])
    others = re.findall(r"--method ([\w-]+)", model.remedy)
    assert overrides or others
    assert set(others) <= METHODS.keys() - {method}


@pytest.mark.parametrize("task", [continuous_task, discrete_task], ids=["continuous", "discrete"])
def test_in_sample_value_has_its_own_learning_rate(task: Any, tmp_path: Path):
    hardly, fast = (
        trained(tmp_path, task, "recoil", (*settings(20, prior=False), f"value_learning_rate={rate}"), name=rate)
        for rate in ("1e-8", "1e-2")
    )
    assert hardly.manifest["checkpoint_sha256"] != fast.manifest["checkpoint_sha256"]
    for run in (hardly, fast):
        assert {"expert_weight", "supplementary_weight", "actor_gradient_norm"} <= set(
            pl.read_parquet(run.path / "metrics.parquet").columns
        )


def test_batch_of_one_has_no_supplementary_episodes(tmp_path: Path):
    run = trained(tmp_path, continuous_task, "iq", (*settings(20), "prior.batch_size=1", "batch_size=1"))
    assert run.manifest["checkpoint_sha256"]


def test_run_that_diverges_leaves_no_folder(tmp_path: Path):
    with pytest.raises(TrainingDiverged) as error:
        trained(tmp_path, continuous_task, "iq", (*settings(400), "max_abs_q=1e-9", "accept_episodes=none"))
    assert "since update 160" in error.value.problem  # the prior's 60 updates among them
    assert "at update 360" in error.value.problem
    assert not (tmp_path / "run").exists()
