"""What a training run is made of, as plain frozen dataclasses; every field is reachable as ``--group.field value``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from poise.recipes.augment import AugmentSettings
from poise.recipes.values import OptionValue


@dataclass(frozen=True)
class ModelSettings:
    """Which model is trained; the number of classes comes from the data."""

    name: str = "atss_r50_fpn"
    """A name of ``poise.list_models()``."""
    backbone_weights: str = "none"
    """``none`` (random), ``imagenet`` (timm downloads them), or a file of backbone weights."""
    weights: str = ""
    """A poise model file, a run folder or a published checkpoint that the whole model starts from; empty: none."""
    image_size: tuple[int, ...] = ()
    """(limit of both sides,) or (short, long); empty: as published (800, 1333)."""
    options: dict[str, OptionValue] = field(default_factory=dict)
    """Keyword arguments of the model's builder function: numbers, words, true, false, None, (4, 5)."""

    def __post_init__(self) -> None:
        _require(len(self.image_size) <= 2, f"model.image_size={self.image_size} must be one number or (short, long)")
        _require(all(size > 0 for size in self.image_size), f"model.image_size={self.image_size} must be positive")


@dataclass(frozen=True)
class DataSettings:
    """Which images, and how they become batches."""

    path: str = ""
    """Folder or file of the data set: COCO, YOLO, Pascal VOC or LVIS, as it is."""
    train: str = ""
    """Name of the split that is trained on; empty: train, else trainval, else the only one."""
    val: str = ""
    """Name of the split that is validated on; empty: val, else test, else the training split; none: no validation."""
    on_bad_data: Literal["error", "skip"] = "error"
    """What happens at start-up when ``poise check`` would find faults: stop with the list, or leave the faulty out."""
    keep_empty: bool = True
    """Train on images without objects as background; published COCO recipes leave them out."""
    min_side: int = 0
    """Images with a side shorter than this many pixels are not trained on; published COCO recipes use 32."""
    repeat_threshold: float = 0.0
    """Repeat-factor sampling (LVIS, 0.001): images whose rarest class is shown by a smaller share f of the images come
    sqrt(repeat_threshold / f) times, rounded up, in every epoch; 0: every image once."""
    group_by_aspect: bool = False
    """Batches hold only wide or only tall images, as in MMDetection: less padding."""
    batch_size: int = 16
    """Images of one optimizer step, all processes and accumulated parts together."""
    eval_batch_size: int = 8
    """Images of one batch in validation, a process."""
    workers: int = 4
    """Processes that load images, for each training process; 0 loads in the training process."""
    drop_last: bool = False
    """Leave out the last batch of an epoch where it is not full."""
    proposals: str = ""
    """File of proposals (COCO results) of the training images, for models that are given regions: fast_rcnn_*."""
    val_proposals: str = ""
    """File of proposals of the validation images; empty: they are in the same file."""
    proposals_limit: int = 2000
    """The best proposals of an image that are used."""

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, f"data.batch_size={self.batch_size} must be at least 1")
        _require(self.eval_batch_size >= 1, f"data.eval_batch_size={self.eval_batch_size} must be at least 1")
        _require(self.workers >= 0, f"data.workers={self.workers} cannot be negative")
        _require(0 <= self.repeat_threshold <= 1, f"data.repeat_threshold={self.repeat_threshold} must lie in [0, 1]")
        _require(self.proposals_limit >= 1, f"data.proposals_limit={self.proposals_limit} must be at least 1")


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer and its parameter groups."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    """Learning rate for a batch of ``lr_batch_size`` images."""
    lr_batch_size: int = 16
    """The rate is scaled by batch / lr_batch_size (linear scaling); 0: ``lr`` is used as it stands."""
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    norm_decay_multiplier: float = 1.0
    """Times ``weight_decay`` for weights and biases of normalization layers; 0 excludes them."""
    bias_decay_multiplier: float = 1.0
    """Times ``weight_decay`` for biases outside normalization layers."""
    bias_lr_multiplier: float = 1.0
    """Times ``lr`` for biases outside normalization layers (2 in FCOS and VarifocalNet)."""
    backbone_lr_multiplier: float = 1.0
    """Times ``lr`` for the backbone (0.1 in the DETR family)."""
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    """Part of a parameter's name to a multiplier of ``lr``; the longest that occurs wins, also over the backbone's."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"optimizer.lr={self.lr} must be positive")
        _require(self.lr_batch_size >= 0, f"optimizer.lr_batch_size={self.lr_batch_size} cannot be negative")
        _require(self.weight_decay >= 0, f"optimizer.weight_decay={self.weight_decay} cannot be negative")
        _require(0 <= self.momentum < 1, f"optimizer.momentum={self.momentum} must lie in [0, 1)")


