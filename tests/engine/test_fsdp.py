"""A network in shares (FSDP2) trains as one that every process has whole, and its checkpoints are the same files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.test_distributed import PLAIN, on_ranks, recipe_of, train, weights
from support import tiny_training
from support.slow import slow_but
from torch import nn

from poise.engine.fsdp import full_tensors, layers_to_shard
from poise.engine.processes import Processes
from poise.engine.state import TrainingState
from poise.engine.step import Stepper
from poise.models import create_model
from poise.recipes import OptimizerSettings, Recipe, TrainSettings
from poise.storage import read_safely
from poise.structures import Batch, GroundTruth

ALONE = Processes(torch.device("cpu"))
SMALL: dict[str, Any] = {"channels": 16, "attention_heads": 2, "hidden": 32, "queries": 12, "encoder_layers": 2}
SMALL |= {
    "decoder_layers": 2,
    "max_auxiliary_queries": 12,
    "backbone": "mobilenetv3_small_100",
    "checkpointed_layers": 1,
}


def sharded(recipe: Recipe) -> Recipe:
    return replace(recipe, train=replace(recipe.train, fsdp=True))


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if not key.endswith("seen"):
            assert type(other[key]) is torch.Tensor and other[key].shape == value.shape
            torch.testing.assert_close(other[key], value, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", slow_but(["clipped", "accumulated"], ["clipped"]))
def test_shares_train_as_whole_copies_do(tmp_path: Path, name: str) -> None:
    """With the average of weights, clipping, accumulation, validation, and the files of every epoch."""
    recipe = recipe_of(name)
    recipe = replace(recipe, train=replace(recipe.train, keep_every=2), optimizer=OptimizerSettings("adamw", lr=0.003))
    assert on_ranks(2, lambda p: train(tmp_path / "copies", recipe, p, 40)) == [0, 0]
    assert on_ranks(2, lambda p: train(tmp_path / "shares", sharded(recipe), p, 40)) == [0, 0]
    assert_close(weights(tmp_path / "copies"), weights(tmp_path / "shares"))
    for file in ("last.pt", "best.pt", "epoch-0002.pt"):
        assert_close(*(read_safely(tmp_path / where / file)["weights"] for where in ("copies", "shares")))
    states = [read_safely(tmp_path / where / "last.pt")["training"]["optimizer"] for where in ("copies", "shares")]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    for one, other in zip(*(state["state"].values() for state in states), strict=True):
        assert one["exp_avg"].shape == other["exp_avg"].shape and type(other["exp_avg"]) is torch.Tensor


@pytest.mark.slow
def test_a_sharded_run_goes_on_whole_and_the_other_way_round(tmp_path: Path) -> None:
    recipe = recipe_of("plain")
    assert on_ranks(2, lambda p: train(tmp_path / "one", recipe, p, 40)) == [0, 0]
    for out, first, second in (("a", sharded(recipe), recipe), ("b", recipe, sharded(recipe))):
        assert on_ranks(2, lambda p, r=first, o=out: train(tmp_path / o, r, p, 40, stop_at=7)) == [0, 0]
        assert read_safely(tmp_path / out / "last.pt")["training"]["step"] == 8
        assert on_ranks(2, lambda p, r=second, o=out: train(tmp_path / o, r, p, 40)) == [0, 0]
        assert_close(weights(tmp_path / "one"), weights(tmp_path / out))


def steps_of_a_detr(processes: Processes, out: Path, fsdp: bool) -> None:
    """Losses, gradient norm and weights after two steps of a Co-DETR, written by the first process."""
    torch.manual_seed(0)
    network = create_model("co_deformable_detr_r18", num_classes=3, deterministic=True, **SMALL).network
    settings = TrainSettings(clip_norm=0.1, fsdp=fsdp, ema_decay=0.9)
    recipe = Recipe(train=settings, optimizer=OptimizerSettings("sgd", lr=1e-3))
    state = TrainingState(network, recipe, processes.device)
    network.train()
    stepper, steps = Stepper(state, processes, settings), []
    for step in range(2):
        generator = torch.Generator().manual_seed(10 * step + processes.rank)
        corner = torch.rand(2, 2, generator=generator) * 30
        target = {"boxes": torch.cat((corner, corner + 25), 1), "labels": torch.tensor([0, 2])}
        pixels = torch.randn(1, 3, 64, 64, generator=generator)
        state.rate = 1e-3
        record = stepper([Batch(pixels, GroundTruth.collate([target], [(64, 64)]), torch.tensor([0]))])
        steps.append({"losses": record.values, "norm": record.norm})
    tensors = state.tensors()
    if processes.first:
        torch.save({"steps": steps, "weights": tensors["network"], "ema": tensors["ema"]}, out)


@pytest.mark.slow
def test_a_detr_in_shares_says_and_learns_the_same(tmp_path: Path) -> None:
    for name, fsdp in (("copies", False), ("shares", True)):
        assert on_ranks(2, lambda p, n=name, s=fsdp: steps_of_a_detr(p, tmp_path / n, s)) == [0, 0]
    copies, shares = (torch.load(tmp_path / name, weights_only=True) for name in ("copies", "shares"))
    for one, other in zip(copies["steps"], shares["steps"], strict=True):
        torch.testing.assert_close(other["losses"], one["losses"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other["norm"], one["norm"], rtol=1e-3, atol=0)
    for part in ("weights", "ema"):
        for key, value in copies[part].items():
            torch.testing.assert_close(shares[part][key], value, rtol=1e-4, atol=1e-5)


def test_layers_that_are_gathered_by_themselves() -> None:
    wide = {**SMALL, "channels": 64, "hidden": 512, "auxiliary_heads": ""}
    network = create_model("co_deformable_detr_r18", num_classes=3, **wide).network
    found = layers_to_shard(network)
    assert set(network.encoder.layers) <= set(found)  # type: ignore[union-attr,arg-type]
    assert not any(isinstance(one, nn.Identity) for one in found) and network not in found
    assert not set(network.decoder.prediction_heads) & set(found)  # type: ignore[union-attr,arg-type]


def test_a_whole_tensor_stays_what_it_is() -> None:
    value = {"a": torch.ones(2), "b": [1, {"c": torch.zeros(1)}]}
    assert full_tensors(value)["a"] is value["a"] and full_tensors(value)["b"][0] == 1


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="torchrun --nproc-per-node"):
        tiny_training.tiny_training(tmp_path, sharded(recipe_of("plain")), processes=ALONE, **PLAIN)

    def refused(processes: Processes, **settings: Any) -> None:
        recipe = sharded(recipe_of("plain"))
        with pytest.raises(ValueError, match="train.fsdp cannot be combined with"):
            TrainingState(nn.Linear(2, 2), replace(recipe, train=replace(recipe.train, **settings)), processes.device)

    def each(processes: Processes) -> None:
        refused(processes, precision="fp16")
        refused(processes, compile=True)
        refused(processes, channels_last=True)

    assert on_ranks(2, each) == [0, 0]
