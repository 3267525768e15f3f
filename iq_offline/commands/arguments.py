"""Arguments that several commands take, and bringing the datasets that they name."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from iq_offline import console

if TYPE_CHECKING:
    from iq_offline.training.run_folder import RunFolder

Json = Annotated[bool, Option("--json", help="Print one JSON object and nothing else.")]
Dataset = Annotated[
    str, Argument(metavar="DATASET", help="An id of `iq-offline datasets`, a Minari id, a URL, or a path.")
]
Form = Annotated[
    str,
    Option(
        metavar="FORM",
        help="linear: the reward linear in the observation that explains the normalised one best. normalised: 0 for "
        "uniform actions, 1 for demonstrated ones. canonical: Q(s, a) - V(s). implicit: Q(s, a) - discount * V(s'). "
        "distilled: the network that `distil` fitted.",
    ),
]
Run = Annotated[Path, Argument(metavar="RUN", help="A run folder, or a folder that holds exactly one, at any depth.")]
Runs = Annotated[
    list[Path],
    Argument(metavar="RUN", help="Run folders, folders that hold runs at any depth, or .txt files that list them."),
]


def bring(*datasets: str, known_defects: bool = False) -> None:
    """Fetch what is not on this machine yet, with a progress bar; tell what is known to be wrong with it."""
    from iq_offline.data.download import FetchOptions, fetch

    for dataset in datasets:
        with console.transfer(dataset) as advance:
            located = fetch(dataset, FetchOptions(tell=console.note, advance=advance))
        for text in located.entry.known_defects if located.entry and known_defects else ():
            console.note(f"{located.name}: {text}")


def open_run(path: Path) -> "RunFolder":
    """The run in that folder."""
    from iq_offline.training.run_folder import find_run

    return find_run(path.resolve())


def typed(path: Path) -> str:
    """A path as one would type it here: relative below the working folder, and quoted for a shell."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path))


def suggest(*commands: str) -> None:
    """Tell the commands that come next."""
    for command in commands:
        console.hint(f"iq-offline {command}")
