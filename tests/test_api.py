"""``poise.Detector``: from a name or a file to results."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inference.stand_in import scene, stand_in
from PIL import Image

import poise
from poise.api import Detector, RandomWeightsWarning, free_folder
from poise.api.training import start_settings
from poise.assign import MaxIoU
from poise.cli.arguments import CommandLineError
from poise.cli.train import parse, resolve
from poise.data import write_demo_data
from poise.data.demo.shapes import CLASSES
from poise.detection_model import with_postprocess_options
from poise.inference import Result, Tiling
from poise.recipes import finetune, load_recipe, save_recipe
from poise.recipes.short_options import SHORT_OPTIONS, settings_by_path, with_options

SCENE = scene(120, 160, [(10, 20, 60, 80, 0), (90, 30, 150, 100, 2)])


@pytest.fixture
def result(tmp_path: Path) -> Result:
    Image.fromarray(SCENE.permute(1, 2, 0).numpy()).save(tmp_path / "scene.png")
    (found,) = Detector(stand_in(), device="cpu").predict(tmp_path / "scene.png")
    return found


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real model with names, saved."""
    torch.manual_seed(0)
    model = poise.create_model("atss_r18_fpn", num_classes=2, image_size=64)
    model.set_classes(("cat", "dog"), (17, 18))
    path = tmp_path_factory.mktemp("model") / "best.pt"
    poise.save(model, path)
    return path


def test_a_result_in_every_form(result: Result, tmp_path: Path) -> None:
    assert len(result) == 2 and result.size == (120, 160) and result.path == tmp_path / "scene.png"
    assert result.names == ["blue", "red"] and result.labels.tolist() == [2, 0]  # the larger has the higher score
    assert (result.scores[0] > result.scores[1]).item()
    assert result.boxes.xyxy.tolist() == [pytest.approx(b, abs=1) for b in ([90, 30, 150, 100], [10, 20, 60, 80])]
    assert result.boxes.xywh.tolist() == [pytest.approx(b, abs=2) for b in ([90, 30, 60, 70], [10, 20, 50, 60])]
    coco = result.to_coco(image_id=77)
    assert [(one["image_id"], one["category_id"]) for one in coco] == [(77, 9), (77, 4)]
    assert coco[0]["bbox"] == pytest.approx(result.boxes.xywh[0].tolist(), abs=0.01)
    record = json.loads(json.dumps(result.to_dict()))
    assert record["width"] == 160 and [one["name"] for one in record["detections"]] == ["blue", "red"]
    assert "1 blue, 1 red in 160×120" in repr(result)


def test_plot_and_save(result: Result, tmp_path: Path) -> None:
    assert result.plot().size == (160, 120)
    assert result.plot().tobytes() != result.plot(show_scores=False).tobytes()
    for name in ("out.png", "new/out.jpg"):
        with Image.open(result.save(tmp_path / name)) as picture:
            assert picture.size == (160, 120)
    (tmp_path / "pictures").mkdir()
    assert result.save(tmp_path / "pictures") == tmp_path / "pictures" / "scene.png"
    assert json.loads(result.save(tmp_path / "out.json").read_text())["detections"][0]["category_id"] == 9
    with pytest.raises(ValueError, match="no picture format"):
        result.save(tmp_path / "out.txt")
    assert not list(tmp_path.rglob(".*"))


def test_to_supervision(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # supervision tells of OpenCV
        pytest.importorskip("supervision")
    found = result.to_supervision()
    assert len(found) == 2 and found.class_id.tolist() == [2, 0]
    assert found.data["class_name"].tolist() == ["blue", "red"]
    np.testing.assert_allclose(found.xyxy, result.boxes.xyxy.numpy())
    nothing = Detector(stand_in(), device="cpu").predict(scene(40, 40, []))[0]
    assert len(nothing.to_supervision()) == 0 and len(nothing) == 0 and nothing.to_coco(1) == []
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"poise\[supervision\]"):
        result.to_supervision()


def test_threshold_batches_and_streams() -> None:
    detector = Detector(stand_in(), device="cpu")
    (all_found,) = detector.predict(SCENE, score_threshold=0.0)
    between = float(all_found.scores.mean())
    assert len(detector.predict(SCENE, score_threshold=between)[0]) == 1
    assert len(detector.predict([SCENE] * 5, batch_size=2)) == 5
    taken = []
    stream = detector.predict((taken.append(i) or SCENE for i in range(50)), stream=True, batch_size=2)
    assert taken == [] and len(next(stream)) == 2 and len(taken) == 2


