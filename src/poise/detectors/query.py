"""The detector of the DETR family: an encoder's memory, queries to it, a decoder that answers, Hungarian matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from poise.boxes import denormalize_boxes
from poise.criteria.protocol import ScaledCriterion
from poise.detectors.collaboration import Collaboration
from poise.nn.transformer.denoising import ContrastiveDenoising
from poise.nn.transformer.queries import DecoderOutput, Matching, Queries, SupervisedQueries, cut, joined
from poise.nn.transformer.tokens import Tokens
from poise.postprocess import SoftNMSPostProcess, TopKPostProcess
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


@dataclass(frozen=True)
class Hybrid:
    """Queries behind the others, in training, among which every object is wanted several times (H-DETR)."""

    assigner: Matching
    weight: float = 1.0  # of their losses


class QueryDetector(nn.Module):
    """``forward`` gives losses and matches whatever the mode, ``predict`` detections whatever the mode.

    Args:
        tokenizer: ``(maps, sizes, canvas) -> Tokens``.
        encoder: ``(tokens) -> Tokens``.
        queries: ``(tokens) -> Queries``; where they carry proposals, these are taught too.
        decoder: ``(queries, tokens, blocked) -> DecoderOutput`` of all its layers.
        assigner: matches queries of stacked layers, one group of them, with objects.
        criterion: a ``SetCriterion``.
        denoising: makes further queries from the truth, in training.
        collaboration: auxiliary branches on the encoder's memory, in training, and the queries that they lend.
        shown: queries of inference; 0: all. The others serve in training.
        groups: of ``shown`` queries each, which see only their own and are matched each on its own.
        hybrid: what the queries behind these groups are for; None: there are none.
        one_pass: lent queries take part in the decoder's one pass, masked; else each branch's have a pass of their
            own, as in the original. Up to rounding that is the same, at less memory and more time.
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
        postprocess: TopKPostProcess | SoftNMSPostProcess,
        denoising: ContrastiveDenoising | None = None,
        collaboration: Collaboration | None = None,
        shown: int = 0,
        groups: int = 1,
        hybrid: Hybrid | None = None,
        one_pass: bool = True,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.tokenizer, self.encoder = backbone, neck, tokenizer, encoder
        self.queries, self.decoder = queries, decoder
        self.denoising, self.collaboration = denoising, collaboration
        self.assigner, self.criterion, self.postprocess = assigner, criterion, postprocess
        self.shown, self.groups, self.hybrid, self.one_pass = shown, groups, hybrid, one_pass
        self.matching = assigner if groups == 1 else replace(assigner, groups=groups)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        truth = batch.truth
        memory = self.encode(batch.pixels, truth.sizes)
        queries, taught = self._further(self.queries(memory))
        if self.denoising is not None:
            taught.append(self.denoising(truth))
        lent: list[SupervisedQueries] = []
        helped = StepOutput({})
        if self.collaboration is not None:
            helped, lent = self.collaboration(memory, truth, progress)
        *known, matching = self._answers(queries, taught, lent, memory)
        with torch.autocast(batch.pixels.device.type, enabled=False):
            judged = self.compute_losses(queries, matching, [*taught, *lent], known, truth)
        return merged([judged, helped])

    def _further(self, queries: Queries) -> tuple[Queries, list[SupervisedQueries]]:
        """The queries that are matched one to one, and those behind them that are not."""
        count = self.shown * self.groups
        if self.hybrid is None or queries.content.shape[1] <= count:
            return queries, []
        queries, rest = cut(queries, count)
        together = torch.zeros(1, rest.content.shape[1], dtype=torch.int64, device=rest.content.device)
        hybrid = self.hybrid
        return queries, [
            SupervisedQueries(rest, hybrid.assigner, together, "one_to_many", "{}_one2many", weight=hybrid.weight)
        ]

    def _answers(
        self, queries: Queries, taught: Sequence[SupervisedQueries], lent: Sequence[SupervisedQueries], memory: Tokens
    ) -> list[DecoderOutput]:
        """What is said to taught queries, to lent ones, and last to the queries that are matched."""
        beside = [*taught, *lent] if self.one_pass else taught
        asked, blocked = joined(queries, beside, self.groups)
        *said, matching = parted(self.decoder(asked, memory, blocked), [part.groups.shape[1] for part in beside])
        apart = [] if self.one_pass else lent
        return [*said, *(self.decoder(part.queries, memory, part.blocked()) for part in apart), matching]

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Detections of (B,3,H,W) normalized pixels whose images are ``sizes`` (B,2) high and wide before padding."""
        memory = self.encode(pixels, sizes)
        answers = self.decoder(self.asked(memory), memory)
        return self.postprocess(answers.logits[-1], denormalize_boxes(answers.boxes[-1], sizes), sizes)

    def asked(self, memory: Tokens) -> Queries:
        """The queries of inference."""
        queries: Queries = self.queries(memory, self.shown) if self.shown else self.queries(memory)
        return queries

    def encode(self, pixels: Tensor, sizes: Tensor) -> Tokens:
        """The encoder's memory."""
        maps = self.neck(self.backbone(pixels))
        return self.encoder(self.tokenizer(maps, sizes, (int(pixels.shape[2]), int(pixels.shape[3]))))

    def compute_losses(
        self,
        queries: Queries,
        matching: DecoderOutput,
        taught: Sequence[SupervisedQueries],
        known: Sequence[DecoderOutput],
        truth: GroundTruth,
    ) -> StepOutput:
        """Losses and matches of what encoder and decoder said."""
        layers, proposed, stages = len(matching.logits), queries.proposed, []
        if proposed is not None and self.queries.any_class:
            anything = replace(truth, labels=torch.zeros_like(truth.labels))
            references = proposed.boxes[0].detach()
            stages.append(self._teach(("encoder",), proposed, references, anything, ("enc_{}",), self.matching))
        matching, names = self._with_proposed(queries, matching, "{}")
        first = ("encoder",) if len(names) > layers else ()
        called = (*first, *stage_names(layers))
        stages.append(self._teach(called, matching, queries.references, truth, names, self.matching))
        for part, said in zip(taught, known, strict=True):
            said, names = self._with_proposed(part.queries, said, part.name)
            taken = self._teach((part.stage,), said, part.queries.references, truth, names, part.assignment)
            stages.append(taken if part.weight == 1 else weighed(taken, part.weight))
        return merged(stages)

    def _with_proposed(
        self, queries: Queries, answers: DecoderOutput, name: str
    ) -> tuple[DecoderOutput, tuple[str, ...]]:
        """The decoder's layers, behind the encoder's where that said these classes, and the names of their losses."""
        names = layer_names(len(answers.logits), name)
        if queries.proposed is None or self.queries.any_class:
            return answers, names
        return stacked(queries.proposed, answers), (f"enc_{name}", *names)

    def _teach(
        self,
        stages: Sequence[str],
        answers: DecoderOutput,
        references: Tensor,
        truth: GroundTruth,
        names: Sequence[str],
        assignment: Assignment | Matching,
    ) -> StepOutput:
        """The losses of some layers, by a known assignment or by matching; ``stages`` names the matches of the last."""
        layers, batch = answers.logits.shape[:2]
        predictions, truths = predictions_of(answers, references, truth.sizes), truth.repeat(layers)
        if isinstance(assignment, Assignment):
            assigned = map_tensors(assignment, lambda t: t.repeat(layers, 1))
        else:
            assigned = assignment(predictions, truths)
        losses = self.criterion.layer_losses(predictions, assigned, truths, names)
        matches = {}
        for layer, stage in enumerate(stages, layers - len(stages)):
            said = predictions_of(layer_of(answers, layer), references, truth.sizes)
            own = slice(layer * batch, (layer + 1) * batch)
            told = map_tensors(assigned, lambda t, own=own: t[own])
            matches[stage] = Match(said, told, criterion=self.criterion, truth=truth)
        return StepOutput(losses, matches)


