"""``poise.Detector``: a detector from a name or a file, to predict, train and evaluate with a few words.

Everything here is a thin layer over the rooms below: ``poise.models``, ``poise.inference``, ``poise.engine`` and
``poise.evaluate`` can be used directly.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from poise.detectors import DetectionModel
from poise.evaluate import Evaluation, evaluate
from poise.export import is_exported, load_exported
from poise.inference import Boxes, Result, Tiling, detect_frames, frames_of
from poise.inference.sources import OnBadImage, Source
from poise.inference.views import TestTimeAugmentation, evaluate_views, wanted_views
from poise.models import create_model, list_models
from poise.models.files import load_model, save_model
from poise.models.roles import with_head, without_training_parts
from poise.published import load_published
from poise.recipes import get_recipe, with_settings
from poise.recipes.short_names import settings_by_path
from poise.suggestions import did_you_mean

if TYPE_CHECKING:
    from poise.data import ImageSet
    from poise.data.loader import EvaluationLoader
    from poise.engine.run import RunResult


class RandomWeightsWarning(UserWarning):
    """A model that was never trained is asked for detections."""


class ProposalsWarning(UserWarning):
    """Some proposals of a file are not used, or some images have none."""


class Detector:
    """A detector.

    Attributes:
        model: the ``DetectionModel`` behind it.
        device: where it is.
        trained: whether its weights come from a training (else they are random).
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | DetectionModel,
        device: str | torch.device = "auto",
        *,
        weights: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        """Load or build a detector.

        Args:
            source: a checkpoint or run folder of poise, an exported file (``*.onnx``, ``*.xml``, ``*.param``,
                ``*.pte``), the name of a model (``poise.list_models()``), or a model.
            device: ``"auto"`` takes a GPU where there is one.
            weights: with a name: a checkpoint that the original project published.
            options: with a name: as in ``poise.create_model`` (``num_classes``, ``image_size`` …).

        Raises:
            FileNotFoundError: neither a file, a folder nor a model's name; near names are given.
            ValueError: options where a file already says everything.
        """
        self.device = _device(device)
        self.trained = True
        self._file: Path | None = None  # the weights that a training goes on from
        self._backbone = options.get("backbone_weights")
        self.model = self._open(source, weights, options).to(self.device).eval()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.model.class_names

    def __repr__(self) -> str:
        state = "" if self.trained else ", random weights"
        return f"<Detector {self.model.name}, {self.model.num_classes} classes, on {self.device}{state}>"

    @overload
    def predict(self, source: Source, *, stream: Literal[False] = False, **settings: Any) -> list[Result]: ...
    @overload
    def predict(self, source: Source, *, stream: Literal[True], **settings: Any) -> Iterator[Result]: ...

    def predict(self, source: Source, *, stream: bool = False, **settings: Any) -> list[Result] | Iterator[Result]:
        """Find objects.

        Args:
            source: an image's path, a folder, a glob, a video, a PIL image, an (H,W,3) RGB uint8 array, a (3,H,W)
                tensor, or an iterable of these. (Of OpenCV's BGR arrays pass ``array[..., ::-1]``.)
            stream: give an iterator that reads and predicts as it is consumed: for videos and endless sources.
            settings: those of :meth:`stream`.

        Returns:
            One ``Result`` an image, in the order of the source.
        """
        results = self.stream(source, **settings)
        return results if stream else list(results)

    def stream(
        self,
        source: Source,
        *,
        score_threshold: float = 0.3,
        batch_size: int = 8,
        tile: int | Tiling | None = None,
        tta: str | TestTimeAugmentation | None = None,
        on_bad_image: OnBadImage = "error",
    ) -> Iterator[Result]:
        """As :meth:`predict`, one result after the other.

        Args:
            score_threshold: detections below are left out; what the model's own test settings drop (0.05 in most) is
                never seen.
            batch_size: images (with ``tile``: tiles) that go through the network at once.
            tile: side in pixels of the tiles into which images are cut for small objects, or a ``Tiling``.
            tta: test-time augmentation: ``"flip"``, ``"0.75,1,1.5,flip,soft_nms"`` or a ``TestTimeAugmentation``.
            on_bad_image: ``"skip"`` leaves unreadable files of a folder, glob or list out with a warning.
        """
        self._warn_if_random()
        self.model.check_proposals(are_given=False)
        tiling = Tiling(tile) if isinstance(tile, int) else tile
        frames = frames_of(source, on_bad_image)
        found = detect_frames(
            self.model,
            frames,
            batch_size=batch_size,
            score_threshold=score_threshold,
            tiling=tiling,
            augmentation=None if tta is None else wanted_views(tta),
        )
        names, ids = self.model.class_names, self.model.category_ids
        return (
            Result(Boxes(boxes), scores, labels, frame.image, names, ids, frame.path, frame.number)
            for frame, (boxes, scores, labels) in found
        )

    def train(
        self,
        data: str | os.PathLike[str],
        out: str | os.PathLike[str] | None = None,
        *,
        recipe: str | None = None,
        epochs: int | None = None,
        resume: bool = False,
        **settings: Any,
    ) -> RunResult:
        """Train on a data set; afterward this detector holds the best weights.

        A detector that was loaded from a file goes on from its weights (fine-tuning); one made by name starts as the
        recipe says.

        Args:
            data: folder or file in COCO, YOLO, Pascal VOC or LVIS layout.
            out: the run folder; by default ``runs/NAME``, ``runs/NAME-2``, …
            recipe: name of a recipe (``poise recipes``); by default the general one of this model.
            epochs: passes over the data; milestones keep their place in the training.
            resume: continue the run in ``out`` after its last checkpoint, exactly.
            settings: ``batch``, ``lr``, ``image_size``, ``seed``, ``workers``, ``on_bad_data``, ``proposals``; or any
                setting of the recipe, by group (``optimizer={"weight_decay": 0.01}``) or path
                (``**{"data.val": "test"}``).

        Raises:
            ValueError: an unknown setting (the nearest is named), or data that cannot be trained on.
        """
        from poise.engine.run import train  # training needs more than prediction: loaded when it is wanted

        if resume and out is None:
            raise ValueError("resume=True needs out=, the folder of the run that is to continue")
        name = self.model.name
        plan = get_recipe(recipe or name)
        plan = plan if epochs is None else plan.with_epochs(epochs)
        plan = with_settings(plan, {**self._start(), **settings_by_path(settings)})
        folder = Path(out) if out is not None else free_folder(Path("runs"), name)
        result = train(plan, data=Path(data), out=folder, resume=resume, device=str(self.device))
        if result.best.is_file():
            self._file, self.trained = result.best, True
            self.model = load_model(result.best, self.device)
        return result

    def val(
        self,
        data: str | os.PathLike[str],
        split: str | None = "val",
        *,
        batch_size: int = 8,
        workers: int = 0,
        on_bad_data: Literal["error", "skip"] = "error",
        proposals: str | os.PathLike[str] | None = None,
        proposals_limit: int = 2000,
        head: str = "",
        tta: str | TestTimeAugmentation | None = None,
    ) -> Evaluation:
        """Evaluate on a data set: COCO's numbers, of LVIS data LVIS's.

        Args:
            data: folder or file in COCO, YOLO, Pascal VOC or LVIS layout.
            split: which part of it.
            on_bad_data: ``"skip"`` leaves faulty records out, which ``poise check`` lists.
            proposals: file of proposals (COCO results), for models that are given regions (``fast_rcnn_*``).
            proposals_limit: the best proposals of an image that are used.
            head: an auxiliary head of a Co-DETR (``"atss"``), to be measured by itself.
            tta: test-time augmentation, as in :meth:`stream`.

        Raises:
            NoSuchHead: the model has no such head; those that it has are named.

        Returns:
            ``.metrics`` (``.ap``, ``.ap50``, ``.classes``, ``.table()``), ``.detections`` as COCO results, ``.curves``.
        """
        model = with_head(self.model, head) if head else self.model
        images, loader = self.batches(
            data,
            split,
            batch_size=batch_size,
            workers=workers,
            on_bad_data=on_bad_data,
            proposals=proposals,
            proposals_limit=proposals_limit,
        )
        if tta is not None:
            from poise.data import evaluation_loader

            loaders = partial(evaluation_loader, images, batch_size=batch_size, workers=workers)
            return evaluate_views(model, wanted_views(tta), loaders, images.to_coco(), self.device)
        return evaluate(model, loader, images.to_coco(), device=self.device)

    def batches(
        self,
        data: str | os.PathLike[str],
        split: str | None = "val",
        *,
        batch_size: int = 8,
        workers: int = 0,
        on_bad_data: Literal["error", "skip"] = "error",
        proposals: str | os.PathLike[str] | None = None,
        proposals_limit: int = 2000,
    ) -> tuple[ImageSet, EvaluationLoader]:
        """A data set and its batches as this model wants them; arguments as in :meth:`val`."""
        from poise.data import evaluation_loader, open_data, with_proposals

        self._warn_if_random()
        self.model.check_proposals(proposals is not None)
        images = open_data(Path(data), split, on_bad_data)
        if proposals is not None:
            images, remarks = with_proposals(images, Path(proposals), proposals_limit, on_bad_data)
            for remark in remarks:
                warnings.warn(remark, ProposalsWarning, stacklevel=3)
        return images, evaluation_loader(images, self.model.preprocess, batch_size=batch_size, workers=workers)

    def drop_training_parts(self) -> Detector:
        """Leave out what only training needs (auxiliary heads of Co-DETR, further groups of queries of H-DETR and
        Group-DETR): fewer weights, the same detections. Gives this detector back."""
        self.model = without_training_parts(self.model)
        return self

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a model file that ``Detector(path)`` and ``poise.load(path)`` read without any other information."""
        save_model(self.model, path)
        return Path(path)

    def _open(
        self, source: str | os.PathLike[str] | DetectionModel, weights: Any, options: dict[str, Any]
    ) -> DetectionModel:
        if isinstance(source, DetectionModel):
            _refuse_options(options, weights, "a model")
            return source
        if str(source) in list_models() and not Path(source).exists():
            return self._build(str(source), weights, options)
        _refuse_options(options, weights, "a file")
        if is_exported(source) and not Path(source).is_dir():
            return load_exported(source)
        try:
            model = load_model(source)
        except FileNotFoundError as error:
            hint = did_you_mean(str(source), list_models())
            where = f"'{source}' is neither a model file nor a run folder nor a model's name"
            raise FileNotFoundError(f"{where}{hint}") from error
        self._file = Path(source)
        return model

    def _build(self, name: str, weights: Any, options: dict[str, Any]) -> DetectionModel:
        model = create_model(name, **options)
        self.trained = weights is not None
        if weights is not None:
            load_published(model, weights)
            self._file = Path(weights)
        return model

    def _start(self) -> dict[str, Any]:
        """Settings that make a training start from this detector."""
        options = dict(self.model.options)
        settings: dict[str, Any] = {"model.name": self.model.name}
        if "image_size" in options:
            settings["model.image_size"] = tuple(options.pop("image_size"))
        if self._file is not None:
            settings.update({"model.weights": str(self._file), "model.backbone_weights": "none"})
        elif self._backbone is not None:
            settings["model.backbone_weights"] = self._backbone
        return {**settings, "model.options": options} if options else settings

    def _warn_if_random(self) -> None:
        if not self.trained:
            warnings.warn(
                f"'{self.model.name}' was made by its name and has random weights: its detections mean nothing. Train "
                "it (Detector.train), load a run (Detector('run folder')), or pass weights= of the original project",
                RandomWeightsWarning,
                stacklevel=4,
            )


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or with the first number that is not taken: ``name-2``, ``name-3``, …"""
    folder, number = parent / name, 2
    while folder.exists():
        folder, number = parent / f"{name}-{number}", number + 1
    return folder


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def _refuse_options(options: Mapping[str, Any], weights: Any, what: str) -> None:
    given = [*options, *(["weights"] if weights is not None else [])]
    if given:
        raise ValueError(f"{', '.join(given)}: {what} already says everything; such options go with a model's name")
