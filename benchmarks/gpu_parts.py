"""The parts of benchmarks/gpu.py: functions ``(Setting) -> rows``. ``PARTS`` lists them, most important first.

A row is what ``record.py`` describes. A part may raise: the driver records the error and goes on with the next part.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import assignment
import assignment_share
import deformable_attention
import record
import torch
import train_step
from torch import Tensor, nn

from poise.models import create_model
from poise.nn.kernels import deformable_sampling
from poise.structures import Batch, GroundTruth, Progress, map_tensors

Rows = list[record.Row]


@dataclass(frozen=True)
class Setting:
    """Sizes of a run: those of a data-centre GPU, or tiny ones on a CPU (``--rehearse``)."""

    device: str = "cuda"
    height: int = 800
    width: int = 1344
    batch: int = 2
    depth: str = "r50"
    rounds: int = 7
    objects: tuple[int, ...] = (1, 10, 60, 300)
    crowd: int = 5000
    images: int = 256
    workers: int = 12

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def options(self) -> dict[str, Any]:
        """Options of dense models: as published, or small."""
        return {} if self.on_gpu else {"channels": 16, "depth": 1, "backbone": "test_resnet"}


TINY = Setting("cpu", 64, 96, 2, "r18", 1, (1, 10), 40, 8, 0)


def synchronize(setting: Setting) -> None:
    if setting.on_gpu:
        torch.cuda.synchronize()


def median_ms(call: Callable[[], Any], setting: Setting, rounds: int | None = None) -> float:
    """Median time of a call in milliseconds, after one call that is not counted."""
    call()
    times = []
    for _ in range(rounds or setting.rounds):
        synchronize(setting)
        start = time.perf_counter()
        call()
        synchronize(setting)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def peak_mib(setting: Setting) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if setting.on_gpu else math.nan


def batch_of(setting: Setting, objects: int = 7, images: int = 0) -> Batch:
    count = images or setting.batch
    truth = assignment_share.truth_of(count, setting.height, objects, setting.device)
    truth = replace(truth, sizes=truth.sizes.new_tensor([[setting.height, setting.width]] * count))
    pixels = torch.randn(count, 3, setting.height, setting.width, device=setting.device)
    return Batch(pixels, truth, torch.arange(count, device=setting.device))


def network_of(name: str, setting: Setting, **options: Any) -> nn.Module:
    model = create_model(name, num_classes=80, **options).to(setting.device).train()
    network: nn.Module = model.network
    backbone: Any = network.backbone
    backbone.freeze_as_pretrained()
    return network


class Step:
    """A training step of a network: forward, backward and optimizer."""

    def __init__(self, network: nn.Module, batch: Any, precision: torch.dtype | None, call: Any = None) -> None:
        self.network, self.batch, self.precision = network, batch, precision
        self.call = call or (lambda batch: network(batch, Progress.final()).total)
        parameters = [p for p in network.parameters() if p.requires_grad]
        self.device = parameters[0].device.type
        self.optimizer = torch.optim.SGD(parameters, 1e-4, 0.9, fused=self.device == "cuda")

    def __call__(self) -> Tensor:
        with torch.autocast(self.device, self.precision or torch.bfloat16, enabled=self.precision is not None):
            loss: Tensor = self.call(self.batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


@contextmanager
def no_synchronization(setting: Setting) -> Iterator[None]:
    """Raise where PyTorch waits for the device."""
    if setting.on_gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if setting.on_gpu:
            torch.cuda.set_sync_debug_mode("default")


def steps_without_synchronization(setting: Setting) -> Rows:
    """The second training step of every model that has no NMS or Hungarian matching inside, in fp32 and bf16."""
    small = replace(setting, height=128, width=160) if setting.on_gpu else setting
    names = "retinanet fcos atss gfl gflv2 dw vfnet libra_retinanet autoassign freeanchor paa foveabox ota yolox tood"
    rows: Rows = []
    for family in names.split():
        options = {"channels": 64, "depth": 1} if setting.on_gpu else setting.options()
        network, batch = network_of(f"{family}_r18_fpn", small, **options), batch_of(small)
        for precision in (None, torch.bfloat16):
            step = Step(network, batch, precision)
            step()
            synchronize(setting)
            row: record.Row = {"case": f"{family} {'bf16' if precision else 'fp32'}", "synchronizes": "no"}
            try:
                with no_synchronization(setting):
                    loss = step()
            except RuntimeError as error:
                row["synchronizes"] = str(error).splitlines()[0][:200]
            else:
                row["loss"] = float(loss)
            rows.append(row)
    return rows


def triton_kernel(setting: Setting) -> Rows:
    """Deformable attention: values, gradients and times of the Triton kernel against the PyTorch form."""
    sizes = ((100, 168), (50, 84), (25, 42), (13, 21)) if setting.on_gpu else ((8, 12), (4, 6), (2, 3), (1, 2))
    rows: Rows = []
    for queries in (300, 900, 0) if setting.on_gpu else (5, 0):
        options = type("Options", (), {"batch": setting.batch, "autocast": None, "device": setting.device})()
        tensors = deformable_attention.inputs(sizes, queries, options)  # type: ignore[arg-type]

        def form(kernel: bool, tensors: list[Tensor] = tensors) -> list[Tensor]:
            leaves = [tensor.detach().float().requires_grad_() for tensor in tensors]
            function = deformable_sampling.sample_levels if kernel else deformable_sampling.sample_in_bags
            found = function(leaves[0], sizes, leaves[1], leaves[2])
            return [found, *torch.autograd.grad(found.square().sum(), leaves)]

        mine, plain = ([tensor.detach() for tensor in form(kernel)] for kernel in (True, False))
        worst = [float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in zip(mine, plain, strict=True)]
        kernel = setting.on_gpu and deformable_sampling.has_kernel()
        row: record.Row = {"case": f"{queries or 'all'} queries", "form": "Triton" if kernel else "embedding bag"}
        row |= {"value_difference": worst[0], "gradient_difference": max(worst[1:])}
        row["poise_ms"] = median_ms(partial(form, True), setting)
        row["bags time"] = median_ms(partial(form, False), setting, 2)
        rows.append(row | {"bags_ratio": row["bags time"] / row["poise_ms"]})
    return rows


def dense_assignment(setting: Setting) -> Rows:
    """Time of every assigner on all pairs at 1 to 300 objects and in a crowd, and its peak memory."""
    rows: Rows = []
    assignment.HEIGHT, assignment.WIDTH = setting.height, setting.width
    for name, choice in assignment.ASSIGNERS.items():
        predictions = assignment.predictions_of(name, setting.batch)
        moved, assigner = map_tensors(predictions, lambda tensor: tensor.to(setting.device)), choice.make()
        for objects in (*setting.objects, setting.crowd):
            truth: GroundTruth = assignment.truth_of(setting.batch, objects).to(setting.device)
            if setting.on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated() / 2**20
            rounds = 2 if objects == setting.crowd else setting.rounds
            row: record.Row = {"case": f"{name}/{objects}", "assigner": name, "objects": objects}
            row["poise_ms"] = median_ms(partial(assigner, moved, truth), setting, rounds) / setting.batch
            if setting.on_gpu:
                row["memory_mib"] = peak_mib(setting) - before
            rows.append(row)
    return rows


def share_of_assignment(setting: Setting) -> Rows:
    """Step, assignment and losses of the dense detectors, bf16, R-50 at 800 x 1344."""
    rows: Rows = []
    for family in assignment_share.FAMILIES:
        network = network_of(f"{family}_{setting.depth}_fpn", setting, **setting.options())
        batch = batch_of(setting)
        taken = [assignment_share.measure(network, batch, Progress.final(), "bf16") for _ in range(4)][1:]
        assigning, losing, whole = (1000 * statistics.median(column) for column in zip(*taken, strict=True))
        rows.append({"case": family, "step_ms": whole, "assignment_ms": assigning, "loss_ms": losing})
        rows[-1]["percent"] = 100 * (assigning + losing) / whole
    return rows


def steps_against_torchvision(setting: Setting) -> Rows:
    """Steps of FCOS, RetinaNet and Faster R-CNN and torchvision's, alternately, in bf16; peak memory of both."""
    rows: Rows = []
    images, targets = train_step.scene(setting.batch, setting.height, 7, setting.device)
    for name in train_step.PAIRS:
        models = train_step.contestants(name, setting.height, setting.device)
        steps, peaks = [], []
        for model in models:
            call = partial(lambda model, batch: sum(model(*batch).values()), model)
            steps.append(Step(model, (images, targets), torch.bfloat16, call))
            if setting.on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            steps[-1]()
            peaks.append(peak_mib(setting))
        times = [[median_ms(step, setting, 1) for step in steps] for _ in range(setting.rounds)]
        mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        row: record.Row = {"case": name, "poise_ms": mine, "torchvision time": theirs}
        row["torchvision_ratio"] = statistics.median(b / a for a, b in times)
        if setting.on_gpu:
            row |= {"memory_mib": peaks[0], "torchvision memory": peaks[1]}
        rows.append(row)
    return rows


