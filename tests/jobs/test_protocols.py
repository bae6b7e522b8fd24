"""Protocols of benchmarks: they run on the benchmark's images alone, and nothing that they fix can be changed."""

import hashlib
import importlib
import json
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import counterpart
from counterpart.build import attacks as build_attacks_module
from counterpart.build import load_splits
from counterpart.catalogue import PROTOCOLS
from counterpart.cli import main
from counterpart.config import resolve, settings, under_protocol
from counterpart.config.protocols import FREE, OF_TRAINING, fixed_by
from counterpart.contracts import Attacked, NamedAttack
from counterpart.data import cifar
from counterpart.data.benchmarks import read_imagenet_list
from counterpart.data.corruptions import BENCHMARK, checksums
from counterpart.data.corruptions import files as corrupted_files
from counterpart.errors import UserError
from counterpart.models import create
from counterpart.rundir import RunDir

LINF = "robustbench-cifar10-linf"
SHIFTED = "robustbench-cifar10-corruptions"
MODEL = """
import torch
from torch import nn


class Network(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        torch.random.default_generator.manual_seed(0)
        self.head = nn.Linear(3, outputs)

    def forward(self, images):
        return self.head(images.mean(dim=(2, 3)))


def ten():
    return Network(10)


def seven():
    return Network(7)


def thousand():
    return Network(1000)
"""


def md5(path):

    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory):
    """A folder like that of CIFAR-10, whose test file has as many images as the official one."""
    folder = tmp_path_factory.mktemp("data") / cifar.FOLDER
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in (*cifar.TRAIN_FILES, *cifar.TEST_FILES):
        n = 10_000 if name in cifar.TEST_FILES else 20
        data = draw.integers(0, 256, (n, 3072), dtype=np.uint8)
        labels = draw.integers(0, 10, n).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": labels}))
    return folder.parent


@pytest.fixture
def official(cifar10, monkeypatch):
    """That folder, taken for the official one."""
    known = cifar._official_checksums(cifar.CIFAR10)
    known = {**known, "test_batch": md5(cifar10 / cifar.FOLDER / "test_batch")}
    monkeypatch.setattr(cifar, "_official_checksums", lambda _: known)
    return cifar10


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with networks of the user's, and an AutoAttack that darkens images as far as it may."""

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "benchnets.py").write_text(MODEL)
    met = []

    def darken(model, images, labels, *, budget, keys, start=None):
        met.append((budget.norm, len(images)))
        zeros = torch.zeros(len(images), dtype=torch.int64)
        return Attacked(budget.project((images - 0.5).clamp(0, 1), images), zeros, zeros)

    def suite(version, norm, classes):
        assert version == "standard"
        return [NamedAttack("standing in", darken, "standing in")]

    monkeypatch.setattr(build_attacks_module, "load_code", lambda _: suite)
    yield met
    sys.modules.pop("benchnets", None)


