"""Randomness of one purpose (a sampler's, a denoiser's), apart from every other and exact on resuming."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from poise.distributed import rank


class Draws(nn.Module):
    """A source of generators: the n-th is a function of (seed, process rank, n) alone.

    The state is two numbers, kept with the weights (``state_dict``): training that is resumed from a checkpoint draws
    what it would have drawn. Nothing else in the process, such as dropout or data augmentation, moves it. All ranks
    store the same state and draw differently.

    Args:
        seed: by default the one that ``torch.manual_seed`` was last given, so that a seeded run is reproducible.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.seed = (torch.initial_seed() if seed is None else seed) % (1 << 63)
        self.count = 0

    @torch.compiler.disable
    def forward(self, device: torch.device) -> torch.Generator:
        """The next generator, on ``device``."""
        digest = hashlib.blake2b(f"{self.seed}/{rank()}/{self.count}".encode(), digest_size=7).digest()
        self.count += 1
        return torch.Generator(device).manual_seed(int.from_bytes(digest, "big"))

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.seed, self.count])

    def set_extra_state(self, state: Tensor) -> None:
        self.seed, self.count = (int(value) for value in state.tolist())
