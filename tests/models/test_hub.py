import pickle
import warnings
from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from counterpart.errors import UserError
from counterpart.models import create
from counterpart.models.hub import load_weights, read_weights, start_from


def network(classes=10, seed=0, width=4, **options):
    torch.random.default_generator.manual_seed(seed)
    return create("resnet18", classes, width=width, **options)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def weights():
    return network().state_dict()


def test_safetensors_come_back_with_their_metadata(tmp_path, weights):
    path = tmp_path / "model.safetensors"
    save_file(weights, path, metadata={"classes": "10"})
    read, metadata = read_weights(path)
    assert same(read, weights)
    assert metadata == {"classes": "10"}
    save_file(weights, path)
    assert read_weights(path)[1] == {}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_come_back_without_wrapping(tmp_path, key, prefix, suffix):
    path = tmp_path / f"model{suffix}"
    weights = {"a.weight": torch.ones(2), "b.weight": torch.zeros(3)}
    content = {prefix + name: tensor for name, tensor in weights.items()}
    torch.save(content if key is None else {key: content, "epoch": 3}, path)
    read, metadata = read_weights(path)
    assert same(read, weights)
    assert metadata == {}


def test_only_a_prefix_that_every_name_has_is_removed(tmp_path):
    path = tmp_path / "model.pt"
    weights = {"module.a": torch.ones(2), "b": torch.zeros(3)}
    torch.save(weights, path)
    assert same(read_weights(path)[0], weights)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_file_is_executed(tmp_path):
    path, trace = tmp_path / "evil.pt", tmp_path / "executed"
    torch.save({"state_dict": {"a": Evil(trace)}}, path)
    with pytest.raises(UserError, match="holds objects whose reading would run code"):
        read_weights(path)
    path.write_bytes(pickle.dumps({"a": Evil(trace)}))
    with pytest.raises(UserError):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_damaged_files_are_refused_in_one_line(tmp_path, weights, suffix, damage):
    path = tmp_path / f"model{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(weights, path)
    content = path.read_bytes()
    path.write_bytes(
        {"cut": content[: len(content) // 2], "foreign": b"GIF89a not weights", "empty": b""}[damage]
    )
    with pytest.raises(UserError, match=f"model\\{suffix}.*damaged") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "got list"),
        ({}, "no state dict"),
        ({"epoch": 3, "w": torch.ones(1)}, "'epoch' is no tensor"),
        ({"state_dict": {"a": 1}}, "'a' is no tensor"),
    ],
)
def test_files_without_state_dict_are_refused(tmp_path, content, message):
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match=message):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, so damaged"),
        (b"\n<!DOCTYPE html><html>Google Drive - Quota exceeded", "is a web page, not weights"),
        (b"<html><head>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run git lfs pull"),
    ],
)
def test_what_downloads_leave_instead_of_weights_is_named(tmp_path, content, message):
    for suffix in (".pt", ".safetensors"):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_weights(path)


def test_files_that_are_code_are_refused_with_the_way_out(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(
        UserError, match=r"asks for torch\.nn\.modules\.linear\.Linear.*save\(x\.state_dict"
    ) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; its files are not gone
        torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(path))
        with pytest.raises(UserError, match=r"is a TorchScript program.*jit\.load\('module\.pt'\)"):
            read_weights(path)


def test_safetensors_are_read_under_any_name(tmp_path, weights):
    path = tmp_path / "renamed.pt"
    save_file(weights, path, metadata={"classes": "10"})
    assert same(read_weights(path)[0], weights)


def test_plain_extras_of_a_checkpoint_do_not_stop_it(tmp_path, weights):
    path = tmp_path / "model.pth.tar"
    extras = {"acc": np.float64(0.5), "n": np.int64(3), "best": np.bool_(True), "args": Namespace(lr=0.1)}
    torch.save({"state_dict": weights, **extras}, path)
    assert same(read_weights(path)[0], weights)


def test_other_paths_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path / "absent.pt")
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"expected \.safetensors, \.pt, \.pth, \.bin"):
        read_weights(tmp_path / "notes.txt")


def test_loading_is_exact(weights):
    model = network(seed=1)
    assert not same(model.state_dict(), weights)
    load_weights(model, weights, "file")
    assert same(model.state_dict(), weights)
    old = {name: tensor for name, tensor in weights.items() if "num_batches" not in name}
    load_weights(model, old, "file")  # a state dict older than PyTorch 0.4.1
    layer = nn.Linear(2, 3)
    load_weights(layer, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, "file")
    assert layer.weight.sum() == 6


