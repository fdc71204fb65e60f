"""Make the network of ``--weights demo``: scenes, training with ``poise train``, and the file inside the package.

    python -m benchmarks.demo_network --out runs/demo_network            # all of it, about 30 minutes of CPU time
    python -m benchmarks.demo_network --out runs/demo_network --pack     # the file only, of a finished or stopped run

The recipe is ``poise.recipes.demo:demo_network``. A stopped run is continued. The weights of matrices and convolutions
are stored as float16, all others as float32; the header describes the model and its training. The last line printed is
the SHA-256 of the file. Two trainings on different processors do not give the same bits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import torch

from poise.data import write_demo_data
from poise.models.files import METADATA, describe, find_model_file, load_model
from poise.published.demo import demo_weights
from poise.storage import read_safely, save_safetensors

RECIPE = "poise.recipes.demo:demo_network"
SCENES = {"train": 5000, "val": 160, "seed": 19, "size": 256, "style": "plain", "classes": "more_shapes"}
PROCESSES = 2


def train(out: Path) -> None:
    """Write the scenes and train on them, in two processes of one thread each."""
    data = write_demo_data(out / "scenes", **SCENES)  # type: ignore[arg-type]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(PROCESSES), "-m", "poise"]
    words = ["train", RECIPE, "--data", str(data), "--out", str(out / "run"), "--device", "cpu", "--resume"]
    subprocess.run([*launch, *words], check=True)


def pack(run: Path, path: Path) -> str:
    """Write the averaged weights of ``best.pt`` as safetensors; returns the SHA-256 of the file."""
    model = load_model(run)
    training = {"recipe": RECIPE, "scenes": SCENES, "epoch": read_safely(find_model_file(run)).get("epoch")}
    description = {"format": "poise-1", "model": {**describe(model), "name": "atss_tiny_fpn"}, "training": training}
    tensors = {
        name: value.to(torch.float16).contiguous()
        if value.ndim >= 2 and value.is_floating_point()
        else value.contiguous()
        for name, value in model.state_dict().items()
    }
    save_safetensors(path, tensors, {METADATA: json.dumps(description)})
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Train and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of scenes and run")
    parser.add_argument("--file", type=Path, default=demo_weights(), help="the file; by default the one of the package")
    parser.add_argument("--pack", action="store_true", help="write the file of the run as it is, without training")
    arguments = parser.parse_args()
    if not arguments.pack:
        train(arguments.out)
    digest = pack(arguments.out / "run", arguments.file)
    print(f"{arguments.file}: {arguments.file.stat().st_size / 1e6:.2f} MB")
    print(f"sha256 {digest}")


if __name__ == "__main__":
    main()
