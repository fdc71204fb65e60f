"""The folder of fetched weights: each checkpoint as safetensors, with a record of what it was made from."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from poise.published.loading import plain_state
from poise.published.table import Checkpoint
from poise.storage import DamagedFile, load_weights, save_safetensors, write_text_atomically


@dataclass(frozen=True)
class Record:
    """What a file of the folder was made from."""

    original: str  # name of the checkpoint in the table
    model: str
    source: str  # address or file from which it was read
    license: str
    sha256: str  # of the published file
    verified: bool  # the table has the first digits of that hash
    tensors_sha256: str  # of the safetensors file
    date: str


def cache_folder() -> Path:
    """Return the folder of fetched weights.

    It is ``$POISE_CACHE/weights`` if that variable is set, else ``poise/weights`` in the user's cache folder.
    """
    if named := os.environ.get("POISE_CACHE"):
        return Path(named).expanduser() / "weights"
    home, system = Path.home(), platform.system()
    if system == "Windows":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif system == "Darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "poise" / "weights"


def cached_file(one: Checkpoint) -> Path:
    """Return where the file of a checkpoint is kept."""
    return cache_folder() / f"{one.original}.safetensors"


def read_record(one: Checkpoint) -> Record | None:
    """Return the record of a checkpoint that was fetched before; None without one."""
    path = _record_path(one)
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a record of poise ({error}); delete it and fetch the weights again") from error


def _record_path(one: Checkpoint) -> Path:
    return cache_folder() / f"{one.original}.json"


def find_cached(one: Checkpoint) -> Path | None:
    """Return the kept file of a checkpoint; None if there is none.

    Raises:
        DamagedFile: the file is not as it was written.
    """
    path, record = cached_file(one), read_record(one)
    if record is None or not path.is_file():
        return None
    if file_hash(path) != record.tensors_sha256:
        cure = f"Delete it and fetch it again: poise weights get {one.original}"
        raise DamagedFile(path, "it was altered or damaged after it was written", cure)
    return path


def keep(one: Checkpoint, file: Path, source: str, unverified: bool = False) -> Path:
    """Check the hash of a published file and write its tensors to the folder.

    Args:
        one: row of the table.
        file: the file as it was published.
        source: where it comes from, for the record.
        unverified: accept a file of which no hash is known.

    Raises:
        WrongHash: the file is not the published one, or not the one that was fetched before.
        DamagedFile: it holds anything but tensors and plain data.
    """
    digest, record = file_hash(file), read_record(one)
    expected = one.sha256 or (record.sha256 if record else "")
    if not digest.startswith(expected):
        raise WrongHash(f"its SHA-256 begins with {digest[:8]}, that of '{one.original}' with {expected[:8]}")
    if not expected and not unverified:
        raise ValueError(f"{no_hash(one)}; the SHA-256 of {file} is {digest}")
    tensors = {key: value.contiguous().clone() for key, value in plain_state(load_weights(file)).items()}
    if not tensors:
        raise DamagedFile(file, "it holds no tensors", "Use the file that the original project published")
    facts = {"original": one.original, "model": one.model, "source": source, "license": one.license, "sha256": digest}
    path = cached_file(one)
    save_safetensors(path, tensors, {"made_from": json.dumps(facts)})
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    made = Record(**facts, verified=bool(one.sha256), tensors_sha256=file_hash(path), date=date)
    write_text_atomically(_record_path(one), json.dumps(asdict(made), indent=1) + "\n")
    return path


class WrongHash(ValueError):
    """A file is not the one that was published."""


def no_hash(one: Checkpoint) -> str:
    """Return the message for a checkpoint that cannot be verified."""
    return (
        f"no hash of '{one.original}' is known, so it cannot be verified: poise weights get {one.original} "
        "--unverified fetches it and records its hash"
    )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
