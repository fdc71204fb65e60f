"""Verify a published file against the table, a kept one against its record, and one of poise by its own checksum."""

from __future__ import annotations

from pathlib import Path

from poise.published.cache import Record, cached_file, file_hash, find_cached, read_record
from poise.published.table import Checkpoint, checkpoints
from poise.storage import read_safely


def verify(path: Path) -> str:
    """Return what a file is, in a sentence.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not what its name says, or nothing is known about it.
    """
    digest = file_hash(path)
    for one in checkpoints():
        if path.resolve() == cached_file(one).resolve():
            return _kept(one, path)
        record = read_record(one)
        if digest.startswith(one.sha256) if one.sha256 else record is not None and record.sha256 == digest:
            return f"{path}: the published file of '{one.original}', for the model {one.model}"
        if path.name == one.file_name:
            raise ValueError(f"{path}: {_why_not(one, digest, record)}")
    if path.suffix == ".pt":
        model = read_safely(path).get("model")
        name = f" of the model {model['name']}" if isinstance(model, dict) and "name" in model else ""
        return f"{path}: a file of poise{name}; its checksum is right"
    raise ValueError(f"{path}: its SHA-256, {digest}, is that of no checkpoint in the table (poise weights list)")


def _kept(one: Checkpoint, path: Path) -> str:
    record = read_record(one)
    if record is None:
        raise ValueError(f"{path}: it has no record, so nothing is known about it; delete it and fetch it again")
    find_cached(one)
    return (
        f"{path}: unchanged since it was made on {record.date} from {record.source}, whose SHA-256 was {record.sha256}"
    )


def _why_not(one: Checkpoint, digest: str, record: Record | None) -> str:
    expected = one.sha256 or (record.sha256[:8] if record else "")
    if not expected:
        return f"no hash of '{one.original}' is known; that of the file is {digest}"
    return (
        f"its SHA-256 begins with {digest[:8]}, that of '{one.original}' with {expected}: it is damaged or another file"
    )
