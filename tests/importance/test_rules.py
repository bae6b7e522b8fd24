from dataclasses import replace
from functools import partial

import pytest
import torch

from counterpart.batch import Batch
from counterpart.budget import L2, Linf
from counterpart.catalogue import CONTROLS as CONTROL_ENTRIES
from counterpart.catalogue import MASK_RULES
from counterpart.contracts import Probe
from counterpart.data.image_sets import ImageSet
from counterpart.data.loaders import batches, epoch_order
from counterpart.data.transforms import Augmentation
from counterpart.errors import UserError
from counterpart.importance import store
from counterpart.importance.masks import Mask
from counterpart.importance.rules import MapSource, Quantile, Standardised, constant, draw_budget, explain
from counterpart.importance.users_rules import call_users_rule
from counterpart.seeding import Keys

EPS, LOW = 8 / 255, 7 / 255
KEYS = Keys(0, "rules", torch.arange(8))
OF_MAPS = ("paper", "quantile", "soft", "mean-preserving", "published-code")
CONTROLS = ("none", "uniform", "shuffled", "random", "inverse")


def part(
    probe,
    batch,
    keys,
    *,
    eps,
    eps_low,
    mask="paper",
    control="none",
    kind="grad-cam",
    map_class="true",
    **options,
):
    """The budget under a mask rule and a control, by their names in the catalogue."""
    entry = MASK_RULES[mask]
    rule = entry.load()(**options)
    if entry.facts.needs_map:
        rule = replace(rule, source=MapSource(kind, map_class))
    control = CONTROL_ENTRIES[control].load()
    return draw_budget(probe, batch, keys, Linf(eps), eps_low=eps_low, mask=rule, control=control)


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


def test_a_budget_that_multiplies_may_begin_without_any_radius(probe, batch):
    """As training's does under ``attack.eps_warmup``."""
    multiplied = draw_budget(probe, batch, KEYS, Linf(EPS), eps_low=LOW, multiply=True)
    assert multiplied.multiplied_from == EPS
    first = draw_budget(probe, batch, KEYS, Linf(0.0), eps_low=0.0, multiply=True)
    moved = first.advance(batch.images, torch.ones_like(batch.images), 0.1, batch.images)
    assert torch.equal(moved, batch.images)


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
        constant(probe, batch, KEYS, Linf(EPS)),
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
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("mask", OF_MAPS)
def test_flat_maps_are_told_and_full_whatever_the_settings(probe, batch, mask, low, control):
    flat = Probe(probe.images, probe.logits, probe.features.clone(), probe.weights)
    flat.features[2] = 0
    flat.features[5] = torch.nan
    expected = torch.zeros(8, dtype=torch.bool)
    expected[[2, 5]] = True
    dead = explain(flat, batch.labels, "true").amax(dim=(1, 2)) <= 0  # all evidence negative: flat as well
    budget = part(flat, batch, KEYS, eps=EPS, eps_low=low, mask=mask, control=control)
    assert torch.equal(budget.flat, expected | dead)
    assert not budget.flat.all()
    assert (budget.radius(batch.images)[budget.flat] == torch.tensor(EPS)).all()
    assert budget.radius(batch.images).isfinite().all()


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("mask", OF_MAPS)
def test_every_control_of_every_mask_keeps_what_it_promises(probe, batch, mask, control):
    features = probe.features + 0.1  # some evidence for every class
    probe = Probe(probe.images, probe.logits, features, probe.weights.abs())
    plain = part(probe, batch, KEYS, eps=EPS, eps_low=LOW, mask=mask)
    assert not plain.flat.any()
    made = part(probe, batch, KEYS, eps=EPS, eps_low=LOW, mask=mask, control=control)
    means, before = made.mean(batch.images), plain.mean(batch.images)
    assert torch.equal(made.eps, plain.eps) == (control == "none")
    if control in ("uniform", "random") or mask == "mean-preserving":
        torch.testing.assert_close(means, before)
    elif control == "shuffled":
        torch.testing.assert_close(means, before.roll(-1))
    elif control == "inverse":
        torch.testing.assert_close(means, EPS + LOW - before)
    if control == "inverse" and mask in ("paper", "quantile", "published-code"):
        assert torch.equal(made.eps == torch.tensor(EPS), plain.eps == torch.tensor(LOW))
    if control == "inverse" and mask == "mean-preserving":
        torch.testing.assert_close(255 * made.eps.unique(), torch.tensor([5.0, 9.0]))


