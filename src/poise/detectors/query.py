"""The detector of the DETR family: an encoder's memory, queries to it, a decoder that answers, Hungarian matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from poise.boxes import from_shares
from poise.detectors.collaboration import Collaboration
from poise.nn.denoising import ContrastiveDenoising
from poise.nn.queries import Answers, Queries, TaughtQueries, joined
from poise.nn.tokens import Tokens
from poise.postprocess import BestAnswers, SoftSuppressed
from poise.structures import (
    Assignment,
    Batch,
    Detections,
    GroundTruth,
    Match,
    Priors,
    Progress,
    QueryPredictions,
    StepOutput,
    map_tensors,
)


class QueryDetector(nn.Module):
    """``forward`` gives losses and matches whatever the mode, ``predict`` detections whatever the mode.

    Args:
        tokenizer: ``(maps, sizes, canvas) -> Tokens``.
        encoder: ``(tokens) -> Tokens``.
        queries: ``(tokens) -> Queries``; where they carry proposals, these are taught too.
        decoder: ``(queries, tokens, blocked) -> Answers`` of all its layers.
        assigner: matches queries of stacked layers with objects.
        criterion: a ``SetCriterion``.
        denoising: makes further queries from the truth, in training.
        collaboration: auxiliary branches on the encoder's memory, in training, and the queries that they lend.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        tokenizer: nn.Module,
        encoder: nn.Module,
        queries: nn.Module,
        decoder: nn.Module,
        assigner: Any,
        criterion: Any,
        postprocess: BestAnswers | SoftSuppressed,
        denoising: ContrastiveDenoising | None = None,
        collaboration: Collaboration | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.tokenizer, self.encoder = backbone, neck, tokenizer, encoder
        self.queries, self.decoder = queries, decoder
        self.denoising, self.collaboration = denoising, collaboration
        self.assigner, self.criterion, self.postprocess = assigner, criterion, postprocess

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        truth = batch.truth
        memory = self.encode(batch.pixels, truth.sizes)
        queries = self.queries(memory)
        taught = [] if self.denoising is None else [self.denoising(truth)]
        helped = StepOutput({})
        if self.collaboration is not None:
            helped, lent = self.collaboration(memory, truth, progress)
            taught += lent
        asked, blocked = joined(queries, taught)
        answers = self.decoder(asked, memory, blocked)
        with torch.autocast(batch.pixels.device.type, enabled=False):
            judged = self.judge(queries, taught, answers, truth)
        return merged([judged, helped])

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Detections of (B,3,H,W) normalised pixels whose images are ``sizes`` (B,2) high and wide before padding."""
        memory = self.encode(pixels, sizes)
        answers = self.decoder(self.queries(memory), memory)
        return self.postprocess(answers.logits[-1], from_shares(answers.boxes[-1], sizes), sizes)

    def encode(self, pixels: Tensor, sizes: Tensor) -> Tokens:
        """The encoder's memory."""
        maps = self.neck(self.backbone(pixels))
        return self.encoder(self.tokenizer(maps, sizes, (int(pixels.shape[2]), int(pixels.shape[3]))))

    def judge(
        self, queries: Queries, taught: Sequence[TaughtQueries], answers: Answers, truth: GroundTruth
    ) -> StepOutput:
        """Losses and matches of what encoder and decoder said; the taught queries come first among the answers."""
        *known, matching = parted(answers, [part.groups.shape[1] for part in taught])
        layers, proposed, stages = len(answers.logits), queries.proposed, []
        names = layer_names(layers, "{}")
        if proposed is not None and self.queries.any_class:
            anything = replace(truth, labels=torch.zeros_like(truth.labels))
            stages.append(self._teach(("encoder",), proposed, proposed.boxes[0].detach(), anything, ("enc_{}",)))
        elif proposed is not None:
            matching, names = stacked(proposed, matching), ("enc_{}", *names)
        first = ("encoder",) if len(names) > layers else ()
        stages.append(self._teach((*first, *stage_names(layers)), matching, queries.references, truth, names))
        for part, said in zip(taught, known, strict=True):
            names = layer_names(layers, part.name)
            stages.append(self._teach((part.stage,), said, part.queries.references, truth, names, part.assignment))
        return merged(stages)

    def _teach(
        self,
        stages: Sequence[str],
        answers: Answers,
        references: Tensor,
        truth: GroundTruth,
        names: Sequence[str],
        known: Assignment | None = None,
    ) -> StepOutput:
        """The losses of some layers, by an assignment that is known or by matching; matches of the last, by ``stages``."""
        layers, batch = answers.logits.shape[:2]
        predictions, truths = predictions_of(answers, references, truth.sizes), truth.repeat(layers)
        if known is None:
            assigned = self.assigner(predictions, truths)
        else:
            assigned = map_tensors(known, lambda t: t.repeat(layers, 1))
        losses = self.criterion.of_layers(predictions, assigned, truths, names)
        matches = {}
        for layer, stage in enumerate(stages, layers - len(stages)):
            said = predictions_of(layer_of(answers, layer), references, truth.sizes)
            told = Assignment(*(t[layer * batch : (layer + 1) * batch] for t in vars(assigned).values()))
            matches[stage] = Match(said, told, criterion=self.criterion, truth=truth)
        return StepOutput(losses, matches)


def merged(stages: Sequence[StepOutput]) -> StepOutput:
    """The losses and matches of all stages."""
    losses = {name: loss for stage in stages for name, loss in stage.losses.items()}
    return StepOutput(losses, {name: match for stage in stages for name, match in stage.matches.items()})


def layer_names(layers: int, last: str) -> tuple[str, ...]:
    """What the originals call the losses of each layer: ``d0.`` and so on ahead, nothing for the last."""
    return (*(f"d{i}.{last}" for i in range(layers - 1)), last)


def stage_names(layers: int) -> tuple[str, ...]:
    """What the matches of each layer are called: with its number from 1, the last one without."""
    return (*(f"queries/{i + 1}" for i in range(layers - 1)), "queries")


def parted(answers: Answers, counts: Sequence[int]) -> list[Answers]:
    """The answers to so many queries, then so many, and to the rest."""
    sizes = [*counts, answers.logits.shape[2] - sum(counts)]
    parts = zip(answers.logits.split(sizes, 2), answers.boxes.split(sizes, 2), strict=True)
    return [Answers(*part) for part in parts]


def stacked(first: Answers, second: Answers) -> Answers:
    """The layers of both."""
    return Answers(torch.cat((first.logits, second.logits)), torch.cat((first.boxes, second.boxes)))


def layer_of(answers: Answers, layer: int) -> Answers:
    """The answers of one layer."""
    return Answers(answers.logits[layer : layer + 1], answers.boxes[layer : layer + 1])


def predictions_of(answers: Answers, references: Tensor, sizes: Tensor) -> QueryPredictions:
    """Answers of L layers as predictions of L*B images of ``sizes`` (B,2)."""
    layers, count = len(answers.logits), references.shape[1]
    shares, extents = answers.boxes.flatten(0, 1), sizes.repeat(layers, 1)
    around = from_shares(torch.nn.functional.pad(references.detach(), (0, 4 - references.shape[-1])), sizes)
    priors = Priors(around.repeat(layers, 1, 1), torch.ones(count, device=sizes.device), (count,))
    return QueryPredictions(priors, answers.logits.flatten(0, 1), from_shares(shares, extents), shares)
