"""Fetch published checkpoints: several hosts in turn, resumed, verified, and only when the user names them.

``torch.hub`` cannot resume a download, and the downloader of ``huggingface_hub`` for plain addresses is not public.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock

from poise.published.cache import WrongHash, cache_folder, find_cached, keep, no_hash, read_record
from poise.published.table import Checkpoint
from poise.version import __version__

MIRROR = "POISE_WEIGHTS_MIRROR"  # environment variable: address or folder that is tried before the public hosts
TIMEOUT = 30.0  # seconds without an answer
ATTEMPTS = 3  # of one host, as long as each of them continues the file
LIMIT = 8 << 30  # bytes of a file
_BLOCK = 1 << 18


class FetchError(OSError):
    """No host has the file; the message has the addresses, and the folder for a file fetched by hand."""


class _Ended(Exception):
    """A download ended too early, after ``received`` bytes of this attempt."""

    def __init__(self, why: str, received: int) -> None:
        super().__init__(why)
        self.received = received


def fetch(one: Checkpoint, mirror: str | None = None, unverified: bool = False) -> Path:
    """Return the file of a checkpoint in the cache folder, fetching it if it is not there.

    A file of the published name in the cache folder, put there by hand, is used before any host.

    Args:
        one: row of the table.
        mirror: address or folder that is tried first, with the published path and with the bare file name; by default
            that of ``POISE_WEIGHTS_MIRROR``.
        unverified: accept a file of which no hash is known, and record its hash.

    Raises:
        FetchError: no host has the file.
        ValueError: no hash is known, or the file holds anything but tensors and plain data.
    """
    if found := find_cached(one):
        return found
    if not (one.sha256 or unverified or read_record(one)):
        raise ValueError(no_hash(one))
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{one.original}.lock"):  # processes of one training, for example, fetch once
        if found := find_cached(one):
            return found
        by_hand = folder / one.file_name
        if by_hand.is_file():
            path = _keep_local(one, by_hand, unverified)
            by_hand.unlink()
            return path
        return _from_hosts(one, mirror or os.environ.get(MIRROR, ""), unverified)


def _from_hosts(one: Checkpoint, mirror: str, unverified: bool) -> Path:
    if mirror and not mirror.startswith(("http://", "https://")):
        if not Path(mirror).is_dir():
            raise ValueError(f"the mirror '{mirror}' is neither a folder nor an address with http:// or https://")
        for path in (Path(mirror, one.path), Path(mirror, one.file_name)):
            if path.is_file():
                return _keep_local(one, path, unverified)
        mirror = ""
    own = [f"{mirror.rstrip('/')}/{path}" for path in dict.fromkeys((one.path, one.file_name))] if mirror else []
    part = cache_folder() / f"{one.file_name}.part"
    failures: list[str] = []
    for address in (*own, *one.addresses):
        resumed = bool(one.sha256) and part.is_file()
        for resume in (True, False) if resumed else (False,):  # what was there may be the beginning of another file
            why = _download(address, part, resume)
            if why:
                break
            try:
                return keep(one, part, address, unverified)
            except WrongHash as error:
                why = str(error)
            finally:
                part.unlink(missing_ok=True)
        failures.append(f"  {address}: {why}")
    lines = "\n".join(failures)
    raise FetchError(
        f"'{one.original}' could not be fetched:\n{lines}\n"
        f"Without a network, fetch {one.file_name} elsewhere and put it into {cache_folder()}, then repeat the "
        f"command; or name a mirror (--mirror, {MIRROR})"
    )


def _keep_local(one: Checkpoint, file: Path, unverified: bool) -> Path:
    try:
        return keep(one, file, str(file), unverified)
    except WrongHash as error:
        raise WrongHash(f"{file}: {error}; remove it or replace it by the published file") from error


def _download(address: str, part: Path, resume: bool) -> str:
    """Write what an address has to ``part``, which is continued if ``resume``; returns why it failed, or nothing."""
    if not resume:
        part.unlink(missing_ok=True)
    why = ""
    for _ in range(ATTEMPTS):
        try:
            _receive(address, part)
            return ""
        except HTTPError as error:
            if error.code != 416:  # the part is not the beginning of this file
                return f"HTTP status {error.code}"
            part.unlink(missing_ok=True)
            why = "HTTP status 416"
        except _Ended as error:
            why = str(error)
            if not error.received:
                return why
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)  # of an error of urllib
            return str(getattr(reason, "strerror", "") or reason) or type(reason).__name__
    return why


def _receive(address: str, part: Path) -> None:
    start = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": f"poise/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with build_opener(_Redirects).open(Request(address, headers=headers), timeout=TIMEOUT) as response:
        if response.status != 206:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if total and total > LIMIT:
            raise ValueError(f"the file has {total} bytes, more than the limit of {LIMIT}")
        with open(part, "ab" if start else "wb") as file, _bar(part.stem, total) as show:
            _copy(response, file, start, total, show)


def _copy(response: IO[bytes], file: IO[bytes], start: int, total: int | None, show: Any) -> None:
    size = start
    while True:
        try:
            block = response.read(_BLOCK)
        except (OSError, HTTPException) as error:
            raise _Ended(f"the connection broke after {size} bytes ({error})", size - start) from error
        if not block:
            break
        file.write(block)
        size += len(block)
        show(size)
        if size > LIMIT:
            raise ValueError(f"the file has more bytes than the limit of {LIMIT}")
    if total is not None and size < total:
        raise _Ended(f"the connection ended after {size} of {total} bytes", size - start)


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but from https only to https, and never to other protocols."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if not newurl.startswith("https://" if req.full_url.startswith("https:") else ("http://", "https://")):
            raise HTTPError(req.full_url, code, f"redirect to '{newurl}' is refused", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def _bar(name: str, total: int | None) -> Iterator[object]:
    """Yield a function that shows how many bytes have arrived, on a terminal."""
    shown = sys.stderr.isatty()

    def show(size: int) -> None:
        if shown:
            share = f"{100 * size // total:3d} % of {total / 1e6:.0f}" if total else f"{size / 1e6:.0f}"
            print(f"\rfetching {name}: {share} MB", end="", file=sys.stderr, flush=True)

    yield show
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr)
