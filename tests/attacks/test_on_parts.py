"""Attacks on parts, on models whose every pixel can be followed by hand."""

from functools import partial

import pytest
import torch
from torch import nn

from counterpart.attacks.on_parts import STRATEGIES, Guides, single_staged, sorted_guides, two_staged
from counterpart.budget import Linf
from counterpart.contracts import PartModel, PartOutput, Probe
from counterpart.part_maps import predicted_parts
from counterpart.seeding import Keys

EPS = 0.1


class Bright(nn.Module):
    """Part 1 where a pixel is dark, part 2 where it is bright; the class is what most of the image is.

    With ``asleep``, the classes do not see the image: always class 0.
    """

    full_resolution = False

    def __init__(self, asleep=False):
        super().__init__()
        self.register_buffer("part_classes", torch.tensor([0, 1]))
        self.asleep = asleep

    def forward_parts(self, images):
        bright = 20 * (images - 0.5)
        part_logits = torch.cat([torch.full_like(bright, -50), -bright, bright], dim=1)
        return PartOutput(self.classify_parts(part_logits), part_logits)

    def classify_parts(self, part_logits):
        logits = part_logits[:, 1:].mean(dim=(2, 3))
        return logits * 0 + torch.tensor([1.0, 0.0]) if self.asleep else logits

    def forward(self, images):
        return self.forward_parts(images).logits


class Seen(Bright):
    """The same as a view."""

    def probe(self, images):
        leaf = images.detach().clone().requires_grad_()
        output = self.forward_parts(leaf)
        return Probe(leaf, output.logits, part_logits=output.part_logits)


@pytest.fixture
def images(generator):
    """24 images, half mostly dark (class 0) and half mostly bright."""
    shift = torch.linspace(0, 0.15, 24)[:, None, None, None]
    pixels = 0.35 - shift + 0.3 * torch.rand(24, 1, 4, 4, generator=generator)
    return torch.where((torch.arange(24) % 2 == 1)[:, None, None, None], 1 - pixels, pixels)


@pytest.fixture
def known(images):
    """Labels, parts and annotation: all right."""
    parts = (images[:, 0] > 0.5).long() + 1
    labels = (images.mean(dim=(1, 2, 3)) > 0.5).long()
    return {"labels": labels, "parts": parts, "annotated": torch.ones(24, dtype=torch.bool)}


@pytest.fixture
def common(keys):
    return {"budget": Linf(EPS), "keys": keys[slice(24)], "steps": 20}


def guides_of(masks, classes, in_order=False):
    return Guides(lambda rows: masks[rows], torch.tensor(classes), in_order)


@pytest.mark.parametrize("model", [Bright(), Seen()])
def test_an_attack_on_the_parts_alone_flips_every_pixel_in_reach(model, images, known, common):
    attacked = single_staged(model, images, **known, **common, share=1.0, restarts=1, to_the_end=True)
    flipped = images + torch.where(images > 0.5, -EPS, EPS)
    torch.testing.assert_close(attacked.images, flipped)
    found = predicted_parts(model.forward_parts(attacked.images).part_logits, (4, 4))
    assert torch.equal(found != known["parts"], (images[:, 0] - 0.5).abs() < EPS)
    assert attacked.backwards.tolist() == [20] * 24
    assert attacked.forwards.tolist() == [21] * 24


def test_the_class_falls_exactly_where_it_can(images, known, common):
    model = Bright()
    can = (images.mean(dim=(1, 2, 3)) - 0.5).abs() < EPS
    assert 0 < can.sum() < 24
    for share in (0.0, 0.5):
        attacked = single_staged(model, images, **known, **common, share=share, restarts=2)
        fell = model(attacked.images).argmax(dim=1) != known["labels"]
        # The parts of some pixels pull against the class.
        assert torch.equal(fell, can) if share == 0 else (fell <= can).all() and fell.any()
        assert Linf(EPS).contains(attacked.images, images).all()


def test_the_two_losses_add_up(images, known, common):
    """One step from a given start goes where the slope of the weighted sum does."""
    model, weight = Bright(), 0.3
    leaf = images.clone().requires_grad_()
    output = model.forward_parts(leaf)
    parts = nn.functional.cross_entropy(output.part_logits, known["parts"], reduction="none").mean(dim=(1, 2))
    total = (1 - weight) * nn.functional.cross_entropy(output.logits, known["labels"], reduction="none")
    (slope,) = torch.autograd.grad((total + weight * parts).sum(), leaf)
    attacked = single_staged(
        model, images, **known, **{**common, "steps": 1}, share=weight, restarts=1, step_size=0.01, start=images,
        to_the_end=True,
    )  # fmt: skip
    torch.testing.assert_close(attacked.images, images + 0.01 * slope.sign())


