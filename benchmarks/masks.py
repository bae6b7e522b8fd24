"""PART masks: the published way (one image at a time) against the closed form, in one process.

    python benchmarks/masks.py                  (2-core CPU: about two minutes)
    python benchmarks/masks.py --device cuda

ResNet-18, 32 px. "Features given" is what training pays: the pass that yields them is made anyway. "Own pass"
includes one clean forward pass.
"""

from statistics import median

import published
import torch
from timing import alternate, arguments, keep, problem, ratio, seconds, timing

from counterpart import devices
from counterpart.importance.masks import paper_mask, radius_plane
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.saliency import probe_map, score_weights
from counterpart.seeding import seeded

EPS, EPS_LOW = 8 / 255, 7 / 255


def main() -> None:
    """Time, compare, keep."""
    given = arguments(__doc__).parse_args()

    device, size = devices.resolve(given.device), given.batch_size
    with seeded(0):
        model = create("resnet18", 10, width=given.width).to(device).eval()
    images, labels = problem(size, device)
    precision = "bf16" if devices.has_bf16(device) else "float32"
    views = {name: InferenceView(model, precision=name) for name in {"float32", precision}}

    def from_probe(probe: object) -> torch.Tensor:
        maps = probe_map(probe, score_weights(probe.logits, labels))
        return radius_plane(paper_mask(maps, (32, 32)), EPS, EPS_LOW)

    taken = alternate(
        {
            "published, one image at a time": lambda: published.masks(
                model, model.backbone.layer4, images, EPS, EPS_LOW
            ),
            "closed form, own pass": lambda: from_probe(views[precision].probe(images)),
        },
        device,
        given.repeats,
    )
    probe = views["float32"].probe(images)
    many = 50
    taken["closed form, features given"] = [seconds(lambda: from_probe(probe), device) for _ in range(many)]
    setting = {
        "model": "resnet18", "width": given.width, "batch_size": size, "device": device.type,
        "precision": precision, "threads": torch.get_num_threads(),
    }  # fmt: skip
    rows = [timing(f"masks/{name}", spent, size, **setting) for name, spent in taken.items()]
    slow = median(taken["published, one image at a time"])
    for name, target in (("closed form, features given", ">= 100"), ("closed form, own pass", "")):
        rows.append(
            ratio(
                f"masks/{name}, over published", slow / median(taken[name]), given.repeats, target, **setting
            )
        )
    keep("masks.jsonl", rows)


if __name__ == "__main__":
    main()
