"""Settings of a training run as frozen dataclasses; each is an option ``--group.field value`` of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from poise.recipes.augment import AugmentSettings
from poise.recipes.values import OptionValue, plain_class_map, stored_value

MIN_IMAGE_SIZE = 32  # stride of the coarsest feature map of a backbone


@dataclass(frozen=True)
class ModelSettings:
    """The model; its number of classes is that of the data."""

    name: str = "atss_r50_fpn"
    """A name of ``poise.list_models()``."""
    backbone_weights: str = "none"
    """``none`` (random), ``imagenet`` (downloaded by timm), or a file of backbone weights."""
    weights: str = ""
    """Start of the whole model: ``coco`` (its published checkpoint, fetched), the original's name of another one,
    ``demo``, a file of poise or of the original project, a run folder, or ``hf://owner/name``; empty: none."""
    image_size: tuple[int, ...] = ()
    """(limit of both sides,) or (short, long); empty: as published (800, 1333)."""
    frozen_stages: int | None = None
    """Stages of the backbone that are not trained: k freezes the stem and the first k stages, 0 the stem, -1 nothing;
    empty: the model's own (1 with ImageNet weights, -1 without)."""
    options: dict[str, OptionValue] = field(default_factory=dict)
    """Options of the model, such as channels 128. Arguments of ``create_model``: numbers, words, true, false, None,
    (4, 5), parts such as atss(topk=15)."""

    def __post_init__(self) -> None:
        options = {name: stored_value(value) for name, value in self.options.items()}
        object.__setattr__(self, "options", options)  # parts as text
        _require(len(self.image_size) <= 2, f"model.image_size={self.image_size} must be one number or (short, long)")
        small = f"model.image_size={self.image_size}: sides must be at least {MIN_IMAGE_SIZE} pixels"
        _require(all(size >= MIN_IMAGE_SIZE for size in self.image_size), small)
        least = self.frozen_stages is None or self.frozen_stages >= -1
        _require(least, f"model.frozen_stages={self.frozen_stages} must be at least -1")


