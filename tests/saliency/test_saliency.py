from dataclasses import replace
from itertools import combinations

import pytest
import torch
from timm.models import ConvNeXt, SwinTransformer
from torch import nn

from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.models.normalize import ImageClassifier
from counterpart.saliency import closed_form, layer_map, probe_map, score_weights
from counterpart.saliency.closed_form import CLASSES, KINDS
from counterpart.seeding import seeded


def random_statistics(model, generator):
    """Batch norms as after training: statistics and signs that matter."""
    for parameter in model.parameters():  # the same network in every run, whatever ran before
        parameter.data.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.normal_(0, 1, generator=generator)
    return model.eval()


@pytest.fixture
def images(generator):
    return torch.rand(5, 3, 32, 32, generator=generator)


TARGETS = torch.tensor([0, 1, 2, 3, 3])


def one_hot(targets):
    return nn.functional.one_hot(targets, 4).float()


def entering_the_pool(model):
    """The module whose output enters the pooling."""
    pooled, trunk = nn.Identity(), model.backbone.forward_features
    model.backbone.forward_features = lambda inputs: pooled(trunk(inputs))
    return pooled


@pytest.mark.parametrize("map_class", CLASSES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet18", "preact-resnet18", "wrn-10-2"])
def test_closed_form_equals_hooks(name, kind, map_class, images, generator):
    model = random_statistics(create(name, 4, width=8), generator).double()
    images = images.double()
    with torch.no_grad():
        features, logits = model.forward_features(images), model(images)
    score = score_weights(logits, TARGETS, map_class)
    weights = model.get_classifier().weight.detach()
    closed = closed_form(features, weights, score, kind)
    by_hook = layer_map(model, images, TARGETS, entering_the_pool(model), kind, map_class)
    scale = by_hook.abs().max()
    assert scale > 0
    assert (closed - by_hook).abs().max() <= 1e-12 * scale


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_takes_the_short_way(kind, images, generator):
    model = random_statistics(create("resnet18", 4, width=8), generator)
    probe = InferenceView(model).probe(images)
    assert probe.weights is not None
    by_hook = layer_map(model, images, TARGETS, entering_the_pool(model), kind)
    assert (probe_map(probe, one_hot(TARGETS), kind) - by_hook).abs().max() <= 1e-4 * by_hook.max()


def test_xgrad_cam_is_grad_cam_and_layer_cam_counts_no_negative_weight():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 1.0]]]])
    weights = torch.tensor([[2.0, -1.0]])
    score = torch.ones(1, 1)
    # (2 - 3, 4 - 1) / 2, negative parts cut; and only 2 times the first channel
    assert closed_form(features, weights, score).tolist() == [[[0.0, 1.5]]]
    assert closed_form(features, weights, score, "xgrad-cam").tolist() == [[[0.0, 1.5]]]
    assert closed_form(features, weights, score, "layer-cam").tolist() == [[[1.0, 2.0]]]


def test_the_score_of_each_class():
    logits = torch.tensor([[3.0, 5.0, 4.0], [3.0, 5.0, 4.0]])
    labels = torch.tensor([0, 1])
    assert score_weights(logits, labels).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert score_weights(logits, labels, "predicted").tolist() == [[0, 1, 0], [0, 1, 0]]
    assert score_weights(logits, labels, "margin").tolist() == [[1, -1, 0], [0, 1, -1]]


def test_a_dead_channel_shows_nothing(images):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = nn.Conv2d(3, 2, 1)
            self.maps.weight.data[0], self.maps.bias.data[0] = 0, 0
            self.last = nn.Linear(2, 4)

        def forward(self, inputs):
            return self.last(self.maps(inputs).mean(dim=(2, 3)))

    model = Half()
    by_hook = layer_map(model, images, TARGETS, model.maps, "xgrad-cam")
    assert by_hook.isfinite().all()
    torch.testing.assert_close(by_hook, layer_map(model, images, TARGETS, model.maps))


