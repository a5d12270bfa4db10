"""``trompe completion``: the script that completes commands and options in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from trompe.errors import UsageError

_WHERE = """\b
Put into:
  bash: ~/.bashrc                                eval "$(trompe completion bash)"
  zsh:  ~/.zshrc                                 eval "$(trompe completion zsh)"
  fish: ~/.config/fish/completions/trompe.fish   trompe completion fish
"""


@click.command(epilog=_WHERE)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in a SHELL."""
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"no completion for {shell}")
    click.echo(kind(context.find_root().command, {}, "trompe", "_TROMPE_COMPLETE").source())
