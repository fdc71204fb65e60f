"""Packed arrays, statistics of the supervision and agreement against counts by hand."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from poise import lab
from poise.lab.annotated_image import MAX_OBJECTS, AnnotatedImage, stages_to_dict
from poise.lab.methods import Method, with_assigner
from poise.lab.packing import PackedArrays, decode_log, encode_log
from poise.lab.page import LabPage
from poise.lab.statistics import AssignmentAgreement, Supervision, csv_text
from poise.models import create_model
from poise.structures import StepOutput

BOXES = np.array([[6.0, 8, 70, 60], [40, 30, 90, 90], [50, 50, 62, 64]])
LABELS = np.array([0, 1, 1])


def sample_image(boxes: np.ndarray = BOXES, labels: np.ndarray = LABELS, side: int = 96) -> AnnotatedImage:
    image = torch.randint(0, 256, (3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return AnnotatedImage("a <b>.jpg", image, boxes, labels, np.zeros(len(labels), dtype=bool))


def method(name: str = "atss_r18_fpn") -> Method:
    torch.manual_seed(0)
    return Method(name, create_model(name, 3, image_size=96, channels=32, depth=1).eval(), (0, 1, 2))


def test_codes_keep_three_digits_over_six_decades() -> None:
    values = np.concatenate([[0.0, 3.0], 3 * 10 ** -np.linspace(0, 5.9, 50), [1e-9]])
    code, greatest = encode_log(values)
    assert greatest == 3
    read = decode_log(code, greatest)
    assert read[0] == 0 and read[-1] == 0
    assert np.allclose(read[1:-1], values[1:-1], rtol=3e-4)
    assert encode_log(np.zeros(4))[0].any() == False  # noqa: E712
    assert encode_log(np.array([np.nan, 1.0]))[0].tolist() == [0, 65535]


def test_arrays_are_deflated_little_endian_words() -> None:
    arrays = PackedArrays()
    arrays.add_integers("owner", np.array([-1, 0, 7]))
    arrays.add_boxes("box", np.array([[0.0, -1, 2.125, 1e9]] * 3))
    found = arrays.to_dict()
    words = np.frombuffer(zlib.decompress(base64.b64decode(found["data"])), dtype="<u2").reshape(5, 3)
    assert found["names"] == ["owner", "box0", "box1", "box2", "box3"] and found["length"] == 3
    assert words[0].tolist() == [65535, 0, 7]
    assert words[1:].view("<i2")[:, 0].tolist() == [0, -8, 17, 32767]


def test_supervision_equals_a_count_of_the_assignment() -> None:
    one = sample_image()
    result = method().explain(one)
    stage = result.stages["dense"]
    found = Supervision()
    found.add(stage, result.scale, one.labels)
    numbers = found.to_dict(["disc", "square", "ring"])
    index = stage.index[0]
    assert numbers["positives"] == int((index >= 0).sum())
    assert found.objects["positives"].tolist() == [int((index == g).sum()) for g in range(3)]
    assert found.objects["size"] == pytest.approx([np.sqrt(64 * 52), np.sqrt(50 * 60), np.sqrt(12 * 14)], rel=1e-5)
    assert found.objects["weight"].sum() == pytest.approx(float(stage.positive.sum()), rel=1e-5)
    assert found.objects["box_weight"].sum() == pytest.approx(float(stage.regression[0][index >= 0].sum()), rel=1e-5)
    assert numbers["by_size"]["small"]["objects"] == 1 and numbers["by_size"]["large"]["objects"] == 0
    assert sum(one["weight_fraction"] for one in numbers["by_class"].values()) == pytest.approx(1)
    assert set(numbers["by_class"]) == {"disc", "square"}
    centers = stage.priors.centers[0]
    inside = sum(
        ((centers > torch.tensor(b[:2]).float()) & (centers < torch.tensor(b[2:]).float())).all(1).int() for b in BOXES
    )
    assert numbers["ambiguous"] == int(((index >= 0) & (inside > 1)).sum()) > 0
    assert sum(numbers["positives_by_stride"].values()) == numbers["positives"]
    assert numbers["multi_object"] == 0  # a hard assignment gives no prior to two objects
    for kind, values in (("positive", stage.positive), ("negative", stage.negative)):
        assert sum(numbers["weight_histograms"][kind]) == int((values > 0).sum())
    assert sum(numbers["negatives_by_iou"]["weight"]) == pytest.approx(
        float(stage.negative[0][index < 0].sum()), rel=1e-4
    )
    rows = csv_text(found.to_csv("atss", "dense", ["disc", "square"])).splitlines()
    assert len(rows) == 4 and rows[1].startswith("atss,dense,0,0,disc,")


def test_relative_weights_are_those_of_one_image() -> None:
    """Each image has its own mean; without positives the relative weight is 0."""
    found = Supervision()
    for image, label, size, weight, box_weight in (
        (0, 0, 10.0, 1.0, 0.0),
        (0, 1, 200.0, 3.0, 2.0),
        (1, 1, 40.0, 0.0, 0.0),
        (2, 0, 20.0, 0.5, 0.0),
    ):
        found.rows.append((image, 0, label, size, 1.0, 1.0, weight, box_weight, 0.0, 0.0))
    assert found.relative("weight").tolist() == [0.5, 1.5, 0.0, 1.0]
    numbers = found.to_dict(["disc", "ring"])
    sizes, classes = numbers["by_size"], numbers["by_class"]
    assert [sizes[name]["relative_weight"] for name in ("small", "medium", "large")] == [0.75, 0.0, 1.5]
    assert sizes["large"]["relative_box_weight"] == 2 and classes["disc"]["relative_box_weight"] == 0
    assert classes["ring"]["relative_weight"] == 0.75


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_balanced_objects_have_the_same_weight(balance: float) -> None:
    torch.manual_seed(0)
    model = create_model("retinanet_r18_fpn", 3, object_balance=balance, image_size=96, channels=32, depth=1).eval()
    one = sample_image()
    result, found = Method("retinanet", model, (0, 1, 2)).explain(one), Supervision()
    found.add(result.stages["dense"], result.scale, one.labels)
    counts = found.objects["positives"]
    weights = [found.relative(name)[counts > 0] for name in ("weight", "box_weight")]
    assert (counts > 0).sum() >= 2
    assert (max(map(np.ptp, weights)) < 0.05) == bool(balance), weights


def test_weights_and_statistics_of_classes() -> None:
    """The model's classes 0 and 2 are those of the data with the numbers 2 and 0; class 1 is none."""
    torch.manual_seed(0)
    options = {"image_size": 96, "channels": 32, "depth": 1, "class_balance": "equalized_focal"}
    model = create_model("retinanet_r18_fpn", 3, **options).eval()
    totals = model.network.branch.class_totals.totals
    totals.copy_(torch.tensor([[1.0, 4.0], [2.0, 2.0], [9.0, 3.0]]))
    one = sample_image(labels=np.array([0, 2, 2]))
    result = Method("efl", model, (2, -1, 0)).explain(one)
    stage, found = result.stages["dense"], Supervision()
    for _ in range(2):
        found.add(stage, result.scale, one.labels, result.classes.tolist())
    numbers = found.to_dict(["disc", "square", "ring"])["by_class"]
    assert set(numbers) == {"disc", "ring"} and numbers["ring"]["objects"] == 4
    assert numbers["disc"]["positives"] == 2 * int((stage.index == 0).sum()) > 0
    for name, label, focus in (("disc", 2, 2.0), ("ring", 0, 2.0 + 8 * (1 - 1 / 4))):
        weights = stage.weights
        assert numbers[name]["negative_weight"] == pytest.approx(2 * float(weights.negative[..., label].sum()))
        assert numbers[name]["positive_weight"] == pytest.approx(2 * float(weights.positive[..., label].sum()))
        assert numbers[name]["positive_gradient"] == totals[label, 0] and numbers[name]["focusing_factor"] == focus
    assert set(found.classes) == {0, 2}, "without objects of an image too"
    found.add(
        replace(stage, truth=replace(stage.truth, labels=stage.truth.labels * 0)), result.scale, one.labels, (2, -1, 0)
    )
    assert "negative_weight" not in found.to_dict()["by_class"]["2"], "one class for all objects"