def refused(capsys, *words):
    assert main([*words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("counterpart: error: ")
    return line


def test_the_facts_are_those_of_the_benchmark():
    facts = {name: entry.facts for name, entry in PROTOCOLS.items()}
    given = {
        name: (f.data, f.n, f.settings.get("evaluate.norm"), f.settings.get("evaluate.eps"))
        for name, f in facts.items()
    }
    assert given == {
        "robustbench-cifar10-linf": ("cifar10", 10_000, "linf", "8/255"),
        "robustbench-cifar100-linf": ("cifar100", 10_000, "linf", "8/255"),
        "robustbench-imagenet-linf": ("imagenet", 5_000, "linf", "4/255"),
        "robustbench-cifar10-l2": ("cifar10", 10_000, "l2", "0.5"),
        "robustbench-cifar10-corruptions": ("cifar10", 10_000, None, None),
        "robustbench-cifar100-corruptions": ("cifar100", 10_000, None, None),
        "robustbench-imagenet-corruptions": ("imagenet", 5_000, None, None),
    }
    for name in ("robustbench-cifar10-linf", "robustbench-cifar10-l2"):
        resolved = resolve(under_protocol({"evaluate": {"protocol": name}}, "evaluate"))
        assert [(a.attack, a.options) for a in resolved.evaluate.attacks] == [
            ("autoattack", {"version": "standard"})
        ]
    resolved = resolve(under_protocol({"evaluate": {"protocol": SHIFTED}}, "corruptions")).corruptions
    assert (resolved.names, resolved.wanted) == (BENCHMARK, (1, 2, 3, 4, 5))


def test_every_setting_of_an_evaluation_is_fixed_or_free():
    """A setting that is added later is fixed at its default, unless somebody says that it is free."""
    sections = ("data.", "evaluate.", "corruptions.")
    names = {name for name, _ in settings() if name.startswith(sections)}
    for entry in PROTOCOLS.values():
        assert fixed_by(entry).keys() == names - FREE - OF_TRAINING
    assert names > FREE | OF_TRAINING


@pytest.mark.parametrize("name", [n for n, _ in settings() if n.startswith("evaluate.") and n not in FREE])
def test_what_is_fixed_cannot_be_given_even_as_it_is(name):
    value = fixed_by(PROTOCOLS[LINF])[name]
    _, leaf = name.split(".")
    with pytest.raises(
        UserError, match=f"{name} .* does not go with protocol {LINF}, which fixes it"
    ) as caught:
        under_protocol({"evaluate": {"protocol": LINF, leaf: value}}, "evaluate")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "robustbench-cifar10-lin"], "Did you mean 'robustbench-cifar10-linf'?"),
        (
            ["--protocol", "robustbench-imagenet-corruptions_3d"],
            "is not here: nothing here reads ImageNet-3DCC",
        ),
        (["--protocol", LINF, "--eps", "4/255"], "evaluate.eps 4/255 does not go with protocol"),
        (["--protocol", LINF, "--eps", "0.03137254901960784"], "which fixes it: 8/255."),
        (["--protocol", LINF, "--data.name", "digits"], "data.name digits does not go with protocol"),
        (["--protocol", LINF, "--data.size", "32"], "which fixes it: its default."),
        (
            ["--protocol", LINF, "--n", "100"],
            "all 10,000 of its images. For a rehearsal, which is no result of the",
        ),
        (["--protocol", LINF, "--attacks", "autoattack"], "which fixes it: autoattack."),
        (["--protocol", SHIFTED], f"protocol {SHIFTED} is for counterpart corruptions."),
        (
            ["--protocol", LINF, "--data.root", "DIR"],
            "is not the official file of CIFAR-10's test images (its MD5 is",
        ),
        (["--protocol", "robustbench-imagenet-linf", "--data.root", "DIR"], "val is missing"),
    ],
)
def test_what_is_not_the_protocol_is_refused_in_one_line(here, cifar10, words, message, capsys):
    words = [str(cifar10) if word == "DIR" else word for word in words]
    assert message in refused(capsys, "evaluate", "benchnets:ten", *words)
    assert not RunDir(Path("runs/benchnets-ten")).path.exists()


def test_a_run_on_other_images_is_refused(run, capsys, official):
    assert "is of cifar10, and" in refused(capsys, "evaluate", str(run.path), "--protocol", LINF)
    line = refused(capsys, "evaluate", str(run.path), "--protocol", LINF, "--data.root", str(official))
    assert line.endswith("learned from digits.")


def test_a_model_of_other_classes_is_refused(here, official, capsys):
    line = refused(capsys, "evaluate", "benchnets:seven", "--protocol", LINF, "--data.root", str(official))
    assert f"protocol {LINF} is of cifar10 and its 10 classes, and benchnets:seven answers with 7." in line


def test_another_number_of_images_is_refused(here, official, monkeypatch, capsys):
    entry = PROTOCOLS[LINF]
    monkeypatch.setitem(PROTOCOLS, LINF, replace(entry, facts=replace(entry.facts, n=9_999)))
    line = refused(capsys, "evaluate", "benchnets:ten", "--protocol", LINF, "--data.root", str(official))
    assert f"protocol {LINF} has 9,999 images, and cifar10 has 10,000 here." in line


