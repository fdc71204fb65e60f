"""Pages of the assignment lab for seven methods: short trainings on a data set, then a page each and one of several.

    python examples/lab_pages.py --data PATH --out pages [--nanodet nanodet-plus-m_320.pth] [--images 8] [--epochs 14]

Run folders that exist in OUT/runs are used as they are. So the script can be stopped and started again, and models that
were trained elsewhere can be copied there (OUT/runs/dw, OUT/runs/atss, …).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from poise.cli import main as poise

MODELS = {
    "dw": "dw_r18_fpn",
    "vfnet": "vfnet_r18_fpn",
    "atss": "atss_r18_fpn",
    "fcos": "fcos_r18_fpn",
    "libra": "libra_faster_rcnn_r18_fpn",
    "co_detr": "co_deformable_detr_r18",
}
DENSE = ("dw", "vfnet", "atss", "fcos")
ASSIGNERS = ("sim_ota", "task_aligned")  # run on the predictions of NanoDet-Plus, next to its own assigner


def run_of(name: str, args: argparse.Namespace) -> str:
    """The run folder of a method, trained where there is none."""
    out = args.out / "runs" / name
    if not (out / "best.pt").exists():
        words = f"--epochs {args.epochs} --image-size {args.size} --batch-size 4 --data.val none".split()
        start = ["--model.backbone-weights", args.backbone, "--lab-every", "10"]
        resume = ["--resume"] if (out / "last.pt").exists() else []
        status = poise(["train", MODELS[name], "--data", args.data, "--out", str(out), *words, *start, *resume])
        if status:
            raise SystemExit(status)
    return str(out)


def write(page: str, command: str, models: list[str], args: argparse.Namespace) -> None:
    """Write one page into the folder of the pages."""
    words = ["--data", args.data, "--images", str(args.images), "--out", str(args.out / f"{page}.html")]
    status = poise(["lab", command, *models, *words])
    if status:
        raise SystemExit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path("pages"))
    parser.add_argument("--nanodet", help="weights that NanoDet-Plus-m's authors published for 320 pixels")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--backbone", default="imagenet", help="imagenet, none or a file of ResNet-18 weights")
    args = parser.parse_args()
    if args.nanodet:
        published = f"nanodet_plus_m_320={args.nanodet}"
        write("nanodet_plus", "compare", [published, *ASSIGNERS], args)
    for name in MODELS:
        write(name, "show", [run_of(name, args)], args)
    write("dense_methods", "compare", [run_of(name, args) for name in DENSE], args)


if __name__ == "__main__":
    main()
