"""Models on the Hugging Face Hub: ``hf://owner/name``, with ``@revision`` for a branch, tag or commit."""

from __future__ import annotations

import os
import re
from pathlib import Path

PREFIX = "hf://"
MODEL_FILE = "model.safetensors"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


class HubError(OSError):
    """A repository cannot be read or written; the message has the address and the reason."""


def is_hub_address(source: str | os.PathLike[str]) -> bool:
    """Return whether ``source`` is written as an address of the Hub."""
    return isinstance(source, str) and source.startswith(PREFIX)


def split_address(address: str) -> tuple[str, str | None]:
    """Return repository (``owner/name``) and revision of an address.

    Raises:
        ValueError: it is not written as ``hf://owner/name`` or ``hf://owner/name@revision``.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ValueError(f"'{address}': write hf://owner/name, or hf://owner/name@revision")
    return found[1], found[2]


def hub_endpoint() -> str | None:
    """Return the address of another server than the public one (``HF_ENDPOINT``), or None."""
    return os.environ.get("HF_ENDPOINT") or None


def fetch_from_hub(address: str) -> Path:
    """Return the model file of a repository, in the cache of ``huggingface_hub``, fetching it if it is not there.

    Raises:
        ValueError: the address is not valid.
        HubError: there is no such repository, revision or model file, or no network and nothing in the cache.
    """
    from huggingface_hub import errors as hub
    from huggingface_hub import hf_hub_download

    repository, revision = split_address(address)
    try:
        return Path(hf_hub_download(repository, MODEL_FILE, revision=revision, endpoint=hub_endpoint()))
    except hub.HFValidationError as error:
        raise ValueError(f"'{address}': {str(error).splitlines()[0]}") from error
    except hub.RevisionNotFoundError as error:
        raise HubError(f"{address}: the repository has no revision '{revision}'") from error
    except hub.LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError
        why = "it could not be reached, and it is not in the cache of huggingface_hub"
        cure = f"poise reads {MODEL_FILE} of the repository also from a folder: give the folder's path"
        raise HubError(f"{address}: {why}. Without a network, {cure}") from error
    except hub.EntryNotFoundError as error:
        raise HubError(f"{address}: it has no {MODEL_FILE}; poise push writes such repositories") from error
    except hub.HfHubHTTPError as error:
        raise HubError(f"{address}: {why_refused(error)}") from error


def why_refused(error: Exception) -> str:
    """Return the reason of an error of ``huggingface_hub``, in a sentence."""
    from huggingface_hub import errors as hub

    if isinstance(error, hub.GatedRepoError):
        return "its owner must give you access first (then: hf auth login)"
    if isinstance(error, hub.RepositoryNotFoundError):
        return "there is no such repository, or it is private (then: hf auth login)"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "access is refused: hf auth login, with a token that may do this"
    return f"the server answered with HTTP status {status}" if status else str(error).splitlines()[0]