def steps_eager(setting: Setting) -> Rows:
    """Steps of VarifocalNet, DW, Deformable DETR and Co-DINO in bf16, with peak memory and images a second."""
    queries = {} if setting.on_gpu else {"channels": 32, "hidden": 64, "encoder_layers": 1, "decoder_layers": 2}
    queries |= {} if setting.on_gpu else {"backbone": "test_resnet"}
    cases: dict[str, dict[str, Any]] = {
        f"vfnet_{setting.depth}_fpn": setting.options(),
        f"dw_{setting.depth}_fpn": setting.options(),
        f"deformable_detr_{setting.depth}": queries,
        "co_dino_5scale_r50" if setting.on_gpu else "co_dino_r18": queries,
    }
    rows: Rows = []
    for name, options in cases.items():
        if setting.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        step = Step(network_of(name, setting, **options), batch_of(setting), torch.bfloat16)
        milliseconds = median_ms(step, setting)
        rows.append({"case": name, "poise_ms": milliseconds, "images_per_s": 1000 * setting.batch / milliseconds})
        if setting.on_gpu:
            rows[-1]["memory_mib"] = peak_mib(setting)
    return rows


def detr_against_transformers(setting: Setting) -> Rows:
    """A step of Deformable DETR and transformers' (timm-free R-50 configuration), alternately, in fp32."""
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

    width = 256 if setting.on_gpu else 32
    layers = 6 if setting.on_gpu else 2  # transformers ties the box heads of its layers: at least two
    body = ResNetConfig(out_features=["stage2", "stage3", "stage4"])
    config = DeformableDetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=body, num_labels=80,
        d_model=width, encoder_layers=layers, decoder_layers=layers, num_queries=300, two_stage=False,
    )  # fmt: skip
    theirs = DeformableDetrForObjectDetection(config).to(setting.device).train()
    batch = batch_of(setting)
    extent = batch.truth.sizes.flip(1).repeat(1, 2)[:, None]
    boxes = batch.truth.boxes / extent
    labels = [
        {
            "class_labels": batch.truth.labels[i][batch.truth.valid[i]],
            "boxes": torch.cat(((b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]), 1)[batch.truth.valid[i]],
        }
        for i, b in enumerate(boxes)
    ]
    options: dict[str, Any] = {} if setting.on_gpu else {"channels": 32, "hidden": 64}
    mine = network_of("deformable_detr_r50", setting, encoder_layers=layers, decoder_layers=layers, **options)
    steps = [
        Step(mine, batch, None),
        Step(theirs, batch, None, lambda batch: theirs(pixel_values=batch.pixels, labels=labels).loss),
    ]
    times = [[median_ms(step, setting, 1) for step in steps] for _ in range(setting.rounds)]
    own, other = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    return [{"case": "deformable_detr_r50", "poise_ms": own, "transformers time": other, "transformers_ratio": ratio}]