def test_images_without_annotation_have_no_parts_to_attack(images, known, common):
    known["annotated"] = torch.arange(24) < 12
    attacked = single_staged(Bright(), images, **known, **common, share=1.0, restarts=1, to_the_end=True)
    start = Linf(EPS).sample(images, common["keys"].fold(0))
    assert torch.equal(attacked.images[12:], start[12:])
    assert not torch.equal(attacked.images[:12], start[:12])


def stage_one(images, known, common, **options):
    """Where stage one ends: stage two finds no slope in a model whose classes are asleep."""
    zeros = torch.zeros_like(known["labels"])
    return two_staged(
        Bright(asleep=True), images, **{**known, "labels": zeros}, **common, restarts=1, **options
    )


def test_stage_one_moves_away_from_the_true_masks(images, known, common):
    attacked = stage_one(images, known, common, strategy="untargeted")
    torch.testing.assert_close(attacked.images, images + torch.where(images > 0.5, -EPS, EPS))


def test_stage_one_moves_to_the_guide_and_stage_two_starts_there(images, known, common, generator):
    masks = torch.randint(1, 3, (1, 4, 4), generator=generator)
    led = stage_one(images, known, common, strategy="random", guides=guides_of(masks, [1]))
    torch.testing.assert_close(led.images, images + torch.where(masks == 2, EPS, -EPS))


def test_the_published_stage_two_starts_at_the_clean_image(images, known, common, generator):
    masks = torch.randint(1, 3, (1, 4, 4), generator=generator)
    led = stage_one(images, known, common, strategy="random", guides=guides_of(masks, [1]), published=True)
    assert torch.equal(led.images, images)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("aimed", [True, False])
def test_the_class_falls_exactly_where_it_can_from_every_guide(images, known, common, strategy, aimed):
    model = Seen()
    guides = guides_of(known["parts"], known["labels"].tolist())
    if strategy == "sorted":
        guides = sorted_guides(guides, model, 2, (4, 4))
    attacked = two_staged(
        model, images, **known, **common, guides=guides, strategy=strategy, aimed=aimed, restarts=2
    )
    can = (images.mean(dim=(1, 2, 3)) - 0.5).abs() < EPS
    assert torch.equal(model(attacked.images).argmax(dim=1) != known["labels"], can)
    assert Linf(EPS).contains(attacked.images, images).all()


@pytest.mark.parametrize("attack", [single_staged, partial(two_staged, strategy="untargeted")])
def test_an_image_that_fell_stays_fallen_in_later_restarts(images, known, common, attack):
    """Steps of next to nothing: an image falls by the luck of its start, in one restart and not in the next."""
    model, labels = Bright(), torch.ones_like(known["labels"])
    near = (images - images.mean(dim=(1, 2, 3), keepdim=True) + 0.5 + EPS / 20).clamp(0, 1)
    given = {**known, **common, "labels": labels, "steps": 1, "step_size": 1e-9}
    fell = [model(attack(model, near, **given, restarts=n).images).argmax(dim=1) != labels for n in (1, 2, 3)]
    assert (fell[0] <= fell[1]).all()
    assert (fell[1] <= fell[2]).all()
    assert fell[0].any()
    assert fell[0].sum() < fell[2].sum()


class Ranked(nn.Module):
    """Four classes that are always alike likely, in falling order."""

    full_resolution = False
    part_classes = torch.tensor([0, 1, 2, 3])

    def forward_parts(self, images):
        flat = images.new_zeros(len(images), 5, 4, 4) + 0 * images
        return PartOutput(self(images), flat)

    def classify_parts(self, part_logits):
        raise NotImplementedError

    def forward(self, images):
        return torch.tensor([3.0, 2.0, 1.0, 0.0]).expand(len(images), 4) + 0 * images.mean(dim=(2, 3))


