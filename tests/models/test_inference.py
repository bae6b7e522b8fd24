import copy
import logging
import math
import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from counterpart import devices
from counterpart.contracts import Probe
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.models.normalize import ImageClassifier
from counterpart.seeding import seeded

# name, options, side of the images, batch norms, of them foldable, closed-form head
FAMILIES = [
    ("resnet18", {"width": 8}, 32, 20, 20, True),
    ("preact-resnet18", {"width": 8}, 32, 17, 8, True),
    (
        "wrn-10-2",
        {},
        32,
        7,
        4,
        True,
    ),  # first stage: conv1 -> bn1 -> shortcut, so stays; bn1 of each block stays
    ("preact-resnet18-fast", {"width": 8}, 32, 17, 8, True),
    ("dm-wrn-10-2", {}, 32, 7, 4, True),
    ("dm-preact-resnet18", {"width": 8}, 32, 17, 8, True),
    ("mnist-cnn", {"image_size": 32}, 32, 0, 0, False),  # no pooling
    ("small-cnn", {"image_size": 32}, 32, 0, 0, False),
    ("timm/resnet10t", {}, 64, 14, 14, True),
    ("timm/efficientnet_b0", {}, 64, 49, 49, True),  # BatchNormAct2d, squeeze and excitation
    ("timm/tf_efficientnet_b0", {}, 64, 49, 49, True),  # Conv2dSame
    ("timm/mobilenetv3_small_050", {}, 64, 34, 34, False),  # a layer between pooling and the linear layer
    ("timm/densenet121", {}, 64, 121, 59, True),
    ("timm/convnext_atto", {}, 64, 0, 0, False),  # a layer norm between pooling and the linear layer
    ("timm/vit_tiny_patch16_224", {"image_size": 32}, 32, 0, 0, False),
    ("timm/swin_tiny_patch4_window7_224", {"image_size": 64}, 64, 0, 0, True),  # channels last
]
LARGE = ("timm/densenet121", "timm/swin_tiny_patch4_window7_224")  # seconds each


def batch_norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def logits_and_gradient(model, images):
    leaf = images.clone().requires_grad_()
    logits = model(leaf)
    (gradient,) = torch.autograd.grad(
        F.cross_entropy(logits, torch.arange(len(images)), reduction="sum"), leaf
    )
    return logits.detach(), gradient


def cosine(a, b):
    return F.cosine_similarity(a.flatten(1), b.flatten(1)).min().item()


@pytest.mark.parametrize(
    ("name", "options", "size", "norms", "foldable", "closed"),
    [
        pytest.param(*family, id=family[0], marks=pytest.mark.slow if family[0] in LARGE else ())
        for family in FAMILIES
    ],
)
def test_view_equals_the_model(make, generator, name, options, size, norms, foldable, closed):
    model = make(name, **options)
    images = torch.rand(3, 3, size, size, generator=generator)
    logits, gradient = logits_and_gradient(model, images)
    view = InferenceView(model)
    assert view.folded
    assert view.reason is None
    assert (batch_norms(model), batch_norms(view._trunk)) == (norms, norms - foldable)

    ours, our_gradient = logits_and_gradient(view, images)
    assert (ours - logits).abs().max() < 1e-4
    assert (our_gradient - gradient).abs().max() < 1e-3 * gradient.abs().max()

    probe = view.probe(images)
    assert isinstance(probe, Probe)
    torch.testing.assert_close(probe.logits, ours)
    assert (probe.weights is not None) == closed
    if name != "timm/vit_tiny_patch16_224":
        torch.testing.assert_close(probe.features, model.forward_features(images), rtol=1e-3, atol=1e-3)
    else:
        assert probe.features is None
    if closed:
        bias = model.get_classifier().bias
        expected = torch.einsum("bahw,ka->bk", probe.features, probe.weights) / probe.features[0, 0].numel()
        torch.testing.assert_close(probe.logits, expected + bias, rtol=1e-4, atol=1e-4)

    # bfloat16 has 8 bits. ReLUs switch here and there, so gradients agree in direction only.
    half, half_gradient = logits_and_gradient(InferenceView(model, precision="bf16"), images)
    assert half.dtype == half_gradient.dtype == torch.float32
    assert (half - logits).abs().max() < 0.05 * logits.abs().max()
    assert cosine(half_gradient, gradient) > 0.8


