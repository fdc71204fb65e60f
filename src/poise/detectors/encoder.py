"""A dense head on the encoder of a DETR, without a decoder.

This is the baseline of Co-DETR's article (Zong et al. 2023, figures 2 and 3): the same backbone and encoder as in
Deformable-DETR, trained by one-to-many assignment alone.
"""

from __future__ import annotations

from torch import Tensor, nn

from poise.detectors.collaboration import CoarserLevelAdapter
from poise.detectors.dense import DenseBranch
from poise.nn.transformer.layers import TransformerEncoder
from poise.nn.transformer.tokens import Tokenizer, Tokens
from poise.protocols import Backbone, Neck
from poise.structures import Batch, Detections, Progress, StepOutput


class EncoderDetector(nn.Module):
    """Backbone, neck, encoder, and a dense branch on a pyramid that an adapter makes of the encoder's output."""

    needs_proposals = False

    def __init__(
        self,
        *,
        backbone: Backbone,
        neck: Neck,
        tokenizer: Tokenizer,
        encoder: TransformerEncoder,
        adapter: CoarserLevelAdapter,
        branch: DenseBranch,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.tokenizer, self.encoder = backbone, neck, tokenizer, encoder
        self.adapter, self.branch = adapter, branch

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return losses and matches of a batch."""
        return self.branch(self.pyramid(batch.pixels, batch.truth.sizes), batch.truth, progress)

    def predict(self, pixels: Tensor, sizes: Tensor) -> Detections:
        """Detect in normalized pixels (B,3,H,W) of images of ``sizes`` (B,2), height and width before padding."""
        return self.branch.predict(self.pyramid(pixels, sizes), sizes)

    def pyramid(self, pixels: Tensor, sizes: Tensor) -> list[Tensor]:
        """Return the maps that the branch reads; arguments as of ``predict``."""
        return self.adapter(self.encode(pixels, sizes).maps())

    def encode(self, pixels: Tensor, sizes: Tensor) -> Tokens:
        """Return the memory, the encoder's output tokens; arguments as of ``predict``."""
        maps = self.neck(self.backbone(pixels))
        return self.encoder(self.tokenizer(maps, sizes, (pixels.shape[2], pixels.shape[3])))
