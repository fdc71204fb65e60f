"""Proposals from files: reading them, their faults, and their way through augmentation into batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from poise.data import DataError, ImageSet, evaluation_loader, open_data, train_loader, with_proposals
from poise.data.augment import build_pipeline, make_scene
from poise.data.augment.chance import seeded
from poise.data.augment.scene import Scene, plain_boxes, without_proposals
from poise.data.augment.scene import with_proposals as scene_with_proposals
from poise.engine.sources import open_sets
from poise.preprocess import Preprocess
from poise.recipes import DataSettings
from poise.recipes.augment import AugmentSettings

SIZE = 64


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits of four gray images; their ids 10, 11, 12, 13 and 20, … do not meet."""
    root = tmp_path_factory.mktemp("gray")
    for split, first in (("train", 10), ("valid", 20)):
        (root / split).mkdir()
        images = []
        for i in range(4):
            Image.fromarray(np.full((48, 64, 3), 40 * i, np.uint8)).save(root / split / f"{first + i}.png")
            images.append({"id": first + i, "file_name": f"{first + i}.png", "width": 64, "height": 48})
        box = {"id": 1, "image_id": first, "category_id": 3, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0}
        coco = {"images": images, "annotations": [box], "categories": [{"id": 3, "name": "thing"}]}
        (root / split / "_annotations.coco.json").write_text(json.dumps(coco))
    return root


def file_of(folder: Path, *records: Any) -> Path:
    path = folder / "proposals.json"
    path.write_text(json.dumps(list(records)))
    return path


def one(image_id: Any, *bbox: float, score: float = 0.5) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 99, "bbox": list(bbox), "score": score}


