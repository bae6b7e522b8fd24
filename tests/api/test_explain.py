"""``counterpart.explain``: its maps, radii and attacked images are those of the parts it is made of."""

import pytest
import torch

import counterpart as cp
from counterpart.errors import UserError
from counterpart.importance.rules import Quantile

CHANGES = {"mask.layer": "conv"}


def test_maps_radii_and_images_are_those_of_the_building_blocks(net, images, labels):
    seen = cp.explain(net, images[:6], labels[:6], eps="8/255", eps_low="4/255", changes=CHANGES)
    maps = cp.layer_map(net, images[:6], labels[:6], net.conv)
    assert seen.maps.shape == (6, 8, 8)
    torch.testing.assert_close(seen.maps, maps, rtol=1e-4, atol=1e-6)
    budget = cp.masked_budget(images[:6], labels[:6], seen.maps, eps=8 / 255, eps_low=4 / 255)
    assert torch.equal(seen.radius, budget.radius(images[:6]))
    assert torch.equal(seen.flat, budget.flat)
    assert (budget.contains(seen.attacked, images[:6])).all()
    assert (seen.attacked != images[:6]).any()
    torch.testing.assert_close(seen.clean, net(images[:6]).softmax(1))
    torch.testing.assert_close(seen.fooled, net(seen.attacked).softmax(1))
    assert repr(seen).startswith("Explanation(6 images of 3x8x8, radii 0.01569 to 0.03137")


def test_a_rule_of_ones_choice_and_the_papers_smaller_radius(net, images):
    chosen = {**CHANGES, "mask.rule": "quantile", "mask.quantile": 0.25}
    seen = cp.explain(net, images[:4], eps=0.08, changes=chosen)
    labels = net(images[:4]).argmax(1)
    rule, keys = Quantile(share=0.25), cp.Keys(0, "explain", torch.arange(4))
    budget = cp.masked_budget(images[:4], labels, seen.maps, eps=0.08, eps_low=0.07, mask=rule, keys=keys)
    assert torch.equal(seen.labels, labels)
    torch.testing.assert_close(seen.radius, budget.radius(images[:4]))
    assert seen.radius.unique().tolist() == pytest.approx([0.07, 0.08])
    assert torch.equal(seen.mask, seen.radius == seen.radius.max())


def test_a_radius_below_the_usual_ones_has_a_smaller_radius_of_its_own(net, images):
    seen = cp.explain(net, images[:4], eps="4/255", changes=CHANGES)
    assert seen.radius.min().item() == pytest.approx(3.5 / 255)
    assert seen.radius.max().item() == pytest.approx(4 / 255)


def test_8_bit_arrays_are_images_too(net, images, labels):
    eight = (images[:3] * 255).round().byte()
    one = cp.explain(net, eight.permute(0, 2, 3, 1).numpy(), labels[:3].numpy(), changes=CHANGES)
    other = cp.explain(net, eight.float() / 255, labels[:3], changes=CHANGES)
    assert torch.equal(one.attacked, other.attacked)


def test_what_is_wrong_is_said_in_one_line(net, images):
    for options, words in (
        ({}, "Name an inner layer with mask.layer"),
        ({"changes": {"mask.layer": "nothing"}}, "nothing"),
        ({"changes": {"mask.rul": "quantile"}}, "Did you mean 'mask.rule'"),
        ({"changes": CHANGES, "labels": [0, 1, 2, 9]}, r"label 9 is outside 0\.\.3"),
        ({"changes": {**CHANGES, "mask.eps_low": "auto"}}, "give a number"),
    ):
        with pytest.raises(UserError, match=words) as error:
            cp.explain(net, images[:4], **options)
        assert "\n" not in str(error.value)
    for wrong, words in (
        (images[:0], "there are none"),
        (images * 2, "must lie in"),
        ("a.png", "expected a tensor or array"),
    ):
        with pytest.raises(UserError, match=words):
            cp.explain(net, wrong, changes=CHANGES)
