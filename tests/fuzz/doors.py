"""The doors: what the tool reads from outside, which commands read it, and what may come of a damaged one."""

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

from fuzz import answers, mutations
from fuzz.damage import damage
from fuzz.processes import run_command
from fuzz.sound import CUT, DATASET, SMALL

Words = tuple[str, ...]
TRAIN: Words = ("train", "--method", "bc", *SMALL, "--updates", "2")
MLFLOW = "home/mlflow/mlflow.db"


@dataclass(frozen=True)
class Door:
    """A kind of input. `files`: what is damaged; `commands`: what reads it; paths are below the input's folder.

    `tensors`: of these files the commands named must refuse damaged tensors. `same`: the result of an accepted input
    must be that of the sound one. `share`: of all inputs. `store`: whether MLflow's store is part of it.
    """

    name: str
    files: tuple[str, ...]
    commands: tuple[Words, ...]
    share: float = 1.0
    tensors: tuple[tuple[str, Words], ...] = ()
    same: tuple[str, ...] = ()
    store: bool = False


def _reading(dataset: str) -> tuple[Words, ...]:
    return (
        ("inspect", dataset, "--json"),
        ("inspect", dataset, "--episodes"),
        ("convert", dataset, "--to", "out/pole-v0", "--json"),
        ("convert", dataset, "--to", "out.hdf5", "--format", "d4rl", "--keep-going"),
        (*TRAIN, "--dataset", dataset, "--out", "trained"),
    )


WEIGHTS: Words = ("eval", "export", "select", "sync", "reward", "relabel", "distil")
CANONICAL: Words = ("--form", "canonical")
RUN_COMMANDS: tuple[Words, ...] = (
    ("eval", "run", "--episodes", "1", "--json"),
    ("reward", "run", "--json"),
    ("relabel", "run", "--dataset", DATASET, "--to", "relabelled.hdf5", "--format", "d4rl", *CANONICAL),
    ("distil", "run", "--updates", "2", "--json", *CANONICAL),
    ("select", "cloned", "--json"),
    ("export", "run", "--to", "policy.pt", "--json"),
    ("report", "run", "cloned", "--out", "rep"),
    ("reproduce", "cloned", "--json"),
    ("verify", "run", "cloned"),
    ("sync", "run", "cloned", "--json"),
)
_RESUME: Words = (*TRAIN, "--dataset", DATASET, *CUT, "--resume", "--out", "cut")
DOCUMENTS = ("manifest.json", "config.toml", "split.json", "evaluation.json", "reward.json", "reward_model.json")
TABLES = ("metrics.parquet", "timing.parquet", "actions.parquet", "returns.parquet", "rewards.parquet")
TENSORS = ("policy.safetensors", "checkpoint.safetensors")

DOORS: tuple[Door, ...] = (
    Door("run documents", DOCUMENTS, RUN_COMMANDS, 3, same=("split.json",)),
    Door("run tensors", (*TENSORS, "reward_model.safetensors"), RUN_COMMANDS, 2, tuple((f, WEIGHTS) for f in TENSORS)),
    Door("run tables", TABLES, (("report", "run", "cloned", "--out", "rep"), ("sync", "run", "--json")), 1),
    Door("tracking record", ("tracking.json",), (("sync", "run", "--json"), ("eval", "run", "--episodes", "1")), 0.5),
    Door("snapshots", (".cut.resume/*.safetensors",), (_RESUME,), 0.7),
    Door(
        "table cache",
        ("home/tables/*/*", "home/hashes/*.json"),
        (("inspect", DATASET, "--json"), (*TRAIN, "--dataset", DATASET, "--out", "trained")),
    ),
    Door(
        "fetch records",
        ("home/pins.json", "home/datasets/*/*/*/fetched.json", "home/datasets/*/*/*fetched.json"),
        (
            ("datasets", "--json"),
            ("datasets", "--on-disk"),
            ("fetch", "demo/cartpole/expert-v0", "--json"),
            ("inspect", "demo/cartpole/expert-v0", "--json"),
            ("doctor", "--json"),
        ),
        0.7,
    ),
    Door("results table", ("table.yaml",), (("run", "table.yaml", "--dry-run", "--out", "work"),), 1),
    Door(
        "preset",
        ("small.toml",),
        (
            ("methods", "bc", "--actions", "discrete", "--preset", "small.toml", "--json"),
            ("methods", "iq", "--actions", "discrete", "--preset", "small.toml"),
            (*TRAIN, "--dataset", DATASET, "--out", "trained"),
        ),
        1.5,
    ),
    Door("D4RL file", (DATASET,), _reading(DATASET), 1.5),
    Door("d3rlpy file", ("d3rlpy.h5",), _reading("d3rlpy.h5"), 1.2),
    Door("Minari folder", ("minari/pole-v0/data/*",), _reading("minari/pole-v0"), 1.5),
    Door("Arrow folder", ("arrow/pole-v0/data/*.json", "arrow/pole-v0/data/*/*"), _reading("arrow/pole-v0"), 1.2),
    Door("flat npz", ("flat.npz", "own.npz"), (*_reading("flat.npz")[:4], *_reading("own.npz")[:4]), 1.5),
    Door("pickle", ("list.pkl",), _reading("list.pkl"), 1.5),
    Door("HTTP answer", (), (("fetch", "{url}/data.hdf5", "--json"), ("fetch", "made/pole/expert-v0", "--json")), 1.5),
    Door(
        "MLflow store",
        (MLFLOW,),
        (
            ("sync", "run", "--json"),
            ("doctor", "--json"),
            ("eval", "run", "--episodes", "1", "--json"),
            (*TRAIN, "--dataset", DATASET, "--out", "trained"),
        ),
        0.7,
        store=True,
    ),
)
QUICK = {"inspect", "convert", "methods", "datasets", "fetch", "doctor", "eval", "select", "export", "relabel"}
"""Commands that take a fraction of a second."""
BY_NAME = {door.name: door for door in DOORS}


