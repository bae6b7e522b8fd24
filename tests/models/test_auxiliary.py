"""Heads for parts that inference does without: what it computes is the plain classifier, bit for bit."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from counterpart.attacks.on_parts import single_staged
from counterpart.budget import Linf
from counterpart.catalogue import MODELS
from counterpart.contracts import PartModel, PartOutput
from counterpart.errors import UserError
from counterpart.losses.segmentation import part_cross_entropy
from counterpart.models import create
from counterpart.models.auxiliary import AuxiliaryClassifier, AuxiliaryHeads
from counterpart.models.hub import load_weights
from counterpart.models.inference import InferenceView
from counterpart.models.normalize import ImageClassifier
from counterpart.models.sizes import size_of
from counterpart.seeding import Keys, seeded

PART_CLASSES = [0, 0, 1, 2, 2, 2]
ENCODERS = [  # a name, and the strides whose maps it has
    ("timm/test_resnet", (8, 16, 32)),
    ("timm/test_efficientnet", (8, 16, 32)),
    ("timm/test_mambaout", (8, 16, 32)),  # channels last
    ("timm/test_vit", (16,)),  # tokens
]


def made(kind="auxiliary", encoder="timm/test_resnet", size=64, **options):
    """A network with the same first weights for the same encoder, whatever comes after them."""
    parts = {"part_classes": PART_CLASSES, "encoder": encoder, **options}
    with seeded(0):
        return create(f"parts/{kind}", 3, image_size=size, parts=parts)


def trained(model, images):
    """Statistics of batch norms that are not those of the beginning, in eval mode."""
    with torch.no_grad():
        model.train()(images)
    return model.eval()


@pytest.fixture
def images(generator):
    return torch.rand(4, 3, 64, 64, generator=generator)


@pytest.mark.parametrize(("encoder", "strides"), ENCODERS, ids=[name for name, _ in ENCODERS])
def test_it_classifies_as_the_plain_classifier_does_and_finds_parts_beside(encoder, strides, images):
    model, baseline = (trained(made(kind, encoder), images) for kind in ("auxiliary", "baseline"))
    assert isinstance(model, PartModel)
    expected = baseline(images)
    output = model.forward_parts(images)
    for logits in (model(images), output.logits, model.without_heads()(images)):
        assert torch.equal(logits, expected)
    sides = [64 // stride for stride in strides]
    assert [tuple(maps.shape) for maps in (output.part_logits, *output.coarser)] == [
        (4, 7, side, side) for side in sides
    ]
    # timm's own way to the maps inside a network
    known = [about["reduction"] for about in model.backbone.feature_info]
    last = [len(known) - 1 - known[::-1].index(stride) for stride in strides]
    _, maps = model.backbone.forward_intermediates(model.normalise(images), last, output_fmt="NCHW")
    for ours, theirs in zip((output.part_logits, *output.coarser), model.part_heads(maps), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("encoder", [name for name, _ in ENCODERS])
def test_a_view_classifies_by_the_plain_classifier_and_its_probes_find_parts(encoder, images):
    model, baseline = (trained(made(kind, encoder), images) for kind in ("auxiliary", "baseline"))
    view, plain = InferenceView(model), InferenceView(baseline)
    assert (view.folded, view.attends) == (plain.folded, plain.attends)
    assert torch.equal(view(images), plain(images))
    probe, expected = view.probe(images), plain.probe(images)
    assert torch.equal(probe.logits, expected.logits)
    for name in ("features", "weights"):
        ours, theirs = getattr(probe, name), getattr(expected, name)
        assert (ours is theirs is None) or torch.equal(ours, theirs)
    assert expected.part_logits is None
    torch.testing.assert_close(
        probe.part_logits, model.forward_parts(images).part_logits, rtol=1e-3, atol=1e-4
    )
    (gradient,) = torch.autograd.grad(probe.part_logits.square().sum(), probe.images)
    leaf = images.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model.forward_parts(leaf).part_logits.square().sum(), leaf)
    assert (gradient - wanted).norm() < 0.01 * wanted.norm()


@pytest.mark.parametrize("form", ["contiguous", "unfolded", "original"])
def test_every_form_of_view_finds_the_same_parts(form, images):
    model = trained(made(), images)
    probe = InferenceView(model, form=form).probe(images)
    torch.testing.assert_close(
        probe.part_logits, model.forward_parts(images).part_logits, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("form", ["fast", "unfolded"])
def test_parts_are_found_beside_a_shown_layer(form, images):
    model = trained(made(), images)
    expected = InferenceView(model).probe(images)
    for layer in ("layer2.0", "layer3", "layer4"):
        probe = InferenceView(model, layer=layer, form=form).probe(images)
        torch.testing.assert_close(probe.part_logits, expected.part_logits)
        (gradient,) = torch.autograd.grad(probe.part_logits.square().sum(), probe.features)
        assert gradient.abs().sum() > 0  # by way of the shown maps
    probe = InferenceView(model, layer="layer3", form=form).probe(images)
    assert probe.features.shape == (4, 192, 4, 4)


def test_the_view_takes_bf16_and_follows_the_heads(images):
    model = trained(made(), images)
    view = InferenceView(model, precision="bf16")
    before = view.probe(images).part_logits
    assert before.dtype == torch.float32
    assert not torch.equal(before.bfloat16().float(), before)  # the heads are float32
    torch.testing.assert_close(before, model.forward_parts(images).part_logits, rtol=0.1, atol=0.05)
    with torch.no_grad():
        model.part_heads.to_parts[0][2].bias.add_(1)
    view.refresh()
    torch.testing.assert_close(view.probe(images).part_logits, before + 1)


@pytest.mark.parametrize("encoder", ["timm/test_resnet", "timm/test_vit"])
def test_inference_costs_what_the_plain_classifier_costs(encoder, images):
    """Parameters and operations of forward, of the view, and of the table of sizes, without a part of the heads."""

    def operations(run):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run(images)
        return counter.get_total_flops()

    def parameters(module):
        return sum(parameter.numel() for parameter in module.parameters())

    model, baseline = (made(kind, encoder).eval() for kind in ("auxiliary", "baseline"))
    for run, plain in (
        (model, baseline),
        (model.without_heads(), baseline),
        (InferenceView(model), InferenceView(baseline)),
    ):
        assert operations(run) == operations(plain) > 0
    assert operations(model.forward_parts) > operations(model)  # the counter sees heads where they run
    assert parameters(model.without_heads()) == parameters(baseline)
    assert parameters(model) == parameters(baseline) + parameters(model.part_heads)
    trunk, plain = InferenceView(model)._trunk, InferenceView(baseline)._trunk
    assert parameters(trunk) == parameters(plain) > 0
    about = {"num_classes": 3, "image_size": 64, "parts": {"part_classes": PART_CLASSES, "encoder": encoder}}
    assert size_of({"name": "parts/auxiliary", **about}) == size_of({"name": "parts/baseline", **about})


def test_what_is_exported_is_the_plain_classifier(images):
    """The same names, of which the heads are none: weights go from one to the other."""
    model, baseline = trained(made(), images), made("baseline").eval()
    plain = model.without_heads()
    assert type(plain) is ImageClassifier
    assert not plain.training
    assert plain.state_dict().keys() == baseline.state_dict().keys()
    load_weights(baseline, plain.state_dict(), "a file")
    assert torch.equal(baseline(images), model(images))
    exported = torch.export.export(plain, (images,))
    assert torch.equal(exported.module()(images), model(images))


def test_heads_by_hand(generator):
    """Two strides: the coarse map is narrowed, carried to the fine one, enlarged and added."""
    heads = AuxiliaryHeads([80, 300], num_parts=2).eval()
    assert [narrow[0].out_channels for narrow in heads.narrow] == [64, 75]  # a quarter, but 64 at least
    assert [narrow[0].out_channels for narrow in AuxiliaryHeads([40, 512], 2).narrow] == [40, 128]
    fine, coarse = (
        torch.randn(2, 80, 6, 6, generator=generator),
        torch.randn(2, 300, 3, 3, generator=generator),
    )

    def narrowed(number, maps):
        conv, norm = heads.narrow[number]
        maps = torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], maps)
        return maps / (1 + norm.eps) ** 0.5

    def separable(module, maps):
        _, depth, point = module
        maps = F.conv2d(F.gelu(maps), depth.weight, padding=1, groups=maps.shape[1])
        return F.conv2d(maps, point.weight, point.bias)

    low = narrowed(1, coarse)
    carried = separable(heads.carry[0], low)
    high = narrowed(0, fine) + F.interpolate(carried, size=(6, 6), mode="bilinear", align_corners=False)
    expected = separable(heads.to_parts[0], high), separable(heads.to_parts[1], low)
    for ours, theirs in zip(heads([fine, coarse]), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_every_scale_trains_the_encoder_and_its_head(images):
    model = made().train()
    output = model.forward_parts(images)
    for maps in (output.part_logits, *output.coarser):
        model.zero_grad()
        maps.square().sum().backward(retain_graph=True)
        assert model.backbone.conv1[0].weight.grad.abs().sum() > 0
    model.zero_grad()
    sum(maps.square().sum() for maps in (output.part_logits, *output.coarser)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.part_heads.parameters())
    assert model.backbone.fc.weight.grad is None  # the class is not read from parts


@pytest.mark.parametrize("seen", [lambda model: model, InferenceView], ids=["model", "view"])
def test_an_attack_on_the_parts_raises_the_loss_of_the_finest_part_logits(seen, images, generator):
    model = trained(made(), images)
    parts = torch.randint(0, 7, (4, 64, 64), generator=generator)
    known = {"parts": parts, "annotated": torch.ones(4, dtype=torch.bool)}
    budget, labels = Linf(0.03), torch.arange(4) % 3
    keys = Keys(0, "attack", torch.arange(4))
    attacked = single_staged(
        seen(model), images, labels, **known, budget=budget, keys=keys, share=1.0, steps=5, restarts=1,
        to_the_end=True,
    ).images  # fmt: skip

    def loss(shown):
        return part_cross_entropy(model.forward_parts(shown).part_logits, parts, known["annotated"], False)

    moved = budget.sample(images, keys)
    assert (loss(attacked) > loss(images)).all()
    assert (loss(attacked) - loss(images) > 3 * (loss(moved) - loss(images)).abs()).all()


def test_a_pass_leaves_no_hook_behind(images):
    model = made().eval()
    before = sum(len(module._forward_hooks) for module in model.modules())
    model.forward_parts(images)
    with pytest.raises(ValueError, match="channels"):
        model.forward_parts(images[:, :1])
    assert sum(len(module._forward_hooks) for module in model.modules()) == before == 0


def test_it_has_an_encoder_of_the_paper_and_no_other_setting():
    parts = {"part_classes": [0] * 40, "encoder": "resnet50"}
    with torch.device("meta"):
        model = create("parts/auxiliary", 11, image_size=224, parts=parts)
    assert model.part_layers == ("layer2", "layer3", "layer4")
    assert [narrow[0].out_channels for narrow in model.part_heads.narrow] == [128, 256, 512]  # as published
    assert sum(p.numel() for p in model.without_heads().parameters()) == 23_530_571
    assert sum(p.numel() for p in model.part_heads.parameters()) == 1_593_723  # docs/parts.md
    assert MODELS["parts/auxiliary"].facts.options == ("encoder",)


def test_what_it_cannot_do_is_refused_in_one_line(images):
    model = made().eval()
    with pytest.raises(
        UserError, match="parts/auxiliary cannot classify from part logits alone: it reads the enc"
    ):
        model.classify_parts(model.forward_parts(images).part_logits)
    with pytest.raises(
        UserError, match="layer 'stage2' of HighResolutionNet returns no maps to predict parts from"
    ):
        made(encoder="timm/hrnet_w18_small")
    with pytest.raises(UserError, match="parts/auxiliary needs images with annotated parts"):
        made(part_classes=[])
    with pytest.raises(UserError, match="timm has no classifier 'resnet51'"):
        made(encoder="timm/resnet51")


def test_a_network_that_does_not_say_its_strides_is_refused():
    with pytest.raises(UserError, match="ResNet has no layer with maps at a stride of 8, 16 or 32 pixels"):
        AuxiliaryClassifier(create("resnet18", 3, width=8), PART_CLASSES)


def test_the_answer_to_the_last_images_keeps_every_resolution():
    maps = torch.arange(4.0).view(4, 1, 1, 1)
    output = PartOutput(torch.arange(4.0)[:, None], maps, (10 * maps, 100 * maps)).last(3)
    assert output.logits[:, 0].tolist() == [1, 2, 3]
    assert [answer.part_logits[:, 0, 0, 0].tolist() for answer in output.resolutions] == [
        [1, 2, 3], [10, 20, 30], [100, 200, 300]
    ]  # fmt: skip
    assert all(answer.coarser == () for answer in output.resolutions)


def test_the_heads_for_parts_are_no_part_of_the_encoder_and_learn_at_the_full_rate():
    model = made()
    encoder = {id(parameter) for parameter in model.encoder_parameters()}
    names = {name for name, parameter in model.named_parameters() if id(parameter) not in encoder}
    assert {name.partition(".")[0] for name in names} == {"part_heads", "backbone"}
    assert {name for name in names if name.startswith("backbone")} == {
        "backbone.fc.weight",
        "backbone.fc.bias",
    }