def test_tiles_from_the_facade() -> None:
    small = scene(900, 900, [(401, 402, 415, 416, 1)])
    detector = Detector(stand_in(), device="cpu")
    assert len(detector.predict(small)[0]) == 0
    for tile in (300, Tiling(300, 0.5)):
        (found,) = detector.predict(small, tile=tile)
        assert found.boxes.xyxy.round().tolist() == [[401, 402, 415, 416]]


def test_a_file_says_everything(model_file: Path) -> None:
    for source in (model_file, str(model_file), model_file.parent):
        detector = Detector(source, device="cpu")
        assert detector.class_names == ("cat", "dog") and detector.model.category_ids == (17, 18)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = detector.predict(SCENE, score_threshold=0.0)
    expected = with_postprocess_options(poise.load(model_file), score_threshold=0.0)([SCENE])[0]
    assert len(expected["boxes"]) and torch.allclose(results[0].boxes.xyxy, expected["boxes"].clamp(min=0), atol=1e-3)
    with pytest.raises(ValueError, match="image_size"):
        Detector(model_file, image_size=320)


def test_another_threshold_keeps_classes_and_class_map(model_file: Path) -> None:
    model = poise.load(model_file)
    model.class_map = {"van": "car", "person": None}
    changed = with_postprocess_options(model, score_threshold=0.0)
    assert changed is not model and changed.class_map == model.class_map
    assert (changed.class_names, changed.category_ids) == (model.class_names, model.category_ids)


def test_a_name_has_random_weights_and_says_so() -> None:
    detector = Detector("fcos_r18_fpn", device="cpu", num_classes=2, image_size=64)
    assert detector.model.num_classes == 2 and "random weights" in repr(detector)
    with pytest.warns(RandomWeightsWarning, match="'fcos_r18_fpn' was built by its name"):
        detector.predict(SCENE)


def test_saving_and_loading_again(model_file: Path, tmp_path: Path) -> None:
    first = Detector(model_file, device="cpu")
    second = Detector(first.save(tmp_path / "copy.pt"), device="cpu")
    a, b = (d.predict(SCENE, score_threshold=0.0)[0] for d in (first, second))
    assert torch.equal(a.boxes.xyxy, b.boxes.xyxy) and torch.equal(a.scores, b.scores)


def test_a_wrong_name_is_answered_with_a_near_one() -> None:
    with pytest.raises(FileNotFoundError, match=r"'atss_r18_fnp' is neither .* did you mean 'atss_r18_fpn'"):
        Detector("atss_r18_fnp")


def test_settings_of_a_training() -> None:
    assert settings_by_path({"batch_size": 4, "image_size": 320, "lr": 0.1, "optimizer": {"momentum": 0.5}}) == {
        "data.batch_size": 4,
        "model.image_size": (320,),
        "optimizer.lr": 0.1,
        "optimizer.momentum": 0.5,
        "optimizer.lr_batch_size": 0,
    }
    with pytest.raises(ValueError, match="resume=True needs out="):
        Detector(stand_in(), device="cpu").train("nowhere", resume=True)


def test_a_training_starts_from_what_the_detector_is(model_file: Path) -> None:
    detector = Detector(model_file, device="cpu")
    loaded = start_settings(detector.model, given=False, weights=str(model_file), backbone_weights=None)
    assert loaded["model.weights"] == str(model_file) and loaded["model.image_size"] == (64, 64)
    named = start_settings(poise.create_model("atss_r18_fpn"), given=False, weights=None, backbone_weights=None)
    assert named == {"model.name": "atss_r18_fpn"}


def test_run_folders_never_collide(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        folder = free_folder(tmp_path, "atss")
        folder.mkdir()
        names.append(folder.name)
    assert names == ["atss", "atss-2", "atss-3"]


def test_prediction_options_are_explicit_and_select(model_file: Path) -> None:
    """Fewer detections with a low IoU threshold of NMS, at most ``max_detections``, and of the named classes alone."""
    detector = Detector(model_file, device="cpu")
    (everything,) = detector.predict(SCENE, score_threshold=0.0, nms_threshold=1.0, max_detections=1000)
    (default,) = detector.predict(SCENE, score_threshold=0.0)
    (few,) = detector.predict(SCENE, score_threshold=0.0, nms_threshold=0.01)
    assert len(few) < len(default) < len(everything) and len(default) <= 100
    (three,) = detector.predict(SCENE, score_threshold=0.0, max_detections=3)
    assert torch.equal(three.scores, default.scores[:3])
    for classes in (["dog"], [1]):
        (dogs,) = detector.predict(SCENE, score_threshold=0.0, classes=classes)
        assert len(dogs) and set(dogs.names) == {"dog"}
    with pytest.raises(ValueError, match="did you mean 'dog'"):
        detector.predict(SCENE, classes=["dogs"])
    with pytest.raises(ValueError, match="nms_threshold"), pytest.warns(RandomWeightsWarning):
        Detector("deformable_detr_r18", device="cpu").predict(SCENE, nms_threshold=0.5)
    with pytest.raises(TypeError, match="threshold"):
        detector.predict(SCENE, threshold=0.5)  # type: ignore[call-overload]


def test_a_published_checkpoint_needs_the_name_of_its_model(tmp_path: Path) -> None:
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(1)}}, tmp_path / "original.pth")
    with pytest.raises(ValueError, match=r"checkpoint of an original project, name its model.*--weights"):
        Detector(tmp_path / "original.pth")


