"""Wrong images and targets are refused before a step is lost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from poise.detection_model import DetectionModel
from poise.models import create_model
from poise.structures import Progress

GOOD = torch.tensor([[5.0, 5.0, 40.0, 40.0]])


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    torch.manual_seed(0)
    return create_model("fcos_mnv3s_fpn", num_classes=3, image_size=64, channels=32, depth=1)


@pytest.mark.parametrize(
    "boxes, label, words",
    [
        (GOOD, 3, r"object 0 has a label outside \[0, 3\)"),
        (GOOD, -1, "label outside"),
        (GOOD * torch.nan, 0, "not finite"),
        (GOOD[:, [2, 1, 0, 3]], 0, "x2 <= x1"),
        (torch.tensor([[5.0, 5.0, 5.0, 40.0]]), 0, "x2 <= x1"),
        (torch.zeros(1, 3), 0, r"\(n,4\)"),
    ],
)
def test_wrong_targets(model: DetectionModel, boxes: Tensor, label: int, words: str) -> None:
    target = {"boxes": boxes, "labels": torch.tensor([label])}
    with pytest.raises(ValueError, match=words):
        model.train()([torch.rand(3, 60, 60)], [target])
    with pytest.raises(ValueError, match=words):
        model.losses(torch.randn(1, 3, 64, 64), [target])


def test_wrong_labels_and_flags(model: DetectionModel) -> None:
    image, sound = [torch.rand(3, 60, 60)], {"boxes": GOOD, "labels": torch.tensor([1])}
    with pytest.raises(ValueError, match=r"image 0: labels are torch\.float32; class indices must be integers"):
        model.train()(image, [{**sound, "labels": torch.tensor([1.7])}])
    with pytest.raises(ValueError, match=r"image 0: iscrowd \(2,\) must be \(1,\)"):
        model.train()(image, [{**sound, "iscrowd": torch.tensor([0, 1])}])
    assert model.train()(image, [{"boxes": GOOD[:0], "labels": torch.tensor([])}])  # an empty list is of no type


def test_wrong_images(model: DetectionModel) -> None:
    for images, words in (([], "empty"), ([torch.rand(1, 50, 50)], "RGB"), ([torch.rand(3, 0, 50)], "RGB")):
        with pytest.raises(ValueError, match=words):
            model.eval()(images)
    with pytest.raises(ValueError, match="needs targets"):
        model.train()([torch.rand(3, 50, 50)])
    with pytest.raises(ValueError, match="B,3,H,W"):
        model.detect(torch.rand(3, 64, 64))


def test_crowd_and_ignored_objects_are_not_objects(model: DetectionModel) -> None:
    pixels = torch.randn(1, 3, 64, 64)
    boxes, labels = torch.tensor([[5.0, 5.0, 40.0, 40.0], [20.0, 20.0, 60.0, 60.0]]), torch.tensor([0, 1])
    expected = model.eval().losses(pixels, [{"boxes": boxes[:1], "labels": labels[:1]}])
    for key in ("iscrowd", "ignore"):
        target = {"boxes": boxes, "labels": labels, key: torch.tensor([0, 1])}
        for name, loss in model.losses(pixels, [target]).items():
            torch.testing.assert_close(loss, expected[name])


def test_boxes_come_back_in_the_original_pixels(model: DetectionModel) -> None:
    """Scaling an image that fits exactly scales its detections."""
    image = torch.rand(3, 64, 64)
    large = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    small, big = (model.eval()([picture])[0] for picture in (image, large))
    assert isinstance(small, dict) and isinstance(big, dict)
    torch.testing.assert_close(big["boxes"], small["boxes"] * 2, rtol=1e-3, atol=1e-2)


def test_names_of_classes(model: DetectionModel) -> None:
    model.set_classes(["a", "b", "c"], [7, 2, 9])
    assert model.class_names == ("a", "b", "c") and model.category_ids == (7, 2, 9)
    with pytest.raises(ValueError, match="2 names"):
        model.set_classes(["a", "b"])


def test_the_call_takes_the_progress_of_the_training() -> None:
    """TOOD starts with ATSS; without ``progress`` the losses are those of late training."""
    torch.manual_seed(0)
    model = create_model("tood_mnv3s_fpn", num_classes=3, image_size=64, channels=32, depth=1).train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    images, targets = [torch.rand(3, 64, 64)], [{"boxes": GOOD, "labels": torch.tensor([1])}]
    early, late, default = (
        {name: float(value) for name, value in model(images, targets, **more).items()}
        for more in ({"progress": Progress(0, 0)}, {"progress": Progress.final()}, {})
    )
    assert early != late and late == default


def test_no_backbone_weights_has_one_word_everywhere() -> None:
    """``"none"`` as in recipes and on the command line, ``None`` as in Python."""
    for nothing in ("none", None):
        torch.manual_seed(0)
        model = create_model("fcos_mnv3s_fpn", num_classes=3, channels=32, depth=1, backbone_weights=nothing)
        assert model.num_classes == 3