def test_a_protocol_runs_on_all_images_and_says_so(here, official, capsys):
    words = [
        "evaluate",
        "benchnets:ten",
        "--protocol",
        LINF,
        "--data.root",
        str(official),
        "--batch-size",
        "5000",
    ]
    assert main([*words, "--chunk-size", "10000", "--device", "cpu"]) == 0
    assert f"protocol {LINF}" in " ".join(capsys.readouterr().out.split())
    assert {norm for norm, _ in here} == {"linf"}
    run = RunDir(Path("runs/benchnets-ten"))
    records = {record.name: record for record in run.records() if record.name.startswith("accuracy/")}
    clean = records["accuracy/clean"]
    assert (clean.n, clean.details["protocol"], clean.details["eps"]) == (10_000, LINF, 8 / 255)
    [folder] = (run.path / "evaluations").iterdir()
    identity, result = (json.loads((folder / f"{name}.json").read_text()) for name in ("identity", "result"))
    assert identity["protocol"] == LINF
    assert result["counterpart"]["protocol"] == LINF
    assert result["autoattack_acc"] == f"{100 * records['accuracy/worst case'].value:.2f}"
    assert main(["verify", "runs/benchnets-ten"]) == 0
    by_hand = ["--data.name", "cifar10", "--attacks", "autoattack", "--eps", "8/255", "--n", "100"]
    assert main([*words[:2], *by_hand, "--data.root", str(official), "--device", "cpu"]) == 0  # the rehearsal
    assert "protocol" not in run.records()[-1].details


def test_a_published_model_is_judged_by_its_name(here, official, capsys):
    """One command, where the file is there: the network, its normalisation and the benchmark are known."""
    name = "Kireev2021Effectiveness_RLAT"
    torch.random.default_generator.manual_seed(0)
    network = create("preact-resnet18", 10, width=1).backbone
    torch.save({"last": {f"module.{key}": value for key, value in network.state_dict().items()}}, "any.pt")
    words = [
        "evaluate",
        f"{name}@any.pt",
        "--data.root",
        str(official),
        "--device",
        "cpu",
        "--batch-size",
        "5000",
    ]
    assert main([*words, "--protocol", LINF, "--chunk-size", "10000", "--save-images", "false"]) == 0
    said = capsys.readouterr().err
    assert (
        "standard deviation (0.2471, 0.2435, 0.2616), as RobustBench does for Kireev2021Effectiveness_RLAT"
        in said
    )
    run = RunDir(Path("runs") / name)
    [folder] = (run.path / "evaluations").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert (result["name"], result["architecture"]) == (name, "preact-resnet18")
    line = refused(capsys, "evaluate", "Kireev2021Effectivenes_RLAT@any.pt", "--protocol", LINF)
    assert f"Did you mean '{name}'?" in line
    line = refused(capsys, "evaluate", "Hendrycks2020AugMix_ResNeXt@any.pt", "--protocol", SHIFTED)
    assert "is for counterpart corruptions" in line
    assert "ResNeXt-29 4x32d, which no network here is" in refused(
        capsys, "evaluate", "Hendrycks2020AugMix_ResNeXt@any.pt", "--protocol", LINF
    )


