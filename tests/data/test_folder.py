"""Image folders: layouts, sizes, colour modes, damage, and decoding on demand."""

import logging
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from counterpart.data import batches, folder, load_folder
from counterpart.data.decoding import decode
from counterpart.errors import UserError

CPU = torch.device("cpu")


def paint(path, value=0, size=(10, 10), mode="RGB"):
    """A file whose every pixel has one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).convert(mode).save(path)


def fill(root, counts, first=0, **arguments):
    """``counts`` images per class, each with its own value."""
    value = first
    for name, count in counts.items():
        for i in range(count):
            paint(root / name / f"{i:02d}.png", value, **arguments)
            value += 1


def test_one_folder_per_class_is_split_by_seed(tmp_path):
    fill(tmp_path, {"cat": 10, "dog": 20})
    splits = load_folder(tmp_path, validation=0.25)
    sets = [splits.train, splits.validation, splits.test]
    assert [torch.bincount(s.labels).tolist() for s in sets] == [[6, 12], [2, 4], [2, 4]]
    assert torch.equal(torch.cat([s.index for s in sets]).sort().values, torch.arange(30))
    for s in sets:
        assert s.classes == ("cat", "dog")
        assert torch.equal(s.pixels[:, 0, 0, 0].long(), s.index)  # painted in sorted order
        assert [file.relative_to(tmp_path).as_posix() for file in s.files] == [
            f"cat/{i:02d}.png" if i < 10 else f"dog/{i - 10:02d}.png" for i in s.index.tolist()
        ]
    again = load_folder(tmp_path, validation=0.25)
    assert torch.equal(again.test.index, splits.test.index)
    assert again.train.fingerprint == splits.train.fingerprint


@pytest.mark.parametrize("val", ["val", "validation"])
def test_split_folders_are_kept(tmp_path, val):
    fill(tmp_path / "train", {"a": 4, "b": 4})
    fill(tmp_path / val, {"a": 1, "b": 2}, first=100)
    fill(tmp_path / "test", {"a": 2, "b": 1}, first=200)
    splits = load_folder(tmp_path)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [8, 3, 3]
    assert splits.validation.pixels[:, 0, 0, 0].tolist() == [100, 101, 102]
    assert splits.test.index.tolist() == [0, 1, 2]
    assert [s.split for s in (splits.train, splits.validation, splits.test)] == [
        "train",
        "validation",
        "test",
    ]


def test_missing_splits_are_drawn_or_stand_in(tmp_path):
    fill(tmp_path / "train", {"a": 10, "b": 10})
    fill(tmp_path / "test", {"a": 2, "b": 1}, first=200)
    drawn = load_folder(tmp_path, validation=0.2)
    assert torch.bincount(drawn.validation.labels).tolist() == [2, 2]
    assert len(drawn.train) == 16
    (tmp_path / "test").rename(tmp_path / "val")
    stands_in = load_folder(tmp_path, validation=0.2)
    assert stands_in.test.pixels[:, 0, 0, 0].tolist() == [200, 201, 202]
    assert stands_in.test.split == "test"
    assert len(stands_in.validation) == 4
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(UserError, match=r"has train and no test: create .*test.*val.*--data\.root"):
        load_folder(tmp_path)


@pytest.mark.parametrize("only", ["val", "test"])
def test_a_test_split_alone_can_be_evaluated(tmp_path, only):
    fill(tmp_path / only, {"a": 2, "b": 1})
    splits = load_folder(tmp_path)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [0, 0, 3]
    with pytest.raises(UserError, match="train split of folder is empty"):
        next(batches(splits.train, batch_size=2, device=CPU))


def test_every_split_needs_the_same_classes(tmp_path):
    fill(tmp_path / "train", {"a": 2, "b": 2})
    fill(tmp_path / "test", {"a": 2})
    with pytest.raises(UserError, match="class 'b' has a folder in train and none in test"):
        load_folder(tmp_path)
    fill(tmp_path / "test", {"b": 1, "c": 1})
    with pytest.raises(UserError, match="class 'c' has a folder in test and none in train"):
        load_folder(tmp_path)


def test_mixed_sizes_need_a_size(tmp_path):
    fill(tmp_path, {"a": 3, "b": 3})
    paint(tmp_path / "b" / "wide.png", 9, size=(20, 12))
    with pytest.raises(UserError, match=r"a.00\.png is 10 x 10 and .*wide\.png is 20 x 12\. .*--data\.size"):
        load_folder(tmp_path)
    splits = load_folder(tmp_path, size=8)
    assert splits.train.shape == (3, 8, 8)
    assert splits.train.pixels.shape[1:] == (3, 8, 8)


def test_images_need_not_be_square(tmp_path):
    fill(tmp_path, {"a": 3, "b": 3}, size=(12, 9))
    assert load_folder(tmp_path).train.shape == (3, 9, 12)


def test_large_sets_are_decoded_on_demand_to_the_same_pixels(tmp_path, monkeypatch):
    fill(tmp_path, {"a": 6, "b": 6}, size=(12, 9))
    paint(tmp_path / "a" / "other.png", 77, size=(30, 40))
    in_memory = load_folder(tmp_path, size=8)
    monkeypatch.setattr(folder, "IN_MEMORY_BYTES", 1000)
    lazy = load_folder(tmp_path, size=8)
    assert lazy.train.pixels is None
    assert lazy.train.fingerprint == in_memory.train.fingerprint
    order = torch.tensor([3, 0, 5])
    assert torch.equal(lazy.train.read(order), in_memory.train.read(order))
    assert lazy.train.subset(order).files[1] == in_memory.train.files[0]
    pairs = zip(*(batches(s.train, batch_size=3, device=CPU) for s in (lazy, in_memory)), strict=True)
    for ours, theirs in pairs:
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.index, theirs.index)


def test_resizing_equals_torchvision(tmp_path):
    from torchvision.transforms import functional as V

    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    for array in (noise, noise.transpose(1, 0, 2)):
        Image.fromarray(array).save(tmp_path / "x.png")
        for size in (16, 37, 50):
            expected = V.center_crop(V.resize(Image.fromarray(array), [size]), [size])
            assert torch.equal(decode(tmp_path / "x.png", size), V.pil_to_tensor(expected))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_8_bit_mode_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    for value in (0, 255):
        paint(tmp_path / f"x.{suffix}", value, mode=mode)
        image = decode(tmp_path / f"x.{suffix}")
        assert image.shape == (3, 10, 10)
        assert (image.float() - value).abs().max() <= 2


def test_a_palette_with_transparency_raises_no_warning(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "x.png", transparency=b"\x00\x80")
    assert decode(tmp_path / "x.png")[:, 0, 0].tolist() == [40, 50, 60]


def test_the_exif_orientation_is_ignored(tmp_path):
    image = Image.new("RGB", (12, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpg", exif=exif)
    assert decode(tmp_path / "x.jpg").shape == (3, 8, 12)


def write_png(path, values, colour_type):
    """A PNG of 16 bits per channel, which Pillow reads and does not write."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("colour_type", "channels", "values"),
    [(2, [0x12F0, 0xFFFF, 0x80FF], [0x12, 0xFF, 0x80]), (4, [0x12F0, 0x80FF], [0x12, 0x12, 0x12])],
)
def test_16_bit_colours_and_grey_with_alpha_lose_their_lower_byte(tmp_path, colour_type, channels, values):
    write_png(tmp_path / "deep.png", np.full((2, 3, len(channels)), channels), colour_type)
    image = decode(tmp_path / "deep.png")
    assert image.shape == (3, 2, 3)
    assert image[:, 1, 2].tolist() == values


