"""Compiled updates are the eager ones: the same random numbers, and the same tensors within rounding."""

import shutil
from pathlib import Path

import h5py
import pytest
import torch
from tests_support import write_hdf5

from iq_offline.errors import ConfigError
from iq_offline.stages import train as stage
from iq_offline.stages.train import TrainRequest, train_run
from iq_offline.tracking.tracker import NullTracker
from iq_offline.training import steps
from iq_offline.training.run_folder import RunFolder

TOLERANCE = 2e-4
"""Largest difference of any tensor after 100 updates; Adam moves a parameter by up to 0.03 in them."""
RECIPES = ["iq", "iq-awr", "recoil", "sprinql"]
"""Between them, every piece that draws, averages or differentiates twice."""
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "start_tracking", lambda *_: NullTracker())


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace as PyTorch runs it, without the compiler's half minute."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(steps, "UNROLLED", 2)


def tasks(folder: Path, linear_task: Path, *, discrete: bool) -> tuple[Path, Path]:
    """The expert's data, one episode ending in a termination, and data of the opposite actions."""
    with h5py.File(linear_task) as file:
        arrays = {key: file[key][:] for key in file}
    arrays["terminals"][79], arrays["timeouts"][79] = True, False
    files = []
    for name, sign in (("expert", 1), ("other", -1)):
        actions = sign * arrays["actions"]
        chosen = (actions[:, 0] > 0).astype("int64") if discrete else actions
        files.append(write_hdf5(folder / f"{name}.hdf5", arrays | {"actions": chosen}))
    return files[0], files[1]


def trained(out: Path, data: tuple[Path, Path], method: str, compiling: str, *overrides: str) -> RunFolder:
    request = TrainRequest(
        str(data[0]),
        method,
        demos=4,
        supplementary=(str(data[1]),),
        overrides=("updates=100", "hidden_sizes=[8, 8]", "batch_size=16", *overrides),
        device="cpu",
        out=out,
        compile=compiling,
    )
    return train_run(request, lambda _: None, lambda _: None)


def assert_near(first: RunFolder, second: RunFolder) -> None:
    others = second.checkpoint()
    for name, tensor in first.checkpoint().items():
        assert (tensor - others[name]).abs().max() <= TOLERANCE, name


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
@pytest.mark.parametrize("method", RECIPES)
def test_the_trace_of_every_recipe_makes_the_same_updates(
    method: str, discrete: bool, tmp_path: Path, linear_task: Path
):
    data = tasks(tmp_path, linear_task, discrete=discrete)
    prior = ("prior.updates=30", "prior.hidden_sizes=[8, 8]") if method in ("iq", "iq-cql", "csil") else ()
    eager = trained(tmp_path / "eager", data, method, "off", *prior)
    traced = trained(tmp_path / "traced", data, method, "on", *prior)
    assert (eager.manifest["compiled"], traced.manifest["compiled"]) == (False, True)
    assert_near(eager, traced)


@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
def test_compiled_and_eager_agree_after_a_hundred_updates(
    discrete: bool, tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(steps, "UNROLLED", 2 if discrete else 1)
    data = tasks(tmp_path, linear_task, discrete=discrete)
    own = ("prior=none", "hidden_sizes=[8]") + (() if discrete else ("entropy=uniform", "critic_layer_norm=false"))
    eager = trained(tmp_path / "eager", data, "iq", "off", *own)
    compiled = trained(tmp_path / "compiled", data, "iq", "on", *own)
    assert compiled.manifest["compiled"]
    assert_near(eager, compiled)


@pytest.mark.usefixtures("traced_only")
def test_what_is_left_over_of_a_count_is_made_in_eager_mode(tmp_path: Path, linear_task: Path):
    data = tasks(tmp_path, linear_task, discrete=False)
    eager = trained(tmp_path / "eager", data, "bc", "off", "updates=103")
    traced = trained(tmp_path / "traced", data, "bc", "on", "updates=103")
    assert eager.manifest["updates"] == traced.manifest["updates"] == 103
    assert_near(eager, traced)


def test_short_runs_are_not_compiled_by_themselves(tmp_path: Path, linear_task: Path):
    data = tasks(tmp_path, linear_task, discrete=False)
    assert not trained(tmp_path / "auto", data, "bc", "auto").manifest["compiled"]


def test_without_a_compiler_only_an_explicit_wish_is_an_error(
    tmp_path: Path, linear_task: Path, monkeypatch: pytest.MonkeyPatch
):
    data = tasks(tmp_path, linear_task, discrete=False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(steps, "PAYS_FROM", {False: 1, True: 1})
    assert not trained(tmp_path / "auto", data, "bc", "auto").manifest["compiled"]
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler"):
        trained(tmp_path / "on", data, "bc", "on")
    assert not (tmp_path / "on").exists()
