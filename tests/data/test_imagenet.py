"""ImageNet: every official layout gives the same images and classes; ids are never taken for positions."""

import logging
from contextlib import suppress

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from counterpart.data import load_imagenet, say_whether_there
from counterpart.data.imagenet import KAGGLE, KIT, META, SOLUTION, TRUTH, read_meta
from counterpart.errors import UserError

WNIDS = ["n01440764", "n01443537", "n02119789", "n02100735"]  # sorted: 01440764, 01443537, 02100735, 02119789
IDS = {
    1: "n02119789",
    2: "n02100735",
    3: "n01443537",
    4: "n01440764",
}  # as the kit numbers: no sorted positions
TRUE_IDS = [3, 1, 4, 2, 1]  # of five validation images


def paint(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20 + value % 3, 24), (value, value, value)).save(path, "PNG")


def train(root):
    for k, wnid in enumerate(WNIDS):
        for i in range(3):
            paint(root / "train" / wnid / f"{wnid}_{i}.JPEG", 100 + 10 * k + i)


def validation(root, in_folders):
    for number, identity in enumerate(TRUE_IDS, start=1):
        folder = root / "val" / IDS[identity] if in_folders else root / "val"
        paint(folder / f"ILSVRC2012_val_{number:08d}.JPEG", 10 * number)


