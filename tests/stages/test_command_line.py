"""The command line, run as its users run it: the whole line on tiny episodes, and every mistake with its message."""

import json
import re
import sys
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
from local_servers import Place, serving
from typer.testing import CliRunner, Result

from iq_offline.cli import app
from iq_offline.errors import UserError

ROOT = Path(__file__).parents[2]
TRAIN = ("train", "--device", "cpu", "--demos", "2")
SMALL = ("--set", "hidden_sizes=[8]", "--updates", "20")
SMALL_PRIOR = ("--set", "prior.updates=20", "--set", "prior.hidden_sizes=[8]")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> dict:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output + str(result.exception)
    content: dict = json.loads(result.stdout)
    return content


def refusal(*arguments: object) -> UserError:
    result = call(*arguments)
    assert isinstance(result.exception, UserError), result.output + str(result.exception)
    return result.exception


@pytest.fixture
def cartpole(write_d4rl) -> Path:
    """Four CartPole episodes of a policy that pushes to where the pole falls."""
    import gymnasium

    environment = gymnasium.make("CartPole-v1", max_episode_steps=40)
    rows: dict[str, list] = {
        key: [] for key in ("observations", "next_observations", "actions", "rewards", "terminals", "timeouts")
    }
    for episode in range(4):
        observation, _ = environment.reset(seed=episode)
        ended = False
        while not ended:
            action = int(observation[2] + observation[3] > 0)
            following, reward, terminated, truncated, _ = environment.step(action)
            for key, value in zip(rows, (observation, following, action, reward, terminated, truncated), strict=True):
                rows[key].append(value)
            observation, ended = following, terminated or truncated
    arrays = {key: np.array(values) for key, values in rows.items()}
    return write_d4rl(arrays, name="cartpole.hdf5", env_id="CartPole-v1", env_kwargs={"max_episode_steps": 40})


