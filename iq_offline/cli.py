"""The command line's entry point, and how it ends. The commands are in `commands`.

`iq-offline --help` imports neither Typer nor a command: `app`, which does, is made when it is first asked for.
"""

import errno
import os
import sys
from typing import Any

from iq_offline import console
from iq_offline.commands.index import COMMANDS, overview
from iq_offline.errors import Interrupted, UserError

__all__ = ["COMMANDS", "main"]


def __getattr__(name: str) -> Any:
    """`app`, the Typer application."""
    if name != "app":
        raise AttributeError(f"module 'iq_offline.cli' has no attribute '{name}'")
    from iq_offline.commands.application import app

    return app


def main() -> None:
    """Run the command line. A user's error is told in two lines and exits 2; a bug keeps its traceback and exits 1."""
    console.prepare_streams()
    if sys.argv[1:] in ([], ["--help"], ["-h"]):
        print(overview())
        return
    from iq_offline.commands.application import app

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
