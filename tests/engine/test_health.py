"""A loss that is not finite stops the run before anything is spoiled, and is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import tiny_training

from poise.engine.health import OutOfMemory, RunningStatistics, TrainingDiverged
from poise.storage import read_safely
from poise.structures import Assignment, Batch, Match, Predictions, Priors, Progress, StepOutput


@pytest.fixture
def training(tmp_path: Path) -> tiny_training.Training:
    return tiny_training.tiny_training(tmp_path, tiny_training.tiny_recipe(save_every=0))


def snapshot(training: tiny_training.Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.state.network.state_dict().items()}


def test_the_term_the_step_and_the_images_are_named(training: tiny_training.Training, tmp_path: Path) -> None:
    training.state.network.poison = {8: "width"}
    kept: dict[str, dict[str, torch.Tensor]] = {}

    def before_step(progress: Progress) -> None:
        if progress.step == 8:
            kept["network"] = snapshot(training)
            kept["ema"] = {name: value.clone() for name, value in training.state.ema.values.items()}

    training.state.network.before_step = before_step
    with pytest.raises(
        TrainingDiverged, match=r"loss width = nan at step 9, epoch 2, batch 3; images: image_\d+\.png"
    ) as caught:
        training.run()
    images = str(caught.value).split("images: ")[1].split(". The state")[0].split(", ")
    assert images == [f"image_{i}.png" for i in list(training.loader.plan.batches(1))[2]]
    failed = read_safely(caught.value.state_file)["training"]
    assert (failed["step"], failed["epoch"], failed["batch"]) == (8, 1, 2)
    for part in ("network", "ema"):
        for name, value in kept[part].items():
            if name != "seen":  # the fingerprint counts forward passes
                assert torch.equal(value, failed[part][name]), f"{part}/{name}"
    assert read_safely(tmp_path / "last.pt")["training"]["step"] == 6, "the last checkpoint is left alone"


def test_a_gradient_that_is_not_finite_is_found_too(training: tiny_training.Training) -> None:
    weight = training.state.network.branch[1].weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    before = weight.detach().clone()
    with pytest.raises(TrainingDiverged, match=r"the gradient is not, first in branch\.1\.weight at step 1, epoch 1"):
        training.run()
    assert torch.equal(weight.detach(), before)


def spoil(training: tiny_training.Training, nonfinite: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the network report predictions of which so many priors of a batch are not finite."""
    forward = training.state.network.forward

    def reporting(batch: Batch, progress: Progress) -> StepOutput:
        output = forward(batch, progress)
        count = len(batch.pixels)
        priors = Priors(torch.zeros(1, 16, 4), torch.ones(16), (16,))
        logits, boxes = torch.zeros(count, 16, 2), torch.zeros(count, 16, 4)
        logits.view(-1, 2)[:nonfinite, 1] = torch.inf
        boxes.view(-1, 4)[0, 3] = torch.nan  # one of those priors once more
        none = torch.zeros(count, 16, dtype=torch.bool)
        assignment = Assignment(torch.zeros(count, 16, dtype=torch.int64), none, none, torch.zeros(count, 16))
        return StepOutput(output.losses, {"dense": Match(Predictions(priors, logits, boxes), assignment)})

    monkeypatch.setattr(training.state.network, "forward", reporting)


