"""Names of models, and ``create_model``, which builds one by its name."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from poise.assign import Assigner, TaskAligned
from poise.criteria import Criterion
from poise.detection_model import DetectionModel
from poise.models.atss import atss
from poise.models.autoassign import autoassign
from poise.models.class_balance import ClassBalance
from poise.models.co_detr import co_deformable_detr, co_dino
from poise.models.conditional_detr import conditional_detr
from poise.models.dab_detr import dab_detr
from poise.models.deformable_detr import deformable_detr
from poise.models.dino import dino
from poise.models.dw import dw
from poise.models.encoder_atss import encoder_atss
from poise.models.exchange import exchange_parts
from poise.models.faster_rcnn import fast_rcnn, faster_rcnn
from poise.models.fcos import fcos
from poise.models.foveabox import foveabox
from poise.models.freeanchor import freeanchor
from poise.models.gfl import gfl
from poise.models.gflv2 import gflv2
from poise.models.groups import Weights
from poise.models.libra_rcnn import libra_faster_rcnn, libra_retinanet
from poise.models.nanodet_plus import nanodet_plus
from poise.models.necks import AddedBalancedPyramid
from poise.models.one_to_one import DualAssignment
from poise.models.options import check_options
from poise.models.ota import ota
from poise.models.paa import paa
from poise.models.reppoints import reppoints
from poise.models.retinanet import retinanet
from poise.models.tood import tood
from poise.models.vfnet import vfnet
from poise.models.yolox import yolox
from poise.plugins import load_plugins
from poise.preprocess import CAFFE, NANODET, Preprocess
from poise.sample import Sampler
from poise.structures import Progress
from poise.suggestions import did_you_mean

BACKBONES = {
    "r18": "resnet18",
    "r34": "resnet34",
    "r50": "resnet50",
    "r101": "resnet101",
    "mnv3": "mobilenetv3_large_100",
    "mnv3s": "mobilenetv3_small_100",
}

OLD_CAFFE = replace(CAFFE, mean=(102.9801, 115.9465, 122.7717))  # as in Detectron
DEFORMABLE = {"deformable_stages": (3, 4, 5), "deformable_towers": True}
POINTS_DCN = {"deformable_stages": (3, 4, 5), "group_norm": True}


@dataclass(frozen=True)
class Entry:
    """A named model: its builder function, the arguments that the name fixes, and the preprocessing of images."""

    builder: Callable[..., nn.Module]
    fixed: Mapping[str, object] = field(default_factory=dict)
    preprocess: Preprocess = Preprocess()
    progress: Progress = field(default_factory=Progress.final)  # of ``DetectionModel.losses`` by default


def _on_backbones(family: str, builder: Callable[..., nn.Module], size: int | None = None) -> dict[str, Entry]:
    preprocess = Preprocess() if size is None else Preprocess().with_size(size)
    return {
        f"{family}_{short}_fpn": Entry(builder, {"backbone": name}, preprocess) for short, name in BACKBONES.items()
    }


UNPADDED = Preprocess(divisor=1)  # the DETR family pads a batch to its largest image, without a divisor


VIT = {
    "backbone": "eva02_large_patch14_448.mim_m38m_ft_in22k_in1k",
    "denoising": 300,
    "box_noise": 0.4,
    "max_detections": 1000,
    "checkpointed_layers": 6,
}
CO = {"auxiliary_heads": "faster_rcnn,atss"}
PLUS = {"refine": "twice", "select": "first_class", "mixed": True, "dropout": 0.0, "hidden": 2048}


def _detrs(
    family: str, builder: Callable[..., nn.Module], fixed: Mapping[str, object] | None = None
) -> dict[str, Entry]:
    return {
        f"{family}_{short}": Entry(builder, {"backbone": name, **(fixed or {})}, UNPADDED)
        for short, name in BACKBONES.items()
    }


SWINS = {  # timm's name, and the stochastic depth of the published recipes of 12 epochs
    "swin_t": ("swin_tiny_patch4_window7_224", 0.2),
    "swin_s": ("swin_small_patch4_window7_224", 0.2),
    "swin_b": ("swin_base_patch4_window12_384", 0.2),
    "swin_l": ("swin_large_patch4_window12_384", 0.3),
}


def _on_swins(
    family: str, builder: Callable[..., nn.Module], fixed: Mapping[str, object] | None = None
) -> dict[str, Entry]:
    return {
        f"{family}_{short}": Entry(builder, {"backbone": name, "drop_path": drop_path, **(fixed or {})}, UNPADDED)
        for short, (name, drop_path) in SWINS.items()
    }


def _nanodet(width: str, channels: int, size: int) -> Entry:
    fixed = {"backbone": f"shufflenetv2_{width}", "channels": channels}
    return Entry(nanodet_plus, fixed, NANODET.with_size(size), Progress())  # before ``detach_epoch``


NAMES: dict[str, Entry] = {
    **_on_backbones("retinanet", retinanet),
    "retinanet_x101_32x4d_fpn": Entry(retinanet, {"backbone": "resnext101_32x4d"}),
    "retinanet_x101_64x4d_fpn": Entry(retinanet, {"backbone": "resnext101_64x4d"}),
    **_on_backbones("fcos", fcos),
    **_on_backbones("atss", atss),
    "atss_tiny_fpn": Entry(atss, {"backbone": "test_resnet", "channels": 64, "depth": 1}, Preprocess().with_size(320)),
    **_on_backbones("gfl", gfl),
    "gfl_r101_dcn_fpn": Entry(gfl, {"backbone": "resnet101", "deformable_stages": (3, 4, 5)}),
    "gfl_x101_32x4d_fpn": Entry(gfl, {"backbone": "resnext101_32x4d"}),
    "gfl_x101_32x4d_dcn_fpn": Entry(gfl, {"backbone": "resnext101_32x4d", "deformable_stages": (4, 5)}),
    **_on_backbones("gflv2", gflv2),
    "gflv2_r101_dcn_fpn": Entry(gflv2, {"backbone": "resnet101", "deformable_stages": (3, 4, 5)}),
    "gflv2_x101_32x4d_dcn_fpn": Entry(gflv2, {"backbone": "resnext101_32x4d", "deformable_stages": (4, 5)}),
    "gflv2_r2_101_dcn_fpn": Entry(gflv2, {"backbone": "res2net101d", "deformable_stages": (4, 5)}),
    **_on_backbones("tood", tood),
    "tood_x101_64x4d_fpn": Entry(tood, {"backbone": "resnext101_64x4d"}),
    **_on_backbones("foveabox", foveabox),
    **_on_backbones("ota", ota),
    **_on_backbones("yolox", yolox, 640),
    **_on_backbones("reppoints", reppoints),
    "reppoints_r50_gn_fpn": Entry(reppoints, {"group_norm": True}),
    "reppoints_r101_gn_fpn": Entry(reppoints, {"backbone": "resnet101", "group_norm": True}),
    "reppoints_r101_dcn_gn_fpn": Entry(reppoints, {"backbone": "resnet101", **POINTS_DCN}),
    "reppoints_x101_32x4d_dcn_gn_fpn": Entry(reppoints, {"backbone": "resnext101_32x4d", **POINTS_DCN}),
    **_on_backbones("autoassign", autoassign),
    "autoassign_r50_fpn": Entry(autoassign, {"backbone": "resnet50", "caffe": True}, OLD_CAFFE),  # as published
    **_on_backbones("freeanchor", freeanchor),
    "freeanchor_x101_32x4d_fpn": Entry(freeanchor, {"backbone": "resnext101_32x4d"}),
    **_on_backbones("paa", paa),
    **_on_backbones("faster_rcnn", faster_rcnn),
    **_on_backbones("fast_rcnn", fast_rcnn),
    "faster_rcnn_x101_64x4d_fpn": Entry(faster_rcnn, {"backbone": "resnext101_64x4d"}),
    "faster_rcnn_x101_32x4d_fpn": Entry(faster_rcnn, {"backbone": "resnext101_32x4d"}),
    **_on_backbones("libra_faster_rcnn", libra_faster_rcnn),
    "libra_faster_rcnn_x101_64x4d_fpn": Entry(libra_faster_rcnn, {"backbone": "resnext101_64x4d"}),
    **_on_backbones("libra_retinanet", libra_retinanet),
    **{f"nanodet_plus_m_{size}": _nanodet("1.0x", 96, size) for size in (320, 416)},
    **{f"nanodet_plus_m_0_5x_{size}": _nanodet("0.5x", 96, size) for size in (320, 416)},
    **{f"nanodet_plus_m_1_5x_{size}": _nanodet("1.5x", 128, size) for size in (320, 416)},
    **_on_backbones("dw", dw),
    "dw_r50_fpn_norefine": Entry(dw, {"refine": False}),
    "dw_r101_fpn_norefine": Entry(dw, {"backbone": "resnet101", "refine": False}),
    "dw_r50_dcn_fpn": Entry(dw, DEFORMABLE),
    "dw_x101_64x4d_fpn": Entry(dw, {"backbone": "resnext101_64x4d"}),
    **_on_backbones("vfnet", vfnet),
    "vfnet_r50_dcn_fpn": Entry(vfnet, DEFORMABLE),
    "vfnet_r101_dcn_fpn": Entry(vfnet, {"backbone": "resnet101", **DEFORMABLE}),
    "vfnet_x101_32x4d_fpn": Entry(vfnet, {"backbone": "resnext101_32x4d"}),
    "vfnet_x101_32x4d_dcn_fpn": Entry(vfnet, {"backbone": "resnext101_32x4d", **DEFORMABLE}),
    "vfnet_x101_64x4d_fpn": Entry(vfnet, {"backbone": "resnext101_64x4d"}),
    "vfnet_x101_64x4d_dcn_fpn": Entry(vfnet, {"backbone": "resnext101_64x4d", **DEFORMABLE}),
    "vfnet_r2_101_fpn": Entry(vfnet, {"backbone": "res2net101d"}),
    "vfnet_r2_101_dcn_fpn": Entry(vfnet, {"backbone": "res2net101d", **DEFORMABLE}),
    **_detrs("deformable_detr", deformable_detr),
    **_detrs("deformable_detr_refine", deformable_detr, {"refine": "once"}),
    **_detrs("deformable_detr_twostage", deformable_detr, {"refine": "once", "select": "first_class"}),
    **_detrs("deformable_detr_plus", deformable_detr, PLUS),
    **_detrs("h_deformable_detr", deformable_detr, {**PLUS, "one_to_many_queries": 1500}),
    **_detrs("group_deformable_detr", deformable_detr, {"query_groups": 11}),
    **_detrs("sqr_deformable_detr", deformable_detr, {"recollect": True}),
    **_detrs("co_plain_deformable_detr", deformable_detr, CO),
    **_detrs("encoder_atss", encoder_atss),
    **_detrs("conditional_detr", conditional_detr),
    **_detrs("co_conditional_detr", conditional_detr, CO),
    **_detrs("dab_detr", dab_detr),
    **_detrs("co_dab_detr", dab_detr, CO),
    **_detrs("sqr_dab_detr", dab_detr, {"recollect": True}),
    **_detrs("dino", dino),
    **_detrs("dino_5scale", dino, {"levels": 5}),
    **_detrs("h_dino", dino, {"one_to_many_queries": 1500}),
    **_detrs("group_dino", dino, {"query_groups": 11}),
    **_detrs("co_deformable_detr", co_deformable_detr),
    **_detrs("co_dino_5scale", co_dino),
    **_detrs("co_dino", co_dino, {"levels": 4}),
    **_on_swins("dino_5scale", dino, {"levels": 5}),
    **_on_swins("co_deformable_detr", co_deformable_detr),
    **_on_swins("co_dino_5scale", co_dino),
    "co_dino_5scale_vit_l": Entry(co_dino, {**VIT, "drop_path": 0.4, "region_convs": 4, "queries": 1500}),
    "co_dino_5scale_vit_l_lvis": Entry(co_dino, {**VIT, "drop_path": 0.3, "window": 16}),
}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of ``create_model`` that match a shell pattern, sorted."""
    load_plugins()
    return sorted(fnmatch.filter(NAMES, pattern))