def write_kit(root, ids=IDS):
    kind = np.dtype(
        [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    )
    rows = np.empty((len(ids) + 1, 1), dtype=kind)
    for place, (identity, wnid) in enumerate(ids.items()):
        rows[place, 0] = (float(identity), wnid, "a thing, or two", 0.0)
    rows[len(ids), 0] = (
        float(len(ids) + 1),
        "n00001740",
        "entity",
        4.0,
    )  # an inner node, which has no images
    (root / KIT).mkdir(parents=True)
    scipy.io.savemat(root / KIT / META, {"synsets": rows}, do_compression=True)
    (root / KIT / TRUTH).write_text("".join(f"{identity}\n" for identity in TRUE_IDS))


def write_solution(root):
    lines = [
        f"ILSVRC2012_val_{n:08d},{IDS[i]} 85 1 499 272 {IDS[i]} 1 2 3 4" for n, i in enumerate(TRUE_IDS, 1)
    ]
    (root / SOLUTION).write_text(
        "\ufeffImageId,PredictionString\n" + "\n".join(reversed(lines)) + "\n", encoding="utf-8"
    )


def answers(splits):
    """What each test image shows -> its class."""
    images = splits.test.read(torch.arange(len(splits.test)))
    named = [splits.test.classes[label] for label in splits.test.labels]
    return dict(zip(images[:, 0, 0, 0].tolist(), named, strict=True))


TRUE = {10 * number: IDS[identity] for number, identity in enumerate(TRUE_IDS, start=1)}


@pytest.mark.parametrize("layout", ["folders", "kit", "solution", "kaggle"])
@pytest.mark.parametrize("with_train", [True, False])
def test_every_layout_gives_the_same_classes(tmp_path, layout, with_train, caplog):
    home = tmp_path / KAGGLE if layout == "kaggle" else tmp_path
    if with_train:
        train(home)
    validation(home, in_folders=layout == "folders")
    if layout == "kit":
        write_kit(tmp_path)
    elif layout in ("solution", "kaggle"):
        write_solution(tmp_path)
    with caplog.at_level(logging.WARNING):
        splits = load_imagenet(tmp_path, size=16, validation=0.25)
    assert splits.test.classes == tuple(sorted(WNIDS))
    assert answers(splits) == TRUE
    assert splits.test.shape == (3, 16, 16)
    assert [len(s) for s in (splits.train, splits.validation)] == ([9, 3] if with_train else [0, 0])
    assert splits.validation.split == "validation"
    assert "has 4 classes, ImageNet 1000" in caplog.text
    assert say_whether_there("imagenet", tmp_path).startswith("imagenet: there")
    if with_train:
        for images in (splits.train, splits.validation):
            shown = images.read(torch.arange(len(images)))[:, 0, 0, 0]
            wnids = [WNIDS[(value - 100) // 10] for value in shown.tolist()]
            assert [images.classes[label] for label in images.labels] == wnids


def test_images_are_224_pixels_unless_told(tmp_path):
    validation(tmp_path, in_folders=True)
    assert load_imagenet(tmp_path).test.shape == (3, 224, 224)


def test_a_flat_folder_alone_is_refused_with_what_to_provide(tmp_path):
    validation(tmp_path, in_folders=False)
    train(tmp_path)
    with pytest.raises(
        UserError, match=rf"nothing says which class.*Kaggle's {SOLUTION}; the development kit.*{META}"
    ):
        load_imagenet(tmp_path)
    (tmp_path / KIT).mkdir(parents=True)
    (tmp_path / KIT / TRUTH).write_text("1\n")
    with pytest.raises(UserError, match=r"meta\.mat is missing: unpack the development kit again"):
        load_imagenet(tmp_path)


def test_an_image_that_nothing_names_and_a_class_that_is_not_there(tmp_path):
    validation(tmp_path, in_folders=False)
    write_solution(tmp_path)
    paint(tmp_path / "val" / "ILSVRC2012_val_00000099.JPEG", 1)
    with pytest.raises(UserError, match=r"val_00000099\.JPEG: neither a folder nor"):
        load_imagenet(tmp_path)
    (tmp_path / "val" / "ILSVRC2012_val_00000099.JPEG").unlink()
    for wnid in WNIDS[:2]:
        paint(tmp_path / "train" / wnid / "0.JPEG", 1)
    with pytest.raises(
        UserError, match=r"val_00000002\.JPEG is of the class n02119789, which .*train does not have"
    ):
        load_imagenet(tmp_path)


@pytest.mark.parametrize(
    "line", ["ILSVRC2012_val_00000001", "x.JPEG,n01440764 1 2 3 4", "ILSVRC2012_val_00000001,cat", ""]
)
def test_a_table_of_another_form_is_refused(tmp_path, line):
    validation(tmp_path, in_folders=False)
    (tmp_path / SOLUTION).write_text(f"ImageId,PredictionString\n{line}\n")
    if line:
        with pytest.raises(
            UserError, match=r"LOC_val_solution\.csv, line 2: expected an image and its boxes"
        ):
            load_imagenet(tmp_path)


@pytest.mark.parametrize("line", ["0", "5", "x", "-1", "1.5", "9" * 5000])
def test_an_id_that_is_no_class_is_refused(tmp_path, line):
    validation(tmp_path, in_folders=False)
    write_kit(tmp_path)
    (tmp_path / KIT / TRUTH).write_text(f"1\n{line}\n")
    with pytest.raises(
        UserError, match=r"ground_truth\.txt, line 2: .* is no id of a class in meta\.mat"
    ) as raised:
        load_imagenet(tmp_path)
    assert len(str(raised.value)) < 500


def test_a_damaged_table_of_classes_is_one_line(tmp_path):
    write_kit(tmp_path)
    path = tmp_path / KIT / META
    content = path.read_bytes()
    assert read_meta(path) == IDS
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0x40
        path.write_bytes(damaged)
        with suppress(UserError):
            assert set(read_meta(path).values()) <= {*IDS.values(), "n00001740"}
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"meta\.mat is damaged or no table of ImageNet's classes"):
        read_meta(path)
    scipy.io.savemat(path, {"synsets": np.eye(3)})
    with pytest.raises(UserError, match=r"meta\.mat is damaged or no table of ImageNet's classes"):
        read_meta(path)


def test_other_folders_downloads_and_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"Where does ImageNet lie\?"):
        load_imagenet()
    with pytest.raises(UserError, match=r"data\.download: ImageNet needs an account"):
        load_imagenet(tmp_path, download=True)
    with pytest.raises(UserError, match=r"val is missing: expected .*n01440764"):
        load_imagenet(tmp_path)
    assert "lacks val" in say_whether_there("imagenet", tmp_path)
    paint(tmp_path / "val" / "cat" / "0.JPEG", 1)
    with pytest.raises(UserError, match=r"val.cat is no class of ImageNet: .*--data\.name folder"):
        load_imagenet(tmp_path)