def test_agreement_of_assigners_on_the_same_predictions() -> None:
    one, first = sample_image(), method()
    second = with_assigner(first, "task_aligned")
    a, b = first.explain(one).stages["dense"], second.explain(one).stages["dense"]
    assert torch.equal(a.predictions.logits, b.predictions.logits)  # frozen
    found = AssignmentAgreement()
    found.add({"atss": a, "task_aligned": b, "again": a})
    pairs = {tuple(pair["methods"]): pair for pair in found.to_list()}
    assert pairs["atss", "again"]["positive_jaccard"] == pairs["atss", "again"]["weight_jaccard"] == 1
    both = int(((a.index == b.index) & (a.index >= 0)).sum())
    either = int((a.index >= 0).sum() + (b.index >= 0).sum()) - both
    assert pairs["atss", "task_aligned"]["positive_jaccard"] == pytest.approx(both / either)
    assert 0 < both < either


def test_positives_of_several_objects_are_counted() -> None:
    one = sample_image(np.array([[10.0, 10, 80, 80], [12, 12, 82, 82]]), np.array([0, 1]))
    torch.manual_seed(0)
    model = create_model("dw_r18_fpn", 3, image_size=96, channels=32, depth=1).eval()
    result = Method("dw", model, (0, 1, 2)).explain(one)
    found, view = Supervision(), result.stages["dense"].image_view(0)
    found.add(result.stages["dense"], result.scale, one.labels)
    assert found.multi_object == int((view.object_view(0).assigned & view.object_view(1).assigned).sum()) > 0


