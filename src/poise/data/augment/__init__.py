"""Augmentation of scenes: torchvision's transforms v2 where they exist, and the ones that they lack."""

from poise.data.augment.pipeline import EvaluationPipeline, Pipeline, TrainingPipeline, build_pipeline
from poise.data.augment.scene import Scene, make_scene

__all__ = ["build_pipeline", "TrainingPipeline", "EvaluationPipeline", "Pipeline", "Scene", "make_scene"]
