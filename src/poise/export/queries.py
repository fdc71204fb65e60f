"""Query detectors (the DETR family) as graphs: without auxiliary heads and training queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.boxes import clip, denormalize_boxes
from poise.detectors import QueryDetector
from poise.export.operators import decay
from poise.postprocess import SoftNMSPostProcess, decay_factors


class Decoded(nn.Module):
    """Map normalized pixels (B,3,H,W) and ``sizes`` (B,2) before padding to ``boxes`` (B,Q,4) and ``scores`` (B,Q,C).

    Args:
        network: a ``QueryDetector``.
        selected: return detections instead: ``boxes`` (B,K,4), ``scores`` and ``labels`` (B,K), best first, with a
            score of 0 where there is none. Top-k, or soft-NMS, is then part of the graph.
    """

    def __init__(self, network: QueryDetector, selected: bool) -> None:
        super().__init__()
        self.network, self.selected = network, selected

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        memory = self.network.encode(pixels, sizes)
        output = self.network.decoder(self.network.inference_queries(memory), memory)
        boxes, scores = denormalize_boxes(output.boxes[-1], sizes), output.logits[-1].sigmoid()
        return self._detections(boxes, scores, sizes) if self.selected else (boxes, scores)

    def _detections(self, boxes: Tensor, scores: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        post, classes = self.network.postprocess, scores.shape[2]
        soft = post if isinstance(post, SoftNMSPostProcess) else None
        finite = boxes.isfinite().all(-1, keepdim=True)
        boxes, flat = clip(torch.where(finite, boxes, 0.0), sizes), torch.where(finite, scores, 0.0).flatten(1)
        best = flat.topk(min(post.max_detections if soft is None else soft.candidates, flat.shape[1]), 1)
        labels, found = best.indices % classes, best.values
        boxes = boxes.gather(1, (best.indices // classes)[..., None].expand(-1, -1, 4))
        if soft is not None:
            factor, limit = decay_factors(boxes, labels, soft.iou_threshold), min(post.max_detections, found.shape[1])
            found, order = decay(found, factor, soft.min_score, limit)
            boxes, labels = boxes.gather(1, order[..., None].expand(-1, -1, 4)), labels.gather(1, order)
        return boxes, found.clamp(min=0), labels


def without_stacks(program: torch.export.ExportedProgram) -> None:
    """Use a stacked value itself where it is selected from its stack, so that unused decoder layers' outputs vanish."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.select.int and node.args[0].target is torch.ops.aten.stack.default:
            values, dimension = node.args[0].args[0], (*node.args[0].args[1:], 0)[0]
            if node.args[1] == dimension == 0:
                node.replace_all_uses_with(values[node.args[2]])
    graph.eliminate_dead_code()
    program.graph_module.recompile()
