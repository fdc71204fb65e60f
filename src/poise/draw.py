"""Pictures of boxes, with Pillow alone.

Colors belong to classes (the same class has the same color in every picture), lines and letters grow with
the picture, and every mark carries its own contrast, so that it is legible on any background.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from poise.fonts import font_for, readable_name

Color = tuple[int, int, int]

# Twenty colors that differ by hue first and lightness second; later classes continue on the golden angle.
PALETTE: tuple[Color, ...] = (
    (255, 56, 56), (0, 168, 232), (72, 199, 62), (255, 149, 0), (160, 84, 255), (255, 214, 0), (0, 186, 160),
    (255, 92, 190), (46, 91, 255), (150, 110, 60), (190, 230, 40), (140, 20, 70), (90, 220, 255), (255, 170, 150),
    (0, 110, 60), (200, 160, 255), (128, 128, 0), (40, 60, 170), (180, 190, 200), (110, 60, 120),
)  # fmt: skip
BACKGROUND: Color = (245, 245, 245)


def class_color(label: int) -> Color:
    """The fixed color of a class; labels beyond the palette get hues a golden angle apart."""
    if 0 <= label < len(PALETTE):
        return PALETTE[label]
    hue = (label * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65 + 0.3 * (label % 2), 0.95 - 0.2 * (label % 3) / 2)
    return round(red * 255), round(green * 255), round(blue * 255)


def to_picture(image: Tensor | np.ndarray | Image.Image) -> Image.Image:
    """A new RGB picture from a (3|1,H,W) tensor (uint8, or float in [0,1]), an HWC uint8 array or a picture."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, Tensor):
        image = _array_of(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            "a picture is a (3,H,W) tensor, an (H,W,3) uint8 array or a PIL image; "
            f"got shape {tuple(image.shape)}, {image.dtype}"
        )
    return Image.fromarray(np.ascontiguousarray(image))


def _array_of(image: Tensor) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image tensor is (3,H,W) or (1,H,W); got {tuple(image.shape)}")
    if image.is_floating_point():
        image = (image.detach().clamp(0, 1) * 255).round().byte()
    return image.detach().expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()


def draw_boxes(
    image: Tensor | np.ndarray | Image.Image,
    boxes: Tensor | np.ndarray | Sequence[Sequence[float]],
    labels: Tensor | np.ndarray | Sequence[int],
    scores: Tensor | np.ndarray | Sequence[float] | None = None,
    *,
    names: Sequence[str] | None = None,
    show_labels: bool = True,
    show_scores: bool = True,
    colors: Sequence[Color] | None = None,
    line_width: int | None = None,
    font_size: int | None = None,
    dashed: Sequence[bool] | None = None,
) -> Image.Image:
    """Draw boxes on a copy of ``image``.

    Args:
        image: (3,H,W) uint8 or float [0,1] tensor, (H,W,3) uint8 array or PIL image.
        boxes: (n,4) xyxy in pixels of ``image``; parts outside are cut off, boxes that are not finite are refused.
        labels: (n,) class numbers; they choose the color and, with ``names``, the caption.
        scores: (n,) in [0,1]; the best are drawn last, so that they lie on top.
        names: name of each class; long ones are shortened to what the picture can hold.
        show_labels: whether boxes carry their class's name.
        show_scores: whether captions carry the score (where scores are given).
        colors: one color per class instead of the fixed palette.
        line_width, font_size: pixels; by default they follow the picture's size.
        dashed: (n,) which boxes are drawn broken (crowd and ignored regions).

    Raises:
        ValueError: when lengths differ or a box is not finite.
    """
    picture = to_picture(image)
    corners = _as_array(boxes, (-1, 4))
    classes = _as_array(labels, (-1,)).astype(int)
    ranks = None if scores is None else _as_array(scores, (-1,))
    _check_lengths(corners, classes, ranks, dashed)
    width = line_width or default_line_width(picture.size)
    letters = font_size or default_font_size(picture.size)
    pen = ImageDraw.Draw(picture)
    order = np.argsort(ranks, kind="stable") if ranks is not None else np.arange(len(corners))
    paints = [colors[i % len(colors)] if colors else class_color(int(i)) for i in classes]
    for i in order:
        _rectangle(pen, corners[i], paints[i], width, picture.size, bool(dashed[i]) if dashed is not None else False)
    for i in order:
        name = readable_name(int(classes[i]), _name(int(classes[i]), names)) if show_labels else ""
        score = f"{ranks[i]:.2f}" if show_scores and ranks is not None else ""
        if name or score:
            _tag(pen, corners[i], name, score, paints[i], _font(letters, name), width, picture.size)
    return picture


def default_line_width(size: tuple[int, int]) -> int:
    """Line width in pixels for a picture of ``size`` (width, height)."""
    return max(1, round(min(size) / 300 + 0.7))


def default_font_size(size: tuple[int, int]) -> int:
    """Letter height in pixels for a picture of ``size`` (width, height)."""
    return int(min(48, max(10, min(size) / 38)))


def side_by_side(
    pictures: Sequence[Image.Image],
    titles: Sequence[str] | None = None,
    gap: int = 8,
    background: Color = BACKGROUND,
    *,
    font_size: int | None = None,
) -> Image.Image:
    """Pictures in one row, each scaled to the height of the tallest, with an optional title above each."""
    columns = max(1, len(pictures))
    return grid(pictures, columns, titles, gap=gap, background=background, font_size=font_size)


