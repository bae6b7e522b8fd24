"""PGD and FGSM against torchattacks: without a random start, the same images."""

import pytest
import torch

from counterpart.attacks import fgsm, pgd
from counterpart.budget import L2, Linf
from counterpart.seeding import Keys

torchattacks = pytest.importorskip(
    "torchattacks", reason="needs torchattacks: pip install --no-deps torchattacks requests"
)


@pytest.fixture
def problem(robust_digits):
    model, images, labels = robust_digits
    return model, images[:128], labels[:128], Keys(0, "pgd", torch.arange(128))


@pytest.mark.reference
def test_pgd_in_linf(problem):
    model, images, labels, keys = problem
    theirs = torchattacks.PGD(model, eps=0.15, alpha=0.02, steps=12, random_start=False)(images, labels)
    options = {"steps": 12, "step_size": 0.02, "random_start": False, "last_iterate": True}
    ours = pgd(model, images, labels, budget=Linf(0.15), keys=keys, **options).images
    # A gradient of rounding's size may take either sign: few values, and never a whole image.
    assert ((ours - theirs).abs() < 1e-5).float().mean() > 0.999
    assert torch.equal(model(ours).argmax(dim=1), model(theirs).argmax(dim=1))


@pytest.mark.reference
def test_pgd_in_l2(problem):
    model, images, labels, keys = problem
    theirs = torchattacks.PGDL2(model, eps=1.0, alpha=0.2, steps=12, random_start=False)(images, labels)
    options = {"steps": 12, "step_size": 0.2, "random_start": False, "last_iterate": True}
    ours = pgd(model, images, labels, budget=L2(1.0), keys=keys, **options).images
    # Ours is the nearest point of ball and box together; theirs is clipped after the ball.
    agree = model(ours).argmax(dim=1) == model(theirs).argmax(dim=1)
    assert agree.float().mean() > 0.95
    assert (model(ours).argmax(dim=1) == labels).sum() <= (model(theirs).argmax(dim=1) == labels).sum() + 2


@pytest.mark.reference
def test_fgsm(problem):
    model, images, labels, keys = problem
    theirs = torchattacks.FGSM(model, eps=0.1)(images, labels)
    ours = fgsm(model, images, labels, budget=Linf(0.1), keys=keys).images
    still = model(images).argmax(dim=1) == labels  # ours leaves what is wrong already
    torch.testing.assert_close(ours[still], theirs[still], atol=1e-6, rtol=0)
