"""The images on which a detector is evaluated."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from poise.api.warnings import ProposalsWarning, SplitWarning

if TYPE_CHECKING:
    from poise.data import ImageSet
    from poise.data.class_map import ClassMap
    from poise.data.joining import Paths
    from poise.detection_model import DetectionModel


def open_images(
    model: DetectionModel,
    run: Path | None,
    data: Paths | ImageSet,
    split: str | None,
    *,
    on_bad_data: Literal["error", "skip"],
    follow_links: bool,
    class_map: ClassMap | None,
    proposals: str | os.PathLike[str] | None,
    proposals_limit: int,
) -> ImageSet:
    """Open the images of ``Detector.val``, whose arguments these are; what the user should know is a warning.

    Args:
        run: folder of the run that trained the model.
    """
    from poise.data import ImageSet, open_for_evaluation, with_proposals

    if isinstance(data, ImageSet):
        images = data
    else:
        images, note = open_for_evaluation(
            data,
            split,
            run,
            on_bad_data,
            follow_links=follow_links,
            class_map=class_map,
            trained_with=model.class_map,
        )
        if note:
            warnings.warn(note, SplitWarning, stacklevel=4)
    if proposals is not None:
        images, remarks = with_proposals(images, Path(proposals), proposals_limit, on_bad_data)
        for remark in remarks:
            warnings.warn(remark, ProposalsWarning, stacklevel=4)
    return images
