"""A training step (forward, loss, backward, optimizer) of poise's detectors against torchvision's of the same name.

Both get the same images and objects in one run, turn by turn, so that a machine whose pace drifts is fair to both. Each
side takes the SGD of its own training loop: fused in ``poise train``, PyTorch's default in torchvision's references.

    python benchmarks/train_step.py [--size 320] [--batch 2] [--steps 5] [--threads 2] [--device cpu]
                                    [--clock wall] [--json FILE] [--models faster_rcnn_r50_fpn]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import record
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection

from poise.detection_model import DetectionModel
from poise.models import create_model

Step = Callable[[], float]
PAIRS = {
    "fcos_r50_fpn": detection.fcos_resnet50_fpn,
    "retinanet_r50_fpn": detection.retinanet_resnet50_fpn,
    # as many proposals as poise's published settings have
    "faster_rcnn_r50_fpn": partial(detection.fasterrcnn_resnet50_fpn, rpn_post_nms_top_n_train=1000),
}


def scene(batch: int, size: int, objects: int, device: str) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, size, size, generator=generator).to(device) for _ in range(batch)]
    targets = []
    for _ in range(batch):
        corner = torch.rand(objects, 2, generator=generator) * size * 0.6
        extent = 8 + torch.rand(objects, 2, generator=generator) * size * 0.35
        labels = torch.randint(1, 80, (objects,), generator=generator)
        targets.append({"boxes": torch.cat((corner, corner + extent), 1).to(device), "labels": labels.to(device)})
    return images, targets


def freeze_as_published(backbone: nn.Module) -> None:
    """Stem and first stage at rest, batch norms evaluated: what torchvision does with its pretrained backbones."""
    for module in backbone.modules():
        if isinstance(module, (nn.BatchNorm2d, torchvision.ops.FrozenBatchNorm2d)):
            module.eval()
    for name, parameter in backbone.named_parameters():
        if name.startswith(("conv1", "bn1", "layer1", "body.conv1", "body.bn1", "body.layer1")):
            parameter.requires_grad_(False)


def step_of(model: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]], args: argparse.Namespace) -> Step:
    fused = True if isinstance(model, DetectionModel) else None
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-4, 0.9, fused=fused)

    clock = record.CLOCKS[args.clock]

    def step() -> float:
        start = clock()
        optimizer.zero_grad(set_to_none=True)
        sum(model(images, targets).values()).backward()
        optimizer.step()
        if args.device != "cpu":
            torch.cuda.synchronize()
        return clock() - start

    return step


def contestants(name: str, size: int, device: str) -> tuple[nn.Module, nn.Module]:
    """Poise's model and torchvision's, frozen alike and fed the same pixels."""
    mine = create_model(name, num_classes=91, image_size=size, frozen_stages=1, norm_eval=True).to(device).train()
    theirs = PAIRS[name](weights=None, weights_backbone=None, num_classes=91, min_size=size, max_size=size)
    theirs = theirs.to(device).train()
    freeze_as_published(theirs.backbone)
    return mine, theirs


def measure(name: str, args: argparse.Namespace) -> record.Row:
    images, targets = scene(args.batch, args.size, args.objects, args.device)
    steps = [step_of(model, images, targets, args) for model in contestants(name, args.size, args.device)]
    for step in steps:
        step()
    times = [[step() for step in steps] for _ in range(args.steps)]
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    return {"case": name, "poise_s": mine, "torchvision time": theirs, "torchvision_ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--objects", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--clock", choices=record.CLOCKS, default="wall", help="cpu: seconds of all threads together")
    record.add_json(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [measure(name, args) for name in record.track(args.models)]
    print(f"{record.headline()}; on {args.device}, {args.clock} time")
    print(f"{args.batch}x3x{args.size}x{args.size}, {args.objects} objects an image, {args.threads} threads")
    print("| model | poise s/step | torchvision s/step | torchvision / poise |\n|---|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['case']} | {row['poise_s']:.3f} | {row['torchvision time']:.3f} | {row['torchvision_ratio']:.2f} |"
        )
    record.write(args.json, "train_step", args, rows)


if __name__ == "__main__":
    main()
