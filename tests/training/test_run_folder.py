"""Run folders are checked when they are read: whatever was damaged is named, and nothing damaged is used."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from tests_support import linear_arrays, requested, reseal, write_hdf5
from typer.testing import CliRunner

from iq_offline.cli import app
from iq_offline.errors import RunError, UserError
from iq_offline.report.loading import load_runs
from iq_offline.stages.eval import EvalRequest, evaluate_run
from iq_offline.stages.train import train_run
from iq_offline.stages.verify import verify_run
from iq_offline.training.run_folder import RunFolder, find_run, run_paths
from iq_offline.training.tensor_files import read_header, tensor_bytes

SMALL = ("prior.updates=30", "prior.hidden_sizes=[8]", "hidden_sizes=[8]", "batch_size=16")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of `iq` and the data that it learnt from."""
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IQ_OFFLINE_HOME", str(folder / "home"))
        return trained(folder, "run").path


def trained(folder: Path, name: str, **changes: Any) -> RunFolder:
    data = folder / "linear.hdf5"
    if not data.exists():
        write_hdf5(data, linear_arrays())
    request = {"demos": 3, "updates": 20, "overrides": SMALL} | changes
    asked = requested(str(data), "iq", device="cpu", out=folder / name, tracked=False, **request)
    return train_run(*asked, lambda _: None, lambda _: None)


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(sound, tmp_path / "run"))