@dataclass(frozen=True)
class DataSettings:
    """Images and batches."""

    path: str | tuple[str, ...] = ""
    """Folder or file of the data set, in COCO, YOLO, Pascal VOC or LVIS layout; of several, the images are joined and
    classes with equal names are one (docs/data.md)."""
    train: str | tuple[str, ...] = ""
    """Name of the training split; empty: train, else trainval, else the only one. A list is that of ``path``."""
    val: str = ""
    """Name of the validation split; empty: val, else test, else the training split; none: no validation."""
    val_share: float = 0.0
    """Fraction of images held out for validation. It lies in [0, 0.5] and is for data sets without a validation split.
    Images are drawn by their file names, so every run on the data holds out the same ones; the run
    folder lists them in ``val_images.txt``."""
    classes: dict[str, str | None] = field(default_factory=dict)
    """Class map: name of a class of the data and its new name, null (dropped: its objects are background), or ignore
    (its objects are regions to ignore). Classes with the same new name are merged. It is stored with the model, and
    evaluations use it."""
    on_bad_data: Literal["error", "skip"] = "error"
    """Faulty records, which ``poise check`` lists: stop with the list, or leave them out."""
    follow_links: bool = False
    """Read files and folders that links in the data folder lead to, wherever they are; otherwise they are refused."""
    keep_empty: bool = True
    """Train on images without objects, as background; published COCO recipes leave them out."""
    background_share: float = 1.0
    """Largest share of images without objects among the training images, in [0, 1]; more of them are left out, chosen
    by their file names. 1: all are used."""
    min_side: int = 0
    """Leave out training images with a side shorter than this many pixels; published COCO recipes use 32."""
    repeat_threshold: float = 0.0
    """Repeat-factor sampling (LVIS uses 0.001): an image whose rarest class occurs in a fraction f of the images below
    this threshold is repeated sqrt(repeat_threshold / f) times per epoch, rounded up; 0: every image once."""
    group_by_aspect: bool = False
    """Make batches of only wide or only tall images, as MMDetection does, which need less padding."""
    batch_size: int | Literal["auto"] = 16
    """Images of one optimizer step, over all processes and accumulated parts; auto: as many as fit the memory of the
    GPU, or 8 and fewer on a CPU (docs/training.md)."""
    eval_batch_size: int = 8
    """Images of one validation batch in each process."""
    workers: int = 4
    """Processes that load images, for each training process; 0 loads in the training process."""
    drop_last: bool = False
    """Leave out the last batch of an epoch if it is not full."""
    proposals: str = ""
    """File of proposals (COCO results) for the training images, for models that need them: fast_rcnn_*."""
    val_proposals: str = ""
    """File of proposals for the validation images; empty: they are in the same file."""
    proposals_limit: int = 2000
    """Number of the best proposals of an image that are used."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The data sets; none where ``path`` is empty."""
        return (self.path,) if isinstance(self.path, str) and self.path else tuple(self.path)

    @property
    def images_per_step(self) -> int:
        """``batch_size``, once ``auto`` has been replaced by a number."""
        if self.batch_size == "auto":
            raise ValueError("data.batch_size='auto' is chosen at the start of a training; give a number")
        return self.batch_size

    def __post_init__(self) -> None:
        if isinstance(self.train, tuple):
            _require(self.path in ("", (), self.train), "data.train: a list of data sets is the same as data.path")
            object.__setattr__(self, "path", self.train)
            object.__setattr__(self, "train", "")
        if isinstance(self.path, tuple) and len(self.path) < 2:
            object.__setattr__(self, "path", self.path[0] if self.path else "")
        object.__setattr__(self, "classes", plain_class_map(self.classes))
        number = self.batch_size == "auto" or self.batch_size >= 1
        _require(number, f"data.batch_size={self.batch_size} must be at least 1")
        share = self.background_share
        _require(0 <= share <= 1, f"data.background_share={share} must lie in [0, 1]")
        _require(self.eval_batch_size >= 1, f"data.eval_batch_size={self.eval_batch_size} must be at least 1")
        _require(0 <= self.val_share <= 0.5, f"data.val_share={self.val_share} must lie in [0, 0.5]")
        _require(self.workers >= 0, f"data.workers={self.workers} cannot be negative")
        _require(0 <= self.repeat_threshold <= 1, f"data.repeat_threshold={self.repeat_threshold} must lie in [0, 1]")
        _require(self.proposals_limit >= 1, f"data.proposals_limit={self.proposals_limit} must be at least 1")


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer and its parameter groups."""

    name: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    lr: float = 0.01
    """Learning rate for a batch of ``lr_batch_size`` images."""
    lr_batch_size: int = 16
    """The rate is multiplied by batch_size / lr_batch_size (linear scaling); 0: ``lr`` is used as given."""
    momentum: float = 0.9
    """sgd: factor of the last step in the next one."""
    nesterov: bool = False
    """sgd: Nesterov momentum."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adamw: decay of the averages of the gradient and of its square."""
    weight_decay: float = 1e-4
    """Factor of L2 regularization (sgd) or of decoupled decay (adamw)."""
    norm_decay_multiplier: float = 1.0
    """Factor of ``weight_decay`` for weights and biases of normalization layers; 0: no decay."""
    bias_decay_multiplier: float = 1.0
    """Factor of ``weight_decay`` for biases outside normalization layers."""
    bias_lr_multiplier: float = 1.0
    """Factor of ``lr`` for biases outside normalization layers (2 in FCOS and VarifocalNet)."""
    backbone_lr_multiplier: float = 1.0
    """Factor of ``lr`` for the backbone (0.1 in the DETR family)."""
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    """Factors of ``lr`` by part of a parameter's name; the longest matching part decides, also over the backbone's."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"optimizer.lr={self.lr} must be positive")
        _require(self.lr_batch_size >= 0, f"optimizer.lr_batch_size={self.lr_batch_size} cannot be negative")
        _require(self.weight_decay >= 0, f"optimizer.weight_decay={self.weight_decay} cannot be negative")
        _require(0 <= self.momentum < 1, f"optimizer.momentum={self.momentum} must lie in [0, 1)")


@dataclass(frozen=True)
class ScheduleSettings:
    """Number of epochs and learning rate schedule."""

    epochs: int = 12
    """Passes over the training images."""
    kind: Literal["multistep", "cosine", "flat_cosine", "flat_linear", "constant"] = "multistep"
    """Course of the learning rate after the warm-up."""
    milestones: tuple[int, ...] = (8, 11)
    """multistep: the rate is multiplied by ``gamma`` after each of these epochs."""
    gamma: float = 0.1
    """multistep: factor of the rate at a milestone."""
    flat_fraction: float = 0.5
    """flat_cosine, flat_linear: fraction of the training before the rate begins to fall."""
    min_lr_ratio: float = 0.0
    """cosine, flat_cosine, flat_linear: the last rate divided by the first."""
    by_epoch: bool = False
    """cosine: the rate changes once per epoch instead of every step."""
    warmup: Literal["linear", "constant"] = "linear"
    """Course of the rate during the warm-up."""
    warmup_steps: int = 500
    """Number of optimizer steps of the warm-up; 0: none."""
    warmup_ratio: float = 0.001
    """Factor of the rate at the beginning of the warm-up (throughout it, if constant)."""
    warmup_max_fraction: float = 1.0
    """Largest fraction of all steps that the warm-up takes, so that a short training is not all warm-up."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"schedule.epochs={self.epochs} must be at least 1")
        _require(self.warmup_steps >= 0, f"schedule.warmup_steps={self.warmup_steps} cannot be negative")
        rising = list(self.milestones) == sorted(set(self.milestones))
        _require(rising, f"schedule.milestones={self.milestones} must increase")
        _require(0 <= self.flat_fraction < 1, f"schedule.flat_fraction={self.flat_fraction} must lie in [0, 1)")


