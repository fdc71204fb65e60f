"""Load checkpoints of the original projects."""

from poise.published.loading import LoadReport, load_published

__all__ = ["LoadReport", "load_published"]