def test_short_options_are_known_and_suggested() -> None:
    recipe = finetune("atss_r18_fpn", epochs=10)
    changed = with_options(recipe, {"epochs": 4, "assigner": "sim_ota", "lab_every": 5, "data": "somewhere"})
    assert (changed.schedule.epochs, changed.train.lab_every, changed.data.path) == (4, 5, "somewhere")
    assert changed.model.options == {"assigner": "sim_ota"}
    for wrong, hint in {"batch": "batch_size", "image_sise": "image_size", "milestone": "schedule.milestones"}.items():
        with pytest.raises(ValueError, match=f"no setting '{wrong}', did you mean '{hint}'"):
            with_options(recipe, {wrong: 1})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0.1, "optimizer": {"lr": 0.2}}, "--lr 0.1 --optimizer.lr=0.2"),
        ({"image_size": 64, "model.image_size": (96,)}, "--image-size 64 --model.image-size 96"),
        ({"assigner": "ota", "model.options.assigner": "atss"}, "--model.options topk 9 assigner atss --assigner ota"),
    ],
)
def test_a_setting_with_two_names_is_given_by_one(options: dict[str, Any], words: str) -> None:
    path = SHORT_OPTIONS[next(iter(options))]
    with pytest.raises(ValueError, match=f"{path} is given twice: .*; leave one out"):
        with_options(finetune("atss_r18_fpn"), options)
    with pytest.raises(CommandLineError, match=f"{path} is given twice: .*; leave one out"):
        parse(["atss_r18_fpn", *words.split()])
    changed = with_options(finetune("atss_r18_fpn"), {"lr": 0.1, "optimizer": {"lr_batch_size": 4}})
    assert (changed.optimizer.lr, changed.optimizer.lr_batch_size) == (0.1, 4)


def test_tuples_and_none_are_values_of_options(tmp_path: Path) -> None:
    """In Python, in a saved recipe and on the command line."""
    options = {"deformable_stages": (4, 5), "topk": 9}
    recipe = with_options(finetune("vfnet_r18_fpn"), {"model": {"options": options}})
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml").model.options == options
    words = ["vfnet_r18_fpn", "--model.options", "deformable_stages", "(4, 5)", "topk", "9", "frozen_stages", "None"]
    assert resolve(parse(words)).model.options == {**options, "frozen_stages": None}
    detector = Detector("vfnet_r18_fpn", device="cpu", num_classes=2, deformable_stages=(4, 5))
    start = start_settings(detector.model, given=False, weights=None, backbone_weights=None)
    assert with_options(recipe, start).model.options == {"deformable_stages": (4, 5)}


def test_training_a_given_model_keeps_its_weights_and_parts(tmp_path: Path) -> None:
    data = write_demo_data(tmp_path / "data", train=2, val=1, size=64)
    model = poise.create_model("atss_r18_fpn", num_classes=len(CLASSES), image_size=64, backbone="test_resnet", depth=1)
    model.network.branch.assigner = MaxIoU(0.5, 0.4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    detector = Detector(model, device="cpu")
    small = {"batch_size": 2, "workers": 0, "lr": 1e-9, "train": {"ema_decay": 0.0}, "evaluate": {"pictures": 0}}
    result = detector.train(data, tmp_path / "run", epochs=1, **small)
    assert detector.model is model and isinstance(model.network.branch.assigner, MaxIoU) and result.finished
    after = dict(model.named_parameters())
    assert all(torch.allclose(after[name], before[name], atol=1e-5) for name in after)
    assert model.class_names == tuple(CLASSES)
    with pytest.raises(ValueError, match=r"given model has 80 classes.*num_classes="):
        Detector(poise.create_model("atss_r18_fpn"), device="cpu").train(data, tmp_path / "other", epochs=1)