def test_16_bit_grey_images_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match=r"deep\.png: .*more than 8 bits per channel"):
        decode(tmp_path / "deep.png")


def test_damaged_images_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("cut.png", "cut.jpg", "cut.webp", "cut.bmp"):
        Image.fromarray(noise).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    for path in (*sorted(tmp_path.iterdir()), tmp_path / "gone.png"):
        with pytest.raises(UserError, match=rf"Cannot read the image .*{path.name}") as raised:
            decode(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [None, 8])
def test_a_damaged_file_in_a_set_is_named(tmp_path, size):
    fill(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "b" / "01.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"Cannot read the image .*b.01\.png"):
        load_folder(tmp_path, size=size)


def test_huge_images_do_not_crash(tmp_path, monkeypatch):
    paint(tmp_path / "x.png", size=(60, 60))
    for limit in (1000, 2500):  # beyond twice the limit Pillow raises, beyond the limit it warns
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UserError, match=r"x\.png"):
            decode(tmp_path / "x.png")


def test_hidden_and_foreign_files_are_passed_over(tmp_path):
    fill(tmp_path, {"a": 5, "b": 5})
    expected = load_folder(tmp_path).train.fingerprint
    (tmp_path / "a" / "._00.png").write_bytes(b"resource fork")
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.md").touch()
    assert load_folder(tmp_path).train.fingerprint == expected


def test_images_in_nested_folders_and_capital_suffixes_are_found(tmp_path):
    fill(tmp_path, {"a": 5, "b": 5})
    paint(tmp_path / "b" / "images" / "X.JPEG", 99)
    splits = load_folder(tmp_path)
    sets = (splits.train, splits.validation, splits.test)
    names = [file.relative_to(tmp_path).as_posix() for s in sets for file in s.files]
    assert "b/images/X.JPEG" in names
    assert len(names) == 11


