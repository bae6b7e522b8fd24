"""A budget per pixel for a loop of one's own: the same as the rule that training uses."""

import pytest
import torch

from counterpart import InferenceView, Keys, layer_map, masked_budget
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.importance import controls
from counterpart.importance.masks import Mask
from counterpart.importance.rules import Quantile, draw_budget
from counterpart.models import create


@pytest.fixture
def seen(generator):
    """A network, images and labels."""
    torch.manual_seed(0)
    model = create("resnet18", 4, width=4).eval()
    return model, torch.rand(3, 3, 16, 16, generator=generator), torch.tensor([0, 1, 2])


@pytest.mark.parametrize("options", [{}, {"mask": Quantile(share=0.5)}, {"control": controls.random}])
def test_of_a_probe_it_is_the_rule_of_training(options, seen):
    model, images, labels = seen
    probe = InferenceView(model).probe(images)
    keys = Keys(0, "masked budget", torch.arange(3))
    batch = Batch(images, labels, torch.arange(3))
    rule = draw_budget(probe, batch, keys, Linf(0.1), eps_low=0.05, **options)
    budget = masked_budget(images, labels, probe, eps=0.1, eps_low=0.05, **options)
    assert torch.equal(budget.eps, rule.eps)
    assert budget.eps.unique().tolist() == pytest.approx([0.05, 0.1])
    given = masked_budget(images, labels, probe, eps=0.1, eps_low=0.05, keys=keys, **options)
    assert torch.equal(budget.eps, given.eps)


def test_of_maps_it_is_that_of_the_probe_they_are_from(seen):
    model, images, labels = seen
    view = InferenceView(model)
    of_probe = masked_budget(images, labels, view.probe(images), eps=0.1, eps_low=0.05)
    maps = layer_map(model, images, labels, model.backbone.layer4)
    of_maps = masked_budget(images, labels, maps, eps=0.1, eps_low=0.05)
    assert torch.equal(of_maps.eps, of_probe.eps)


def left_half(probe, batch, keys):
    share = torch.zeros_like(batch.images[:, :1])
    share[..., :8] = 1
    return Mask(share, torch.zeros(len(share), dtype=torch.bool))


def test_a_rule_that_looks_at_no_map_needs_none(seen, monkeypatch):
    _, images, labels = seen
    with pytest.raises(ValueError, match="masked_budget has no maps: give them"):
        masked_budget(images, labels, eps=0.1, eps_low=0.05, mask=left_half)
    with pytest.raises(ValueError, match="masked_budget has no maps"):
        masked_budget(images, labels, eps=0.1, eps_low=0.05)
    monkeypatch.setattr(left_half, "needs_map", False, raising=False)
    budget = masked_budget(images, labels, eps="26/255", eps_low="13/255", mask=left_half)
    assert budget.eps.shape == (3, 1, 16, 16)
    assert budget.eps[..., :8].unique().tolist() == pytest.approx([26 / 255])
    assert budget.eps[..., 8:].unique().tolist() == pytest.approx([13 / 255])
