"""What ``weights=`` and ``--weights`` accept: a word, a file, a run folder, or an address of the Hugging Face Hub.

The words are ``coco`` (the first published checkpoint of the model), the original's name of another checkpoint, and
``demo`` (the network inside the package). A word is a path only if there is a model at that path.
"""

from __future__ import annotations

import os
from pathlib import Path

from poise.models.files import find_model_file, is_model_file
from poise.published.demo import DEMO, demo_weights
from poise.published.fetch import fetch
from poise.published.table import COCO, Checkpoint, checkpoint_of, checkpoints, left_out
from poise.storage.hub import is_hub_address
from poise.suggestions import did_you_mean

ORIGINAL_SUFFIXES = (".pth", ".ckpt", ".safetensors")  # of files of the original projects
KINDS = "coco, demo, a file, a run folder or hf://owner/name"


def locate_weights(source: str | os.PathLike[str], model: str) -> Path:
    """Return the file of weights that ``source`` names for a model; published checkpoints and hf:// are fetched.

    Raises:
        ValueError: there is nothing of that name (a similar name is suggested), or no checkpoint of the model.
        FetchError: no host has the checkpoint.
    """
    if (one := checkpoint_named(source, model)) is not None:
        return fetch(one)
    if is_demo(source):
        return demo_weights()
    try:
        return find_model_file(source)
    except FileNotFoundError as error:
        own = [one.original for one in checkpoints() if one.model == model]
        hint = did_you_mean(str(source), [COCO, DEMO, *own])
        raise ValueError(f"no weights '{source}' for '{model}'{hint or ';'} give {KINDS}") from error


def checkpoint_named(source: str | os.PathLike[str], model: str) -> Checkpoint | None:
    """Return the published checkpoint of ``model`` that a word names; None if ``source`` is something else.

    Raises:
        ValueError: the model has no published checkpoint, or the checkpoint is one of another model.
    """
    word = str(source)
    known = word == COCO or word in left_out() or any(word == one.original for one in checkpoints())
    return checkpoint_of(word, model) if known and not _is_model_path(word) else None


def is_demo(source: str | os.PathLike[str]) -> bool:
    """Return whether ``source`` is the word for the network inside the package."""
    return str(source) == DEMO and not _is_model_path(DEMO)


def is_original(file: str | os.PathLike[str]) -> bool:
    """Return whether a file has the names of tensors of an original project, rather than those of poise."""
    return Path(file).suffix in ORIGINAL_SUFFIXES and not is_model_file(file)


def names_original(source: str, model: str) -> bool:
    """Return whether ``source`` names weights of an original project, without fetching them."""
    if checkpoint_named(source, model) is not None:
        return True
    if is_hub_address(source) or is_demo(source):
        return False
    if Path(source).suffix == ".safetensors" and not Path(source).is_file():
        raise ValueError(f"model.weights: {source} does not exist; the kind of its weights is read from its header")
    return is_original(source)


def _is_model_path(word: str) -> bool:
    try:
        return find_model_file(word).is_file()
    except FileNotFoundError:
        return False
