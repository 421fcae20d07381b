"""The page of the program `patronus`, from its click commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from docs.reference.markdown import anchor, code, prose, table
from service.cli.program import program
from service.settings import BUNDLES


def patronus_page() -> str:
    """Every command with its arguments and options."""
    parts = [
        "# patronus\n",
        "*Written from the program's own commands; `patronus COMMAND --help` says the same.*\n",
    ]
    root = click.Context(program, info_name="patronus")
    parts += [*_help(program), *_options(program, root)]
    for name in sorted(program.commands):
        command = program.commands[name]
        context = click.Context(command, info_name=name, parent=root)
        parts += [
            f"## patronus {name} {{ #{anchor('patronus ' + name)} }}\n",
            *_help(command),
            "```text\n"
            + context.command_path
            + " "
            + " ".join(command.collect_usage_pieces(context))
            + "\n```\n",
            *_options(command, context),
        ]
    return "\n".join(parts)


def _help(command: click.Command) -> Iterator[str]:
    """Paragraphs, and as they are those that click is told not to wrap (with a line of \\b)."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield "```text\n" + paragraph.removeprefix("\b\n") + "\n```\n"
        else:
            yield prose(paragraph) + "\n"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    parameters = (option for option in command.get_params(context) if option.name != "help")
    records = (option.get_help_record(context) for option in parameters if isinstance(option, click.Option))
    top = f"{BUNDLES.parent}/"  # of this checkout: its place is nobody else's
    rows = [[code(names), prose(meaning.replace(top, ""))] for names, meaning in filter(None, records)]
    if rows:
        yield table(("option", "meaning"), rows)
