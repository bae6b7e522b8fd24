from functools import partial

import pytest
import torch

from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.data.image_sets import ImageSet
from counterpart.data.loaders import batches, epoch_order
from counterpart.data.transforms import Augmentation
from counterpart.importance import store
from counterpart.importance.rules import constant, explain, part
from counterpart.protocols import Probe
from counterpart.seeding import Keys

EPS, LOW = 8 / 255, 7 / 255
KEYS = Keys(0, "rules", torch.arange(8))


@pytest.fixture
def probe(generator):
    features = torch.rand(8, 6, 4, 4, generator=generator)
    weights = torch.randn(3, 6, generator=generator)
    logits = torch.randn(8, 3, generator=generator)
    return Probe(torch.rand(8, 3, 16, 16, generator=generator), logits, features, weights)


@pytest.fixture
def batch(probe):
    return Batch(probe.images, torch.arange(8) % 3, torch.arange(8))


def test_part_gives_two_radii_by_the_map(probe, batch):
    budget = part(probe, batch, KEYS, eps=EPS, eps_low=LOW)
    assert budget.eps.shape == (8, 1, 16, 16)
    high = budget.eps == torch.tensor(EPS)
    assert (high | (budget.eps == torch.tensor(LOW))).all()
    maps = explain(probe, batch.labels, "true")
    upscaled = torch.nn.functional.interpolate(maps[:, None], (16, 16), mode="bilinear")
    for image in range(8):
        if 0 < high[image].sum() < 256:
            assert upscaled[image][high[image]].mean() > upscaled[image][~high[image]].mean()


def test_the_class_of_the_map_matters(probe, batch):
    true = part(probe, batch, KEYS, eps=EPS, eps_low=LOW, map_class="true").eps
    predicted = part(probe, batch, KEYS, eps=EPS, eps_low=LOW, map_class="predicted").eps
    same = probe.logits.argmax(dim=1) == batch.labels
    assert 0 < same.sum() < 8
    assert torch.equal(true[same], predicted[same])
    assert not torch.equal(true[~same], predicted[~same])


def test_the_uniform_control_has_the_same_means(probe, batch):
    paper = part(probe, batch, KEYS, eps=EPS, eps_low=LOW)
    control = part(probe, batch, KEYS, eps=EPS, eps_low=LOW, control="uniform")
    torch.testing.assert_close(control.mean(batch.images), paper.mean(batch.images))
    assert not torch.equal(control.eps, paper.eps)


def test_equal_radii_are_the_constant_rule(probe, batch):
    plane, number = (
        part(probe, batch, KEYS, eps=EPS, eps_low=EPS),
        constant(probe, batch, KEYS, budget=Linf(EPS)),
    )
    noise = torch.rand(8, 3, 16, 16)
    assert torch.equal(plane.project(noise, batch.images), number.project(noise, batch.images))


def test_stored_importance_replaces_the_map(probe, batch):
    stored = torch.zeros(8, 16, 16)
    stored[:, 3, 5] = 1
    with_store = Batch(batch.images, batch.labels, batch.index, importance=stored)
    eps = part(probe, with_store, KEYS, eps=EPS, eps_low=LOW).eps
    assert ((eps == torch.tensor(EPS)).flatten(1).sum(dim=1) == 1).all()
    assert (eps[:, 0, 3, 5] == torch.tensor(EPS)).all()


@pytest.mark.parametrize("low", [LOW, EPS])
@pytest.mark.parametrize("control", ["none", "uniform"])
def test_flat_maps_are_told_whatever_the_radii(probe, batch, low, control):
    flat = Probe(probe.images, probe.logits, probe.features.clone(), probe.weights)
    flat.features[2] = 0
    flat.features[5] = torch.nan
    expected = torch.zeros(8, dtype=torch.bool)
    expected[[2, 5]] = True
    dead = explain(flat, batch.labels, "true").amax(dim=(1, 2)) <= 0  # all evidence negative: flat as well
    budget = part(flat, batch, KEYS, eps=EPS, eps_low=low, control=control)
    assert torch.equal(budget.flat, expected | dead)
    assert not budget.flat.all()
    assert (budget.radius(batch.images)[budget.flat] == torch.tensor(EPS)).all()


class IndexView:
    """A view whose map shows the index that is written into each image's pixels."""

    def __call__(self, images):
        return self.probe(images).logits

    def probe(self, images):
        code = (images[:, 0, 8, 8] * 255).round().long()  # the centre survives any crop by 2 pixels
        features = torch.zeros(len(images), 1, 4, 4)
        for row, value in enumerate(code.tolist()):
            features[row, 0, value // 4 % 4, value % 4] = 1
        return Probe(images, torch.zeros(len(images), 2), features, torch.ones(2, 1))


def numbered(n=16):
    """Every pixel of image i has the value i."""
    pixels = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 16, 16).contiguous()
    return ImageSet(
        "numbered", "train", ("a", "b"), torch.arange(n) % 2, torch.arange(n), "f" * 12, (1, 16, 16), pixels
    )


@pytest.mark.parametrize("epoch", [0, 1])
def test_each_sample_meets_its_own_stored_map_after_shuffling_and_augmentation(epoch):
    """The published code pairs masks with other images: its loader reshuffles between the two passes."""
    images, device = numbered(), torch.device("cpu")
    maps = store.fill(IndexView(), batches(images, batch_size=5, device=device), 16, "true")
    assert maps.shape == (16, 4, 4)
    augmentation = Augmentation(padding=2, flip=True)
    seen = []
    for batch in batches(
        images,
        batch_size=5,
        device=device,
        order=epoch_order(16, seed=3, epoch=epoch),
        augmentation=augmentation,
        seed=3,
        epoch=epoch,
        maps=maps,
    ):
        inside = batch.images[:, 0] > 0  # padding is black; so is image 0
        for row, index in enumerate(batch.index.tolist()):
            seen.append(index)
            if index == 0:
                continue
            y, x = divmod(int(batch.importance[row].flatten().argmax()), 16)
            # where this image's crop and flip put the cell that belongs to its number
            cell_y, cell_x = index // 4 % 4, index % 4
            rows, columns = inside[row].any(dim=1).nonzero()[:, 0], inside[row].any(dim=0).nonzero()[:, 0]
            assert abs(y - (4 * cell_y + 1.5)) <= 4.1 + (16 - len(rows))
            near = [abs(x - (4 * c + 1.5)) <= 4.1 + (16 - len(columns)) for c in (cell_x, 3 - cell_x)]
            assert any(near)
            assert float(batch.images[row].max() * 255) == pytest.approx(index, abs=0.01)
    assert sorted(seen) == list(range(16))
    assert seen != list(range(16))


def test_a_store_survives_nan_maps_and_absent_samples():
    class Broken(IndexView):
        def probe(self, images):
            features = torch.ones(len(images), 1, 2, 2)
            features[0] = torch.nan
            return Probe(images, torch.zeros(len(images), 2), features, torch.ones(2, 1))

    chosen = numbered().subset(torch.tensor([3, 9]))
    maps = store.fill(Broken(), batches(chosen, batch_size=2, device=torch.device("cpu")), 16, "true")
    assert maps.isfinite().all()
    assert maps.flatten(1).sum(dim=1).nonzero()[:, 0].tolist() == [9]


def test_rules_are_bound_with_partial(probe, batch):
    rule = partial(part, eps=EPS, eps_low=LOW)
    assert isinstance(rule(probe, batch, KEYS), Linf)
