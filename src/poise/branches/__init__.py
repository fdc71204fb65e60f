"""Branches of two-stage detectors: a head with its assigner, sampler and criterion for each stage."""

from poise.branches.region import RegionBranch, RegionStage

__all__ = ["RegionBranch", "RegionStage"]
