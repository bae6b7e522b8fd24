import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from counterpart.errors import UserError
from counterpart.models import MODELS, create
from counterpart.models.backbones import preprocessing
from counterpart.models.normalize import ImageClassifier
from counterpart.seeding import seeded


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"width": 8}),
        ("preact-resnet18", {"width": 8}),
        ("wrn-10-1", {}),
        ("preact-resnet18-fast", {"width": 8}),
        ("dm-wrn-10-1", {}),
        ("dm-preact-resnet18", {"width": 8}),
        ("mnist-cnn", {"image_size": 28}),
        ("small-cnn", {"image_size": 20}),
        ("timm/resnet10t", {"image_size": 32}),
        ("timm/vit_tiny_patch16_224", {"image_size": 48}),
    ],
)
def test_every_name_makes_a_classifier_of_any_channels(name, options):
    size = options.get("image_size", 16)
    for channels in (1, 3):
        model = create(name, 7, in_channels=channels, **options).eval()
        assert model(torch.rand(2, channels, size, size)).shape == (2, 7)
        assert model.num_classes == 7
        assert model.get_classifier().out_features == 7


def test_creation_draws_from_the_default_generator_alone():
    state = torch.random.get_rng_state()
    models = []
    for _ in range(2):
        with seeded(3):
            models.append(create("wrn-10-1", 10))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(models[0].backbone.conv1.weight, models[1].backbone.conv1.weight)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "no network is called 'resnet81'. Did you mean 'resnet18'?"),
        ("wrn-29-10", {}, "Did you mean 'wrn-28-10'?"),
        ("wrn-28-0", {}, "K at least 1"),
        ("dm-wrn-27-2", {}, "Did you mean 'dm-wrn-28-2'?"),
        ("timm/resnet_50", {}, "Did you mean 'resnet50'?"),
        ("timm/resnet10t.nosuch", {}, "no weights 'resnet10t.nosuch'. Did you mean 'resnet10t.c3_in1k'?"),
        ("timm/resnet10t", {"width": 8}, "width 8 does not apply"),
        ("resnet18", {"pretrained": True}, "resnet18 has no pretrained weights"),
    ],
)
def test_a_wrong_name_or_option_is_one_line_with_a_hint(name, options, message):
    with pytest.raises(UserError) as caught:
        create(name, 10, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_failing_download_is_one_line(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host\nand much more")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(UserError) as caught:
        create("timm/resnet10t", 10, pretrained=True)
    told = "cannot load the pretrained weights of timm/resnet10t: no route to host"
    assert str(caught.value) == f"{told}. From weights on the disk: --model.init FILE."


def test_our_networks_see_images_as_they_are_and_timm_networks_normalised():
    images = torch.rand(2, 3, 32, 32)
    model = create("resnet18", 10, width=4).eval()
    assert torch.equal(model(images), model.backbone(images))

    model = create("timm/vit_tiny_patch16_224", 10).eval()
    torch.testing.assert_close(model(images), model.backbone((images - 0.5) / 0.5))
    assert create("timm/resnet10t", 2, in_channels=1).mean.item() == pytest.approx(
        (0.485 + 0.456 + 0.406) / 3
    )


def test_channels_last_networks_give_features_with_channels_second():
    model = create("timm/swin_tiny_patch4_window7_224", 3, image_size=64).eval()
    images = torch.rand(2, 3, 64, 64)
    features = model.forward_features(images)
    assert features.shape == (2, 768, 2, 2)
    torch.testing.assert_close(model.forward_head(features), model.backbone(model.normalise(images)))


def test_wrong_channels_are_refused_with_both_numbers():
    model = create("resnet18", 10, width=4)
    for call in (model, model.forward_features):
        with pytest.raises(ValueError, match=r"3 channels, got 1: images have shape \(2, 1, 16, 16\)"):
            call(torch.rand(2, 1, 16, 16))
    with pytest.raises(ValueError, match="one value for each of 3 channels"):
        ImageClassifier(MODELS["resnet18"].load()(10, width=4), 10, mean=(0.5,))


@pytest.mark.parametrize(
    "name", ["timm/resnet50", "timm/vit_tiny_patch16_224", "timm/dm_nfnet_f0", "timm/eva02_tiny_patch14_336"]
)
def test_preprocessing_is_that_of_timm(name):
    pixels = torch.randint(
        0, 256, (300, 403, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    image = Image.fromarray(pixels.numpy())
    ours = preprocessing(name)
    with torch.device("meta"):
        config = resolve_model_data_config(timm.create_model(name.removeprefix("timm/")))
    theirs = create_transform(**config)(image)
    assert ours.apply(image).dtype == torch.uint8
    normalised = (ours.apply(image) / 255 - torch.tensor(ours.mean).view(-1, 1, 1)) / torch.tensor(
        ours.std
    ).view(-1, 1, 1)
    torch.testing.assert_close(normalised, theirs)


def test_preprocessing_of_other_modes_and_of_unknown_networks():
    ours = preprocessing("timm/resnet50.a1_in1k")
    assert (ours.resize, ours.crop, ours.interpolation) == (int(224 / 0.95), 224, "bicubic")
    assert ours.apply(Image.new("L", (40, 30), 7)).unique().tolist() == [7]
    with pytest.raises(UserError, match="Did you mean 'resnet50'"):
        preprocessing("timm/resnet_50")
