"""What a prediction gives back: boxes in the image's own pixels, and what one does with them."""

from __future__ import annotations

import io
import json
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from poise.draw import draw_boxes
from poise.evaluate import coco_results
from poise.storage import write_text_atomically
from poise.storage.coco import CocoDetection


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one image."""

    xyxy: Tensor  # (n,4) float32, x1, y1, x2, y2 in pixels of the image

    @property
    def xywh(self) -> Tensor:
        """(n,4): x and y of the upper left corner, width, height (COCO's order)."""
        return torch.cat((self.xyxy[:, :2], self.xyxy[:, 2:] - self.xyxy[:, :2]), 1)

    def __len__(self) -> int:
        return len(self.xyxy)


@dataclass(frozen=True, eq=False)
class Result:
    """Detections of one image, best first."""

    boxes: Boxes
    scores: Tensor  # (n,) float32 in [0,1]
    labels: Tensor  # (n,) int64 in [0, number of classes)
    image: Tensor  # (3,H,W) RGB, as it was predicted on
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]  # the training data's own numbers of the classes
    path: Path | None = None  # file of the image or video
    frame: int | None = None  # number within the video, from 0

    @cached_property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels.tolist()]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])

    def __len__(self) -> int:
        return len(self.boxes)

    def __repr__(self) -> str:
        counted = ", ".join(f"{self.names.count(name)} {name}" for name in dict.fromkeys(self.names)) or "nothing"
        where = f"{self.path}: " if self.path else ""
        return f"<Result {where}{counted} in {self.size[1]}×{self.size[0]}>"

    def plot(self, *, show_scores: bool = True, show_labels: bool = True, **style: Any) -> Image.Image:
        """The image with its boxes; ``style`` as in :func:`poise.draw.draw_boxes` (``line_width``, ``font_size`` …)."""
        return draw_boxes(
            self.image,
            self.boxes.xyxy,
            self.labels,
            self.scores,
            names=self.class_names,
            show_scores=show_scores,
            show_labels=show_labels,
            **style,
        )

    def save(self, path: str | os.PathLike[str], **style: Any) -> Path:
        """Write the picture of :meth:`plot`, or with ``.json`` the dictionary of :meth:`to_dict`.

        Args:
            path: a file, or a folder, in which the picture gets the image's name.

        Returns:
            the file written; it appears whole or not at all.
        """
        target = Path(path)
        if target.suffix.lower() == ".json":
            write_text_atomically(target, json.dumps(self.to_dict(), indent=1, ensure_ascii=False))
            return target
        if target.is_dir() or not target.suffix:
            target = target / self._file_name()
        _write_picture(self.plot(**style), target)
        return target

    def to_coco(self, image_id: int | str) -> list[CocoDetection]:
        """COCO results with the training data's category ids."""
        return coco_results(image_id, self.boxes.xyxy, self.scores, self.labels, category_ids=self.category_ids)

    def to_dict(self) -> dict[str, object]:
        """JSON-able: path, size, and one ``{"box", "score", "label", "category_id", "name"}`` a detection."""
        rows = zip(self.boxes.xyxy.tolist(), self.scores.tolist(), self.labels.tolist(), self.names, strict=True)
        detections = [
            {
                "box": [round(value, 3) for value in box],
                "score": score,
                "label": label,
                "category_id": self.category_ids[label],
                "name": name,
            }
            for box, score, label, name in rows
        ]
        path = None if self.path is None else str(self.path)
        record: dict[str, object] = {"path": path, "height": self.size[0], "width": self.size[1]}
        if self.frame is not None:
            record["frame"] = self.frame
        return {**record, "detections": detections}

    def to_supervision(self) -> Any:
        """``supervision.Detections`` with class names.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError('this needs supervision: pip install "poise[supervision]"') from error
        import numpy as np

        return supervision.Detections(
            xyxy=self.boxes.xyxy.numpy().reshape(-1, 4),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def _file_name(self) -> str:
        stem = self.path.stem if self.path else "image"
        number = "" if self.frame is None else f"-{self.frame:06d}"
        suffix = self.path.suffix.lower() if self.path and not number else ".jpg"
        return f"{stem}{number}{suffix if suffix in ('.jpg', '.jpeg', '.png', '.webp', '.bmp') else '.png'}"


def _write_picture(picture: Image.Image, path: Path) -> None:
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"{path}: no picture format '{path.suffix}'; use .jpg, .png, .webp or .json")
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getvalue())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
