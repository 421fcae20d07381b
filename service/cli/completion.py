"""`patronus completion`"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


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
    click.echo(
        kind(click.get_current_context().find_root().command, {}, "patronus", "_PATRONUS_COMPLETE").source()
    )