@pytest.fixture
def hopper(write_d4rl) -> Path:
    """Three short Hopper episodes of random actions, in the shape of the real ones."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(31, 11)).astype(np.float32)
    ends = np.zeros(30, dtype=bool)
    ends[[9, 19, 29]] = True
    arrays = {
        "observations": observations[:-1],
        "next_observations": observations[1:],
        "actions": rng.uniform(-1, 1, size=(30, 3)).astype(np.float32),
        "rewards": rng.normal(size=30).astype(np.float32),
        "terminals": ends,
        "timeouts": np.zeros(30, dtype=bool),
    }
    return write_d4rl(arrays, name="hopper.hdf5", env_id="Hopper-v5")


@pytest.mark.parametrize(("method", "prior"), [("bc", ()), ("iq", SMALL_PRIOR)])
def test_the_line_runs_on_a_discrete_task(cartpole, tmp_path, method, prior):
    trained = answer(*TRAIN, "--dataset", cartpole, "--method", method, *SMALL, *prior, "--out", tmp_path / "run")
    assert trained["runs"][0]["run"] == str(tmp_path / "run")
    evaluated = answer("eval", tmp_path / "run", "--episodes", 3)
    (run,) = evaluated["runs"]
    assert set(run) >= {"run", "method", "dataset", "seed", "episodes", "return_mean", "return_std", "length_mean"}
    assert (run["score"], run["reference"], run["episodes"]) == (None, None, 3)
    assert run["return_mean"] == run["length_mean"] <= 40
    assert evaluated["aggregate"]["return_iqm"] == run["return_mean"]


def test_continuous_task_runs_from_train_to_report(hopper, tmp_path):
    """On a continuous task: train two seeds, evaluate them, recover a reward and report."""
    for seed in (0, 1):
        out = tmp_path / "runs" / f"seed-{seed}"
        trained = answer(*TRAIN, "--dataset", hopper, "--seed", seed, *SMALL, *SMALL_PRIOR, "--out", out)
        assert [run["seed"] for run in trained["runs"]] == [seed]
    evaluated = answer("eval", tmp_path, "--episodes", 2)
    assert [run["path"] for run in evaluated["runs"]] == [str(tmp_path / "runs" / f"seed-{seed}") for seed in (0, 1)]
    (row,) = evaluated["methods"]
    assert (row["method"], row["dataset"], row["runs"]) == ("iq", "hopper", 2)
    assert row["return_iqm"] == evaluated["aggregate"]["return_iqm"]
    assert row["return_ci95"][0] <= row["return_iqm"] <= row["return_ci95"][1]
    run = tmp_path / "runs" / "seed-0"
    reward = answer("reward", run)
    assert set(reward) >= {"transition", "episode", "within_source", "null_length", "null_bc"}
    assert (reward["transition"]["n"], reward["episode"]["n"]) == (30, 3)
    assert -1 <= reward["transition"]["pearson"] <= 1
    read = call("reward", run).stdout.strip().splitlines()[-1]
    assert "the recovered reward" in read.lower()
    reported = answer("report", tmp_path / "runs", "--out", tmp_path / "report")
    assert (reported["summary"][0]["method"], reported["failures"]) == ("iq", [])
    assert Path(reported["html"]) == tmp_path / "report" / "report.html"
    result = call("report", tmp_path / "runs", "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "report" / "report.html").is_file()
    assert "iq-offline ui" in result.stdout
    assert result.stdout.strip() == (tmp_path / "report" / "summary.txt").read_text().strip()


@pytest.mark.parametrize("method", ["iq-paper", "recoil"])
@pytest.mark.parametrize("seeds", [("--seed", 0), ("--seeds", "0,1", "--together")])
def test_a_method_without_updates_ends_where_it_starts(method, seeds, hopper, tmp_path):
    small = (*SMALL[:2], "--set", "updates=0", "--method", method, *seeds)
    trained = answer(*TRAIN, "--dataset", hopper, *small, "--out", tmp_path / "run")
    for run in trained["runs"]:
        assert json.loads((Path(run["run"]) / "manifest.json").read_text())["updates"] == 0
    assert call("report", tmp_path / "run", "--out", tmp_path / "report").exit_code == 0


def test_inspect_prints_the_contracts_keys(cartpole):
    summary = answer("inspect", cartpole)
    assert summary["env_id"] == "CartPole-v1"
    assert summary["env_kwargs"] == {"max_episode_steps": 40}
    assert set(summary["return"]) == {"mean", "std", "min", "max"}
    assert set(summary) >= {"episodes", "steps", "terminations", "truncations", "observation_shape", "action_space"}


def test_convert_writes_minari_with_its_provenance(cartpole, tmp_path):
    record = answer("convert", cartpole, "--to", tmp_path / "cart-v0")
    assert record["read"]["episodes"] == 4
    assert json.loads((tmp_path / "cart-v0" / "provenance.json").read_text())["source"] == record["source"]
    ours, original = answer("inspect", tmp_path / "cart-v0"), answer("inspect", cartpole)
    assert {key: ours[key] for key in ("episodes", "steps", "return")} == {
        key: original[key] for key in ("episodes", "steps", "return")
    }


def test_local_minari_datasets_are_found_by_id(cartpole, tmp_path):
    """A local Minari dataset is found by its id."""
    answer("convert", cartpole, "--to", tmp_path / "minari" / "cart" / "pushed-v0")
    assert answer("inspect", "cart/pushed-v0")["episodes"] == 4


def test_doctor_and_datasets_answer_in_json(home):
    assert answer("doctor")["home"] == str(home)
    assert {row["id"] for row in answer("datasets")["datasets"]} >= {"demo/cartpole/expert-v0"}


def test_doctor_names_missing_packages_and_their_extra(monkeypatch):
    """`doctor` names what is missing, and an extra of this package that brings it."""
    monkeypatch.setattr("iq_offline.stages.doctor.importlib.util.find_spec", lambda _: None)
    remedies = {item["module"]: item["remedy"] for item in answer("doctor")["missing"]}
    assert {"Box2D", "moviepy", "onnxruntime", "snakemake"} <= set(remedies)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra for remedy in remedies.values() for extra in re.findall(r"iq-offline\[(\w+)\]", remedy)} <= set(
        extras
    )
    assert remedies["Box2D"] == "pip install 'iq-offline[box2d]'"


def test_doctor_tells_broken_packages_of_environments(tmp_path: Path, monkeypatch):
    """A package of environments that is installed and cannot be imported is broken, not missing."""
    (tmp_path / "minigrid.py").write_text("from os import there_is_no_such_name\n")
    monkeypatch.delitem(sys.modules, "minigrid", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = answer("doctor")
    assert "minigrid" not in {item["module"] for item in found["missing"]}
    (item,) = [item for item in found["broken"] if item["module"] == "minigrid"]
    assert item["error"].startswith("ImportError: cannot import name 'there_is_no_such_name'")
    assert "cannot be imported: minigrid (ImportError" in call("doctor").stdout


def test_fetching_a_catalogue_dataset_verifies_it(home):
    fetched = answer("fetch", "demo/cartpole/expert-v0")
    assert Path(fetched["path"]).is_relative_to(home)
    (row,) = [row for row in answer("datasets")["datasets"] if row["id"] == "demo/cartpole/expert-v0"]
    assert row["verified"]


def test_wrong_bytes_are_refused_and_leave_nothing(home, cartpole):
    error = refusal("fetch", "demo/cartpole/expert-v0", "--from", cartpole)
    assert "its SHA-256 is" in error.problem
    assert list(home.rglob("*.hdf5")) == []
    assert list(home.rglob("*.part")) == []


def test_runs_are_replaced_only_with_overwrite(cartpole, tmp_path):
    """A run in the way is kept unless overwriting is asked for."""
    arguments = (*TRAIN, "--dataset", cartpole, "--method", "bc", *SMALL, "--out", tmp_path / "run")
    answer(*arguments)
    assert "--overwrite" in refusal(*arguments).remedy
    answer(*arguments, "--overwrite")


def test_repeated_command_trains_equal_tensors(cartpole, home):
    """The same command twice makes two run folders with the same tensors."""
    arguments = (*TRAIN, "--dataset", cartpole, "--method", "iq", *SMALL, *SMALL_PRIOR)
    runs = [Path(answer(*arguments)["runs"][0]["run"]) for _ in range(2)]
    assert runs[1].name == f"{runs[0].name}-2"
    assert all(run.parent == home / "runs" for run in runs)
    first, second = (json.loads((run / "manifest.json").read_text()) for run in runs)
    assert first["checkpoint_sha256"] == second["checkpoint_sha256"]


MISTAKES = {
    "a missing file": (("inspect", "nowhere.hdf5"), "no file or folder at nowhere.hdf5"),
    "an unknown dataset": (("fetch", "demo/cartpole/expertt"), "did you mean demo/cartpole/expert-v0"),
    "an old D4RL version": (("fetch", "hopper-expert-v0"), "hopper-expert-v2"),
    "a URL of no kind that is fetched": (("fetch", "ftp://127.0.0.1/a.hdf5"), "is no place to fetch a file from"),
    "a search that finds nothing": (("datasets", "hoper-expert-v2"), "no dataset matches"),
    "no run": (("eval", "nowhere"), "nowhere does not exist"),
    "a folder without runs": (("eval", "."), "holds no run"),
    "a folder without runs to report": (("report", ".", "--out", "report"), "holds no run"),
    "a folder without runs to select": (("select", "."), "holds no run"),
    "a folder without a reward": (("reward", "."), "holds no run"),
    "a relabelling by no run": (
        ("relabel", "r", "--dataset", "demo/swimmer/random-v0", "--to", "t-v0"),
        "r does not exist",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_with_a_remedy(mistake, tmp_path, monkeypatch):
    """A mistake is answered with its name and remedy."""
    monkeypatch.chdir(tmp_path)
    arguments, message = MISTAKES[mistake]
    error = refusal(*arguments)
    assert message in str(error)
    assert error.remedy


TRAINING_MISTAKES = {
    "method": (("--method", "iqq"), "unknown method 'iqq'", "iq"),
    "device": (("--device", "gpu"), "unknown device 'gpu'", "cuda"),
    "no CUDA": (("--device", "cuda"), "no CUDA device", "cpu"),
    "key": (("--set", "temprature=1"), "unknown key 'temprature'", "temperature"),
    "nested key": (("--set", "prior.update=1"), "unknown key 'prior.update'", "prior.updates"),
    "value": (("--set", "gamma=2"), "gamma=2 does not fit", "less than 1"),
    "no value": (("--set", "gamma"), "has no '='", "key=value"),
    "too many demonstrations": (("--demos", "9"), "--demos 9: hopper has 3 episodes", "at most 3"),
    "preset": (("--preset", "quik"), "unknown preset 'quik'", "quick"),
    "format of seeds": (("--seeds", "a-b"), "--seeds a-b is not a list", "0-4"),
    "supplementary": (("--supplementary", "x"), "unknown dataset 'x'", "iq-offline datasets"),
    "held out": (("--held-out", "1.5"), "--held-out 1.5 is no share", "between 0 and 1"),
    "selection": (("--select", "best"), "unknown selection 'best'", "top"),
    "compile": (("--compile", "maybe"), "unknown choice of --compile 'maybe'", "auto, off, on"),
}


@pytest.mark.parametrize("mistake", TRAINING_MISTAKES)
def test_training_mistakes_leave_nothing_behind(mistake, hopper, tmp_path, monkeypatch):
    """A mistake in training's options is answered before anything is written."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments, problem, remedy = TRAINING_MISTAKES[mistake]
    error = refusal("train", "--dataset", hopper, "--out", tmp_path / "run", *arguments)
    assert problem in error.problem
    assert remedy in error.remedy
    assert not (tmp_path / "run").exists()


