"""The detector of the DETR family (Carion et al. 2020): encoder, object queries, decoder, and set prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from poise.assign import Hungarian
from poise.boxes import denormalize_boxes
from poise.criteria import SetCriterion
from poise.detectors.collaboration import Collaboration
from poise.detectors.mixed_supervision import MATCH_NAME, MixedSupervision
from poise.nn.transformer.denoising import ContrastiveDenoising
from poise.nn.transformer.queries import (
    DecoderOutput,
    Matcher,
    Queries,
    SupervisedQueries,
    concatenate_with_mask,
    split_queries,
)
from poise.nn.transformer.tokens import Tokenizer, Tokens
from poise.postprocess import SoftNMSPostProcess, TopKPostProcess
from poise.protocols import Backbone, Neck
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
)


@dataclass(frozen=True)
class OneToManyMatching:
    """How the additional queries of H-DETR are supervised in training.

    Args:
        assigner: matches every object with several queries.
        weight: of their losses.
    """

    assigner: Hungarian
    weight: float = 1.0


class QueryDetector(nn.Module):
    """A detector of the DETR family.

    ``forward`` returns losses and matches, ``predict`` detections, both in training and in evaluation mode.

    Args:
        tokenizer: ``(maps, sizes, canvas) -> Tokens``.
        encoder: ``(tokens) -> Tokens``, the memory.
        queries: ``(memory) -> Queries``, or ``(memory, count)`` where ``num_inference_queries`` is set. Proposals of
            the encoder that come with them are supervised too.
        decoder: ``(queries, memory, attention_mask) -> DecoderOutput`` of all its layers.
        assigner: matches the queries of one group with objects, one to one; layers are stacked along the batch axis.
        criterion: a ``SetCriterion``.
        denoising: makes denoising queries in training.
        collaboration: auxiliary heads of Co-DETR in training, and the customized positive queries of their matches.
        num_inference_queries: queries used at inference; the others serve training. 0: all.
        query_groups: groups of ``num_inference_queries`` queries that attend only to themselves and are matched
            separately (Group-DETR).
        one_to_many: supervises the queries behind those groups (H-DETR); None: there are none.
        one_pass: decode auxiliary queries in the same pass, masked; otherwise each auxiliary head's queries take a pass
            of their own, as in the original. The results are equal up to rounding, with less memory and more time.
        recollect: decode with selective query recollection in training (SQR); every collected set of queries counts as
            a decoder layer of its own in the losses.
        mixed_supervision: one-to-many supervision of the queries used at inference, of predictions that the decoder
            makes for it in training (MS-DETR); None: none.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        neck: Neck,
        tokenizer: Tokenizer,
        encoder: nn.Module,
        queries: nn.Module,
        decoder: nn.Module,
        assigner: Hungarian,
        criterion: SetCriterion,
        postprocess: TopKPostProcess | SoftNMSPostProcess,
        denoising: ContrastiveDenoising | None = None,
        collaboration: Collaboration | None = None,
        num_inference_queries: int = 0,
        query_groups: int = 1,
        one_to_many: OneToManyMatching | None = None,
        one_pass: bool = True,
        recollect: bool = False,
        mixed_supervision: MixedSupervision | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.tokenizer, self.encoder = backbone, neck, tokenizer, encoder
        self.queries, self.decoder = queries, decoder
        self.denoising, self.collaboration = denoising, collaboration
        self.criterion, self.postprocess = criterion, postprocess
        self.num_inference_queries, self.query_groups = num_inference_queries, query_groups
        self.one_to_many, self.one_pass, self.recollect = one_to_many, one_pass, recollect
        self.mixed_supervision = mixed_supervision
        self.use_assigner(assigner)

    def use_assigner(self, assigner: Hungarian) -> None:
        """Match with ``assigner`` from now on; the numbers of groups and of repeats are those of the detector."""
        self.assigner = assigner
        self.group_assigner = replace(assigner, groups=self.query_groups)
        if self.one_to_many is not None:
            repeated = replace(assigner, repeats=self.one_to_many.assigner.repeats)
            self.one_to_many = replace(self.one_to_many, assigner=repeated)

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        truth = batch.truth
        memory = self.encode(batch.pixels, truth.sizes)
        queries, supervised = self._split_one_to_many(self.queries(memory), progress)
        if self.denoising is not None:
            supervised.append(self.denoising(truth))
        auxiliary, auxiliary_queries = StepOutput({}), []
        if self.collaboration is not None:
            auxiliary, auxiliary_queries = self.collaboration(memory, truth, progress)
        *outputs, matched = self._decode(queries, supervised, auxiliary_queries, memory)
        with torch.autocast(batch.pixels.device.type, enabled=False):
            assigner = self.group_assigner.at(progress)
            parts = [*supervised, *auxiliary_queries]
            step = self.compute_losses(queries, matched, parts, outputs, assigner=assigner, truth=truth)
        return merge_outputs([step, auxiliary])

    def _split_one_to_many(self, queries: Queries, progress: Progress) -> tuple[Queries, list[SupervisedQueries]]:
        """Split off the queries that are matched one to many, if there are any."""
        count = self.num_inference_queries * self.query_groups
        if self.one_to_many is None or queries.content.shape[1] <= count:
            return queries, []
        queries, rest = split_queries(queries, count)
        additional = SupervisedQueries(
            rest,
            self.one_to_many.assigner.at(progress),
            torch.zeros(1, rest.content.shape[1], dtype=torch.int64, device=rest.content.device),  # one group
            match_name="one_to_many",
            loss_name="{}_one2many",
            weight=self.one_to_many.weight,
        )
        return queries, [additional]

    def _decode(
        self,
        queries: Queries,
        supervised: Sequence[SupervisedQueries],
        auxiliary: Sequence[SupervisedQueries],
        memory: Tokens,
    ) -> list[DecoderOutput]:
        """Return the decoder's output for each part of the supervised and auxiliary queries, then for the matched."""
        parts = [*supervised, *auxiliary] if self.one_pass else supervised
        joint, attention_mask = concatenate_with_mask(queries, parts, self.query_groups)
        sizes = [*(part.groups.shape[1] for part in parts), queries.content.shape[1]]
        if self.mixed_supervision is None:
            output = self.decoder(joint, memory, attention_mask, self.recollect)
        else:
            first = sum(sizes[:-1])
            used = slice(first, first + (self.num_inference_queries or sizes[-1]))
            output = self.decoder(joint, memory, attention_mask, self.recollect, used)
        split = zip(output.logits.split(sizes, 2), output.boxes.split(sizes, 2), strict=True)
        *outputs, matched = (DecoderOutput(logits, boxes) for logits, boxes in split)
        matched = replace(matched, one_to_many=output.one_to_many)
        own_passes = [] if self.one_pass else auxiliary
        for part in own_passes:
            outputs.append(self.decoder(part.queries, memory, part.attention_mask(), self.recollect))
        return [*outputs, matched]

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Detect in normalized pixels (B,3,H,W) of images of ``sizes`` (B,2), height and width before padding."""
        memory = self.encode(pixels, sizes)
        output = self.decoder(self.inference_queries(memory), memory)
        return self.postprocess(output.logits[-1], denormalize_boxes(output.boxes[-1], sizes), sizes)

    def inference_queries(self, memory: Tokens) -> Queries:
        """Return the queries that are used at inference."""
        count = self.num_inference_queries
        queries: Queries = self.queries(memory, count) if count else self.queries(memory)
        return queries

    def encode(self, pixels: Tensor, sizes: Tensor) -> Tokens:
        """Return the memory, the encoder's output tokens; arguments as of ``predict``."""
        maps = self.neck(self.backbone(pixels))
        return self.encoder(self.tokenizer(maps, sizes, (pixels.shape[2], pixels.shape[3])))

    def compute_losses(
        self,
        queries: Queries,
        matched: DecoderOutput,
        supervised: Sequence[SupervisedQueries],
        outputs: Sequence[DecoderOutput],
        *,
        assigner: Matcher,
        truth: GroundTruth,
    ) -> StepOutput:
        """Return losses and matches of all decoder layers and of the encoder's proposals.

        Args:
            matched: output for ``queries``.
            outputs: output for each of ``supervised``.
            assigner: matches ``queries``.
        """
        proposals, steps = queries.encoder_output, []
        class_agnostic = proposals is not None and self.queries.class_agnostic
        match_names = [*(f"queries/{i + 1}" for i in range(len(matched.logits) - 1)), "queries"]
        if proposals is not None and class_agnostic:
            one_class = replace(truth, labels=torch.zeros_like(truth.labels))
            references, names = proposals.boxes[0].detach(), (["enc_{}"], ["encoder"])
            steps.append(self._layer_losses(proposals, references, one_class, assigner, *names))
        elif proposals is not None:
            match_names = ["encoder", *match_names]
        parts: list[tuple[Queries, DecoderOutput, Assignment | Matcher, str, list[str], float]]
        parts = [(queries, matched, assigner, "{}", match_names, 1.0)]
        for part, output in zip(supervised, outputs, strict=True):
            parts.append((part.queries, output, part.assignment, part.loss_name, [part.match_name], part.weight))
        for part_queries, output, assignment, loss_name, names_of_matches, weight in parts:
            loss_names = layer_loss_names(len(output.logits), loss_name)
            if part_queries.encoder_output is not None and not class_agnostic:
                output = concatenate_layers(part_queries.encoder_output, output)
                loss_names = [f"enc_{loss_name}", *loss_names]
            references = part_queries.references
            step = self._layer_losses(output, references, truth, assignment, loss_names, names_of_matches)
            steps.append(step if weight == 1 else scale_output(step, weight))
        if self.mixed_supervision is not None and (many := matched.one_to_many) is not None:
            many_names = layer_loss_names(len(many.logits), "{}_mixed")
            references = queries.references[:, : many.boxes.shape[2]]
            criterion, matcher = self.mixed_supervision.criterion(self.criterion), self.mixed_supervision.assigner
            steps.append(self._layer_losses(many, references, truth, matcher, many_names, [MATCH_NAME], criterion))
        return merge_outputs(steps)

    def _layer_losses(
        self,
        output: DecoderOutput,
        references: Tensor,
        truth: GroundTruth,
        assignment: Assignment | Matcher,
        loss_names: Sequence[str],
        match_names: Sequence[str],
        criterion: SetCriterion | None = None,
    ) -> StepOutput:
        """Return the losses of L layers, and the matches of the last ``len(match_names)`` layers.

        The ``criterion`` is the detector's, if None is given.
        """
        criterion = self.criterion if criterion is None else criterion
        layers = len(output.logits)
        predictions, truths = to_predictions(output, references, truth.sizes), truth.repeat(layers)
        matcher = assignment if callable(assignment) else None
        if callable(assignment):
            assigned = assignment(predictions, truths)
        else:
            masks = (assignment.index, assignment.positive, assignment.ignored, assignment.quality)
            assigned = Assignment(*(t.repeat(layers, 1) for t in masks))
        losses = criterion.layer_losses(predictions, assigned, truths, loss_names)
        by_layer = split_layers(predictions, assigned, layers)[layers - len(match_names) :]
        matches = {
            name: Match(layer_predictions, layer_assignment, criterion=criterion, truth=truth, assigner=matcher)
            for name, (layer_predictions, layer_assignment) in zip(match_names, by_layer, strict=True)
        }
        return StepOutput(losses, matches)


