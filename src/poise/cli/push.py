"""``poise push``: put a trained model into a repository of the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from poise.cli.help import CommandHelp


@dataclass(frozen=True)
class Arguments:
    """Upload the model of a run with a model card to the Hugging Face Hub.

    Then poise.load, poise.Detector, and every command with a checkpoint take hf://owner/name. Log in first: hf auth
    login.
    """

    run: Positional[str]
    """A run folder (its best weights) or a model file."""
    address: Positional[str]
    """hf://owner/name, or hf://owner/name@branch."""
    license: str = ""
    """Identifier of the license of the weights, such as apache-2.0; without it the card says that none is stated."""
    private: bool = False
    """Create the repository as a private one."""
    out: Path | None = None
    """Write the files to this folder and upload nothing."""


HELP = CommandHelp(
    examples=(
        "poise push runs/first hf://owner/name --license apache-2.0",
        "poise push runs/first hf://owner/name --out card",
    )
)


def run(arguments: Arguments) -> int:
    """Upload, or write the folder, and print where."""
    from poise.api.push import push

    where = push(
        arguments.run,
        arguments.address,
        license=arguments.license,
        private=arguments.private,
        folder=arguments.out,
    )
    print(f"written to {where}; nothing was uploaded" if arguments.out else f"{arguments.address}: {where}")
    return 0
