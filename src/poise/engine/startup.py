"""Messages at the start of a training."""

from __future__ import annotations

from torch.nn.modules.batchnorm import _BatchNorm

from poise.data import ImageSet
from poise.engine.display import Display
from poise.engine.train import Training
from poise.suggestions import plural


def greet(training: Training, notes: list[str], train_set: ImageSet, val_set: ImageSet | None) -> None:
    """Show what is about to be trained: model, device, images, epochs, and notes."""
    display: Display = training.log.display
    recipe, position = training.recipe, training.state.position
    parameters = sum(p.numel() for p in training.state.network.parameters()) / 1e6
    where = f"{training.processes.device}, {plural(training.processes.world_size, 'process')}"
    classes = plural(len(train_set.class_names), "class")
    validation = "no validation images" if val_set is None else plural(len(val_set), "validation image")
    epochs = f"{plural(recipe.schedule.epochs, 'epoch')} of {plural(training.steps_per_epoch, 'step')}"
    display.message(f"{recipe.model.name}: {parameters:.1f} M parameters, {classes}, on {where}")
    display.message(f"{plural(len(train_set), 'training image')}, {validation}; {epochs}; run folder {training.folder}")
    if position.epoch >= training.epochs:
        display.message(
            f"trained for {plural(position.epoch, 'epoch')} already; --epochs with a larger number trains on"
        )
    elif position.step:
        display.message(f"resuming at epoch {position.epoch + 1}, step {position.step}")
    for note in [*notes, *_single_image_batch(training, len(train_set))]:
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