def broken_files(folder: Path, whole: Path) -> dict[str, tuple[Path, str]]:
    text = folder / "text.hdf5"
    text.write_text("not data at all")
    truncated = folder / "truncated.hdf5"
    truncated.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

    def changed(name: str, change) -> Path:
        path = folder / name
        path.write_bytes(whole.read_bytes())
        with h5py.File(path, "a") as file:
            change(file)
        return path

    def poison(file):
        file["observations"][3, 0] = np.nan

    def shorten(file):
        rewards = file["rewards"][:-1]
        del file["rewards"]
        file["rewards"] = rewards

    return {
        "text": (text, "not a readable HDF5 file"),
        "truncated": (truncated, "truncated HDF5 file"),
        "key missing": (changed("key.hdf5", lambda file: file.__delitem__("actions")), "'actions' is missing"),
        "not a number": (changed("nan.hdf5", poison), "not finite in observations at its step 3"),
        "unequal lengths": (changed("short.hdf5", shorten), "unequal lengths"),
    }


@pytest.mark.parametrize("fault", ["text", "truncated", "key missing", "not a number", "unequal lengths"])
@pytest.mark.parametrize("command", ["inspect", "train", "convert"])
def test_broken_files_are_named(fault, command, hopper, tmp_path, home):
    """A broken file is named, and nothing is written."""
    path, message = broken_files(tmp_path, hopper)[fault]
    out = tmp_path / "out-v0"
    arguments = {
        "inspect": ("inspect", path),
        "train": ("train", "--dataset", path, "--out", out),
        "convert": ("convert", path, "--to", out),
    }[command]
    error = refusal(*arguments)
    assert message in error.problem
    assert str(path) in error.problem
    assert not out.exists()
    assert list(home.glob("tables/*/*")) == []
    assert list(tmp_path.glob(".*")) == []


