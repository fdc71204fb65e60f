"""A one-to-one branch on dense detectors: its assignment, gradients, weights, detections, files and refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.scenes import predictions_of

from poise.assign import TaskAligned
from poise.detection_model import DetectionModel, with_postprocess_options
from poise.detectors import DualBranch
from poise.engine.class_transfer import transfer
from poise.export import export_model, load_exported
from poise.export.formats import FORMATS
from poise.export.suppression import append_suppression
from poise.models import create_model
from poise.models.files import load_model, save_model
from poise.models.one_to_one import DualAssignment
from poise.models.roles import without_training_parts
from poise.postprocess import PostProcess
from poise.structures import Predictions, Progress
from poise.testing.models import CHECKS, Build, build, empty, scene

SMALL: dict[str, Any] = {"backbone": "test_resnet", "channels": 16, "depth": 1}
ONE = {"one_to_one": "task_aligned(topk=7, keep=1)"}
GUIDED: dict[str, Any] = {**SMALL, "guide_depth": 1}
MODELS = {"fcos_r18_fpn": SMALL, "dw_r18_fpn": SMALL, "nanodet_plus_m_320": GUIDED}


def fcos(**options: Any) -> DetectionModel:
    return build("fcos_r18_fpn", {**SMALL, **options}, 0)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(name: str, check: Callable[[Build], None]) -> None:
    check(partial(build, name, {**MODELS[name], **ONE}))


@pytest.mark.parametrize("objects", [True, False])
def test_losses_are_those_of_two_models(objects: bool) -> None:
    """Of a model without the branch, and of one with the same weights that assigns one-to-one alone."""
    dual, many = fcos(**ONE), fcos()
    one = fcos(assigner="task_aligned(topk=7, keep=1)")
    one.load_state_dict(without_training_parts(dual).state_dict())
    pixels, targets = scene()
    targets = targets if objects else empty(targets)
    first, second = many.losses(pixels, targets), one.losses(pixels, targets)
    for fraction, weight in ((0.0, 0.8), (0.5, 0.45), (1.0, 0.1)):
        found = dual.losses(pixels, targets, Progress(fraction=fraction))
        wanted = {name: weight * loss for name, loss in first.items()}
        wanted |= {f"one_to_one_{name}": (1 - weight) * loss for name, loss in second.items()}
        assert set(found) == set(wanted)
        for name, loss in wanted.items():
            torch.testing.assert_close(found[name], loss)


def test_the_weights_stay_in_their_bounds_and_are_an_option() -> None:
    model = fcos(one_to_one=DualAssignment(TaskAligned(1), start=0.5, end=0.25))
    assert model.options["one_to_one"] == "dual_assignment(assigner=task_aligned(topk=1), start=0.5, end=0.25)"
    branch: Any = fcos(one_to_one=model.options["one_to_one"]).network.branch
    assert branch.one_to_one.assigner == TaskAligned(1)
    assert [branch.weight_at(Progress(fraction=done)) for done in (0.0, 0.5, 1.0)] == [0.5, 0.375, 0.25]
    assert branch.weight_at(Progress.final()) == 0.25
    with pytest.raises(ValueError, match="start and end are weights"):
        DualAssignment(start=1.5)


def test_the_gradient_of_the_one_to_one_branch_ends_at_its_head() -> None:
    model, (pixels, targets) = fcos(**ONE), scene()
    for prefix, reached in (("one_to_one_", {"branch.one_to_one"}), ("loss", {"branch.head", "backbone", "neck"})):
        losses = model.losses(pixels, targets)
        model.zero_grad()
        torch.stack([loss for name, loss in losses.items() if name.startswith(prefix)]).sum().backward()
        trained = {name for name, one in model.network.named_parameters() if one.grad is not None}
        assert trained == {name for name, _ in model.network.named_parameters() if name.startswith(tuple(reached))}


def test_one_prior_for_an_object_and_stages_with_their_weight() -> None:
    model, (pixels, targets) = fcos(**ONE), scene()
    output = model.step(pixels, targets, None, Progress())
    assert {name: match.loss_factor for name, match in output.matches.items()} == pytest.approx(
        {"dense": 0.8, "one_to_one": 0.2}
    )
    one = output.matches["one_to_one"].assignment.hard()
    for image, target in enumerate(targets):
        objects = one.index[image][one.positive[image]]
        assert len(objects) == len(objects.unique()) <= len(target["labels"])
    assert int(output.matches["dense"].assignment.hard().positive.sum()) > int(one.positive.sum())


def test_the_one_to_many_head_is_not_computed_at_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (pixels, _) = with_postprocess_options(fcos(**ONE).eval(), score_threshold=0.0), scene()
    branch: Any = model.network.branch
    wanted = model.detect(pixels)
    assert isinstance(branch, DualBranch) and len(wanted[0]["scores"]) == 100
    monkeypatch.setattr(branch.head, "forward", None)
    monkeypatch.setattr("poise.postprocess.classwise_nms", None)
    for found, expected in zip(model.detect(pixels), wanted, strict=True):
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["paa_r18_fpn", "nanodet_plus_m_320"])
def test_without_the_one_to_many_branch_and_from_a_file(name: str, tmp_path: Path) -> None:
    """PAA's score voting, which follows NMS, goes with it."""
    options = {"paa_r18_fpn": SMALL, **MODELS}[name]
    model, pixels = build(name, {**options, **ONE}, 0).eval(), scene()[0]
    plain = without_training_parts(model)
    assert plain.options["nms_threshold"] is None and "one_to_one" not in plain.options
    assert sum(one.numel() for one in plain.parameters()) < sum(one.numel() for one in model.parameters())
    for number, one in enumerate((model, plain)):
        save_model(one, tmp_path / f"{number}.pt")
        loaded = load_model(tmp_path / f"{number}.pt")
        for found, wanted in zip(loaded.detect(pixels), model.detect(pixels), strict=True):
            assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_both_heads_start_with_the_weights_of_one() -> None:
    trained, model = fcos(), build("fcos_r18_fpn", {**SMALL, **ONE}, 1)
    model.load_state_dict(transfer(model, trained.state_dict(), trained.class_names).weights)
    branch: Any = model.network.branch
    for own, one in zip(branch.head.parameters(), branch.one_to_one.head.parameters(), strict=True):
        assert torch.equal(own, one) and own is not one
    again = transfer(fcos(**ONE), model.state_dict(), model.class_names).weights
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_nodes_of_a_post_processing_without_nms() -> None:
    """Against the post-processing itself, on a graph that returns its inputs."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    post, sizes = PostProcess(0.3, None, max_detections=7), torch.tensor([[40.0, 60.0]] * 2)
    predictions = predictions_of(Predictions, 2, 0)
    for limit, image in ((7, 0), (500, 1)):
        rule, helper = replace(post, max_detections=limit), onnx.helper
        given = {"boxes": predictions.boxes[image : image + 1], "scores": predictions.scores()[image : image + 1]}
        values = [
            [helper.make_tensor_value_info(prefix + name, 1, value.shape) for name, value in given.items()]
            for prefix in ("in_", "")
        ]
        nodes = [helper.make_node("Identity", [f"in_{name}"], [name]) for name in given]
        graph = helper.make_model(helper.make_graph(nodes, "g", *values), opset_imports=[helper.make_opsetid("", 18)])
        content = append_suppression(graph, rule, (40, 60))
        content.ir_version = 9
        assert "NonMaxSuppression" not in {node.op_type for node in content.graph.node}
        session = runtime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])
        boxes, scores, labels = session.run(None, {f"in_{name}": value.numpy() for name, value in given.items()})
        wanted = rule(predictions, sizes).unpad()[image]
        assert 0 < len(scores) == len(wanted["scores"]) and (len(scores) == 7) == (limit == 7)
        assert labels.tolist() == wanted["labels"].tolist()
        torch.testing.assert_close(torch.from_numpy(scores), wanted["scores"])
        torch.testing.assert_close(torch.from_numpy(boxes), wanted["boxes"])


@pytest.mark.slow
@pytest.mark.parametrize("nms", [True, False])
def test_an_onnx_file_has_no_nms(nms: bool, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model, images = build("fcos_r18_fpn", {**SMALL, **ONE, "score_threshold": 0.0}, 0), [torch.rand(3, 96, 80)]
    branch: Any = model.eval().network.branch
    branch.one_to_one.head.classes.weight.data.normal_(0, 1)
    agreement = export_model(model, tmp_path / "model.onnx", [(images[0] * 255).byte()], nms=nms)
    assert agreement.compared > 0 and agreement.unmatched == 0
    content = onnx.load(tmp_path / "model.onnx")
    assert "NonMaxSuppression" not in {node.op_type for node in content.graph.node}
    exported = load_exported(tmp_path / "model.onnx")
    assert exported.options == without_training_parts(model).options
    with torch.no_grad():
        ours, theirs = model(images)[0], exported(images)[0]
    assert len(ours["scores"]) == len(theirs["scores"]) == 100
    torch.testing.assert_close(theirs["scores"], ours["scores"], atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("format", "suffix"), [("ncnn", ".ncnn.param"), ("executorch", ".pte")])
def test_a_file_of_all_priors(format: str, suffix: str, tmp_path: Path) -> None:
    """Neither format has a top-k; the detections of the file are those of the one-to-one branch."""
    for package in (*FORMATS[format].writing, *FORMATS[format].running):
        pytest.importorskip(package)
    model, image = build("fcos_r18_fpn", {**SMALL, **ONE, "score_threshold": 0.0}, 0).eval(), torch.rand(3, 64, 64)
    branch: Any = model.network.branch
    branch.one_to_one.head.classes.weight.data.normal_(0, 1)
    agreement = export_model(model, tmp_path / f"m{suffix}", [(image * 255).byte()], format=format)
    assert agreement.compared > 100 and agreement.unmatched == 0
    exported = load_exported(tmp_path / f"m{suffix}")
    assert exported.options == without_training_parts(model).options and exported.options["nms_threshold"] is None
    with torch.no_grad():
        ours, theirs = model([image])[0], exported([image])[0]
    assert len(ours["scores"]) == len(theirs["scores"]) == 100
    torch.testing.assert_close(theirs["scores"], ours["scores"], atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match=f"{format} files cannot be written with nms: .* threshold and top-k"):
        export_model(model, tmp_path / f"m{suffix}", [image], format=format, nms=True)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("faster_rcnn_r18_fpn", ONE, "is for dense detectors, which 'faster_rcnn_r18_fpn' is not: its regions overlap"),
        ("dino_r18", ONE, "its queries are matched one-to-one already"),
        ("fcos_r18_fpn", {"one_to_one": "task_aligned"}, "may assign several priors to an object"),
        ("fcos_r18_fpn", {"one_to_one": "dual_assignment(assigner=max_iou())"}, r"give task_aligned\(topk=7, keep=1\)"),
        ("fcos_r18_fpn", {"one_to_one": "atss"}, "no one_to_one 'atss'.*there are dual_assignment, task_aligned"),
        ("fcos_r18_fpn", {**ONE, "nms_threshold": 0.5}, "nms_threshold=0.5 has no effect with one_to_one="),
        ("retinanet_r18_fpn", {**ONE, "class_balance": "equalized_focal"}, "class_balance and one_to_one exclude"),
        ("fcos_r18_fpn", {**ONE, "nms_similarity": "nwd()"}, "has no effect with one_to_one="),
        ("paa_r18_fpn", {**ONE, "voting_sigma": 0.1}, "voting_sigma=0.1 has no effect"),
        ("faster_rcnn_r18_fpn", {"nms_threshold": None}, "regions of a two-stage detector overlap and need NMS"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model(name, 2, backbone="test_resnet", **options)