def merge_outputs(steps: Sequence[StepOutput]) -> StepOutput:
    """Return the losses and matches of all steps in one."""
    losses = {name: loss for step in steps for name, loss in step.losses.items()}
    return StepOutput(losses, {name: match for step in steps for name, match in step.matches.items()})


def scale_output(output: StepOutput, weight: float) -> StepOutput:
    """Multiply all losses by ``weight``, which the matches then report."""
    losses = {name: loss * weight for name, loss in output.losses.items()}
    return StepOutput(losses, {name: replace(match, loss_factor=weight) for name, match in output.matches.items()})


def layer_loss_names(layers: int, last: str) -> list[str]:
    """Return the names of each layer's losses as in the original: the prefix ``d0.`` and so on, none for the last."""
    return [*(f"d{i}.{last}" for i in range(layers - 1)), last]


def concatenate_layers(first: DecoderOutput, second: DecoderOutput) -> DecoderOutput:
    """Concatenate the layers of two outputs."""
    return DecoderOutput(torch.cat((first.logits, second.logits)), torch.cat((first.boxes, second.boxes)))


def to_predictions(output: DecoderOutput, references: Tensor, sizes: Tensor) -> QueryPredictions:
    """Stack L layers along the batch axis: predictions of L*B images; priors are the ``references`` (B,Q,2|4)."""
    layers, count = len(output.logits), references.shape[1]
    normalized = output.boxes.flatten(0, 1)
    start = pad(references.detach(), (0, 4 - references.shape[-1])).repeat(layers, 1, 1)
    prior_boxes, boxes = denormalize_boxes(torch.cat((start, normalized), 1), sizes.repeat(layers, 1)).chunk(2, 1)
    priors = Priors(prior_boxes, torch.ones(count, device=sizes.device), (count,))
    return QueryPredictions(priors, output.logits.flatten(0, 1), boxes, normalized)


def split_layers(
    predictions: QueryPredictions, assignment: Assignment, layers: int
) -> list[tuple[QueryPredictions, Assignment]]:
    """Split predictions and assignment of L stacked layers into those of each layer."""
    predicted = (predictions.priors.boxes, predictions.logits, predictions.boxes, predictions.normalized_boxes)
    assigned = (assignment.index, assignment.positive, assignment.ignored, assignment.quality)
    by_layer = zip(*(t.chunk(layers) for t in (*predicted, *assigned)), strict=True)
    return [
        (QueryPredictions(replace(predictions.priors, boxes=priors), logits, boxes, normalized), Assignment(*masks))
        for priors, logits, boxes, normalized, *masks in by_layer
    ]
