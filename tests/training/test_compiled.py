"""Compiled updates are the eager ones: the same random numbers, and the same tensors within rounding."""

import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import requested, tasks

from iq_offline.algorithms.build import NetworkSpec
from iq_offline.algorithms.encoders import ObservationLayout
from iq_offline.algorithms.iq_online import DiscreteOnlineIQLearner
from iq_offline.algorithms.networks import Standardiser
from iq_offline.batch import Batch
from iq_offline.config.online import DiscreteOnlineIQConfig
from iq_offline.errors import CompilerFailed, ConfigError
from iq_offline.stages import train as stage
from iq_offline.stages.train import train_run
from iq_offline.tracking.mirror import Tracker
from iq_offline.training import steps
from iq_offline.training.compile import aot_cache, compiled_steps
from iq_offline.training.compile.aot_cache import key_of, request_of
from iq_offline.training.compile.tracing import Function, Traceable
from iq_offline.training.run_folder import RunFolder

TOLERANCE = 2e-4
"""Largest difference of any tensor after 100 updates; Adam moves a parameter by up to 0.03 in them."""
METHODS = ["iq", "iq-paper", "iq-awr", "iq-cql", "csil", "ls-iq", "recoil", "sprinql", "iq-mixture"]
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "start_tracking", lambda *_: Tracker())


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace that the compiler is given, made without any tensor's values, as PyTorch runs it."""

    def interpreted(plan: Traceable) -> Function:
        request, tensors = aot_cache.request_of(plan)
        reader = aot_cache.Reader(io.BytesIO(request))
        trace = reader.load().trace()
        constants = aot_cache.filled(reader.places(trace.constants), tensors)
        return lambda given: trace.graph(*given, *constants)

    monkeypatch.setattr(compiled_steps, "compiled_function", interpreted)
    monkeypatch.setattr(steps, "UNROLLED", 2)


def trained(
    out: Path, data: tuple[Path, Path], method: str, compiling: str, *overrides: str, seed: int = 0
) -> RunFolder:
    request = requested(
        str(data[0]),
        method,
        demos=4,
        supplementary=(str(data[1]),),
        overrides=("updates=100", "hidden_sizes=[8, 8]", "batch_size=16", *overrides),
        device="cpu",
        seed=seed,
        out=out,
        compile=compiling,
    )
    return train_run(*request, lambda _: None, lambda _: None)


def assert_near(first: RunFolder, second: RunFolder) -> None:
    others = second.checkpoint()
    for name, tensor in first.checkpoint().items():
        assert (tensor - others[name]).abs().max() <= TOLERANCE, name


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize(
    ("method", "discrete"),
    [
        ("iq", True),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in METHODS if name != "iq"),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in METHODS),
    ],
)
def test_trace_of_every_method_makes_same_updates(method: str, discrete: bool, tmp_path: Path, linear_task: Path):
    data = tasks(tmp_path, linear_task, discrete=discrete)
    prior = ("prior.updates=10", "prior.hidden_sizes=[8, 8]") if method in ("iq", "iq-cql", "csil") else ()
    eager = trained(tmp_path / "eager", data, method, "off", "updates=20", *prior)
    traced = trained(tmp_path / "traced", data, method, "on", "updates=20", *prior)
    assert (eager.manifest["compiled"], traced.manifest["compiled"]) == (False, True)
    assert_near(eager, traced)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
