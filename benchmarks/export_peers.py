"""ONNX Runtime on the CPU: exported two-stage and query detectors of poise, torchvision and transformers, in one run.

    python benchmarks/export_peers.py [--backbone resnet18] [--size 320 320] [--threads 1] [--repeats 20]

Faster R-CNN is compared with torchvision's, Deformable DETR (300 queries, 6 layers, no refinement) with that of
transformers, each exported by its own means: ``poise.export`` and ``torch.onnx.export``. Both of a pair have the same
backbone, input size and number of classes, 1000 proposals and random weights. The calls of all candidates alternate;
ratios are medians over the rounds, so that the load of the machine meets all of them alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import poise
from poise.export import export_model, load_exported

CLASSES = 3


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ours(name: str, size: tuple[int, int], threads: int, folder: Path, **settings: Any) -> Callable[[Tensor], object]:
    torch.manual_seed(0)
    model = poise.create_model(name, num_classes=CLASSES, image_size=size, backbone_weights=None).eval()
    for key, parameter in model.named_parameters():
        if key.endswith(("classes.weight", "objectness.weight")):
            nn.init.normal_(parameter, std=0.1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(2)]
    path = folder / f"{name}.onnx"
    print(f"{name}: {export_model(model, path, images, **settings)}", flush=True)
    network: Any = load_exported(path, threads).network
    sizes = torch.tensor([size], dtype=torch.float32)
    return lambda pixels: network.session({"pixels": pixels, "sizes": sizes})


def torchvision_faster_rcnn(
    backbone: str, size: tuple[int, int], threads: int, folder: Path
) -> Callable[[Tensor], object]:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    torch.manual_seed(0)
    body = resnet_fpn_backbone(backbone_name=backbone, weights=None)
    model = FasterRCNN(body, CLASSES + 1, min_size=min(size), max_size=max(size)).eval()
    path, image = folder / "torchvision.onnx", torch.rand(3, *size)
    torch.onnx.export(model, ([image],), path, dynamo=False, opset_version=17, input_names=["image"])
    run = session(path, threads)
    return lambda pixels: run.run(None, {"image": np.ascontiguousarray(pixels[0].numpy())})


def transformers_deformable_detr(
    backbone: str, size: tuple[int, int], threads: int, folder: Path
) -> Callable[[Tensor], object]:
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

    torch.manual_seed(0)
    config = DeformableDetrConfig(
        use_timm_backbone=True, backbone=backbone, use_pretrained_backbone=False, num_labels=CLASSES
    )
    model = DeformableDetrForObjectDetection(config).eval()

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            found = self.model(pixel_values=pixels, pixel_mask=mask)
            return found.logits.sigmoid(), found.pred_boxes

    path, mask = folder / "transformers.onnx", torch.ones(1, *size, dtype=torch.int64)
    names = ["pixels", "mask"]
    with torch.no_grad():
        torch.onnx.export(
            Outputs(), (torch.rand(1, 3, *size), mask), path, dynamo=False, opset_version=17, input_names=names
        )
    run, values = session(path, threads), {"mask": mask.numpy()}
    wanted = {value.name for value in run.get_inputs()}
    given = {name: value for name, value in values.items() if name in wanted}
    return lambda pixels: run.run(None, {"pixels": pixels.numpy(), **given})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18", choices=["resnet18", "resnet50"])
    parser.add_argument("--size", type=int, nargs=2, default=(320, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    size, threads, backbone = (arguments.size[0], arguments.size[1]), arguments.threads, arguments.backbone
    short = backbone.replace("resnet", "r")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = {
            "Faster R-CNN": (
                lambda: ours(f"faster_rcnn_{short}_fpn", size, threads, folder, nms=True),
                lambda: torchvision_faster_rcnn(backbone, size, threads, folder),
            ),
            "Deformable DETR": (
                lambda: ours(f"deformable_detr_{short}", size, threads, folder),
                lambda: transformers_deformable_detr(backbone, size, threads, folder),
            ),
        }
        runs = {kind: [make() for make in makers] for kind, makers in pairs.items()}
        times: dict[str, list[list[float]]] = {kind: [[], []] for kind in runs}
        for number in range(arguments.repeats + 2):
            pixels = torch.rand(1, 3, *size)
            for kind, both in runs.items():
                for side, run in enumerate(both):
                    start = time.perf_counter()
                    run(pixels)
                    if number >= 2:
                        times[kind][side].append(1000 * (time.perf_counter() - start))
    print(
        f"\n{backbone}, {size[0]} x {size[1]}, batch 1, {threads} threads, {arguments.repeats} rounds; load of the "
        f"machine {os.getloadavg()[0]:.1f}\n"
    )
    print("| model | poise, ms | peer, ms | peer / poise |\n|---|---|---|---|")
    for kind, (mine, peer) in times.items():
        ratio = statistics.median(b / a for a, b in zip(mine, peer, strict=True))
        print(f"| {kind} | {statistics.median(mine):.0f} | {statistics.median(peer):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
