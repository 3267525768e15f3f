"""A campaign: many damaged inputs side by side, their findings kept with what repeats each of them."""

import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import doors, sound
from fuzz.doors import Input
from fuzz.processes import HARNESS_FAILED, Fork, fork

SECONDS = 30.0
"""A command that takes longer hangs."""
FRAME = re.compile(r'File "[^"]*?(iq_offline/[^"]+)", line (\d+),? in (\S+)')


@dataclass(frozen=True)
class Finding:
    """An input that a command neither reads nor refuses as it should."""

    chosen: Input
    damage: str
    kind: str
    place: str
    """The last line of the project in the traceback, and the error."""


@dataclass
class Tally:
    """What came of the inputs of each door."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, chosen: Input, status: int | None, finding: Finding | None) -> None:
        """Count one input."""
        counter = self.counts.setdefault(chosen.door, Counter())
        counter["inputs"] += 1
        counter["findings" if finding else f"exit {status}"] += 1
        if finding:
            self.findings.append(finding)

    def table(self) -> str:
        """Doors by what came of their inputs."""
        lines = [f"{'door':<18}{'inputs':>8}{'exit 0':>8}{'exit 2':>8}{'other':>8}{'findings':>10}"]
        for name, counter in [*sorted(self.counts.items()), ("all", sum(self.counts.values(), Counter()))]:
            other = counter["inputs"] - counter["exit 0"] - counter["exit 2"] - counter["findings"]
            numbers = (counter["inputs"], counter["exit 0"], counter["exit 2"], other, counter["findings"])
            lines.append(f"{name:<18}" + "".join(f"{n:>{w}}" for n, w in zip(numbers, (8, 8, 8, 8, 10), strict=True)))
        return "\n".join(lines)


def make_template(folder: Path, *, quick: bool = False, seconds: float = 300) -> None:
    """The sound inputs, made in a fork, so that this process starts no threads. Raises RuntimeError."""

    def work() -> int:
        os.environ["IQ_OFFLINE_HOME"] = str(folder / "home")
        os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari-store")
        sound.make(folder, quick=quick)
        return 0

    folder.mkdir(parents=True)
    _wait(fork(folder, work, seconds), "the sound inputs")


def _wait(running: Fork, what: str) -> None:
    while not running.poll():
        time.sleep(0.01)
    if running.status:
        told = (running.folder / "stderr").read_text(errors="replace")
        raise RuntimeError(f"{what} ended with {running.status}: {told[-3000:]}")


@dataclass
class Campaign:
    """Where it works, and where its findings are kept."""

    template: Path
    scratch: Path
    kept: Path
    seconds: float = SECONDS
    results: dict[tuple[str, int], str] = field(default_factory=dict)

    def check_sound(self, inputs: Sequence[Input], cores: int) -> None:
        """Every command takes its sound input, and what it prints is remembered. Raises RuntimeError."""
        first = {(chosen.door, chosen.command): chosen for chosen in reversed(inputs)}
        faults: list[str] = []

        def take(chosen: Input, running: Fork) -> None:
            status = running.status
            if status:
                told = (running.folder / "stderr").read_text(errors="replace")
                faults.append(f"{chosen.door}: {' '.join(chosen.words)} ended with {status}: {told[-1500:]}")
            self.results[chosen.door, chosen.command] = doors.result_of(running.folder)

        self._each(list(first.values()), cores, take, damaged=False)
        if faults:
            raise RuntimeError("a sound input is refused:\n" + "\n".join(faults))

    def run(self, inputs: Sequence[Input], cores: int, tell: Callable[[int, Tally], None]) -> Tally:
        """Every input once; `tell` is called after each with the number done and the tally."""
        tally = Tally()

        def take(chosen: Input, running: Fork) -> None:
            finding = self._judge(chosen, running)
            tally.add(chosen, running.status, finding)
            if finding:
                self._keep(finding, running.folder)
            tell(sum(counter["inputs"] for counter in tally.counts.values()), tally)

        self._each(inputs, cores, take, damaged=True)
        return tally

    def _each(self, inputs: Sequence[Input], cores: int, take: Callable[[Input, Fork], None], *, damaged: bool) -> None:
        waiting, running = list(reversed(inputs)), list[tuple[Input, Fork]]()
        while waiting or running:
            while waiting and len(running) < cores:
                chosen = waiting.pop()
                running.append((chosen, self._start(chosen, damaged=damaged)))
            time.sleep(0.002)
            for pair in [pair for pair in running if pair[1].poll()]:
                running.remove(pair)
                take(*pair)
                shutil.rmtree(pair[1].folder.parent, ignore_errors=True)

    def _start(self, chosen: Input, *, damaged: bool) -> Fork:
        """The input's folder is two levels down, so that what a command writes beside it is removed with it."""
        outer = self.scratch / f"{chosen.door.replace(' ', '-')}-{chosen.number}"
        inner, control = outer / "input", outer / "control"
        control.mkdir(parents=True)

        def work() -> int:
            said = doors.prepare(self.template, inner, chosen, damaged=damaged)
            (control / "damage").write_text(said, errors="backslashreplace")
            os.chdir(inner)
            return doors.run(chosen, inner, damaged=damaged)

        return fork(control, work, self.seconds)

    def _judge(self, chosen: Input, running: Fork) -> Finding | None:
        control = running.folder
        stdout, stderr = ((control / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        said = (control / "damage").read_text() if (control / "damage").exists() else ""
        assert running.status is not None
        if running.status == HARNESS_FAILED:
            return Finding(chosen, said, "the fuzzer failed", stderr.strip().splitlines()[-1])
        kind = doors.judge(chosen.words[0], running.status, running.hung, stdout, stderr)
        if kind is None and running.status == 0:
            sound_result = self.results.get((chosen.door, chosen.command), "")

            def differs() -> bool:
                return doors.result_of(control) != sound_result

            kind = doors.judge_damage(chosen, self.template, control.parent / "input", said, differs)
        answer = control.parent / "input" / "answer.txt"
        if answer.exists():
            said = f"answer: {answer.read_text()}"
        return Finding(chosen, said, kind, _place(stderr, kind)) if kind else None

    def _keep(self, finding: Finding, control: Path) -> None:
        chosen = finding.chosen
        folder = self.kept / f"{chosen.door.replace(' ', '-')}-{chosen.number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        source = control.parent / "input"
        if source.is_dir():
            shutil.copytree(source, folder / "input", symlinks=True, ignore=_special)
        for name in ("stdout", "stderr"):
            shutil.copy(control / name, folder / name)
        (folder / "README").write_text(f"{finding.kind}\n{finding.damage}\n{finding.place}\n\n{repeat(chosen)}\n")


def repeat(chosen: Input) -> str:
    """The commands that repeat an input: by its seed, and in the folder that is kept."""
    again = f'make fuzz SEED={chosen.seed} ONLY="{chosen.door}:{chosen.number}:{chosen.command}"'
    return f'{again}\ncd input && IQ_OFFLINE_HOME="$PWD/home" iq-offline {" ".join(chosen.words)}'


def _special(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if (Path(folder) / name).is_fifo()}


def _place(stderr: str, kind: str) -> str:
    if kind.startswith(("exit 0", "nan")):
        return ""
    frames = FRAME.findall(stderr)
    last = stderr.strip().splitlines()[-1][:160] if kind == "traceback" and stderr.strip() else ""
    frame = (frames[0] if kind == "hang" else frames[-1]) if frames else None
    return f"{frame[0]}:{frame[1]} {frame[2]} | {last}" if frame else last
