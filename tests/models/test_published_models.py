"""The models of RobustBench by name: every row says which network it is, and files under its names load strictly."""

from dataclasses import replace

import pytest
import timm
import torch

import counterpart
from counterpart.catalogue import MODELS, PREPARATIONS, PROTOCOLS, published_models, rows_named
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.jobs.published_models import check_architecture, row_of
from counterpart.models import builder, create
from counterpart.models.normalisations import normalisation_of
from counterpart.models.published import _in_todays_names, load_published

from .conftest import randomise

ROWS = published_models()


def network(name, classes=10, **options):
    torch.random.default_generator.manual_seed(0)
    return randomise(create(name, classes, **options)).eval()


def state(model, prefix=""):
    return {prefix + name: tensor for name, tensor in model.backbone.state_dict().items()}


def saved(folder, name, content):
    torch.save(content, folder / f"{name}.pt")
    return folder / f"{name}.pt"


def test_each_row_has_a_network_or_says_which_is_missing():
    for row in ROWS:
        assert bool(row.network) != bool(row.missing), row
        assert row.protocol in PROTOCOLS
        assert (row.preparation in PREPARATIONS) == (row.data == "imagenet"), row
        assert row.reference.startswith(("arXiv ", "https://"))
        assert row.files == 1 or not row.network
        assert bool(row.normalisation) == bool(row.network)
        normalisation_of(row)
    assert len(ROWS) == 206
    assert len([row for row in ROWS if row.network]) == 152
    assert len({(row.protocol, row.name) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("name", sorted({row.network for row in ROWS if row.network}))
def test_every_network_of_the_rows_is_here(name):
    if name.startswith("timm/"):
        assert timm.is_model(name.removeprefix("timm/"))
    else:
        assert builder(name) is not None
        assert name in MODELS or name.startswith(("wrn-", "dm-wrn-"))


def test_some_rows_are_what_robustbench_says():
    rows = {(row.protocol, row.name): row for row in ROWS}
    linf = "robustbench-cifar10-linf"
    assert rows[linf, "Rebuffi2021Fixing_70_16_cutmix_extra"].network == "dm-wrn-70-16"
    assert rows[linf, "Gowal2020Uncovering_34_20"].network == "dm-wrn-34-20"
    assert rows[linf, "Sridhar2021Robust_34_15"].network == "wrn-34-15"
    assert rows[linf, "Andriushchenko2020Understanding"].network == "preact-resnet18-fast"
    assert rows["robustbench-cifar10-l2", "Rice2020Overfitting"].network == "preact-resnet18"
    assert (
        rows["robustbench-cifar100-linf", "Rice2020Overfitting"].network == "preact-resnet18"
    )  # its shortcuts are late
    wong = rows["robustbench-imagenet-linf", "Wong2020Fast"]
    assert (wong.network, wong.preparation, wong.normalisation) == ("timm/resnet50", "Crop288", "imagenet")
    assert rows["robustbench-imagenet-linf", "Chen2024Data_WRN_50_2"].normalisation == "none"
    assert rows[linf, "Chen2020Adversarial"].files == 3
    assert rows[linf, "Chen2020Adversarial"].kind == "3 state dicts (.pt)"


# The name of a published model -> its settings, the content of its file, and its normalisation.
TENSORS = {
    "mu": torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1),
    "sigma": torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1),
}
FILES = {
    "Addepalli2022Efficient_RN18": (lambda m: state(m, "module."), ((0.0,) * 3, (1.0,) * 3)),
    "Modas2021PRIMEResNet18": (lambda m: {**state(m), **TENSORS}, ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))),
    "Andriushchenko2020Understanding": (
        lambda m: {"last": state(m), "best": state(m)},
        ((0.0,) * 3, (1.0,) * 3),
    ),
    "Kireev2021Effectiveness_RLAT": (
        lambda m: {"last": state(m)},
        ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    ),
    "Rade2021Helper_R18_extra": (lambda m: state(m), ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))),
}


@pytest.mark.parametrize("name", FILES)
def test_files_under_their_published_names_load(tmp_path, name):
    content, (mean, std) = FILES[name]
    row = row_of(name, {"data": {"name": "cifar10"}})
    original = network(row.network, width=4)
    model, _ = load_published(row.network, saved(tmp_path, "weights", content(original)), row=row)
    assert model.mean.flatten().tolist() == pytest.approx(mean)
    assert model.std.flatten().tolist() == pytest.approx(std)
    original.mean.copy_(torch.tensor(mean).view(3, 1, 1))
    original.std.copy_(torch.tensor(std).view(3, 1, 1))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(images), original(images))
    broken = state(original)
    broken.popitem()
    with pytest.raises(UserError, match=r"does not fit this network: missing \w+"):
        load_published(row.network, saved(tmp_path, "broken", broken), row=row)