def test_predictions_that_are_not_finite_are_counted(
    training: tiny_training.Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(training, 5, monkeypatch)
    shown = []
    monkeypatch.setattr(training.log.display, "status", shown.append, raising=False)
    training.run()
    steps = [row["step"] for row in training.state.rows]
    assert [row["nonfinite_predictions"] for row in training.state.rows] == [5 * steps[0]] * len(steps)
    assert shown and shown[0].nonfinite == 10 and "nonfinite_predictions 10" in shown[0].line()


def test_a_diverged_run_says_how_many_predictions_were_not_finite(
    training: tiny_training.Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.state.network.poison = {2: "heat"}
    spoil(training, 3, monkeypatch)
    with pytest.raises(TrainingDiverged, match=r"batch 3 \(nonfinite_predictions 3\); images: image_"):
        training.run()


def test_nothing_is_said_of_finite_predictions(training: tiny_training.Training) -> None:
    training.run()
    assert not any("nonfinite_predictions" in row for row in training.state.rows)


def test_running_statistics_are_taken_back() -> None:
    norm = torch.nn.BatchNorm2d(2)
    statistics = RunningStatistics(norm)
    norm(torch.randn(2, 2, 4, 4))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    statistics.remember()
    norm(torch.full((2, 2, 4, 4), float("nan")))
    assert not norm.running_mean.isfinite().all()
    statistics.restore_unless(torch.tensor(False))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    norm(torch.randn(2, 2, 4, 4))
    moved = norm.running_mean.clone()
    statistics.restore_unless(torch.tensor(True))
    assert torch.equal(norm.running_mean, moved)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_what_to_lower(training: tiny_training.Training, error: RuntimeError) -> None:
    def before_step(progress: Progress) -> None:
        raise error

    training.state.network.before_step = before_step
    with pytest.raises(OutOfMemory, match=r"Lower data\.batch_size \(now 8\).*model\.image_size.*precision to bf16"):
        training.run()


def test_the_allocator_s_own_error_is_recognized(training: tiny_training.Training) -> None:
    def before_step(progress: Progress) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    training.state.network.before_step = before_step
    with pytest.raises(OutOfMemory, match=r"Lower data\.batch"):
        training.run()


def test_other_errors_pass_unchanged(training: tiny_training.Training) -> None:
    def before_step(progress: Progress) -> None:
        raise RuntimeError("a bug")

    training.state.network.before_step = before_step
    with pytest.raises(RuntimeError, match="^a bug$"):
        training.run()


def overflowing(tmp_path: Path, steps: int) -> tiny_training.Training:
    """An fp16 training whose gradients overflow in the first ``steps`` steps."""
    training = tiny_training.tiny_training(tmp_path, tiny_training.tiny_recipe(precision="fp16", save_every=0))
    weight, state = training.state.network.branch[1].weight, training.state
    weight.register_hook(lambda gradient: gradient * float("inf") if state.position.step < steps else gradient)
    return training


def test_an_fp16_overflow_is_survived(tmp_path: Path) -> None:
    """The steps that overflow change no weight and no average; the scale falls, and the training goes on."""
    training = overflowing(tmp_path, 3)
    state, kept = training.state, []

    def before_step(progress: Progress) -> None:
        if progress.step in (0, 3):
            weights = [parameter.detach().clone() for parameter in state.network.parameters()]
            kept.append((weights, [state.ema.values[name].clone() for name, _ in state.network.named_parameters()]))

    state.network.before_step = before_step
    start = state.scaler.get_scale()
    assert training.run() is None and state.position.step == 18
    assert state.scaler.get_scale() == start / 8
    for before, after in zip(kept[0], kept[1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(kept[1][0], state.network.parameters(), strict=True))
    assert all(value.isfinite().all() for value in state.ema.values.values())


def test_an_fp16_overflow_without_end_stops_the_run(tmp_path: Path) -> None:
    """Not eighteen steps that change nothing, and a message that the loss scaler alone never gives."""
    training = overflowing(tmp_path, 1000)
    training.state.scaler = torch.amp.GradScaler("cpu", init_scale=1e-3)
    before = [parameter.detach().clone() for parameter in training.state.network.parameters()]
    with pytest.raises(TrainingDiverged, match=r"fp16 gradients are not finite at step 4 .*bf16") as caught:
        training.run()
    assert read_safely(caught.value.state_file)["training"]["step"] == 4
    assert all(torch.equal(a, b) for a, b in zip(before, training.state.network.parameters(), strict=True))
