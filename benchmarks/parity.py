"""How far poise's models stand from the numbers of the original implementations, as a table.

python benchmarks/parity.py [NAME …]    # names of golden files in tests/golden; all by default
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.parity import golden, gradient_norms, image, relative, targets
from test_parity import MODELS, SIZE, model_of

from poise.detection_model import DetectionModel
from poise.published.keys import rules_of, translate


def loss_and_gradient_differences(stem: str, model: DetectionModel) -> tuple[float, float]:
    """Greatest relative differences over both cases: of a loss term, and of a gradient norm."""
    numbers, worst_loss, worst_gradient = golden(stem), 0.0, 0.0
    parameters, rules = dict(model.network.named_parameters()), rules_of(model.name) or []
    for case in (0, 1):
        model.zero_grad()
        losses = model.losses(image(*SIZE), targets(numbers, case))
        for name, loss in losses.items():
            worst_loss = max(worst_loss, relative(loss.detach(), numbers[f"case{case}_{name}"].sum()))
        torch.stack(list(losses.values())).sum().backward()
        for key, norm in gradient_norms(stem, case).items():
            found = float(parameters[translate(key, rules)[1] or ""].grad.norm())  # type: ignore[union-attr]
            worst_gradient = max(worst_gradient, abs(found - norm) / max(abs(norm), 1e-2))
    return worst_loss, worst_gradient


def detection_differences(stem: str, model: DetectionModel) -> tuple[float, float, int]:
    """Greatest distance of a box (px) and of a score from its golden detection, and how many there are."""
    numbers, far, off, count = golden(stem), 0.0, 0.0, 0
    for i, found in enumerate(model.eval().detect(image(*SIZE))):
        if f"det{i}_boxes" not in numbers:
            continue
        boxes, scores, labels = (numbers[f"det{i}_{part}"] for part in ("boxes", "scores", "labels"))
        apart = (found["boxes"][None] - boxes[:, None]).abs().amax(2)
        differ = (found["scores"][None] - scores[:, None]).abs()
        cost = apart + 1000 * differ + 1e9 * (found["labels"][None] != labels[:, None])
        best = cost.argmin(1, keepdim=True)
        far = max(far, float(apart.gather(1, best).max()))
        off = max(off, float(differ.gather(1, best).max()))
        count += len(scores)
    return far, off, count


def main() -> None:
    torch.set_num_threads(1)
    print("| model | loss terms (relative) | gradient norms (relative) | detections | boxes (px) | scores |")
    print("|---|---:|---:|---:|---:|---:|")
    for stem in sys.argv[1:] or MODELS:
        model = model_of(stem)
        loss, gradient = loss_and_gradient_differences(stem, model.train())
        box, score, count = detection_differences(stem, model)
        print(f"| `{model.name}` | {loss:.1e} | {gradient:.1e} | {count} | {box:.1e} | {score:.1e} |", flush=True)


if __name__ == "__main__":
    main()
