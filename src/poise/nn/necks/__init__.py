"""Necks: feature maps to pyramids."""
