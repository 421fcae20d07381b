"""The page of `python -m training`, from its argparse parser."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from docs.reference.markdown import anchor, code, prose, table
from model.config import config_to_dict
from training.__main__ import _parser
from training.data import DATASETS
from training.presets import PRESETS


def training_page() -> str:
    """Every command with its options, then data sets and presets."""
    parser = _parser()
    parts = [
        "# python -m training\n",
        "*Written from the program's own parser; `python -m training COMMAND --help` says the same, and "
        "`patronus-train` is the same program.*\n",
    ]
    for name, command, summary in _commands(parser):
        parts += [
            f"## {name} {{ #{anchor(name)} }}\n",
            prose(command.description or (summary[:1].upper() + summary[1:] + ".")) + "\n",
            _usage(command),
            table(("option", "meaning"), _options(command)),
        ]
    parts += ["## Data sets { #data-sets }\n", ", ".join(code(name) for name in DATASETS) + ".\n"]
    parts.append("## Presets { #presets }\n")
    parts.append("What each holds; every name may stand in `--set NAME=VALUE`.\n")
    for name in sorted(PRESETS):
        resolved = json.dumps(config_to_dict(PRESETS[name], complete=True), indent=1)
        parts.append(f'??? note "{name}"\n\n    ```json\n' + _indented(resolved) + "\n    ```\n")
    return "\n".join(parts)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """(name, parser, the line that the overview has of it)."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield name, command, summaries.get(name, "")


def _usage(parser: argparse.ArgumentParser) -> str:
    """Without the options, which the table has."""
    given = [action.dest.upper() for action in parser._actions if not action.option_strings]
    needed = [
        f"{action.option_strings[-1]} {action.metavar or action.dest.upper()}"
        for action in parser._actions
        if action.option_strings and action.required
    ]
    return "```text\n" + " ".join((parser.prog, *given, *needed, "[OPTIONS]")) + "\n```\n"


def _options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        names = ", ".join(action.option_strings) or action.dest
        value = action.metavar or (action.dest.upper() if action.option_strings else "")
        if action.choices is not None:
            value = "{" + ",".join(map(str, action.choices)) + "}"
        takes_value = action.nargs != 0 and action.option_strings
        meaning = parser._get_formatter()._expand_help(action) if action.help else ""
        yield code(f"{names} {value}" if takes_value else names), prose(meaning)


def _indented(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
