"""Outputs that are one answer: the model's own answer decides, and views and gradients pass."""

import pytest
import torch
from torch import nn

from counterpart.contracts import PartModel
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.models.merged import Merged, merged

GROUPS = [[1, 3], [0], [2, 4, 5]]


def test_the_largest_logit_of_a_group_counts_and_gets_the_gradient():
    logits = torch.tensor([[5.0, 1, 2, 4, 3, 2], [0, 1, 7, 1, 7, 6]], requires_grad=True)
    given = Merged(GROUPS)(logits)
    assert given.tolist() == [[4, 5, 3], [1, 0, 7]]
    given[0, 0].backward()
    assert logits.grad[0].tolist() == [0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small-cnn", {"image_size": 32}),
        ("timm/test_resnet", {"image_size": 32}),
        ("parts/downsampled", {"image_size": 32, "parts": {"part_classes": [0, 1, 2], "encoder": "timm/test_resnet"}}),
        ("timm/vit_tiny_patch16_224", {"image_size": 32, "patch_size": 8}),
    ],
)  # fmt: skip
def test_a_merged_model_answers_with_the_group_of_its_own_answer(name, options, generator):
    torch.random.default_generator.manual_seed(0)
    model = create(name, 6, **options).eval()
    images = torch.rand(5, 3, 32, 32, generator=generator)
    one = merged(model, GROUPS)
    assert not one.training
    assert not isinstance(one, PartModel)
    owner = {k: g for g, group in enumerate(GROUPS) for k in group}
    own = [owner[k] for k in model(images).argmax(dim=1).tolist()]
    assert one(images).argmax(dim=1).tolist() == own
    view = InferenceView(one)
    assert view.folded
    torch.testing.assert_close(view(images), one(images), rtol=1e-4, atol=1e-5)
    probe = view.probe(images)
    torch.testing.assert_close(probe.logits, one(images), rtol=1e-4, atol=1e-5)
    assert (probe.features is None) == ("vit" in name)  # which reads the class token alone


def test_layers_of_a_merged_model_keep_their_names(generator):
    model = create("timm/test_resnet", 6, image_size=32).eval()
    images = torch.rand(2, 3, 32, 32, generator=generator)
    own, seen = (InferenceView(one, layer="layer1").probe(images) for one in (model, merged(model, GROUPS)))
    torch.testing.assert_close(seen.features, own.features)
    assert seen.logits.shape == (2, 3)


def test_code_of_the_user_is_merged_as_well(generator):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    images = torch.rand(5, 3, 2, 2, generator=generator)
    torch.testing.assert_close(merged(model, GROUPS)(images), Merged(GROUPS)(model(images)))