def compiled_steps(setting: Setting) -> Rows:
    """Compiled and eager steps of FCOS and DW in bf16, and compilations while the number of objects changes."""
    from torch._dynamo.utils import counters

    rows: Rows = []
    for family in ("fcos", "dw"):
        network = network_of(f"{family}_{setting.depth}_fpn", setting, **setting.options())
        eager = median_ms(Step(network, batch_of(setting), torch.bfloat16), setting)
        torch._dynamo.reset()
        counters.clear()
        backend = "inductor" if setting.on_gpu else "eager"
        compiled: Any = torch.compile(network, backend=backend)
        start = time.perf_counter()
        step = Step(
            network, batch_of(setting), torch.bfloat16, lambda batch, c=compiled: c(batch, Progress.final()).total
        )
        step()
        waited = time.perf_counter() - start
        milliseconds = median_ms(step, setting)
        for objects in (1, 9, 20, 40, 60, 100):
            step.batch = batch_of(setting, objects)
            step()
        graphs = int(counters["stats"]["unique_graphs"])
        row: record.Row = {"case": family, "eager time": eager, "poise_ms": milliseconds, "compilation": waited}
        rows.append(row | {"eager_ratio": eager / milliseconds, "graphs over six object counts": graphs})
    return rows


def half_precision_scaler(setting: Setting) -> Rows:
    """Ten fp16 steps with a gradient scaler: finite losses, and steps that the scaler skipped."""
    network, batch = network_of(f"atss_{setting.depth}_fpn", setting, **setting.options()), batch_of(setting)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 1e-4, 0.9)
    scaler = torch.amp.GradScaler(setting.device, init_scale=2.0**16)
    precision = torch.float16 if setting.on_gpu else torch.bfloat16
    losses, scales = [], []
    for _ in range(10 if setting.on_gpu else 2):
        with torch.autocast(setting.device, precision):
            loss = network(batch, Progress.final()).total
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        scales.append(float(scaler.get_scale()))
    skipped = sum(later < earlier for earlier, later in zip([2.0**16, *scales], scales, strict=False))
    finite = all(math.isfinite(loss) for loss in losses)
    return [{"case": f"atss_{setting.depth}_fpn", "finite": str(finite), "skipped": skipped, "last loss": losses[-1]}]


