"""``poise weights``: the table, a file from a server on the loopback address, and what a file is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.server import serving

from poise.cli.main import main
from poise.models import create_model
from poise.models.files import save_model
from poise.published import table


def test_the_list_shows_models_checkpoints_and_what_is_unclear(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "nanodet_plus_m_416"]) == 0
    assert "nanodet-plus-m_416    30.4  hash not known" in capsys.readouterr().out
    assert main(["weights", "list", "vfnet_r50_fpn", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["box_ap"] for one in listed] == [44.8, 41.6] and len(listed[0]["addresses"]) == 2
    assert main(["weights", "list", "--left-out"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 24


@pytest.mark.parametrize(
    "words, message",
    [
        (["list", "vfnt_*"], "did you mean 'vfnet_"),
        (["get", "vfnet_r50_fpm"], "did you mean 'vfnet_r50_fpn'"),
        (["get"], "needs the name of a model or checkpoint"),
        (["get", "nanodet_plus_m_320"], "--unverified"),
        (["verify", "none.pth"], "none.pth: no such file"),
        (["verify"], "needs a file"),
    ],
)
def test_bad_input_names_the_cure(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path))
    assert main(["weights", *words]) == 1
    assert message in capsys.readouterr().err


def test_get_where_and_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "made.pth")
    content = (tmp_path / "made.pth").read_bytes()
    first = table.checkpoint_of("vfnet_r50_fpn")
    row = replace(first, sha256=hashlib.sha256(content).hexdigest()[:8])
    monkeypatch.setattr(table, "checkpoints", lambda: (row,))
    monkeypatch.setattr("poise.published.verify.checkpoints", lambda: (row,))
    with serving() as server:
        server.file(row.file_name, content)
        assert main(["weights", "get", "vfnet_r50_fpn", "--mirror", server.url]) == 0
    kept = tmp_path / "cache" / "weights" / "vfnet_r50_fpn_ms-2x_coco.safetensors"
    printed = capsys.readouterr().out
    assert "box AP 44.8" in printed and "no separate statement for weights" in printed and str(kept) in printed
    assert main(["weights", "where"]) == 0 and "1 file" in capsys.readouterr().out
    assert main(["weights", "verify", str(kept)]) == 0 and "unchanged since" in capsys.readouterr().out
    assert main(["weights", "verify", str(tmp_path / "made.pth")]) == 0
    assert "the published file of 'vfnet_r50_fpn_ms-2x_coco'" in capsys.readouterr().out
    (tmp_path / row.file_name).write_bytes(content + b"?")
    assert main(["weights", "verify", str(tmp_path / row.file_name)]) == 1
    assert "it is damaged or another file" in capsys.readouterr().err


def test_verify_checks_files_of_poise_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    save_model(create_model("atss_r18_fpn", backbone="test_byobnet", channels=32), tmp_path / "best.pt")
    assert main(["weights", "verify", str(tmp_path / "best.pt")]) == 0
    assert "a file of poise of the model atss_r18_fpn" in capsys.readouterr().out
    content = bytearray((tmp_path / "best.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "best.pt").write_bytes(bytes(content))
    assert main(["weights", "verify", str(tmp_path / "best.pt")]) == 1
    assert "altered or damaged" in capsys.readouterr().err
