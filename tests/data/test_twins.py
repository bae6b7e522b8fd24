"""The same file content in training and test images is counted."""

import shutil

import numpy as np
import pytest
from PIL import Image

from counterpart.data import load_digits, load_folder
from counterpart.data.twins import count_twins
from counterpart.evaluation.model_checks import data_doubts


@pytest.fixture
def root(tmp_path):
    """30 training and 12 test images of noise, as files of one size."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 15), ("test", 6)):
        for name in ("a", "b"):
            for i in range(count):
                path = tmp_path / split / name / f"{i:02d}.bmp"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path


def test_copies_are_counted_under_any_name_and_class(root):
    splits = load_folder(root)
    assert count_twins(splits.test, splits.train) == 0
    assert data_doubts(splits.test, splits.train) == []
    files = list(splits.train.files)
    shutil.copy(files[0], root / "test" / "a" / "00.bmp")
    shutil.copy(files[1], root / "test" / "b" / "new.bmp")
    shutil.copy(files[1], root / "test" / "b" / "newer.bmp")
    splits = load_folder(root)
    assert count_twins(splits.test, splits.train) == 3
    (doubt,) = data_doubts(splits.test, splits.train)
    assert doubt.name == "images seen in training"
    assert doubt.text.startswith("3 of 14 test images have the same content as a training image")


def test_files_that_differ_at_their_end_are_no_twins(root):
    splits = load_folder(root)
    content = bytearray(splits.train.files[0].read_bytes())
    assert len(content) > 4096
    content[-1] ^= 1
    (root / "test" / "a" / "00.bmp").write_bytes(content)
    assert count_twins(load_folder(root).test, splits.train) == 0


def test_sets_without_files_have_none():
    splits = load_digits()
    assert count_twins(splits.test, splits.train) == 0
