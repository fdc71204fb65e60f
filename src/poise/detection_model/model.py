"""The result of ``poise.create_model``: a detector with its preprocessing, called like torchvision's detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from poise.boxes import clip
from poise.detection_model.description import Options
from poise.detection_model.proposals import MissingProposals, proposals_from_boxes
from poise.preprocess import Preprocess
from poise.structures import Batch, Detections, GroundTruth, Progress, StepOutput

if TYPE_CHECKING:
    from poise.protocols import DetectorModule

Target = Mapping[str, Tensor]


class DetectionModel(nn.Module):
    """A detector network with its preprocessing and its class names.

    Attributes:
        network: ``network(batch, progress) -> StepOutput`` and ``network.predict(pixels, sizes) -> Detections``.
        name, num_classes, options: ``create_model(name, num_classes, **options)`` builds the same model again.
        progress: default progress of ``losses``: for most models after every switch of a schedule.
        class_names, category_ids: those of the training data; numbers from 0 until ``set_classes``.
        class_map: new names of classes of the training data (``data.classes``), which evaluations use; empty: none.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        name: str,
        num_classes: int,
        *,
        options: Options,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self.network, self.preprocess = cast("DetectorModule", network), preprocess
        self.name, self.num_classes, self.options = name, num_classes, options
        self.class_map: dict[str, str | None] = {}
        self.progress = progress or Progress.final()
        self.class_names: tuple[str, ...] = tuple(str(i) for i in range(num_classes))
        self.category_ids: tuple[int, ...] = tuple(range(num_classes))

    def set_classes(self, names: Sequence[str], category_ids: Sequence[int] | None = None) -> None:
        """Set the names of the classes, and the category ids of the data set.

        Raises:
            ValueError: the number of names or of ids is not that of the classes.
        """
        ids = tuple(range(len(names))) if category_ids is None else tuple(int(i) for i in category_ids)
        if len(names) != self.num_classes or len(ids) != self.num_classes:
            raise ValueError(f"{len(names)} names and {len(ids)} ids for a model with {self.num_classes} classes")
        self.class_names, self.category_ids = tuple(str(name) for name in names), ids

    def with_network(self, network: nn.Module) -> DetectionModel:
        """Return a model that differs in its network alone."""
        model = DetectionModel(
            network, self.preprocess, self.name, self.num_classes, options=self.options, progress=self.progress
        )
        model.set_classes(self.class_names, self.category_ids)
        model.class_map = dict(self.class_map)
        return model.train(self.training)

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target] | None = None,
        proposals: Sequence[Tensor] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return losses or detections, like torchvision's detection models.

        Args:
            images: RGB (3,H_i,W_i), float in [0,1] or uint8, of any sizes.
            targets: in training mode one dict per image: ``boxes`` (n,4) xyxy pixels, ``labels`` (n,) int64 in
                [0, num_classes), and optionally ``iscrowd`` or ``ignore`` (n,), true for regions that are not objects.
            proposals: for Fast R-CNN, one tensor (k_i,4) per image, xyxy pixels.
            progress: steps and epochs done, for models whose losses change during training (TOOD starts with ATSS);
                by default ``self.progress``, which for most models is after all such changes.

        Returns:
            In training mode the dict of weighted losses; in evaluation mode one ``{"boxes","scores","labels"}`` per
            image, with boxes in pixels of that image.

        Raises:
            ValueError: there are no targets in training mode, or images or targets are invalid.
        """
        _check_images(images)
        pixels, sizes, factors = self.prepare(images)
        device, originals = pixels.device, sizes.new_tensor([image.shape[-2:] for image in images])
        if proposals is not None:
            _check_number(len(images), proposals, "proposals")
            proposals = [boxes.to(device) / factor for boxes, factor in zip(proposals, factors, strict=True)]
        if not self.training:
            return [
                {**found, "boxes": clip((found["boxes"] * factor)[None], size[None])[0]}
                for found, factor, size in zip(self.detect(pixels, sizes, proposals), factors, originals, strict=True)
            ]
        if targets is None:
            raise ValueError("in training mode the model needs targets; call model.eval() for detections")
        _check_number(len(images), targets, "targets")
        check_targets(targets, self.num_classes)
        scaled = [
            {**target, "boxes": target["boxes"].to(device) / factor}
            for target, factor in zip(targets, factors, strict=True)
        ]
        return self.step(pixels, scaled, sizes, progress or self.progress, proposals=proposals).losses

    def prepare(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Preprocess images.

        Returns:
            pixels (B,3,H,W), sizes before padding (B,2), and factors (B,4) from boxes in these pixels to boxes in
            pixels of the images.
        """
        device = next(self.parameters()).device
        prepared = [self.preprocess.normalize(self.preprocess.resize(image.to(device))) for image in images]
        pixels, sizes = self.preprocess.batch(prepared)
        originals = sizes.new_tensor([image.shape[-2:] for image in images])
        return pixels, sizes, (originals / sizes).flip(1).repeat(1, 2)  # x, y, x, y

    def losses(
        self,
        pixels: Tensor,
        targets: Sequence[Target],
        progress: Progress | None = None,
        proposals: Sequence[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted losses of a normalized and padded batch, in training and in evaluation mode.

        Args:
            pixels: (B,3,H,W) float.
            targets: as in ``forward``, in pixels of this input.
            progress: steps and epochs done; by default ``self.progress``.
            proposals: as in ``forward``, in pixels of this input.
        """
        check_targets(targets, self.num_classes)
        return self.step(pixels, targets, None, progress or self.progress, proposals=proposals).losses

    def step(
        self,
        pixels: Tensor,
        targets: Sequence[Target],
        sizes: Tensor | None,
        progress: Progress,
        *,
        proposals: Sequence[Tensor] | None = None,
    ) -> StepOutput:
        """Return losses and matches; arguments as of ``losses``, and ``sizes`` (B,2) before padding."""
        return self.network(self.batch(pixels, targets, sizes, proposals), progress)

    def batch(
        self,
        pixels: Tensor,
        targets: Sequence[Target],
        sizes: Tensor | None = None,
        proposals: Sequence[Tensor] | None = None,
    ) -> Batch:
        """Return the ``Batch`` of ``step``."""
        _check_pixels(pixels)
        moved = [{key: value.to(pixels.device) for key, value in target.items()} for target in targets]
        height, width = pixels.shape[-2:]
        extents = [(height, width)] * len(pixels) if sizes is None else [(int(h), int(w)) for h, w in sizes.tolist()]
        truth = GroundTruth.collate(moved, extents)
        indices = torch.arange(len(pixels), device=pixels.device)
        return Batch(pixels, truth, indices, proposals=self._regions(pixels, proposals))

    @torch.no_grad()
    def detect(
        self, pixels: Tensor, sizes: Tensor | None = None, proposals: Sequence[Tensor] | None = None
    ) -> list[dict[str, Tensor]]:
        """Return detections with the published test settings, in training and in evaluation mode.

        Args:
            pixels: (B,3,H,W) float, normalized and padded.
            sizes: (B,2) height and width of each image before padding; by default those of the input.
            proposals: as in ``forward``, in pixels of this input.

        Returns:
            One ``{"boxes" (k,4) xyxy pixels of this input, "scores" (k,), "labels" (k,)}`` per image, highest score
            first.
        """
        return self.predict(pixels, sizes, proposals).unpad()

    @torch.no_grad()
    def predict(
        self, pixels: Tensor, sizes: Tensor | None = None, proposals: Sequence[Tensor] | None = None
    ) -> Detections:
        """Return the detections of ``detect`` as padded tensors."""
        _check_pixels(pixels)
        if sizes is None:
            sizes = pixels.new_tensor(pixels.shape[-2:]).expand(len(pixels), 2)
        given_regions = self._regions(pixels, proposals)
        regions = () if given_regions is None else (given_regions,)
        return self.network.predict(pixels, sizes.to(pixels.device), *regions)

    @property
    def needs_proposals(self) -> bool:
        """Whether the network needs proposals as input (Fast R-CNN)."""
        return bool(getattr(self.network, "needs_proposals", False))

    def check_proposals(self, are_given: bool) -> None:
        """Check that there are proposals if and only if the network needs them.

        Raises:
            MissingProposals: they are missing.
            ValueError: the network would not use them.
        """
        if self.needs_proposals and not are_given:
            raise MissingProposals
        if are_given and not self.needs_proposals:
            raise ValueError(f"'{self.name}' does not use proposals: leave them out, or use a model fast_rcnn_*")

    def _regions(self, pixels: Tensor, proposals: Sequence[Tensor] | None) -> Detections | None:
        self.check_proposals(proposals is not None)
        if proposals is None:
            return None
        _check_number(len(pixels), proposals, "proposals")
        return proposals_from_boxes([boxes.to(pixels.device) for boxes in proposals])


def check_targets(targets: Sequence[Target], num_classes: int) -> None:
    """Check the targets of a batch.

    Raises:
        ValueError: keys are missing, shapes are wrong, labels out of range, or boxes not finite or without area; the
            message names image, object and cure.
    """
    for i, target in enumerate(targets):
        if "boxes" not in target or "labels" not in target:
            raise ValueError(f"target of image {i} needs 'boxes' (n,4) and 'labels' (n,); it has {sorted(target)}")
        boxes, labels = target["boxes"], target["labels"]
        if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
            raise ValueError(
                f"target of image {i}: boxes {tuple(boxes.shape)}, labels {tuple(labels.shape)} must be (n,4), (n,)"
            )
        for flag in ("iscrowd", "ignore"):
            if flag in target and target[flag].shape != labels.shape:
                raise ValueError(
                    f"target of image {i}: {flag} {tuple(target[flag].shape)} must be {tuple(labels.shape)}"
                )
        if not len(labels):
            continue
        if labels.is_floating_point():
            raise ValueError(f"target of image {i}: labels are {labels.dtype}; class indices must be integers (int64)")
        for what, wrong in (
            (f"a label outside [0, {num_classes})", (labels < 0) | (labels >= num_classes)),
            ("a box that is not finite", ~boxes.isfinite().all(1)),
            ("a box with x2 <= x1 or y2 <= y1", (boxes[:, 2:] <= boxes[:, :2]).any(1)),
        ):
            if wrong.any():
                j = int(wrong.int().argmax())
                raise ValueError(
                    f"image {i}, object {j} has {what}: box {boxes[j].tolist()}, label {int(labels[j])}; "
                    "correct or remove it (poise check DATA lists such faults)"
                )


def _check_images(images: Sequence[Tensor]) -> None:
    if not len(images):
        raise ValueError("the list of images is empty")
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"image {i} has shape {tuple(image.shape)}, but must be RGB (3,H,W)")


def _check_number(images: int, values: Sequence[object], what: str) -> None:
    if len(values) != images:
        raise ValueError(f"{images} images but {len(values)} {what}")


def _check_pixels(pixels: Tensor) -> None:
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"pixels have shape {tuple(pixels.shape)}, but must be (B,3,H,W)")
