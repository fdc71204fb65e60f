"""Pascal VOC data as users have it: XML in many folders and encodings, lists with names of all kinds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from data.reading import read_everywhere
from support.write_data import HEIGHT, WIDTH, picture, voc_object, write_voc

from poise.data import BadData, DataError, check_data, open_data, splits
from poise.engine.sources import open_sets
from poise.recipes import DataSettings

CAT = ("cat", (5.0, 6.0, 25.0, 16.0))


def write_xml(path: Path, text: str = "", filename: str = "", encoding: str = "utf-8", declared: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    xml = f"{head}<annotation><filename>{filename}</filename>{size}{text or voc_object()}</annotation>"
    path.write_bytes(xml.encode(encoding))


@pytest.mark.parametrize("declared", ["ISO-8859-1", "GB2312", "Shift_JIS", "UTF-16", "windows-1251", "EUC-KR", "utf-8"])
def test_xml_is_read_in_the_encoding_that_it_declares(tmp_path: Path, declared: str) -> None:
    name = {"ISO-8859-1": "Mäuse", "windows-1251": "кошка", "EUC-KR": "고양이"}.get(declared, "猫")
    write_voc(tmp_path, {"a": voc_object(), "b": voc_object()})
    write_xml(tmp_path / "Annotations" / "b.xml", voc_object(name), "b.jpg", declared, declared)
    expected = {"JPEGImages/a.jpg": [CAT], "JPEGImages/b.jpg": [(name, CAT[1])]}
    assert read_everywhere(tmp_path) == expected
    assert set(open_data(tmp_path).class_names) == {"cat", name}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("<annotation>Mäuse</annotation>".encode("latin-1"), "is not UTF-8 and declares no other encoding"),
        (b'<?xml version="1.0" encoding="utf-8"?><annotation>\xe4</annotation>', "declares utf-8, but is no such text"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "unknown encoding 'klingon'"),
        (b'<?xml version="1.0" encoding="zip"?><annotation/>', "unknown encoding 'zip'"),
        (b'<?xml version="1.0" encoding="utf-7"?><annotation/>', "unknown encoding 'utf-7'"),
    ],
)
def test_text_that_is_not_in_its_encoding_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    write_voc(tmp_path, {"a": voc_object(), "b": voc_object()})
    (tmp_path / "Annotations" / "b.xml").write_bytes(content)
    with pytest.raises(BadData, match=why):
        open_data(tmp_path)


@pytest.mark.parametrize(
    ("image", "label", "split"),
    [
        ("a.jpg", "a.xml", "train"),
        ("train/a.jpg", "train/a.xml", "train"),
        ("valid/a.jpg", "valid/a.xml", "val"),
        ("images/train/a.jpg", "images/train/a.xml", "train"),
        ("images/a.jpg", "annotations/a.xml", "train"),
        ("images/a.jpg", "annots/a.xml", "train"),
        ("Images/a.jpg", "Annotations/a.xml", "train"),
        ("images/train/a.jpg", "annotations/train/a.xml", "train"),
        ("train/images/a.jpg", "train/annotations/a.xml", "train"),
        ("images/a.jpg", "annotations/xmls/a.xml", "train"),
        ("pictures/a.jpg", "boxes/a.xml", "train"),
    ],
)
def test_annotations_are_found_where_tools_put_them(tmp_path: Path, image: str, label: str, split: str) -> None:
    picture(tmp_path / image)
    write_xml(tmp_path / label, filename="a.jpg")
    assert splits(tmp_path) == (split,)
    assert read_everywhere(tmp_path, split) == {image: [CAT]}


def test_roboflow_splits_have_one_list_of_classes(tmp_path: Path) -> None:
    for folder, name in (("train", "dog"), ("valid", "cat"), ("test", "ant")):
        picture(tmp_path / folder / f"{name}.jpg", shade=len(folder))
        write_xml(tmp_path / folder / f"{name}.xml", voc_object(name))
    assert splits(tmp_path) == ("train", "val", "test")
    assert open_data(tmp_path, "val").class_names == ("ant", "cat", "dog")
    assert read_everywhere(tmp_path, "val") == {"valid/cat.jpg": [CAT]}
    assert len(open_sets(DataSettings(path=str(tmp_path)))[0]) == 1


def test_folders_of_classes_are_one_split(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        picture(tmp_path / name / "1.jpg", shade=len(name))
        write_xml(tmp_path / name / "1.xml", voc_object(name))
    assert read_everywhere(tmp_path) == {"cat/1.jpg": [CAT], "dog/1.jpg": [("dog", CAT[1])]}
    assert open_data(tmp_path).image_ids() == ["cat/1", "dog/1"]


@pytest.mark.parametrize("suffix", [".TIF", ".BMP", ".Jpg", ".JPEG", ".Png", ".webp"])
@pytest.mark.parametrize("filename", ["a", "", "a.png", "elsewhere.jpg"])
def test_the_image_of_an_annotation_may_have_any_suffix(tmp_path: Path, suffix: str, filename: str) -> None:
    picture(tmp_path / "JPEGImages" / f"a{suffix.lower()}").rename(tmp_path / "JPEGImages" / f"a{suffix}")
    write_xml(tmp_path / "Annotations" / "a.xml", filename=filename)
    assert read_everywhere(tmp_path) == {f"JPEGImages/a{suffix}": [CAT]}


@pytest.mark.parametrize(
    ("line", "stem"),
    [
        ("my photo", "my photo"),
        ("my photo 1", "my photo 1"),
        ("my photo  1", "my photo"),
        ("my photo -1", "my photo"),
        ("2007 08 01  ", "2007 08 01"),
        ("photo.jpg", "photo"),
        ("JPEGImages/photo.jpg", "photo"),
        ("photo.v2", "photo.v2"),
    ],
)
def test_lists_with_names_of_all_kinds(tmp_path: Path, line: str, stem: str) -> None:
    write_voc(tmp_path, {stem: voc_object(), "other": voc_object("Dog")})
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text(f"{line}\n")
    assert read_everywhere(tmp_path) == {f"JPEGImages/{stem}.jpg": [CAT]}


@pytest.mark.parametrize(("train", "val"), [("Train", "Validation"), ("TRAIN", "valid")])
def test_split_names_of_annotation_tools(tmp_path: Path, train: str, val: str) -> None:
    write_voc(tmp_path, {"a": voc_object()}, train)
    write_voc(tmp_path, {"b": voc_object("Dog")}, val)
    assert splits(tmp_path) == ("train", "val")
    assert read_everywhere(tmp_path, train) == {"JPEGImages/a.jpg": [CAT]}


def test_the_message_names_the_option_for_other_splits(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": voc_object()}, "day")
    write_voc(tmp_path, {"b": voc_object()}, "night")
    with pytest.raises(DataError, match=r"choose one of day, night \(--split NAME; for training --data.train NAME"):
        open_sets(DataSettings(path=str(tmp_path)))


def test_files_of_systems_and_editors_are_no_data(tmp_path: Path) -> None:
    for split in ("train", "test"):
        picture(tmp_path / split / f"{split}.jpg", shade=len(split))
        write_xml(tmp_path / split / f"{split}.xml")
        (tmp_path / split / f"._{split}.xml").write_bytes(b"\0\5\x16\7")
        (tmp_path / split / ".ipynb_checkpoints").mkdir()
        (tmp_path / split / ".ipynb_checkpoints" / "x-checkpoint.xml").write_text("<annotation/>")
    assert read_everywhere(tmp_path) == {"train/train.jpg": [CAT]}
    assert not check_data(tmp_path).findings


def test_unsupported_pictures_with_annotations_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write_xml(tmp_path / "train" / "a.xml")
    write_xml(tmp_path / "train" / "b.xml")
    (tmp_path / "train" / "b.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(BadData, match="image-unsupported: train/b.heic"):
        open_data(tmp_path)
    assert open_data(tmp_path, on_bad_data="skip").image_ids() == ["a"]


@pytest.mark.parametrize("value", ["Unspecified", "", "0", "False"])
def test_objects_that_are_not_difficult(tmp_path: Path, value: str) -> None:
    write_voc(tmp_path, {"a": voc_object().replace("<difficult>0<", f"<difficult>{value}<")})
    assert open_data(tmp_path)[0].ignore.tolist() == [False]


def test_difficult_is_yes_no_or_a_fault(tmp_path: Path) -> None:
    yes, unclear = (voc_object().replace("<difficult>0<", f"<difficult>{value}<") for value in ("True", "maybe"))
    write_voc(tmp_path, {"a": yes})
    assert open_data(tmp_path)[0].ignore.tolist() == [True]
    write_voc(tmp_path, {"a": yes + unclear})
    with pytest.raises(BadData, match="difficult is 'maybe'"):
        open_data(tmp_path)


def test_cards_equal_a_literal_reading(shared: Path) -> None:
    import xml.etree.ElementTree as ElementTree

    root = shared / "data" / "cards"
    if not root.is_dir():
        pytest.skip("needs the photographs of playing cards")
    total = {}
    for split in ("train", "test"):
        images = open_data(root, split)
        for record in images:
            tree = ElementTree.parse(os.path.splitext(record.path)[0] + ".xml")
            expected = [
                (node.findtext("name"), *(float(node.findtext(f"bndbox/{key}") or "nan") for key in KEYS))
                for node in tree.iter("object")
            ]
            boxes = zip(record.labels, record.boxes.tolist(), strict=True)
            assert [(images.class_names[label], *box) for label, box in boxes] == expected
        total[split] = len(images), images.num_objects
    assert total == {"train": (296, 527), "test": (67, 143)}
    assert images.class_names == ("ace", "jack", "king", "nine", "queen", "ten")


KEYS = ("xmin", "ymin", "xmax", "ymax")
