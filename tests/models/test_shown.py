"""What a view shows beside logits: any layer's output, and attention."""

import pytest
import torch
from timm.models import VisionTransformer
from torch import nn

from counterpart.errors import UserError
from counterpart.models.inference import InferenceView
from counterpart.models.normalize import ImageClassifier
from counterpart.saliency.attention import attention_of
from counterpart.seeding import seeded


@pytest.fixture
def small():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def vit(**options):
    """A transformer of 4 x 4 tokens."""
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 3}
    with seeded(0):
        backbone = VisionTransformer(**{**shape, **options})
        for parameter in backbone.parameters():
            nn.init.normal_(parameter, std=0.3)
    return ImageClassifier(backbone, 3).eval()


GAP = {"class_token": False, "global_pool": "avg", "fc_norm": False, "reg_tokens": 1}


def hooked(model, layer, images):
    seen = []
    handle = model.backbone.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.clone())
    )
    logits = model(images)
    handle.remove()
    return seen[0], logits


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer2"),
        ("resnet18", "layer3.0.bn1"),  # folded into conv1
        ("resnet18", "layer3.0.conv1"),  # stays unfolded
        ("resnet18", "layer3.0.shortcut"),
        ("preact-resnet18", "layer4"),  # before the last batch norm and ReLU
        ("wrn-10-2", "block2.layer.0.conv1"),
    ],
)
def test_any_layer_is_shown_folded_or_not(make, images, name, layer):
    model = make(name, **({} if name.startswith("wrn") else {"width": 8}))
    expected, logits = hooked(model, layer, images)
    view = InferenceView(model, layer=layer)
    probe = view.probe(images)
    assert probe.weights is None
    torch.testing.assert_close(probe.features, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(probe.logits, logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(view(images), probe.logits)
    inner, outer = torch.autograd.grad(probe.logits[:, 0].sum(), [probe.features, probe.images])
    assert inner.abs().sum() > 0
    (plain,) = torch.autograd.grad(
        (leaf := InferenceView(model).probe(images)).logits[:, 0].sum(), leaf.images
    )
    torch.testing.assert_close(outer, plain, rtol=1e-2, atol=1e-5)


def test_what_enters_the_head_by_name_is_the_default(make, images):
    model = make("resnet18", width=8)
    named, default = InferenceView(model, layer="layer4").probe(images), InferenceView(model).probe(images)
    assert torch.equal(named.features, default.features)
    assert torch.equal(named.weights, default.weights)


class InPlace(nn.Module):
    """What follows the convolution writes over its output."""

    def __init__(self, traceable=True):
        super().__init__()
        self.traceable = traceable
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.twice = nn.Identity()
        self.pair = Pair()
        self.last = nn.Linear(4, 3)
        self.spare = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        if not self.traceable and images.mean() < 0:
            raise ValueError
        maps = self.twice(self.twice(self.conv(images).relu_()))
        return self.last(self.pair(maps)[0].mean(dim=(2, 3)))


class Pair(nn.Module):
    def forward(self, maps):
        return maps, maps


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("traceable", [True, False])
def test_a_user_s_own_network_shows_a_layer_before_it_is_overwritten(traceable, precision, images):
    with seeded(0):
        model = InPlace(traceable).eval()
    view = InferenceView(model, layer="conv", precision=precision)
    assert view.folded == traceable
    probe = view.probe(images)
    tolerance = 1e-5 if precision == "float32" else 0.05
    assert probe.features.dtype == torch.float32
    torch.testing.assert_close(probe.features, model.conv(images), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(probe.logits, model(images), rtol=tolerance, atol=tolerance)
    (gradient,) = torch.autograd.grad(probe.logits[:, 0].sum(), probe.features)
    assert torch.equal(gradient != 0, probe.features > 0)
    assert not view.probe(images).features.equal(view.probe(1 - images).features)
    assert not model.conv._forward_hooks


@pytest.mark.parametrize("traceable", [True, False])
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("cnv", "InPlace has no layer 'cnv'. It has: conv, "),
        ("", "InPlace has no layer ''"),
        ("spare", "layer 'spare' of InPlace does not run before the head"),
        ("twice", "layer 'twice' of InPlace runs 2 times"),
        ("pair", "layer 'pair' returns tuple"),
        ("last", r"layer 'last' returns \(4, 3\) for images \(4, 3, 32, 32\): no maps"),
    ],
)
def test_layers_without_a_map_are_refused_by_name(traceable, layer, message, images):
    with pytest.raises(UserError, match=message):
        InferenceView(InPlace(traceable).eval(), layer=layer).probe(images)


def test_candidates_are_listed_nearest_first(make):
    with pytest.raises(UserError) as refused:
        InferenceView(make("resnet18", width=8), layer="layer5")
    assert str(refused.value).startswith("ResNet has no layer 'layer5'. It has: layer")
    assert str(refused.value).endswith("more.")
    with pytest.raises(UserError, match="layer 'linear' of ResNet does not run before the head"):
        InferenceView(make("resnet18", width=8), layer="linear")


def test_tokens_are_laid_out_as_the_image(small):
    model = vit(reg_tokens=2)
    expected, logits = hooked(model, "blocks.0", small)
    probe = InferenceView(model, layer="blocks.0").probe(small)
    assert expected.shape == (2, 19, 12)  # class token, two registers, 4 x 4 places
    assert probe.features.shape == (2, 12, 4, 4)
    torch.testing.assert_close(probe.features[0, :, 1, 2], expected[0, 3 + 4 + 2])
    torch.testing.assert_close(probe.logits, logits)
    (gradient,) = torch.autograd.grad(probe.logits[:, 0].sum(), probe.features)
    assert gradient.abs().sum() > 0


def test_a_class_token_shows_no_maps_and_averaged_tokens_do(small):
    assert InferenceView(vit()).probe(small).features is None
    probe = InferenceView(vit(class_token=False, global_pool="avg")).probe(small)  # the norm after pooling
    assert (probe.features.shape, probe.weights) == ((2, 12, 4, 4), None)
    model = vit(**GAP)
    probe = InferenceView(model).probe(small)  # the norm before: exact for each token
    tokens = model.forward_features(small)[:, 1:]
    torch.testing.assert_close(probe.features, tokens.transpose(1, 2).view(2, 12, 4, 4))
    assert torch.equal(probe.weights, model.get_classifier().weight)
    expected = torch.einsum("bahw,ka->bk", probe.features, probe.weights) / 16 + model.get_classifier().bias
    torch.testing.assert_close(probe.logits, expected)


def test_what_the_head_does_is_found_out_though_its_last_layer_is_zero(small):
    for options, sees in (({}, False), (GAP, True), ({"class_token": False, "global_pool": "avg"}, True)):
        model = vit(**options)
        nn.init.zeros_(model.backbone.head.weight)
        view = InferenceView(model)
        probe = view.probe(small)
        assert (probe.features is not None) == sees
        assert (probe.weights is not None) == (options is GAP)
        assert not view._final_layer().weight.any()


@pytest.mark.parametrize(
    ("options", "reads"),
    [
        ({"reg_tokens": 1}, [1.0] + 17 * [0.0]),
        (GAP, [0.0] + 16 * [1 / 16]),
        ({"global_pool": "avg", "pool_include_prefix": True}, 17 * [1 / 17]),
        ({"global_pool": "max", "class_token": False}, 16 * [1 / 16]),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_attention_is_shown_on_the_copy_alone(options, reads, precision, small):
    model = vit(**options)
    for block in model.backbone.blocks:
        block.attn.fused_attn = False
    probe = InferenceView(model, attention=True, precision=precision).probe(small)
    assert not any(block.attn.fused_attn for block in model.backbone.blocks)
    tolerance = 1e-5 if precision == "float32" else 0.1
    torch.testing.assert_close(probe.logits, model(small), rtol=tolerance, atol=tolerance)
    attention = probe.attention
    assert attention.grid == (4, 4)
    torch.testing.assert_close(attention.reads, torch.tensor(reads))
    inputs = model.backbone._pos_embed(model.backbone.patch_embed(small))
    for block, shown in zip(model.backbone.blocks, attention.blocks, strict=True):
        attn, normed = block.attn, block.norm1(inputs)
        q, k, _ = attn.qkv(normed).unflatten(2, (3, 2, 6)).permute(2, 0, 3, 1, 4)
        expected = (q @ k.transpose(-1, -2) / 6**0.5).softmax(dim=-1)
        torch.testing.assert_close(attention_of(shown), expected, rtol=tolerance, atol=tolerance)
        inputs = block(inputs)
    gradients = torch.autograd.grad(probe.logits[:, 0].sum(), [shown.mixed for shown in attention.blocks])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_attention_of_an_untraceable_transformer(small):
    model, plain = vit(), vit()

    class Untraceable(VisionTransformer):
        def forward_features(self, images):
            return super().forward_features(images if images.mean() < 9 else -images)

    model.backbone.__class__ = Untraceable
    views = [InferenceView(one, attention=True) for one in (model, plain)]
    assert [view.folded for view in views] == [False, True]
    ours, theirs = (view.probe(small).attention for view in views)
    for one, other in zip(ours.blocks, theirs.blocks, strict=True):
        torch.testing.assert_close(attention_of(one), attention_of(other))


def test_networks_without_attention_from_token_to_token_are_refused(make, images, small):
    with pytest.raises(UserError, match=r"ResNet has no attention to draw a map from: use grad-cam"):
        InferenceView(make("resnet18", width=8), attention=True)
    from timm.models import SwinTransformer

    swin = SwinTransformer(32, 2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=3)
    model = ImageClassifier(swin, 3).eval()
    with pytest.raises(UserError, match="SwinTransformer does not attend from every token to every other"):
        InferenceView(model, attention=True).probe(images)
    with pytest.raises(UserError, match=r"VisionTransformer does not attend .* once a block"):
        InferenceView(vit(attn_layer="diff"), attention=True).probe(small)
    probe = InferenceView(model).probe(images)  # norm, pooling and a linear layer
    assert (probe.features.shape, probe.weights.shape) == ((4, 16, 8, 8), (3, 16))
    assert InferenceView(model, layer="layers.0").probe(images).features.shape == (
        4,
        8,
        16,
        16,
    )  # channels last
    assert InferenceView(model, layer="patch_embed.proj").probe(images).features.shape == (4, 8, 16, 16)