@pytest.mark.parametrize("mask", ["quadrant", "centre"])
def test_masks_without_a_map_need_no_features(probe, batch, mask):
    bare = Probe(probe.images, probe.logits)
    options = {"quadrant": "lower-right"} if mask == "quadrant" else {}
    budget = part(bare, batch, KEYS, eps=EPS, eps_low=LOW, mask=mask, **options)
    assert not budget.flat.any()
    assert (
        (budget.eps == torch.tensor(LOW)).flatten(1).float().mean(dim=1)
        == (0.25 if mask == "quadrant" else 0.75)
    ).all()
    inverse = part(bare, batch, KEYS, eps=EPS, eps_low=LOW, mask=mask, control="inverse", **options)
    assert torch.equal(inverse.eps == torch.tensor(EPS), budget.eps == torch.tensor(LOW))


@pytest.mark.parametrize("control", CONTROLS)
def test_a_mask_of_the_users_own_is_the_radius_itself(probe, batch, generator, control):
    shares = torch.randint(0, 256, (8, 16, 16), generator=generator) / 255
    shares[2] = 0  # eps_low everywhere is a mask as any other
    shares[5] = torch.nan  # no mask
    own = Batch(batch.images, batch.labels, batch.index, importance=shares)
    bare = Probe(probe.images, probe.logits)
    made = part(bare, own, KEYS, eps=EPS, eps_low=LOW, mask="file", control=control)
    assert made.flat.tolist() == [i == 5 for i in range(8)]
    assert (made.eps[5] == torch.tensor(EPS)).all()
    there = [i for i in range(8) if i != 5]
    radii, expected = made.eps[there, 0].double(), LOW + (EPS - LOW) * shares[there].double()
    if control == "none":
        torch.testing.assert_close(radii, expected, rtol=0, atol=1e-8)
    elif control == "shuffled":
        torch.testing.assert_close(radii, expected.roll(-1, 0), rtol=0, atol=1e-8)
    elif control == "inverse":
        torch.testing.assert_close(radii, EPS + LOW - expected, rtol=0, atol=1e-8)
    else:
        torch.testing.assert_close(radii.mean(dim=(1, 2)), expected.mean(dim=(1, 2)), rtol=0, atol=1e-8)
        assert not torch.equal(radii, expected)
    if control == "random":
        torch.testing.assert_close(
            radii.flatten(1).sort().values, expected.flatten(1).sort().values, rtol=0, atol=1e-8
        )
    if control == "uniform":
        assert (radii.flatten(1).std(dim=1) < 1e-9).all()


def test_without_masks_every_image_has_the_full_radius(probe, batch):
    made = part(probe, batch, KEYS, eps=EPS, eps_low=LOW, mask="file")
    assert made.flat.all()
    assert (made.eps == torch.tensor(EPS)).all()


def test_radii_may_reach_zero(probe, batch):
    """Rounding must not make them negative: (8 - 3 (8 - 16 / 3)) / 255 is 0."""
    lowest = part(
        probe, batch, KEYS, eps=EPS, eps_low=16 / 3 / 255, mask="mean-preserving", control="inverse"
    )
    assert 0 <= lowest.eps.min() < 1e-8


def test_settings_of_a_mask_are_heeded(probe, batch):
    def high(**options):
        return part(probe, batch, KEYS, eps=EPS, eps_low=LOW, **options).eps == torch.tensor(EPS)

    told = ~part(probe, batch, KEYS, eps=EPS, eps_low=LOW).flat
    assert (high(mask="quantile", share=0.5).flatten(1).sum(dim=1)[told] == 128).all()
    assert (high(mask="centre", share=0.125).flatten(1).sum(dim=1) == 32).all()
    assert not high(mask="quadrant", quadrant="lower-left")[:, :, 8:, :8].any()
    assert not torch.equal(high(mask="quantile"), high(mask="quantile", kind="layer-cam"))