def merged(stages: Sequence[StepOutput]) -> StepOutput:
    """The losses and matches of all stages."""
    losses = {name: loss for stage in stages for name, loss in stage.losses.items()}
    return StepOutput(losses, {name: match for stage in stages for name, match in stage.matches.items()})


def weighed(output: StepOutput, weight: float) -> StepOutput:
    """The step with all its losses, and what its matches say of them, times ``weight``."""
    losses = {name: loss * weight for name, loss in output.losses.items()}
    matches = {name: replace(m, criterion=ScaledCriterion(m.criterion, weight)) for name, m in output.matches.items()}
    return StepOutput(losses, matches)


def layer_names(layers: int, last: str) -> tuple[str, ...]:
    """What the originals call the losses of each layer: ``d0.`` and so on ahead, nothing for the last."""
    return (*(f"d{i}.{last}" for i in range(layers - 1)), last)


def stage_names(layers: int) -> tuple[str, ...]:
    """What the matches of each layer are called: with its number from 1, the last one without."""
    return (*(f"queries/{i + 1}" for i in range(layers - 1)), "queries")


def parted(answers: DecoderOutput, counts: Sequence[int]) -> list[DecoderOutput]:
    """The answers to so many queries, then so many, and to the rest."""
    sizes = [*counts, answers.logits.shape[2] - sum(counts)]
    parts = zip(answers.logits.split(sizes, 2), answers.boxes.split(sizes, 2), strict=True)
    return [DecoderOutput(*part) for part in parts]


def stacked(first: DecoderOutput, second: DecoderOutput) -> DecoderOutput:
    """The layers of both."""
    return DecoderOutput(torch.cat((first.logits, second.logits)), torch.cat((first.boxes, second.boxes)))


def layer_of(answers: DecoderOutput, layer: int) -> DecoderOutput:
    """The answers of one layer."""
    return DecoderOutput(answers.logits[layer : layer + 1], answers.boxes[layer : layer + 1])


def predictions_of(answers: DecoderOutput, references: Tensor, sizes: Tensor) -> QueryPredictions:
    """DecoderOutput of L layers as predictions of L*B images of ``sizes`` (B,2)."""
    layers, count = len(answers.logits), references.shape[1]
    shares, extents = answers.boxes.flatten(0, 1), sizes.repeat(layers, 1)
    around = denormalize_boxes(torch.nn.functional.pad(references.detach(), (0, 4 - references.shape[-1])), sizes)
    priors = Priors(around.repeat(layers, 1, 1), torch.ones(count, device=sizes.device), (count,))
    return QueryPredictions(priors, answers.logits.flatten(0, 1), denormalize_boxes(shares, extents), shares)
