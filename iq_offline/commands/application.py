"""The Typer application: the commands of the index, in their groups, with their examples."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from iq_offline import __version__, console
from iq_offline.commands.index import ABOUT, COMMANDS, overview


class _Overview(TyperGroup):
    """The group whose help is the index's."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        print(overview())


app = typer.Typer(
    name="iq-offline",
    cls=_Overview,
    help=ABOUT,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)


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
    """Offline imitation learning."""


for name, entry in COMMANDS.items():
    module, _, function = entry.code.partition(":")
    command = getattr(import_module(f"iq_offline.commands.{module}"), function)
    examples = "\n\n".join(["[bold]Examples[/bold]", *(f"iq-offline {one}" for one in entry.examples)])
    app.command(name, epilog=examples, rich_help_panel=entry.group)(command)