@dataclass(frozen=True)
class TrainSettings:
    """The training loop."""

    seed: int = 0
    """Seed of all random numbers."""
    accumulate: int = 1
    """Gradient accumulation: parts into which each process splits its images of a batch; gradients are averaged."""
    clip_norm: float = 0.0
    """Clip the gradient to this L2 norm; 0: no clipping."""
    federated_classes: int = 0
    """Federated loss of a DETR (LVIS uses 50): number of classes in each classification loss, the ones present and
    others drawn with probability proportional to the square root of their number of images; 0: all classes."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the network's computation: fp32, or autocast to bf16 or fp16 (with a gradient scaler)."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average (EMA) of parameters and buffers, usually 0.9998; 0: no EMA."""
    ema_ramp: Literal["exponential", "ratio", "none"] = "exponential"
    """Decay at a step: times 1 - exp(-(1+step)/ema_ramp_steps), at most (1+step)/(10+step), or constant."""
    ema_ramp_steps: float = 2000.0
    """Optimizer steps over which an exponential ramp rises."""
    checkpoint_backbone: bool = False
    """Activation checkpointing: store only the outputs of the backbone's stages and recompute the rest in the backward
    pass. Uses less memory and more time. For backbones without batch normalization (Swin)."""
    fsdp: bool = False
    """Shard parameters, gradients and optimizer state among the processes (PyTorch's FSDP2), for large networks. The
    steps equal those of DistributedDataParallel. Start it with torchrun."""
    compile: bool = False
    """Compile the network with ``torch.compile``."""
    channels_last: bool = False
    """Store feature maps with channels last (NHWC)."""
    deterministic: bool = False
    """Use deterministic algorithms on a GPU as well; on the CPU they are always used."""
    sync_batch_norm: bool = False
    """Synchronize the statistics of batch normalization between processes (GPU only)."""
    patience: float = 0.0
    """Percentage points by which ``evaluate.metric`` must have risen over the last quarter of the training so far; when
    it has not, the rate falls linearly to 0 over a fifth of the epochs so far and the training ends (docs/training.md).
    ``schedule.epochs`` limits the whole; ``schedule.kind`` must be constant. 0: ``schedule.epochs`` alone."""
    early_stopping: int = 0
    """Epochs without a better ``evaluate.metric`` after which the training ends, with any schedule; 0: never."""
    max_minutes: float = 0.0
    """Minutes of training and validation in all parts of a run, until it stops with a checkpoint; 0: no limit."""
    class_weights: dict[str, float] | Literal["balanced", "effective_number"] = field(default_factory=dict)
    """Weights of classes in the classification loss, by name (others: 1), or inversely proportional to the number of
    objects, between 0.1 and 10 (balanced), or to their effective number (effective_number)."""
    class_weights_beta: float = 0.999
    """beta in the effective number of n objects, (1 - beta^n) / (1 - beta)."""
    log_every: int = 20
    """Steps between two status lines and TensorBoard entries."""
    loggers: tuple[Literal["wandb", "mlflow", "trackio"], ...] = ()
    """Services that also get the numbers of TensorBoard; each needs its extra, such as poise[wandb]."""
    save_every: int = 0
    """Steps between two checkpoints within an epoch; 0: by time only. Every epoch ends with one."""
    save_minutes: float = 10.0
    """Minutes between two checkpoints within an epoch; 0: never by time."""
    keep_previous: bool = True
    """Keep the checkpoint before the last one until the run is finished, in case the last one is damaged."""
    keep_every: int = 0
    """Epochs between two model files that are kept (epoch-0004.pt), such as for poise lab instability; 0: none."""
    timeout_minutes: float = 30.0
    """Minutes after which a process that waits for the others gives up."""
    lab_every: int = 0
    """Steps between two measurements of the assignment (docs/lab.md), in lab.csv and TensorBoard; 0: none."""
    lab_images: int = 16
    """Training images whose assignment is compared from epoch to epoch; only with lab_every."""

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
            ("early_stopping", 0),
            ("max_minutes", 0),
        ):
            _require(getattr(self, name) >= least, f"train.{name}={getattr(self, name)} must be at least {least}")
        for name in ("ema_decay", "class_weights_beta"):
            _require(0 <= getattr(self, name) < 1, f"train.{name}={getattr(self, name)} must lie in [0, 1)")
        if isinstance(self.class_weights, dict):
            for name, weight in self.class_weights.items():
                _require(weight >= 0, f"train.class_weights: {name}={weight} cannot be negative")


