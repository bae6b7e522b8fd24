"""AT and PART on minimum-margin images: solved by hand on a linear model, and by the published loop on a curved one."""

import gc
import weakref
from functools import partial

import pytest
import torch

from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.contracts import Probe
from counterpart.importance import rules
from counterpart.objectives import adversarial, crafting, trades
from counterpart.seeding import Keys

CLASSES, SHAPE, COUNT = 5, (2, 4, 4), 12
KEYS = Keys(3, "train", torch.arange(COUNT))


class Net:
    """Logits of K classes, linear in the image or bent by a hidden layer; counts its passes."""

    def __init__(self, generator, hidden=None, dtype=torch.float32):
        size = torch.Size(SHAPE).numel()
        made = partial(torch.randn, generator=generator, dtype=dtype)
        self.first = None if hidden is None else made(hidden, size)
        self.last = made(CLASSES, size if hidden is None else hidden)
        self.passes, self.probed = 0, []

    def __call__(self, images):
        self.passes += 1
        flat = (images - 0.5).flatten(1)
        return (flat if self.first is None else (flat @ self.first.T).tanh()) @ self.last.T

    def probe(self, images):
        leaf = images.detach().clone().requires_grad_()
        logits = self(leaf)
        self.probed.append(images)
        return Probe(leaf, logits, leaf * logits.sum(), None)


@pytest.fixture
def batch(generator):
    images = 0.5 + 0.2 * (torch.rand(COUNT, *SHAPE, generator=generator) - 0.5)
    return Batch(images, torch.randint(CLASSES, (COUNT,), generator=generator), torch.arange(COUNT))


def per_pixel(generator, dtype=torch.float32):
    """A rule whose radius differs from pixel to pixel, and the radius."""
    radius = 0.02 + 0.06 * torch.rand(COUNT, 1, *SHAPE[1:], generator=generator, dtype=dtype)
    return lambda probe, batch, keys, full: Linf(radius[batch.index]), radius


def objective(rule, **options):
    given = {"budget": Linf(0.08), "steps": 10, "step_size": 0.03, "targets": 3, **options}
    return adversarial(rule=rule, **given)


def margins(logits, labels):
    """(B, K): each logit minus the true one, the true class itself left out."""
    return (logits - logits.gather(1, labels[:, None])).scatter(1, labels[:, None], -torch.inf)


def test_on_a_linear_model_the_end_is_a_corner_and_the_target_the_class_that_gets_farthest(generator, batch):
    model, (rule, radius) = Net(generator), per_pixel(generator)
    perturbed = objective(rule).perturb(model, batch, KEYS)
    clean, chosen = margins(model(batch.images), batch.labels), []
    for row in range(COUNT):
        y, ways = int(batch.labels[row]), {}
        for target in clean[row].topk(3).indices.tolist():
            direction = (model.last[target] - model.last[y]).view(SHAPE)
            corner = batch.images[row] + radius[row] * direction.sign()
            ways[float(clean[row, target] + (radius[row] * direction.abs()).sum())] = target, corner
        target, corner = ways[max(ways)]
        chosen.append(target)
        torch.testing.assert_close(perturbed.images[row], corner)
    first = clean.argmax(dim=1)
    assert (torch.tensor(chosen) != first).any()  # or one target would have done
    assert perturbed.budget.contains(perturbed.images, batch.images).all()


def published(model, image, label, start, radius, steps, step_size, count):
    """One image by the loop of the published code, its confidence of 50 included."""
    score = model(image[None])[0].detach().clone()
    score[label] -= 10000
    ends, reached = [], []
    for target in score.argsort()[-count:].tolist():
        current = start.clone()
        for _ in range(steps):
            leaf = current[None].requires_grad_()
            logits = model(leaf)[0]
            loss = -(logits[label] - logits[target] + 50).clamp_min(0)
            (gradient,) = torch.autograd.grad(loss, leaf)
            current = current.detach() + step_size * gradient[0].sign()
            current = (image + torch.min(torch.max(current - image, -radius), radius)).clamp(0, 1)
        ends.append(current)
        logits = model(current[None])[0]
        reached.append(float(logits[target] - logits[label]))
    return ends[max(range(count), key=reached.__getitem__)]


@pytest.mark.parametrize("targets", [1, 3])
def test_a_batch_ends_where_the_published_loop_ends_image_by_image(generator, batch, targets):
    model, (rule, radius) = Net(generator, hidden=6, dtype=torch.float64), per_pixel(generator, torch.float64)
    wide = Batch(batch.images.double(), batch.labels, batch.index)
    found = objective(rule, steps=4, targets=targets).perturb(model, wide, KEYS).images
    start = Linf(0.08).sample(wide.images, KEYS)
    for row in range(COUNT):
        alone = published(
            model, wide.images[row], int(wide.labels[row]), start[row], radius[row].expand(SHAPE), 4, 0.03, targets
        )  # fmt: skip
        torch.testing.assert_close(found[row], alone, rtol=0, atol=1e-12)


def test_the_rest_of_the_batch_does_not_matter(generator, batch):
    model, (rule, _) = Net(generator, hidden=6), per_pixel(generator)
    whole = objective(rule).perturb(model, batch, KEYS).images
    keep = torch.tensor([7, 2, 5])
    some = objective(rule).perturb(model, batch.select(keep), KEYS[keep]).images
    torch.testing.assert_close(some, whole[keep])


@pytest.mark.parametrize("drawn_from", [None, "clean", "start"])
def test_the_clean_pass_finds_targets_and_mask_and_no_pass_is_made_twice(generator, batch, drawn_from):
    model, seen = Net(generator, hidden=6), []

    def rule(probe, batch, keys, full):
        seen.append(probe.images.detach())
        return Linf(0.08)

    objective(rule, steps=4, drawn_from=drawn_from).perturb(model, batch, KEYS)
    assert model.passes == 1 + 3 * 4 + 3  # clean, three attacks, three ends
    assert torch.equal(model.probed[0], batch.images)
    assert torch.equal(seen[0], model.probed[-1])
    assert torch.equal(seen[0], batch.images) == (drawn_from != "start")


def test_classes_that_are_not_there_are_refused(generator, batch):
    with pytest.raises(ValueError, match="target 5 does not exist: 5 classes have targets 1 to 4"):
        objective(per_pixel(generator)[0], targets=5).perturb(Net(generator), batch, KEYS)


@pytest.mark.parametrize("make", [objective, partial(trades, budget=Linf(0.08), steps=3)])
def test_the_graph_of_the_clean_pass_is_gone_when_the_attack_begins(generator, batch, make, monkeypatch):
    model, alive, real = Net(generator, hidden=6), [], crafting.pgd
    rule, refs = rules.constant, []

    def watched(probe, batch, keys, full):
        refs.append(weakref.ref(probe.logits))
        return rule(probe, batch, keys, full)

    def pgd(*arguments, **options):
        gc.collect()
        alive.append(refs[0]() is not None)
        return real(*arguments, **options)

    monkeypatch.setattr(crafting, "pgd", pgd)
    make(rule=watched).perturb(model, batch, KEYS)
    assert alive
    assert not any(alive)
