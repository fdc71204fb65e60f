"""Training pipelines of torchvision's reference training and of Ultralytics, on the photographs of a poise image set.

Each function returns a call: positions of photographs -> float pixels (B,3,H,W) that a network takes. torchvision's
transforms are those of ``references/detection/presets.py`` (tensors, v2), followed by the transform inside its models,
which resizes, normalizes and pads. Ultralytics' data set is built by its own ``build_yolo_dataset``; the division by
255, which its trainer does, belongs to the call.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from poise.data.image_set import ImageSet
from poise.preprocess import IMAGENET_MEAN, IMAGENET_STD

Pixels = Callable[[Sequence[int]], Tensor]

PRESETS: dict[str, Callable[[int, int], list[v2.Transform]]] = {
    "flip": lambda short, long: [v2.RandomHorizontalFlip()],
    "short side of a range": lambda short, long: [
        v2.RandomShortestSize(list(range(short * 3 // 5, short + 1, 32)), max_size=long),
        v2.RandomHorizontalFlip(),
    ],
    "scale jitter": lambda short, long: [
        v2.ScaleJitter((short, long), scale_range=(0.5, 2.0), antialias=True),
        v2.RandomCrop((short, long), pad_if_needed=True),
        v2.RandomHorizontalFlip(),
    ],
    "photometric distortion": lambda short, long: [v2.RandomPhotometricDistort(p=1.0), v2.RandomHorizontalFlip()],
    "minimum-IoU crop": lambda short, long: [v2.RandomIoUCrop(), v2.RandomHorizontalFlip()],
}


def torchvision_pipeline(image_set: ImageSet, case: str, short: int, long: int) -> Pixels | None:
    """The reference transforms and the models' transform; None where torchvision has no such preset."""
    if case not in PRESETS:
        return None
    last = [v2.ToDtype(torch.float, scale=True), v2.SanitizeBoundingBoxes(), v2.ToPureTensor()]
    transforms = v2.Compose([v2.ToImage(), *PRESETS[case](short, long), *last])
    sizes = ([short], long) if case in ("flip", "photometric distortion", "minimum-IoU crop") else ([1], 1)
    mean, std = ([value / 255 for value in values] for values in (IMAGENET_MEAN, IMAGENET_STD))
    network = GeneralizedRCNNTransform(sizes[0], sizes[1], mean, std, _skip_resize=sizes[1] == 1).train()

    def pixels(positions: Sequence[int]) -> Tensor:
        samples = []
        for position in positions:
            record = image_set[position]
            image = Image.open(record.path).convert("RGB")
            boxes = tv_tensors.BoundingBoxes(
                torch.tensor(record.boxes), format="XYXY", canvas_size=(image.height, image.width)
            )
            samples.append(transforms(image, {"boxes": boxes, "labels": torch.tensor(record.labels)}))
        images, _ = network([image for image, _ in samples], [target for _, target in samples])
        batch: Tensor = images.tensors
        return batch

    return pixels


CHANGES: dict[str, dict[str, Any]] = {
    "flip": {"rect": True},
    "scale jitter": {"scale": 0.5},
    "color of NanoDet": {"rect": True, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4},
    "mosaic": {"mosaic": 1.0},
    "mosaic and mixup": {"mosaic": 1.0, "mixup": 1.0},
}
OFF = ("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "mosaic", "mixup")


def ultralytics_pipeline(
    image_set: ImageSet, chosen: Sequence[int], case: str, side: int, folder: Path
) -> Pixels | None:
    """Ultralytics' training data set on links in ``folder`` to the ``chosen`` photographs; None without Ultralytics.

    Where it sorts them by their shape ("rect"), a batch holds other photographs of the chosen ones than the others'.
    """
    if importlib.util.find_spec("ultralytics") is None or case not in CHANGES:
        return None
    import cv2
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset

    cv2.setNumThreads(0)
    if not (folder / "images").is_dir():
        _write_yolo(image_set, chosen, folder)
    changes = {
        **dict.fromkeys(OFF, 0.0),
        "fliplr": 0.5,
        "copy_paste": 0.0,
        "cutmix": 0.0,
        "imgsz": side,
        **CHANGES[case],
    }
    settings = get_cfg(overrides={**changes, "workers": 0})
    names = dict(enumerate(image_set.class_names))
    data = {"names": names, "nc": len(names), "channels": 3}
    dataset = build_yolo_dataset(settings, str(folder / "images"), 8, data, mode="train", rect=settings.rect)

    rank = {position: number for number, position in enumerate(chosen)}

    def pixels(positions: Sequence[int]) -> Tensor:
        batch = dataset.collate_fn([dataset[rank[position]] for position in positions])
        image: Tensor = batch["img"].float() / 255
        return image

    return pixels


def _write_yolo(image_set: ImageSet, chosen: Sequence[int], folder: Path) -> None:
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for position in chosen:
        record = image_set[position]
        (folder / "images" / record.path.name).symlink_to(record.path.resolve())
        scale = torch.tensor([record.width, record.height] * 2)
        boxes = torch.tensor(record.boxes)
        center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        rows = (torch.cat((center, size), 1) / scale).tolist()
        lines = [f"{int(label)} {' '.join(map(str, row))}" for label, row in zip(record.labels, rows, strict=True)]
        (folder / "labels" / record.path.with_suffix(".txt").name).write_text("\n".join(lines) + "\n")
