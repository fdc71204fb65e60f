"""One file a paper; ``create_model`` builds by name."""

from poise.models.catalog import create_model, list_models

__all__ = ["create_model", "list_models"]