def test_python_has_protocols_too(here, official):
    benchnets = importlib.import_module("benchnets")
    judged = counterpart.evaluate(
        benchnets.ten(), official, protocol="robustbench-cifar10-l2", changes={"evaluate.batch_size": 5000}
    )
    assert judged.n == 10_000
    assert {norm for norm, _ in here} == {"l2"}
    assert judged.records[0].details["protocol"] == "robustbench-cifar10-l2"
    assert judged["clean"].eps == 0.5
    for given, message in (
        ({"attacks": "autoattack"}, "evaluate.attacks autoattack does not go with protocol"),
        ({"eps": 8 / 255}, "evaluate.eps 8/255 does not go with"),
        ({"n": 10_000}, "all 10,000 of its images"),
        ({"changes": {"data.size": 32}}, "data.size 32 does not go with"),
        ({"changes": {"attack.eps": 0.5}}, "attack.eps has no effect beside protocol"),
    ):
        with pytest.raises(UserError, match=message):
            counterpart.evaluate(benchnets.ten(), root=official, protocol=LINF, **given)
    images = torch.rand(20, 3, 32, 32), torch.arange(20) % 10
    with pytest.raises(UserError, match="a protocol reads the benchmark's own files"):
        counterpart.evaluate(benchnets.ten(), images, protocol=LINF)
    with pytest.raises(UserError, match="its 10 classes, and Network answers with 7"):
        counterpart.evaluate(benchnets.seven(), root=official, protocol=LINF)
    with pytest.raises(UserError, match="is for counterpart corruptions"):
        counterpart.evaluate(benchnets.ten(), root=official, protocol=SHIFTED)


N = 200


