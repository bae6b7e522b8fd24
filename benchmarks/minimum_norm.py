"""Minimum-norm attacks: foolbox against ours, on the same images of the same model, in one process.

    python benchmarks/minimum_norm.py                                (digits at 32 pixels on a ResNet-18 of width 8)

Needs foolbox. Both sides take equal numbers of steps; neither ends Carlini and Wagner's searches early. "ours" asks the
same model as foolbox does, "ours, view" the fast copy that evaluations use. The model is trained for a few epochs here,
without attacks, and its 1,200 training images are none of those attacked. On a CPU, seconds are those of the processor.
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from sklearn.datasets import load_digits
from timing import alternate, arguments, keep, ratio
from torch import Tensor, nn
from torch.nn import functional as F

from counterpart import devices
from counterpart.attacks.carlini_wagner import carlini_wagner
from counterpart.attacks.decoupled_direction_norm import ddn
from counterpart.attacks.deepfool import deepfool
from counterpart.attacks.fast_minimum_norm import fmn
from counterpart.budget import NORMS
from counterpart.contracts import Attacked
from counterpart.errors import UserError
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.records import Record
from counterpart.seeding import Keys, seeded

SEARCHES = 2  # of Carlini and Wagner, whose cost is linear in them
# name -> norm, ours, its options, foolbox's class, its options. Foolbox's L2FMNAttack never cuts a perturbation to its
# ball (it multiplies by norms / norms): its distances say so.
PAIRS: dict[str, tuple[str, Callable[..., Attacked], dict[str, Any], str, dict[str, Any]]] = {
    "deepfool l2": ("l2", deepfool, {"steps": 50}, "L2DeepFoolAttack", {"steps": 50}),
    "deepfool linf": ("linf", deepfool, {"steps": 50}, "LinfDeepFoolAttack", {"steps": 50}),
    "ddn l2": ("l2", ddn, {"steps": 100}, "DDNAttack", {"steps": 100}),
    "fmn linf": ("linf", fmn, {"steps": 100}, "LInfFMNAttack", {"steps": 100}),
    "fmn l2": ("l2", fmn, {"steps": 100}, "L2FMNAttack", {"steps": 100}),
    "fmn l1": ("l1", fmn, {"steps": 100}, "L1FMNAttack", {"steps": 100}),
    "carlini-wagner l2": (
        "l2",
        carlini_wagner,
        {"steps": 100, "search_steps": SEARCHES, "learning_rate": 0.1, "initial_weight": 1.0},
        "L2CarliniWagnerAttack",
        {
            "steps": 100,
            "binary_search_steps": SEARCHES,
            "stepsize": 0.1,
            "initial_const": 1.0,
            "abort_early": False,
        },
    ),
}


def main() -> None:
    """Train, run both, compare, keep."""
    try:
        import foolbox
    except ImportError:
        raise UserError("needs foolbox: pip install foolbox") from None
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    parser.set_defaults(width=8)
    given = parser.parse_args()
    device = devices.resolve(given.device)
    model, images, labels = problem(given.width, given.epochs, given.images, device)
    view, keys = InferenceView(model), Keys(0, "benchmark", torch.arange(len(images), device=device))
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    setting = {
        "model": "resnet18",
        "width": given.width,
        "images": len(images),
        "data": "digits at 32 pixels",
        "device": device.type,
        "threads": torch.get_num_threads(),
    }
    rows = []
    for name, (norm, attack, options, theirs, their_options) in PAIRS.items():
        budget = NORMS[norm](1.0)
        attacked = partial(attack, images=images, labels=labels, budget=budget, keys=keys, **options)
        package = getattr(foolbox.attacks, theirs)(**their_options)
        sides: dict[str, Callable[[], Tensor]] = {
            "foolbox": partial(package.run, wrapped, images, foolbox.criteria.Misclassification(labels)),
            "ours": partial(nearest, attacked, model),
            "ours, view": partial(nearest, attacked, view),
        }
        results: dict[str, Tensor] = {}
        used: dict[str, list[float]] = {side: [] for side in sides}
        works = {side: partial(remember, results, used, side, run) for side, run in sides.items()}
        taken = alternate(works, device, given.repeats, warmups=0)
        if device.type == "cpu":
            taken = used  # seconds of the processor: other work on the machine does not count
        for side, found in results.items():
            with torch.no_grad():
                wrong = model(found).argmax(dim=1) != labels
            distances = torch.where(wrong, budget.distance(found, images), torch.inf)
            told = {
                "unit": "s",
                "clock": "processor" if device.type == "cpu" else "wall",
                "median distance": float(distances.median()),
                "not fooled": int((~wrong).sum()),
                "steps": options["steps"],
            }
            took = taken[side]
            interval = (min(took), max(took))
            title = f"minimum_norm/{name}, {side}"
            rows.append(Record("timing", title, median(took), len(took), interval, details=told | setting))
            if side != "foolbox":
                factor = median(taken["foolbox"]) / median(took)
                rows.append(
                    ratio(f"{title}: times faster than foolbox", factor, len(took), ">= 1", **setting)
                )
    keep("minimum_norm.jsonl", rows)


def remember(
    results: dict[str, Tensor], used: dict[str, list[float]], side: str, run: Callable[[], Tensor]
) -> None:
    """Run, and keep the images and the seconds of the processor."""
    started = time.process_time()
    results[side] = run()
    used[side].append(time.process_time() - started)


def nearest(attack: Callable[..., Attacked], asked: nn.Module | InferenceView) -> Tensor:
    """The nearest adversarial images."""
    images = attack(asked).nearest
    assert images is not None
    return images


def problem(width: int, epochs: int, count: int, device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    """A network that has learnt the digits, and test images that it gets right."""
    digits = load_digits()
    small = torch.from_numpy(digits.images / 16).float()[:, None]
    images = F.interpolate(small, size=32, mode="bilinear", align_corners=False).clamp(0, 1).to(device)
    labels = torch.from_numpy(digits.target).long().to(device)
    with seeded(0, device):
        model = (
            create("resnet18", num_classes=10, width=width, in_channels=1, image_size=32).to(device).train()
        )
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(epochs):
            for index in torch.randperm(1200, device=device).split(100):
                optimizer.zero_grad()
                F.cross_entropy(model(images[index]), labels[index]).backward()
                optimizer.step()
    model.eval().requires_grad_(False)
    with torch.no_grad():
        right = (model(images[1200:]).argmax(dim=1) == labels[1200:]).nonzero()[:count, 0]
    return model, images[1200:][right], labels[1200:][right]


if __name__ == "__main__":
    main()
