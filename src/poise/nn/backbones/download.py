"""Download ImageNet weights; without a network, fail within seconds with the address of the file and the cures."""

from __future__ import annotations

from typing import Any

import huggingface_hub
import huggingface_hub.constants
import timm
from huggingface_hub.errors import EntryNotFoundError

FILES = ("model.safetensors", "pytorch_model.bin")  # in timm's repositories, as timm looks for them
SECONDS = 5.0  # that an answer may take


def create_pretrained(name: str, **options: Any) -> Any:
    """Return ``timm.create_model(name, pretrained=True, **options)``; files are cached by huggingface_hub.

    huggingface_hub repeats requests for most of a minute where there is no network, so the first file is looked up once
    before.

    Raises:
        ValueError: timm does not know the network, or its weights cannot be fetched; the message has their address.
    """
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # no usage statistics
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    repository = getattr(config, "hf_hub_id", None) or ""
    addresses = [huggingface_hub.hf_hub_url(repository, file) for file in FILES] if repository else []
    if repository and not _is_cached(repository):
        _look_up(name, addresses[0])
    try:
        return timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        address = addresses[0] if addresses else str(getattr(config, "url", "") or "")
        raise ValueError(cannot_fetch(name, address, error)) from error


def cannot_fetch(name: str, address: str, reason: Exception) -> str:
    """Return the message for weights that cannot be fetched."""
    why = (str(reason).strip() or type(reason).__name__).splitlines()[0]
    return (
        f"ImageNet weights of '{name}' could not be fetched ({why}). Download {address or 'them'} where there is a "
        "network and give the file as --model.backbone-weights FILE (in Python backbone_weights=FILE), or start from "
        "random weights with --model.backbone-weights none (in Python None or 'none')"
    )


def _is_cached(repository: str) -> bool:
    return any(isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str) for file in FILES)


def _look_up(name: str, address: str) -> None:
    """Ask for the size of a file once; raise ``ValueError`` if there is no answer within ``SECONDS``."""
    try:
        huggingface_hub.get_hf_file_metadata(address, timeout=SECONDS)
    except EntryNotFoundError:  # other files may be there
        return
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        raise ValueError(cannot_fetch(name, address, error)) from error


def _is_of_the_network(error: Exception) -> bool:
    """Return whether an error says that there is no connection; clients raise classes of their own."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests")