@dataclass(frozen=True)
class EvaluateSettings:
    """Validation during training."""

    every: int = 1
    """Epochs between two validations; 0: only after the last."""
    metric: str = "ap"
    """Metric that selects the weights of ``best.pt``."""
    max_detections: int = 100
    """Detections per image and class that count in the metrics. COCO's metrics count 100; with a larger number N,
    ap@N, ap50@N, ap75@N and ar@N are computed as well. The model's own limit is its option ``max_detections``."""
    pictures: int = 8
    """Number of validation images that are drawn with ground truth and detections at the end; 0: none."""

    def __post_init__(self) -> None:
        _require(self.every >= 0, f"evaluate.every={self.every} cannot be negative")
        _require(self.max_detections >= 100, f"evaluate.max_detections={self.max_detections} must be at least 100")


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run: the same recipe, data and number of processes give the same weights."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)

    def __post_init__(self) -> None:
        kind, validated = self.schedule.kind, self.evaluate.every > 0 and self.data.val != "none"
        if self.train.patience:
            _require(kind == "constant", f"train.patience needs schedule.kind='constant', not '{kind}'")
            _require(validated, "train.patience needs validations: evaluate.every, data.val")
        if self.train.early_stopping:
            _require(validated, "train.early_stopping needs validations: evaluate.every, data.val")

    def with_epochs(self, epochs: int) -> Recipe:
        """Return the recipe with another number of epochs; the milestones are moved in proportion."""
        if epochs == self.schedule.epochs:
            return self
        scaled = sorted({max(1, round(m * epochs / self.schedule.epochs)) for m in self.schedule.milestones})
        milestones = tuple(milestone for milestone in scaled if milestone < epochs)
        return replace(self, schedule=replace(self.schedule, epochs=epochs, milestones=milestones))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
