import argparse
import importlib.util

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from counterpart.errors import UserError
from counterpart.models import create
from counterpart.models.published import load_published

from .conftest import randomise


def network(name, classes=10, width=None, **options):
    torch.random.default_generator.manual_seed(0)
    return randomise(create(name, classes, width=width, **options)).eval()


def state(model, prefix=""):
    """Of the bare network, as its authors save it."""
    return {prefix + name: tensor for name, tensor in model.backbone.state_dict().items()}


def saved(folder, content, name="weights.pt"):
    torch.save(content, folder / name)
    return folder / name


def logits(model, channels=3, size=32):
    images = torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(images)


NORMALISED = {"mu": torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), "sigma": torch.tensor([0.5, 0.6, 0.7])}

# Every layout: the name, the content of its file, what the network's images are normalised by, a word of the notes.
LAYOUTS = {
    "bare": ("resnet18", lambda m: state(m), None, "as they are"),
    "MART": ("wrn-10-1", lambda m: state(m), None, "TRADES, MART"),
    "PART": ("resnet18", lambda m: state(m, "module."), None, "prefix module. is removed"),
    "TRADES": (
        "wrn-10-1",
        lambda m: (
            state(m)
            | {f"sub_{n}": torch.ones_like(t) for n, t in state(m).items() if n.startswith("block1.")}
        ),
        None,
        "sub_block1.* are dropped",
    ),
    "Carmon": (
        "wrn-16-1",
        lambda m: {"state_dict": state(m, "module."), "epoch": 3, "acc": np.float64(0.9)},
        None,
        "as they are",
    ),
    "arguments": (
        "resnet18",
        lambda m: {"net": state(m), "args": argparse.Namespace(lr=0.1)},
        None,
        "as they are",
    ),
    "Andriushchenko": (
        "preact-resnet18-fast",
        lambda m: {"last": state(m), "best": {n: 0 * t for n, t in state(m).items()}},
        None,
        "'last' is used",
    ),
    "Rice": ("preact-resnet18", lambda m: {**state(m), **NORMALISED}, "file", "which the file holds"),
    "wrapped": (
        "resnet18",
        lambda m: {
            "model_state_dict": {
                **state(m, "module.1."),
                "module.0.mean": NORMALISED["mu"],
                "module.0.std": NORMALISED["sigma"],
            }
        },
        "file",
        "which the file holds",
    ),
    "one of a sequence": ("resnet18", lambda m: state(m, "module.0."), None, "as they are"),
    "compiled": ("dm-wrn-10-1", lambda m: state(m, "_orig_mod.module."), "cifar10", "as DeepMind's"),
    "Rebuffi": ("dm-preact-resnet18", lambda m: {"model": state(m)}, "cifar10", "as DeepMind's"),
    "normalize, model": (
        "timm/resnet10t",
        lambda m: {
            **state(m, "model."),
            "normalize.mean": NORMALISED["mu"],
            "normalize.std": NORMALISED["sigma"],
        },
        "file",
        "which the file holds",
    ),
    "robustness": (
        "timm/resnet10t",
        lambda m: {
            "model": {
                **state(m, "module.model."),
                **state(m, "module.attacker.model."),
                "module.normalizer.new_mean": NORMALISED["mu"],
                "module.normalizer.new_std": NORMALISED["sigma"],
                "module.attacker.normalize.new_mean": NORMALISED["mu"],
                "module.attacker.normalize.new_std": NORMALISED["sigma"],
            }
        },
        "file",
        "attacker.* are dropped",
    ),
    "timm": ("timm/resnet10t", lambda m: state(m), "timm", "as timm does"),
    "averaged": (
        "resnet18",
        lambda m: state(m, "module.") | {"n_averaged": torch.tensor(5)},
        None,
        "n_averaged",
    ),
    "ours": ("resnet18", lambda m: m.state_dict(), None, "which the file holds"),
    "old": (
        "resnet18",
        lambda m: {n: t for n, t in state(m).items() if not n.endswith("num_batches_tracked")},
        None,
        "20 batch counters are missing",
    ),
    "half precision": (
        "resnet18",
        lambda m: {n: t.double() for n, t in state(m).items()},
        None,
        "as they are",
    ),
}
NARROW = ("resnet18", "preact-resnet18", "preact-resnet18-fast", "dm-preact-resnet18")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_and_computes_what_it_did(tmp_path, layout):
    name, content, normalisation, note = LAYOUTS[layout]
    original = network(name, 7 if "dm-" not in name else 10, 4 if name in NARROW else None)
    if normalisation == "file":
        original.mean.copy_(NORMALISED["mu"].view(3, 1, 1))
        original.std.copy_(NORMALISED["sigma"].view(3, 1, 1))
    elif normalisation == "cifar10":
        original.mean.copy_(torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1))
        original.std.copy_(torch.tensor([0.2471, 0.2435, 0.2616]).view(3, 1, 1))
    model, notes = load_published(name, saved(tmp_path, content(original)))
    assert not model.training
    assert model.num_classes == original.num_classes
    torch.testing.assert_close(logits(model), logits(original))
    assert note in " ".join(notes)
    assert all("\n" not in sentence for sentence in notes)


