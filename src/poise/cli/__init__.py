"""The command line ``poise``.

Every command is a module with a dataclass ``Arguments``, which defines its options and help, and a function
``run(arguments) -> exit code``. A module is imported only when its command is called, so ``poise --help`` is fast.
"""

from poise.cli.main import main

__all__ = ["main"]
