"""Experiments that show what training does: the samplers' negatives and more."""
