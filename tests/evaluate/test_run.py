"""From batches to COCO results and metrics, in one process and several."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from evaluate.cases import random_truth
from torch import Tensor, nn

from poise.evaluate import evaluate, measure_coco, predict_batches, read_results, write_results
from poise.evaluate.run import evaluation_mode
from poise.structures import Batch, Detections, GroundTruth

SCALE = 0.5  # of the stand-in's input to the original images


class Oracle(nn.Module):
    """A stand-in for a model, with a norm layer that is kept in evaluation mode."""

    def __init__(self, truth: dict[str, Any], error: float = 0.0) -> None:
        super().__init__()
        self.category_ids = tuple(c["id"] for c in truth["categories"])
        self.class_names = tuple(c["name"] for c in truth["categories"])
        self.network = OracleNetwork(truth, self.category_ids, error)
        self.frozen = nn.BatchNorm2d(3).eval()


class OracleNetwork(nn.Module):
    """Reads from the pixels which image it sees and answers with its objects, shifted by ``error``."""

    def __init__(self, truth: dict[str, Any], category_ids: tuple[int, ...], error: float) -> None:
        super().__init__()
        self.truth, self.category_ids, self.error = truth, category_ids, error

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        rows = [self._objects(int(image[0, 0, 0])) for image in pixels]
        most = max(1, *map(len, rows))
        boxes, labels = torch.zeros(len(rows), most, 4), torch.zeros(len(rows), most, dtype=torch.int64)
        valid = torch.zeros(len(rows), most, dtype=torch.bool)
        for i, row in enumerate(rows):
            for j, record in enumerate(row):
                x, y, w, h = record["bbox"]
                boxes[i, j] = torch.tensor([x + self.error, y, x + w + self.error, y + h]) * SCALE
                labels[i, j] = self.category_ids.index(record["category_id"])
                valid[i, j] = True
        return Detections(boxes, torch.full((len(rows), most), 0.75), labels, valid)

    def _objects(self, index: int) -> list[dict[str, Any]]:
        image = self.truth["images"][index]["id"]
        return [record for record in self.truth["annotations"] if record["image_id"] == image]


def batches(truth: dict[str, Any], size: int = 3, start: int = 0, step: int = 1) -> list[Batch]:
    """Batches whose images hold their own index as gray value; every image is ``SCALE`` times its original."""
    mine = list(range(start, len(truth["images"]), step))
    made = []
    for i in range(0, len(mine), size):
        indices = torch.tensor(mine[i : i + size])
        pixels = indices.float()[:, None, None, None].expand(-1, 3, 8, 8)
        sizes = [(int(640 * SCALE), int(640 * SCALE))] * len(indices)
        empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        made.append(Batch(pixels, GroundTruth.collate([empty] * len(indices), sizes), indices))
    return made


def test_a_perfect_detector_scores_one_in_original_pixels_and_ids() -> None:
    truth = random_truth(0, crowd=0)
    found = evaluate(Oracle(truth), batches(truth), truth)
    assert found.metrics.ap == pytest.approx(1)
    assert found.images == len(truth["images"]) and found.seconds_per_image > 0
    expected = {(a["image_id"], a["category_id"], *(round(v, 2) for v in a["bbox"])) for a in truth["annotations"]}
    got = {(d["image_id"], d["category_id"], *(round(v, 2) for v in d["bbox"])) for d in found.detections}
    assert len(got) == len(expected)
    for one, other in zip(sorted(got), sorted(expected), strict=True):
        assert one == pytest.approx(other, abs=0.02)


def test_sides_are_scaled_separately_and_clipped() -> None:
    truth = random_truth(0, images=2, crowd=0)
    for image in truth["images"]:
        image.update(width=320, height=1280)
    truth["annotations"] = [{**truth["annotations"][0], "bbox": [400.0, 100.0, 300.0, 60.0]}]
    (result,) = predict_batches(Oracle(truth), batches(truth), truth)
    # the stand-in's input is 320 by 320: x 200..350 becomes 200..320 after clipping, y 50..80 becomes 200..320
    assert result["bbox"] == pytest.approx([200, 200, 120, 120], abs=0.01)


def test_modes_are_restored_module_by_module() -> None:
    model = Oracle(random_truth(0)).train()
    model.frozen.eval()
    with evaluation_mode(model):
        assert not model.training
    assert model.training and not model.frozen.training


def test_an_image_that_was_not_predicted_is_an_error() -> None:
    truth = random_truth(0)
    with pytest.raises(ValueError, match=r"3 of the 12 images.*not predicted.*79"):
        evaluate(Oracle(truth), [b for b in batches(truth) if 3 not in b.indices], truth)


def test_results_survive_the_file(tmp_path: Path) -> None:
    truth = random_truth(1)
    found = evaluate(Oracle(truth, error=4.3), batches(truth), truth)
    path = write_results(found.detections, tmp_path / "new" / "detections.json")
    assert measure_coco(truth, read_results(path)).metrics.to_dict() == found.metrics.to_dict()
    assert [p.name for p in path.parent.iterdir()] == ["detections.json"]
    path.write_text("[{}]")
    with pytest.raises(ValueError, match="does not hold COCO results"):
        read_results(path)
    path.write_text('[{"image_')
    with pytest.raises(ValueError, match="is not JSON"):
        read_results(path)


def _rank(rank: int, port: int, folder: str) -> None:
    """Once with a padded shard (both ranks predict image 0), once with an image that no rank predicts."""
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    truth = random_truth(2)
    mine, first = batches(truth, start=rank, step=2), batches(truth, size=1)[:1]
    found = evaluate(Oracle(truth, error=3.0), mine + first, truth)
    outcome: dict[str, Any] = {"metrics": found.metrics.to_dict(), "detections": found.detections}
    try:
        evaluate(Oracle(truth), mine[: len(mine) - rank], truth)
    except ValueError as error:
        outcome["error"] = str(error)
    Path(folder, f"{rank}.json").write_text(json.dumps(outcome))
    torch.distributed.destroy_process_group()


def test_two_ranks_equal_one_and_raise_the_same_errors(tmp_path: Path) -> None:
    truth = random_truth(2)
    alone = evaluate(Oracle(truth, error=3.0), batches(truth), truth)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_rank, (port, str(tmp_path)), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["metrics"] == second["metrics"] == alone.metrics.to_dict()
    assert first["detections"] == alone.detections and second["detections"] == []
    assert "not predicted" in first["error"] and first["error"] == second["error"]
