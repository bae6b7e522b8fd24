"""Part models as a whole: sizes, the contract, views, refusals."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from counterpart.contracts import PartModel, PartOutput
from counterpart.errors import UserError
from counterpart.models import create
from counterpart.models.hub import load_weights, start_from
from counterpart.models.inference import InferenceView
from counterpart.models.part_heads import BoundingBox, Downsampled
from counterpart.models.part_model import PartClassifier, produces
from counterpart.models.segmenters import DECODERS, Segmenter, statistics
from counterpart.seeding import seeded

# How many parts each class has: Part-ImageNet's eleven, Cityscapes' two, PASCAL-Part's five.
PART_IMAGENET, CITYSCAPES, PASCAL = (5, 4, 5, 5, 2, 2, 3, 4, 4, 4, 2), (4, 5), (3, 3, 3, 3, 3)
SMALL = {"part_classes": [0, 0, 1, 2, 2, 2], "encoder": "timm/test_resnet", "depth": 3}
VARIANTS = [
    ("downsampled", {}),
    ("downsampled", {"resolution": "full", "pool": 8}),
    ("downsampled", {"background": False}),
    ("downsampled", {"see_image": True}),
    ("bounding-box", {}),
    ("bounding-box", {"resolution": "full"}),
    ("two-headed", {"branch": "decoder"}),
    ("two-headed", {"branch": "encoder"}),
    ("pixel", {}),
    ("pixel", {"resolution": "full"}),
]
IDS = ["-".join([name, *map(str, options.values())]) for name, options in VARIANTS]


def classes_of(counts):
    return [number for number, count in enumerate(counts) for _ in range(count)]


def small(name, seed=0, **options):
    with seeded(seed):
        return create(f"parts/{name}", 3, image_size=48, parts={**SMALL, **options})


@pytest.fixture
def images(generator):
    return torch.rand(4, 3, 48, 48, generator=generator)


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "counts", "options", "expected"),
    [
        ("downsampled", PART_IMAGENET, {}, 26_833_921),
        ("downsampled", CITYSCAPES, {}, 26_690_800),
        ("downsampled", PART_IMAGENET, {"encoder": "resnext50_32x4d"}, 26_305_793),
        ("downsampled", PART_IMAGENET, {"encoder": "efficientnet-b4"}, 18_772_553),
        ("bounding-box", PART_IMAGENET, {}, 26_698_976),
        ("bounding-box", PASCAL, {}, 26_685_745),
        ("two-headed", PART_IMAGENET, {"branch": "decoder"}, 26_973_956),
        ("two-headed", PART_IMAGENET, {"branch": "encoder"}, 28_790_020),
        ("pixel", PART_IMAGENET, {}, 26_687_865),
        ("baseline", PART_IMAGENET, {}, 23_530_571),
        ("baseline", PART_IMAGENET, {"encoder": "resnext50_32x4d"}, 23_002_443),
        ("baseline", PART_IMAGENET, {"encoder": "efficientnet-b4"}, 17_568_339),
    ],
)
def test_models_have_the_published_sizes(name, counts, options, expected):
    with torch.device("meta"):
        parts = {"part_classes": classes_of(counts), **options}
        model = create(f"parts/{name}", len(counts), image_size=224, parts=parts)
    assert size(model) == expected


def test_heads_have_the_published_sizes():
    """On DeepLabv3+ with ResNet-50, whose totals follow from these."""
    with torch.device("meta"):
        pools = {p: size(Downsampled(40, 11, pool=p)) for p in (1, 2, 4, 8, 32, 128)}
        assert pools == {1: 19_981, 2: 45_196, 4: 146_056, 8: 549_496, 32: 8_618_296, 128: 137_719_096}
        totals = [26_679_898 + size(Downsampled(9, 2)), 26_681_440 + size(Downsampled(15, 5))]
        assert totals == [26_690_800, 26_706_565]
        assert 26_687_865 + size(Downsampled(40, 11, background=False)) == 26_827_176
        totals = [26_679_898 + size(BoundingBox(9, 2)), 26_681_440 + size(BoundingBox(15, 5))]
        assert totals == [26_682_490, 26_685_745]


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)
def test_every_part_model_classifies_segments_trains_and_has_a_view(name, options, images):
    model = small(name, **options)
    assert isinstance(model, PartModel)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    before = [parameter.clone() for parameter in model.parameters()]
    output = model.train().forward_parts(images)
    assert isinstance(output, PartOutput)
    assert output.logits.shape == (4, 3)
    assert output.part_logits.shape == (4, 7, 12, 12)
    (F.cross_entropy(output.logits, torch.arange(4) % 3) + output.part_logits.square().mean()).backward()
    optimiser.step()
    trained = [p for p in model.backbone.head.parameters() if p.grad is not None]
    assert len(trained) == len(list(model.backbone.head.parameters()))
    assert sum(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) > 30

    output = model.eval().forward_parts(images)
    torch.testing.assert_close(model(images), output.logits)
    if model.backbone.head.reads == "parts":
        torch.testing.assert_close(model.classify_parts(output.part_logits), output.logits)
    else:
        with pytest.raises(UserError, match="cannot classify from part logits alone: it reads the"):
            model.classify_parts(output.part_logits)

    view = InferenceView(model)
    assert view.folded
    probe = view.probe(images)
    torch.testing.assert_close(probe.logits, output.logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(probe.part_logits, output.part_logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(view(images), probe.logits)
    assert probe.weights is None
    maps = torch.autograd.grad(probe.logits.sum(), [probe.images, probe.features], retain_graph=True)
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in maps)
    (gradient,) = torch.autograd.grad(probe.part_logits.sum(), probe.images)
    assert gradient.abs().sum() > 0


def test_the_baseline_trains(generator):
    with seeded(0):
        model = create(
            "parts/baseline", 3, image_size=64, parts={"part_classes": [], "encoder": "timm/test_resnet"}
        ).train()
    logits = model(torch.rand(4, 3, 64, 64, generator=generator))
    assert logits.shape == (4, 3)
    F.cross_entropy(logits, torch.arange(4) % 3).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_view_of_a_part_model_takes_bf16_and_follows_the_model(images):
    model = small("downsampled").eval()
    view = InferenceView(model, precision="bf16")
    probe = view.probe(images)
    assert probe.part_logits.dtype == probe.logits.dtype == torch.float32
    assert torch.equal(
        probe.part_logits.bfloat16().float(), probe.part_logits
    )  # the segmenter was in bfloat16
    torch.testing.assert_close(model.classify_parts(probe.part_logits), probe.logits)  # the head was not
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    view.refresh()
    assert not torch.equal(view(images), probe.logits)


def test_features_read_by_a_second_head_are_what_maps_are_drawn_from(images):
    probe = InferenceView(small("two-headed", branch="encoder").eval()).probe(images)
    assert probe.features.shape[1] == 48
    probe = InferenceView(small("downsampled", see_image=True).eval()).probe(images)
    assert probe.features is probe.part_logits


def test_the_head_is_computed_in_float32_under_autocast(images):
    model = small("bounding-box").eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = model.forward_parts(images)
    assert output.logits.dtype == torch.float32
    torch.testing.assert_close(model.classify_parts(output.part_logits), output.logits)


def test_full_resolution_is_that_of_the_enlarged_maps(images):
    own, full = small("downsampled"), small("downsampled", resolution="full")
    full.load_state_dict(own.state_dict())
    assert (own.full_resolution, full.full_resolution) == (False, True)
    own.eval(), full.eval()
    part_logits = full.forward_parts(images).part_logits
    whole = F.interpolate(part_logits, (48, 48), mode="bilinear", align_corners=True)
    torch.testing.assert_close(full.classify_parts(part_logits), own.classify_parts(whole))
    assert not torch.allclose(full(images), own(images), rtol=1e-4)


def test_weights_go_from_model_to_model(images):
    first, second = small("bounding-box").eval(), small("bounding-box", seed=1).eval()
    assert not torch.equal(first(images), second(images))
    load_weights(second, first.state_dict(), "a file")
    assert torch.equal(first(images), second(images))
    with seeded(2):
        other = create("parts/bounding-box", 5, image_size=48, parts=SMALL)
    assert start_from(other, first.state_dict(), "a file")  # another number of classes: a new final layer
    assert torch.equal(other.backbone.segmenter.to_parts.weight, first.backbone.segmenter.to_parts.weight)


@pytest.mark.parametrize("decoder", [d for d in DECODERS if d not in ("deeplabv3plus", "dpt")])
def test_every_decoder_segments_at_its_own_resolution(decoder, generator):
    with seeded(0):
        model = Segmenter(5, "timm/test_resnet", decoder, image_size=128).eval()
    found = model(torch.rand(1, 3, 128, 128, generator=generator))
    assert found.part_logits.shape == (1, 5, 128 // model.scale, 128 // model.scale)
    assert (found.decoded.shape[1], found.encoded.shape[1]) == model.widths


def test_a_transformer_segments_too(generator):
    with seeded(0):
        model = Segmenter(5, "timm/test_vit", "dpt", image_size=160).eval()
    found = model(torch.rand(1, 3, 160, 160, generator=generator))
    assert found.part_logits.shape == (1, 5, 160 // model.scale, 160 // model.scale)


def test_the_output_stride_is_that_of_the_last_map(generator):
    images = torch.rand(1, 3, 64, 64, generator=generator)
    for stride in (8, 16):
        model = Segmenter(3, "timm/test_resnet", output_stride=stride, image_size=64).eval()
        assert model(images).encoded.shape[2] == 64 // stride


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "bounding-bok",
            {},
            "no part model is called 'parts/bounding-bok'. Did you mean 'parts/bounding-box'?",
        ),
        ("pixel", {"encoder": "resnet51"}, "no encoder is called 'resnet51'. Did you mean 'resnet50'?"),
        ("pixel", {"encoder": "timm/test_resnot"}, "timm has no network 'test_resnot'"),
        ("pixel", {"decoder": "unut"}, "no decoder is called 'unut'. Did you mean 'unet'?"),
        ("pixel", {"decoder": "unet", "output_stride": 8}, "decoder unet has no output stride"),
        ("two-headed", {"output_stride": 8, "depth": 2}, "cannot build deeplabv3plus on timm/test_resnet"),
        ("pixel", {"depth": 9}, "cannot build deeplabv3plus on timm/test_resnet"),
        ("pixel", {"part_classes": []}, "parts/pixel needs images with annotated parts"),
        ("baseline", {"encoder": "vgg16_bn_"}, "timm has no classifier 'vgg16_bn_'"),
    ],
)
def test_a_wrong_option_is_one_line(name, options, message):
    with pytest.raises(UserError) as caught:
        small(name, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_part_models_need_parts_and_fitting_images():
    with pytest.raises(UserError, match="needs images with annotated parts, and this data set has none"):
        create("parts/pixel", 3)
    with pytest.raises(UserError, match="multiple of 8 pixels, not 36"):
        create("parts/pixel", 3, image_size=36, parts=SMALL)
    with pytest.raises(
        UserError, match="at least 10 x 10 cells of the decoder, and images of 32 pixels have 8"
    ):
        create("parts/two-headed", 3, image_size=32, parts=SMALL)
    with pytest.raises(UserError, match="width 8 does not apply to parts/pixel"):
        create("parts/pixel", 3, width=8, parts=SMALL)


def test_images_of_other_channels_are_normalised_by_the_mean():
    assert statistics("resnet50", 3)[0] == [0.485, 0.456, 0.406]
    assert statistics("resnet50", 1)[0] == [pytest.approx((0.485 + 0.456 + 0.406) / 3)]
    assert statistics("timm/test_resnet", 2) == (
        [0.5, 0.5],
        [0.5, 0.5],
    )  # timm knows what it was trained to see
    model = create("parts/pixel", 3, in_channels=1, image_size=48, parts=SMALL)
    assert model(torch.rand(2, 1, 48, 48)).shape == (2, 3)


def test_a_head_that_is_never_called_is_noticed():
    """The published EfficientNet baseline answered with 1,792 features."""

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, images):
            return images.mean(dim=(2, 3)).repeat(1, 8)

    model = Unused().train()
    assert not produces(model, 3, 1, 8)
    assert model.training
    baseline = small("baseline", encoder="timm/test_resnet")
    assert not isinstance(baseline, PartClassifier)
    assert produces(baseline, 3, 3, 48)