def test_fingerprint_follows_content_and_names(tmp_path, monkeypatch):
    fill(tmp_path, {"a": 5, "b": 5})
    first = load_folder(tmp_path).train.fingerprint
    paint(tmp_path / "a" / "00.png", 1)
    second = load_folder(tmp_path).train.fingerprint
    (tmp_path / "a" / "00.png").rename(tmp_path / "a" / "99.png")
    third = load_folder(tmp_path).train.fingerprint
    assert len({first, second, third}) == 3

    (tmp_path / "a" / "99.png").rename(tmp_path / "a" / "00.png")
    monkeypatch.setattr(folder, "HASHED_BYTES", 10)
    by_name = load_folder(tmp_path).train.fingerprint
    same_size = bytearray((tmp_path / "a" / "00.png").read_bytes())
    same_size[-1] ^= 1  # in the checksum of the last chunk, which Pillow does not look at
    (tmp_path / "a" / "00.png").write_bytes(same_size)
    assert load_folder(tmp_path).train.fingerprint == by_name != second


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "has no class folders: expected .*CLASS"),
        (lambda root: paint(root / "loose.png"), "has no class folders"),
        (
            lambda root: (fill(root, {"a": 2}), (root / "empty").mkdir()),
            "class folder .*empty holds no images",
        ),
        (lambda root: fill(root, {"a": 1}), "has 1 training image: a test split needs one more"),
        (
            lambda root: (fill(root / "val", {"a": 1}), fill(root / "validation", {"a": 1})),
            "both val and val",
        ),
    ],
)
def test_layouts_that_cannot_be_read_are_explained(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        load_folder(tmp_path)
    assert str(tmp_path) in str(raised.value) or "folder has" in str(raised.value)


def test_a_root_that_is_none_missing_or_a_file(tmp_path):
    with pytest.raises(UserError, match=r"--data\.root DIR"):
        load_folder()
    with pytest.raises(UserError, match="gone is missing"):
        load_folder(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is no folder"):
        load_folder(tmp_path / "file")


@pytest.mark.slow
def test_reads_real_photographs(shared, caplog):
    root = shared / "data" / "ade-parts" / "images"
    if not root.exists():
        pytest.skip("needs ../shared/data/ade-parts")
    with caplog.at_level(logging.WARNING):
        splits = load_folder(root, size=48)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [948, 145, 240]
    assert len(splits.train.classes) == 8
    assert splits.test.shape == (3, 48, 48)
    assert 60 < splits.test.pixels.float().mean() < 180
    assert not caplog.text


def test_a_model_that_never_saw_a_folder_is_judged_on_all_of_it(tmp_path):
    fill(tmp_path, {"cat": 10, "dog": 20})
    own = load_folder(tmp_path)
    assert len(own.test) == len(load_folder(tmp_path, trained_on=own.test.fingerprint).test) == 6
    whole = load_folder(tmp_path, trained_on="of something else")
    assert [len(s) for s in (whole.train, whole.validation, whole.test)] == [0, 0, 30]
    assert whole.test.split == "test"
    assert whole.test.fingerprint == own.test.fingerprint
    fill(tmp_path / "set" / "test", {"cat": 2})
    fill(tmp_path / "set" / "train", {"cat": 4})
    assert len(load_folder(tmp_path / "set", trained_on="").test) == 2  # folders of splits are kept


def test_a_folder_of_data_sets_is_no_data_set(tmp_path):
    for name in ("mixed_rand", "original"):
        fill(tmp_path / name / "val", {"00_dog": 2})
    with pytest.raises(
        UserError, match=r"\(mixed_rand, original\): name one of them, --data.root .*mixed_rand"
    ):
        load_folder(tmp_path)
    fill(tmp_path / "plain", {"00_dog": 2})
    assert load_folder(tmp_path).train.classes == ("mixed_rand", "original", "plain")


@pytest.mark.parametrize("on_demand", [False, True])
def test_grey_images_stay_grey_where_that_is_asked(tmp_path, monkeypatch, on_demand):
    fill(tmp_path, {"a": 6, "b": 6}, mode="L")
    paint(tmp_path / "b" / "10.png", 50, mode="LA")
    paint(tmp_path / "b" / "11.png", 255, mode="P")
    Image.new("RGB", (10, 10), (200, 100, 0)).save(tmp_path / "b" / "12.png")
    if on_demand:
        monkeypatch.setattr(folder, "IN_MEMORY_BYTES", 0)
    grey, colour = load_folder(tmp_path, size=8, channels=1), load_folder(tmp_path, size=8)
    assert grey.train.shape == (1, 8, 8)
    assert colour.train.shape == (3, 8, 8)
    assert grey.train.fingerprint == colour.train.fingerprint
    assert (grey.train.pixels is None) == on_demand
    values = {}
    for images in (grey.train, grey.validation, grey.test):
        pixels = images.read(torch.arange(len(images)))
        assert pixels.shape[1:] == (1, 8, 8)
        values |= dict(zip(images.names, pixels[:, 0, 4, 4].tolist(), strict=True))
    assert [values[f"a/{i:02d}.png"] for i in range(6)] == list(range(6))
    assert [values[f"b/{i}.png"] for i in (10, 11)] == [50, 255]
    assert values["b/12.png"] == 118  # 0.299 * 200 + 0.587 * 100
    with pytest.raises(UserError, match=r"data\.channels 1: this model prepares images in colour"):
        load_folder(tmp_path, size=8, channels=1, prepare=lambda image: image)
