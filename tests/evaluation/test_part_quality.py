"""Pixel accuracy and mIoU of parts, on counts done by hand and by brute force."""

import pytest
import torch
from torch import nn

from counterpart.budget import Linf
from counterpart.data.image_sets import ImageSet
from counterpart.data.parts import Parts
from counterpart.evaluation.part_quality import PartCounts, count_parts, part_metrics
from counterpart.protocols import Attacked, NamedAttack, PartModel, PartOutput

NAMES = {"cat": {"head": 1}, "dog": {"tail": 2}}


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
        pixels=pixels, parts=Parts(NAMES, 2, there, masks),
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
    assert (found.both.shape, found.size) == ((4, 3), 16)
    for row, image in enumerate((0, 1, 3, 4)):
        both, either = [0, 0, 0], [0, 0, 0]
        for y in range(4):
            for x in range(4):
                red, _, blue = (images.pixels[image, :, y, x].float() / 255 - 0.5).tolist()
                scores = [0.001, 2 * red, blue]
                seen, true = scores.index(max(scores)), int(images.parts.masks[image, y, x])
                both[true] += seen == true
                either[true] += 1
                either[seen] += seen != true
        assert found.both[row].tolist() == both
        assert found.either[row].tolist() == either
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


def test_both_measures_are_of_the_data_set():
    """Two images of 10 pixels; part 2 occurs in neither and does not count."""
    counts = PartCounts(
        torch.tensor([[6.0, 2.0, 0.0], [9.0, 0.0, 0.0]]),
        torch.tensor([[8.0, 4.0, 0.0], [10.0, 1.0, 0.0]]),
        10,
    )
    accuracy, iou = part_metrics(counts, "clean", {"model": "m"}, seed=0)
    assert (accuracy.name, iou.name) == ("parts/pixel accuracy clean", "parts/mIoU clean")
    assert accuracy.value == pytest.approx((8 + 9) / 20)
    assert iou.value == pytest.approx((15 / 18 + 2 / 5) / 2)
    assert accuracy.n == 2
    # the images' accuracies are 0.8 and 0.9, their standard error 0.05
    assert accuracy.interval == pytest.approx((0.85 - 1.96 * 0.05, 0.85 + 1.96 * 0.05), abs=1e-4)


def test_intervals_are_as_wide_as_a_bootstrap_says(generator):
    """150 images of 100 pixels and two parts, of which the second is rare."""
    sizes = torch.stack([torch.full((150,), 90), torch.full((150,), 10)], dim=1).double()
    both = (torch.rand(150, 2, generator=generator).double() * sizes).round()
    either = 100 - both.flip(1) + 0.0
    counts = PartCounts(both, either, 100)
    weights = torch.zeros(2000, 150).double()
    draws = torch.randint(150, (2000, 150), generator=generator)
    weights.scatter_add_(1, draws, torch.ones(2000, 150).double())
    resampled = ((weights @ both) / (weights @ either)).mean(dim=1), (weights @ both.sum(dim=1)) / 15000
    for record, values in zip(part_metrics(counts, "clean", {}, 0)[::-1], resampled, strict=True):
        low, high = record.interval
        assert (high - low) / 2 == pytest.approx(1.96 * float(values.std()), rel=0.08)
        assert (high + low) / 2 == pytest.approx(record.value)
