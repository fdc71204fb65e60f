"""What a training is about to do, before its first step: data, model, memory, and warnings that matter."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from poise.data import ImageSet
from poise.data.joining import Paths, as_paths
from poise.data.loader import usable_cores
from poise.data.statistics import count
from poise.detection_model import DetectionModel
from poise.engine.batch_size import (
    choose_batch_size,
    forward_and_backward,
    generated_batch,
    largest_image,
    optimizer_bytes,
)
from poise.engine.model import build_model
from poise.engine.processes import Processes, process_group
from poise.engine.sources import open_sets
from poise.engine.step import PRECISIONS
from poise.models.table import model_rows
from poise.preprocess import Preprocess
from poise.recipes import Recipe
from poise.recipes.small_data import has_bfloat16, precision_hint, small_data_hint
from poise.storage import write_text_atomically
from poise.suggestions import plural, shortlist

PLAN = "plan.json"
FEW = 10  # objects of a class, fewer of which are warned of
TINY = 0.05  # fraction of objects below a cell of the finest map from which on a warning is given
TRACED = (128, 256)  # sides in pixels of the images with which activations are measured
SHOWN = 8  # classes that a line names
ARCHITECTURE_FREE = {
    "assigner",
    "sampler",
    "criterion",
    "class_balance",
    "object_balance",
    "class_loss",
    "score_threshold",
    "nms_threshold",
    "nms_similarity",
    "max_detections",
}
GIGABYTE = 1e9


@dataclass(frozen=True)
class SplitPlan:
    """Images and objects of a split; crowd and ignored objects do not count."""

    images: int
    objects: int
    classes: dict[str, int]  # objects of each class


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one process in GB (10^9 bytes), without PyTorch itself."""

    states: float  # weights, gradients, optimizer, EMA
    activations: float | None  # of the images of one step; None where they could not be measured

    @property
    def total(self) -> float:
        return self.states + (self.activations or 0.0)


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is about to do."""

    model: str
    device: str
    processes: int
    parameters: int
    trained_parameters: int
    gflops: float | None  # 10^9 multiply-adds of the inference of one image of ``input_size``
    input_size: tuple[int, int]  # height and width of the largest training image
    finest_stride: int  # pixels of a cell of the finest map
    train: SplitPlan
    val: SplitPlan | None
    median_side: float | None  # pixels, square root of the area of a box as the network receives it; None: no objects
    batch_size: int
    epochs: int
    steps_per_epoch: int
    memory: MemoryEstimate
    warnings: tuple[str, ...]
    seconds_per_epoch: float | None = None  # measured in the first steps, without validation

    def to_dict(self) -> dict[str, object]:
        """Everything as plain values for JSON."""
        return {**asdict(self), "memory": {**asdict(self.memory), "total": self.memory.total}}

    def lines(self) -> list[str]:
        """The plan as text, without its warnings."""
        flops = (
            "" if self.gflops is None else f", {self.gflops:.1f} GFLOPs at {self.input_size[0]}x{self.input_size[1]}"
        )
        frozen = (
            "" if self.trained_parameters == self.parameters else f" ({self.trained_parameters / 1e6:.1f} M trained)"
        )
        where = f"on {self.device}, {plural(self.processes, 'process')}"
        val = "no validation images" if self.val is None else plural(self.val.images, "validation image")
        objects = (
            f"{plural(self.train.objects, 'training object')}, {0 if self.val is None else self.val.objects} validation"
        )
        names = sorted(self.train.classes.items(), key=lambda one: -one[1])
        classes = ", ".join(f"{name} {number}" for name, number in names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
        size = (
            ""
            if self.median_side is None
            else f"; median side {self.median_side:.0f} px, finest stride {self.finest_stride}"
        )
        parts = f"weights, gradients and optimizer {self.memory.states:.1f}"
        parts += "" if self.memory.activations is None else f", activations {self.memory.activations:.1f}"
        return [
            f"{self.model}: {self.parameters / 1e6:.1f} M parameters{frozen}{flops}, "
            f"{plural(len(self.train.classes), 'class')}, {where}",
            f"{plural(self.train.images, 'training image')}, {val}; {objects}{size}",
            f"classes: {classes}",
            f"{plural(self.epochs, 'epoch')} of {plural(self.steps_per_epoch, 'step')}, batch size {self.batch_size}; "
            f"memory about {self.memory.total:.1f} GB ({parts})",
        ]

    def text(self) -> str:
        """The plan with its warnings."""
        return "\n".join([*self.lines(), *self.warnings])

    def write(self, folder: Path) -> None:
        """Write ``plan.json``."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
        write_text_atomically(folder / PLAN, text + "\n")

    def measured(self, seconds_per_epoch: float) -> TrainingPlan:
        """The plan with the time of an epoch."""
        return replace(self, seconds_per_epoch=round(seconds_per_epoch, 1))