@pytest.mark.parametrize("name", ["mnist-cnn", "small-cnn"])
@pytest.mark.parametrize("size", [28, 20])
def test_networks_of_one_size_load_at_theirs(tmp_path, name, size):
    original = network(name, 10, in_channels=1, image_size=size)
    model, _ = load_published(name, saved(tmp_path, state(original)))
    torch.testing.assert_close(logits(model, 1, size), logits(original, 1, size))


def test_a_preactivation_network_without_its_last_norm_loads(tmp_path):
    from counterpart.models.cifar_resnet import preact_resnet18

    torch.random.default_generator.manual_seed(0)
    bare = randomise(preact_resnet18(10, 4, final_norm=False)).eval()
    file = saved(tmp_path, bare.state_dict())
    model, notes = load_published("preact-resnet18", file)
    torch.testing.assert_close(logits(model), logits(bare))
    assert "no tensor says where shortcuts start" in " ".join(notes)
    early, _ = load_published("preact-resnet18-fast", file)
    assert not torch.allclose(logits(early), logits(bare))


def test_safetensors_load_whatever_they_are_called(tmp_path):
    original = network("resnet18", width=4)
    for name in ("weights.safetensors", "renamed.pt"):
        save_file(state(original), tmp_path / name)
        model, _ = load_published("resnet18", tmp_path / name)
        torch.testing.assert_close(logits(model), logits(original))


def test_loading_leaves_torchs_generator_alone(tmp_path):
    file = saved(tmp_path, state(network("resnet18", width=4)))
    before = torch.random.get_rng_state()
    load_published("resnet18", file)
    assert torch.equal(before, torch.random.get_rng_state())


def wide(**changes):
    return {**state(network("wrn-16-2")), **changes}


