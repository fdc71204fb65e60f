"""``data.batch_size: auto``: as many images as fit the memory of the device."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from poise.data import ImageSet
from poise.detection_model import DetectionModel
from poise.engine.health import is_out_of_memory
from poise.engine.processes import Processes
from poise.engine.step import PRECISIONS
from poise.preprocess import Preprocess
from poise.recipes import Recipe
from poise.recipes.augment import AugmentSettings
from poise.structures import Batch, GroundTruth, Progress

ON_CPU = 8
STEPS_PER_EPOCH = 10  # at least, on a CPU
MOST = 64  # images of one part in one process
SHARE_OF_MEMORY = 0.85  # that a step may take of the free memory; images and objects vary


def choose_batch_size(
    recipe: Recipe, model: DetectionModel, train_set: ImageSet, processes: Processes, *, before: int | str | None = None
) -> tuple[int, str]:
    """Images of one optimizer step, and a note for the user.

    On a GPU: the largest even number of images (at most 64) with which forward and backward passes of images of the
    largest size take no more than 85 % of the free memory; it is measured with generated images. On a CPU: 8, or fewer
    so that an epoch has at least 10 steps. Both are multiplied by ``train.accumulate`` and the number of processes.

    Args:
        before: the number of a checkpoint that is continued, which is kept.

    Raises:
        ValueError: on a GPU, for a model that reads proposals.
    """
    if isinstance(before, int):
        return before, f"batch size {before}, as before"
    parts = processes.world_size * recipe.train.accumulate
    if processes.device.type != "cuda":
        size = min(ON_CPU, max(2, len(train_set) // STEPS_PER_EPOCH)) if parts == 1 else 2
        why = "on a CPU, memory is not the limit: 8, or fewer for at least 10 steps per epoch"
        return size * parts, f"batch size {size * parts} ({why}; --batch-size N replaces it)"
    if train_set.proposals is not None:
        raise ValueError("data.batch_size: auto is not for models that read proposals; give a number")
    free, _ = torch.cuda.mem_get_info(processes.device)
    budget = SHARE_OF_MEMORY * free
    objects = int(np.percentile(train_set.objects_per_image, 95)) if len(train_set) else 0
    measure = _measurement(recipe, model, max(1, objects), processes.device)
    fitting = largest_fitting(measure, budget, min(MOST, max(1, len(train_set) // parts)))
    size = min(processes.gather(fitting))
    text = f"batch size {size * parts}: {size} images per process and part take at most {SHARE_OF_MEMORY:.0%}"
    return size * parts, f"{text} of {free / 2**30:.1f} GB of free memory"


def largest_fitting(measure: Callable[[int], float], budget: float, limit: int) -> int:
    """The largest number of images, even or 1, whose measured memory is within the budget.

    It is doubled until it does not fit, and then bisected.

    Args:
        measure: bytes for so many images; infinite where the device runs out of memory.
        limit: largest number.
    """
    fits, too_many = 1, limit + 1
    while fits < limit:
        tried = min(2 * fits, limit) if too_many > limit else (fits + too_many) // 2
        tried -= tried % 2
        if tried <= fits:
            break
        if measure(tried) <= budget:
            fits = tried
        else:
            too_many = tried
            limit = min(limit, tried - 1)
    return fits


def _measurement(recipe: Recipe, model: DetectionModel, objects: int, device: torch.device) -> Callable[[int], float]:
    """Measure the memory of a training step on a copy of the model, optimizer state included."""
    network = copy.deepcopy(model.network).to(device).train()
    trained = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    states = optimizer_bytes(recipe, trained) + (trained if recipe.train.ema_decay else 0)
    height, width = largest_image(model.preprocess, recipe.augment)
    precision = PRECISIONS.get(recipe.train.precision)

    def measure(images: int) -> float:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            with torch.random.fork_rng(devices=[device]), torch.autocast("cuda", precision, precision is not None):
                forward_and_backward(
                    network, generated_batch(images, objects, height=height, width=width, device=device)
                )
            return torch.cuda.max_memory_allocated(device) - before + states
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return float("inf")
        finally:
            network.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    return measure


def optimizer_bytes(recipe: Recipe, trained: int) -> int:
    """Return the bytes of the optimizer's states for ``trained`` bytes of parameters: AdamW has two, SGD one."""
    return trained * (2 if recipe.optimizer.name == "adamw" else 1)


def forward_and_backward(network: nn.Module, batch: Batch, backward: bool = True) -> None:
    """Compute losses and, unless only the forward pass is wanted, gradients."""
    losses: dict[str, Tensor] = network(batch, Progress(0, 0)).losses
    if backward:
        torch.stack(list(losses.values())).sum().backward()


def largest_image(preprocess: Preprocess, augment: AugmentSettings) -> tuple[int, int]:
    """Height and width of the largest image that the network receives in training, padding included."""
    short = max((preprocess.short, *augment.short_range, *augment.short_choices))
    return preprocess.padded_size(short, max(preprocess.long, short, augment.longest))


def generated_batch(images: int, objects: int, *, height: int, width: int, device: torch.device) -> Batch:
    """Noise with ``objects`` objects of class 0 in a row on each image."""
    side = max(8.0, min(64.0, width / (objects + 1)))
    left = torch.arange(objects, device=device).float() * (width - side) / max(objects, 1)
    boxes = torch.stack((left, torch.zeros_like(left), left + side, torch.full_like(left, side)), 1)
    target = {"boxes": boxes, "labels": torch.zeros(objects, dtype=torch.int64, device=device)}
    truth = GroundTruth.collate([target] * images, [(height, width)] * images)
    pixels = torch.randn(images, 3, height, width, device=device)
    return Batch(pixels, truth, torch.arange(images))