@pytest.mark.parametrize("kind", KINDS)
def test_other_heads_go_through_the_head_and_keep_the_graph(kind, images, generator):
    model = random_statistics(create("resnet18", 4, width=8), generator)
    model.backbone.linear = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 4))
    model.backbone.get_classifier = lambda: model.backbone.linear[2]
    model.backbone.forward_head = lambda features: model.backbone.linear(features.mean(dim=(2, 3)))
    probe = InferenceView(model).probe(images)
    assert probe.weights is None
    by_hook = layer_map(model, images, TARGETS, model.backbone.layer4, kind, "margin")
    found = probe_map(probe, score_weights(probe.logits, TARGETS, "margin"), kind)
    assert by_hook.max() > 0
    torch.testing.assert_close(found, by_hook, rtol=1e-3, atol=1e-6)
    (gradient,) = torch.autograd.grad(probe.logits.sum(), probe.images)  # still there for the attack
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_norm_pooling_and_a_linear_layer(kind, images, generator):
    """ConvNeXt norms after pooling, Swin before: that one has a closed form, on channels-last features."""
    with seeded(0):
        convnext = ConvNeXt(num_classes=4, depths=4 * (1,), dims=4 * (8,), kernel_sizes=4 * (3,))
        swin = SwinTransformer(
            32, 2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=4
        )
    model = ImageClassifier(convnext, 4).eval()
    probe = InferenceView(model).probe(images)
    assert probe.weights is None
    by_hook = layer_map(model, images, TARGETS, convnext.stages, kind)
    assert by_hook.max() > 0
    torch.testing.assert_close(probe_map(probe, one_hot(TARGETS), kind), by_hook, rtol=1e-3, atol=1e-6)
    probe = InferenceView(ImageClassifier(swin, 4).eval()).probe(images)
    assert probe.weights is not None
    by_graph = probe_map(replace(probe, weights=None), one_hot(TARGETS), kind)
    assert by_graph.max() > 0
    torch.testing.assert_close(probe_map(probe, one_hot(TARGETS), kind), by_graph, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_inner_layer_of_a_view_equals_hooks(kind, images, generator):
    model = random_statistics(create("resnet18", 4, width=8), generator)
    probe = InferenceView(model, layer="layer3").probe(images)
    by_hook = layer_map(model, images, TARGETS, model.backbone.layer3, kind, "margin")
    found = probe_map(probe, score_weights(probe.logits, TARGETS, "margin"), kind)
    assert by_hook.max() > 0
    assert (found - by_hook).abs().max() <= 1e-3 * by_hook.max()


def test_before_a_norm_the_kinds_differ(images, generator):
    """Where the head is more than pooling and a linear layer, no two kinds agree."""
    model = random_statistics(create("resnet18", 4, width=8), generator)
    maps = [layer_map(model, images, TARGETS, model.backbone.layer3, kind) for kind in KINDS]
    maps = [m / m.max() for m in maps]
    assert all((a - b).abs().max() > 0.01 for a, b in combinations(maps, 2))


def test_layer_maps_leave_the_model_alone(images, generator):
    model = random_statistics(create("resnet18", 4, width=8), generator)
    layer_map(model, images, TARGETS, model.backbone.layer4)
    assert not model.backbone.layer4._forward_hooks
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="layer must run once"):
        layer_map(model, images, TARGETS, model.backbone.linear)
    assert not model.backbone.linear._forward_hooks


def test_unknown_kinds_and_classes_are_refused(images, generator):
    model = random_statistics(create("resnet18", 4, width=8), generator)
    probe = InferenceView(model).probe(images)
    with pytest.raises(
        ValueError,
        match="kind must be one of grad-cam, xgrad-cam, layer-cam, attention-rollout, attention-gradient, got 'cam'",
    ):
        probe_map(probe, one_hot(TARGETS), "cam")
    with pytest.raises(ValueError, match="kind must be one of"):
        layer_map(model, images, TARGETS, model.backbone.layer4, "cam")
    with pytest.raises(ValueError, match="map_class must be one of true, predicted, margin, got 'label'"):
        score_weights(probe.logits, TARGETS, "label")


def test_a_model_without_maps_is_refused_by_name(images):
    probe = InferenceView(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))).probe(images)
    with pytest.raises(ValueError, match="no class activation map"):
        probe_map(probe, one_hot(TARGETS))
