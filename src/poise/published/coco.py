"""COCO's 80 categories, which published checkpoints were trained on."""

from __future__ import annotations

from poise.detection_model import DetectionModel

UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # category ids between 1 and 90 that COCO's detection task leaves out
IDS = tuple(number for number in range(1, 91) if number not in UNUSED)
NAMES = tuple(
    name.strip()
    for name in """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe,
backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball
bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife,
spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair,
couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone,
microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier,
toothbrush
""".replace("\n", " ").split(",")
)


def name_classes(model: DetectionModel) -> None:
    """Give a model of 80 classes without names COCO's."""
    unnamed = model.class_names == tuple(str(i) for i in range(model.num_classes))
    if unnamed and model.num_classes == len(NAMES):
        model.set_classes(NAMES, IDS)
