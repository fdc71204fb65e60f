"""Encoders, decoders, queries and attention of the DETR family."""
