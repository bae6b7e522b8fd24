"""MNIST and Fashion-MNIST: official files are read, packed or not; wrong and torn ones are named in one line."""

import gzip
import hashlib
import logging
import struct

import numpy as np
import pytest
import torch

from counterpart.data import load_fashion_mnist, load_mnist, mnist, say_whether_there
from counterpart.errors import UserError

COUNTS = {"train": 40, "t10k": 20}


def arrays(split):
    count = COUNTS[split]
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, (np.arange(count) % 10).astype(np.uint8)


def idx(values):
    return struct.pack(f">{1 + values.ndim}I", 0x800 | values.ndim, *values.shape) + values.tobytes()


def files():
    for split in COUNTS:
        images, labels = arrays(split)
        yield f"{split}-images-idx3-ubyte", idx(images)
        yield f"{split}-labels-idx1-ubyte", idx(labels)


@pytest.fixture(params=["packed", "unpacked", "torchvision"])
def root(tmp_path, request):
    folder = tmp_path / "MNIST" / "raw" if request.param == "torchvision" else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files():
        if request.param == "unpacked":
            (folder / name).write_bytes(content)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return tmp_path


def test_pixels_and_labels_are_those_of_the_files(root):
    splits = load_mnist(root, validation=0.25)
    images, labels = arrays("t10k")
    assert splits.test.shape == (1, 28, 28)
    assert torch.equal(splits.test.pixels[:, 0], torch.from_numpy(images))
    assert splits.test.labels.tolist() == labels.tolist()
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [30, 10, 20]
    images, labels = arrays("train")
    for part in (splits.train, splits.validation):
        assert torch.equal(part.pixels[:, 0], torch.from_numpy(images)[part.index])
        assert torch.equal(part.labels, torch.from_numpy(labels).long()[part.index])
    assert splits.test.classes == tuple("0123456789")
    assert splits.test.names[3] == "test/00003"
    assert load_mnist(root, size=16).train.shape == (1, 16, 16)
    assert say_whether_there("mnist", root).startswith("mnist: there")


def test_packed_and_unpacked_files_are_one_data_set(tmp_path):
    for name, content in files():
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_bytes(content)
        (tmp_path / "b" / f"{name}.gz").write_bytes(gzip.compress(content))
    packed, unpacked = load_mnist(tmp_path / "b"), load_mnist(tmp_path / "a")
    assert packed.test.fingerprint == unpacked.test.fingerprint


def test_fashion_has_its_own_names_and_folder(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in files():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    splits = load_fashion_mnist(tmp_path)
    assert (splits.test.name, splits.test.classes[0], splits.test.classes[9]) == (
        "fashion-mnist", "T-shirt/top", "Ankle boot",
    )  # fmt: skip
    with pytest.raises(
        UserError, match=r"train-images-idx3-ubyte\.gz is missing.*four official files of MNIST"
    ):
        load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin as an idx file"),
        (idx(np.zeros((40, 28, 28), np.uint8))[:-1], "states the shape .40, 28, 28. and holds 31,359 bytes"),
        (idx(np.zeros((40, 28, 28), np.uint8)) + b"x", "and holds 31,361 bytes"),
        (idx(np.zeros((40, 32, 32), np.uint8)), "states the shape .40, 32, 32."),
        (idx(np.zeros((0, 28, 28), np.uint8)), "states the shape"),
        (idx(np.zeros(40, np.uint8)), "holds labels"),
        (struct.pack(">4I", 0x803, 2**32 - 1, 28, 28), "and holds 0 bytes"),
        (struct.pack(">2I", 0x803, 5), "does not begin"),
        (idx(np.zeros((39, 28, 28), np.uint8)), "39 images have labels of shape .40,."),
    ],
)
def test_wrong_content_is_refused_in_one_line(root, content, message):
    (path,) = root.rglob("train-images*")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    with pytest.raises(UserError, match=message) as refusal:
        load_mnist(root)
    assert "\n" not in str(refusal.value)


def test_labels_beyond_the_classes_torn_and_missing_files(tmp_path, monkeypatch):
    for name, content in files():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    labels.write_bytes(gzip.compress(idx(np.full(20, 10, np.uint8))))
    with pytest.raises(UserError, match=r"its labels run to 10 and not within 0\.\.9"):
        load_mnist(tmp_path)
    labels.write_bytes(whole[:-6])
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz is damaged or cut off"):
        load_mnist(tmp_path)
    labels.write_bytes(b"no gzip at all")
    with pytest.raises(UserError, match="is damaged or cut off"):
        load_mnist(tmp_path)
    labels.write_bytes(whole)
    monkeypatch.setattr(mnist, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="unpacks to more than 1,000 bytes"):
        load_mnist(tmp_path)
    with pytest.raises(UserError, match=r"Where does MNIST lie\? .*--data\.root DIR"):
        load_mnist()


def test_checksums_are_compared(tmp_path, monkeypatch, caplog):
    from torchvision.datasets import MNIST

    resources = []
    for name, content in files():
        packed = gzip.compress(content, mtime=0)
        (tmp_path / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    with caplog.at_level(logging.WARNING):
        load_mnist(tmp_path)
    assert "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz" in caplog.text
    assert "differ from the official checksums" in caplog.text
    caplog.clear()
    monkeypatch.setattr(MNIST, "resources", resources)
    with caplog.at_level(logging.WARNING):
        load_mnist(tmp_path)
    assert not caplog.text


def test_download_asks_every_mirror_for_the_missing_files_only(tmp_path, monkeypatch):
    for name, content in files():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    missing = tmp_path / "train-labels-idx1-ubyte.gz"
    content = missing.read_bytes()
    asked = []

    def second_mirror(url, folder, name, md5):
        asked.append((url.startswith("http") and url.endswith(name), name, md5))
        if len(asked) == 1:
            raise OSError("no answer")
        (folder / name).write_bytes(content)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", second_mirror)
    missing.unlink()
    assert len(load_mnist(tmp_path, download=True).test) == 20
    assert asked == [(True, "train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432")] * 2

    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    missing.unlink()
    with pytest.raises(UserError, match=r"Could not fetch MNIST from http.*no network.*by other means"):
        load_mnist(tmp_path, download=True)


def test_the_official_test_images(shared):
    folder = shared / "data" / "mnist-reference"
    if not folder.exists():
        pytest.skip("needs ../shared/data/mnist-reference")
    names = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
    images, labels = (mnist.read_idx((folder / name).read_bytes(), folder / name) for name in names)
    assert images.shape == (10_000, 28, 28)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