def test_evaluation_names_a_missing_environment(numbered, write_d4rl, tmp_path):
    """An environment that is not installed is named at evaluation."""
    dataset = write_d4rl(numbered([5, 5], terminated=[True, True]), env_id="NotInstalled-v3")
    answer(*TRAIN, "--dataset", dataset, "--method", "bc", *SMALL, "--out", tmp_path / "run")
    error = refusal("eval", tmp_path / "run")
    assert "NotInstalled-v3" in error.problem
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_a_reward_is_not_asked_of_cloning(cartpole, tmp_path):
    answer(*TRAIN, "--dataset", cartpole, "--method", "bc", *SMALL, "--out", tmp_path / "run")
    assert "learns no reward" in refusal("reward", tmp_path / "run").problem


def test_user_errors_exit_2_without_traceback(tmp_path):
    """A user's error exits 2 with two lines and no traceback."""
    import subprocess
    import sys

    result = subprocess.run(
        [sys.executable, "-m", "iq_offline", "inspect", "nowhere.hdf5"], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 2
    assert result.stderr == "error: no file or folder at nowhere.hdf5\n  -> check the path\n"
    assert result.stdout == ""


def test_training_fetches_and_pins_its_data(cartpole, tmp_path):
    """Training on data that are not here fetches them, and says what it pinned."""
    with serving() as server:
        server.places["/cart.hdf5"] = Place(cartpole.read_bytes())
        result = call(
            *TRAIN, "--dataset", f"{server.url}/cart.hdf5", "--method", "bc", *SMALL, "--out", tmp_path / "run"
        )
    assert result.exit_code == 0, result.output
    assert "no hash is published for url/" in result.stderr
    assert (tmp_path / "run" / "manifest.json").is_file()


def test_catalogue_filters_and_details():
    """The catalogue is filtered by pattern and family; one dataset is shown in full."""
    assert len(answer("datasets", "hopper-*-v2")["datasets"]) == 6
    assert len(answer("datasets", "--family", "adroit")["datasets"]) == 12
    here = answer("datasets", "--on-disk")["datasets"]
    assert {row["id"].split("/")[0] for row in here} == {"demo"}
    assert all(row["on_disk"] for row in here)
    assert call("datasets", "demo/swimmer/expert-v0*").stdout.splitlines()[1].endswith("bundled")
    told = call("datasets", "hopper-medium-replay-v2").output
    for text in ("e121c5f7c9857a30", "d4rl-in-Hopper-v4", "CC BY 4.0", "never taken for terminations"):
        assert text in told


def test_methods_are_aggregated_apart(cartpole, tmp_path):
    """`eval` labels a run method/dataset/seed, averages no two methods, and ends with the next commands."""
    for method, prior in (("bc", ()), ("iq", SMALL_PRIOR)):
        arguments = ("--method", method, *SMALL, *prior, "--out", tmp_path / "runs" / method)
        trained = call(*TRAIN, "--dataset", cartpole, *arguments)
        assert trained.stdout == f"{tmp_path / 'runs' / method}\n"
        assert trained.stderr.splitlines()[-1] == f"next: iq-offline eval {tmp_path / 'runs' / method}"
    told = call("eval", tmp_path / "runs", "--episodes", 2)
    lines = told.stdout.splitlines()
    assert [line.split()[0] for line in lines if "/" in line] == ["bc/cartpole/0", "iq/cartpole/0"]
    assert [line.split()[:2] for line in lines[-2:]] == [["bc,", "2"], ["iq,", "2"]]
    assert f"next: iq-offline reward {tmp_path / 'runs' / 'iq'}" in told.stderr
    assert f"next: iq-offline report {tmp_path / 'runs'} --out report" in told.stderr
    evaluated = answer("eval", tmp_path / "runs", "--episodes", 2)
    assert [row["method"] for row in evaluated["methods"]] == ["bc", "iq"]
    assert set(evaluated["aggregate"].values()) == {None}
    assert f"name one of them: {tmp_path / 'runs' / 'bc'}" in refusal("reward", tmp_path / "runs").remedy


def test_people_read_no_braces(cartpole):
    """What `inspect`, `doctor` and `datasets` print for people holds no dictionaries or lists."""
    for command in (("inspect", cartpole), ("doctor",), ("datasets", "hopper-medium-replay-v2")):
        lines = [line for line in call(*command).stdout.splitlines() if "pip install" not in line]
        assert not set("{}[]") & set("".join(lines)), lines


def test_known_defects_are_told(cartpole, monkeypatch):
    """`datasets`, `fetch` and `doctor` tell the known defects of a dataset."""
    from iq_offline.data import catalogue as module
    from iq_offline.data.catalogue import CatalogueEntry, Defect, Kind
    from iq_offline.data.files import sha256_of_file

    defect = Defect(what="the last episode carries no flag", handling="kept as truncated")
    known = {"sha256": sha256_of_file(cartpole), "bytes": cartpole.stat().st_size, "defects": (defect,)}
    entry = CatalogueEntry(id="test/cart", family="test", kind=Kind.FILE, file="cart.hdf5", **known)
    for place in (module, "iq_offline.stages.doctor", "iq_offline.evaluation.scores"):
        target = place if isinstance(place, str) else module.__name__
        monkeypatch.setattr(f"{target}.catalogue", lambda: {entry.id: entry})
    told = "known defect: the last episode carries no flag (kept as truncated)"
    assert f"note: {told}" in call("fetch", "test/cart", "--from", cartpole).stderr
    assert "1 datasets, 1 with known defects" in call("datasets").stdout
    assert f"test/cart: {told}" in call("doctor").stdout
    assert answer("doctor")["defects"] == [{"dataset": "test/cart", "defect": told}]
