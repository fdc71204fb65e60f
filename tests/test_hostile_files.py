"""A malicious file of weights, through every way that weights come in: refused, and nothing of it runs or unpacks."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.tiny import TINY_MODEL

import poise
from poise.cli import main
from poise.engine.checkpoints import read_last
from poise.models import create_model
from poise.nn.backbones.timm_features import Backbone
from poise.published import load_published
from poise.storage import DamagedFile, load_weights, save_atomically


class Malice:
    """Unpickled by the usual means it makes a folder, as it could run any program."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


def test_the_malice_is_real(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malice(tmp_path / "executed")))
    assert (tmp_path / "executed").is_dir()


def small() -> poise.DetectionModel:
    return create_model("atss_r18_fpn", 2, image_size=32, backbone="test_byobnet", channels=8, depth=1)


WAYS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "poise.load": ("best.pt", poise.load),
    "Detector": ("best.pt", lambda path: poise.Detector(path, "cpu")),
    "a run folder": ("best.pt", lambda path: poise.load(path.parent)),
    "resume": ("last.pt", lambda path: read_last(path.parent)),
    "load_published": ("model.pth", lambda path: load_published(create_model("atss_r50_fpn"), path)),
    "load_published, ckpt": ("model.ckpt", lambda path: load_published(create_model("atss_r50_fpn"), path)),
    "a renamed .safetensors": ("model.safetensors", lambda path: load_published(create_model("atss_r50_fpn"), path)),
    "backbone weights": ("resnet18.pth", lambda path: Backbone("resnet18", weights=path)),
    "backbone weights, safetensors": ("resnet18.safetensors", lambda path: Backbone("resnet18", weights=path)),
    "ShuffleNet's weights": (
        "shuffle.pth",
        lambda path: create_model("nanodet_plus_m_416", backbone_weights=str(path)),
    ),
}


def plain_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content))


def sealed(path: Path, content: dict[str, object]) -> None:
    """As someone writes it who knows the format: with the checksum."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poise.storage.writing._check_plain", lambda value, where: None)
        save_atomically(path, content)


def old_format(path: Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


WRITERS = {"pickle": plain_pickle, "torch.save": lambda path, content: torch.save(content, path)}
WRITERS |= {"sealed": sealed, "torch.save before 1.6": old_format}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("way", WAYS)
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, way: str, writer: str) -> None:
    name, load = WAYS[way]
    target = tmp_path / "executed"
    (tmp_path / "run").mkdir()
    WRITERS[writer](tmp_path / "run" / name, {"state_dict": Malice(target), "weights": Malice(target)})
    with pytest.raises(DamagedFile, match=name.replace(".", "\\.")):
        load(tmp_path / "run" / name)
    assert not target.exists()


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth"])
def test_as_the_weights_that_a_training_starts_from(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from poise.data.demo import write_demo_data

    data = write_demo_data(tmp_path / "data", train=2, val=1, size=64)
    sealed(tmp_path / name, {"state_dict": Malice(tmp_path / "executed")})
    words = ["train", "atss_r18_fpn", "--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, *TINY_MODEL, "--model.weights", str(tmp_path / name)]) == 1
    assert name in capsys.readouterr().err and not (tmp_path / "executed").exists()


def repacked(path: Path, change: Callable[[zipfile.ZipFile, zipfile.ZipInfo, bytes], None]) -> Path:
    """The archive that ``torch.save`` wrote, packed again."""
    torch.save({"value": torch.zeros(5_000_000)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries:
            change(archive, entry, content)
    return path


def test_a_packed_archive_is_not_unpacked(tmp_path: Path) -> None:
    """20 MB in 20 kB, which ``torch.load`` would unpack; so would it 20 GB in 20 MB."""
    path = repacked(tmp_path / "bomb.pth", lambda archive, entry, content: archive.writestr(entry.filename, content, 8))
    assert path.stat().st_size < 100_000
    assert torch.load(path, weights_only=True)["value"].numel() == 5_000_000, "PyTorch alone does not refuse it"
    tracemalloc.start()
    with pytest.raises(DamagedFile, match="bomb.pth: its archive is compressed"):
        load_weights(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_entries_of_one_name(tmp_path: Path) -> None:
    def twice(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
        archive.writestr(entry.filename, content)
        if entry.filename.endswith("data.pkl"):
            archive.writestr(entry.filename, content)

    with pytest.raises(DamagedFile, match="twice"):
        load_weights(repacked(tmp_path / "two.pth", twice))


def test_an_archive_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    """Entries that overlap, as in the bombs that need no compression."""
    path = tmp_path / "overlap.pth"
    torch.save({"value": torch.zeros(50_000)}, path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        names = [entry.filename.encode() for entry in archive.infolist() if entry.file_size > 100_000]
    position = content.rindex(names[0]) - 46 + 24  # the size in the central directory
    content[position : position + 4] = (900_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DamagedFile):
        load_weights(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02.", b"[]", b"\0" * 200])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_anything_else_is_refused_with_its_name(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=f"file{suffix}"):
        load_weights(path)


def test_a_sealed_file_that_describes_no_model(tmp_path: Path) -> None:
    for model in ({"name": "none"}, {"name": "atss_r18_fpn", "num_classes": -1, "options": {}}, None):
        save_atomically(tmp_path / "odd.pt", {"format": "poise-1", "model": model, "weights": {}})
        with pytest.raises(DamagedFile, match="odd.pt"):
            poise.load(tmp_path / "odd.pt")