def test_what_cannot_be_drawn_is_refused(probe, batch):
    grey = Batch(batch.images[:, :1], batch.labels, batch.index)
    with pytest.raises(ValueError, match="three channels, the images have 1"):
        part(probe, grey, KEYS, eps=EPS, eps_low=LOW, mask="published-code")
    for full in (L2(1.0), Linf(torch.full((8,), EPS))):
        with pytest.raises(ValueError, match="one radius for all pixels"):
            draw_budget(probe, batch, KEYS, full, eps_low=LOW)

    def wrong(probe, batch, keys):
        return Mask(torch.ones(8, 16, 16), torch.zeros(8, dtype=torch.bool))

    with pytest.raises(ValueError, match=r"must return Mask\(share \(8, 1, 16, 16\), flat \(8,\)\)"):
        draw_budget(probe, batch, KEYS, Linf(EPS), eps_low=LOW, mask=wrong)


def test_a_rule_is_an_object_with_its_own_options(probe, batch):
    half = draw_budget(probe, batch, KEYS, Linf(EPS), eps_low=LOW, mask=Quantile(share=0.5))
    assert ((half.eps == torch.tensor(EPS)).flatten(1).sum(dim=1)[~half.flat] == 128).all()
    default = draw_budget(probe, batch, KEYS, Linf(EPS), eps_low=LOW)
    assert torch.equal(
        default.eps, draw_budget(probe, batch, KEYS, Linf(EPS), eps_low=LOW, mask=Standardised()).eps
    )


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


class PixelView(IndexView):
    """A view whose map of class 0 is the image itself, and of class 1 its negative."""

    def probe(self, images):
        features = torch.cat([images, 1 - images], dim=1)
        return Probe(images, torch.tensor([[0.0, 1.0]]).repeat(len(images), 1), features, torch.eye(2))


@pytest.mark.parametrize("map_class", ["true", "predicted"])
def test_a_stored_map_moves_with_every_pixel_of_its_image(map_class):
    generator, device = torch.Generator().manual_seed(0), torch.device("cpu")
    pixels = torch.randint(
        1, 255, (16, 1, 16, 16), generator=generator, dtype=torch.uint8
    )  # padding alone is 0
    labels, index = torch.arange(16) % 2, torch.arange(16)
    images = ImageSet("noise", "train", ("a", "b"), labels, index, "f" * 12, (1, 16, 16), pixels)
    maps = store.fill(PixelView(), batches(images, batch_size=5, device=device), 16, map_class)
    order, seen = epoch_order(16, seed=3, epoch=1), []
    crops = Augmentation(padding=2, flip=True)
    for batch in batches(
        images, batch_size=5, device=device, order=order, augmentation=crops, seed=3, epoch=1, maps=maps
    ):
        for row, number in enumerate(batch.index.tolist()):
            image, original = batch.images[row, 0], pixels[number, 0].float() / 255
            inside = image > 0
            if map_class == "true" and number % 2 == 0:
                expected = image / original.max()
            else:
                expected = (1 - image) / (1 - original).max()
            difference = (batch.importance[row].float() - expected)[inside]
            assert difference.abs().max() < 5e-4  # float16
            seen.append((number, bool(inside.all())))
    assert [number for number, _ in seen] == order.tolist() != list(range(16))
    assert not all(whole for _, whole in seen)  # some were cropped


@pytest.mark.parametrize("kind", ["grad-cam", "layer-cam"])
@pytest.mark.parametrize("map_class", ["true", "predicted", "margin"])
def test_stored_maps_are_of_the_kind_and_class_asked_for(probe, batch, kind, map_class):
    class Fixed(IndexView):
        def probe(self, images):
            return Probe(images, probe.logits, probe.features, probe.weights)

    maps = store.fill(Fixed(), [batch], 8, map_class, kind).float()
    fresh = explain(probe, batch.labels, map_class, kind)
    peak = fresh.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(maps, torch.where(peak > 0, fresh / peak, 0.0), rtol=0, atol=1e-3)
    others = [
        store.fill(Fixed(), [batch], 8, c, k).float()
        for c in ("true", "predicted", "margin")
        for k in ("grad-cam", "layer-cam")
        if (c, k) != (map_class, kind)
    ]
    assert all((maps - other).abs().max() > 0.01 for other in others)


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
    rule = partial(draw_budget, eps_low=LOW)
    assert isinstance(rule(probe, batch, KEYS, Linf(EPS)), Linf)


