"""Arguments that several commands take, and bringing the datasets that they name."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from iq_offline import console

Json = Annotated[bool, Option("--json", help="Print one JSON object and nothing else.")]
Dataset = Annotated[str, Argument(help="A catalogue id, a Minari id, a URL, or the path of a file or a Minari folder.")]
Form = Annotated[
    str,
    Option(
        "--form",
        help="linear (in the observation: what explains the normalised one), normalised (0 for uniform actions, 1 for "
        "demonstrated ones), canonical (Q - V), implicit (Q - discount V of the next observation), or distilled (what "
        "`distil` fitted).",
    ),
]
Run = Annotated[Path, Argument(help="A run folder.")]
Runs = Annotated[list[Path], Argument(help="Run folders, or folders that hold some.")]


def bring(*datasets: str) -> None:
    """Fetch what is not on this machine yet, with a bar, and say what is to be said of it."""
    from iq_offline.data.download import FetchOptions, fetch

    for dataset in datasets:
        with console.transfer(dataset) as advance:
            fetch(dataset, FetchOptions(tell=console.note, advance=advance))
