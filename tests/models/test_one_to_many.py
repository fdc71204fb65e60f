"""Mixed supervision (MS-DETR) of DETRs against its definition, layer by layer and pair by pair."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.small_detrs import SMALL, TRUTH, forms, losses_of, pixels, small

from poise.assign import TopScores
from poise.boxes import cxcywh_to_xyxy, denormalize_boxes, giou, normalize_boxes
from poise.detectors.query import to_predictions
from poise.models import create_model
from poise.models.files import build, describe
from poise.models.roles import without_training_parts
from poise.nn.transformer.layers import refine_boxes
from poise.nn.transformer.queries import DecoderOutput
from poise.structures import Batch, Progress

FEW = TopScores(3, 0.0)
LAYER = "mixed_supervision(after='layer')"
kinds = pytest.mark.parametrize("one_to_many", ["top_scores", LAYER], ids=["cross_attention", "layer"])


def slow_decoder(network: Any, located: bool) -> DecoderOutput:
    """The one-to-many predictions of each layer, step by step, from the queries of inference alone."""
    decoder, memory = network.decoder, network.encode(pixels(), TRUTH.sizes)
    queries = network.inference_queries(memory)
    x, references, start = queries.content, queries.references, queries.references
    logits, boxes = [], []
    for i, layer in enumerate(decoder.layers):
        positions = queries.positions if decoder.position is None else decoder.position(references, memory)
        norm = (lambda t: t) if decoder.norm is None else decoder.norm
        if located:
            x = layer.norms[1](x + layer.cross_attention(x + positions, references, memory))
            own = decoder.one_to_many[i]
            many = norm(own.norm(own.feed_forward(x)))
            x = layer.norms[0](layer.self_attention(x, positions))
        else:
            x = layer.norms[0](layer.self_attention(x, positions))
            x = layer.norms[1](x + layer.cross_attention(x + positions, references, memory))
        x = layer.norms[2](layer.feed_forward(x))
        head = decoder.prediction_heads[min(i, len(decoder.prediction_heads) - 1)]
        if not located:
            many, other = norm(x), decoder.one_to_many[min(i, len(decoder.one_to_many) - 1)].prediction_head
        classes, offsets = head(many) if located else other(many)
        logits.append(classes)
        boxes.append(refine_boxes(start, offsets, decoder.eps))
        if decoder.refine != "none":
            refined = refine_boxes(references, head.box(x), decoder.eps)
            references, start = refined.detach(), refined if decoder.refine == "twice" else refined.detach()
    return DecoderOutput(torch.stack(logits), torch.stack(boxes))


def slow_losses(output: DecoderOutput, layer: int) -> dict[str, float]:
    """The losses of a layer for ``FEW``, query by query, divided by the number of objects."""
    alone = DecoderOutput(output.logits[layer : layer + 1], output.boxes[layer : layer + 1])
    assigned = FEW(to_predictions(alone, output.boxes[0], TRUTH.sizes), TRUTH)
    boxes = denormalize_boxes(alone.boxes[0], TRUTH.sizes)
    total = {"cls": 0.0, "bbox": 0.0, "iou": 0.0}
    for image in range(2):
        for n in range(alone.boxes.shape[2]):
            g = int(assigned.index[image, n])
            for c, p in enumerate(alone.logits[0, image, n].sigmoid()):
                hit = bool(assigned.positive[image, n]) and c == int(TRUTH.labels[image, g])
                loss = -0.25 * (1 - p) ** 2 * p.log() if hit else -0.75 * p**2 * (1 - p).log()
                total["cls"] += 2.0 * float(loss)
            if assigned.positive[image, n]:
                wanted = normalize_boxes(TRUTH.boxes, TRUTH.sizes)[image, g]
                total["bbox"] += 5.0 * float((alone.boxes[0, image, n] - wanted).abs().sum())
                total["iou"] += 2.0 * float(1 - giou(boxes[image, n], TRUTH.boxes[image, g]))
    return {name: value / 3 for name, value in total.items()}


@torch.no_grad()
@forms
@kinds
def test_losses_of_the_queries_of_inference(name: str, one_to_many: str) -> None:
    """Denoising and additional queries (H-DETR) have no such losses, and the one-to-one losses do not change."""
    denoising = {"denoising": 4} if "dino" in name else {}
    few = one_to_many.replace("top_scores", "top_scores(topk=3, threshold=0.0)")
    few = few.replace("layer'", "layer', assigner=top_scores(topk=3, threshold=0.0)")
    model = small(name, one_to_many=few, one_to_many_queries=5, **denoising)
    losses = losses_of(model)
    output = slow_decoder(model.network, one_to_many == "top_scores")
    for layer, prefix in enumerate(("d0.", "")):
        for term, wanted in slow_losses(output, layer).items():
            torch.testing.assert_close(float(losses[f"{prefix}loss_{term}_mixed"]), wanted, rtol=1e-4, atol=1e-4)
    plain = small(name, cross_first=one_to_many == "top_scores", one_to_many_queries=5, **denoising)
    plain.load_state_dict({key: model.state_dict()[key] for key in plain.state_dict()})
    for term, loss in losses_of(plain).items():
        torch.testing.assert_close(losses[term], loss)
    match = model.network(Batch(pixels(), TRUTH, torch.arange(2)), Progress.final()).matches["mixed_supervision"]
    assert match.assigner == FEW and int(match.assignment.positive.sum()) > 3


@forms
@kinds
def test_inference_needs_no_branch(name: str, one_to_many: str) -> None:
    model = small(name, one_to_many=one_to_many)
    plain = without_training_parts(model)
    assert plain.network.mixed_supervision is None and len(plain.network.decoder.one_to_many) == 0
    assert plain.options.get("cross_first", False) is (one_to_many == "top_scores")
    for a, b in zip(model.detect(pixels()), plain.detect(pixels()), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    again = build(describe(model))
    again.load_state_dict(model.state_dict())
    assert again.network.mixed_supervision == model.network.mixed_supervision


@forms
@kinds
def test_every_parameter_is_trained_also_without_objects(name: str, one_to_many: str) -> None:
    model = small(name, one_to_many=one_to_many).train()
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    losses = model.losses(pixels(), empty)
    assert all(loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert not [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_boxes_are_those_of_the_predictions() -> None:
    """The match's boxes are the predictions of the branch in pixels, one image after the other."""
    model = small("dino_r18", one_to_many="top_scores")
    match = model.network(Batch(pixels(), TRUTH, torch.arange(2)), Progress.final()).matches["mixed_supervision"]
    wanted = cxcywh_to_xyxy(slow_decoder(model.network, True).boxes[-1]) * 64
    torch.testing.assert_close(match.predictions.boxes, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hungarian", "no one_to_many 'hungarian'.*mixed_supervision, top_scores"),
        ("top_scores(k=3)", "no option 'k'.*topk"),
        ("top_scores(topk=0)", "at least 1"),
        ("mixed_supervision(after='encoder')", "one of cross_attention, layer"),
        ("mixed_supervision(box_weight=-1.0)", "cannot be negative"),
        ("mixed_supervision(assigner=max_iou())", r"give top_scores\(topk=6\)"),
    ],
)
def test_wrong_values_name_the_cure(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("deformable_detr_r18", 3, **SMALL, one_to_many=text)


def test_recollection_is_refused() -> None:
    with pytest.raises(ValueError, match="leave one of them out"):
        create_model("deformable_detr_r18", 3, **SMALL, one_to_many="top_scores", recollect=True)
