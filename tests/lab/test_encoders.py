"""What the page shows of a DETR's encoder and queries, against the instruments themselves."""

from __future__ import annotations

import base64
import json
import zlib

import numpy as np
import pytest
import torch

from poise.lab.encoders import EncoderLook
from poise.lab.methods import Method
from poise.lab.scene import Photograph
from poise.lab.separation import contrast, covered, discriminability
from poise.models import create_model

SMALL = {"channels": 32, "attention_heads": 4, "hidden": 32, "encoder_layers": 1, "decoder_layers": 2, "lent": 20}
BOXES = np.array([[6.0, 8, 70, 60], [40, 30, 90, 62]])


def photograph(boxes: np.ndarray = BOXES) -> Photograph:
    image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Photograph("a.jpg", image, boxes, np.arange(len(boxes)), np.zeros(len(boxes), dtype=bool))


def method(heads: str = "faster_rcnn,atss", name: str = "co_deformable_detr_r18") -> Method:
    torch.manual_seed(0)
    parts = {"queries": 20, "heads": heads, "backbone": "test_byobnet", **SMALL}
    return Method("co", create_model(name, 3, image_size=96, **parts).eval(), (0, 1, 2))


def test_numbers_are_those_of_the_instruments() -> None:
    one = photograph()
    look = EncoderLook(method())
    shown = look.add(one)
    batch = look.method.batch(one)
    height, width = (int(side) for side in batch.truth.sizes[0])
    with torch.no_grad():
        maps = look.method.model.network.encode(batch.pixels, batch.truth.sizes).maps()
    scores = discriminability(
        [level[0] for level in maps], (batch.pixels.shape[2], batch.pixels.shape[3]), (height, width)
    )
    inside = covered(batch.truth.boxes[0, :2], (height, width))
    numbers = look.to_dict()
    assert numbers["separation"]["contrast"] == pytest.approx(contrast(scores, inside, ~inside))
    assert numbers["separation"]["images"] == 1 and numbers["separation"]["thresholds"][-1] == 1
    packed = shown["strength"]
    codes = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), dtype="<u2")
    assert len(codes) == packed["length"] == packed["size"][0] * packed["size"][1]
    assert (codes.min(), codes.max()) == (0, 255)
    least, most = packed["ends"]
    assert scores.min() - 1e-5 <= least < most <= 1
    assert len(shown["places"]["positive"]) == 2 and len(shown["places"]["negative"]) == 18
    assert set(shown["places"]["lent"]) == {"faster_rcnn", "atss"}
    assert set(numbers["distances"]["distance"]) == {"faster_rcnn", "atss"}
    assert len(numbers["conflict"]["heads"]) >= 2


def test_nothing_is_lost_to_json_where_there_is_nothing_to_say() -> None:
    """No objects, no auxiliary heads: None everywhere, no NaN, which a browser cannot read."""
    look = EncoderLook(method(heads=""))
    shown = look.add(photograph(BOXES[:0]))
    numbers = look.to_dict()
    json.dumps([shown, numbers], allow_nan=False)
    assert numbers["conflict"] is None and numbers["separation"]["curves"] is None
    assert numbers["distances"]["distance"] == {}
    empty = EncoderLook(method())
    empty.add(photograph(BOXES[:0]))
    json.dumps(empty.to_dict(), allow_nan=False)


def test_only_models_with_queries_have_an_encoder_to_look_at() -> None:
    dense = Method("atss", create_model("atss_r18_fpn", 3, image_size=96, channels=16, depth=1), (0, 1, 2))
    assert EncoderLook.fits(method()) and not EncoderLook.fits(dense)
