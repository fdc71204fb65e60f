"""``poise.Detector``: a detector from a name or a file, to predict, train and evaluate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from poise.api.folders import free_folder
from poise.api.images import open_images
from poise.api.opening import PathLike, choose_device, open_model, refuse_options
from poise.api.options import label_of
from poise.api.thresholds import best_thresholds
from poise.api.training import load_best, start_settings
from poise.api.warnings import warn_random_weights
from poise.detection_model import DetectionModel, with_postprocess_options
from poise.inference import MAX_PIXELS, Boxes, Result, Tiling, detect_frames, frames_of
from poise.inference.sources import OnBadImage, Source
from poise.inference.views import TestTimeAugmentation, wanted_views

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from poise.api.options import PredictOptions
    from poise.data import ImageSet
    from poise.data.class_map import ClassMap
    from poise.data.joining import Paths
    from poise.data.loader import EvaluationLoader
    from poise.engine.run import RunResult
    from poise.evaluate import Evaluation


class Detector:
    """A detection model with a device: ``predict``, ``train``, ``val`` and ``save``.

    Attributes:
        model, device: the ``DetectionModel``, and its device.
        trained: False while the weights are random.
    """

    def __init__(
        self,
        source: PathLike | DetectionModel,
        device: str | torch.device = "auto",
        *,
        weights: PathLike | None = None,
        **options: Any,
    ) -> None:
        """Load or build a detector.

        ``poise.load(path)`` returns the bare ``DetectionModel`` of a model file; ``Detector(path)`` wraps the same
        model with a device and the methods below, and accepts exported files, names of models and models as well.

        Args:
            source: a model file or run folder of poise, an exported file (``*.onnx``, ``*.xml``, ``*.param``,
                ``*.pte``), ``"hf://owner/name"`` or ``"hf://owner/name@revision"``, the name of a model
                (``poise.list_models()``), or a model.
            device: ``"auto"`` selects a GPU where there is one.
            weights: with a name: ``"coco"`` (the published checkpoint of the model, which is fetched), the original's
                name of another one, ``"demo"``, a file of poise or of the original project, a run folder, or
                ``"hf://owner/name"``.
            options: with a name: keyword arguments of ``poise.create_model`` (``num_classes``, ``image_size``, …).

        Raises:
            FileNotFoundError: ``source`` is no file, folder or name of a model; a similar name is suggested.
            ValueError: options together with a file or model, which determines them already.
        """
        self.device = choose_device(device)
        self.trained = True
        self._file: Path | None = None  # of the weights
        self._weights: str | None = None  # from which a training starts
        self._given = isinstance(source, DetectionModel)  # a training keeps this model and its parts
        self._backbone = options.get("backbone_weights")
        if isinstance(source, DetectionModel):
            refuse_options("a model", weights, options)
            model = source
        else:
            opened = open_model(source, weights, options)
            model, self.trained = opened.model, opened.trained
            self._file, self._weights = opened.file, opened.weights
        self.model = model.to(self.device).eval()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self.model.class_names

    @property
    def run_folder(self) -> Path | None:
        """Folder of the weights, such as a run folder; None for a model by name."""
        return None if self._file is None else self._file.parent

    def __repr__(self) -> str:
        state = "" if self.trained else ", random weights"
        return f"<Detector {self.model.name}, num_classes={self.model.num_classes}, on {self.device}{state}>"

    @overload
    def predict(
        self, source: Source, *, stream: Literal[False] = False, **options: Unpack[PredictOptions]
    ) -> list[Result]: ...
    @overload
    def predict(
        self, source: Source, *, stream: Literal[True], **options: Unpack[PredictOptions]
    ) -> Iterator[Result]: ...

    def predict(
        self,
        source: Source,
        *,
        stream: bool = False,
        score_threshold: float | Literal["best"] = 0.3,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        nms_similarity: str | None = None,
        classes: Sequence[str | int] | None = None,
        batch_size: int = 8,
        tile: int | Tiling | None = None,
        tta: str | TestTimeAugmentation | None = None,
        on_bad_image: OnBadImage = "error",
        max_pixels: int = MAX_PIXELS,
    ) -> list[Result] | Iterator[Result]:
        """Detect objects in images.

        Args:
            source: path of an image, folder, glob pattern or video; number of a camera; bytes of an image file, or an
                open one; PIL image; (H,W,3) RGB uint8 array (of BGR: ``array[..., ::-1]``); (3,H,W) tensor; iterable.
            stream: return an iterator that reads and predicts as it is consumed: for videos and endless sources.
            score_threshold: detections with a lower score are dropped. ``"best"``: for each class the threshold of
                the highest F1 in the validation of the run that the model file is in.
            nms_threshold: IoU above which the lower-scored of two boxes of a class is dropped; by default the
                model's own. Models without NMS refuse it.
            max_detections: detections per image; by default the model's own (100 for most).
            nms_similarity: what NMS compares instead of the IoU: ``"nwd(scale=16.0)"``, ``"simd"``, ``"gcd"``.
            classes: names or labels of the classes to keep; by default all.
            batch_size: images (with ``tile``: tiles) that go through the network at once.
            tile: side in pixels of overlapping tiles into which images are cut for small objects, or a ``Tiling``.
            tta: test-time augmentation: ``"flip"``, ``"0.75,1,1.5,flip,soft_nms"`` or a ``TestTimeAugmentation``.
            on_bad_image: ``"skip"`` leaves unreadable files of a folder, glob or list out with a warning.
            max_pixels: image files with more pixels are refused; raise it for large scenes, best with ``tile``.

        Returns:
            One ``Result`` per image, in the order of the source.

        Raises:
            ValueError: a value out of range, a setting that the model does not have, or an unknown class.
        """
        if not self.trained:
            warn_random_weights(self.model.name)
        self.model.check_proposals(are_given=False)
        by_class: torch.Tensor | None = None
        if isinstance(score_threshold, str):
            by_class = best_thresholds(score_threshold, self._file, self.class_names)
            score_threshold = float(by_class.min())
        model = with_postprocess_options(
            self.model,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=max_detections,
            nms_similarity=nms_similarity,
        )
        detections = detect_frames(
            model,
            frames_of(source, on_bad_image, max_pixels),
            batch_size=batch_size,
            score_threshold=score_threshold,
            tiling=Tiling(tile) if isinstance(tile, int) else tile,
            augmentation=None if tta is None else wanted_views(tta),
        )
        labels_kept = None if classes is None else torch.tensor([label_of(one, self.class_names) for one in classes])
        results = self._results(detections, labels_kept, by_class)
        return results if stream else list(results)

    def _results(
        self, detections: Iterator[Any], labels_kept: torch.Tensor | None, thresholds: torch.Tensor | None
    ) -> Iterator[Result]:
        names, ids = self.model.class_names, self.model.category_ids
        for frame, (boxes, scores, labels) in detections:
            if labels_kept is not None or thresholds is not None:
                keep = torch.ones_like(labels, dtype=torch.bool)
                if labels_kept is not None:
                    keep &= torch.isin(labels, labels_kept)
                if thresholds is not None:
                    keep &= scores >= thresholds[labels]
                boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
            yield Result(Boxes(boxes), scores, labels, frame.image, names, ids, frame.path, frame.number)

    def train(
        self,
        data: Paths,
        out: PathLike | None = None,
        *,
        recipe: str | None = None,
        resume: bool = False,
        **settings: Any,
    ) -> RunResult:
        """Train on a data set; afterward the detector has the best weights.

        A detector loaded from a file starts from its weights (fine-tuning). One made by name starts as the recipe
        says. One made from a model trains that model as it is: its weights, and parts that were exchanged in it. For
        this its number of classes must be that of the data.

        Args:
            data: folder or file in COCO, YOLO, Pascal VOC or LVIS layout, or a list of them, which are joined.
            out: the run folder; by default ``runs/NAME``, ``runs/NAME-2``, …
            recipe: name of a recipe (``poise recipes``); by default the general one of this model.
            resume: continue the run in ``out`` after its last checkpoint, exactly.
            settings: the short options of the command line (``epochs``, ``batch_size``, ``image_size``, ``lr``,
                ``seed``, ``workers``, ``class_map={"van": "car", "person": None}``, …;
                see ``poise.recipes.short_options``), or any setting of the recipe, by group
                (``optimizer={"weight_decay": 0.01}``) or path (``**{"data.val": "test"}``).

        Raises:
            ValueError: an unknown setting (a similar one is suggested), or data that cannot be trained on.
        """
        from poise.engine.run import train  # training needs more packages than prediction: imported on use
        from poise.models.files import load_model
        from poise.recipes import get_recipe
        from poise.recipes.short_options import with_options

        if resume and out is None:
            raise ValueError("resume=True needs out=, the folder of the run to continue")
        name, given = self.model.name, self.model if self._given else None
        start = start_settings(self.model, given is not None, self._weights, self._backbone)
        plan = with_options(with_options(get_recipe(recipe or name), start), settings)
        folder = Path(out) if out is not None else free_folder(Path("runs"), name)
        result = train(plan, data=data, out=folder, resume=resume, device=str(self.device), model=given)
        if result.best.is_file():
            self._file, self._weights, self.trained = result.best, str(result.best), True
            if given is None:
                self.model = load_model(result.best, self.device)
            else:
                load_best(given, result.best)
        return result

    def val(
        self,
        data: Paths | ImageSet,
        split: str | None = None,
        *,
        class_map: ClassMap | None = None,
        batch_size: int = 8,
        workers: int = 0,
        on_bad_data: Literal["error", "skip"] = "error",
        follow_links: bool = False,
        proposals: PathLike | None = None,
        proposals_limit: int = 2000,
        head: str = "",
        tta: str | TestTimeAugmentation | None = None,
        progress: Callable[[int], None] | None = None,
        max_detections: int | None = None,
        metrics: Sequence[str] = (),
    ) -> Evaluation:
        """Evaluate on a data set: COCO's metrics, and LVIS's on LVIS data.

        Args:
            data: folder or file in COCO, YOLO, Pascal VOC or LVIS layout, a list of them, or an ``ImageSet``.
            split: name of the split; by default ``val``, else ``test``, else, with a ``SplitWarning``, the images that
                the training held out (``data.val_share``), else the only split.
            class_map: other names of classes, such as ``{"van": "car", "person": None}``; by default the training's.
            batch_size: images that go through the network at once; the metrics do not depend on it.
            workers: processes that read images.
            on_bad_data: ``"skip"`` leaves out the faulty records that ``poise check`` lists.
            follow_links: read what links in the data folder lead to; otherwise they are refused.
            proposals: file of proposals (COCO results), for models that need them (``fast_rcnn_*``).
            proposals_limit: number of the best proposals of an image that are used.
            head: evaluate this auxiliary head of a Co-DETR (``"atss"``) instead of the decoder.
            tta: test-time augmentation, as in :meth:`predict`.
            progress: called with the number of images after each batch.
            max_detections: detections per image of the model; if more than 100, AP with so many per class is added.
            metrics: names of metrics of plug-ins, computed as well.

        Raises:
            NoSuchHead: the model has no such head; its heads are named.

        Returns:
            ``.metrics`` (``.ap``, ``.ap50``, ``.classes``, ``.table()``), ``.detections`` as COCO results, ``.curves``.
        """
        from poise.evaluate import evaluate
        from poise.evaluate.extra import measure_of

        model = self.model
        if head:
            from poise.models.roles import with_head

            model = with_head(model, head)
        model = with_postprocess_options(model, max_detections=max_detections)
        loading: dict[str, Any] = {"batch_size": batch_size, "workers": workers}
        opening: dict[str, Any] = {"on_bad_data": on_bad_data, "follow_links": follow_links, "class_map": class_map}
        opening |= {"proposals": proposals, "proposals_limit": proposals_limit}
        images, loader = self.batches(data, split, **loading, **opening)
        truth = images.to_coco()
        measure = measure_of(truth, max_detections, metrics)
        if tta is not None:
            from poise.data import evaluation_loader
            from poise.inference.view_evaluation import evaluate_views

            loaders, views = partial(evaluation_loader, images, **loading), wanted_views(tta)
            return evaluate_views(model, views, loaders, truth, device=self.device, measure=measure, progress=progress)
        return evaluate(model, loader, truth, device=self.device, measure=measure, progress=progress)

    def batches(
        self,
        data: Paths | ImageSet,
        split: str | None = None,
        *,
        class_map: ClassMap | None = None,
        batch_size: int = 8,
        workers: int = 0,
        on_bad_data: Literal["error", "skip"] = "error",
        follow_links: bool = False,
        proposals: PathLike | None = None,
        proposals_limit: int = 2000,
    ) -> tuple[ImageSet, EvaluationLoader]:
        """Open a data set and a loader of its images as this model takes them; arguments as in :meth:`val`."""
        from poise.data import evaluation_loader

        if not self.trained:
            warn_random_weights(self.model.name)
        self.model.check_proposals(proposals is not None)
        reading: dict[str, Any] = {"on_bad_data": on_bad_data, "follow_links": follow_links, "class_map": class_map}
        reading |= {"proposals": proposals, "proposals_limit": proposals_limit}
        images = open_images(self.model, self.run_folder, data, split, **reading)
        return images, evaluation_loader(images, self.model.preprocess, batch_size=batch_size, workers=workers)

    def drop_training_parts(self) -> Detector:
        """Remove auxiliary heads and one-to-many queries, which only training needs. Returns this detector."""
        from poise.models.roles import without_training_parts

        self.model = without_training_parts(self.model)
        return self

    def save(self, path: PathLike) -> Path:
        """Write a model file that ``Detector(path)`` and ``poise.load(path)`` read."""
        from poise.models.files import save_model

        save_model(self.model, path)
        return Path(path)