def test_probe_is_a_fresh_leaf_with_its_graph(make, images):
    view = InferenceView(make("resnet18", width=8))
    source = images.clone().requires_grad_()
    with torch.no_grad():
        probe = view.probe(source)
    assert probe.images.is_leaf
    assert probe.images is not source
    assert probe.images.data_ptr() != source.data_ptr()
    score = probe.logits[:, 0].sum()
    gradients = torch.autograd.grad(score, [probe.images, probe.features])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    # Grad-CAM of a pooled linear head: the gradient is the weight over the number of places.
    torch.testing.assert_close(gradients[1], probe.weights[0].view(1, -1, 1, 1).expand_as(gradients[1]) / 16)
    assert not probe.weights.requires_grad


def test_bf16_keeps_head_and_normalisation_in_float32(make, images):
    model = make("resnet18", width=8)
    model.mean.fill_(0.4)
    model.std.fill_(0.2)
    view = InferenceView(model, precision="bf16")
    probe = view.probe(images)
    layer = model.get_classifier()
    pooled = probe.features.mean(dim=(2, 3))
    torch.testing.assert_close(probe.logits, layer(pooled), rtol=1e-6, atol=1e-6)
    assert torch.equal(probe.weights, layer.weight)
    assert view._trunk.conv1.weight.dtype == torch.bfloat16
    assert torch.equal(probe.features.bfloat16().float(), probe.features)  # the trunk was in bfloat16
    inputs = []
    view._trunk.conv1.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    view(images)
    assert torch.equal(inputs[0], ((images - 0.4) / 0.2).bfloat16())


def test_view_is_eval_behaviour_of_a_model_in_training_and_leaves_it_alone(make, images):
    model = make("wrn-10-1")
    model.train()
    model.backbone.block2.eval()  # modes need not agree
    calls = []
    model.register_forward_hook(lambda *_: calls.append("model"))
    model.backbone.conv1.register_forward_hook(lambda *_: calls.append("conv1"))
    model.backbone.block1.register_forward_pre_hook(lambda *_: calls.append("block1"))
    model.backbone.conv1.register_full_backward_hook(lambda *_: calls.append("backward"))
    model.backbone.fc.weight.grad = torch.ones_like(model.backbone.fc.weight)
    model.backbone.fc.bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]

    view = InferenceView(model, form="fast")  # else the hooks would see the passes that it is checked by
    probe = view.probe(images)
    probe.logits.sum().backward()
    view.refresh()

    assert calls == []
    assert modes == [module.training for module in model.modules()]
    assert needs == [parameter.requires_grad for parameter in model.parameters()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    grads = [p.grad for name, p in model.named_parameters() if name != "backbone.fc.weight"]
    assert grads == [None] * len(grads)
    assert bool((model.backbone.fc.weight.grad == 1).all())
    expected = copy.deepcopy(model).eval()
    torch.testing.assert_close(view(images), expected(images), rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in view._copy.parameters())
    assert view._trunk.block1.layer.get_submodule("0").conv1.weight.is_contiguous(
        memory_format=torch.channels_last
    )
    ours = {tensor.data_ptr() for tensor in view._copy.state_dict().values()}
    assert ours.isdisjoint(tensor.data_ptr() for tensor in model.state_dict().values())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"width": 8}),
        ("preact-resnet18", {"width": 8}),
        ("timm/mobilenetv3_small_050", {}),
        ("timm/vit_tiny_patch16_224", {"image_size": 32}),
    ],
)
def test_refresh_follows_the_model(make, images, name, options, precision):
    model, other = make(name, **options), make(name, seed=1, **options)
    other.mean.fill_(0.3)
    view = InferenceView(model, precision=precision)
    before = view.probe(images)
    old = None if before.weights is None else before.weights.clone()
    stale = view(images)
    model.load_state_dict(other.state_dict())
    assert torch.equal(view(images), stale)  # frozen until told
    view.refresh()
    assert not torch.allclose(view(images), stale)
    assert torch.equal(view(images), InferenceView(other, precision=precision)(images))
    if old is not None:
        assert torch.equal(before.weights, old)  # a probe keeps the weights that it was made with


