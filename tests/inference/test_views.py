"""Test-time augmentation: views and back exactly, and one list of all of them as a literal reference makes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from poise import Detector
from poise.data.demo import write_demo_data
from poise.inference.detect import detect_images
from poise.inference.views import TestTimeAugmentation, detect_views, flip_inside, flipped, merged, resized
from poise.models import create_model
from poise.preprocess import Preprocess
from poise.structures import Detections


class Bright:
    """Finds the rectangle of pixels above 0.5 of each image, whatever is around it; its score is its mean."""

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        boxes, scores = [], []
        for image in pixels:
            y, x = torch.where(image[0] > 0.5)
            boxes.append([float(x.min()), float(y.min()), float(x.max()) + 1, float(y.max()) + 1])
            scores.append(float(image[0][image[0] > 0.5].mean().clamp(max=1)))
        many = len(pixels)
        values = torch.tensor(boxes)[:, None], torch.tensor(scores)[:, None]
        return Detections(*values, torch.zeros(many, 1, dtype=torch.int64), torch.ones(many, 1, dtype=torch.bool))


def pictures() -> tuple[Tensor, Tensor]:
    """Two images of different sizes in one padded batch, a rectangle in each."""
    pixels = torch.zeros(2, 3, 32, 48)
    pixels[0, :, 4:10, 6:20] = 0.9
    pixels[1, :, 20:28, 2:5] = 0.8
    return pixels, torch.tensor([[32.0, 48.0], [30.0, 24.0]])


def test_mirroring_stays_within_the_image() -> None:
    pixels, sizes = pictures()
    mirrored = flip_inside(pixels, sizes)
    assert mirrored[0].equal(pixels[0].flip(-1))
    assert mirrored[1, :, :, :24].equal(pixels[1, :, :, :24].flip(-1)) and mirrored[1, :, :, 24:].eq(0).all()
    assert flip_inside(mirrored, sizes).equal(pixels)


def test_boxes_come_back_from_the_mirror_and_from_another_size() -> None:
    pixels, sizes = pictures()
    seen = Bright().predict(flip_inside(pixels, sizes), sizes)
    assert flipped(seen, sizes).boxes[:, 0].tolist() == [[6, 4, 20, 10], [2, 20, 5, 28]]
    large = resized(Bright().predict(pixels, sizes), sizes, sizes * torch.tensor([2.0, 3.0]))
    assert large.boxes[:, 0].tolist() == [[18, 8, 60, 20], [6, 40, 15, 56]]


def test_a_mirrored_view_of_a_symmetric_detector_adds_nothing() -> None:
    pixels, sizes = pictures()
    alone = Bright().predict(pixels, sizes)
    for kind in ("nms", "soft_nms"):
        both = detect_views(Bright(), [(pixels, sizes)], TestTimeAugmentation(merge=kind, max_detections=1))  # type: ignore[arg-type]
        assert both.boxes.equal(alone.boxes) and both.scores.equal(alone.scores) and both.valid.all()
    kept = detect_views(Bright(), [(pixels, sizes)], TestTimeAugmentation(max_detections=5))
    assert kept.valid.sum(1).tolist() == [1, 1]


def literal(found: list[Detections], image: int, overlap: float, soft: bool) -> list[tuple[float, int]]:
    """Scores and positions that are left, one after another."""
    boxes, scores, labels = (
        torch.cat([getattr(one, n)[image] for one in found]) for n in ("boxes", "scores", "labels")
    )
    valid = torch.cat([one.valid[image] for one in found])
    left = {i: float(scores[i]) for i in range(len(scores)) if valid[i]}
    kept: list[tuple[float, int]] = []
    while left:
        best = max(left, key=lambda i: left[i])
        kept.append((left.pop(best), best))
        for other in list(left):
            iou = float(box_iou(boxes[best][None], boxes[other][None]))
            if labels[other] == labels[best] and (iou >= overlap if soft else iou > overlap):
                left[other] = left[other] * (1 - iou) if soft else 0.0
                if left[other] < 1e-3:
                    del left[other]
    return kept


@pytest.mark.parametrize("soft", [False, True], ids=["nms", "soft-nms"])
@pytest.mark.parametrize("seed", [0, 1])
def test_all_views_together_are_the_literal_reference(soft: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for count in (12, 7, 9):
        corner = torch.rand(2, count, 2, generator=generator) * 20
        boxes = torch.cat((corner, corner + 6 + 8 * torch.rand(2, count, 2, generator=generator)), -1)
        scores = 0.05 + 0.9 * torch.rand(2, count, generator=generator)
        labels = torch.randint(2, (2, count), generator=generator)
        found.append(Detections(boxes, scores, labels, torch.rand(2, count, generator=generator) > 0.2))
    together = merged(found, TestTimeAugmentation(merge="soft_nms" if soft else "nms", overlap=0.4, max_detections=10))
    everything = torch.cat([one.boxes for one in found], 1)
    for image in range(2):
        wanted = literal(found, image, 0.4, soft)[:10]
        valid = together.valid[image]
        torch.testing.assert_close(together.scores[image][valid], torch.tensor([score for score, _ in wanted]))
        torch.testing.assert_close(together.boxes[image][valid], everything[image][[i for _, i in wanted]])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("flip", TestTimeAugmentation()),
        ("0.75, 1,1.5,flip,soft_nms", TestTimeAugmentation((0.75, 1.0, 1.5), True, "soft_nms")),
        ("2", TestTimeAugmentation((2.0,), False)),
    ],
)
def test_words_of_the_command_line(text: str, wanted: TestTimeAugmentation) -> None:
    assert TestTimeAugmentation.parse(text) == wanted


def test_settings_that_cannot_be_right() -> None:
    for text, wanted in (("flop", "it is made of"), ("0", "must lie in"), ("9", "must lie in")):
        with pytest.raises(ValueError, match=wanted):
            TestTimeAugmentation.parse(text)


def test_scales_are_factors_of_the_models_size() -> None:
    sizes = TestTimeAugmentation((0.5, 1.0)).sizes(Preprocess(short=800, long=1333))
    assert [(one.short, one.long) for one in sizes] == [(400, 666), (800, 1333)]


def test_a_model_on_images_and_on_a_data_set(tmp_path: Path) -> None:
    """One unmirrored view of the model's own size is what the model says; more views change the numbers."""
    torch.manual_seed(0)
    model = create_model("atss_r18_fpn", num_classes=8, backbone="mobilenetv3_small_100", channels=16, image_size=64)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((40, 60), (70, 50))]
    head = model.network.branch.postprocess  # type: ignore[union-attr]
    object.__setattr__(head, "score_threshold", 0.0)
    model.eval()
    alone = detect_images(model, images)
    again = detect_images(model, images, augmentation=TestTimeAugmentation((1.0,), flip=False, overlap=1.0))
    for one, two in zip(alone, again, strict=True):
        assert all(a.equal(b) for a, b in zip(one, two, strict=True))
    several = detect_images(model, images, augmentation=TestTimeAugmentation((0.5, 1.0)))
    assert all(
        len(one[1]) <= 100 and (one[0][:, 2] <= image.shape[2]).all()
        for one, image in zip(several, images, strict=True)
    )
    data = write_demo_data(tmp_path / "scenes", train=2, val=3, size=64)
    detector = Detector(model, "cpu")
    plain = detector.val(data, batch_size=2)
    same = detector.val(data, batch_size=2, tta=TestTimeAugmentation((1.0,), flip=False, overlap=1.0))
    assert same.detections == plain.detections
    counted: list[int] = []
    assert detector.val(data, batch_size=2, tta="0.5,1,flip", progress=counted.append).detections != plain.detections
    assert sum(counted) == plain.images
    with pytest.raises(ValueError, match="exclude each other"):
        list(detector.predict([images[0]], tile=64, tta="flip"))