def without(name):
    content = wide()
    del content[name]
    return content


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wrn-10-2", wide, "holds wrn-16-2, by its names and shapes, not wrn-10-2. Did you mean wrn-16-2@"),
        ("wrn-16-4", wide, "Did you mean wrn-16-2@"),
        ("resnet18", wide, "holds wrn-16-2"),
        ("timm/resnet18", wide, "holds wrn-16-2, by its names and shapes, not timm/resnet18"),
        ("wrn-16-2", lambda: wide(extra=torch.ones(1)), "does not fit this network: unexpected extra. Check"),
        ("wrn-16-2", lambda: wide(**{"attacker.x": torch.ones(1)}), r"unexpected attacker\.x"),
        ("wrn-16-2", lambda: wide(n_averaged=torch.tensor(5)), "unexpected n_averaged"),
        ("wrn-16-2", lambda: without("fc.bias"), "missing fc.bias"),
        ("wrn-16-2", lambda: without("bn1.running_var"), "missing bn1.running_var"),
        ("wrn-16-2", lambda: wide(**{"bn1.bias": torch.ones(3)}), r"bn1.bias of shape \(3,\)"),
        ("wrn-16-2", lambda: wide(**{"bn1.bias": torch.full((128,), torch.nan)}), "not finite, in bn1.bias"),
        ("wrn-16-2", lambda: wide(**{"sub_block2.x": torch.ones(1)}), "unexpected sub_block2.x"),
        (
            "resnet18",
            lambda: {"a.b": torch.ones(1)},
            "fits no architecture .* start with a.b. Known: resnet18, preact-resnet18, ",
        ),
        ("timm/resnet10t", lambda: {"a.b": torch.ones(1)}, "missing fc.weight; its names start with a.b"),
        ("timm/resnet10t", lambda: state(network("resnet18", width=4)), "holds resnet18, by its names"),
        ("wrn-16-3x", wide, "no network is called 'wrn-16-3x'. Did you mean"),
        ("wrn-16-2", lambda: wide(mu=torch.ones(2), sigma=torch.ones(2)), "have 2 and 2 values"),
        (
            "wrn-16-2",
            lambda: {**wide(), **NORMALISED, "mean": torch.ones(3), "std": torch.ones(3)},
            "two normalisations",
        ),
    ],
)
def test_what_is_not_on_the_list_is_refused(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message) as caught:
        load_published(name, saved(tmp_path, content()))
    assert "\n" not in str(caught.value)


def test_the_number_of_classes_must_be_the_datas(tmp_path):
    file = saved(tmp_path, wide())
    assert load_published("wrn-16-2", file, num_classes=10)[0].num_classes == 10
    with pytest.raises(UserError, match="has 10 classes, the data has 100"):
        load_published("wrn-16-2", file, num_classes=100)


def test_files_that_only_their_name_explains(tmp_path):
    for stem in ("Wong2020Fast", "Andriushchenko2020Understanding"):
        file = saved(tmp_path, state(network("preact-resnet18", width=4)), f"{stem}.pt")
        with pytest.raises(UserError, match="use preact-resnet18-fast@"):
            load_published("preact-resnet18", file)
        load_published("preact-resnet18-fast", file)
    for stem in ("Ding2020MMA", "Pang2020Boosting"):
        with pytest.raises(UserError, match="which no network here is"):
            load_published("wrn-16-2", saved(tmp_path, wide(), f"{stem}.pt"))


@pytest.mark.reference
def test_the_example_of_pyautoattack_gives_its_own_logits():
    package = importlib.util.find_spec("pyautoattack")
    if package is None or not package.submodule_search_locations:
        pytest.skip("pyautoattack is not installed")
    from pathlib import Path

    examples = Path(package.submodule_search_locations[0]) / "examples"
    found = importlib.util.spec_from_file_location("published_resnet", examples / "resnet.py")
    theirs = importlib.util.module_from_spec(found)
    found.loader.exec_module(theirs)
    original = theirs.ResNet18()
    original.load_state_dict(torch.load(examples / "model_test.pt", map_location="cpu", weights_only=True))
    model, _ = load_published("resnet18", examples / "model_test.pt", num_classes=10)
    assert isinstance(original, nn.Module)
    torch.testing.assert_close(logits(model), logits(original.eval()), rtol=0, atol=1e-5)


@pytest.mark.reference
def test_the_mnist_network_of_fast_adversarial_training_has_its_published_accuracy(shared):
    import gzip

    folder = shared / "data" / "mnist-reference"
    raw = {
        k: gzip.decompress((folder / f"t10k-{k}-ubyte.gz").read_bytes())
        for k in ("images-idx3", "labels-idx1")
    }
    images = torch.from_numpy(np.frombuffer(raw["images-idx3"], np.uint8, offset=16).copy()).view(
        -1, 1, 28, 28
    )
    labels = torch.from_numpy(np.frombuffer(raw["labels-idx1"], np.uint8, offset=8).copy())
    model, _ = load_published("mnist-cnn", folder / "fast-adversarial-fgsm.pth", num_classes=10)
    with torch.no_grad():
        right = sum(
            int((model(some.float() / 255).argmax(dim=1) == truth).sum())
            for some, truth in zip(images.split(1000), labels.split(1000), strict=True)
        )
    assert right == 9850
