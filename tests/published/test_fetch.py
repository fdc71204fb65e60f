"""Fetching published checkpoints, from a server on the loopback address."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.server import Server, serving

from poise.published.cache import cache_folder, file_hash, find_cached, read_record
from poise.published.fetch import FetchError, fetch
from poise.published.table import HOSTS, Checkpoint
from poise.storage import DamagedFile, load_weights

SHARED = torch.arange(6.0)
STATE = {
    "bbox_head.atss_cls.weight": SHARED,
    "bbox_head.tied": SHARED,
    "backbone.bn1.num_batches_tracked": torch.ones(()),
}


def published(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


GOOD = published({"state_dict": STATE, "meta": {"epoch": 12}, "optimizer": {"state": torch.zeros(5000)}})
PATH = "v2.0/atss/atss_test.pth"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def row(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A row of two hosts, of which only the first has the file so far."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POISE_WEIGHTS_MIRROR", raising=False)
    monkeypatch.setitem(HOSTS, "nanodet", (server.url + "one/", server.url + "two/"))
    server.file(f"one/{PATH}", GOOD)
    digest = hashlib.sha256(GOOD).hexdigest()
    return Checkpoint("atss_r50_fpn", "atss_test", 40.0, "nanodet", PATH, digest[:8], {}, "", "")


def left_over() -> list[str]:
    return sorted(path.name for path in cache_folder().iterdir() if path.suffix != ".lock")


def test_a_file_is_kept_as_safetensors_with_its_record(row: Checkpoint, server: Server) -> None:
    path = fetch(row)
    assert path == cache_folder() / "atss_test.safetensors" and left_over() == [
        "atss_test.json",
        "atss_test.safetensors",
    ]
    loaded = load_weights(path)
    assert loaded.keys() == STATE.keys() and all(loaded[key].equal(value) for key, value in STATE.items())
    record = read_record(row)
    assert record is not None and record.verified and record.sha256 == hashlib.sha256(GOOD).hexdigest()
    assert record.source == server.url + "one/" + PATH and record.tensors_sha256 == file_hash(path)
    with safe_open(path, "pt") as opened:
        assert json.loads(opened.metadata()["made_from"])["original"] == "atss_test"
    assert fetch(row) == path and len(server.requests) == 1  # the second time from the folder


def test_a_redirect_is_followed(row: Checkpoint, server: Server) -> None:
    server.redirect(f"one/{PATH}", server.url + "elsewhere.pth")
    server.file("elsewhere.pth", GOOD)
    assert fetch(row).is_file()
    server.redirect(f"one/{PATH}", "file:///etc/hostname")
    with pytest.raises(FetchError, match="status 302"):
        fetch(replace(row, original="other"))


@pytest.mark.parametrize("fault", ["missing", "wrong", "truncated"])
def test_the_next_host_is_tried(row: Checkpoint, server: Server, fault: str) -> None:
    server.file(f"two/{PATH}", GOOD)
    if fault == "missing":
        del server.answers[f"one/{PATH}"]
    elif fault == "wrong":
        server.file(f"one/{PATH}", b"<html>Sign in</html>")
    else:
        server.short(f"one/{PATH}", GOOD, 100)
    fetch(row)
    record = read_record(row)
    assert record is not None and record.source == server.url + "two/" + PATH
    assert server.requests[-1][2] == ("bytes=300-" if fault == "truncated" else "")  # three attempts of 100 bytes


def test_an_interrupted_download_is_continued(row: Checkpoint, server: Server) -> None:
    server.short(f"one/{PATH}", GOOD, 0)
    part = cache_folder() / "atss_test.pth.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(GOOD[:1000])  # of a process that was stopped
    with pytest.raises(FetchError, match=r"ended after 1000 of \d+ bytes"):
        fetch(row)
    assert part.read_bytes() == GOOD[:1000]
    server.short(f"one/{PATH}", GOOD, 500, times=1)
    del server.requests[:]
    assert fetch(row).is_file() and not part.exists()
    assert [wanted for _, _, wanted in server.requests] == ["bytes=1000-", "bytes=1500-"]


def test_a_part_of_another_file_is_not_continued(row: Checkpoint, server: Server) -> None:
    part = cache_folder() / "atss_test.pth.part"
    part.parent.mkdir(parents=True)
    for beginning in (b"something else", GOOD + b"longer"):
        part.write_bytes(beginning)
        assert fetch(row).is_file()
        fetch(row).unlink()
    server.file(f"one/{PATH}", GOOD, ranges=False)  # a server without ranges sends everything
    part.write_bytes(GOOD[:1000])
    assert fetch(row).is_file()


def test_a_wrong_hash_is_refused(row: Checkpoint, server: Server) -> None:
    server.file(f"one/{PATH}", published({"state_dict": {"a": torch.zeros(1)}}))
    with pytest.raises(FetchError, match=f"its SHA-256 begins with .*, that of 'atss_test' with {row.sha256}"):
        fetch(row)
    assert left_over() == []


def test_a_mirror_is_tried_first(
    row: Checkpoint, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.file(f"mirror/{PATH}", GOOD)
    fetch(row, mirror=server.url + "mirror")
    assert [path for _, path, _ in server.requests] == [f"/mirror/{PATH}"]
    server.answers = {"flat/atss_test.pth": server.answers[f"mirror/{PATH}"]}
    monkeypatch.setenv("POISE_WEIGHTS_MIRROR", server.url + "flat/")
    fetch(replace(row, original="again"))
    assert [path for _, path, _ in server.requests[1:]] == [f"/flat/{PATH}", "/flat/atss_test.pth"]
    (tmp_path / "atss_test.pth").write_bytes(GOOD)
    fetch(replace(row, original="third"), mirror=str(tmp_path))
    assert len(server.requests) == 3 and (tmp_path / "atss_test.pth").is_file()
    with pytest.raises(ValueError, match="neither a folder nor an address"):
        fetch(replace(row, original="fourth"), mirror="ftp://host/")


def test_without_a_network_the_error_says_where_to_put_the_file(row: Checkpoint, server: Server) -> None:
    server.answers = {}
    with pytest.raises(FetchError) as caught:
        fetch(row)
    message = str(caught.value)
    assert all(f"{url}: HTTP status 404" in message for url in row.addresses)
    assert f"put it into {cache_folder()}" in message
    (cache_folder() / "atss_test.pth").write_bytes(b"half a fi")
    with pytest.raises(ValueError, match=r"atss_test\.pth: its SHA-256 begins with .*; remove it or replace it"):
        fetch(row)
    (cache_folder() / "atss_test.pth").write_bytes(GOOD)
    num_requests = len(server.requests)
    assert fetch(row).is_file() and len(server.requests) == num_requests
    assert left_over() == ["atss_test.json", "atss_test.safetensors"]


def test_an_unknown_hash_needs_the_word_of_the_user_and_is_recorded(row: Checkpoint, server: Server) -> None:
    row = replace(row, sha256="")
    with pytest.raises(ValueError, match="poise weights get atss_test --unverified"):
        fetch(row)
    assert not server.requests
    path = fetch(row, unverified=True)
    record = read_record(row)
    assert record is not None and not record.verified and record.sha256 == hashlib.sha256(GOOD).hexdigest()
    path.unlink()
    server.file(f"one/{PATH}", published({"state_dict": {"a": torch.zeros(1)}}))
    with pytest.raises(FetchError, match="begins with"):  # another file than the first time
        fetch(row, unverified=True)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("harmful-ran"),))  # type: ignore[return-value]


def test_a_malicious_pickle_is_refused_and_does_not_run(
    row: Checkpoint, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    harmful = published({"state_dict": STATE, "meta": Harmful()})
    server.file(f"one/{PATH}", harmful)
    with pytest.raises(DamagedFile, match="cannot be loaded safely"):
        fetch(replace(row, sha256=hashlib.sha256(harmful).hexdigest()[:8]))
    assert left_over() == [] and not (tmp_path / "harmful-ran").exists()


def test_an_altered_file_of_the_folder_is_refused(row: Checkpoint) -> None:
    path = fetch(row)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedFile, match="altered or damaged.*poise weights get atss_test"):
        find_cached(row)
