"""The command ``poise``: parses, calls the rooms below and prints.

Every command is a small module with an ``Arguments`` dataclass, from which its options and its help are made, and a
function ``run(arguments) -> exit code``. They are imported only when they are called, so ``poise --help`` is quick.
"""

from poise.cli.main import main

__all__ = ["main"]
