"""Tar shards: the same batches as the folder, exact resuming, damage named; and nothing of a tar is unpacked."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from poise.cli import main
from poise.data import check_data, open_data, read_image, splits, write_demo_data
from poise.data.errors import BadImage, DataError
from poise.data.image_set import ImageSet
from poise.data.loader import train_loader
from poise.data.shards import write_shards
from poise.preprocess import Preprocess
from poise.recipes.augment import AugmentSettings
from poise.structures import Batch

SMALL = Preprocess(short=40, long=64)
EVERYTHING = AugmentSettings(flip=0.5, min_iou_crop=0.4, scale_jitter=(0.6, 1.6), mosaic=0.4, mixup=0.4)

pytestmark = pytest.mark.filterwarnings("error:This DataLoader will create")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_data(tmp_path_factory.mktemp("demo") / "scenes", train=14, val=3, size=96)


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    """Every split in tars of few records (one megabyte is the least a user may ask for)."""
    for split in splits(folder):
        write_shards(open_data(folder, split), tmp_path / "shards", megabytes=1)
    return tmp_path / "shards"


def batches(image_set: ImageSet, start: int = 0, workers: int = 0) -> list[Batch]:
    loader = train_loader(image_set, EVERYTHING, SMALL, batch_size=3, seed=7, workers=workers)
    return list(loader.epoch(1, start))


def same(a: Batch, b: Batch) -> bool:
    truths = zip(vars(a.truth).values(), vars(b.truth).values(), strict=True)
    return torch.equal(a.pixels, b.pixels) and all(torch.equal(x, y) for x, y in truths)


def test_batches_are_those_of_the_folder_bit_by_bit_whatever_the_workers(folder: Path, shards: Path) -> None:
    wanted = batches(open_data(folder, "train"))
    for workers in (0, 2):
        found = batches(open_data(shards, "train"), workers=workers)
        assert len(found) == len(wanted) > 3
        assert all(same(a, b) for a, b in zip(found, wanted, strict=True))


def test_an_epoch_resumes_at_any_batch(shards: Path) -> None:
    image_set = open_data(shards, "train")
    whole, rest = batches(image_set), batches(image_set, start=2)
    assert len(rest) == len(whole) - 2 and all(same(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_annotations_are_the_data_sets_own(folder: Path, shards: Path) -> None:
    assert splits(shards) == splits(folder) == ("train", "val")
    for split in splits(folder):
        before, after = open_data(folder, split).to_coco(), open_data(shards, split).to_coco()
        for image in (*before["images"], *after["images"]):
            del image["file_name"]
        assert before == after


def test_check_reads_shards(shards: Path) -> None:
    report = check_data(shards)
    assert not report.dropped and "image-unlisted" not in str(report.to_dict())


def test_shards_end_at_their_size_and_are_what_webdataset_reads(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    data = tmp_path / "noise" / "train"
    data.mkdir(parents=True)
    from PIL import Image

    records = []
    for i in range(5):
        Image.fromarray(noise.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save(data / f"{i}.png")
        records.append({"id": i, "file_name": f"{i}.png", "width": 400, "height": 400})
    annotation = {"id": 1, "image_id": 3, "category_id": 9, "bbox": [10, 20, 30, 40], "area": 1200, "iscrowd": 0}
    content = {"images": records, "annotations": [annotation], "categories": [{"id": 9, "name": "noise"}]}
    import json

    (data / "_annotations.coco.json").write_text(json.dumps(content))
    paths = write_shards(open_data(data.parent, "train"), tmp_path / "out", megabytes=1)
    assert [path.name for path in paths] == [f"train-{i:06d}.tar" for i in range(3)]
    with tarfile.open(paths[1]) as tar:
        names = tar.getnames()
        assert names == ["000000002.png", "000000002.json", "000000003.png", "000000003.json"]
        fields = json.load(tar.extractfile("000000003.json"))
        assert fields["bbox"] == [[10, 20, 30, 40]] and fields["category_id"] == [9] and fields["image_id"] == 3
        assert tar.extractfile("000000003.png").read() == (data / "3.png").read_bytes()


def test_a_changed_byte_names_shard_and_record(shards: Path) -> None:
    image_set = open_data(shards, "train")
    tar = shards / "train-000000.tar"
    with tarfile.open(tar) as archive:
        member = (
            archive.getmember("000000004.jpg") if "000000004.jpg" in archive.getnames() else archive.getmembers()[8]
        )
    content = bytearray(tar.read_bytes())
    content[member.offset_data + member.size // 2] ^= 0x10
    tar.write_bytes(content)
    with pytest.raises(BadImage, match=rf"train-000000.tar.{member.name}: its bytes .* not those that were written"):
        image_set.read(4)
    assert image_set.read(3).shape[0] == 3
    report = check_data(shards)
    assert report.dropped == 1 and f"train-000000.tar/{member.name}" in str(report.to_dict())


def test_a_shard_that_ends_early_or_is_gone_is_refused(shards: Path) -> None:
    tar = shards / "train-000000.tar"
    image_set = open_data(shards, "train")
    tar.write_bytes(tar.read_bytes()[:-40_000])
    with pytest.raises(DataError, match=r"train-000000.tar: has \d+ bytes instead of \d+; copy it again"):
        open_data(shards, "train")
    with pytest.raises(BadImage, match=r"train-000000.tar/0000000\d\d.*the shard ends \d+ bytes early"):
        [image_set.read(i) for i in range(len(image_set))]
    tar.unlink()
    with pytest.raises(DataError, match=r"train-000000.tar: is missing"):
        open_data(shards, "train")


def test_damaged_annotations_and_indexes_are_refused(shards: Path) -> None:
    index = shards / "train-000000.tar.index.npz"
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(BadImage, match=r"train-000000.tar.index.npz: is damaged"):
        open_data(shards, "train").read(0)
    file = shards / "train.annotations.npz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"train.annotations.npz: is no readable file of annotations"):
        open_data(shards, "train")


def test_a_tar_without_index_is_read_by_its_headers_and_names_never_leave_it(tmp_path: Path, folder: Path) -> None:
    image = next((folder).rglob("*.jpg"), None) or next(folder.rglob("*.png"))
    tar = tmp_path / "some.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(image, "inside.jpg")
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, str(image)
        archive.addfile(link)
        outside = tarfile.TarInfo("../outside.jpg")
        outside.size = 3
        archive.addfile(outside, io.BytesIO(b"abc"))
    assert torch.equal(read_image(tar / "inside.jpg"), read_image(image))
    with pytest.raises(BadImage, match="the shard holds no such record"):
        read_image(tar / "link.jpg")
    assert not (tmp_path / "outside.jpg").exists() and not (tmp_path.parent / "outside.jpg").exists()


def test_the_command_writes_every_split_and_refuses_to_write_over_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["shard", str(folder), "--out", str(out)]) == 0
    assert "train: 14 images" in capsys.readouterr().out
    assert len(open_data(out, "val")) == 3
    assert main(["shard", str(folder), "--out", str(out)]) == 1
    assert "holds shards of 'train' already" in capsys.readouterr().err