def grid(
    pictures: Sequence[Image.Image],
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    cell: tuple[int, int] | None = None,
    *,
    gap: int = 8,
    background: Color = BACKGROUND,
    font_size: int | None = None,
) -> Image.Image:
    """Pictures in rows and columns, each scaled into its cell with its proportions kept.

    Args:
        columns: by default what makes the whole nearly square.
        titles: one line above each picture.
        cell: width and height of a cell; by default the largest width and height among the pictures.
        font_size: of the titles, in pixels; by default it follows the size of a cell.
    """
    if not pictures:
        raise ValueError("a grid needs at least one picture")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures but {len(titles)} titles")
    columns = columns or int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    width, height = cell or (max(p.width for p in pictures), max(p.height for p in pictures))
    letters = font_size or default_font_size((width, height))
    head = int(letters * 1.6) if titles is not None else 0
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + head + gap) + gap), background)
    pen = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        x = gap + i % columns * (width + gap)
        y = gap + i // columns * (height + head + gap)
        if titles is not None:
            font = _font(letters, titles[i])
            pen.text((x, y), shorten(titles[i], font, width), fill=_ink(background), font=font)
        fitted = _fit(picture, (width, height))
        sheet.paste(fitted, (x + (width - fitted.width) // 2, y + head + (height - fitted.height) // 2))
    return sheet


def shorten(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """``text``, or its beginning with an ellipsis where it is wider than ``room`` pixels."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…" if text else ""


def _fit(picture: Image.Image, cell: tuple[int, int]) -> Image.Image:
    scale = min(cell[0] / picture.width, cell[1] / picture.height)
    if scale == 1:
        return picture.convert("RGB")
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _as_array(values: object, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64).reshape(shape)


def _check_lengths(
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray | None,
    dashed: Sequence[bool] | None,
) -> None:
    counts = {"boxes": len(boxes), "labels": len(labels)}
    if scores is not None:
        counts["scores"] = len(scores)
    if dashed is not None:
        counts["dashed"] = len(dashed)
    if len(set(counts.values())) > 1:
        raise ValueError("as many of each are needed: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    if not np.isfinite(boxes).all():
        raise ValueError(f"box {int(np.argmin(np.isfinite(boxes).all(1)))} is not finite")


def _font(size: int, text: str) -> ImageFont.FreeTypeFont:
    """The font of a caption; where none has all of its letters, Pillow's own."""
    font = font_for(size, text) or font_for(size)
    assert font is not None  # Pillow's own has the letters of no text
    return font


def _ink(paint: Color) -> Color:
    """Black or white, whichever reads better on ``paint`` (by relative luminance)."""
    luminance = 0.299 * paint[0] + 0.587 * paint[1] + 0.114 * paint[2]
    return (0, 0, 0) if luminance > 140 else (255, 255, 255)


def _rectangle(
    pen: ImageDraw.ImageDraw, box: np.ndarray, paint: Color, width: int, size: tuple[int, int], broken: bool
) -> None:
    """A colored frame within a thin dark one, so that it stands out of its own color too."""
    x1, y1 = (float(np.clip(box[k], 0, size[k] - 1)) for k in (0, 1))
    x2, y2 = (float(np.clip(box[k + 2], 0, size[k] - 1)) for k in (0, 1))
    x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    edge = max(1, width // 3)
    if not broken:
        pen.rectangle((x1 - edge, y1 - edge, x2 + edge, y2 + edge), outline=(16, 16, 16), width=width + 2 * edge)
        pen.rectangle((x1, y1, x2, y2), outline=paint, width=width)
        return
    for dash in _dashes((x1, y1, x2, y2), 6 * width):
        pen.line(dash, fill=(16, 16, 16), width=width + 2 * edge)
        pen.line(dash, fill=paint, width=width)


def _dashes(box: tuple[float, float, float, float], length: int) -> list[tuple[float, float, float, float]]:
    x1, y1, x2, y2 = box
    across = [(x, min(x + length, x2)) for x in np.arange(x1, max(x2, x1 + 1), 2 * length)]
    down = [(y, min(y + length, y2)) for y in np.arange(y1, max(y2, y1 + 1), 2 * length)]
    return [(a, y, b, y) for y in (y1, y2) for a, b in across] + [(x, a, x, b) for x in (x1, x2) for a, b in down]


def _name(label: int, names: Sequence[str] | None) -> str:
    return names[label] if names is not None and 0 <= label < len(names) and names[label] else str(label)


def _tag(
    pen: ImageDraw.ImageDraw,
    box: np.ndarray,
    name: str,
    score: str,
    paint: Color,
    font: ImageFont.FreeTypeFont,
    width: int,
    size: tuple[int, int],
) -> None:
    """The caption on a filled ground: above the box, or within it at the picture's upper edge."""
    pad = max(2, int(font.size) // 5)
    room = size[0] - 2 * pad - font.getlength(" " + score)
    caption = f"{shorten(name, font, room)} {score}".strip()
    length, height = font.getlength(caption) + 2 * pad, font.size + 2 * pad
    left = min(max(min(box[0], box[2]) - width / 2, 0), max(size[0] - length, 0))
    top = min(box[1], box[3]) - height
    top = min(max(top if top >= 0 else min(box[1], box[3]), 0), max(size[1] - height, 0))
    pen.rectangle((left, top, left + length, top + height), fill=paint, outline=(16, 16, 16))
    pen.text((left + pad, top + height / 2), caption, fill=_ink(paint), font=font, anchor="lm")
