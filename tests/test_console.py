"""What is printed can be printed anywhere, and says what it says."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from iq_offline import cli, console


def ran(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    setup = "from iq_offline import console; console.prepare_streams(); "
    program = [sys.executable, "-c", setup + command]
    return subprocess.run(program, capture_output=True, text=True, check=False, env=environment, errors="replace")


def test_ascii_terminal_shows_escapes():
    """A terminal that knows ASCII alone gets escapes in place of an error."""
    result = ran("console.show('\\u00b1 \\u00fc')", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stdout) == (0, "\\xb1 \\xfc\n")


def test_name_that_is_not_utf8_is_shown():
    result = ran("import os; console.warn(os.fsdecode(b'a\\xff'))", PYTHONUTF8="1")
    assert (result.returncode, result.stderr) == (0, "warning: a\\udcff\n")


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_closed_streams_are_no_error(closed: str):
    """A closed stream swallows its own text, which never appears on the other."""
    command = f"{sys.executable} -m iq_offline methods nothing {closed}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stdout == ""


def test_control_characters_are_escaped(capsys: pytest.CaptureFixture[str]):
    """A name in a file cannot colour the terminal, move the cursor or ring its bell."""
    console.show("a\x1b[31mred\x07\tb\nc")
    assert capsys.readouterr().out == "a\\x1b[31mred\\x07\tb\nc\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "/here"), "no permission for /here"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "cannot be used (File name too long)"),
        (OSError(errno.ENOTDIR, "Not a directory", "/a/b"), "/a/b cannot be used"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
    ],
)
def test_system_refusals_have_a_remedy(error: OSError, told: str):
    found = cli.told_by_the_system(error)
    assert found is not None
    assert told in found
    assert "\n  -> " in found


def test_bugs_keep_their_traceback():
    assert cli.told_by_the_system(RuntimeError("a bug")) is None
    assert cli.told_by_the_system(OSError(errno.EBADF, "Bad file descriptor")) is None


@pytest.mark.slow
def test_full_disk_leaves_nothing_half_written(tmp_path: Path):
    """A training whose files do not fit ends with exit status 2 and leaves no run folder."""
    home = tmp_path / "home"
    limited = (
        "import resource, sys; from iq_offline.cli import main;"
        "sys.argv = ['iq-offline', 'train', '--dataset', 'demo/cartpole/expert-v0', '--method', 'bc', '--updates', '5',"
        f" '--out', {str(tmp_path / 'run')!r}];"
        "import iq_offline.stages.train as stage;"
        "write = stage._write;"
        "stage._write = lambda *a: (resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)), write(*a));"
        "main()"
    )
    environment = {"IQ_OFFLINE_HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db", "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", limited], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 2, result.stderr
    assert "the disk is full" in result.stderr
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob(".run*.part"))
