"""Crops around annotated parts: squares by hand, and images and masks that stay together."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from counterpart.config import resolve
from counterpart.data import folder, load_parts
from counterpart.data.cropping import square_around_parts
from counterpart.errors import UserError

EVERYTHING = torch.arange(3)


def mask_with(shape, rows, columns):
    ids = np.zeros(shape, np.uint8)
    ids[rows[0] : rows[1], columns[0] : columns[1]] = 3
    return ids


@pytest.mark.parametrize(
    ("shape", "rows", "columns", "margin", "expected"),
    [
        ((40, 60), (10, 20), (20, 24), 0, (17, 10, 27, 20)),  # as high as the part, which lies in its middle
        ((40, 60), (10, 20), (20, 24), 0.5, (12, 5, 32, 25)),  # half of 10 more on each side
        ((40, 60), (0, 4), (50, 60), 0, (50, 0, 60, 10)),  # moved down into the image
        ((40, 60), (36, 40), (56, 60), 1, (48, 28, 60, 40)),  # moved up and to the left
        ((40, 60), (10, 20), (5, 55), 0.2, (10, 0, 50, 40)),  # no larger than the shorter side
    ],
)
def test_squares_by_hand(shape, rows, columns, margin, expected):
    assert square_around_parts(mask_with(shape, rows, columns), margin) == expected


def test_a_mask_without_parts_has_no_square():
    assert square_around_parts(np.zeros((4, 5), np.uint8), 0.5) is None


@pytest.fixture
def root(tmp_path):
    """Images whose pixels say where they are; the first has a part, the second an empty mask, the third none."""
    rows, columns = np.mgrid[:40, :60].astype(np.uint8)
    for split in ("train", "val", "test"):
        for i in range(3):
            image, mask = (tmp_path / kind / split / "cat" / f"{i}.png" for kind in ("images", "parts"))
            image.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.stack([rows, columns, rows], axis=-1)).save(image)
            if i < 2:
                Image.fromarray(mask_with((40, 60), (12, 20), (30, 40)) * (i == 0)).save(mask)
    (tmp_path / "parts.json").write_text(json.dumps({"parts": {"cat": {"head": 1, "body": 2, "tail": 3}}}))
    return tmp_path


@pytest.mark.parametrize("in_memory", [True, False])
def test_image_and_mask_are_cropped_alike_and_others_stay_whole(root, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(folder, "IN_MEMORY_BYTES", 100)
    cropped, whole = (load_parts(root, size=20, crop_to_parts=margin) for margin in (0.5, None))
    assert (cropped.test.pixels is not None) == in_memory
    for of_split, plain in zip((cropped.train, cropped.test), (whole.train, whole.test), strict=True):
        assert of_split.boxes == ((25, 6, 45, 26), None, None)  # 20 pixels, so that nothing is resized
        images, masks = of_split.read(EVERYTHING), of_split.read_parts(EVERYTHING)
        assert images[0, 0, :, 0].tolist() == [*range(6, 26)]
        assert images[0, 1, 0].tolist() == [*range(25, 45)]
        expected = (images[0, 0] >= 12) & (images[0, 0] < 20) & (images[0, 1] >= 30) & (images[0, 1] < 40)
        assert torch.equal(masks[0] == 3, expected)
        assert torch.equal(images[1:], plain.read(EVERYTHING)[1:])
        assert torch.equal(masks[1:], plain.read_parts(EVERYTHING)[1:])
        assert of_split.names == plain.names
        assert torch.equal(of_split.index, plain.index)
        last = of_split.subset(torch.tensor([2, 0]))
        assert torch.equal(last.read(torch.tensor([1]))[0], images[0])
        assert torch.equal(last.read_parts(torch.tensor([1]))[0], masks[0])


def test_crops_are_other_images_and_their_margin_counts(root):
    prints = [load_parts(root, size=20, crop_to_parts=margin).test.fingerprint for margin in (None, 0.0, 0.5)]
    assert len(set(prints)) == 3


def test_crops_are_resized_and_reach_networks_that_prepare_images(root):
    enlarged = load_parts(root, size=40, crop_to_parts=0.5).test
    assert (enlarged.read_parts(EVERYTHING)[0] == 3).sum() == 4 * 8 * 10

    def prepare(image):
        assert image.size in ((20, 20), (60, 40))
        return torch.from_numpy(np.array(image.crop((0, 0, 8, 8)))).permute(2, 0, 1)

    prepared = load_parts(root, size=8, prepare=prepare, crop_to_parts=0.5).test
    assert prepared.read(EVERYTHING)[:, :, 0, 0].tolist() == [[6, 25, 6], [0, 0, 0], [0, 0, 0]]


def test_crops_need_a_size_masks_and_no_masks_of_the_users(root):
    with pytest.raises(
        UserError, match=r"data\.crop_to_parts 0\.2 makes squares of many sizes.*--data\.size"
    ):
        load_parts(root, crop_to_parts=0.2)
    for name in ("synthetic-parts", "digits", "folder"):
        with pytest.raises(UserError, match=rf"data\.crop_to_parts .* has no effect with data\.name {name}"):
            resolve({"data": {"name": name, "crop_to_parts": 0}})
    data = {"name": "parts", "root": str(root), "size": 20, "crop_to_parts": 0.2}
    mask = {"rule": "file", "files": str(root)}
    with pytest.raises(
        UserError, match=r"mask\.files are masks of whole images: leave out data\.crop_to_parts"
    ):
        resolve({"data": data, "mask": mask, "train": {"method": "part"}})
