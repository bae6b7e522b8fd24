"""The published AutoAttack, run through our interface, leaves the images that our own attack leaves."""

import pytest
import torch

from counterpart.attacks import apgd, official
from counterpart.budget import NORMS
from counterpart.seeding import Keys

pytest.importorskip("pyautoattack", reason="needs the bench extra: pip install '.[bench]'")


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l2", 0.8), ("l1", 1.5)])
def test_the_same_images_survive(robust_digits, norm, eps):
    model, images, labels = robust_digits
    budget, keys = NORMS[norm](eps), Keys(0, "apgd-ce", torch.arange(len(labels)))
    theirs = official.official(
        model, images, labels, budget=budget, keys=keys, attack="apgd-ce", version="standard"
    )
    ours = apgd(model, images, labels, budget=budget, keys=keys, restarts=5 if norm == "l1" else 1)
    left = [model(attacked.images).argmax(dim=1) == labels for attacked in (theirs, ours)]
    assert 0.1 < left[1].float().mean() < 0.9
    assert int((left[0] ^ left[1]).sum()) <= 0.04 * len(labels)
    assert abs(int(left[0].sum()) - int(left[1].sum())) <= 0.02 * len(labels)
    assert budget.contains(theirs.images, images).float().mean() > 0.9
