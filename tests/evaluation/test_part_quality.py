"""Pixel accuracy and mIoU of parts, on counts done by hand and by brute force."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from counterpart.budget import Linf
from counterpart.contracts import Attacked, NamedAttack, PartModel, PartOutput
from counterpart.data.image_sets import ImageSet
from counterpart.data.parts import Parts
from counterpart.errors import UserError
from counterpart.evaluation.part_quality import (
    NAMES,
    PartCounts,
    count_parts,
    metrics_of,
    part_metrics,
    refuse_without_parts,
)

PARTS = {"cat": {"head": 1}, "dog": {"tail": 2}}
CALLED = ("background", "cat head", "dog tail")


class Red(nn.Module):
    """Sees part 1 where an image is redder than a half, else part 2 where it is bluer, else the background."""

    full_resolution = False

    def __init__(self):
        super().__init__()
        self.register_buffer("part_classes", torch.tensor([0, 1]))

    def forward(self, images):
        return self.forward_parts(images).logits

    def forward_parts(self, images):
        red, blue = images[:, 0] - 0.5, images[:, 2] - 0.5
        maps = torch.stack([torch.full_like(red, 0.001), 2 * red, blue], dim=1)
        return PartOutput(maps[:, 1:].mean(dim=(2, 3)), maps)

    def classify_parts(self, part_logits):
        return part_logits[:, 1:].mean(dim=(2, 3))


@pytest.fixture
def images(generator):
    pixels = torch.randint(0, 256, (5, 3, 4, 4), generator=generator).to(torch.uint8)
    masks = torch.randint(0, 3, (5, 4, 4), generator=generator).to(torch.uint8)
    there = torch.tensor([True, True, False, True, True])  # the third has no annotation
    return ImageSet(
        "drawn", "test", ("cat", "dog"), torch.tensor([0, 1, 0, 1, 0]), torch.tensor([3, 5, 8, 9, 20]), "f", (3, 4, 4),
        pixels=pixels, parts=Parts(PARTS, 2, there, masks),
    )  # fmt: skip


def counted(images, attack=None, batch_size=2):
    model = Red().eval()
    assert isinstance(model, PartModel)
    budget = Linf(8 / 255)
    return count_parts(
        model, model, images, attack=attack, budget_of=lambda _: budget, batch_size=batch_size,
        device=torch.device("cpu"), seed=0,
    )  # fmt: skip


def test_pixels_are_counted_as_by_hand(images):
    found = counted(images)
    assert (found.both.shape, tuple(found.names)) == ((4, 3), CALLED)
    for row, image in enumerate((0, 1, 3, 4)):
        both, here, predicted = [0, 0, 0], [0, 0, 0], [0, 0, 0]
        for y in range(4):
            for x in range(4):
                red, _, blue = (images.pixels[image, :, y, x].float() / 255 - 0.5).tolist()
                scores = [0.001, 2 * red, blue]
                seen, true = scores.index(max(scores)), int(images.parts.masks[image, y, x])
                both[true] += seen == true
                here[true] += 1
                predicted[seen] += 1
        assert found.both[row].tolist() == both
        assert found.true[row].tolist() == here
        assert found.predicted[row].tolist() == predicted
    assert torch.equal(counted(images, batch_size=4).both, found.both)


def test_an_attack_changes_what_is_seen_within_its_budget(images):
    seen = []

    def attack(view, clean, labels, *, budget, keys):
        moved = budget.project(torch.ones_like(clean), clean)
        seen.append((moved, clean, keys.index.tolist()))
        none = torch.zeros_like(labels)
        return Attacked(moved, none, none)

    counted(images, NamedAttack("push", attack, "push"))
    assert [index for *_, index in seen] == [[3, 5], [9, 20]]
    assert all(Linf(8 / 255).contains(moved, clean).all() for moved, clean, _ in seen)


def test_all_measures_are_of_the_data_set():
    """Two images of 10 pixels; part 2 occurs in neither and does not count."""
    counts = PartCounts(
        CALLED,
        both=torch.tensor([[6.0, 2.0, 0.0], [9.0, 0.0, 0.0]]),
        true=torch.tensor([[7.0, 3.0, 0.0], [9.0, 1.0, 0.0]]),
        predicted=torch.tensor([[7.0, 3.0, 0.0], [10.0, 0.0, 0.0]]),
    )
    accuracy, foreground, iou = metrics_of(counts, "clean", {"model": "m"}, seed=0)
    assert [r.name for r in (accuracy, foreground, iou)] == [*NAMES[:3]]
    assert accuracy.value == pytest.approx((8 + 9) / 20)
    assert foreground.value == pytest.approx(2 / 4)
    assert iou.value == pytest.approx((15 / 18 + 2 / 5) / 2)
    assert accuracy.n == 2
    # the images' accuracies are 0.8 and 0.9, their standard error 0.05
    assert accuracy.interval == pytest.approx((0.85 - 1.96 * 0.05, 0.85 + 1.96 * 0.05), abs=1e-4)
    table = iou.details["per_part"]
    assert {part: (one["iou"], one["n"], one["interval"]) for part, one in table.items()} == {
        "background": (pytest.approx(15 / 18), 2, None),  # too few images
        "cat head": (pytest.approx(2 / 5), 2, None),
    }
    assert all("per_part" not in r.details for r in (accuracy, foreground))


def test_masks_without_any_part_have_no_accuracy_of_parts():
    none = torch.tensor([[4.0, 0.0, 0.0]])
    found = metrics_of(PartCounts(CALLED, none, none, none), "clean", {}, seed=0)
    assert [record.name for record in found] == ["parts/pixel accuracy clean", "parts/mIoU clean"]


def test_a_part_that_is_only_imagined_has_no_intersection():
    """Part 2 is found in 20 images and annotated in none; part 1 is found exactly as it is."""
    counts = torch.tensor([[5.0, 4.0, 0.0]]).expand(20, 3)
    true, found = counts + torch.tensor([1.0, 0.0, 0.0]), counts + torch.tensor([0.0, 0.0, 1.0])
    *_, iou = metrics_of(PartCounts(CALLED, counts, true, found), "clean", {}, seed=0)
    table = iou.details["per_part"]
    assert (table["dog tail"]["iou"], table["dog tail"]["n"], table["dog tail"]["interval"]) == (0.0, 0, None)
    assert (table["cat head"]["iou"], table["cat head"]["interval"]) == (1.0, None)  # no spread to see


def test_intervals_are_as_wide_as_a_bootstrap_says(generator):
    """150 images of 100 pixels and three kinds of pixels, of which the last are rare."""
    true = torch.tensor([[70.0, 20.0, 10.0]]).expand(150, 3).double()
    both = (torch.rand(150, 3, generator=generator).double() * true).round()
    missed = (true - both).sum(dim=1)
    found = both + torch.stack([missed // 2, missed - missed // 2, torch.zeros(150)], dim=1)
    either = true + found - both
    weights = torch.zeros(2000, 150).double()
    draws = torch.randint(150, (2000, 150), generator=generator)
    weights.scatter_add_(1, draws, torch.ones(2000, 150).double())
    of_parts = (weights @ both) / (weights @ either)
    pixels, foreground, iou = metrics_of(PartCounts(CALLED, both, true, found), "clean", {}, 0)
    resampled = [
        (pixels.value, pixels.interval, (weights @ both.sum(dim=1)) / 15000),
        (foreground.value, foreground.interval, (weights @ both[:, 1:].sum(dim=1)) / 4500),
        (iou.value, iou.interval, of_parts.mean(dim=1)),
        *(
            (one["iou"], one["interval"], of_parts[:, i])
            for i, one in enumerate(iou.details["per_part"].values())
        ),
    ]
    assert len(resampled) == 6
    for value, (low, high), values in resampled:
        assert (high - low) / 2 == pytest.approx(1.96 * float(values.std()), rel=0.08)
        assert (high + low) / 2 == pytest.approx(value)


def test_parts_are_measured_clean_and_under_both_attacks(images):
    budget = Linf(8 / 255)
    found = part_metrics(
        Red().eval(), Red().eval(), images, budget_of=lambda _: budget, batch_size=2,
        device=torch.device("cpu"), seed=0, details={"model": "red"},
    )  # fmt: skip
    assert [record.name for record in found] == [*NAMES]
    value = {record.name: record.value for record in found}
    on_parts = value["parts/pixel accuracy without background under PGD-20 on the parts"]
    assert on_parts < value["parts/pixel accuracy without background clean"]
    assert all(record.details["model"] == "red" for record in found)


def test_parts_are_measured_of_part_models_on_annotated_images_alone(images):
    refuse_without_parts("parts/pixel", Red(), images)
    with pytest.raises(UserError, match="resnet18 is no part model and finds no parts: evaluate a part"):
        refuse_without_parts("resnet18", nn.Identity(), images)
    unmarked = replace(images.parts, there=torch.zeros(5, dtype=torch.bool))
    for parts in (None, unmarked):
        with pytest.raises(UserError, match="the test images of drawn have no annotated parts: use data"):
            refuse_without_parts("parts/pixel", Red(), replace(images, parts=parts))
    others = replace(images.parts, names={"cat": {"head": 1}, "dog": {}})
    with pytest.raises(
        UserError, match="was trained to find 2 parts, and drawn names 1: judge it on the data"
    ):
        refuse_without_parts("parts/pixel", Red(), replace(images, parts=others))
