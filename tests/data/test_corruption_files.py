"""The official corrupted files: small stand-ins of their layout are read by severity and index, wrong ones named."""

import pickle

import numpy as np
import pytest
import torch

from counterpart.data.corruptions import files
from counterpart.data.corruptions.files import open_files
from counterpart.errors import UserError

N = 12


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twelve images per severity, each pixel saying where it belongs."""
    monkeypatch.setattr(files, "BLOCK", N)
    monkeypatch.setattr(files, "ROWS", 5 * N)
    rows = np.zeros((5 * N, 32, 32, 3), np.uint8)
    rows[..., 0] = np.arange(5 * N)[:, None, None]
    rows[..., 1] = np.arange(32)[:, None]
    rows[..., 2] = np.arange(32)
    np.save(tmp_path / "fog.npy", rows)
    np.save(tmp_path / "labels.npy", np.tile(np.arange(N) % 10, 5).astype(np.uint8))
    return tmp_path


def test_rows_are_found_by_severity_and_index(folder):
    opened = open_files(folder)
    assert opened.has("fog")
    assert not opened.has("snow")
    index = torch.tensor([3, 0, 11])
    for severity in (1, 4):
        images = opened.read("fog", severity, index)
        assert images.dtype == torch.uint8
        assert images[:, 0, 0, 0].tolist() == [(severity - 1) * N + i for i in (3, 0, 11)]
        assert images[0, 1, 5, 7] == 5
        assert images[0, 2, 5, 7] == 7
    opened.check_labels(torch.tensor([3, 0, 1]), index)


def test_the_file_is_mapped_and_not_loaded(folder, monkeypatch):
    modes = []
    original = np.load
    monkeypatch.setattr(
        np, "load", lambda *a, **k: modes.append((k["mmap_mode"], k["allow_pickle"])) or original(*a, **k)
    )
    open_files(folder).read("fog", 1, torch.tensor([0]))
    assert modes == [("r", False)] * 2


def _write(name, content):
    return lambda folder: np.save(folder / name, content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "labels.npy").unlink(), r"labels\.npy is missing.*docs/datasets\.md"),
        (lambda f: (f / "fog.npy").unlink(), r"holds no file of a corruption, such as gaussian_noise\.npy"),
        (_write("labels.npy", np.zeros(3, np.uint8)), r"uint8 of shape \(3,\), and not 60"),
        (_write("labels.npy", np.full(60, 255, np.uint8)), r"run from 255 to 255, not within 0\.\.99"),
        (_write("labels.npy", np.zeros(60)), "float64 of shape"),
        (_write("labels.npy", np.zeros(60, np.int64)), r"2 of 3 labels differ"),
        (_write("fog.npy", np.zeros((60, 3, 32, 32), np.uint8)), r"no official file: it holds uint8 of shape \(60, 3"),
        (_write("fog.npy", np.zeros((12, 32, 32, 3), np.uint8)), r"not uint8 of \(60, 32, 32, 3\)"),
        (_write("fog.npy", np.zeros((60, 32, 32, 3), np.float32)), "it holds float32"),
        (lambda f: (f / "fog.npy").write_bytes((f / "fog.npy").read_bytes()[:2000]), r"fog\.npy is damaged"),
        (lambda f: (f / "fog.npy").write_bytes(b"text"), "damaged or no .npy file"),
        (lambda f: (f / "fog.npy").write_bytes(pickle.dumps([1])), "damaged or no .npy file"),
        (lambda f: np.save(f / "fog.npy", np.array([{}], object), allow_pickle=True), "damaged or no .npy file"),
        (lambda f: (np.savez(f / "a", a=np.zeros(1)), (f / "a.npz").rename(f / "fog.npy")), "an archive"),
    ],
)  # fmt: skip
def test_wrong_files_are_named_in_one_line(folder, change, message):
    change(folder)
    index = torch.tensor([3, 0, 11])

    def use():
        opened = open_files(folder)
        opened.check_labels(torch.tensor([3, 0, 1]), index)
        opened.read("fog", 2, index)

    with pytest.raises(UserError, match=message) as refusal:
        use()
    assert "\n" not in str(refusal.value)


def test_images_beyond_the_test_set_and_no_folder(folder):
    with pytest.raises(UserError, match="hold test images 0 to 11; asked for 12"):
        open_files(folder).read("fog", 1, torch.tensor([12]))
    with pytest.raises(UserError, match="is no folder"):
        open_files(folder / "nowhere")
