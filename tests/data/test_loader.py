"""Batches do not depend on workers, order of asking or the state of any generator; nothing is lost silently."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.colored import FileRecord, write_records

from poise.data.augment import build_pipeline
from poise.data.dataset import DetectionDataset, Failure, Item
from poise.data.errors import BadImage
from poise.data.loader import BadImageWarning, WorkerDied, evaluation_loader, train_loader
from poise.preprocess import Preprocess
from poise.recipes.augment import AugmentSettings
from poise.structures import Batch

SMALL = Preprocess(short=40, long=64)
EVERYTHING = AugmentSettings(
    flip=0.5,
    short_range=(32, 48),
    photometric=0.5,
    min_iou_crop=0.4,
    scale_jitter=(0.6, 1.6),
    mosaic=0.4,
    mixup=0.4,
    copy_paste=0.5,
)
PLAIN = AugmentSettings(flip=0.0)

pytestmark = pytest.mark.filterwarnings("error:This DataLoader will create")


def equal(a: Batch, b: Batch) -> bool:
    pairs = [
        (a.pixels, b.pixels),
        (a.indices, b.indices),
        (a.truth.boxes, b.truth.boxes),
        (a.truth.labels, b.truth.labels),
    ]
    pairs += [(a.truth.valid, b.truth.valid), (a.truth.crowd, b.truth.crowd), (a.truth.sizes, b.truth.sizes)]
    return all(torch.equal(x, y) for x, y in pairs)


def test_any_number_of_workers_gives_the_same_bits(tmp_path: Path) -> None:
    records = write_records(tmp_path, [3, 0, 1, 5, 2, 4, 1])
    batches = []
    for workers in (0, 2, 3):
        torch.manual_seed(workers)
        np.random.seed(workers)  # noqa: NPY002 - shows that the old global state has no part either
        loader = train_loader(records, EVERYTHING, SMALL, batch_size=3, seed=7, workers=workers, group_by_aspect=True)
        batches.append([batch for epoch in range(2) for batch in loader.epoch(epoch)])
    assert len(batches[0]) == 6
    for other in batches[1:]:
        assert all(equal(a, b) for a, b in zip(batches[0], other, strict=True))
    assert not equal(batches[0][0], batches[0][3]), "another epoch, another augmentation"


def test_items_do_not_depend_on_order_or_global_state(tmp_path: Path) -> None:
    records = write_records(tmp_path, [3, 2, 1, 5])
    dataset = DetectionDataset(records, build_pipeline(EVERYTHING, SMALL), seed=1)
    keys = [(epoch, index) for epoch in range(3) for index in range(4)]
    forward = {key: dataset[key] for key in keys}
    torch.manual_seed(99)
    torch.set_num_threads(2)
    backward = {key: dataset[key] for key in reversed(keys)}
    torch.set_num_threads(1)
    for key in keys:
        a, b = forward[key], backward[key]
        assert isinstance(a, Item) and isinstance(b, Item)
        assert all(torch.equal(a.scene[name], b.scene[name]) for name in a.scene)
    other = DetectionDataset(records, build_pipeline(EVERYTHING, SMALL), seed=2)[0, 0]
    assert isinstance(other, Item) and not torch.equal(other.scene["image"], forward[0, 0].scene["image"])  # type: ignore[union-attr]


def test_loading_does_not_disturb_other_generators(tmp_path: Path) -> None:
    records = write_records(tmp_path, [3, 2, 1, 5])
    loader = train_loader(records, EVERYTHING, SMALL, batch_size=2, workers=0)
    state = torch.get_rng_state()
    list(loader.epoch(0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_at_any_batch(tmp_path: Path, workers: int) -> None:
    records = write_records(tmp_path, [1, 2, 3, 4, 5])
    loader = train_loader(records, EVERYTHING, SMALL, batch_size=2, workers=workers)
    whole = list(loader.epoch(4))
    for start in range(loader.batches_per_epoch + 1):
        rest = list(loader.epoch(4, start))
        assert len(rest) == len(whole) - start
        assert all(equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_resuming_reads_no_earlier_image(tmp_path: Path) -> None:
    records = write_records(tmp_path, [1] * 6)
    loader = train_loader(records, PLAIN, SMALL, batch_size=2, workers=0)
    order = [batch.indices.tolist() for batch in loader.epoch(0)]
    for index in order[0] + order[1]:
        records[index].path.unlink()
    assert [batch.indices.tolist() for batch in loader.epoch(0, 2)] == order[2:]


def test_an_abandoned_epoch_cannot_go_on(tmp_path: Path) -> None:
    loader = train_loader(write_records(tmp_path, [1] * 6), PLAIN, SMALL, batch_size=2, workers=2)
    first = loader.epoch(0)
    next(first)
    second = loader.epoch(1)
    assert len(list(second)) == 3
    with pytest.raises(RuntimeError, match="a later one"):
        next(first)


def test_two_ranks_see_the_images_of_one(tmp_path: Path) -> None:
    records = write_records(tmp_path, [2, 1, 0, 3, 1, 2, 2])
    alone = list(train_loader(records, EVERYTHING, SMALL, batch_size=4, seed=3).epoch(2))
    parts = [
        list(train_loader(records, EVERYTHING, SMALL, batch_size=4, seed=3, rank=r, world_size=2).epoch(2))
        for r in (0, 1)
    ]
    assert len(parts[0]) == len(parts[1]) == len(alone)
    for whole, first, second in zip(alone, *parts, strict=True):
        assert torch.equal(whole.indices, torch.cat((first.indices, second.indices)))
        rows = [(b.pixels[i], b.truth.sizes[i].int().tolist()) for b in (first, second) for i in range(len(b.indices))]
        for pixels, (own, (height, width)) in zip(whole.pixels, rows, strict=True):
            assert torch.equal(pixels[:, :height, :width], own[:, :height, :width])


def test_padding_sizes_empty_images_and_crowds(tmp_path: Path) -> None:
    records = write_records(tmp_path, [0, 4])
    (batch,) = train_loader(records, PLAIN, SMALL, batch_size=2).epoch(0)
    assert batch.pixels.shape == (2, 3, 64, 64)
    for row, index in enumerate(batch.indices.tolist()):
        record = records[index]
        height, width = SMALL.target_size(record.height, record.width)
        assert batch.truth.sizes[row].tolist() == [height, width]
        assert (batch.pixels[row, :, height:] == 0).all() and (batch.pixels[row, :, :, width:] == 0).all()
        n = len(record.labels)
        assert batch.truth.crowd[row, :n].tolist() == record.crowd.tolist()
        assert batch.truth.valid[row, :n].tolist() == (~record.crowd).tolist()
        assert not batch.truth.valid[row, n:].any()
        factor = torch.tensor([width / record.width, height / record.height] * 2)
        assert torch.allclose(batch.truth.boxes[row, :n], torch.from_numpy(record.boxes) * factor, atol=1e-4)


@pytest.mark.parametrize("count", [1, 300])
def test_one_and_many_objects(tmp_path: Path, count: int) -> None:
    records = write_records(tmp_path, [count] * 4)
    for batch in train_loader(records, EVERYTHING, SMALL, batch_size=2, seed=count).epoch(0):
        sizes = batch.truth.sizes
        boxes = batch.truth.boxes
        assert (boxes >= 0).all()
        assert (boxes[..., 2] <= sizes[:, None, 1]).all() and (boxes[..., 3] <= sizes[:, None, 0]).all()
        valid = batch.truth.valid
        assert (boxes[..., 2:] > boxes[..., :2]).all(-1)[valid].all()
        assert torch.isfinite(batch.pixels).all()


def test_the_last_epochs_are_plain(tmp_path: Path) -> None:
    settings = AugmentSettings(flip=0.0, mosaic=1.0, plain_epochs=2)
    records = write_records(tmp_path, [1] * 4)
    loader = train_loader(records, settings, SMALL, batch_size=4, epochs=5, workers=0)
    plain = train_loader(records, PLAIN, SMALL, batch_size=4, workers=0)
    same = [equal(next(loader.epoch(epoch)), next(plain.epoch(epoch))) for epoch in range(5)]
    assert same == [False, False, False, True, True]
    with pytest.raises(ValueError, match="plain_epochs"):
        train_loader(records, settings, SMALL, batch_size=4)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_ends_the_run_and_is_named(tmp_path: Path, workers: int) -> None:
    records = write_records(tmp_path, [1] * 5)
    records[2].path.write_bytes(b"no image")
    loader = train_loader(records, PLAIN, SMALL, batch_size=2, workers=workers)
    with pytest.raises(BadImage, match="002.png"):
        list(loader.epoch(0))
    with pytest.raises(BadImage, match="002.png"):
        list(evaluation_loader(records, SMALL, batch_size=2, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skipped_image_is_replaced_and_named_once(tmp_path: Path, workers: int) -> None:
    records = write_records(tmp_path, [1] * 5)
    records[2].path.write_bytes(b"no image")
    loader = train_loader(records, PLAIN, SMALL, batch_size=5, workers=workers, on_bad_image="skip")
    with pytest.warns(BadImageWarning, match="002.png.*image 3 takes its place") as caught:
        seen = [sorted(batch.indices.tolist()) for epoch in range(2) for batch in loader.epoch(epoch)]
    assert seen == [[0, 1, 3, 3, 4]] * 2
    assert sum(issubclass(w.category, BadImageWarning) for w in caught) == 1


def test_a_set_without_a_readable_image_is_an_error(tmp_path: Path) -> None:
    records = write_records(tmp_path, [1] * 3)
    for record in records:
        record.path.write_bytes(b"")
    dataset = DetectionDataset(records, build_pipeline(PLAIN, SMALL), on_bad_image="skip")
    assert isinstance(dataset[0, 1], Failure)


class Deadly(Sequence[FileRecord]):
    """Records whose reading kills the process that reads them."""

    def __init__(self, records: list[FileRecord], survivor: int) -> None:
        self.records, self.survivor = records, survivor

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> FileRecord:  # type: ignore[override]
        if os.getpid() != self.survivor:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.records[index]


def test_a_killed_worker_is_an_error_with_a_cure(tmp_path: Path) -> None:
    records = Deadly(write_records(tmp_path, [1] * 4), os.getpid())
    loader = train_loader(records, PLAIN, SMALL, batch_size=2, workers=1)
    with pytest.raises(WorkerDied, match="fewer workers"):
        list(loader.epoch(0))


@pytest.mark.parametrize(("workers", "world"), [(0, 1), (2, 1), (0, 2), (0, 3), (0, 8)])
def test_evaluation_shows_every_image_once(tmp_path: Path, workers: int, world: int) -> None:
    records = write_records(tmp_path, [1, 0, 2, 3, 1])
    seen = []
    for rank in range(world):
        loader = evaluation_loader(records, SMALL, batch_size=2, workers=workers, rank=rank, world_size=world)
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch in batches:
            seen += batch.indices.tolist()
            for row, index in enumerate(batch.indices.tolist()):
                assert batch.original_sizes[row].tolist() == [records[index].height, records[index].width]
    assert sorted(seen) == list(range(5))


def test_evaluation_pads_no_image_further_than_alone(tmp_path: Path) -> None:
    """So the numbers do not depend on the batch; where annotations state no sizes, the files say them."""
    records = write_records(tmp_path, [1] * 8)
    for known in (records, [replace(record, width=0, height=0) for record in records]):
        batches = list(evaluation_loader(known, SMALL, batch_size=3))
        assert max(len(batch.indices) for batch in batches) > 1
        for batch in batches:
            for height, width in batch.original_sizes.int().tolist():
                assert tuple(batch.pixels.shape[2:]) == SMALL.input_size(height, width)


def test_grouping_reads_sizes_that_annotations_do_not_state(tmp_path: Path) -> None:
    records = write_records(tmp_path, [1] * 8)
    unstated = [replace(record, width=0, height=0) for record in records]
    for known in (records, unstated):
        loader = train_loader(known, PLAIN, SMALL, batch_size=2, group_by_aspect=True)
        shapes = [(batch.truth.sizes[:, 0] < batch.truth.sizes[:, 1]).tolist() for batch in loader.epoch(0)]
        assert sorted(shapes) == [[False, False]] * 2 + [[True, True]] * 2


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    records = write_records(tmp_path, [1, 1])
    with pytest.raises(ValueError, match="workers=-1"):
        train_loader(records, PLAIN, SMALL, batch_size=2, workers=-1)
    with pytest.raises(ValueError, match="on_bad_image"):
        train_loader(records, PLAIN, SMALL, batch_size=2, on_bad_image="maybe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batches 0 to 1"):
        train_loader(records, PLAIN, SMALL, batch_size=2).epoch(0, 2)
    with pytest.raises(ValueError, match="batch_size=0"):
        evaluation_loader(records, SMALL, batch_size=0)


def test_no_warning_without_a_reason(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(train_loader(write_records(tmp_path, [0, 1, 2]), EVERYTHING, SMALL, batch_size=2).epoch(0))


def test_workers_are_no_more_than_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's warning of more workers is an error in this file."""
    records = write_records(tmp_path, [1, 2])
    monkeypatch.setattr("poise.data.loader.usable_cores", lambda: 1)
    for requested, given in ((0, 0), (1, 1), (64, 1)):
        loader = train_loader(records, PLAIN, SMALL, batch_size=1, workers=requested)
        assert loader._loader.num_workers == given
    monkeypatch.undo()
    loader = train_loader(records, PLAIN, SMALL, batch_size=1, workers=64)
    assert sum(len(batch.indices) for batch in loader.epoch(0)) == 2