@pytest.fixture
def corrupted(official, tmp_path, monkeypatch):
    """Files like those of CIFAR-10-C, taken for the official ones, of a benchmark of 200 images."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    test = official / cifar.FOLDER / "test_batch"
    batch = pickle.loads(test.read_bytes())
    home = tmp_path / cifar.FOLDER
    shutil.copytree(official / cifar.FOLDER, home)
    few = {"data": batch["data"][:N], "labels": batch["labels"][:N]}
    (home / "test_batch").write_bytes(pickle.dumps(few))
    known = {**cifar._official_checksums(cifar.CIFAR10), "test_batch": md5(home / "test_batch")}
    monkeypatch.setattr(cifar, "_official_checksums", lambda _: known)
    entry = PROTOCOLS[SHIFTED]
    monkeypatch.setitem(PROTOCOLS, SHIFTED, replace(entry, facts=replace(entry.facts, n=N)))
    monkeypatch.setattr(corrupted_files, "BLOCK", N)
    monkeypatch.setattr(corrupted_files, "ROWS", 5 * N)
    np.save(folder / "labels.npy", np.tile(few["labels"], 5).astype(np.uint8))
    rows = np.zeros((5 * N, 32, 32, 3), np.uint8)
    np.save(folder / "fog.npy", rows)
    for name in BENCHMARK:
        if name != "fog":
            (folder / f"{name}.npy").hardlink_to(folder / "fog.npy")
    hashes = {name: md5(folder / f"{name}.npy") for name in ("labels", "fog")}
    monkeypatch.setitem(checksums.MD5, "cifar10", {**dict.fromkeys(BENCHMARK, hashes["fog"]), **hashes})
    return folder


def test_the_protocol_of_corruptions(here, corrupted, capsys):
    words = ["corruptions", "benchnets:ten", "--protocol", SHIFTED, "--data.root", str(corrupted.parent)]
    assert "is of the official files: name their folder" in refused(capsys, *words)
    assert "is for counterpart evaluate" in refused(capsys, *words[:3], LINF)
    words += ["--source", str(corrupted), "--batch-size", "10000"]
    assert "corruptions.names benchmark does not go with" in refused(capsys, *words, "--names", "benchmark")
    assert main(words) == 0
    assert SHIFTED in " ".join(capsys.readouterr().out.split())
    records = {record.name: record for record in RunDir(Path("runs/benchnets-ten")).records()}
    mean = records["corruption/mean of the 15/severities 1-5"]
    assert (mean.n, mean.details["protocol"]) == (N, SHIFTED)
    labels = np.load(corrupted / "labels.npy")[:N]
    answer = int(importlib.import_module("benchnets").ten().head.bias.argmax())  # to every black image
    assert mean.value == pytest.approx((labels == answer).mean())
    (corrupted / "snow.npy").unlink()
    assert "snow.npy is missing" in refused(capsys, *words)
    np.save(corrupted / "snow.npy", np.ones((5, 5), np.uint8))
    assert "snow.npy is not the official file (its MD5 is" in refused(capsys, *words)


def imagenet_wnids():
    from timm.data import ImageNetInfo

    return ImageNetInfo("imagenet-1k").label_names()


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory):
    """A folder like that of ImageNet's validation images: those of the list, and one other of each class."""
    root = tmp_path_factory.mktemp("imagenet")
    wnids = imagenet_wnids()
    pixels = np.random.default_rng(0).integers(0, 256, (280, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "one.JPEG", "JPEG")
    for wnid in wnids:
        (root / "val" / wnid).mkdir(parents=True)
    listed = read_imagenet_list()
    numbers = {number for number, _ in listed}
    others = [number for number in range(1, 50_001) if number not in numbers][:1000]
    for number, label in [*listed, *zip(others, range(1000), strict=True)]:
        (root / "val" / wnids[label] / f"ILSVRC2012_val_{number:08d}.JPEG").hardlink_to(root / "one.JPEG")
    return root


def test_imagenet_is_the_listed_images(imagenet, monkeypatch):
    monkeypatch.setattr("counterpart.data.folder.IN_MEMORY_BYTES", 0)
    asked = {"evaluate": {"protocol": "robustbench-imagenet-linf"}, "data": {"root": str(imagenet)}}
    config, cpu = resolve(under_protocol(asked, "evaluate")), torch.device("cpu")
    images = load_splits(config, cpu).test
    stems = [f"ILSVRC2012_val_{number:08d}" for number, _ in read_imagenet_list()]
    assert [path.stem for path in images.files] == stems  # in the order of the list
    assert images.labels.tolist() == [label for _, label in read_imagenet_list()]
    with Image.open(images.files[0]) as image:
        way = transforms.Compose(
            [transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()]
        )
        assert torch.equal(images.read(torch.tensor([0]))[0], way(image.convert("RGB")))
    listed = images.files[-1]
    moved = imagenet / "val" / "n01440764" / listed.name
    listed.rename(moved)
    try:
        with pytest.raises(UserError, match=r"are not those of its list \(SHA-256"):
            load_splits(config, cpu)
        moved.rename(imagenet / listed.name)
        with pytest.raises(
            UserError, match=f"lacks 1 of the 5,000 images of the benchmark, such as {listed.name}"
        ):
            load_splits(config, cpu)
    finally:
        (moved if moved.exists() else imagenet / listed.name).rename(listed)


def test_imagenet_c_is_read_from_its_folders(here, imagenet, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("counterpart.data.folder.IN_MEMORY_BYTES", 0)
    words = [
        "corruptions",
        "benchnets:thousand",
        "--protocol",
        "robustbench-imagenet-corruptions",
        "--device",
        "cpu",
    ]
    words += ["--data.root", str(imagenet), "--source", str(tmp_path / "ImageNet-C")]
    assert "holds no folder of a corruption, such as gaussian_noise" in refused(capsys, *words)
    wnids, (number, label) = imagenet_wnids(), read_imagenet_list()[0]
    home = tmp_path / "ImageNet-C" / "gaussian_noise" / "1" / wnids[label]
    home.mkdir(parents=True)
    Image.new("RGB", (224, 224), (0, 255, 0)).save(home / f"ILSVRC2012_val_{number:08d}.JPEG")
    assert "1 lacks 4,999 of the 5,000 images of imagenet-c" in refused(capsys, *words)
    from counterpart.data.corruptions.folders import open_folders
    from counterpart.data.image_sets import ImageSet

    path = imagenet / "val" / wnids[label] / f"ILSVRC2012_val_{number:08d}.JPEG"
    images = ImageSet(
        "imagenet",
        "test",
        tuple(wnids),
        torch.tensor([label]),
        torch.tensor([7]),
        "",
        (3, 224, 224),
        files=(path,),
    )
    opened = open_folders(tmp_path / "ImageNet-C", images)
    assert opened.has("gaussian_noise")
    assert not opened.has("fog")
    pixels = opened.read("gaussian_noise", 1, torch.tensor([7]))
    assert pixels.shape == (1, 3, 224, 224)
    assert pixels[0, :, 100, 100].tolist() == pytest.approx([0, 255, 0], abs=3)
