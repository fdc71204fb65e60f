"""Branches: heads together with what supervises them."""

from poise.branches.dense import DenseBranch

__all__ = ["DenseBranch"]
