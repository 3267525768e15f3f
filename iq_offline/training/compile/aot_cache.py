"""Libraries of compiled updates, made ahead of time by a process of its own and kept for later runs.

That process traces and compiles, which takes hundreds of megabytes for a while; a run loads what it made. What is
kept depends on the learner's settings and shapes, on the code that is traced, on PyTorch and on the processor, and not
on any tensor's values: runs of other seeds and of other data of the same shapes share it.
"""

import hashlib
import io
import json
import os
import pickle
import platform
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock
from pydantic import BaseModel
from torch import Tensor

import iq_offline
from iq_offline import paths
from iq_offline.data.files import make_folder, sha256_of_file, whole_folder
from iq_offline.data.strict_json import read_json
from iq_offline.errors import CompilerFailed
from iq_offline.training.compile.tracing import Function, Traceable

REQUEST, LIBRARY, CONSTANTS, RECORD = "request", "updates.so", "constants.pt", "made.json"
PROCESSOR = Path("/proc/cpuinfo")
TRACED = ("algorithms", "config", "training", "batch.py")
"""The code that a trace depends on."""


def cached_function(plan: Traceable) -> Function:
    """The compiled updates: a kept library's, else compiled now.

    Raises CompilerFailed.
    """
    request, tensors = request_of(plan)
    made = paths.home() / "compiled" / key_of(request)
    make_folder(made.parent)
    with FileLock(made.with_suffix(".lock")):
        function = _loaded(made, tensors)
        if function is None:
            with whole_folder(made) as temporary:
                _compile(request, temporary)
                _record(temporary)
            made.chmod(0o700)
            function = _loaded(made, tensors)
    if function is None:
        raise CompilerFailed(f"{made / LIBRARY} cannot be loaded", "train without: --compile off")
    return function


def _loaded(made: Path, tensors: Sequence[Tensor]) -> Function | None:
    """The library's function, its constants filled in; None where it is not there, not safe or not loadable.

    A library is code that runs with the user's rights: see `_is_safe`.
    """
    if not _is_safe(made):
        return None
    try:
        constants = filled(torch.load(made / CONSTANTS, weights_only=True), tensors)
        run = torch._C._aoti.AOTIModelContainerRunnerCpu(str(made / LIBRARY), 1).run
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None
    return lambda given: run(given + constants)


def _record(folder: Path) -> None:
    """Note what was made, and by which code."""
    hashes = {name: sha256_of_file(folder / name) for name in (LIBRARY, CONSTANTS)}
    (folder / RECORD).write_text(json.dumps({"code": code_digest(), "files": hashes}))
    for file in folder.iterdir():
        file.chmod(0o600)


def _is_safe(made: Path) -> bool:
    """Whether only this user can have written the library, and it is the one that was recorded."""
    try:
        places = (made.parent, made, *(made / name for name in (LIBRARY, CONSTANTS, RECORD)))
        for number, found in enumerate(place.lstat() for place in places):
            writable = stat.S_IWGRP | stat.S_IWOTH if number else stat.S_IWOTH
            if found.st_uid != os.getuid() or stat.S_ISLNK(found.st_mode) or found.st_mode & writable:
                return False
        recorded = read_json(made / RECORD)["files"]
        return all(sha256_of_file(made / name) == recorded[name] for name in (LIBRARY, CONSTANTS))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def made_by(folder: Path) -> str | None:
    """The digest of the code that a kept library was made by; None where it does not say."""
    try:
        return str(read_json(folder / RECORD)["code"])
    except (OSError, ValueError, KeyError):
        return None


class Writer(pickle.Pickler):
    """Pickles with the layout of each tensor in its place; collects the tensors themselves."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, protocol=5)
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, obj: object) -> tuple[Any, ...] | None:
        if not isinstance(obj, Tensor):
            return None
        if id(obj) not in self._numbers:
            self._numbers[id(obj)] = len(self.tensors)
            self.tensors.append(obj)
        layout = tuple(obj.shape), obj.stride(), str(obj.dtype).removeprefix("torch.")
        return self._numbers[id(obj)], *layout, isinstance(obj, torch.nn.Parameter), obj.requires_grad

    def reducer_override(self, obj: object) -> Any:
        # pydantic's own way holds a set of names, whose order is another in each process
        return (type(obj).model_validate, (obj.model_dump(),)) if isinstance(obj, BaseModel) else NotImplemented


class Reader(pickle.Unpickler):
    """Reads that, with ones for each tensor's values."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.tensors: dict[int, Tensor] = {}

    def persistent_load(self, pid: tuple[Any, ...]) -> Tensor:
        number, shape, stride, dtype, parameter, requires_grad = pid
        if number not in self.tensors:
            ones = torch.empty_strided(shape, stride, dtype=getattr(torch, dtype)).fill_(1)
            self.tensors[number] = torch.nn.Parameter(ones, requires_grad) if parameter else ones
            self.tensors[number].requires_grad_(requires_grad)
        return self.tensors[number]

    def places(self, constants: Sequence[Tensor]) -> list[int | Tensor]:
        """Which of the tensors that were written each of these stands for; itself where it was made since."""
        numbers = {id(tensor): number for number, tensor in self.tensors.items()}
        return [numbers.get(id(tensor), tensor) for tensor in constants]


def filled(places: Sequence[int | Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The constants, from the tensors that were written."""
    return [tensors[place].detach() if isinstance(place, int) else place for place in places]


def request_of(plan: Traceable) -> tuple[bytes, list[Tensor]]:
    """What the compiler is told, and the tensors that it is not told the values of."""
    file = io.BytesIO()
    writer = Writer(file)
    writer.dump(plan)
    return file.getvalue(), writer.tensors


def key_of(request: bytes) -> str:
    """Names what would be compiled: of the request, the traced code, PyTorch, the compiler and the processor."""
    return hashlib.sha256(request + code_digest().encode()).hexdigest()[:32]


def code_digest() -> str:
    """SHA-256 of the traced code, PyTorch's version, the compiler's name and the processor's."""
    found = hashlib.sha256()
    package = Path(iq_offline.__file__).parent
    for part in TRACED:
        sources = (package / part).rglob("*.py") if (package / part).is_dir() else [package / part]
        for source in sorted(sources):
            found.update(source.read_bytes())
    lines = PROCESSOR.read_text().splitlines() if PROCESSOR.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    for text in (torch.__version__, os.environ.get("CXX", ""), platform.machine(), flags):
        found.update(text.encode())
    return found.hexdigest()


def _compile(request: bytes, folder: Path) -> None:
    """Let a process of its own put the library, and what it holds, into that folder."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / REQUEST).write_bytes(request)
        places = [str(Path(iq_offline.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        own = {"TORCHINDUCTOR_CACHE_DIR": scratch, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        # of a session of its own: an interrupt from the keyboard is the run's, which stops when it can
        done = subprocess.run(
            [sys.executable, "-m", "iq_offline.training.compile.compiler", str(Path(scratch) / REQUEST), str(folder)],
            env=os.environ | own,
            start_new_session=True,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise CompilerFailed(
            f"updates could not be compiled: {said[-1] if said else f'status {done.returncode}'}",
            "train without: --compile off",
        )