def without(weights, *names):
    return {name: tensor for name, tensor in weights.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: without(w, "backbone.conv1.weight"), "missing backbone.conv1.weight. Check"),
        (lambda w: w | {"extra": torch.ones(1)}, "unexpected extra. Check"),
        (
            lambda w: w | {"backbone.bn1.bias": torch.ones(9)},
            r"backbone.bn1.bias of shape \(9,\) instead of \(4,\)",
        ),
        (lambda w: w | {"mean": torch.ones(())}, r"mean of shape \(\) instead of \(3, 1, 1\)"),
    ],
)
def test_a_mismatch_is_refused_and_changes_nothing(weights, change, message):
    for load in (load_weights, start_from):
        model = network(seed=1)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(UserError, match=message) as caught:
            load(model, change(weights), "weights.pt")
        assert str(caught.value).startswith("weights.pt does not fit")
        assert same(model.state_dict(), before)


def test_three_differences_are_named_and_the_rest_counted(weights):
    foreign = {f"x.{name}": tensor for name, tensor in weights.items()}
    expected = "missing mean; missing std; missing backbone.conv1.weight and [0-9]+ more. Check"
    with pytest.raises(UserError, match=expected):
        load_weights(network(), foreign, "file")


def test_other_number_of_classes_is_named(weights):
    model = network(classes=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"^run has 10 classes, the data has 5: "):
        load_weights(model, weights, "run")
    assert same(model.state_dict(), before)
    with pytest.raises(UserError, match="does not fit"):  # more than the classifier differs
        load_weights(network(classes=5, width=8), weights, "run")


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("classes", [10, 5])
def test_fine_tuning_replaces_a_head_of_another_size_only(weights, bare, classes):
    weights = {name: torch.randn_like(w) if w.is_floating_point() else w for name, w in weights.items()}
    model = network(classes=classes, seed=1)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = weights
    if bare:
        given = {n.removeprefix("backbone."): t for n, t in weights.items() if n.startswith("backbone.")}
    assert start_from(model, given, "file") == (classes != 10)
    for name, tensor in model.state_dict().items():
        kept = (classes != 10 and ".linear." in name) or (bare and name in ("mean", "std"))
        assert torch.equal(tensor, fresh[name] if kept else weights[name]), name


def test_fine_tuning_keeps_a_timm_network(generator):
    torch.random.default_generator.manual_seed(0)
    source = create("timm/resnet10t", 1000, image_size=32)
    model = create("timm/resnet10t", 4)
    assert start_from(model, source.backbone.state_dict(), "timm")
    images = torch.rand(2, 3, 32, 32, generator=generator)
    torch.testing.assert_close(model.eval().forward_features(images), source.eval().forward_features(images))


def test_weights_of_another_network_of_timm_are_told_what_they_look_like():
    other = create("timm/test_efficientnet", 7, image_size=32)
    for given in (other.state_dict(), other.backbone.state_dict()):
        with pytest.raises(UserError, match=r"does not fit.*The file looks like timm/test_efficientnet"):
            start_from(create("timm/test_resnet", 4), given, "file", "timm/test_resnet")
        with pytest.raises(UserError, match=r"Check the model's name and width\.$"):
            start_from(create("timm/test_resnet", 4), given, "file")


def test_fine_tuning_needs_the_head_to_differ_in_classes_alone(weights):
    odd = weights | {"backbone.linear.weight": torch.ones(10, 7)}
    with pytest.raises(UserError, match=r"backbone.linear.weight of shape \(10, 7\) instead of \(10, 32\)"):
        start_from(network(), odd, "file")
    with pytest.raises(UserError, match=r"missing backbone\.linear\.weight"):
        start_from(network(), without(weights, "backbone.linear.weight"), "file")
    odd = weights | {"backbone.linear.weight": torch.ones(5, 7), "backbone.linear.bias": torch.ones(5)}
    with pytest.raises(UserError, match=r"linear.weight of shape \(5, 7\) instead of \(10, 32\)"):
        start_from(network(), odd, "file")
    odd = weights | {"backbone.linear.weight": torch.ones(5, 32), "backbone.linear.bias": torch.ones(6)}
    with pytest.raises(UserError, match=r"linear.weight of shape \(5, 32\) instead of \(10, 32\)"):
        start_from(network(), odd, "file")
