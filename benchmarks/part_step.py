"""PGD-10 adversarial training steps of the Downsampled part model: the published way against ours, in one process.

    python benchmarks/part_step.py                        (ResNet-50 at 224 pixels: on a 2-core CPU, an hour)
    python benchmarks/part_step.py --device cuda --batch-size 64 --compile
    python benchmarks/part_step.py --encoder timm/resnet10t --size 112

Published: eager float32, part maps, softmax and loss of parts at the images' resolution. Ours: the folded view in the
hardware's own precision, at the segmenter's own resolution, and at the full one in strips. The memory is what a forward
pass from part logits to class logits keeps for its backward pass, counted once for each tensor. Results are compared
too: ours at full resolution gives the published logits.
"""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from timing import alternate, arguments, keep, ratio, timing
from torch import Tensor, nn
from torch.nn import functional as F

from counterpart import devices
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.importance import rules
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.models.part_heads import PartFeatures
from counterpart.models.part_model import PartClassifier
from counterpart.objectives import adversarial, with_parts
from counterpart.records import Record
from counterpart.seeding import seeded
from counterpart.training.step import LoopOptions, Phase, train_step

EPS, STEP, C_SEG = 8 / 255, 2 / 255, 0.5
PARTS, CLASSES = 40, 11  # Part-ImageNet's


def main() -> None:
    """Time, weigh, compare, keep."""
    parser = arguments(__doc__)
    parser.set_defaults(batch_size=4, repeats=2)
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    device = devices.resolve(given.device)
    precision = "bf16" if devices.has_bf16(device) else "float32"
    batch = problem(given.batch_size, given.size, device)

    own, full, theirs = (model(given.encoder, given.size, r).to(device) for r in ("own", "full", "full"))
    works: dict[str, Callable[[], object]] = {
        "published": partial(published_step, theirs, batch, given.steps)
    }
    for name, ours in (("own resolution", own), ("full resolution", full)):
        works[f"ours, {name}"] = our_step(ours, batch, given.steps, precision, given.compile)
    rows = memory_rows(own, full, theirs, batch)
    taken = alternate(works, device, given.repeats)
    setting = {
        "model": "parts/downsampled", "encoder": given.encoder, "size": given.size, "parts": PARTS,
        "batch_size": given.batch_size, "steps": given.steps, "device": device.type,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    eager = {"precision": "float32", "compiled": False}
    chosen = {"precision": precision, "compiled": given.compile}
    middle = {name: median(spent) for name, spent in taken.items()}
    for name, spent in taken.items():
        details = setting | (eager if name == "published" else chosen)
        rows.append(timing(f"part step/{name}", spent, given.batch_size, **details))
    for name in works:
        if name != "published":
            target = ">= 2" if "own" in name else ""
            factor = middle["published"] / middle[name]
            rows.append(
                ratio(f"part step/{name} over published", factor, given.repeats, target, **setting, **chosen)
            )
    keep("part_step.jsonl", rows)


def problem(count: int, size: int, device: torch.device) -> Batch:
    """Random images, all annotated."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, size, size, generator=generator).to(device)
    labels = torch.randint(CLASSES, (count,), generator=generator).to(device)
    parts = torch.randint(PARTS + 1, (count, size, size), generator=generator).to(device)
    return Batch(images, labels, torch.arange(count, device=device), parts)


def model(encoder: str, size: int, resolution: str) -> PartClassifier:
    """The paper's Downsampled model, of the same weights each time."""
    parts = {
        "part_classes": [k % CLASSES for k in range(PARTS)],
        "encoder": encoder,
        "resolution": resolution,
    }
    with seeded(0):
        made = create("parts/downsampled", CLASSES, image_size=size, parts=parts)
    assert isinstance(made, PartClassifier)
    return made


def sgd(model: nn.Module) -> torch.optim.SGD:
    """As published."""
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)


def our_step(
    model: PartClassifier, batch: Batch, steps: int, precision: str, compiled: bool
) -> Callable[[], None]:
    """A step of the training loop."""
    model.to(memory_format=devices.memory_format(model))  # type: ignore[call-overload]
    view = InferenceView(model, precision=precision, compile=compiled)
    full = Linf(EPS)
    rule = rules.constant
    objective = with_parts(adversarial(budget=full, rule=rule, steps=steps, step_size=STEP), c_seg=C_SEG)
    settings = LoopOptions(len(batch), 0, batch.images.device, None, precision=precision, compile=compiled)
    optimizer = sgd(model)

    def step() -> None:
        train_step(batch, len(batch), 0, 0, model, view, Phase("at", 1, objective), optimizer, settings)
        view.refresh()

    return step


def published(model: PartClassifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Class logits and part logits, both from maps of the images' size, as the published code makes them."""
    network = model.backbone
    part_logits = network.segmenter((images - model.mean) / model.std).part_logits
    return published_head(model, part_logits, images.shape[2])


def published_head(model: PartClassifier, part_logits: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """From part logits at the segmenter's own resolution."""
    masks = F.interpolate(part_logits, (size, size), mode="bilinear", align_corners=True)
    pooled = F.adaptive_avg_pool2d(masks.softmax(dim=1), 4)
    return model.backbone.head.classifier(pooled), masks  # type: ignore[operator]


def published_step(model: PartClassifier, batch: Batch, steps: int) -> None:
    """PGD in eval mode on parameters that keep their gradients, then the joint loss in training mode."""
    images, labels = batch.images, batch.labels
    model.eval()
    attacked = (images + EPS * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(steps):
        attacked.requires_grad_()
        loss = F.cross_entropy(published(model, attacked)[0], labels)
        (gradient,) = torch.autograd.grad(loss, attacked)
        moved = attacked.detach() + STEP * gradient.sign()
        attacked = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1)
    model.train()
    optimizer = sgd(model)
    logits, masks = published(model, attacked)
    assert batch.parts is not None
    total = (1 - C_SEG) * F.cross_entropy(logits, labels) + C_SEG * F.cross_entropy(masks, batch.parts)
    total.backward()
    optimizer.step()


def memory_rows(
    own: PartClassifier, full: PartClassifier, theirs: PartClassifier, batch: Batch
) -> list[Record]:
    """Bytes that the head path keeps for its backward pass, per image; and that results agree."""
    size = batch.images.shape[2]
    with torch.no_grad():
        part_logits = theirs.eval().forward_parts(batch.images).part_logits
        expected = published_head(theirs, part_logits, size)[0]
        torch.testing.assert_close(full.eval().classify_parts(part_logits), expected, rtol=1e-4, atol=1e-4)
    kept = {
        "published": bytes_kept(lambda maps: published_head(theirs, maps, size)[0], part_logits),
        "ours, own resolution": bytes_kept(lambda maps: own.backbone.head(PartFeatures(maps)), part_logits),
        "ours, full resolution": bytes_kept(lambda maps: full.backbone.head(PartFeatures(maps)), part_logits),
    }
    count = len(batch)
    rows = [
        Record("timing", f"head path/{name}", value / count / 2**20, 1, details={"unit": "MiB/image"})
        for name, value in kept.items()
    ]
    for name in ("ours, own resolution", "ours, full resolution"):
        rows.append(
            ratio(f"head path/{name}, share of published", kept[name] / kept["published"], 1, "<= 0.333")
        )
    return rows


def bytes_kept(head: Callable[[Tensor], Tensor], part_logits: Tensor) -> int:
    """Of the tensors that autograd saves, each storage once; parameters are none of them."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        leaf = part_logits.clone().requires_grad_()
        logits = head(leaf)
    assert logits.requires_grad
    return sum(storages.values())


if __name__ == "__main__":
    main()