def call(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def negated(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: -tensor for name, tensor in tensors.items()}


def zeroed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def with_nan(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim == 2)
    return tensors | {name: torch.full_like(tensors[name], torch.nan)}


@pytest.mark.parametrize(("version", "told"), [(None, "format 1"), (99, "format 99")])
def test_other_run_formats_are_refused(run: Path, version: int | None, told: str):
    """A run of version 0.1, which has no format number, or of a later version is refused by every command."""
    reseal(run, format_version=version)
    for command, *options in (("verify",), ("select",), ("export", "--to", run.parent / "p.pt")):
        result = call(command, run, *options)
        assert isinstance(result.exception, RunError)
        assert f"is a run of {told}, and this version of iq-offline reads format 2" in result.output + str(
            result.exception
        )
        assert "train the run again" in result.output + str(result.exception)
    result = call("report", run, "--out", run.parent / "report")
    assert told in result.output + str(result.exception)


@pytest.mark.parametrize("change", [negated, zeroed, with_nan])
@pytest.mark.parametrize("name", ["policy.safetensors", "checkpoint.safetensors"])
def test_changed_weights_are_refused(run: Path, name: str, change: Callable[..., Any]):
    """Whatever was done to the weights, a command that reads them names the file."""
    header = read_header(run / name)
    save_file(change(load_file(run / name)), run / name, metadata=header or None)
    commands = {"policy.safetensors": ("export", "--to", run.parent / "p.pt"), "checkpoint.safetensors": ("reward",)}
    command, *options = commands[name]
    error = call(command, run, *options).exception
    assert isinstance(error, RunError)
    assert f"{name} is damaged" in error.problem
    assert isinstance(call("verify", run).exception, RunError)


def test_weights_that_are_not_finite_are_refused(run: Path):
    """NaN weights are no policy, even where every checksum agrees with them."""
    file = run / "policy.safetensors"
    header = read_header(file)
    file.write_bytes(tensor_bytes(with_nan(load_file(file)), header))
    reseal(run)
    with pytest.raises(RunError, match="not finite numbers"):
        RunFolder.open(run).policy()


def test_a_changed_policy_header_is_refused(run: Path):
    file = run / "policy.safetensors"
    header = read_header(file) | {"std": "0.9"}
    file.write_bytes(tensor_bytes(load_file(file), header))
    with pytest.raises(RunError, match=r"policy\.safetensors is damaged"):
        RunFolder.open(run).policy()


@pytest.mark.parametrize(
    "change",
    [
        {"expert_episodes": [0, 1, 2]},
        {"expert_episodes": [0, 0, 1]},
        {"expert_episodes": [0]},
        {"expert_episodes": [0, 1, 99]},
        {"expert_episodes": [-1, 0, 1]},
        {"expert_episodes": "all"},
        {"dataset_sha256": "0" * 64},
        {"transitions": 7},
        {"rows_sha256": "0" * 64},
        {"held_out_episodes": [5]},
        {"supplementary": [{"dataset": "x", "sha256": "0" * 64, "episodes": 1, "transitions": 1}]},
    ],
)
def test_select_refuses_a_changed_split(run: Path, change: dict[str, Any]):
    """`select` would judge a run on what it has learnt from: a split is held against seed and dataset."""
    split = json.loads((run / "split.json").read_text())
    if change.get("expert_episodes") == split["expert_episodes"]:
        change = {"expert_episodes": [3, 4, 5]}
    (run / "split.json").write_text(json.dumps(split | change))
    error = call("select", run).exception
    assert isinstance(error, UserError)
    assert "split.json is damaged" in error.problem


def test_equal_trainings_give_equal_files(tmp_path: Path):
    """Two trainings of one seed write the same policy and checkpoint, byte for byte."""
    first, second = (trained(tmp_path, name).path for name in ("a", "b"))
    for name in ("policy.safetensors", "checkpoint.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_verify_tells_sound_from_damaged(run: Path, sound: Path):
    told = json.loads(call("verify", sound, "--json").stdout)
    assert (told["runs"][0]["sound"], told["runs"][0]["problems"]) == (True, [])
    (run / "metrics.parquet").write_bytes(b"PAR1" * 10)
    (run / "config.toml").write_text("seed = 1\n")
    result = call("verify", run, sound, "--json")
    damaged, whole = json.loads(result.stdout)["runs"]
    assert "1 of 2 runs are damaged" in str(result.exception)
    assert (damaged["sound"], whole["sound"]) == (False, True)
    named = " ".join(found["problem"] for found in damaged["problems"])
    assert "metrics.parquet" in named
    assert "config.toml" in named


def mutated(content: bytes, dice: random.Random) -> bytes:
    """One of: a flipped bit, a cut end, a zeroed or repeated block, nothing at all, other text."""
    place = dice.randrange(max(1, len(content)))
    block = content[place : place + dice.randrange(1, 64)]
    kinds: list[Callable[[], bytes]] = [
        lambda: content[:place] + bytes([content[place] ^ (1 << dice.randrange(8))]) + content[place + 1 :],
        lambda: content[:place],
        lambda: content[:place] + bytes(len(block)) + content[place + len(block) :],
        lambda: content[:place] + block + content[place:],
        lambda: b"",
        lambda: b"[" * 20_000,
        lambda: b'{"run": NaN, "seed": ' + b"9" * 5000 + b"}",
        lambda: b"\xff\xfe" + content,
    ]
    return dice.choice(kinds)()


def test_no_damaged_byte_goes_unnoticed(run: Path):
    """200 seeded damages to every kind of file: each is told by `verify`, and none raises anything but RunError."""
    dice = random.Random(0)
    files = sorted(file for file in run.iterdir() if file.is_file())
    for _ in range(200):
        file = dice.choice(files)
        content = file.read_bytes()
        damaged = mutated(content, dice)
        file.write_bytes(damaged)
        try:
            found = not verify_run(RunFolder.open(run), lambda _: None)["sound"]
        except RunError:
            found = True
        assert found or damaged == content, f"{file.name}: {damaged[:80]!r}"
        file.write_bytes(content)


READING = (
    ("export", "--to", "policy.pt", "--overwrite"),
    ("select",),
    ("reward", "--form", "canonical"),
    ("relabel", "--form", "canonical", "--dataset", "linear.hdf5", "--to", "relabelled.hdf5", "--format", "d4rl"),
    ("report", "--out", "report"),
    ("verify",),
)


def test_commands_refuse_damage_without_a_traceback(run: Path, sound: Path, monkeypatch: pytest.MonkeyPatch):
    """18 seeded damages, each read by one command: it ends well or with an error that has a remedy, nothing else."""
    monkeypatch.chdir(run.parent)
    shutil.copy(sound.parent / "linear.hdf5", "linear.hdf5")
    shutil.copytree(run, "whole")
    dice = random.Random(10)
    for number in range(18):
        file = dice.choice(sorted(run.iterdir()))
        file.write_bytes(mutated(file.read_bytes(), dice))
        command, *options = READING[number % len(READING)]
        result = call(command, run, *options)
        Path("relabelled.hdf5").unlink(missing_ok=True)
        assert result.exit_code == 0 or isinstance(result.exception, UserError), (command, file.name, result.exception)
        shutil.rmtree(run)
        shutil.copytree("whole", run)


@pytest.mark.parametrize("name", ["manifest.json", "config.toml", "split.json", "policy.safetensors"])
@pytest.mark.parametrize("kind", ["missing", "folder", "loop"])
def test_what_is_no_file_is_named(run: Path, name: str, kind: str):
    """A file that is missing, a folder or a link to itself is an error with its name, never a traceback."""
    (run / name).unlink()
    if kind == "folder":
        (run / name).mkdir()
    elif kind == "loop":
        (run / name).symlink_to(run / name)
    result = call("verify", run)
    assert isinstance(result.exception, RunError)
    assert name in result.output


def test_a_module_in_a_manifest_is_not_imported(run: Path):
    """A run folder cannot make `eval` run code: an environment's module is imported only when the user names it."""
    dataset = json.loads((run / "manifest.json").read_text())["dataset"]
    reseal(run, dataset=dataset | {"env_id": "antigravity:Env-v0"})
    with pytest.raises(RunError, match="names an environment in a module"):
        evaluate_run(RunFolder.open(run), EvalRequest(1), lambda *_: None, pytest.fail)


def test_overwrite_replaces_nothing_but_runs(tmp_path: Path):
    """`--overwrite` trains a run anew; a folder that holds anything else is refused and stays."""
    thesis = tmp_path / "folder" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(UserError, match="which is no run"):
        trained(tmp_path, "folder", overwrite=True)
    assert thesis.read_text() == "years of work"
    run = trained(tmp_path, "run").path
    (run / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        trained(tmp_path, "run", overwrite=True)
    (run / "notes.txt").unlink()
    again = trained(tmp_path, "run", overwrite=True, seed=1)
    assert again.manifest["seed"] == 1


def test_resume_deletes_nothing_but_runs(tmp_path: Path):
    """`--resume` into a folder that holds anything but a run is refused as `--overwrite` is, and the folder stays."""
    thesis = tmp_path / "folder" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(UserError, match="which is no run"):
        trained(tmp_path, "folder", resume=True)
    assert thesis.read_text() == "years of work"


def test_manifests_of_other_tools_are_kept(tmp_path: Path):
    """A `manifest.json` and a `config.toml` alone do not make a folder a run that may be replaced."""
    folder = tmp_path / "extension"
    folder.mkdir()
    for name in ("manifest.json", "config.toml"):
        (folder / name).write_text("{}")
    with pytest.raises(UserError, match="which is no run"):
        trained(tmp_path, "extension", overwrite=True)
    assert len(list(folder.iterdir())) == 2


def test_files_added_during_training_are_kept(tmp_path: Path):
    """What somebody puts into the old run's folder while its successor trains is not deleted with the old run."""
    run = trained(tmp_path, "run").path
    asked = requested(
        str(tmp_path / "linear.hdf5"),
        "iq",
        demos=3,
        updates=20,
        overrides=SMALL,
        device="cpu",
        out=run,
        tracked=False,
        overwrite=True,
    )
    with pytest.raises(UserError, match=r"notes\.txt"):
        train_run(*asked, lambda _: (run / "notes.txt").write_text("mine") and None, lambda _: None)
    assert (run / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["policy.safetensors", "checkpoint.safetensors", "config.toml", "split.json"])
def test_resume_checks_the_finished_run(run: Path, sound: Path, name: str):
    """`--resume` does not call a damaged run finished; its remedy, `--overwrite`, trains the same tensors again."""
    shutil.copy(sound.parent / "linear.hdf5", run.parent)
    before = (run / "policy.safetensors").read_bytes()
    damaged = (run / name).read_bytes()
    (run / name).write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    with pytest.raises(RunError, match=name) as error:
        trained(run.parent, "run", resume=True)
    assert "--overwrite" in error.value.remedy
    assert (trained(run.parent, "run", overwrite=True).path / "policy.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("observation_mean", torch.tensor(0.5)),
        ("observation_std", torch.ones(7)),
        ("observation_std", torch.zeros(3)),
        ("observation_std", torch.ones(3, dtype=torch.float64)),
        ("action_half_range", torch.tensor([-1.0])),
        ("action_centre", torch.zeros(2)),
        ("network.0.bias", torch.zeros(8, dtype=torch.float16)),
    ],
)
def test_scaling_that_fits_no_header_is_refused(run: Path, name: str, values: torch.Tensor):
    """Scaling of another shape, type or sign than the header's is refused where every checksum agrees with it."""
    file = run / "policy.safetensors"
    header = read_header(file)
    file.write_bytes(tensor_bytes(load_file(file) | {name: values}, header))
    reseal(run)
    with pytest.raises(RunError, match=r"policy\.safetensors is damaged"):
        RunFolder.open(run).policy()


@pytest.mark.parametrize(
    ("column", "values"), [("loss", pl.lit("x")), ("step", pl.lit(None)), ("step", pl.lit(float("inf")))]
)
def test_tables_of_other_types_are_refused(run: Path, column: str, values: pl.Expr):
    """A column of texts, of nothing or of infinities where every checksum agrees; the report leaves that table out."""
    file = run / "metrics.parquet"
    pl.read_parquet(file).with_columns(values.alias(column)).write_parquet(file)
    reseal(run)
    with pytest.raises(RunError, match=f"metrics.parquet cannot be read: column {column}"):
        RunFolder.open(run).table("metrics.parquet")
    result = call("report", run, "--out", run.parent / "report")
    assert result.exit_code == 0
    assert f"column {column}" in result.output


def test_a_dangling_stage_file_is_damaged(run: Path):
    """A link to nothing in place of `evaluation.json` is damage, not a run that was never evaluated."""
    (run / "evaluation.json").symlink_to("nowhere")
    for command in ("select", "verify"):
        result = call(command, run)
        assert isinstance(result.exception, RunError)
        assert "evaluation.json is damaged" in result.output + result.exception.problem


def test_a_configuration_that_is_no_table_is_refused(run: Path):
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.partition("[algorithm]")[0] + "algorithm = []\n")
    reseal(run)
    with pytest.raises(RunError, match=r"config\.toml does not fit"):
        _ = RunFolder.open(run).config


def test_export_replaces_nothing_unasked(run: Path, tmp_path: Path):
    file = tmp_path / "policy.pt"
    file.write_text("mine")
    assert "exists" in str(call("export", run, "--to", file).exception)
    assert file.read_text() == "mine"
    assert call("export", run, "--to", file, "--overwrite").exit_code == 0


def test_runs_are_found_at_any_depth(tmp_path: Path):
    """Runs below a folder are found in order, linked ones too; not hidden ones, nor MLflow's copies of their files."""
    for place in ("b/seed-0", "a/deep/seed-1", ".hidden", ".seed-2.host-1-a.part", "mlflow/artifacts/1/artifacts"):
        (tmp_path / "runs" / place).mkdir(parents=True)
        (tmp_path / "runs" / place / "manifest.json").write_text("{}")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "manifest.json").write_text("{}")
    (tmp_path / "runs" / "c").symlink_to(tmp_path / "else")
    found = run_paths([tmp_path / "runs"])
    assert found == [tmp_path / "runs/a/deep/seed-1", tmp_path / "runs/b/seed-0", tmp_path / "else"]
    with pytest.raises(RunError, match="holds 3 runs, and one is needed"):
        find_run(tmp_path / "runs")
    assert run_paths([tmp_path / "nowhere"]) == [tmp_path / "nowhere"]


def test_text_files_list_runs(run: Path, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A text file stands for the runs that it lists, one a line, seen from the working folder; empty lines pass."""
    monkeypatch.chdir(run.parent)
    listed = tmp_path / "some.txt"
    listed.write_text(f"{run.name}\n\n{sound}\n")
    assert run_paths([listed]) == [run.resolve(), sound.resolve()]
    results, failures = load_runs([listed])
    assert [result.folder for result in results] == [run.resolve(), sound.resolve()]
    assert not failures
    listed.write_text("nowhere\n")
    with pytest.raises(RunError, match="nowhere does not exist"):
        load_runs([listed])
    for content, told in ((b"\n", "lists no run"), (b"\xff", "cannot be read")):
        listed.write_bytes(content)
        with pytest.raises(RunError, match=told):
            run_paths([listed])
