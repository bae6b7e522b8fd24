"""Budgets of a region: what lies outside of it stays."""

import pytest
import torch

from counterpart.attacks import pgd
from counterpart.batch import Batch
from counterpart.evaluation.region_budgets import budgets_of_region
from counterpart.seeding import Keys

INDEX = torch.tensor([5, 3, 9])


def masks():
    mask = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    for row in range(3):
        mask[row, 0, row] = True
    return mask


class Sum(torch.nn.Module):
    """Two classes by the sum of the pixels."""

    def forward(self, images):
        total = images.flatten(1).sum(dim=1)
        return torch.stack([total, -total], dim=1)


@pytest.mark.parametrize(("norm", "eps", "moved"), [("linf", 0.1, 0.4), ("l2", 0.1, 0.2), ("l1", 0.1, 0.1)])
def test_an_image_moves_in_its_region_alone_and_as_far_as_the_norm_lets_it(norm, eps, moved):
    budget_of = budgets_of_region(norm, eps, masks(), INDEX)
    images, labels = torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64)
    batch = Batch(images, labels, torch.tensor([9, 5]))  # images find their masks by index
    keys = Keys(0, "test", batch.index)
    attacked = pgd(Sum(), images, labels, budget=budget_of(batch), keys=keys, steps=20).images
    change = (images - attacked).abs()
    assert change[0, 0, [0, 1, 3]].sum() == change[1, 0, 1:].sum() == 0
    assert change.sum(dim=(1, 2, 3)).tolist() == pytest.approx([moved, moved], rel=0.02)
    assert budget_of(batch).contains(attacked, images).all()
    elsewhere = images.clone()
    elsewhere[0, 0, 0, 0] -= 1e-3
    assert budget_of(batch).contains(elsewhere, images).tolist() == [False, True]