def test_the_best_of_each_image_in_order(root: Path, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    scores = draws.permutation(40) / 40
    records = [one(10 + i % 4, i, 1, 10, 5, score=float(scores[i])) for i in range(40)]
    images, remarks = with_proposals(open_data(root, "train"), file_of(tmp_path, *records), limit=3)
    assert remarks == []
    for record in images:
        own = sorted((r for r in records if r["image_id"] == record.id), key=lambda r: -r["score"])[:3]
        assert record.proposals is not None
        assert record.proposals.tolist() == [[r["bbox"][0], 1, r["bbox"][0] + 10, 6] for r in own]
    some = images.subset([2, 0])
    assert some[0].proposals is not None and some[0].proposals.tolist() == images[2].proposals.tolist()  # type: ignore[union-attr]
    assert some[1].proposals is not None and some[1].proposals.tolist() == images[0].proposals.tolist()  # type: ignore[union-attr]
    assert open_data(root, "train")[0].proposals is None


FAULTS = {
    "not finite": one(10, float("nan"), 1, 5, 5),
    "not finite score": one(10, 1, 1, 5, 5, score=float("nan")),
    "without area": one(10, 1, 1, 0, 5),
    "outside their image": one(10, 70, 1, 5, 5),
    "without a bbox": one(10, 1, 1, 5),
    "without a score": {"image_id": 10, "bbox": [1, 1, 5, 5]},
    "without image_id": {"bbox": [1, 1, 5, 5], "score": 1.0},
    "not a record": 7,
}


@pytest.mark.parametrize("kind", FAULTS)
def test_what_cannot_be_used_is_refused_or_left_out_and_named(root: Path, tmp_path: Path, kind: str) -> None:
    images, good = open_data(root, "train"), [one(10 + i, 2, 2, 9, 9) for i in range(4)]
    path = file_of(tmp_path, *good, FAULTS[kind])
    with pytest.raises(DataError, match="1 proposal cannot be used .*for example image .*on_bad_data"):
        with_proposals(images, path)
    found, remarks = with_proposals(images, path, on_bad_data="skip")
    assert len(remarks) == 1 and "1 proposal cannot be used" in remarks[0] and "left out" in remarks[0]
    assert [len(record.proposals) for record in found if record.proposals is not None] == [1] * 4


def test_unknown_images_and_images_without_proposals_are_said(root: Path, tmp_path: Path) -> None:
    path = file_of(tmp_path, one(10, 2, 2, 9, 9), one(777, 2, 2, 9, 9), one(10, 3, 3, 9, 9))
    images, (strangers, without) = with_proposals(open_data(root, "train"), path)
    assert "1 of 3 proposals are of images that are not in this split (the first: 777)" in strangers
    assert "3 of 4 images have no proposals (the first: 11, 12, 13)" in without
    assert [record.proposals.shape for record in images if record.proposals is not None] == [(2, 4)] + [(0, 4)] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not valid JSON"),
        ('{"images": [], "annotations": []}', "holds no proposals: a list of"),
        ("[]", "no proposal belongs to an image of 'train'"),
        (json.dumps([one("10", 1, 1, 5, 5)]), "its ids are like \\[10\\], those of the file like '10'"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_none(root: Path, tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "f.json").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        with_proposals(open_data(root, "train"), tmp_path / "f.json")
    assert "f.json" in str(caught.value)
    with pytest.raises(ValueError, match="at least 1"):
        with_proposals(open_data(root, "train"), tmp_path / "f.json", limit=0)


def test_settings_find_the_file_of_each_split(root: Path, tmp_path: Path) -> None:
    path = str(file_of(tmp_path, *[one(i, 2, 2, 9, 9) for i in (10, 11, 12, 13, 20, 21, 22, 23)]))
    train, val, remarks = open_sets(DataSettings(str(root), proposals=path))
    assert train.proposals is not None and val is not None and val.proposals is not None
    about = [remark for remark in remarks if "proposals" in remark]
    assert len(about) == 2 and all("4 of 8 proposals are of images that are not in this split" in r for r in about)
    with pytest.raises(ValueError, match="without data.proposals"):
        open_sets(DataSettings(str(root), val_proposals=path))


def test_one_file_for_splits_that_share_ids_is_refused(root: Path, tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        for file in (root / "train").iterdir():
            (tmp_path / split / file.name).write_bytes(file.read_bytes())
    path = str(file_of(tmp_path, one(10, 2, 2, 9, 9)))
    with pytest.raises(ValueError, match="both have images with the id 10.*data.val_proposals"):
        open_sets(DataSettings(str(tmp_path), proposals=path))
    assert open_sets(DataSettings(str(tmp_path), proposals=path, val_proposals=path))[0].proposals is not None


EVERYTHING = {
    "flip": AugmentSettings(flip=1.0),
    "crop": AugmentSettings(min_iou_crop=1.0),
    "mosaic": AugmentSettings(mosaic=1.0),
    "mixup": AugmentSettings(mixup=1.0),
    "copy_paste": AugmentSettings(copy_paste=1.0),
    "jitter": AugmentSettings(scale_jitter=(0.5, 1.5)),
    "warp": AugmentSettings(warp_scale=(0.6, 1.4), warp_stretch=(0.8, 1.2), warp_shift=0.2, flip=0.5),
    "color": AugmentSettings(photometric=1.0, recolor=0.5, short_range=(40, 80)),
}


def scene(seed: int) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, 70, 90), generator=generator, dtype=torch.uint8)
    corner = torch.rand(5, 2, generator=generator) * 50
    boxes = torch.cat((corner, corner + 4 + torch.rand(5, 2, generator=generator) * 30), 1)
    return make_scene(
        image, boxes, torch.arange(5), torch.tensor([0, 0, 1, 0, 0]), ignore=torch.tensor([0, 0, 0, 1, 0])
    )


def augmented(settings: AugmentSettings, seed: int, extra: Tensor | None) -> Scene:
    """The pipeline's result; ``extra`` chooses boxes of each scene that are its proposals too."""

    def prepared(number: int) -> Scene:
        plain = scene(number)
        return plain if extra is None else scene_with_proposals(plain, plain_boxes(plain)[extra])

    numbers = iter(range(100 * seed + 1, 100 * seed + 99))
    pipeline = build_pipeline(settings, Preprocess(short=SIZE, long=SIZE))
    with seeded(seed):
        return pipeline(prepared(100 * seed), lambda: prepared(next(numbers)))


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("seed", range(3))
def test_proposals_change_neither_image_nor_objects_and_follow_both(name: str, seed: int) -> None:
    """Proposals on the very objects: what is left of each object has a proposal that went the same way."""
    plain = augmented(EVERYTHING[name], seed, None)
    found = augmented(EVERYTHING[name], seed, torch.arange(5))
    assert "proposal" not in plain and torch.equal(plain["image"], found["image"])
    objects = without_proposals(found)
    for key in ("boxes", "labels", "iscrowd", "ignore"):
        assert torch.equal(plain[key].as_subclass(Tensor), objects[key].as_subclass(Tensor)), key
    proposals = plain_boxes(found)[found["proposal"]]
    assert not (found["iscrowd"] | found["ignore"])[found["proposal"]].any()
    height, width = found["image"].shape[-2:]
    assert bool((proposals >= 0).all() and (proposals <= torch.tensor([width, height] * 2)).all())
    assert bool((proposals[:, 2:] > proposals[:, :2]).all())
    nearest = (plain_boxes(objects)[:, None] - proposals).abs().amax(2).amin(1)
    if name == "copy_paste":  # of the pasted objects the proposals stay behind
        nearest = nearest[: int((nearest == 0).sum())]
        assert len(nearest) >= 2
    assert float(nearest.max()) == 0


def with_file(root: Path, folder: Path) -> ImageSet:
    path = file_of(folder, one(10, 8, 8, 20, 20), one(10, 30, 4, 10, 10, score=0.4), one(12, 0, 0, 64, 48))
    return with_proposals(open_data(root, "train"), path)[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_proposals_apart_from_the_truth(root: Path, tmp_path: Path, workers: int) -> None:
    images, preprocess = with_file(root, tmp_path), Preprocess(short=96, long=128)
    (batch,) = evaluation_loader(images, preprocess, batch_size=4, workers=workers)
    (plain,) = evaluation_loader(open_data(root, "train"), preprocess, batch_size=4)
    assert plain.proposals is None and batch.proposals is not None
    assert torch.equal(batch.pixels, plain.pixels) and torch.equal(batch.truth.boxes, plain.truth.boxes)
    assert torch.equal(batch.truth.valid, plain.truth.valid) and not batch.truth.crowd.any()
    assert batch.proposals.valid.tolist() == [[True, True], [False, False], [True, False], [False, False]]
    assert batch.proposals.boxes[0].tolist() == [[16, 16, 56, 56], [60, 8, 80, 28]]
    assert batch.proposals.boxes[2, 0].tolist() == [0, 0, 128, 96]


def test_training_batches_depend_on_nothing_but_seed_epoch_and_index(root: Path, tmp_path: Path) -> None:
    settings = AugmentSettings(mosaic=0.5, flip=0.5, copy_paste=0.5)
    batches = []
    for workers in (0, 2):
        loader = train_loader(
            with_file(root, tmp_path), settings, Preprocess(short=64, long=64), batch_size=2, seed=3, workers=workers
        )
        batches.append(list(loader.epoch(1)))
    for one_batch, other in zip(*batches, strict=True):
        assert one_batch.proposals is not None and other.proposals is not None
        assert torch.equal(one_batch.proposals.boxes, other.proposals.boxes)
        assert torch.equal(one_batch.proposals.valid, other.proposals.valid)