def test_a_row_says_the_normalisation_whatever_the_file_is_called(tmp_path):
    row = replace(row_of("Rony2019Decoupling", {}), network="wrn-10-1")
    file = saved(tmp_path, "weights", state(network("wrn-10-1"), "module."))
    model, notes = load_published("wrn-10-1", file, row=row)
    assert model.mean.flatten().tolist() == pytest.approx([0.491, 0.482, 0.447])
    assert "as RobustBench does for Rony2019Decoupling" in notes[-1]


def test_a_file_of_imagenet_has_imagenets_normalisation_and_not_timms(tmp_path):
    [row] = rows_named("Mo2022When_ViT-B")
    row = replace(row, network="timm/test_vit")
    original = network("timm/test_vit", image_size=160)
    model, _ = load_published(row.network, saved(tmp_path, "weights", state(original, "model.")), row=row)
    assert original.mean.flatten().tolist() != pytest.approx([0.485, 0.456, 0.406])
    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def old_names(weights):
    """The tensors of a Swin transformer as timm called them before 0.9, and the buffers that it stored."""
    old = {}
    for name, tensor in weights.items():
        for stage in (1, 2, 3):
            name = name.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
        old[name.replace("head.fc.", "head.")] = tensor
    return {
        **old,
        "layers.0.blocks.1.attn_mask": torch.ones(2),
        "layers.0.blocks.0.attn.relative_position_index": torch.ones(2),
    }


def test_names_of_old_timm_become_those_of_today():
    with torch.device("meta"):
        today = timm.create_model("swin_tiny_patch4_window7_224").state_dict()
    old = old_names(today)
    assert old.keys() != today.keys()
    renamed, notes = _in_todays_names(old, "timm/swin_tiny_patch4_window7_224")
    assert renamed.keys() == today.keys()
    assert all(renamed[name] is tensor for name, tensor in today.items())
    assert notes
    assert _in_todays_names(today, "timm/swin_tiny_patch4_window7_224") == (today, [])
    assert _in_todays_names(old, "timm/resnet50") == (old, [])


@pytest.mark.slow
def test_swin_transformers_under_the_names_of_old_timm(tmp_path):
    name = "timm/swin_tiny_patch4_window7_224"
    original = network(name, image_size=224)
    weights = old_names(state(original))
    assert "layers.0.downsample.reduction.weight" in weights
    assert "head.weight" in weights
    file = saved(tmp_path, "weights", {f"model.{key}": tensor for key, tensor in weights.items()})
    model, notes = load_published(name, file)
    assert any("names of timm before 0.9" in note for note in notes)
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in original.state_dict().items())
    del weights["layers.1.downsample.reduction.weight"]
    with pytest.raises(UserError, match=r"missing layers\.2\.downsample\.reduction\.weight"):
        load_published(name, saved(tmp_path, "broken", weights))


def test_which_of_several_models_of_a_name_is_meant():
    def of(**evaluate):
        return row_of("Rice2020Overfitting", {"evaluate": evaluate, "data": {"name": "cifar10"}})

    assert of(protocol="robustbench-cifar10-linf").network == "wrn-34-20"
    assert of(protocol="robustbench-cifar10-l2").network == "preact-resnet18"
    assert of(norm="l2").network == "preact-resnet18"
    assert row_of("Rice2020Overfitting", {"data": {"name": "cifar100"}}).classes == 100
    with pytest.raises(
        UserError, match="several published models are called Rice2020Overfitting: say which by --protocol"
    ):
        of()
    assert row_of("Carmon2019Unlabeled", {}).network == "wrn-28-10"
    assert row_of("resnet18", {}) is None
    # A model of one leaderboard may be judged by the protocol of another.
    assert (
        row_of("Carmon2019Unlabeled", {"evaluate": {"protocol": "robustbench-cifar10-l2"}}).network
        == "wrn-28-10"
    )
    with pytest.raises(
        UserError, match=r"Ding2020MMA is a WRN-28-4 that standardises .*, which no network here is\."
    ):
        row_of("Ding2020MMA", {})
    assert row_of("Engstrom2019Robustness", {"data": {"name": "imagenet"}}).network == "timm/resnet50"
    with pytest.raises(UserError, match="is ResNet-50 for 32 pixels, which no network here is"):
        row_of("Engstrom2019Robustness", {"data": {"name": "cifar10"}})


def test_a_name_with_a_slip_gets_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'Carmon2019Unlabeled'"):
        check_architecture("Carmon2019Unlabelled")
    with pytest.raises(UserError, match="Did you mean 'resnet18'"):
        check_architecture("resnet-18")
    for name in ("wrn-16-2", "timm/resnet50", "resnet18", "dm-wrn-28-10"):
        check_architecture(name)


def test_the_list_has_a_line_for_each_model(capsys):
    assert main(["list", "models", "--published"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "robustbench-cifar10-linf: 58 of 76 models are here" in lines
    for row in ROWS:
        [line] = [
            line
            for line in lines
            if line.startswith(f"{row.name} ")
            and row.reference in line
            and (row.network or row.missing) in line
        ][:1]
        assert (f"not here: {row.missing}" in line) == bool(row.missing)
        assert row.kind in line
    assert main(["list", "attacks", "--published"]) == 2
    assert counterpart.published_models() is published_models()
