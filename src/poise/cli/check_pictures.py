"""The pictures of ``poise check --pictures``: images with everything that was read of them, and a page of all."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from poise.suggestions import plural

if TYPE_CHECKING:
    from PIL import Image

    from poise.data import ImageRecord, ImageSet

IMAGES = 24  # of each split


def write_pictures(data: Path, folder: Path, follow_links: bool = False) -> Path:
    """Draw images of every split with their boxes, class names, crowd and ignored regions.

    Args:
        data: the data set; faulty records are left out.
        folder: gets the pictures and ``index.html``.
        follow_links: as in :func:`poise.data.open_data`.

    Returns:
        the page.
    """
    from poise.cli.page import STYLE
    from poise.data import DataError, open_data, splits
    from poise.storage import write_text_atomically

    parts = []
    for split in splits(data, follow_links):
        try:
            images = open_data(data, split, "skip", follow_links)
        except DataError as error:
            parts.append(f"<h2>{html.escape(split)}</h2><p>{html.escape(str(error))}</p>")
            continue
        parts.append(_section(images, folder))
    title = f"What was read of {html.escape(str(data))}"
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f'<!doctype html><html lang="en"><head>{meta}'
    legend = "Solid: objects. Dashed: crowd and ignored regions, used neither as objects nor as background."
    body = f"<body><h1>{title}</h1><p>{legend}</p>{''.join(parts)}</body></html>"
    page = folder / "index.html"
    write_text_atomically(page, f"{head}<title>{title}</title><style>{STYLE}</style></head>{body}\n")
    return page


def choose_images(images: ImageSet, count: int = IMAGES) -> list[int]:
    """Choose images so that crowd and ignored regions and all classes are seen, and then evenly over the split."""
    special = images.objects.crowd | images.objects.ignore
    owners = images.image_of_object
    wanted = list(owners[special][: count // 4])
    for label in range(len(images.categories)):
        wanted += list(owners[images.objects.labels == label][:1])
    wanted += [i * len(images) // count for i in range(count)]
    wanted += range(len(images))
    return sorted(list(dict.fromkeys(int(i) for i in wanted))[:count])


def draw_record(record: ImageRecord, picture: Image.Image, names: tuple[str, ...]) -> Image.Image:
    """Draw the boxes of an image; crowd and ignored regions are dashed and say so."""
    from poise.draw import class_color, draw_boxes
    from poise.evaluate.pictures import FONT_SIZE, fit

    picture, scale = fit(picture)
    kinds = [" (crowd)" if c else " (ignored)" if i else "" for c, i in zip(record.crowd, record.ignore, strict=True)]
    return draw_boxes(
        picture,
        record.boxes * scale,
        range(len(record.labels)),
        names=[names[label] + kind for label, kind in zip(record.labels, kinds, strict=True)],
        colors=[class_color(int(label)) for label in record.labels] or None,
        dashed=list(record.crowd | record.ignore),
        font_size=FONT_SIZE,
    )


def _section(images: ImageSet, folder: Path) -> str:
    from poise.data import DataError
    from poise.draw import to_picture

    (folder / images.name).mkdir(parents=True, exist_ok=True)
    figures, chosen = [], choose_images(images)
    for number, index in enumerate(chosen):
        record = images[index]
        name = f"{images.name}/{number:03}-{record.path.stem}.jpg"
        try:
            draw_record(record, to_picture(images.read(index)), images.class_names).save(folder / name, quality=90)
        except DataError as error:
            figures.append(f"<figure><figcaption>{html.escape(str(error))}</figcaption></figure>")
            continue
        address, caption = quote(name, errors="surrogateescape"), html.escape(record.path.name)
        shown = f'<a href="{address}"><img src="{address}" alt="{caption}"></a>'
        text = f"{caption}: {plural(len(record.labels), 'object')}"
        figures.append(f"<figure>{shown}<figcaption>{text}</figcaption></figure>")
    left_out = f", {plural(len(images.skipped), 'faulty record')} left out" if images.skipped else ""
    counts = f"{plural(len(images), 'image')}, {plural(images.num_objects, 'object')}{left_out}"
    counts += f"; {plural(len(chosen), 'image')} shown"
    return f'<h2>{html.escape(images.name)}</h2><p>{counts}</p><div class="columns">{"".join(figures)}</div>'
