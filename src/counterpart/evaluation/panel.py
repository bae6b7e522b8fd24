"""A few images of an evaluation for the report: clean, attacked, with their parts and the rule's radii."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..budget import Budget, Linf
from ..contracts import NamedAttack, PartModel, Rule, View
from ..data.image_sets import ImageSet
from ..data.parts import part_names
from ..importance.rules import explain
from ..part_maps import predicted_parts
from ..pictures import Pictures
from ..saliency import ATTENTION_MAPS
from ..seeding import Keys, derive
from .answers import as_judged
from .batches import read_batch
from .ledger import LedgerRow

OF_EACH = 4
"""How many images are shown that fooled, that held and that were wrong from the start, at most."""


@dataclass(frozen=True)
class PanelAttack:
    """The attack that is shown where no image is kept that fooled the model.

    Attributes:
        view: the view of the model that the attack searches on.
        budget: the budget of the attack.
        attacks: the attack to show, or an empty sequence.
    """

    view: View
    budget: Budget
    attacks: Sequence[NamedAttack]


@dataclass(frozen=True)
class PanelRule:
    """The training rule, whose importance maps and radii are shown.

    Attributes:
        view: the view of the model from which maps are drawn.
        kind: the kind of importance map.
        rule: the rule of training; the radius that it gives each pixel is shown.
        full: the budget that the rule narrows.
    """

    view: View
    kind: str
    rule: Rule
    full: Budget


def draw_pictures(
    model: nn.Module,
    images: ImageSet,
    rows: Sequence[LedgerRow],
    *,
    attack: PanelAttack,
    training: PanelRule,
    fooling: Callable[[int], Tensor | None],
    device: torch.device,
    seed: int,
) -> Pictures:
    """The pictures of some images that fell, some that held and some that were wrong from the start, drawn at random.

    Those that were wrong from the start are shown clean in both places: nothing had to attack them.

    Args:
        model: the original model.
        images: the images that were evaluated.
        rows: the results of the images, in the same order.
        attack: the attack to show where no image is kept that fooled the model.
        training: the rule of training and what it draws maps from.
        fooling: a function from the position of an image to the attacked image (C, H, W) that fooled the
            model first, or None where none was kept.
        device: the device that computes.
        seed: the seed of the evaluation, from which the images are drawn.
    """
    positions = torch.tensor([position for group in draw_groups(rows, seed).values() for position in group])
    batch = read_batch(images, positions, device, with_parts=True)
    adversarial = clean = batch.images
    for named in attack.attacks:
        keys = Keys(seed, named.name, batch.index)
        adversarial = named.on(attack.view, batch, budget=attack.budget, keys=keys).images
    saved = [fooling(position) for position in positions.tolist()]
    adversarial = torch.stack(
        [
            tried if image is None else image.to(device)
            for tried, image in zip(adversarial, saved, strict=True)
        ]
    )
    wrong = torch.tensor([not rows[position].right for position in positions.tolist()], device=device)
    adversarial = torch.where(wrong.view(-1, 1, 1, 1), clean, adversarial)
    probe = training.view.probe(clean)
    allowed = training.rule(probe, batch, Keys(seed, "panel", batch.index), training.full)
    has_map = (probe.attention if training.kind in ATTENTION_MAPS else probe.features) is not None
    maps = {}
    if has_map:
        attacked = training.view.probe(adversarial)
        maps["importance"] = explain(probe, batch.labels, "true", training.kind)
        maps["importance_adversarial"] = explain(attacked, batch.labels, "true", training.kind)
    with torch.no_grad():
        before, after = model(clean).softmax(dim=1), model(adversarial).softmax(dim=1)
    about: dict[str, Any] = {}
    if isinstance(model, PartModel):
        parts, about = _parts(model, images, batch, adversarial)
        maps |= parts
    tensors = {"clean": clean, "adversarial": adversarial, "radius": _plane(allowed, clean), **maps}
    arrays: dict[str, Any] = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    return Pictures(
        **arrays,
        labels=batch.labels.tolist(),
        index=batch.index.tolist(),
        clean_predictions=before.argmax(dim=1).tolist(),
        adversarial_predictions=after.argmax(dim=1).tolist(),
        confidences_clean=before.amax(dim=1).tolist(),
        confidences_adversarial=after.amax(dim=1).tolist(),
        classes=list(images.classes),
        eps=float(attack.budget.size(clean)[0]),
        fooled_by=[_fooled_by(rows[position]) for position in positions.tolist()],
        **about,
    )


def _fooled_by(row: LedgerRow) -> str:
    """The name of the attack that fooled the model first; "" where the image held, or was wrong from the start."""
    return row.fooled_by if row.right else ""


def groups_of(rows: Sequence[LedgerRow]) -> dict[str, list[int]]:
    """The positions of the images that fooled, that held and that were wrong from the start.

    A survivor on whom not all attacks were tried is in none of them.
    """
    groups: dict[str, list[int]] = {"fooled": [], "held": [], "wrong": []}
    for position, row in enumerate(rows):
        if not row.right:
            groups["wrong"].append(position)
        elif row.fooled_by and not row.untried:
            groups["fooled"].append(position)
        elif not row.fooled_by:
            groups["held"].append(position)
    return groups


def draw_groups(rows: Sequence[LedgerRow], seed: int) -> dict[str, list[int]]:
    """Some positions of each group, at most ``OF_EACH``, drawn at random from a seed, in the order of the images."""
    generator = torch.Generator().manual_seed(derive(seed, "pictures"))
    drawn = {}
    for name, positions in groups_of(rows).items():
        order = torch.randperm(len(positions), generator=generator)[:OF_EACH]
        drawn[name] = sorted(positions[place] for place in order.tolist())
    return drawn


def _parts(
    model: PartModel, images: ImageSet, batch: Batch, adversarial: Tensor
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The maps (M, H, W) of part ids, and the names of the parts with what else belongs to the maps.

    There are maps of the parts that are found in the clean and in the attacked images, and of the annotated
    parts where there are any.
    """
    assert isinstance(model, nn.Module)
    with torch.no_grad(), as_judged(model, adversarial.device):
        clean = model.forward_parts(batch.images).part_logits
        attacked = model.forward_parts(adversarial).part_logits
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
    """The radius (B, H, W) of each pixel; that of the whole ball for budgets without a radius per pixel."""
    radius = allowed.radius(clean) if isinstance(allowed, Linf) else allowed.size(clean).view(-1, 1, 1, 1)
    return radius.expand_as(clean)[:, 0]
