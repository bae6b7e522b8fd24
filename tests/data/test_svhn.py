"""SVHN: official files are read, wrong and torn ones named in one line."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from counterpart.data import load_svhn, say_whether_there
from counterpart.errors import UserError


def write(path, n=40, **changed):
    images = np.random.default_rng(n).integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
    labels = (np.arange(n) % 10 + 1).astype(np.uint8)[:, None]
    savemat(path, {"X": images, "y": labels, **changed})
    return images, labels


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "train_32x32.mat")
    write(tmp_path / "test_32x32.mat", 20)
    return tmp_path


def test_pixels_and_labels_are_those_of_the_files(root):
    images, labels = write(root / "test_32x32.mat", 20)
    splits = load_svhn(root, validation=0.25)
    assert splits.test.labels.tolist() == [0 if label == 10 else label for label in labels[:, 0]]
    assert torch.equal(splits.test.pixels[3], torch.from_numpy(images[..., 3].transpose(2, 0, 1).copy()))
    assert (len(splits.train), len(splits.validation)) == (30, 10)
    assert not set(splits.train.index.tolist()) & set(splits.validation.index.tolist())
    assert load_svhn(root, size=16).train.shape == (3, 16, 16)
    assert say_whether_there("svhn", root).startswith("svhn: there")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 40))}, "not uint8"),
        ({"X": np.zeros((3, 32, 32, 40), np.uint8)}, "of shape"),
        ({"y": np.zeros((40, 1), np.uint8)}, "within 1..10"),
        ({"y": np.full((40, 1), 1.5)}, "within 1..10"),
        ({"y": np.ones((39, 1), np.uint8)}, "40 images and labels"),
        ({"y": np.array([[{"a": 1}]] * 40, dtype=object)}, "it has no array 'y'"),
    ],
)
def test_wrong_content_is_refused_in_one_line(root, changed, message):
    write(root / "train_32x32.mat", **changed)
    with pytest.raises(UserError, match=message) as refusal:
        load_svhn(root)
    assert "\n" not in str(refusal.value)


def test_torn_and_missing_files_are_named(root):
    path = root / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"train_32x32\.mat is damaged or cut off"):
        load_svhn(root)
    path.unlink()
    with pytest.raises(UserError, match=r"train_32x32\.mat is missing"):
        load_svhn(root)
    with pytest.raises(UserError, match="Where does SVHN lie"):
        load_svhn()


def test_download_asks_for_the_missing_official_file_only(root, monkeypatch):
    asked = []

    def download_url(url, folder, name, md5):
        asked.append((name, len(md5)))
        write(folder / name, 20)

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    (root / "test_32x32.mat").unlink()
    assert len(load_svhn(root, download=True).test) == 20
    assert asked == [("test_32x32.mat", 32)]

    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    (root / "test_32x32.mat").unlink()
    with pytest.raises(UserError, match=r"Could not fetch SVHN from .*no network"):
        load_svhn(root, download=True)