def channels_last(setting: Setting) -> Rows:
    """A bf16 step in contiguous and in channels-last memory."""
    name = f"atss_{setting.depth}_fpn"
    plain = median_ms(Step(network_of(name, setting, **setting.options()), batch_of(setting), torch.bfloat16), setting)
    network = network_of(name, setting, **setting.options()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = batch_of(setting)
    moved = replace(batch, pixels=batch.pixels.contiguous(memory_format=torch.channels_last))
    last = median_ms(Step(network, moved, torch.bfloat16), setting)
    return [{"case": name, "contiguous time": plain, "poise_ms": last, "contiguous_ratio": plain / last}]


def images_with_loader(setting: Setting) -> Rows:
    """Images a second of `poise train` on generated scenes, loader and validation included."""
    from poise.api import Detector
    from poise.data.demo import write_demo_data

    with tempfile.TemporaryDirectory() as folder:
        size = 640 if setting.on_gpu else 96
        data = write_demo_data(Path(folder) / "demo", train=setting.images, val=2, size=size)
        options = {} if setting.on_gpu else {"channels": 16, "depth": 1, "backbone": "test_byobnet"}
        start = time.perf_counter()
        Detector("atss_r18_fpn", device=setting.device).train(
            data=data, epochs=1, batch_size=16 if setting.on_gpu else 4, workers=setting.workers, image_size=size,
            out=Path(folder) / "run", model={"backbone_weights": "none", "options": options},
        )  # fmt: skip
        seconds = time.perf_counter() - start
    return [{"case": f"{setting.images} images of {size} px, one epoch", "images_per_s": setting.images / seconds}]


def one_process_group(setting: Setting) -> Rows:
    """A step through DistributedDataParallel with NCCL (gloo on a CPU) on one process."""
    from torch import distributed

    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if setting.on_gpu else "gloo"
        distributed.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            network = network_of(f"atss_{setting.depth}_fpn", setting, **setting.options())
            parallel: Any = nn.parallel.DistributedDataParallel(network)
            step = Step(network, batch_of(setting), torch.bfloat16, lambda b: parallel(b, Progress.final()).total)
            row: record.Row = {"case": backend, "poise_ms": median_ms(step, setting)}
        finally:
            distributed.destroy_process_group()
    return [row]


PARTS: dict[str, Callable[[Setting], Rows]] = {
    function.__name__: function
    for function in (
        steps_without_synchronization,
        triton_kernel,
        dense_assignment,
        share_of_assignment,
        steps_against_torchvision,
        steps_eager,
        detr_against_transformers,
        half_precision_scaler,
        channels_last,
        one_process_group,
        images_with_loader,
        compiled_steps,
    )
}