def test_refresh_after_a_training_step(make, images):
    model = make("resnet18", width=8).train()
    view = InferenceView(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model(images), torch.arange(4)).backward()
    optimiser.step()
    view.refresh()
    model.eval()
    torch.testing.assert_close(view(images), model(images), rtol=1e-4, atol=1e-4)


class Shared(nn.Module):
    """Nothing here may be folded: reused layers, an output used twice, batch norms without what it takes."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.norm_twice = nn.BatchNorm2d(3)
        self.conv_a, self.conv_b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.branch = nn.Conv2d(3, 3, 1)
        self.norm_branch = nn.BatchNorm2d(3)
        self.bare = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False))
        self.batchwise = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
        self.after = nn.BatchNorm2d(3)

    def forward(self, images):
        images = self.after(self.twice(images)) + self.twice(images / 2)
        images = self.norm_twice(self.conv_a(images)) + self.norm_twice(self.conv_b(images))
        branch = self.branch(images)
        images = self.norm_branch(branch) + branch
        return self.batchwise(self.bare(images)).square().mean(dim=(2, 3))


class Plain(nn.Module):
    """A user's own module, whose convolution has a bias already."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6, eps=0.1), nn.ReLU())
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("shift", torch.tensor(0.5))

    def forward(self, images):
        return self.net(images).mean(dim=(2, 3)) * self.scale + self.shift


class Untraceable(Plain):
    """Looks at values, which a trace cannot."""

    def forward(self, images):
        return super().forward(images if images.mean() > 0 else -images)


@pytest.mark.parametrize(("kind", "folds"), [(Plain, 1), (Shared, 0), (Untraceable, None)])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_any_module_has_a_view(kind, folds, precision, images, caplog):
    with seeded(0):
        model = kind()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.running_mean is not None:
            norm.weight.data = torch.tensor([-1.2, 0.8, 1.5, -0.4, 2.0, 1.0])[: norm.num_features]
            norm.running_mean.fill_(0.2)
            norm.running_var.fill_(0.7)
    model.eval()
    with caplog.at_level(logging.WARNING):
        view = InferenceView(model, precision=precision)
    tolerance = 1e-4 if precision == "float32" else 0.05
    for _ in range(2):
        logits, gradient = logits_and_gradient(model, images[:3])
        ours, our_gradient = logits_and_gradient(view, images[:3])
        torch.testing.assert_close(ours, logits, rtol=tolerance, atol=tolerance)
        assert cosine(our_gradient, gradient) > 0.8
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                if tensor.is_floating_point():
                    tensor.mul_(1.1)
        view.refresh()
    probe = view.probe(images)
    assert probe.features is None
    assert probe.weights is None
    if folds is None:
        assert not view.folded
        assert view.reason is not None
        assert view.reason.startswith("TraceError")
        assert "Untraceable is used unfolded" in caplog.text
    else:
        assert view.folded
        assert len(view._folds) == folds


