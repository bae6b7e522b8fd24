import pytest
import torch
from torch import nn

from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.saliency import grad_cam, grad_cam_closed_form, probe_map


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


@pytest.mark.parametrize("name", ["resnet18", "preact-resnet18", "wrn-10-2"])
def test_closed_form_equals_hooks(name, images, generator):
    model = random_statistics(create(name, 4, width=8), generator)
    probe = InferenceView(model).probe(images)
    with torch.no_grad():
        features = model.forward_features(images)
    closed = grad_cam_closed_form(features, model.get_classifier().weight.detach(), TARGETS)

    pooled, trunk = nn.Identity(), model.backbone.forward_features  # a module whose output enters the pooling
    model.backbone.forward_features = lambda inputs: pooled(trunk(inputs))
    by_hook = grad_cam(model, images, TARGETS, pooled)

    scale = by_hook.abs().max()
    assert scale > 0
    assert (closed - by_hook).abs().max() <= 1e-5 * scale
    assert probe.weights is not None  # the short way is the one that runs
    assert (probe_map(probe, TARGETS) - by_hook).abs().max() <= 1e-4 * scale


def test_other_heads_go_through_the_head_and_keep_the_graph(images, generator):
    model = random_statistics(create("resnet18", 4, width=8), generator)
    head = model.backbone.linear
    model.backbone.linear = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 4))
    model.backbone.get_classifier = lambda: model.backbone.linear[2]
    model.backbone.forward_head = lambda features: model.backbone.linear(features.mean(dim=(2, 3)))
    probe = InferenceView(model).probe(images)
    assert probe.weights is None
    by_hook = grad_cam(model, images, TARGETS, model.backbone.layer4)
    torch.testing.assert_close(probe_map(probe, TARGETS), by_hook, rtol=1e-4, atol=1e-6)
    (gradient,) = torch.autograd.grad(probe.logits.sum(), probe.images)  # still there for the attack
    assert gradient.abs().sum() > 0
    assert head.in_features == 64


def test_grad_cam_leaves_the_model_alone(images, generator):
    model = random_statistics(create("resnet18", 4, width=8), generator)
    grad_cam(model, images, TARGETS, model.backbone.layer4)
    assert not model.backbone.layer4._forward_hooks
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="layer must run once"):
        grad_cam(model, images, TARGETS, model.backbone.linear)
    assert not model.backbone.linear._forward_hooks


def test_a_model_without_maps_is_refused_by_name(images):
    probe = InferenceView(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))).probe(images)
    with pytest.raises(ValueError, match="no class activation map"):
        probe_map(probe, TARGETS)
