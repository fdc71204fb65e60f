"""Messages at the start of a training."""

from __future__ import annotations

from torch.nn.modules.batchnorm import _BatchNorm

from poise.engine.display import Display
from poise.engine.plan import TrainingPlan
from poise.engine.train import Training
from poise.suggestions import plural


def greet(training: Training, plan: TrainingPlan, notes: list[str]) -> None:
    """Show what is about to be trained, and notes."""
    display: Display = training.log.display
    position = training.state.position
    for line in plan.lines():
        display.message(line)
    display.message(f"run folder {training.folder}")
    if position.epoch >= training.epochs:
        display.message(
            f"trained for {plural(position.epoch, 'epoch')} already; --epochs with a larger number trains on"
        )
    elif position.step:
        display.message(f"resuming at epoch {position.epoch + 1}, step {position.step}")
    for note in [*plan.warnings, *notes, *_single_image_batch(training, plan.train.images)]:
        display.message(note)


def _single_image_batch(training: Training, images: int) -> list[str]:
    """A note if the last batch of an epoch has one image and batch normalization is trained."""
    recipe, processes = training.recipe, training.processes.world_size
    part = recipe.data.images_per_step // recipe.train.accumulate
    last = images % part or part
    trained = any(isinstance(m, _BatchNorm) and m.training for m in training.state.network.train().modules())
    if recipe.data.drop_last or last > processes or part <= processes or not trained:
        return []
    return [
        f"the last batch of an epoch has {plural(last, 'image')}, from which batch normalization estimates its "
        "statistics; --data.drop-last true leaves it out"
    ]
