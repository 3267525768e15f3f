"""A hook of MkDocs: the reference pages that are generated, of the command line and of the configuration.

Commands and options come from Typer, settings from pydantic: a page cannot say what the program does not.
"""

import ast
import inspect
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import iq_offline
from iq_offline.cli import app
from iq_offline.config.base import AlgorithmConfig
from iq_offline.config.settings import describe_settings
from iq_offline.config.train import TrainConfig, algorithm_config, config_classes
from iq_offline.methods import METHODS, Method

PACKAGE = Path(iq_offline.__file__).parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"cli": command_line(), "configuration": configuration(), "sources": sources()}
    for name, lines in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines) + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links to generated pages on the published site relative, so that the build checks their anchors.

    In the pages they are absolute: whoever reads them in the repository has no generated pages.
    """
    del files
    folder = posixpath.dirname(page.file.src_uri)
    link = re.compile(re.escape(f"]({config.site_url}reference/") + r"(cli|configuration|sources)/")
    return link.sub(lambda found: f"]({posixpath.relpath(f'reference/{found[1]}.md', folder or '.')}", markdown)


def command_line() -> Iterator[str]:
    """Every command with its usage, arguments and options."""
    program: Any = typer.main.get_command(app)
    context = program.context_class(program, info_name="iq-offline")
    yield from ("# Command line", "")
    yield "Generated from the program: `iq-offline COMMAND --help` prints the same. With `--json`, a command prints"
    yield "one JSON object and nothing else."
    yield from ("", *table("exit status", "meaning", *EXIT_STATUS))
    yield from ("", *table("command", "does"))
    for name, command in program.commands.items():
        yield f"| [`{name}`](#{name}) | {cell(command.get_short_help_str(200))} |"
    for name, command in program.commands.items():
        yield from ("", f"## {name}", "", inspect.cleandoc(command.help or ""), "", "```text")
        yield " ".join(["iq-offline", name, *command.collect_usage_pieces(context)])
        yield "```"
        parameters = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
        if parameters:
            records = [parameter.get_help_record(context) for parameter in parameters]
            yield from ("", *table("argument or option", "meaning", *((f"`{name}`", text) for name, text in records)))


EXIT_STATUS = [
    ("0", "done"),
    ("1", "a bug (with its traceback), or a job of `run` that failed"),
    ("2", "a user's mistake, with a message that says what to do"),
    ("3", "`reproduce` found another result"),
    ("130, 143", "stopped by Ctrl-C or by SIGTERM; `train --resume` goes on"),
]


def configuration() -> Iterator[str]:
    """Every option of a run that decides its numbers, then the settings of each method."""
    yield from ("# Configuration", "")
    yield "Generated from the classes of `iq_offline.config`. A run keeps its whole configuration in"
    yield "`config.toml`. `train --set KEY=VALUE` changes a setting, `train --preset FILE.toml` several;"
    yield "`iq-offline methods NAME` prints the same tables."
    yield from ("", "## Run", "", "Options of `iq-offline train`, and keys of `config.toml`.", "")
    fields = [(name, field) for name, field in TrainConfig.model_fields.items() if name != "algorithm"]
    yield from table("key", "default", "meaning")
    for name, field in fields:
        default = "required" if field.is_required() else f"`{field.default if field.default is not None else 'none'}`"
        yield f"| `{name}` | {default} | {cell(field.description or '')} |"
    for kind in config_classes():
        yield from settings(kind)


def settings(kind: type[AlgorithmConfig]) -> Iterator[str]:
    """The table of one configuration class, with the methods that it is of and what these change."""
    name = kind.model_fields["name"].default
    methods = [method for method in METHODS.values() if kind in method.config_classes()]
    yield from ("", f"## {name}", "", inspect.getdoc(kind) or "", "")
    yield "Methods: " + ", ".join(f"`{method.name}`" + changed(method) for method in methods) + "."
    yield from ("", *table("key", "default", "accepts", "meaning"))
    method, discrete = methods[0], methods[0].continuous is None or kind is methods[0].config_class(discrete=True)
    plain = type(algorithm_config(method.name, discrete=discrete)).model_validate({})
    for setting in describe_settings(plain):
        value = "" if setting.value is None else f"`{setting.value}`"
        off = "" if setting.is_on else " (off)"
        yield f"| `{setting.key}` | {value}{off} | {cell(setting.accepts)} | {cell(setting.says)} |"


def changed(method: Method) -> str:
    """What a method sets beside the defaults of its class."""
    return f" ({', '.join(f'`{key}={value}`' for key, value in method.settings.items())})" if method.settings else ""


def sources() -> Iterator[str]:
    """The papers that the methods are implemented from, by the keys that docstrings and pages cite."""
    yield from ("# Sources", "", "Every method is implemented from its paper.", "")
    yield from table(
        "key", "paper", *sorted({key: (key, text) for file in CITING for key, text in cited(file)}.values())
    )


CITING = ["baselines/__init__.py", "evaluation/shaping.py", "algorithms/linear_reward.py", "algorithms/__init__.py"]


def cited(file: str) -> Iterator[tuple[str, str]]:
    """Key and paper of each line `[KEY] paper` with which a module's docstring ends."""
    text = ast.get_docstring(ast.parse((PACKAGE / file).read_text())) or ""
    for entry in re.split(
        r"(?=\[[A-Z0-9]+\] )", re.sub(r"\s+", " ", re.split(r"^(?=\[)", text, maxsplit=1, flags=re.M)[1])
    ):
        if entry.strip():
            key, _, paper = entry.strip().partition("] ")
            yield key.removeprefix("["), paper.strip().removesuffix(".")


def table(*header_and_rows: str | tuple[str, ...]) -> Iterator[str]:
    """Lines of a Markdown table: its header's texts, then its rows."""
    header = [text for text in header_and_rows if isinstance(text, str)]
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in header_and_rows:
        if isinstance(row, tuple):
            yield "| " + " | ".join(map(cell, row)) + " |"


def cell(text: str) -> str:
    """Text on one line of a table."""
    line = " ".join(text.split()).replace("|", "\\|")
    return line if "`" in line else line.replace("<", "&lt;")
