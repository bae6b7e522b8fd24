"""Encoders from files: every tensor finds its place, the head is left out, and what does not fit is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from counterpart.errors import UserError
from counterpart.jobs.stored_models import weights_of
from counterpart.models import create
from counterpart.models.encoder_weights import start_encoder_from
from counterpart.models.lookalikes import guess_network
from counterpart.models.normalize import ImageClassifier

CLASSES, PARTS = 3, [0, 0, 1, 2]


def _part_model(encoder: str, name: str = "parts/downsampled", channels: int = 3) -> ImageClassifier:
    parts = {"part_classes": PARTS, "encoder": encoder, "decoder": "fpn"}
    model = create(name, CLASSES, in_channels=channels, image_size=64, parts=parts)
    assert isinstance(model, ImageClassifier)
    return model


def _weights(name: str, **options: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return timm.create_model(name, **options).state_dict()


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_resnet", "resnet18"])
def test_the_encoder_of_a_part_model_computes_what_the_classifier_of_the_file_does(name: str) -> None:
    classifier = timm.create_model(name, num_classes=7).eval()
    model = _part_model(f"timm/{name}").eval()
    said = start_encoder_from(model, classifier.state_dict(), "w", f"timm/{name}")
    images = torch.rand(2, 3, 64, 64)
    features = timm.create_model(name, features_only=True).eval()
    flat = {key.replace(".", "_"): value for key, value in classifier.state_dict().items()}
    features.load_state_dict({key: flat[key.replace(".", "_")] for key in features.state_dict()})
    torch.testing.assert_close(model.backbone.segmenter.encoder(images)[-1], features(images)[-1])  # type: ignore[union-attr]
    assert "tensors fitted; left out:" in said


def test_weights_of_torchvision_start_the_encoder_of_the_same_name() -> None:
    weights = torchvision.models.resnet18(weights=None).state_dict()
    model = _part_model("resnet18")
    said = start_encoder_from(model, weights, "resnet18.pt", "resnet18")
    assert said == "the encoder resnet18 starts from resnet18.pt: 100 of 100 tensors fitted; left out: fc."
    assert torch.equal(
        model.state_dict()["backbone.segmenter.encoder.layer4.1.bn2.weight"], weights["layer4.1.bn2.weight"]
    )


@pytest.mark.parametrize("prefix", ["module.", "model.encoder.", "_orig_mod.", "backbone."])
def test_weights_may_stand_under_a_prefix_beside_other_modules(prefix: str) -> None:
    weights = _weights("test_resnet")
    wrapped = {prefix + name: tensor for name, tensor in weights.items()} | {
        "projector.weight": torch.ones(3)
    }
    model, plain = _part_model("timm/test_resnet"), _part_model("timm/test_resnet")
    assert "projector" in start_encoder_from(model, wrapped, "w", "timm/test_resnet")
    start_encoder_from(plain, weights, "w", "timm/test_resnet")
    for name, tensor in plain.state_dict().items():
        if name.startswith("backbone.segmenter.encoder."):
            assert torch.equal(tensor, model.state_dict()[name])


def test_a_final_layer_beside_a_norm_of_the_encoder_is_left_out() -> None:
    """The head of ConvNeXt is a module of both: its norm belongs to the encoder of the baseline, its layer does not."""
    weights = _weights("test_convnext", num_classes=7)
    model = _part_model("timm/test_convnext", "parts/baseline")
    start_encoder_from(model, weights, "w", "timm/test_convnext")
    assert torch.equal(model.state_dict()["backbone.head.norm.weight"], weights["head.norm.weight"])


def test_the_baseline_takes_everything_but_the_final_layer() -> None:
    weights = _weights("test_efficientnet", num_classes=CLASSES)
    model = _part_model("timm/test_efficientnet", "parts/baseline")
    before = model.get_classifier().weight.clone()
    said = start_encoder_from(model, weights, "w", "timm/test_efficientnet")
    assert said.endswith("left out: classifier.")
    assert torch.equal(model.get_classifier().weight, before)
    assert torch.equal(model.state_dict()["backbone.conv_head.weight"], weights["conv_head.weight"])


def test_an_auxiliary_model_starts_where_its_baseline_does_and_its_heads_stay() -> None:
    weights = _weights("test_efficientnet")
    model = _part_model("timm/test_efficientnet", "parts/auxiliary")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = start_encoder_from(model, weights, "w", "timm/test_efficientnet")
    assert said.endswith("left out: classifier.")
    for name, tensor in model.state_dict().items():
        inside = name.startswith("backbone.") and not name.startswith("backbone.classifier.")
        assert torch.equal(tensor, weights[name.removeprefix("backbone.")] if inside else before[name]), name


@pytest.mark.parametrize(
    "trained", ["parts/baseline", "parts/auxiliary", "parts/downsampled", "parts/two-headed"]
)
def test_a_model_of_this_project_starts_an_encoder_with_its_own_mean(trained: str) -> None:
    first = _part_model("timm/test_resnet", trained)
    first.mean += 0.25
    model = _part_model("timm/test_resnet")
    start_encoder_from(model, first.state_dict(), "run", "timm/test_resnet")
    assert torch.equal(model.mean, first.mean)
    last = "layer4.0.conv2.weight"
    old = next(tensor for name, tensor in first.state_dict().items() if name.endswith(last))
    assert torch.equal(model.state_dict()[f"backbone.segmenter.encoder.model.{last}"], old)


@pytest.mark.parametrize("name", ["parts/baseline", "parts/auxiliary", "parts/downsampled"])
def test_what_starts_from_a_file_is_what_has_a_rate_of_its_own(name: str) -> None:
    model = _part_model("timm/test_resnet", name)
    encoder = {id(parameter) for parameter in model.encoder_parameters()}
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    weights = {key: tensor + 1 for key, tensor in _weights("test_resnet").items()}
    start_encoder_from(model, weights, "w", "timm/test_resnet")
    for key, parameter in model.named_parameters():
        assert (id(parameter) in encoder) == (not torch.equal(parameter, before[key])), key


def _lacking(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name != "layer4.0.conv1.weight"}


def _surplus(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights | {"layer4.7.conv1.weight": torch.ones(2)}


def _foreign(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights | {"lstm.weight": torch.ones(2)}


def _grey(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights | {"conv1.0.weight": weights["conv1.0.weight"][:, :1]}


def _broken(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights | {"layer4.0.bn1.weight": weights["layer4.0.bn1.weight"] * torch.nan}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_lacking, "{n1} of {n} tensors fitted; the file has no layer4.0.conv1.weight."),
        (_surplus, "{n} of {n} tensors fitted; the encoder has no layer4.7.conv1.weight."),
        (_foreign, "{n} of {n} tensors fitted; the encoder has no lstm.weight."),
        (_grey, "{n1} of {n} tensors fitted; conv1.0.weight has shape (16, 1, 3, 3) there and (16, 3, 3, 3) here, "
                "for images of 1 channels instead of 3."),
        (_broken, "damaged: backbone.segmenter.encoder.model.layer4.0.bn1.weight holds numbers that are not finite."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_is_loaded(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterpart.models.lookalikes.guess_network", lambda *_: None)
    weights = _weights("test_resnet")
    model = _part_model("timm/test_resnet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    needed = sum(
        name.startswith("backbone.segmenter.encoder.") and not name.endswith("tracked") for name in before
    )
    with pytest.raises(UserError) as refused:
        start_encoder_from(model, change(weights), "w.pt", "timm/test_resnet")
    assert said.format(n=needed, n1=needed - 1) in str(refused.value)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_weights_of_another_network_are_told_what_they_look_like() -> None:
    weights = _weights("test_efficientnet", num_classes=5)
    with pytest.raises(
        UserError, match=r"0 of \d+ tensors fitted.*The file looks like timm/test_efficientnet"
    ):
        start_encoder_from(_part_model("timm/test_resnet"), weights, "w.pt", "timm/test_resnet")


def test_a_network_of_torchvision_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "list_models", lambda **_: ["regnet_x_16gf", "squeezenet1_1"])
    weights = torchvision.models.squeezenet1_1(weights=None, num_classes=4).state_dict()
    assert guess_network(weights, "resnet18") == "torchvision's squeezenet1_1"


def test_weights_that_belong_to_no_known_network_are_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.models, "list_models", lambda **_: ["resnet18", "regnet_x_16gf"])
    assert guess_network({"first.weight": torch.ones(2, 3)}, "resnet18") is None


@pytest.mark.parametrize("averaged", [False, True])
def test_the_checkpoint_of_a_training_gives_the_weights_that_would_be_judged(
    tmp_path: Path, averaged: bool
) -> None:
    model = _part_model("timm/test_resnet")
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    if averaged:
        tensors |= {f"ema.module.{name.removeprefix('model.')}": t + 1 for name, t in tensors.items()}
    tensors["optimizer.0.momentum_buffer"] = torch.ones(3)
    save_file(tensors, tmp_path / "last.safetensors", {"counterpart": "{}"})
    weights, source = weights_of(str(tmp_path / "last.safetensors"))
    other = _part_model("timm/test_resnet")
    start_encoder_from(other, weights, source, "timm/test_resnet")
    name = "backbone.segmenter.encoder.model.layer4.0.conv1.weight"
    assert torch.equal(other.state_dict()[name], model.state_dict()[name] + averaged)
    assert torch.equal(other.mean, model.mean + averaged)
