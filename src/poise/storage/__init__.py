"""Files of tensors that are either whole or refused.

A file is what ``torch.save`` writes (a zip archive) with a checksum of its own content in the archive's comment: it
stays readable by ``torch.load(path, weights_only=True)`` everywhere, and a truncated or altered one is recognized here
before anything of it is unpickled. Writing goes through a temporary file in the same folder, ``fsync`` and a rename, so
a process that dies while it saves leaves the earlier file untouched.
"""

from poise.storage.plain_yaml import parse_yaml, read_yaml
from poise.storage.reading import DamagedFile, load_weights, read_metadata, read_safely
from poise.storage.writing import (
    save_atomically,
    save_safetensors,
    sync_folder,
    write_bytes_atomically,
    write_text_atomically,
)

__all__ = [
    "DamagedFile", "load_weights", "parse_yaml", "read_metadata", "read_safely", "read_yaml", "save_atomically",
    "save_safetensors", "sync_folder", "write_bytes_atomically", "write_text_atomically",
]  # fmt: skip
