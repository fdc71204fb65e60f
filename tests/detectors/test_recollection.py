"""Selective query recollection against a literal form: every set of queries decoded by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from poise.models import create_model
from poise.nn.transformer.queries import Queries
from poise.structures import Batch, GroundTruth, Progress

TINY: dict[str, Any] = {"channels": 16, "hidden": 16, "encoder_layers": 1, "queries": 6, "attention_heads": 2}
BACKBONE = {"backbone": "mobilenetv3_small_100", "deterministic": True}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("deformable_detr_r18", {}),
    ("deformable_detr_plus_r18", {}),
    ("dab_detr_r18", {}),
    ("conditional_detr_r18", {"dropout": 0.0}),
]


def network_of(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    network: Any = create_model(name, 3, **TINY, **BACKBONE, decoder_layers=4, **options).network
    generator = torch.Generator().manual_seed(1)
    for parameter in network.decoder.parameters():  # heads start at zero offsets, which would hide references
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.05
    return network


def by_hand(network: Any, queries: Queries, memory: Any) -> list[Tensor]:
    """Logits of every set, layer by layer: a set is the path of layers that it went through."""
    paths: list[tuple[int, ...]] = [()]
    older: list[tuple[int, ...]] = [()]
    found = []
    layers = network.decoder.layers
    for i in range(len(layers)):
        outputs = [(*path, i) for path in paths]
        for path in outputs:
            found.append(decode_path(network, queries, memory, path))
        paths, older = ([*older, *outputs] if i else [(), *outputs]), outputs
    return found


def decode_path(network: Any, queries: Queries, memory: Any, path: tuple[int, ...]) -> Tensor:
    """Logits after the layers of a path, from the decoder that has these layers alone."""
    decoder = network.decoder
    layers, heads = decoder.layers, getattr(decoder, "prediction_heads", None)
    try:
        decoder.layers = torch.nn.ModuleList([layers[i] for i in path])
        if heads is not None and len(heads) > 1:
            decoder.prediction_heads = torch.nn.ModuleList([heads[i] for i in path])
        return decoder(queries, memory).logits[-1]
    finally:
        decoder.layers = layers
        if heads is not None:
            decoder.prediction_heads = heads


@pytest.mark.parametrize(("name", "options"), MODELS)
@torch.no_grad()
def test_sets_are_those_of_the_two_layers_before(name: str, options: dict[str, Any]) -> None:
    network = network_of(name, **options).eval()
    pixels, sizes = torch.randn(2, 3, 64, 64), torch.tensor([[64.0, 64.0], [48.0, 64.0]])
    memory = network.encode(pixels, sizes)
    queries = network.queries(memory)
    found = network.decoder(queries, memory, None, True)
    assert len(found.logits) == 1 + 2 + 3 + 5
    plain = network.decoder(queries, memory)
    ordinary = torch.stack([found.logits[i] for i in (0, 2, 5, 10)])  # the last set of each layer
    torch.testing.assert_close(ordinary, plain.logits)
    torch.testing.assert_close(found.boxes[[0, 2, 5, 10]], plain.boxes)
    if name.startswith("deformable"):  # other decoders treat their first layer in a special way
        torch.testing.assert_close(found.logits, torch.stack(by_hand(network, queries, memory)))


def test_every_set_has_losses_and_inference_does_not_change() -> None:
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    boxes = torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 30.0]])
    truth = GroundTruth.collate([{"boxes": boxes, "labels": torch.tensor([0, 2])}] * 2, [(64, 64)] * 2)
    plain, trained = network_of("deformable_detr_r18"), network_of("deformable_detr_r18", recollect=True)
    step = trained.train()(Batch(pixels, truth, torch.arange(2)), Progress.final())
    names = {name for name in step.losses if name.endswith("loss_cls")}
    assert names == {"loss_cls", *(f"d{i}.loss_cls" for i in range(10))}
    own = plain.train()(Batch(pixels, truth, torch.arange(2)), Progress.final()).losses
    for collected, layer in (("d0", "d0"), ("d2", "d1"), ("d5", "d2")):
        torch.testing.assert_close(step.losses[f"{collected}.loss_cls"], own[f"{layer}.loss_cls"])
    torch.testing.assert_close(step.losses["loss_bbox"], own["loss_bbox"])
    step.total.backward()
    sizes = torch.full((2, 2), 64.0)
    assert torch.equal(plain.eval().predict(pixels, sizes).boxes, trained.eval().predict(pixels, sizes).boxes)