@dataclass(frozen=True)
class ScheduleSettings:
    """How long, and the learning rate's way through it."""

    epochs: int = 12
    kind: Literal["multistep", "cosine", "flat_cosine", "flat_linear", "constant"] = "multistep"
    milestones: tuple[int, ...] = (8, 11)
    """multistep: after each of these epochs the rate is multiplied by ``gamma``."""
    gamma: float = 0.1
    flat_fraction: float = 0.5
    """flat_cosine, flat_linear: fraction of the training before the rate begins to fall."""
    min_lr_ratio: float = 0.0
    """cosine, flat_cosine, flat_linear: the last rate divided by the first."""
    by_epoch: bool = False
    """cosine: the rate changes once an epoch instead of every step."""
    warmup: Literal["linear", "constant"] = "linear"
    warmup_steps: int = 500
    warmup_ratio: float = 0.001
    """Share of the rate at which the warm-up begins (or stays, if constant)."""
    warmup_max_fraction: float = 1.0
    """The warm-up takes at most this share of all steps, so that short trainings are not all warm-up."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"schedule.epochs={self.epochs} must be at least 1")
        _require(self.warmup_steps >= 0, f"schedule.warmup_steps={self.warmup_steps} cannot be negative")
        rising = list(self.milestones) == sorted(set(self.milestones))
        _require(rising, f"schedule.milestones={self.milestones} must increase")
        _require(0 <= self.flat_fraction < 1, f"schedule.flat_fraction={self.flat_fraction} must lie in [0, 1)")


@dataclass(frozen=True)
class TrainSettings:
    """The loop."""

    seed: int = 0
    accumulate: int = 1
    """Parts in which each process takes its share of a batch; their gradients are averaged."""
    clip_norm: float = 0.0
    """Gradients are scaled down to this L2 norm; 0: no clipping."""
    federated_classes: int = 0
    """Classes that one classification loss of a DETR reads: those present, and others drawn by the square root of
    their number of images (LVIS, 50); 0: all."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema_decay: float = 0.0
    """Exponential moving average of parameters and buffers with this decay (0.9998 is usual); 0: none."""
    ema_ramp: Literal["exponential", "ratio", "none"] = "exponential"
    """The decay at a step: times 1 - exp(-(1+step)/ema_ramp_steps), at most (1+step)/(10+step), or as it stands."""
    ema_ramp_steps: float = 2000.0
    checkpoint_backbone: bool = False
    """The backbone keeps the outputs of its stages alone and computes the rest again in the backward pass: less memory,
    more time. For backbones without batch normalization (Swin)."""
    fsdp: bool = False
    """Several processes keep a share of parameters, gradients and optimizer state each (FSDP2), for large networks;
    the steps are those of ordinary processes. Started with torchrun."""
    compile: bool = False
    """Compile the network with ``torch.compile``."""
    channels_last: bool = False
    deterministic: bool = False
    """Ask PyTorch for deterministic algorithms on a GPU too; on the CPU they are always used."""
    sync_batch_norm: bool = False
    """Several processes share the statistics of batch normalization (GPU only)."""
    patience: float = 0.0
    """Percentage points by which ``evaluate.metric`` must have risen over the last quarter of the training so far; when
    it has not, the rate falls linearly to 0 over a fifth of the epochs so far and the training ends (docs/training.md).
    ``schedule.epochs`` limits the whole; ``schedule.kind`` must be constant. 0: ``schedule.epochs`` alone."""
    log_every: int = 20
    """Steps between two reads of the losses."""
    save_every: int = 0
    """Steps between two checkpoints within an epoch; 0: by time alone. Every epoch ends with one."""
    save_minutes: float = 10.0
    """Minutes between two checkpoints within an epoch; 0: never by time."""
    keep_every: int = 0
    """Epochs between two model files that stay (epoch-0004.pt), for poise lab instability say; 0: none."""
    timeout_minutes: float = 30.0
    """How long a process waits for the others before it gives up."""
    lab_every: int = 0
    """Steps between two looks at the assignment (docs/lab.md), written to lab.csv and TensorBoard; 0: none."""
    lab_images: int = 16
    """Training images whose assignment is compared from epoch to epoch, where the lab looks on."""

    def __post_init__(self) -> None:
        for name, least in (
            ("accumulate", 1),
            ("log_every", 1),
            ("save_every", 0),
            ("clip_norm", 0),
            ("seed", 0),
            ("federated_classes", 0),
            ("keep_every", 0),
            ("lab_every", 0),
            ("lab_images", 0),
            ("patience", 0),
        ):
            _require(getattr(self, name) >= least, f"train.{name}={getattr(self, name)} must be at least {least}")
        _require(0 <= self.ema_decay < 1, f"train.ema_decay={self.ema_decay} must lie in [0, 1)")


@dataclass(frozen=True)
class EvaluateSettings:
    """Validation during training."""

    every: int = 1
    """Epochs between two validations; 0: only after the last."""
    metric: str = "ap"
    """The metric that decides which weights are kept as ``best``."""
    max_detections: int = 100
    """Detections per image and class that count. COCO's metrics count 100; with more, ap@N, ap50@N, ap75@N and ar@N are
    computed too. The model's own limit is the option ``max_detections`` of the model."""
    pictures: int = 8
    """Images whose detections are drawn beside the ground truth at the end; 0: none."""

    def __post_init__(self) -> None:
        _require(self.every >= 0, f"evaluate.every={self.every} cannot be negative")
        _require(self.max_detections >= 100, f"evaluate.max_detections={self.max_detections} must be at least 100")


@dataclass(frozen=True)
class Recipe:
    """A training run, completely: the same recipe, data and number of processes give the same weights."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)

    def __post_init__(self) -> None:
        if self.train.patience:
            kind, every = self.schedule.kind, self.evaluate.every
            _require(kind == "constant", f"train.patience needs schedule.kind='constant', not '{kind}'")
            _require(
                every > 0 and self.data.val != "none", "train.patience needs validations: evaluate.every, data.val"
            )

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe over another number of epochs; milestones keep their place in the training."""
        if epochs == self.schedule.epochs:
            return self
        scaled = sorted({max(1, round(m * epochs / self.schedule.epochs)) for m in self.schedule.milestones})
        milestones = tuple(milestone for milestone in scaled if milestone < epochs)
        return replace(self, schedule=replace(self.schedule, epochs=epochs, milestones=milestones))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