def test_parts_draw_the_budget_on_the_object(probe, batch, generator):
    """Predicted on a coarse grid, or annotated; nothing known of an image means the whole budget."""
    part_logits = torch.full((8, 3, 4, 4), -5.0)
    part_logits[:, 0] = 0.0
    part_logits[:, 1, 1, 2] = 5.0  # one cell of each image, but of the last two
    part_logits[6, 1], part_logits[7, 1] = -5.0, 5.0
    seeing = replace(probe, part_logits=part_logits)
    budget = part(seeing, batch, KEYS, eps=EPS, eps_low=LOW, mask="predicted-parts")
    assert budget.flat.tolist() == [False] * 6 + [True] * 2
    high = budget.eps == torch.tensor(EPS)
    assert (high | (budget.eps == torch.tensor(LOW))).all()
    assert high[6:].all()
    rows, columns = high[0, 0].nonzero().float().mean(dim=0).tolist()
    assert (rows, columns) == pytest.approx((5, 10), abs=0.6)  # corners of both grids lie on each other
    parts = torch.randint(0, 3, (8, 16, 16), generator=generator)
    parts[3] = 0
    known = replace(batch, parts=parts, has_parts=torch.arange(8) != 3)
    budget = part(probe, known, KEYS, eps=EPS, eps_low=LOW, mask="annotated-parts")
    assert torch.equal((budget.eps == torch.tensor(EPS))[:, 0], (parts > 0) | budget.flat.view(-1, 1, 1))
    assert budget.flat.tolist() == [number == 3 for number in range(8)]
    control = part(probe, known, KEYS, eps=EPS, eps_low=LOW, mask="annotated-parts", control="uniform")
    torch.testing.assert_close(control.mean(batch.images), budget.mean(batch.images))


@pytest.mark.parametrize("mask", ["predicted-parts", "annotated-parts"])
def test_parts_that_nobody_knows_are_refused(probe, batch, mask):
    with pytest.raises(ValueError, match=r"part model|annotated parts"):
        part(probe, batch, KEYS, eps=EPS, eps_low=LOW, mask=mask)


@pytest.mark.parametrize("mask", sorted(MASK_RULES))
def test_images_need_not_be_squares(generator, mask):
    images = torch.rand(8, 3, 16, 24, generator=generator)
    part_logits = torch.randn(8, 3, 4, 6, generator=generator)
    features, weights = (torch.rand(size, generator=generator) for size in ((8, 6, 4, 6), (3, 6)))
    seen = Probe(images, torch.randn(8, 3), features, weights, part_logits=part_logits)
    known = Batch(
        images, torch.arange(8) % 3, torch.arange(8), parts=part_logits.argmax(dim=1).repeat(1, 4, 4)
    )
    known = replace(known, has_parts=torch.ones(8, dtype=torch.bool), importance=torch.rand(8, 16, 24))
    budget = part(seen, known, KEYS, eps=EPS, eps_low=LOW, mask=mask)
    assert budget.eps.shape[-2:] == (16, 24)


def test_what_is_no_rule_is_refused(tmp_path, monkeypatch):
    (tmp_path / "own_number.py").write_text("shares = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = replace(MASK_RULES["quantile"], key="own_number:shares", code="own_number:shares", inside=False)
    with pytest.raises(UserError, match="own_number:shares is int: expected a mask rule"):
        call_users_rule(entry, {})


@pytest.mark.parametrize(
    ("share", "told"), [(-0.1, "from -0.1 to -0.1"), (1.01, "from 1.01 to 1.01"), (torch.nan, "from nan")]
)
def test_shares_of_ones_own_lie_between_none_and_all_of_the_radius(probe, batch, share, told):
    """A larger one would be an attack beyond the budget. Flat images have the whole radius, whatever stands there."""

    def ring(probe, batch, keys):
        flat = torch.arange(8) < flat_images
        return Mask(torch.full((8, 1, 16, 16), share), flat)

    flat_images = 7
    with pytest.raises(ValueError, match=rf"shares in \[0, 1\]; those of ring lie {told}"):
        draw_budget(probe, batch, KEYS, Linf(EPS), eps_low=LOW, mask=ring)
    flat_images = 8
    assert (draw_budget(probe, batch, KEYS, Linf(EPS), eps_low=LOW, mask=ring).eps == torch.tensor(EPS)).all()


def test_a_class_of_ones_own_that_takes_other_options_is_refused(tmp_path, monkeypatch):
    (tmp_path / "own_rules.py").write_text("class Ring:\n    def __init__(self, width): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = replace(MASK_RULES["quantile"], key="own_rules:Ring", code="own_rules:Ring", inside=False)
    with pytest.raises(UserError, match=r"own_rules:Ring.*a class that takes mask\.options"):
        call_users_rule(entry, {"length": 3})
