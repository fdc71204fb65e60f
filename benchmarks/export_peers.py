"""Two-stage and query detectors in ONNX Runtime and PyTorch on the CPU: poise, torchvision and transformers in one run.

    python benchmarks/export_peers.py [--backbone resnet18] [--size 512] [--rounds 10] [--clock cpu] [--json FILE]

Faster R-CNN is compared with torchvision's, Deformable DETR (300 queries, 6 layers, no refinement) with that of
transformers. Each is exported by its own means: ``poise export`` and ``torch.onnx.export``. Both of a pair have the
same backbone, input size, number of classes and of proposals, and random weights. One thread, batch 1; all take turns.

PyTorch's newer exporter (``dynamo=True``) writes the file of transformers. ONNX Runtime refuses that of its older one,
because the sampling grids are float64, for which it has no ``GridSample``. torchvision's model needs the older one.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import record
import torch
from co_detr_inference import turns
from torch import Tensor, nn

import poise
from poise.export import export_model, load_exported

CLASSES = 3
Call = Callable[[], object]


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def of_poise(name: str, pixels: Tensor, folder: Path, **settings: Any) -> dict[str, Call]:
    """Calls of the model and of its file."""
    size = pixels.shape[3]
    torch.manual_seed(0)
    model = poise.create_model(name, num_classes=CLASSES, image_size=size, backbone_weights=None).eval()
    for key, parameter in model.named_parameters():
        if key.endswith(("classes.weight", "objectness.weight")):
            nn.init.normal_(parameter, std=0.1)
    images = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(2)]
    path = folder / f"{name}.onnx"
    print(f"{name}: {export_model(model, path, images, **settings)}", flush=True)
    network: Any = load_exported(path, 1).network
    inputs = {"pixels": pixels, "sizes": torch.tensor([[size, size]], dtype=torch.float32)}
    print(f"{name}: {[tuple(value.shape) for value in network.session(inputs)]}", flush=True)
    return {"PyTorch": lambda: model.detect(pixels), "ONNX Runtime": lambda: network.session(inputs)}


def of_torchvision(backbone: str, pixels: Tensor, folder: Path) -> dict[str, Call]:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    size = pixels.shape[3]
    torch.manual_seed(0)
    body: Any = resnet_fpn_backbone(backbone_name=backbone, weights=None)
    model: Any = FasterRCNN(body, CLASSES + 1, min_size=size, max_size=size).eval()
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.1)
    nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.1)
    path = folder / "torchvision.onnx"
    torch.onnx.export(model, ([pixels[0]],), path, dynamo=False, opset_version=17, input_names=["image"])
    run, inputs = session(path), {"image": pixels[0].numpy()}
    print(f"torchvision: {[value.shape for value in run.run(None, inputs)]}", flush=True)
    return {"PyTorch": lambda: model([pixels[0]]), "ONNX Runtime": lambda: run.run(None, inputs)}


class Outputs(nn.Module):
    """A model of transformers with tensors as outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model(pixel_values=pixels, pixel_mask=mask)
        return found.logits.sigmoid(), found.pred_boxes


def of_transformers(backbone: str, pixels: Tensor, folder: Path) -> dict[str, Call]:
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

    torch.manual_seed(0)
    settings = {"use_timm_backbone": True, "use_pretrained_backbone": False, "num_labels": CLASSES}
    model = Outputs(DeformableDetrForObjectDetection(DeformableDetrConfig(backbone=backbone, **settings))).eval()
    mask = torch.ones(1, *pixels.shape[2:], dtype=torch.int64)
    path = folder / "transformers.onnx"
    names = ["pixels", "mask"]
    torch.onnx.export(model, (pixels, mask), path, dynamo=True, opset_version=18, input_names=names, verbose=False)
    calls: dict[str, Call] = {"PyTorch": lambda: model(pixels, mask)}
    run = session(path)
    wanted = {value.name for value in run.get_inputs()}
    inputs = {name: value.numpy() for name, value in {"pixels": pixels, "mask": mask}.items() if name in wanted}
    scores, boxes = (torch.from_numpy(value) for value in run.run(None, inputs))
    wanted_scores, wanted_boxes = model(pixels, mask)
    print(f"transformers: scores differ by {(scores - wanted_scores).abs().max():.2g}, boxes (of 1) by ", end="")
    print(f"{(boxes - wanted_boxes).abs().max():.2g}", flush=True)
    calls["ONNX Runtime"] = lambda: run.run(None, inputs)
    return calls


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18", choices=["resnet18", "resnet50"])
    parser.add_argument("--size", type=int, default=512, help="height and width, px")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clock", choices=record.CLOCKS, default="cpu")
    parser.add_argument("--only", choices=["faster_rcnn", "deformable_detr"])
    record.add_json(parser)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    size, backbone, short = arguments.size, arguments.backbone, arguments.backbone.replace("resnet", "r")
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    rows: list[record.Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs: dict[str, Callable[[], tuple[dict[str, Call], dict[str, Call]]]] = {
            "faster_rcnn": lambda: (
                of_poise(f"faster_rcnn_{short}_fpn", pixels, folder, nms=True),
                of_torchvision(backbone, pixels, folder),
            ),
            "deformable_detr": lambda: (
                of_poise(f"deformable_detr_{short}", pixels, folder),
                of_transformers(backbone, pixels, folder),
            ),
        }
        print(f"{record.headline()}; {size} x {size}, one thread, {arguments.clock} time", flush=True)
        for kind, make in pairs.items():
            if arguments.only not in (None, kind):
                continue
            ours, theirs = make()
            calls = [*ours.values(), *theirs.values()]
            taken = [1000 * seconds for seconds in turns(calls, arguments.rounds, record.CLOCKS[arguments.clock])]
            for runtime, mine, peer in zip(ours, taken, taken[len(ours) :], strict=False):
                rows.append({"case": f"{kind}, {runtime}", "poise_ms": mine, "peer_ms": peer, "ratio": peer / mine})
    print("\n| model | runtime | poise, ms | peer, ms | peer / poise |\n|---|---|---:|---:|---:|")
    for row in rows:
        kind, runtime = row["case"].split(", ")
        print(f"| {kind} | {runtime} | {row['poise_ms']:.0f} | {row['peer_ms']:.0f} | {row['ratio']:.2f} |")
    record.write(arguments.json, "export_peers", arguments, rows)


if __name__ == "__main__":
    main()
