"""Every kind of fault, one by one: refused with file and record, or exactly the faulty record left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.write_data import HEIGHT, WIDTH, coco_content, picture, voc_object, write_coco, write_voc, write_yolo

from poise.data import FAULT_KINDS, BadData, DataError, check_data, open_data

Change = Callable[[dict[str, Any]], None]


def edit(part: str, index: int, **values: Any) -> Change:
    return lambda content: content[part][index].update(values)


def append(part: str, **values: Any) -> Change:
    return lambda content: content[part].append(values)


BOX = {"image_id": 10, "category_id": 3, "area": 4.0}
NAN, INFINITE = float("nan"), float("inf")

# fault, how it comes about, (images, objects) that remain of 2 images with 1 object each
DROPPED: list[tuple[str, Change, tuple[int, int]]] = [
    ("box-degenerate", edit("annotations", 0, bbox=[4, 4, 0, 5]), (2, 1)),
    ("box-degenerate", edit("annotations", 0, bbox=[4, 4, 5, -1]), (2, 1)),
    ("box-nonfinite", edit("annotations", 0, bbox=[NAN, 4, 5, 5]), (2, 1)),
    ("box-nonfinite", edit("annotations", 0, bbox=[1, 4, INFINITE, 5]), (2, 1)),
    ("box-outside", edit("annotations", 0, bbox=[WIDTH, 4, 5, 5]), (2, 1)),
    ("box-outside", edit("annotations", 0, bbox=[-9, 4, 9, 5]), (2, 1)),
    ("box-outside", edit("annotations", 0, bbox=[4, HEIGHT + 3, 9, 5]), (2, 1)),
    ("category-unknown", edit("annotations", 0, category_id=4), (2, 1)),
    ("annotation-image-unknown", edit("annotations", 0, image_id=99), (2, 1)),
    ("object-malformed", edit("annotations", 0, bbox=[1, 2, 3]), (2, 1)),
    ("object-malformed", edit("annotations", 0, bbox=[1, 2, 3, "4"]), (2, 1)),
    ("object-malformed", edit("annotations", 0, bbox=None), (2, 1)),
    ("object-malformed", edit("annotations", 0, category_id="cat"), (2, 1)),
    ("object-malformed", edit("annotations", 0, image_id=[10]), (2, 1)),
    ("object-malformed", edit("annotations", 0, id=2**70), (2, 1)),
    ("object-malformed", lambda c: c["annotations"][0].pop("image_id"), (2, 1)),
    ("object-malformed", lambda c: c["annotations"].append(7), (2, 2)),
    ("category-malformed", append("categories", name="third"), (2, 2)),
    ("category-id-duplicate", append("categories", id=3, name="other"), (2, 2)),
    ("image-malformed", append("images", id=12), (2, 2)),
    ("image-malformed", append("images", file_name="12.png"), (2, 2)),
    ("image-id-duplicate", append("images", id=10, file_name="10.png", width=WIDTH, height=HEIGHT), (2, 2)),
    ("image-id-duplicate", append("images", id=10, file_name="x.png", width=WIDTH, height=HEIGHT), (1, 1)),
    ("image-outside-root", edit("images", 0, file_name="../../x.png"), (1, 1)),
]


@pytest.mark.parametrize(("kind", "change", "remains"), DROPPED)
def test_faulty_records_of_coco(tmp_path: Path, kind: str, change: Change, remains: tuple[int, int]) -> None:
    content = coco_content()
    change(content)
    picture(tmp_path / "x.png")
    write_coco(tmp_path / "data", content)
    with pytest.raises(BadData, match=f"{kind}: ") as caught:
        open_data(tmp_path / "data", "train")
    assert {fault.kind for fault in caught.value.faults} == {kind}
    assert 'on_bad_data="skip"' in str(caught.value)
    images = open_data(tmp_path / "data", "train", on_bad_data="skip")
    assert {fault.kind for fault in images.skipped} == {kind}
    assert (len(images), images.num_objects) == remains
    report = check_data(tmp_path / "data")
    assert report.exit_code != 0 and report.dropped == len(images.skipped)
    assert kind in [finding.kind for finding in report.findings]


NOTES: list[tuple[str, Change]] = [
    ("box-partly-outside", edit("annotations", 0, bbox=[-3, 4, 9, 5])),
    ("box-tiny", edit("annotations", 0, bbox=[3, 4, 0.5, 5])),
    ("box-duplicated", append("annotations", id=8, bbox=[4.5, 5.25, 20, 10], **BOX)),
    ("annotation-id-zero", edit("annotations", 0, id=0)),
    ("annotation-id-duplicate", edit("annotations", 0, id=2)),
    ("category-name-duplicate", append("categories", id=1, name="cat")),
    ("image-size-missing", lambda c: c["images"][0].pop("width")),
    ("image-file-duplicate", append("images", id=12, file_name="10.png", width=WIDTH, height=HEIGHT)),
]


@pytest.mark.parametrize(("kind", "change"), NOTES)
def test_notes_of_coco_change_nothing(tmp_path: Path, kind: str, change: Change) -> None:
    content = coco_content()
    change(content)
    images = open_data(write_coco(tmp_path, content), "train")
    assert kind in {fault.kind for fault in images.notes} and not images.skipped
    assert (len(images), images.num_objects) == (len(content["images"]), len(content["annotations"]))
    assert len(images.categories) == len(content["categories"])
    assert (images[0].width, images[0].height) == (WIDTH, HEIGHT)
    report = check_data(tmp_path)
    assert report.exit_code == 0 and kind in [finding.kind for finding in report.findings]


def found(path: Path, **options: Any) -> dict[str, int]:
    """Count of each kind that ``poise check`` finds."""
    return {finding.kind: finding.count for finding in check_data(path, **options).findings}


def test_missing_image(tmp_path: Path) -> None:
    (write_coco(tmp_path) / "train" / "10.png").unlink()
    with pytest.raises(BadData, match="image-missing: train/10.png"):
        open_data(tmp_path)
    assert open_data(tmp_path, on_bad_data="skip").image_ids() == [11]
    assert found(tmp_path)["image-missing"] == 1


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path) -> None:
    Image.effect_noise((WIDTH, HEIGHT), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:2000])


def _unreadable(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 99)


def _other_format(path: Path) -> None:
    Image.new("P", (WIDTH, HEIGHT)).save(path, "GIF")


def _other_size(path: Path) -> None:
    picture(path, (WIDTH, HEIGHT + 1))


def _bomb(path: Path) -> None:
    import zlib

    header = bytearray(path.read_bytes())
    header[16:24] = (60000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    path.write_bytes(header)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("image-empty", _empty),
        ("image-truncated", _truncated),
        ("image-unreadable", _unreadable),
        ("image-unsupported", _other_format),
        ("image-size-differs", _other_size),
        ("image-too-large", _bomb),
    ],
)
def test_check_finds_damaged_images(tmp_path: Path, kind: str, damage: Callable[[Path], None]) -> None:
    damage(write_coco(tmp_path) / "train" / "10.png")
    report = check_data(tmp_path)
    finding = next(finding for finding in report.findings if finding.kind == kind)
    assert finding.count == 1 and finding.examples[0].startswith("train/10.png (")
    assert report.exit_code != 0 and report.dropped == 1
    if kind != "image-truncated":
        assert kind in found(tmp_path, full=False)


def test_exif_rotation(tmp_path: Path) -> None:
    content = coco_content(3)
    content["images"][1] |= {"width": HEIGHT, "height": WIDTH}
    content["annotations"][1]["bbox"] = [1, 1, 5, 60]
    write_coco(tmp_path, content)
    for name in ("10", "11"):
        picture(tmp_path / "train" / f"{name}.png", orientation=6)
    finding = check_data(tmp_path).findings[0]
    assert (finding.kind, finding.count, finding.severity) == ("image-exif-rotated", 2, "note")
    assert "not applied" in finding.examples[0] and "6, applied" in finding.examples[1]
    images = open_data(tmp_path)
    assert [images.read(i).shape[1:] for i in range(3)] == [(HEIGHT, WIDTH), (WIDTH, HEIGHT), (HEIGHT, WIDTH)]


def test_links_out_of_the_root(tmp_path: Path) -> None:
    outside = picture(tmp_path / "secret" / "x.png")
    root = write_coco(tmp_path / "data")
    (root / "train" / "10.png").unlink()
    os.symlink(outside, root / "train" / "10.png")
    assert found(root)["image-outside-root"] == 1
    (root / "train" / "10.png").unlink()
    os.symlink(root / "train" / "11.png", root / "train" / "10.png")
    assert "image-outside-root" not in found(root)


def test_linked_folder_out_of_the_root(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "data")
    (root / "train").rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", root / "train")
    assert found(root)["image-outside-root"] == 2
    with pytest.raises(BadData, match=r"image-outside-root(.|\n)*--follow-links"):
        open_data(root)
    assert len(open_data(root, follow_links=True)) == 2
    assert not check_data(root, follow_links=True).dropped
    assert found(root)["image-outside-root"] == 2, "the next opening refuses links again"


def test_links_to_folders_of_images_are_followed_once(tmp_path: Path) -> None:
    """Layouts that are found by walking the folders, and a link to a folder that holds it."""
    root = write_yolo(tmp_path / "data", {"a": "0 0.5 0.5 0.2 0.2", "b": None})
    for name in ("images", "labels"):
        (root / name / "train").rename(tmp_path / name)
        os.symlink(tmp_path / name, root / name / "train")
    os.symlink(root, root / "images" / "again")
    with pytest.raises(ValueError, match="--follow-links"):
        open_data(root, "train")
    images = open_data(root, "train", follow_links=True)
    assert [images.path(i).name for i in range(len(images))] == ["a.png", "b.png"] and images.num_objects == 1
    content = coco_content()
    content["images"][0]["file_name"] = "../../x.png"
    with pytest.raises(BadData, match="1 image-outside-root"):
        open_data(write_coco(tmp_path / "dots", content), follow_links=True)


def test_images_in_two_splits(tmp_path: Path) -> None:
    content = coco_content()
    write_coco(tmp_path, content, "train")
    for image in content["images"]:
        image["file_name"] = "new" + image["file_name"]
    content["images"][1]["id"] = content["annotations"][1]["image_id"] = 77
    write_coco(tmp_path, content, "val", shade=1)  # the first equals the second of train
    counts = found(tmp_path)
    assert counts["split-overlap-content"] == 1 and "split-overlap-name" not in counts
    write_coco(tmp_path, coco_content(), "val", shade=50)
    assert found(tmp_path)["split-overlap-name"] == 2
    assert "split-overlap-content" not in found(tmp_path, full=False)


def test_trainval_is_no_overlap(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": voc_object(), "b": voc_object()}, "trainval")
    for split, stem in (("train", "a"), ("val", "b")):
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text(stem)
    assert found(tmp_path) == {}
    assert list(check_data(tmp_path).splits) == ["train", "val"]


def test_class_without_objects_and_unlisted_image(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"].append({"id": 9, "name": "bird"})
    picture(write_coco(tmp_path, content) / "train" / "more.png")
    report = check_data(tmp_path)
    assert {f.kind: f.examples for f in report.findings} == {
        "class-without-objects": ("bird",),
        "image-unlisted": ("train/more.png",),
    }
    assert report.splits["train"].classes == {"cat": 1, "Dog": 1, "bird": 0}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 0.5 0.5 0.2", "label-malformed"),
        ("0 0.5 0.5 0.2 0.2 0.9", "label-malformed"),
        ("0 0.5 0.5 0.2 0.2 0.9 0.8 0.7", "label-malformed"),
        ("cat 0.5 0.5 0.2 0.2", "label-malformed"),
        ("0.5 0.5 0.5 0.2 0.2", "label-malformed"),
        ("nan 0.5 0.5 0.2 0.2", "label-malformed"),
        ("2 0.5 0.5 0.2 0.2", "category-unknown"),
        ("-1 0.5 0.5 0.2 0.2", "category-unknown"),
        ("0 32 24 10 10", "label-not-normalized"),
        ("0 0.5 1.2 0.2 0.2", "label-not-normalized"),
        ("0 0.5 0.5 0 0.2", "box-degenerate"),
        ("0 0.5 0.5 -0.1 0.2", "box-degenerate"),
        ("0 0.5 nan 0.2 0.2", "box-nonfinite"),
        ("0 0.1 0.1 nan 0.2 0.3 0.3", "box-nonfinite"),
    ],
)
def test_faulty_lines_of_yolo(tmp_path: Path, line: str, kind: str) -> None:
    write_yolo(tmp_path, {"a": f"1 0.5 0.5 0.2 0.2\n{line}\n"})
    with pytest.raises(BadData, match=f"{kind}: labels/train/a.txt line 2"):
        open_data(tmp_path)
    images = open_data(tmp_path, on_bad_data="skip")
    assert images.num_objects == 1 and len(images) == 1 and [fault.kind for fault in images.skipped] == [kind]
    assert found(tmp_path)[kind] == 1


def test_yolo_label_files(tmp_path: Path) -> None:
    write_yolo(tmp_path, {"a": "0 0.5 0.5 0.2 0.2", "b": "", "c": None})
    labels = tmp_path / "labels" / "train"
    (labels / "classes.txt").write_text("cat\n")
    (labels / "orphan.txt").write_text("0 0.5 0.5 0.2 0.2")
    (labels / "b.txt").write_bytes(b"\xff\xfe\x00")
    counts = found(tmp_path)
    assert {kind: counts[kind] for kind in counts if kind.startswith(("label", "image"))} == {
        "label-unreadable": 1,
        "label-without-image": 1,
        "image-without-label": 1,
    }
    images = open_data(tmp_path, on_bad_data="skip")
    assert [Path(record.path).stem for record in images] == ["a", "c"]


def test_voc_label_files(tmp_path: Path) -> None:
    write_voc(tmp_path, {stem: voc_object() for stem in "abcd"})
    labels = tmp_path / "Annotations"
    (labels / "b.xml").write_text("<annotation><object>")
    (labels / "c.xml").unlink()
    (tmp_path / "JPEGImages" / "d.jpg").unlink()
    (labels / "orphan.xml").write_text((labels / "a.xml").read_text())
    kinds = {"label-unreadable": 1, "label-missing": 1, "image-missing": 1, "label-without-image": 1}
    assert {k: n for k, n in found(tmp_path).items() if FAULT_KINDS[k].dropped} == kinds
    assert open_data(tmp_path, on_bad_data="skip").image_ids() == ["a"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (voc_object(box=(5, 5, "x", 9)), "object-malformed"),
        ("<object><name>cat</name></object>", "object-malformed"),
        (voc_object(name=""), "object-malformed"),
        (voc_object(box=(5, 5, 5, 9)), "box-degenerate"),
        (voc_object(box=(5, 5, "nan", 9)), "box-nonfinite"),
    ],
)
def test_faulty_objects_of_voc(tmp_path: Path, text: str, kind: str) -> None:
    write_voc(tmp_path, {"a": voc_object() + text})
    with pytest.raises(BadData, match=f"{kind}: Annotations/a.xml object 2"):
        open_data(tmp_path)
    assert open_data(tmp_path, on_bad_data="skip").num_objects == 1
    assert found(tmp_path)[kind] == 1


def test_entities_are_never_expanded(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": voc_object()})
    levels = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    xml = f'<!DOCTYPE annotation [<!ENTITY l0 "ha">{levels}]><annotation>&l11;</annotation>'
    (tmp_path / "Annotations" / "a.xml").write_text(xml)
    with pytest.raises(BadData, match="DOCTYPE"):
        open_data(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"images": 1}', "[" * 200_000, '{"images": [], "annotations": []}', "\x00", "1e999"],
)
def test_broken_json(tmp_path: Path, text: str) -> None:
    write_coco(tmp_path)
    (tmp_path / "annotations" / "instances_train.json").write_text(text)
    with pytest.raises(DataError, match="instances_train.json"):
        open_data(tmp_path)
    report = check_data(tmp_path)
    assert [finding.kind for finding in report.findings] == ["annotations-unreadable"] and report.exit_code != 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "- a",
        "names: [a]",
        "train: images",
        "train: x\nnames: 3",
        "train: x\nnames: {a: b}",
        "a: &a [*a]",
        "!!python/object:os.system {}",
        "train: nowhere\nnames: [a]",
        "train: ../..\nnames: [a]",
    ],
)
def test_broken_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match="data.yaml"):
        open_data(tmp_path)


def test_message_shows_twenty_and_counts_all(tmp_path: Path) -> None:
    content = coco_content(30)
    for annotation in content["annotations"]:
        annotation["bbox"] = [1, 1, 0, 0]
    with pytest.raises(BadData, match="30 faulty records \\(30 box-degenerate\\)") as caught:
        open_data(write_coco(tmp_path, content))
    assert str(caught.value).count("box-degenerate: ") == 20 and "and 10 more" in str(caught.value)
    assert len(caught.value.faults) == 30


def test_every_kind_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "data.md").read_text(encoding="utf-8")
    missing = [kind.name for kind in FAULT_KINDS.values() if f"`{kind.name}` | {kind.meaning} | " not in text]
    assert not missing


def test_every_kind_occurs_in_a_test() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert not [name for name in FAULT_KINDS if f'"{name}"' not in text]


def test_report_is_plain_and_complete(tmp_path: Path) -> None:
    from poise.data import render

    content = coco_content()
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"].append({"id": 8, "bbox": [1, 1, 40, 40], "image_id": 10, "category_id": 3, "area": 1600})
    content["annotations"].append({"id": 9, "bbox": [1, 1, 0, 40], "image_id": 10, "category_id": 3})
    report = check_data(write_coco(tmp_path, content), workers=2)
    split = json.loads(json.dumps(report.to_dict()))["splits"]["train"]
    assert (split["images"], split["objects"], split["crowd"], split["small"], split["medium"]) == (2, 2, 1, 1, 1)
    assert split["classes"] == {"cat": 1, "Dog": 1} and split["most_objects_per_image"] == 1
    assert report.to_dict()["dropped"] == 1
    text = render(report)
    assert "1 x box-degenerate [would be dropped]" in text and "1 records would be dropped" in text


def test_progress_reports_every_image(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    check_data(write_coco(tmp_path, coco_content(3)), progress=lambda *call: calls.append(call))
    assert calls == [("train", 1, 3), ("train", 2, 3), ("train", 3, 3)]