def test_compiled_and_eager_agree_after_hundred_updates(
    discrete: bool, tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(steps, "UNROLLED", 2 if discrete else 1)
    data = tasks(tmp_path, linear_task, discrete=discrete)
    own = ("hidden_sizes=[8]",)
    eager = trained(tmp_path / "eager", data, "iq-paper", "off", *own)
    first = trained(tmp_path / "compiled", data, "iq-paper", "on", *own)
    assert first.manifest["compiled"]
    assert_near(eager, first)
    # what was compiled is kept, and knows nothing of that run's own tensors
    monkeypatch.setattr(aot_cache, "_compile", lambda *_: pytest.fail("compiled again"))
    others = data[1], data[0]
    assert_near(
        trained(tmp_path / "eager-other", others, "iq-paper", "off", *own, seed=1),
        trained(tmp_path / "compiled-other", others, "iq-paper", "on", *own, seed=1),
    )


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_gradient_of_recorded_q_is_right(tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch):
    """At full width."""
    monkeypatch.setattr(steps, "UNROLLED", 1)
    data = tasks(tmp_path, linear_task, discrete=True)
    own = ("hidden_sizes=[32]", "batch_size=256", "updates=30")
    eager = trained(tmp_path / "eager", data, "iq-awr", "off", *own)
    assert_near(eager, trained(tmp_path / "compiled", data, "iq-awr", "on", *own))


@pytest.mark.parametrize("wrong", [1.05, pytest.param(float("nan"), marks=pytest.mark.slow)])
def test_wrong_compiled_updates_stop_the_run(
    wrong: float, tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch
):
    """They are held against eager ones."""

    def miscompiled(plan: Traceable) -> Function:
        def function(given: list[torch.Tensor]) -> list[torch.Tensor]:
            found = trace.graph(*given, *trace.constants)
            return [tensor * wrong if tensor.shape == (8, 8) else tensor for tensor in found]

        trace = plan.trace()
        return function

    monkeypatch.setattr(compiled_steps, "compiled_function", miscompiled)
    monkeypatch.setattr(steps, "_has_compiler", lambda: True)
    data = tasks(tmp_path, linear_task, discrete=False)
    with pytest.raises(CompilerFailed, match=r"(?s)not the eager ones.*\(8, 8\).*--compile off"):
        trained(tmp_path / "on", data, "bc", "on")
    assert not (tmp_path / "on").exists()


@pytest.mark.slow
@needs_compiler
def test_failing_compiler_is_told_and_leaves_nothing(
    tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch
):
    data = tasks(tmp_path, linear_task, discrete=False)
    monkeypatch.setenv("IQ_OFFLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(CompilerFailed, match=r"(?s)could not be compiled.*--compile off"):
        trained(tmp_path / "on", data, "bc", "on")
    assert not (tmp_path / "on").exists()
    assert [path.suffix for path in (tmp_path / "home" / "compiled").iterdir()] == [".lock"]


def test_a_damaged_library_is_made_again(tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch):
    def compile_nothing(request: bytes, folder: Path) -> None:
        torch.save([], folder / aot_cache.CONSTANTS)
        (folder / aot_cache.LIBRARY).write_bytes(b"")
        requests.append(request)

    requests: list[bytes] = []
    monkeypatch.setenv("IQ_OFFLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(aot_cache, "_compile", compile_nothing)
    monkeypatch.setattr(steps, "_has_compiler", lambda: True)
    data = tasks(tmp_path, linear_task, discrete=False)
    for _ in range(2):
        with pytest.raises(CompilerFailed, match=r"cannot be loaded"):
            trained(tmp_path / "on", data, "bc", "on")
    assert len(requests) == 2
    assert requests[0] == requests[1]


PRINTS_KEYS = """
import torch
from iq_offline.algorithms.bc import BCLearner
from iq_offline.algorithms.networks import ActionScale, ContinuousPolicy, Standardiser
from iq_offline.batch import Batch
from iq_offline.config.cloning import ContinuousBCConfig
from iq_offline.training.compile.aot_cache import key_of, request_of
from iq_offline.training.compile.tracing import Function, Traceable

def key(rate, value, size):
    config = ContinuousBCConfig(learning_rate=rate, updates=10, hidden_sizes=(4,))
    standardiser = Standardiser(torch.full((2,), value), torch.ones(2))
    scale = ActionScale.of_bounds((-1.0,), (1.0,))
    learner = BCLearner(config, ContinuousPolicy(standardiser, scale, config.hidden_sizes, config.activation))
    batch = Batch(torch.zeros(size, 2), torch.zeros(size, 1), torch.zeros(size, 2), torch.zeros(size))
    return key_of(request_of(Traceable.of(learner, batch, 1))[0])

print(key(1e-3, 0.0, 8), key(1e-3, 1.0, 8), key(2e-3, 0.0, 8), key(1e-3, 0.0, 9))
"""


@pytest.mark.slow
def test_library_is_found_by_settings_and_shapes():
    """And by these alone."""
    printed = [
        subprocess.run(
            [sys.executable, "-c", PRINTS_KEYS],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    first, other_values, other_rate, other_size = printed[0]
    assert first == other_values == other_rate
    assert first != other_size


def online_key(**settings: Any) -> str:
    config = DiscreteOnlineIQConfig.model_validate({"hidden_sizes": (4,)} | settings)
    spec = NetworkSpec(ObservationLayout(2), Standardiser(torch.zeros(2), torch.ones(2)), 2)
    batch = Batch(torch.zeros(4, 2), torch.zeros(4, 1), torch.zeros(4, 2), torch.zeros(4))
    learner = DiscreteOnlineIQLearner(config, spec)
    for adam in learner.adams:
        adam.count = settings.get("updates", 0)
    return key_of(request_of(Traceable.of(learner, replace(batch, supplementary=batch), 1))[0])


def test_library_serves_any_schedule_of_updates():
    """Their number, learning rate, evaluations and environment steps change no compiled update; a penalty does."""
    key = online_key()
    assert key == online_key(environment_steps=700, warm_up_steps=100, updates=600, evaluate_every=50)
    assert key == online_key(learning_rate=0.01)
    assert key != online_key(reward_penalty=0.25)


@pytest.mark.usefixtures("traced_only")
def test_updates_left_over_are_made_eagerly(tmp_path: Path, linear_task: Path):
    """Those that do not fill an unrolled graph."""
    data = tasks(tmp_path, linear_task, discrete=False)
    eager = trained(tmp_path / "eager", data, "bc", "off", "updates=23")
    traced = trained(tmp_path / "traced", data, "bc", "on", "updates=23")
    assert eager.manifest["updates"] == traced.manifest["updates"] == 23
    assert_near(eager, traced)


def test_short_runs_are_not_compiled_automatically(tmp_path: Path, linear_task: Path):
    data = tasks(tmp_path, linear_task, discrete=False)
    assert not trained(tmp_path / "auto", data, "bc", "auto").manifest["compiled"]


def test_missing_compiler_fails_only_when_asked_for(tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch):
    data = tasks(tmp_path, linear_task, discrete=False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(steps, "PAYS_FROM", {False: 1, True: 1})
    assert not trained(tmp_path / "auto", data, "bc", "auto").manifest["compiled"]
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler"):
        trained(tmp_path / "on", data, "bc", "on")
    assert not (tmp_path / "on").exists()