@dataclass(frozen=True)
class Input:
    """One damaged input: which door, the command that reads it, and the seed that all its choices come from."""

    door: str
    number: int
    seed: int
    command: int

    def random(self) -> Random:
        """The generator of its damage."""
        return Random(f"{self.seed} {self.door} {self.number}")

    @property
    def words(self) -> Words:
        """Its command, as it is typed."""
        return BY_NAME[self.door].commands[self.command]


def plan(seed: int, count: int, *, quick: bool = False) -> list[Input]:
    """So many inputs over all doors by their shares, every command of a door in turn; `quick`: of QUICK alone."""
    from iq_offline.cli import COMMANDS

    def taken(door: Door) -> list[int]:
        allowed = QUICK & COMMANDS.keys() if quick else COMMANDS.keys()
        return [number for number, words in enumerate(door.commands) if words[0] in allowed]

    used = [door for door in DOORS if taken(door)]
    total = sum(door.share for door in used)
    inputs = []
    for door in used:
        known = taken(door)
        amount = max(1, round(count * door.share / total))
        inputs += [Input(door.name, number, seed, known[number % len(known)]) for number in range(amount)]
    Random(seed).shuffle(inputs)
    return inputs


def prepare(template: Path, folder: Path, chosen: Input, *, damaged: bool = True) -> str:
    """Copy the sound input into `folder`, which is made, and damage it; says how."""
    door = BY_NAME[chosen.door]
    ignored = () if door.store or chosen.words[0] in {"sync", "train"} else ("mlflow",)
    shutil.copytree(template, folder, symlinks=True, ignore=shutil.ignore_patterns(*ignored, "stdout", "stderr"))
    if ignored and door.name != "tracking record":
        for record in folder.glob("*/tracking.json"):
            record.unlink()
    if not damaged or not door.files:
        return "sound"
    random = chosen.random()
    files = sorted(path for name in door.files for path in folder.glob(_below(chosen, name)) if path.is_file())
    return damage(random.choice(files), random)


def _below(chosen: Input, name: str) -> str:
    """The damaged file's place: of a run folder, in a run that the command reads."""
    if not chosen.door.startswith(("run ", "tracking")):
        return name
    return f"cloned/{name}" if "run" not in chosen.words else f"run/{name}"


def run(chosen: Input, folder: Path, *, damaged: bool = True) -> int:
    """Run the input's command in `folder`, where the process is; returns its exit status."""
    for name in ("MLFLOW_TRACKING_URI", "HF_TOKEN", "D4RL_DATASET_DIR"):
        os.environ.pop(name, None)
    os.environ["IQ_OFFLINE_HOME"] = str(folder / "home")
    os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari-store")
    with _served(chosen, folder, damaged=damaged) if chosen.door == "HTTP answer" else nullcontext("") as url:
        return run_command([word.replace("{url}", url) for word in chosen.words])


REMOTE_ID = "made/pole/expert-v0"


@contextmanager
def _served(chosen: Input, folder: Path, *, damaged: bool) -> Iterator[str]:
    """A server of a file, or of a bucket with a Minari dataset; one kind of its answers has a fault."""
    from iq_offline.data.remotes import http

    http.PATIENCE = http.Patience(connect_seconds=1, read_seconds=0.4, tries=2, backoff_seconds=0.01)
    random, contents = chosen.random(), _contents(folder)
    fault = random.choice(mutations.HTTP) if damaged else SOUND
    faulty = random.choice(sorted(contents)) if REMOTE_ID in chosen.words else FILE
    if faulty == LISTING and damaged and random.random() < 0.7:
        fault, contents[LISTING] = SOUND, random.choice(mutations.JSON)(contents[LISTING], random)
    (folder / "answer.txt").write_text(f"{faulty}: {fault}")

    def respond(target: str, url: str) -> bytes:
        path = unquote(target.partition("?")[0])
        body = contents.get(path)
        if body is None:
            return answers.answer("status 404", b"{}", url, random)
        return answers.answer(fault if path == faulty else SOUND, body, url, random)

    with answers.serving(respond, answers.SLOW_SECONDS if fault == "slow" else 0.0) as url:
        os.environ["STORAGE_EMULATOR_HOST"] = url
        os.environ["MINARI_REMOTE"] = "gcp://bucket"
        yield url


