"""The command line: its commands in the order of `--help`, and how it ends. They are in `commands`."""

import errno
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from iq_offline import __version__, console
from iq_offline.commands import data, judging, rewards, serving, training
from iq_offline.errors import Interrupted, UserError

app = typer.Typer(
    name="iq-offline",
    help="Offline imitation on D4RL and Minari datasets: from demonstrations to a policy, its reward and a comparison.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "datasets": data.datasets,
    "fetch": data.fetch,
    "convert": data.convert,
    "inspect": data.inspect,
    "methods": training.methods,
    "train": training.train,
    "eval": judging.evaluate,
    "reward": rewards.reward,
    "report": judging.report,
    "select": judging.select,
    "verify": judging.verify,
    "export": serving.export,
    "sync": serving.sync,
    "ui": serving.ui,
    "clean": serving.clean,
    "doctor": serving.doctor,
    "gridworld": rewards.gridworld,
    "distil": rewards.distil,
    "relabel": rewards.relabel,
    "run": training.run,
    "reproduce": training.reproduce,
}


def main() -> None:
    """Run the command line. A user's error is told in two lines and exits 2; a bug keeps its traceback and exits 1."""
    console.prepare_streams()
    try:
        app()
    except Interrupted as error:
        print(f"stopped: {error}", file=sys.stderr)
        sys.exit(128 + error.signal)
    except UserError as error:
        console.fail(str(error))
        sys.exit(2)
    except (OSError, MemoryError, RuntimeError) as error:
        told = told_by_the_system(error)
        if told is None:
            raise
        console.fail(told)
        sys.exit(2)


DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
NO_SUCH_NAME = frozenset({errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})


def told_by_the_system(error: OSError | MemoryError | RuntimeError) -> str | None:
    """A refusal of the system in the words of an error, with its remedy; None for a bug."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"not enough memory ({error})\n  -> ask for less: smaller batches, networks or data"
    number, name = getattr(error, "errno", None), getattr(error, "filename", None)
    if number in DISK_FULL:
        return f"the disk is full ({error})\n  -> free some space, or name another place"
    if number in NO_PERMISSION:
        return f"no permission for {name} ({os.strerror(number)})\n  -> name a place that you may use"
    if number in NO_SUCH_NAME:
        return f"{name} cannot be used ({os.strerror(number)})\n  -> name another place"
    return None


def _version(asked: bool) -> None:
    if asked:
        console.show(f"iq-offline {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Offline imitation on D4RL and Minari datasets: from demonstrations to a policy, its reward and a comparison."""


for name, command in COMMANDS.items():
    app.command(name)(command)
