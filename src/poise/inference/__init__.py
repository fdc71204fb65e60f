"""Using a trained detector: sources, batches, tiles, results."""

from poise.data.images import MAX_PIXELS
from poise.inference.detect import detect_frames, detect_images
from poise.inference.result import Boxes, Result
from poise.inference.sources import BadImageWarning, Frame, frames_of, is_camera, is_video
from poise.inference.tiles import Tiling
from poise.inference.video import frame_rate, write_video
from poise.inference.views import TestTimeAugmentation

__all__ = [
    "MAX_PIXELS", "BadImageWarning", "Boxes", "Frame", "Result", "TestTimeAugmentation", "Tiling", "detect_frames",
    "detect_images", "frame_rate", "frames_of", "is_camera", "is_video", "write_video",
]  # fmt: skip
