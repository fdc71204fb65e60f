"""Training: loop, optimizer, schedule, EMA, checkpoints and logs."""

from poise.engine.health import OutOfMemory, TrainingDiverged
from poise.engine.locks import FolderInUse
from poise.engine.plan import TrainingPlan, plan_training
from poise.engine.run import RunResult, train

__all__ = ["FolderInUse", "OutOfMemory", "RunResult", "TrainingDiverged", "TrainingPlan", "plan_training", "train"]
