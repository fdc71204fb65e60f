"""Detection scenes that need no download: textured shapes among clutter, hard enough to tell methods apart."""

from poise.data.demo.scenes import CLASS_NAMES, DemoObject, DemoScene, demo_scene
from poise.data.demo.write import write_demo_data

__all__ = ["write_demo_data", "demo_scene", "DemoScene", "DemoObject", "CLASS_NAMES"]
