"""Heads: feature maps to predictions."""
