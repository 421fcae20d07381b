"""`patronus completion`"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

ZSH_SETUP = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }"
"""A ~/.zshrc that never asked for completion has no `compdef`."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands and options.

    \b
    bash:  echo 'eval "$(patronus completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(patronus completion zsh)"' >> ~/.zshrc
    fish:  patronus completion fish > ~/.config/fish/completions/patronus.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # one of the choices
    program = click.get_current_context().find_root().command
    source = kind(program, {}, "patronus", "_PATRONUS_COMPLETE").source()
    if shell == "zsh":
        head, rest = source.split("\n", 1)  # `#compdef` must stay the first line
        source = "\n".join((head, ZSH_SETUP, rest))
    click.echo(source)
