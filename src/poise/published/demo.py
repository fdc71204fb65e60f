"""The small network inside the package, which the word ``demo`` selects where weights are given.

It is ``atss_tiny_fpn``, trained on generated scenes with other classes than those of ``poise demo``
(``poise.recipes.demo.demo_network``). ``benchmarks/demo_network.py`` makes it again.
"""

from __future__ import annotations

from pathlib import Path

DEMO = "demo"  # the word
SHA256 = "5d28172296543d384b5fe24482d10d65e3c65e48d8c2e101295afe45b4d8d4cc"


def demo_weights() -> Path:
    """Return the file of the network, a model file that ``poise.load`` reads."""
    return Path(__file__).with_name("demo.safetensors")