def chosen(strategy, restarts, masks=40, n=64, in_order=False):
    """Which guides each restart reads, (restarts, n); guide i is of class i % 4, without class 1."""
    asked = []
    classes = torch.arange(masks) % 4
    classes[classes == 1] = 3

    def read(rows):
        asked.append(rows)
        return torch.zeros(len(rows), 4, 4, dtype=torch.int64)

    images, labels = torch.rand(n, 1, 4, 4), torch.zeros(n, dtype=torch.int64)
    two_staged(
        Ranked(), images, labels, parts=labels[:, None, None].expand(n, 4, 4), annotated=labels == 0,
        guides=Guides(read, classes, in_order), budget=Linf(EPS), keys=Keys(0, "t", torch.arange(n)),
        strategy=strategy, steps=1, restarts=restarts,
    )  # fmt: skip
    rows = torch.stack(asked)
    return rows, classes[rows]


def test_random_guides_are_of_every_wrong_class_that_has_one():
    rows, classes = chosen("random", 2)
    assert set(classes[0].tolist()) == {2, 3}
    assert len(set(rows[0].tolist())) > 10
    assert not torch.equal(classes[0], classes[1])


def test_likely_guides_go_down_the_ranks():
    _, classes = chosen("likely", 3)
    assert [set(one.tolist()) for one in classes] == [
        {2},
        {3},
        {2},
    ]  # class 1 has no mask: the ranks come again


def test_most_confident_guides_are_different_masks_of_one_class():
    rows, classes = chosen("most-confident", 4)
    assert set(classes.flatten().tolist()) == {2}
    assert all(len(set(image.tolist())) == 4 for image in rows.T)
    assert len({tuple(image.tolist()) for image in rows.T}) > 10  # each image has an order of its own


def test_sorted_guides_are_the_same_for_all_images():
    rows, _ = chosen("sorted", 3, in_order=True)
    assert rows.T.unique(dim=0).tolist() == [[2, 6, 10]]


def test_the_surest_masks_come_first():
    """A mask counts for the class that the model sees in it, whatever its label."""
    dark, bright = torch.ones(4, 4, dtype=torch.int64), torch.full((4, 4), 2)
    mixed = torch.cat([bright[:3], dark[:1]])

    class Fractions(Bright):
        def classify_parts(self, part_logits):
            return part_logits.softmax(dim=1)[:, 1:].mean(dim=(2, 3))

    masks = torch.stack([mixed, dark, bright])
    found = sorted_guides(guides_of(masks, [0, 0, 0]), Fractions(), 2, (4, 4), batch_size=2)
    of_bright = found.read(torch.arange(3))[found.classes == 1]
    assert torch.equal(of_bright, torch.stack([bright, mixed]))
    assert torch.equal(found.read(torch.arange(3))[found.classes == 0], dark[None])


def test_choices_do_not_depend_on_the_batch():
    whole, _ = chosen("random", 1, n=16)
    part, _ = chosen("random", 1, n=5)
    assert torch.equal(whole[:, :5], part)


def test_images_of_the_only_class_that_masks_are_taken_for_stay_as_they_are(images, known, common):
    guides = guides_of(known["parts"], [1] * 24, in_order=True)
    attacked = two_staged(Bright(), images, **known, **common, guides=guides, strategy="sorted", restarts=2)
    stays = known["labels"] == 1
    moved = (attacked.images != images).flatten(1).any(dim=1)
    assert torch.equal(moved, ~stays)
    assert attacked.forwards[stays].unique().tolist() == [1]
    assert attacked.backwards[stays].unique().tolist() == [0]


def test_what_cannot_be_led_is_refused(images, known, common):
    go = partial(two_staged, Bright(), images, **known, **common)
    with pytest.raises(ValueError, match="needs masks to lead to"):
        go()
    with pytest.raises(ValueError, match="no mask of a class other than 1"):
        go(guides=guides_of(known["parts"], [1] * 24))
    with pytest.raises(ValueError, match="got guides of another"):
        go(guides=guides_of(known["parts"], known["labels"].tolist()), strategy="sorted")
    with pytest.raises(ValueError, match="strategy must be one of"):
        go(strategy="best")
    with pytest.raises(ValueError, match="takes one start"):
        single_staged(Bright(), images, **known, **common, to_the_end=True)
    assert isinstance(Ranked(), PartModel)


def test_a_view_without_parts_is_refused(images, known, common):
    class Plain(Seen):
        def probe(self, images):
            leaf = images.detach().clone().requires_grad_()
            return Probe(leaf, self(leaf))

    with pytest.raises(ValueError, match="needs a model that predicts parts"):
        single_staged(Plain(), images, **known, **common)
