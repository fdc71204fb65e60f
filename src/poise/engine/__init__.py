"""Training: the loop, optimizer and schedule, averages, checkpoints, logs."""

from poise.engine.health import OutOfMemory, TrainingDiverged
from poise.engine.locks import FolderInUse
from poise.engine.run import RunResult, train

__all__ = ["FolderInUse", "OutOfMemory", "RunResult", "TrainingDiverged", "train"]
