"""The Libra R-CNN article's figures on synthetic scenes: how much of a random sample overlaps next to nothing.

Objects have the sizes of COCO's (square root of their share of the image: median 0.106, a tenth below 0.024, a tenth
above 0.472; Singh and Davis 2018), images 800 x 1333 pixels, and proposals come from the anchors and the proposal step
of Faster R-CNN. Nothing else is set: the first stage either knows nothing, so that its proposals are spread over the
image, or ranks its anchors by their overlap with the objects.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from poise.assign import MaxIoU
from poise.boxes import clip, pairwise_iou
from poise.branches.region import ProposalPostProcess, add_ground_truth, assign_regions, only_usable
from poise.nn.layers import AnchorGrid
from poise.sample import Sampler, libra_article_sampler, random_sampler
from poise.structures import Assignment, GroundTruth, Predictions

HEIGHT, WIDTH, IMAGES, OBJECTS = 800, 1333, 4, 7
SIZES = torch.tensor([[float(HEIGHT), float(WIDTH)]])


def truth_like_coco() -> GroundTruth:
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES, OBJECTS, 1)
    scale = 0.106 * (1.16 * torch.randn(shape, generator=generator)).exp()
    side = scale.clamp(max=0.95) * (HEIGHT * WIDTH) ** 0.5
    aspect = (0.4 * torch.randn(shape, generator=generator)).exp()
    extent = torch.minimum(torch.cat((side * aspect, side / aspect), 2), torch.tensor([WIDTH, HEIGHT]) * 0.98)
    corner = torch.rand(IMAGES, OBJECTS, 2, generator=generator) * (torch.tensor([WIDTH, HEIGHT]) - extent)
    boxes = torch.cat((corner, corner + extent), 2)
    targets = [{"boxes": image, "labels": torch.zeros(OBJECTS)} for image in boxes]
    return GroundTruth.collate(targets, [(HEIGHT, WIDTH)] * IMAGES)


def assigned(truth: GroundTruth, knowing: bool) -> Assignment:
    """The second stage's assignment of what a first stage proposes whose scores are noise, or overlaps and noise."""
    strides = (4, 8, 16, 32, 64)
    grid = AnchorGrid(strides, (8.0,), (0.5, 1.0, 2.0))
    priors = grid([torch.zeros(1, 1, -(-HEIGHT // stride), -(-WIDTH // stride)) for stride in strides])
    anchors = clip(priors.boxes.expand(1, -1, -1), SIZES)
    generator, found = torch.Generator().manual_seed(1), []
    for i in range(IMAGES):
        logits = torch.randn(1, anchors.shape[1], 1, generator=generator)
        if knowing:
            logits = logits + 10 * pairwise_iou(anchors, truth.boxes[i : i + 1, :OBJECTS]).amax(2, keepdim=True)
        found.append(ProposalPostProcess(2000, 1000)(Predictions(priors, logits, anchors), SIZES))
    proposals = type(found[0])(*(torch.cat([getattr(one, name) for one in found]) for name in vars(found[0])))
    return assign_regions(
        MaxIoU(0.5, 0.5, 0.5, low_quality=False, divisor=0), only_usable(add_ground_truth(proposals, truth)), truth
    )


def sampled_iou(sampler: Sampler, assignment: Assignment) -> Tensor:
    """Overlaps of the negatives that a sampler takes."""
    sample = sampler(assignment, torch.Generator().manual_seed(2))
    taken = sample.mask & assignment.negative.gather(1, sample.index)
    return assignment.quality.gather(1, sample.index)[taken]


@pytest.fixture(scope="module")
def scenes() -> dict[str, Assignment]:
    truth = truth_like_coco()
    return {"spread": assigned(truth, knowing=False), "gathered": assigned(truth, knowing=True)}


def test_random_sampling_of_spread_proposals_gives_over_seventy_percent_next_to_nothing(
    scenes: dict[str, Assignment],
) -> None:
    overlap = sampled_iou(random_sampler(512), scenes["spread"])
    assert len(overlap) > 400 * IMAGES
    assert float((overlap < 0.05).float().mean()) > 0.7


def test_the_share_is_the_proposals_own_and_falls_where_they_gather_around_objects(
    scenes: dict[str, Assignment],
) -> None:
    parts = {}
    for name, assignment in scenes.items():
        pool, overlap = assignment.quality[assignment.negative], sampled_iou(random_sampler(128), assignment)
        parts[name] = float((pool < 0.05).float().mean())
        deviation = (parts[name] * (1 - parts[name]) / len(overlap)) ** 0.5
        assert float((overlap < 0.05).float().mean()) == pytest.approx(parts[name], abs=4 * deviation)
    assert parts["gathered"] < parts["spread"]


def test_balanced_sampling_is_even_where_there_are_enough(scenes: dict[str, Assignment]) -> None:
    edges = [0.0, 0.5 / 3, 1 / 3, 0.5]
    assignment = scenes["gathered"]
    overlap, negative = assignment.quality, assignment.negative
    counts = torch.stack([(negative & (overlap >= low) & (overlap < high)).sum(1) for low, high in pairwise(edges)], 1)
    enough = counts.amin(1) >= 32
    assert int(enough.sum()) >= 2
    some = Assignment(*(value[enough] for value in vars(assignment).values()))
    sampled = sampled_iou(libra_article_sampler(128), some)
    parts = torch.histogram(sampled, torch.tensor(edges)).hist / len(sampled)
    plain = torch.histogram(sampled_iou(random_sampler(128), some), torch.tensor(edges)).hist
    assert float(parts.max() - parts.min()) < 0.02
    assert float(plain.max() - plain.min()) / float(plain.sum()) > 0.1
