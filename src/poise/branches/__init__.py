"""Branches: heads together with what supervises them."""

from poise.branches.dense import DenseBranch
from poise.branches.region import RegionBranch, RegionStage

__all__ = ["DenseBranch", "RegionBranch", "RegionStage"]
