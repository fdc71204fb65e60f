"""Batches for training and evaluation, the same for any number of workers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from poise.data.augment import EvaluationPipeline, build_pipeline
from poise.data.augment.scene import plain_boxes, without_proposals
from poise.data.dataset import DetectionDataset, Failure, ImageRecordLike, ImageSetLike, Item, sizes_of, stated_size
from poise.data.errors import BadImage
from poise.data.images import image_size
from poise.data.sampling import EpochPlan
from poise.data.worker_memory import keep_freed_memory
from poise.detection_model import proposals_from_boxes
from poise.preprocess import Preprocess, batches_by_shape
from poise.recipes.augment import AugmentSettings
from poise.structures import Batch, Detections, GroundTruth


class WorkerDied(RuntimeError):
    """A process that loads images was killed."""


class BadImageWarning(UserWarning):
    """An image could not be read and another took its place."""


@dataclass(frozen=True)
class EvaluationBatch(Batch):
    """A batch that remembers how large its images were."""

    original_sizes: Tensor  # (B,2) float32, height and width as read from the file


@dataclass(frozen=True)
class Collate:
    """Items to a batch; runs in the worker. A failure is handed on as it is."""

    preprocess: Preprocess

    def __call__(self, items: Sequence[Item | Failure]) -> tuple[EvaluationBatch | Failure, tuple[str, ...]]:
        good = [item for item in items if isinstance(item, Item)]
        failures = [item for item in items if isinstance(item, Failure)]
        if failures:
            return failures[0], ()
        pixels = self.preprocess.normalized_batch([_image(item) for item in good])
        truth = GroundTruth.collate([_target(item) for item in good], sizes_of(good))
        proposals = _proposals(good)
        indices = torch.tensor([item.index for item in good])
        originals = torch.tensor([item.original_size for item in good], dtype=torch.float32)
        notes = tuple(note for item in good for note in item.notes)
        return EvaluationBatch(pixels, truth, indices, originals, proposals=proposals), notes


def _image(item: Item) -> Tensor:
    image: Tensor = item.scene["image"].as_subclass(Tensor)
    return image


def _target(item: Item) -> dict[str, Tensor]:
    scene, names = without_proposals(item.scene), ("boxes", "labels", "iscrowd", "ignore")
    return {name: scene[name].as_subclass(Tensor) for name in names}


def _proposals(items: Sequence[Item]) -> Detections | None:
    """The proposals of scenes that have them."""
    if "proposal" not in items[0].scene:
        return None
    return proposals_from_boxes([plain_boxes(item.scene)[item.scene["proposal"]] for item in items])


class _Position(Sampler[list[tuple[int, int]]]):
    """Hands (epoch, index) pairs to the loader, from a batch of an epoch on; set anew before each epoch."""

    def __init__(self, plan: EpochPlan) -> None:
        self.plan, self.epoch, self.start_batch = plan, 0, 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.plan.batches(self.epoch, self.start_batch):
            yield [(self.epoch, index) for index in batch]

    def __len__(self) -> int:
        return max(self.plan.batches_per_epoch - self.start_batch, 0)


class TrainLoader:
    """Batches of any epoch from any position; made by :func:`train_loader`."""

    def __init__(self, dataset: DetectionDataset, plan: EpochPlan, preprocess: Preprocess, workers: int) -> None:
        self.dataset, self.plan, self.workers = dataset, plan, workers
        self._position = _Position(plan)
        self._loader = _torch_loader(dataset, self._position, preprocess, workers)
        self._turn = 0
        self._warned: set[str] = set()

    @property
    def batches_per_epoch(self) -> int:
        """Batches of each epoch, the same on every rank."""
        return self.plan.batches_per_epoch

    def __len__(self) -> int:
        return self.batches_per_epoch

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch; with ``start_batch`` the earlier ones are not read at all.

        Only the latest iterator is alive: going on with an earlier one is an error.

        Raises:
            BadImage: a file cannot be read (and is not to be skipped).
            WorkerDied: a worker was killed, mostly for want of memory.
        """
        if epoch < 0 or not 0 <= start_batch <= self.batches_per_epoch:
            raise ValueError(f"epoch {epoch}, batch {start_batch}: there are batches 0 to {self.batches_per_epoch}")
        self._turn += 1
        return self._batches(self._turn, epoch, start_batch)

    def _batches(self, turn: int, epoch: int, start_batch: int) -> Iterator[Batch]:
        self._require_latest(turn)
        self._position.epoch, self._position.start_batch = epoch, start_batch
        for batch, notes in _received(self._loader):
            self._warn(notes)
            yield Batch(batch.pixels, batch.truth, batch.indices, proposals=batch.proposals)
            self._require_latest(turn)

    def _require_latest(self, turn: int) -> None:
        if turn != self._turn:
            raise RuntimeError("this iterator has ended, because a later one was requested; use one epoch at a time")

    def _warn(self, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self._warned:
                self._warned.add(note)
                warnings.warn(note, BadImageWarning, stacklevel=3)


def train_loader(
    image_set: ImageSetLike,
    augment: AugmentSettings,
    preprocess: Preprocess,
    *,
    batch_size: int,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    group_by_aspect: bool = False,
    drop_last: bool = False,
    on_bad_image: Literal["error", "skip"] = "error",
    epochs: int | None = None,
) -> TrainLoader:
    """Training batches of this rank.

    Args:
        image_set: what to train on.
        augment: what happens to the images.
        preprocess: image size, normalization and padding.
        batch_size: images of a global batch, all ranks together.
        seed: of order and augmentation.
        workers: processes that load, at most as many as there are cores; 0 loads in this process. Changes nothing in
            the batches.
        rank: this process among ``world_size``.
        group_by_aspect: batches of one orientation (width > height or not).
        drop_last: leave out a last batch that is not full.
        on_bad_image: see :class:`DetectionDataset`; a skipped image is named in a ``BadImageWarning``.
        epochs: number of epochs of the training; needed where ``augment.plain_epochs`` counts from its end.
    """
    if augment.plain_epochs and epochs is None:
        raise ValueError("augment.plain_epochs counts from the end of the training: give the number of epochs")
    pipeline = build_pipeline(augment, preprocess)
    later = (epochs - augment.plain_epochs, pipeline.plain()) if augment.plain_epochs and epochs is not None else None
    dataset = DetectionDataset(image_set, pipeline, seed, on_bad_image, later=later)
    wide = _wide(image_set) if group_by_aspect else None
    plan = EpochPlan(len(image_set), batch_size, seed, rank, world_size, wide, drop_last)
    return TrainLoader(dataset, plan, preprocess, workers)


class EvaluationLoader:
    """Every image of this rank's part once; made by :func:`evaluation_loader`."""

    def __init__(
        self, dataset: DetectionDataset, batches: list[list[int]], preprocess: Preprocess, workers: int
    ) -> None:
        self.dataset, self.batches = dataset, batches
        self._loader = _torch_loader(dataset, [[(0, i) for i in batch] for batch in batches], preprocess, workers)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        return (batch for batch, _ in _received(self._loader))


def evaluation_loader(
    image_set: ImageSetLike,
    preprocess: Preprocess,
    *,
    batch_size: int = 8,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    alike_under: Sequence[Preprocess] = (),
) -> EvaluationLoader:
    """Batches without augmentation: ``truth`` in input pixels, ``truth.sizes`` the resized sizes, ``original_sizes``.

    A batch holds images of one input shape, so that it pads none further than it would be alone and the numbers do not
    depend on ``batch_size``. Ranks take the images in turn (rank, rank + world_size, …): none twice, none left out.
    Numbers of batches differ between ranks, and a rank may have none: do not wait for other ranks inside the loop.

    Args:
        alike_under: further preprocessings under which the images of a batch have one shape.

    Raises (while iterating):
        BadImage: a file cannot be read; an evaluation never leaves an image out by itself.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    mine = range(rank, len(image_set), world_size)
    shapes = (_input_shapes(image_set[i], (preprocess, *alike_under)) for i in mine)
    batches = [[mine[position] for position in group] for group in batches_by_shape(shapes, batch_size)]
    return EvaluationLoader(DetectionDataset(image_set, EvaluationPipeline(preprocess)), batches, preprocess, workers)


def _torch_loader(dataset: DetectionDataset, batches: Any, preprocess: Preprocess, workers: int) -> DataLoader[Any]:
    if workers < 0:
        raise ValueError(f"workers={workers} cannot be negative")
    workers = min(workers, usable_cores())  # more only wait for each other, and PyTorch warns of them
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=Collate(preprocess),
        num_workers=workers,
        worker_init_fn=keep_freed_memory,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its draw of worker seeds shall not touch the global generator
    )


def usable_cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _received(loader: DataLoader[Any]) -> Iterator[tuple[EvaluationBatch, tuple[str, ...]]]:
    """What workers hand back; their failures are raised here."""
    batches = iter(loader)
    while True:
        try:
            batch, notes = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" in str(error) and "exited unexpectedly" in str(error):
                raise WorkerDied(_death_note(str(error))) from error
            raise
        if isinstance(batch, Failure):
            error_of_worker = batch.error
            del batch  # else traceback and frame hold each other, and the workers end only with a slow timeout
            try:
                raise error_of_worker
            finally:
                del error_of_worker
        yield batch, notes


def _death_note(reason: str) -> str:
    return (
        f"a process that loads images was killed ({reason.splitlines()[0]}); mostly memory or shared memory ran out: "
        "use fewer workers or a smaller batch, or 0 workers to see the cause"
    )


def _wide(image_set: ImageSetLike) -> Tensor:
    """Which images are wider than high, (n,) bool; read from the files' headers where the annotations state no size."""
    sizes = [_header_size(image_set[i]) for i in range(len(image_set))]
    return torch.tensor([width > height for width, height in sizes], dtype=torch.bool)


def _input_shapes(record: ImageRecordLike, preprocesses: Sequence[Preprocess]) -> tuple[tuple[int, int], ...]:
    width, height = _header_size(record)
    return tuple(one.input_size(height, width) for one in preprocesses) if width and height else ()


def _header_size(record: ImageRecordLike) -> tuple[int, int]:
    try:
        return stated_size(record) or image_size(record.path)
    except BadImage:
        return 0, 0  # reading it for its batch raises the error
