"""Random ground truth and detections, hard where evaluators differ."""

from __future__ import annotations

from typing import Any

import numpy as np


def random_truth(
    seed: int, images: int = 12, classes: int = 4, crowd: float = 0.1, first_id: int = 1, empty_class: bool = True
) -> dict[str, Any]:
    """COCO truth: sizes over all three ranges, some crowds, an image and (if requested) a class without objects."""
    rng = np.random.default_rng(seed)
    categories = [{"id": 3 * k + 2, "name": f"class {k}"} for k in range(classes)]
    annotations = []
    for image in range(1, images):
        for _ in range(rng.integers(0, 9)):
            size = np.exp(rng.uniform(np.log(8), np.log(250), 2))
            corner = rng.uniform(0, 640 - size)
            annotations.append(
                {
                    "id": len(annotations) + first_id,
                    "image_id": 100 - 7 * image,
                    "category_id": 3 * int(rng.integers(0, classes - empty_class)) + 2,
                    "bbox": [float(v) for v in (*corner, *size)],
                    "area": float(size.prod() * rng.uniform(0.5, 1)),
                    "iscrowd": int(rng.random() < crowd),
                }
            )
    return {
        "images": [{"id": 100 - 7 * i, "width": 640, "height": 640, "file_name": f"{i}.jpg"} for i in range(images)],
        "categories": categories,
        "annotations": annotations,
    }


def random_detections(seed: int, truth: dict[str, Any], strays: int = 40, ties: bool = True) -> list[dict[str, Any]]:
    """Objects found roughly, some twice or as another class, and strays; with ``ties`` scores have one decimal."""
    rng = np.random.default_rng(seed)
    classes = [category["id"] for category in truth["categories"]]
    images = [image["id"] for image in truth["images"]]
    found = []
    for record in truth["annotations"]:
        for _ in range(rng.integers(0, 4)):
            box = np.array(record["bbox"]) + rng.normal(0, 0.06, 4) * record["bbox"][2]
            label = record["category_id"] if rng.random() < 0.8 else int(rng.choice(classes))
            found.append((record["image_id"], label, box, rng.random() ** 0.5))
    for _ in range(strays):
        box = np.concatenate((rng.uniform(0, 400, 2), rng.uniform(5, 200, 2)))
        found.append((int(rng.choice(images)), int(rng.choice(classes)), box, rng.random()))
    return [
        {
            "image_id": image,
            "category_id": label,
            "bbox": [float(v) for v in np.append(box[:2], np.maximum(box[2:], 1))],
            "score": round(score, 1) if ties else float(score),
        }
        for image, label, box, score in found
    ]