class Head(nn.Module):
    """A tiny backbone whose head is chosen by name."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 6, 3)
        self.linear = nn.Linear(6, 4)
        self.dropout = nn.Dropout(0.5)

    def forward_features(self, images):
        if self.kind == "untraceable" and math.isnan(images.mean().item()):
            raise ValueError
        return self.conv(images).relu()

    def forward_head(self, features):
        if self.kind == "max":
            return self.linear(features.amax(dim=(2, 3)))
        if self.kind == "gated":
            return self.linear(features.mean(dim=(2, 3)).sigmoid())
        if self.kind == "clipped":  # the same as no clipping on the features of these images
            return self.linear(features.clamp(0, 2).mean(dim=(2, 3)))
        if self.kind == "scaled":
            return 2 * self.linear(features.mean(dim=(2, 3)))
        return self.linear(self.dropout(features.mean(dim=(2, 3))))

    def get_classifier(self):
        return self.linear


@pytest.mark.parametrize(
    ("kind", "closed"),
    [
        ("max", False),
        ("gated", False),
        ("scaled", False),
        ("clipped", False),
        ("dropout", True),
        ("untraceable", True),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_weights_are_given_exactly_where_the_head_is_pooling_and_a_linear_layer(
    kind, closed, precision, images
):
    model = ImageClassifier(
        Head(kind), 4
    )  # in training mode: dropout is active in the model, not in the view
    view = InferenceView(model, precision=precision)
    assert view.folded == (kind != "untraceable")
    probe = view.probe(images)
    assert probe.features.dtype == torch.float32
    assert probe.features.shape == (4, 6, 30, 30)
    assert (probe.weights is not None) == closed
    torch.testing.assert_close(view(images), probe.logits)
    torch.testing.assert_close(probe.logits, model.eval()(images), rtol=0.05, atol=0.05)
    if closed:
        torch.testing.assert_close(probe.logits, model.get_classifier()(probe.features.mean(dim=(2, 3))))


def test_autocast_around_a_float32_view_changes_nothing(make, images):
    view = InferenceView(make("resnet18", width=8))
    plain = view(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(view(images), plain)


def test_wrong_input_is_refused(make):
    model = make("resnet18", width=8)
    with pytest.raises(ValueError, match="float32, bf16, tf32, got 'float16'"):
        InferenceView(model, precision="float16")
    with pytest.raises(ValueError, match="3 channels, got 1"):
        InferenceView(model)(torch.rand(1, 1, 8, 8))


def test_shapes_are_checked_again_after_a_trace(make, images):
    model = make("resnet18", width=8)
    InferenceView(model)
    with pytest.raises(Exception, match="Type-check error"):
        model(images[0])


@pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler"
)
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_compiled_view_equals_the_model(images):
    model = ImageClassifier(Head("plain"), 4).eval()
    view = InferenceView(model, compile=True)
    assert type(view._trunk).__name__ == "OptimizedModule"
    probe = view.probe(images)
    expected, gradient = logits_and_gradient(model, images)
    torch.testing.assert_close(probe.logits, expected)
    loss = F.cross_entropy(probe.logits, torch.arange(4), reduction="sum")
    ours, maps = torch.autograd.grad(loss, [probe.images, probe.features])
    torch.testing.assert_close(ours, gradient)
    with torch.no_grad():
        model.backbone.conv.weight.mul_(2)
    view.refresh()
    torch.testing.assert_close(view.probe(images).logits, model(images))
    slopes = expected.softmax(dim=1) - torch.eye(4)
    torch.testing.assert_close(maps, (slopes @ probe.weights / 900)[:, :, None, None].expand_as(maps))


def test_a_network_that_onednn_cannot_take_with_channels_last_is_laid_out_otherwise():
    """Else the process dies in the gradient of its first narrow shortcut, on processors without AVX-512."""
    narrow = create("resnet18", 3, width=4)
    assert devices.memory_format(narrow) == torch.contiguous_format
    assert devices.memory_format(create("resnet18", 3, width=8)) == torch.channels_last
    probe = InferenceView(narrow).probe(torch.rand(2, 3, 32, 32))
    (gradient,) = torch.autograd.grad(probe.logits.sum(), probe.images)
    assert gradient.isfinite().all()