SOUND, FILE, LISTING = "sound", "/data.hdf5", "/storage/v1/b/bucket/o"


def _contents(folder: Path) -> dict[str, bytes]:
    """What the server has: a file, and a bucket's list of a dataset's files with these."""
    data = folder / "minari" / "pole-v0" / "data"
    files = {f"{REMOTE_ID}/data/{path.name}": path.read_bytes() for path in sorted(data.iterdir())}
    files = {name: content.replace(b'"pole-v0"', f'"{REMOTE_ID}"'.encode()) for name, content in files.items()}
    items = [
        {
            "name": name,
            "size": str(len(content)),
            "generation": "17",
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
        }
        for name, content in files.items()
    ]
    listing = {LISTING: json.dumps({"items": items}).encode(), FILE: (folder / DATASET).read_bytes()}
    return listing | {f"{LISTING}/{name}": content for name, content in files.items()}


def tensors_differ(template: Path, folder: Path, name: str) -> bool:
    """Whether the tensors of a file are not those of the sound one, bit for bit."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        sound, found = load_file(template / name), load_file(folder / name)
    except (OSError, SafetensorError, ValueError, KeyError):
        return True
    if sound.keys() != found.keys():
        return True
    return any((sound[key].dtype, sound[key].shape) != (found[key].dtype, found[key].shape) for key in sound) or any(
        sound[key].tobytes() != found[key].tobytes() for key in sound
    )


NOT_NUMBERS = re.compile(r"(?<![\w.-])-?(nan|inf|Infinity)(?![\w.-])", re.IGNORECASE)
REFUSAL = re.compile(r"^error: .+?^\s+-> \S", re.MULTILINE | re.DOTALL)
PYTHON_WARNING = re.compile(r"^\S+\.py:\d+: \w*Warning: .*", re.MULTILINE)


TOLD_BY_STATUS = {(1, "verify"), (3, "reproduce"), (1, "run")}
"""Statuses that say what a command has found, not that it has failed."""


def judge(command: str, status: int, hung: bool, stdout: str, stderr: str) -> str | None:
    """What is wrong with how a command ended, whatever it read; None for a result or a refusal that helps."""
    if hung:
        return "hang"
    if status < 0:
        return f"signal {-status}"
    if "Traceback (most recent call last)" in stderr or "Traceback (most recent call last)" in stdout:
        return "traceback"
    if status == 2:
        return None if REFUSAL.search(stderr) else "a refusal without a remedy"
    if status == 0:
        return _judge_result(stdout, stderr)
    if (status, command) in TOLD_BY_STATUS:
        return None
    return f"exit {status}"


def _judge_result(stdout: str, stderr: str) -> str | None:
    results = [line for line in stdout.splitlines() if not line.startswith("note: ")]  # notes quote what a file holds
    if NOT_NUMBERS.search("\n".join(results)):
        return "nan or inf in the result"
    if warning := PYTHON_WARNING.search(stderr):
        return f"Python's warning: {warning.group()[-100:]}"
    if stdout.startswith("{"):
        try:
            json.loads(stdout)
        except ValueError:
            return "the result is not JSON"
    return None


BY_SPLIT = ("select", "reward", "relabel", "distil", "reproduce")
"""Commands whose result depends on the split."""


def judge_damage(
    chosen: Input, template: Path, folder: Path, said: str, result_differs: Callable[[], bool]
) -> str | None:
    """What is wrong with an accepted input: damaged tensors, or another result than the sound one's."""
    door = BY_NAME[chosen.door]
    file = said.partition(":")[0]
    run_name = "run" if "run" in chosen.words else "cloned"
    for name, commands in door.tensors:
        reads = name == file and chosen.words[0] in commands and _reads(chosen.words[0], name)
        if reads and tensors_differ(template, folder, f"{run_name}/{name}"):
            return "exit 0 with damaged tensors"
    if file in door.same and chosen.words[0] in BY_SPLIT and result_differs():
        return "exit 0 with another result"
    return None


def _reads(command: str, name: str) -> bool:
    """Whether the command's result depends on the file."""
    by_checkpoint = {"reward", "relabel", "distil"}
    return name.startswith("checkpoint") == (command in by_checkpoint)


def result_of(folder: Path) -> Any:
    """What a command printed, without the folder's name and times."""
    return (folder / "stdout").read_text(errors="replace").replace(str(folder), "")
