"""A few images of an evaluation for the report: clean, attacked, their parts, and what the training rule sees."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..batch import Batch
from ..budget import Budget, Linf
from ..data.image_sets import ImageSet
from ..data.parts import part_names
from ..importance.rules import explain
from ..part_maps import predicted_parts
from ..protocols import NamedAttack, PartModel, Rule, View
from ..rundir import write_atomically
from ..saliency import ATTENTION_MAPS
from ..seeding import Keys
from .accuracy import as_judged, read_batch
from .ledger import LedgerRow

IMAGES = 8


def write_panel(
    path: Path,
    model: nn.Module,
    view: View,
    images: ImageSet,
    rows: Sequence[LedgerRow],
    attacks: Sequence[NamedAttack],
    *,
    map_view: View,
    kind: str,
    fooling: Callable[[int], Tensor | None],
    budget: Budget,
    rule: Rule,
    full: Budget,
    device: torch.device,
    seed: int,
) -> None:
    """Write some images that fell and some that held, as tensors with their answers in the header.

    Args:
        path: a safetensors file with ``clean`` and ``adversarial`` (M, C, H, W), ``radius`` (M, H, W), and, where
            there is a map, ``importance`` (M, h, w). Of a part model also the part ids that it finds, ``parts`` and
            ``parts_adversarial`` (M, H, W), and ``parts_true`` of images that are annotated: the header says which
            are, and what the parts are called.
        model: the original.
        view: what the attack searches on.
        images: that were evaluated.
        rows: their results, in the same order.
        attacks: the one to show where nothing fooled an image, or none.
        map_view: what maps are drawn from.
        kind: of map.
        fooling: position -> the image (C, H, W) that fooled the model first, where it was kept.
        budget: of the attack.
        rule: of training; the radius that it gives each pixel of ``full`` is shown.
        full: the budget that the rule narrows.
        device: where to compute.
        seed: of the evaluation.
    """
    right = [i for i, row in enumerate(rows) if row.clean == row.label] or list(range(len(rows)))
    fell = [i for i in right if rows[i].fooled_by][: IMAGES // 2]
    held = [i for i in right if not rows[i].fooled_by][: IMAGES - len(fell)]
    positions = torch.tensor(sorted(fell + held))
    batch = read_batch(images, positions, device, with_parts=True)
    adversarial = clean = batch.images
    for named in attacks:
        keys = Keys(seed, named.name, batch.index)
        adversarial = named.on(view, batch, budget=budget, keys=keys).images
    kept = [fooling(position) for position in positions.tolist()]
    adversarial = torch.stack(
        [tried if found is None else found.to(device) for tried, found in zip(adversarial, kept, strict=True)]
    )
    probe = map_view.probe(clean)
    allowed = rule(probe, batch, Keys(seed, "panel", batch.index), full)
    tensors = {"clean": clean, "adversarial": adversarial, "radius": _plane(allowed, clean)}
    if (probe.attention if kind in ATTENTION_MAPS else probe.features) is not None:
        tensors["importance"] = explain(probe, batch.labels, "true", kind)
    with torch.no_grad():
        before, after = model(clean).softmax(dim=1), model(adversarial).softmax(dim=1)
    header = {
        "labels": batch.labels.tolist(),
        "index": batch.index.tolist(),
        "clean_predictions": before.argmax(dim=1).tolist(),
        "adversarial_predictions": after.argmax(dim=1).tolist(),
        "confidences_clean": before.amax(dim=1).tolist(),
        "confidences_adversarial": after.amax(dim=1).tolist(),
        "classes": list(images.classes),
        "eps": float(budget.size(clean)[0]),
    }
    if isinstance(model, PartModel):
        maps, about = _parts(model, images, batch, adversarial)
        tensors, header = tensors | maps, header | about
    metadata = {name: json.dumps(value) for name, value in header.items()}
    flat = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(flat, temporary, metadata))


def _parts(
    model: PartModel, images: ImageSet, batch: Batch, adversarial: Tensor
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Maps (M, H, W) of part ids: found clean and attacked, annotated where there is any; and what the header says."""
    assert isinstance(model, nn.Module)
    with torch.no_grad(), as_judged(model, adversarial.device):
        clean, attacked = (model.forward_parts(seen).part_logits for seen in (batch.images, adversarial))
    size = (adversarial.shape[2], adversarial.shape[3])
    maps = {"parts": predicted_parts(clean, size), "parts_adversarial": predicted_parts(attacked, size)}
    names = part_names({} if images.parts is None else images.parts.names)
    about: dict[str, Any] = {
        "part_names": [*names, *(f"part {number}" for number in range(len(names), clean.shape[1]))]
    }
    if batch.parts is not None and batch.has_parts is not None:
        maps["parts_true"], about["annotated"] = batch.parts, batch.has_parts.tolist()
    return {name: ids.to(torch.int16) for name, ids in maps.items()}, about


def _plane(allowed: Budget, clean: Tensor) -> Tensor:
    """(B, H, W) radius of each pixel; the whole ball's for budgets without one per pixel."""
    radius = allowed.radius(clean) if isinstance(allowed, Linf) else allowed.size(clean).view(-1, 1, 1, 1)
    return radius.expand_as(clean)[:, 0]
