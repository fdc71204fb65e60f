"""The page content of a DETR's encoder and queries, against the functions that measure them."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest
import torch

from poise.lab.annotated_image import AnnotatedImage
from poise.lab.encoders import EncoderPanel
from poise.lab.methods import Method
from poise.lab.separation import box_mask, contrast, discriminability
from poise.models import create_model

SMALL = {
    "channels": 32,
    "attention_heads": 4,
    "hidden": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "max_auxiliary_queries": 20,
}
BOXES = np.array([[6.0, 8, 70, 60], [40, 30, 90, 62]])


def sample_image(boxes: np.ndarray = BOXES) -> AnnotatedImage:
    image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return AnnotatedImage("a.jpg", image, boxes, np.arange(len(boxes)), np.zeros(len(boxes), dtype=bool))


def method(heads: str = "faster_rcnn,atss", name: str = "co_deformable_detr_r18") -> Method:
    torch.manual_seed(0)
    parts = {"queries": 20, "auxiliary_heads": heads, "backbone": "test_byobnet", **SMALL}
    return Method("co", create_model(name, 3, image_size=96, **parts).eval(), (0, 1, 2))


def test_panel_equals_the_measurements() -> None:
    one = sample_image()
    panel = EncoderPanel(method())
    shown = panel.add(one)
    batch = panel.method.batch(one)
    height, width = (int(side) for side in batch.truth.sizes[0])
    with torch.no_grad():
        maps = panel.method.model.network.encode(batch.pixels, batch.truth.sizes).maps()
    scores = discriminability(
        [level[0] for level in maps], (batch.pixels.shape[2], batch.pixels.shape[3]), (height, width)
    )
    inside = box_mask(batch.truth.boxes[0, :2], (height, width))
    numbers = panel.to_dict()
    assert numbers["separation"]["contrast"] == pytest.approx(contrast(scores, inside, ~inside))
    assert numbers["separation"]["images"] == 1 and numbers["separation"]["thresholds"][-1] == 1
    encoded = shown["score_map"]
    codes = np.frombuffer(zlib.decompress(base64.b64decode(encoded["data"])), dtype="<u2")
    assert len(codes) == encoded["length"] == encoded["size"][0] * encoded["size"][1]
    assert (codes.min(), codes.max()) == (0, 255)
    low, high = encoded["range"]
    assert scores.min() - 1e-5 <= low < high <= 1
    assert len(shown["queries"]["positive"]) == 2 and len(shown["queries"]["negative"]) == 18
    assert set(shown["queries"]["auxiliary"]) == {"faster_rcnn", "atss"}
    assert set(numbers["distances"]["distance"]) == {"faster_rcnn", "atss"}
    assert len(numbers["conflict"]["heads"]) >= 2


def test_undefined_numbers_are_none_in_json() -> None:
    """Without objects or auxiliary heads numbers are None; NaN is no JSON and a browser cannot parse it."""
    panel = EncoderPanel(method(heads=""))
    shown = panel.add(sample_image(BOXES[:0]))
    numbers = panel.to_dict()
    json.dumps([shown, numbers], allow_nan=False)
    assert numbers["conflict"] is None and numbers["separation"]["curves"] is None
    assert numbers["distances"]["distance"] == {}
    empty = EncoderPanel(method())
    empty.add(sample_image(BOXES[:0]))
    json.dumps(empty.to_dict(), allow_nan=False)


def test_the_panel_applies_to_models_with_queries_only() -> None:
    dense = Method("atss", create_model("atss_r18_fpn", 3, image_size=96, channels=16, depth=1), (0, 1, 2))
    assert EncoderPanel.applies_to(method()) and not EncoderPanel.applies_to(dense)