def is_model(name: str) -> bool:
    """Return whether ``create_model`` knows the name. Plug-ins are imported for names that poise does not have."""
    if name not in NAMES:
        load_plugins()
    return name in NAMES


def create_model(
    name: str,
    num_classes: int = 80,
    *,
    backbone_weights: Weights = None,
    image_size: int | Sequence[int] | None = None,
    deterministic: bool = False,
    assigner: str | Assigner | None = None,
    sampler: str | Sampler | None = None,
    criterion: str | Criterion | None = None,
    neck: str | AddedBalancedPyramid | None = None,
    class_balance: str | ClassBalance | None = None,
    one_to_one: str | TaskAligned | DualAssignment | None = None,
    object_balance: float | None = None,
    **options: Any,
) -> DetectionModel:
    """Build a detector.

    Args:
        name: one of ``list_models()``, for example ``"atss_r50_fpn"``.
        num_classes: object classes, without a background class.
        backbone_weights: ``None`` or ``"none"`` (random), ``"imagenet"`` (downloaded by timm) or a file of backbone
            weights.
        image_size: one number (limit of both sides) or (short, long); by default as published, (800, 1333).
        deterministic: disables all random choices of training (samplers, denoising), for comparing numbers.
        assigner: another assigner for a dense detector: a value such as ``ATSS(topk=15)``, its text ``"atss(topk=15)"``
            or a name of ``poise.models.assigners``; None: the model's own.
        sampler: another sampler of regions for a two-stage detector, given in the same ways.
        criterion: another criterion for the detections, given in the same ways.
        neck: "balanced_pyramid", for example "balanced_pyramid(refine='conv')": adds the balanced feature pyramid of
            Libra R-CNN after the pyramid of a dense or two-stage detector.
        class_balance: a loss for rare classes, "seesaw(p=0.8, q=2.0)", "equalization_v2(mu=0.8)" or
            "equalized_focal(scale=8.0)" (docs/criteria.md).
        one_to_one: "task_aligned(topk=7, keep=1)" or a ``dual_assignment(...)``: adds a one-to-one branch to a dense
            detector, which then detects without NMS (docs/without_nms.md).
        object_balance: 1.0 makes all objects count the same in the losses of a dense detector, however many positives
            they have; 0 to 1 (docs/object_balance.md). None: as published.
        options: keyword arguments of the builder function in ``poise.models``.

    Raises:
        ValueError: an unknown name or option (the message suggests the nearest), or a value out of range.
    """
    if not is_model(name):
        raise ValueError(f"no model '{name}'{did_you_mean(name, NAMES)}; poise.list_models() lists them")
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}: at least one class is needed")
    backbone_weights = None if backbone_weights in ("none", "") else backbone_weights
    entry = NAMES[name]
    known = inspect.signature(entry.builder).parameters
    if deterministic and "deterministic" in known:
        options = {**options, "deterministic": True}
    check_options(f"'{name}'", entry.builder, options)
    given: dict[str, object] = {"assigner": assigner, "sampler": sampler, "criterion": criterion}
    given |= {"neck": neck, "class_balance": class_balance, "one_to_one": one_to_one}
    given = {kind: part for kind, part in given.items() if part is not None}
    changed = bool(options or given) or object_balance is not None
    if backbone_weights and changed:  # refuse a wrong option before anything is fetched
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            trial = entry.builder(num_classes, **{**entry.fixed, "backbone_weights": None, **options})
            exchange_parts(trial, name, given, options, object_balance=object_balance)
    network = entry.builder(num_classes, **{**entry.fixed, "backbone_weights": backbone_weights, **options})
    preprocess = entry.preprocess
    if "caffe" in options and options["caffe"] != entry.fixed.get("caffe", False):
        preprocess = CAFFE if options["caffe"] else Preprocess()
    if image_size is not None:
        preprocess = preprocess.with_size(image_size)
        options = {**options, "image_size": [preprocess.short, preprocess.long]}
    options = {**options, **exchange_parts(network, name, given, options, object_balance=object_balance)}
    if object_balance is not None:
        options["object_balance"] = object_balance
    return DetectionModel(network, preprocess, name, num_classes, options=options, progress=entry.progress)
