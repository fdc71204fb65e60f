"""Codes of the page, supervision in numbers and agreement, against counting by hand."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from poise import lab
from poise.lab.methods import Method, with_assigner
from poise.lab.packing import Planes, codes, decoded
from poise.lab.page import LabPage
from poise.lab.scene import MOST_OBJECTS, Photograph, stages_to_dict
from poise.lab.statistics import Agreement, Supervision, csv_text
from poise.models import create_model
from poise.structures import StepOutput

BOXES = np.array([[6.0, 8, 70, 60], [40, 30, 90, 90], [50, 50, 62, 64]])
LABELS = np.array([0, 1, 1])


def photograph(boxes: np.ndarray = BOXES, labels: np.ndarray = LABELS, side: int = 96) -> Photograph:
    image = torch.randint(0, 256, (3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Photograph("a <b>.jpg", image, boxes, labels, np.zeros(len(labels), dtype=bool))


def method(name: str = "atss_r18_fpn") -> Method:
    torch.manual_seed(0)
    return Method(name, create_model(name, 3, image_size=96, channels=32, depth=1).eval(), (0, 1, 2))


def test_codes_keep_three_digits_over_six_decades() -> None:
    values = np.concatenate([[0.0, 3.0], 3 * 10 ** -np.linspace(0, 5.9, 50), [1e-9]])
    code, greatest = codes(values)
    assert greatest == 3
    read = decoded(code, greatest)
    assert read[0] == 0 and read[-1] == 0
    assert np.allclose(read[1:-1], values[1:-1], rtol=3e-4)
    assert codes(np.zeros(4))[0].any() == False  # noqa: E712
    assert codes(np.array([np.nan, 1.0]))[0].tolist() == [0, 65535]


def test_planes_are_deflated_little_endian_words() -> None:
    planes = Planes()
    planes.whole("owner", np.array([-1, 0, 7]))
    planes.boxes("box", np.array([[0.0, -1, 2.125, 1e9]] * 3))
    found = planes.result()
    words = np.frombuffer(zlib.decompress(base64.b64decode(found["data"])), dtype="<u2").reshape(5, 3)
    assert found["names"] == ["owner", "box0", "box1", "box2", "box3"] and found["length"] == 3
    assert words[0].tolist() == [65535, 0, 7]
    assert words[1:].view("<i2")[:, 0].tolist() == [0, -8, 17, 32767]


def test_supervision_counts_what_the_assignment_says() -> None:
    one = photograph()
    judged = method().compute_losses(one)
    stage = judged.stages["dense"]
    found = Supervision()
    found.add(stage, judged.factor, one.labels)
    numbers = found.to_dict(["disc", "square", "ring"])
    index = stage.index[0]
    assert numbers["positives"] == int((index >= 0).sum())
    assert found.objects["positives"].tolist() == [int((index == g).sum()) for g in range(3)]
    assert found.objects["size"] == pytest.approx([np.sqrt(64 * 52), np.sqrt(50 * 60), np.sqrt(12 * 14)], rel=1e-5)
    assert found.objects["weight"].sum() == pytest.approx(float(stage.positive.sum()), rel=1e-5)
    assert numbers["by_size"]["small"]["objects"] == 1 and numbers["by_size"]["large"]["objects"] == 0
    assert sum(one["share_of_supervision"] for one in numbers["by_class"].values()) == pytest.approx(1)
    assert set(numbers["by_class"]) == {"disc", "square"}
    centers = stage.priors.centers[0]
    inside = sum(
        ((centers > torch.tensor(b[:2]).float()) & (centers < torch.tensor(b[2:]).float())).all(1).int() for b in BOXES
    )
    assert numbers["ambiguous"] == int(((index >= 0) & (inside > 1)).sum()) > 0
    assert sum(numbers["positives_by_stride"].values()) == numbers["positives"]
    assert numbers["contested"] == 0  # of a hard assignment no place is two objects'
    for kind, values in (("positive", stage.positive), ("negative", stage.negative)):
        assert sum(numbers["weights"][kind]) == int((values > 0).sum())
    assert sum(numbers["negatives_by_iou"]["weight"]) == pytest.approx(
        float(stage.negative[0][index < 0].sum()), rel=1e-4
    )
    rows = csv_text(found.to_csv("atss", "dense", ["disc", "square"])).splitlines()
    assert len(rows) == 4 and rows[1].startswith("atss,dense,0,0,disc,")


def test_agreement_of_assigners_on_the_same_predictions() -> None:
    one, first = photograph(), method()
    second = with_assigner(first, "task_aligned")
    a, b = first.compute_losses(one).stages["dense"], second.compute_losses(one).stages["dense"]
    assert torch.equal(a.predictions.logits, b.predictions.logits)  # frozen
    found = Agreement()
    found.add({"atss": a, "task_aligned": b, "again": a})
    pairs = {tuple(pair["methods"]): pair for pair in found.to_list()}
    assert pairs["atss", "again"]["shared_positives"] == pairs["atss", "again"]["shared_weight"] == 1
    both = int(((a.index == b.index) & (a.index >= 0)).sum())
    either = int((a.index >= 0).sum() + (b.index >= 0).sum()) - both
    assert pairs["atss", "task_aligned"]["shared_positives"] == pytest.approx(both / either)
    assert 0 < both < either


def test_places_of_several_objects_are_counted() -> None:
    one = photograph(np.array([[10.0, 10, 80, 80], [12, 12, 82, 82]]), np.array([0, 1]))
    torch.manual_seed(0)
    model = create_model("dw_r18_fpn", 3, image_size=96, channels=32, depth=1).eval()
    judged = Method("dw", model, (0, 1, 2)).compute_losses(one)
    found, view = Supervision(), judged.stages["dense"].of_image(0)
    found.add(judged.stages["dense"], judged.factor, one.labels)
    assert found.contested == int((view.of_object(0).chosen & view.of_object(1).chosen).sum()) > 0


def test_places_of_different_grids_are_not_compared() -> None:
    one = photograph()
    found = Agreement()
    found.add(
        {
            "atss": method().compute_losses(one).stages["dense"],
            "fcos": method("retinanet_r18_fpn").compute_losses(one).stages["dense"],
        }
    )
    assert found.to_list() == []


def test_unknown_classes_are_left_alone() -> None:
    one = photograph()
    known = method()
    partly = Method("partly", known.model, (-1, 1, 2))
    stage = partly.compute_losses(one).stages["dense"]
    assert stage.truth.valid[0, :3].tolist() == [False, True, True]
    assert not (stage.index == 0).any()


def test_thousands_of_objects_and_none() -> None:
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 90, (1500, 2))
    crowded = photograph(np.concatenate([corner, corner + generator.uniform(2, 6, (1500, 2))], 1), np.arange(1500) % 3)
    judged = method().compute_losses(crowded)
    found = stages_to_dict(judged.stages, crowded, judged.factor, judged.classes)["dense"]
    assert len(found["lists"]["lengths"]) == MOST_OBJECTS
    assert crowded.to_dict()["hidden"] == 1500 - MOST_OBJECTS
    assert len(str(found)) < 400_000
    empty = photograph(np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
    judged = method().compute_losses(empty)
    found = stages_to_dict(judged.stages, empty, judged.factor, judged.classes)["dense"]
    assert found["lists"]["lengths"] == [] and found["places"]["greatest"]["positive"] == 0
    numbers = Supervision()
    numbers.add(judged.stages["dense"], judged.factor, empty.labels)
    assert numbers.to_dict()["objects"] == 0 and numbers.correlation() is None


def test_models_that_do_not_say_their_weights_show_their_assignments() -> None:
    one, silent = photograph(), method()
    own = silent.compute_losses(one).stages["dense"]
    criterion = silent.model.network.branch.criterion
    silent.model.network.branch.criterion = lambda *words: criterion(*words)
    judged = silent.compute_losses(one)
    stage = judged.stages["dense"]
    assert judged.assumed and torch.equal(stage.index, own.index)
    assert torch.equal(stage.positive, (own.index >= 0).float()) and stage.regression.sum() == stage.positive.sum()
    assert torch.equal(stage.negative, (stage.weighed & (own.index < 0)).float())
    page = LabPage("t", ["atss"], ["disc", "square"])
    page.add(one, {"atss": judged})
    assert "does not say what its losses weigh" in page.remarks()[0] and "does not say" in page.html()
    silent.model.network.branch.forward = lambda *_: StepOutput({"loss": torch.zeros(())})
    with pytest.raises(lab.NothingToExplain, match="without weights"):
        silent.compute_losses(one)


def test_a_page_of_thousands_of_objects_stays_small() -> None:
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 900, (3000, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(4, 60, (3000, 2))], 1)
    crowded, dense = photograph(boxes, np.arange(3000) % 3, side=960), method()
    dense.model.preprocess = replace(dense.model.preprocess, short=320, long=320)
    page = LabPage("t", ["atss"], ["disc", "square", "ring"])
    page.add(crowded, {"atss": dense.compute_losses(crowded)})
    assert len(page.images[0]) < 2.5e6
    assert json.loads(page.images[0])["hidden"] == 2600
    assert page.to_dict()["stages"][0]["objects"] == 3000  # all are counted


def test_large_photographs_are_shown_smaller() -> None:
    large = photograph(BOXES * 20, LABELS, side=1920)
    picture = large.to_dict()
    assert picture["size"] == [960, 960] and picture["original"] == [1920, 1920]
    assert picture["objects"][0][2:] == [60.0, 80.0, 700.0, 600.0]


def test_the_lab_is_reachable() -> None:
    assert lab.explain is not None and {"explain", "Explanation"} <= set(lab.__all__)