def test_different_priors_are_not_compared() -> None:
    one = sample_image()
    found = AssignmentAgreement()
    found.add(
        {
            "atss": method().explain(one).stages["dense"],
            "fcos": method("retinanet_r18_fpn").explain(one).stages["dense"],
        }
    )
    assert found.to_list() == []


def test_unknown_classes_are_crowds() -> None:
    one = sample_image()
    known = method()
    partly = Method("partly", known.model, (-1, 1, 2))
    stage = partly.explain(one).stages["dense"]
    assert stage.truth.valid[0, :3].tolist() == [False, True, True]
    assert not (stage.index == 0).any()


def test_thousands_of_objects_and_none() -> None:
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 90, (1500, 2))
    crowded = sample_image(
        np.concatenate([corner, corner + generator.uniform(2, 6, (1500, 2))], 1), np.arange(1500) % 3
    )
    result = method().explain(crowded)
    found = stages_to_dict(result.stages, crowded, result.scale, result.classes)["dense"]
    assert len(found["lists"]["lengths"]) == MAX_OBJECTS
    assert crowded.to_dict()["hidden_objects"] == 1500 - MAX_OBJECTS
    assert len(str(found)) < 400_000
    empty = sample_image(np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
    result = method().explain(empty)
    found = stages_to_dict(result.stages, empty, result.scale, result.classes)["dense"]
    assert found["lists"]["lengths"] == [] and found["priors"]["max"]["positive"] == 0
    numbers = Supervision()
    numbers.add(result.stages["dense"], result.scale, empty.labels)
    assert numbers.to_dict()["objects"] == 0 and numbers.correlation() is None


def test_models_without_loss_weights_show_their_assignments() -> None:
    one, silent = sample_image(), method()
    own = silent.explain(one).stages["dense"]
    criterion = silent.model.network.branch.criterion
    silent.model.network.branch.criterion = lambda *words: criterion(*words)
    result = silent.explain(one)
    stage = result.stages["dense"]
    assert result.unit_weights and torch.equal(stage.index, own.index)
    assert torch.equal(stage.positive, (own.index >= 0).float()) and stage.regression.sum() == stage.positive.sum()
    assert torch.equal(stage.negative, (stage.in_loss & (own.index < 0)).float())
    page = LabPage("t", ["atss"], ["disc", "square"])
    page.add(one, {"atss": result})
    assert "gives no loss weights" in page.all_notes()[0] and "gives no loss weights" in page.html()
    silent.model.network.branch.forward = lambda *_: StepOutput({"loss": torch.zeros(())})
    with pytest.raises(lab.NoLossWeights, match="without weights"):
        silent.explain(one)


def test_a_page_of_thousands_of_objects_stays_small() -> None:
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 900, (3000, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(4, 60, (3000, 2))], 1)
    crowded, dense = sample_image(boxes, np.arange(3000) % 3, side=960), method()
    dense.model.preprocess = replace(dense.model.preprocess, short=320, long=320)
    page = LabPage("t", ["atss"], ["disc", "square", "ring"])
    page.add(crowded, {"atss": dense.explain(crowded)})
    assert len(page.image_data[0]) < 2.5e6
    assert json.loads(page.image_data[0])["hidden_objects"] == 2600
    assert page.to_dict()["stages"][0]["objects"] == 3000  # all are counted


def test_large_images_are_downscaled() -> None:
    large = sample_image(BOXES * 20, LABELS, side=1920)
    picture = large.to_dict()
    assert picture["size"] == [960, 960] and picture["original"] == [1920, 1920]
    assert picture["objects"][0][2:] == [60.0, 80.0, 700.0, 600.0]


def test_the_lab_is_reachable() -> None:
    assert lab.explain is not None and {"explain", "Explanation"} <= set(lab.__all__)