def plan_training(
    recipe: Recipe, *, data: Paths | None = None, device: str = "auto", model: DetectionModel | None = None
) -> TrainingPlan:
    """Plan a training without starting it; nothing is downloaded or written. Arguments as of ``train``."""
    if data is not None:
        recipe = replace(recipe, data=replace(recipe.data, path=tuple(map(str, as_paths(data)))))
    with process_group(device, recipe.train.timeout_minutes) as processes:
        train_set, val_set, remarks = open_sets(recipe.data)
        built, _ = build_model(recipe, train_set, fresh=False, given=model)
        built.to(processes.device)
        if recipe.data.batch_size == "auto":
            size, note = choose_batch_size(recipe, built, train_set, processes)
            remarks.append(note)
            recipe = replace(recipe, data=replace(recipe.data, batch_size=size))
        return make_plan(recipe, built, train_set, val_set, processes=processes, remarks=remarks)


def make_plan(
    recipe: Recipe,
    model: DetectionModel,
    train_set: ImageSet,
    val_set: ImageSet | None,
    *,
    processes: Processes,
    remarks: Sequence[str] = (),
) -> TrainingPlan:
    """The plan of a training whose model and images are at hand; ``remarks`` of the data are among its warnings."""
    part = recipe.data.images_per_step // recipe.train.accumulate
    batches = len(train_set) // part if recipe.data.drop_last else -(-len(train_set) // part)
    height, width = largest_image(model.preprocess, recipe.augment)
    stride = min(model.network.backbone.strides)
    sides = object_sides(train_set, model.preprocess)
    parameters = list(model.network.parameters())
    activations, flops = trace(recipe, model, train_set, processes.device)
    memory = activations and activations * -(-part // processes.world_size) / GIGABYTE
    train, val = _split(train_set), None if val_set is None else _split(val_set)
    on_cpu = processes.device.type == "cpu"
    hints = small_data_hint(recipe, len(train_set), usable_cores() // processes.world_size) if on_cpu else ()
    hints += precision_hint(recipe, has_bfloat16()) if on_cpu else ()
    return TrainingPlan(
        model=model.name,
        device=str(processes.device),
        processes=processes.world_size,
        parameters=sum(p.numel() for p in parameters),
        trained_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        gflops=_published_gflops(recipe, model, height * width) or (flops and flops / 2e9),
        input_size=(height, width),
        finest_stride=stride,
        train=train,
        val=val,
        median_side=float(np.median(sides)) if len(sides) else None,
        batch_size=recipe.data.images_per_step,
        epochs=recipe.schedule.epochs,
        steps_per_epoch=-(-batches // recipe.train.accumulate),
        memory=MemoryEstimate(_states(recipe, parameters, model) / GIGABYTE, memory),
        warnings=(*_tiny(sides, stride, model.preprocess), *_class_warnings(train, val), *remarks, *hints),
    )


def object_sides(image_set: ImageSet, preprocess: Preprocess) -> np.ndarray:
    """Square root of the area of each box in pixels of the network's input, (m,); without crowd and ignored objects."""
    objects, images = image_set.objects, image_set.images
    valid = ~(objects.crowd | objects.ignore)
    boxes, owner = objects.boxes[valid], image_set.image_of_object[valid]
    width, height = (np.maximum(side[owner], 1).astype(float) for side in (images.widths, images.heights))
    if preprocess.keep_ratio:
        shorter, longer = np.minimum(width, height), np.maximum(width, height)
        horizontal = vertical = np.minimum(preprocess.long / longer, preprocess.short / shorter)
    else:
        horizontal, vertical = preprocess.long / width, preprocess.short / height
    area = (boxes[:, 2] - boxes[:, 0]) * horizontal * (boxes[:, 3] - boxes[:, 1]) * vertical
    return np.asarray(np.sqrt(np.maximum(area, 0)))


def trace(
    recipe: Recipe, model: DetectionModel, train_set: ImageSet, device: torch.device
) -> tuple[float | None, float | None]:
    """Bytes that a training step keeps for its backward pass, and floating-point operations, of the largest image.

    They are measured with two generated images of 128 x 128 and of 256 x 256 pixels on a copy of the model, and
    extrapolated by a straight line in the number of pixels. None for models that read proposals, and where the
    copy cannot take such images.
    """
    if model.needs_proposals:
        return None, None
    height, width = largest_image(model.preprocess, recipe.augment)
    objects = max(1, int(np.percentile(train_set.objects_per_image, 95))) if len(train_set) else 1
    network = copy.deepcopy(model.network).train()
    precision = PRECISIONS.get(recipe.train.precision)
    sizes = [(min(height, side), min(width, side)) for side in TRACED]
    found = [_trace_size(network, *size, objects, device, precision) for size in sizes]
    if any(one is None for one in found):
        return None, None
    (small, large), pixels = [np.array(one, float) for one in found if one is not None], [h * w for h, w in sizes]
    if pixels[0] == pixels[1]:
        values = large * (height * width / pixels[1])
    else:
        slope = (large - small) / (pixels[1] - pixels[0])
        values = np.maximum(large + slope * (height * width - pixels[1]), large)
    return float(values[0]), float(values[1])


def _trace_size(
    network: nn.Module, height: int, width: int, objects: int, device: torch.device, precision: torch.dtype | None
) -> tuple[float, float] | None:
    """Bytes and operations of one of two images of a size."""
    own = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    counter = FlopCounterMode(display=False)
    devices = [device.index or 0] if device.type == "cuda" else []
    with (
        contextlib.suppress(RuntimeError, ValueError, IndexError),
        torch.random.fork_rng(devices=devices),
        torch.autocast(device.type, precision, precision is not None),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
        counter,
    ):
        forward_and_backward(
            network, generated_batch(2, objects, height=height, width=width, device=device), backward=False
        )
        return sum(kept.values()) / 2, counter.get_total_flops() / 2
    return None


def _states(recipe: Recipe, parameters: Sequence[Tensor], model: DetectionModel) -> float:
    """Bytes of weights, gradients, the optimizer's states and the EMA."""
    everything = sum(p.numel() * p.element_size() for p in parameters)
    trained = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    buffers = sum(b.numel() * b.element_size() for b in model.network.buffers())
    return (
        everything
        + buffers
        + trained
        + optimizer_bytes(recipe, trained)
        + (everything + buffers if recipe.train.ema_decay else 0)
    )


def _published_gflops(recipe: Recipe, model: DetectionModel, pixels: int) -> float | None:
    """The multiply-adds of ``poise models`` at another size; None where options may have changed the network."""
    row = model_rows().get(model.name)
    changed = set(recipe.model.options) - ARCHITECTURE_FREE
    if row is None or changed:
        return None
    divisor = model.preprocess.divisor
    height, width = (-(-side // divisor) * divisor for side in row.size)
    return row.gflops * pixels / (height * width)


def _split(image_set: ImageSet) -> SplitPlan:
    counted = count(image_set)
    return SplitPlan(counted.images, counted.objects, counted.classes)


def _tiny(sides: np.ndarray, stride: int, preprocess: Preprocess) -> list[str]:
    """A warning if many objects are smaller than a cell of the finest map."""
    share = float((sides < stride).mean()) if len(sides) else 0.0
    if share < TINY:
        return []
    factor = stride / max(float(np.quantile(sides, TINY)), 0.1)
    side = math.ceil(preprocess.long * factor / 32) * 32
    return [
        f"warning: {100 * share:.0f} % of the training objects are smaller than the finest stride, {stride} pixels, in "
        f"the network's input; --image-size {side} leaves 5 %, or cut the images into tiles"
    ]


def _class_warnings(train: SplitPlan, val: SplitPlan | None) -> list[str]:
    """Warnings of classes that are only in the validation images, and of classes with few training objects."""
    only_val = [name for name, number in (val.classes if val else {}).items() if number and not train.classes.get(name)]
    few = [name for name, number in train.classes.items() if number < FEW and name not in only_val]
    warnings = []
    if only_val:
        shown = shortlist(only_val, SHOWN)
        warnings.append(f"warning: {shown}: objects in the validation images alone, so that the class is not learned")
    if few:
        counts = shortlist([f"{name} {train.classes[name]}" for name in few], SHOWN)
        warnings.append(f"warning: {plural(len(few), 'class')} with fewer than {FEW} training objects: {counts}")
    return warnings
