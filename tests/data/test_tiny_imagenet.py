"""Tiny-ImageNet: the official layout is read, whatever contradicts it is named in one line."""

import logging
import zipfile

import pytest
import torch
from PIL import Image

from counterpart.data import load_tiny_imagenet, say_whether_there
from counterpart.errors import UserError

WNIDS = ("n03", "n01", "n02")  # the official list is not sorted either


def lay_out(folder, wnids=WNIDS, n=4):
    """Grey squares of the value 10 * class + number, n for training and two for testing in each class."""
    for k, wnid in enumerate(sorted(wnids)):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (8, 8), (10 * k + i,) * 3).save(images / f"{wnid}_{i}.JPEG", quality=100)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    (folder / "val" / "images").mkdir(parents=True)
    lines = []
    for i in range(2 * len(wnids)):
        Image.new("L", (8, 8), 100 + i).save(folder / "val" / "images" / f"val_{i}.JPEG", quality=100)
        lines.append(f"val_{i}.JPEG\t{wnids[i % len(wnids)]}\t0\t0\t7\t7\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    words = {"n01": "crane", "n02": "koala, koala bear", "n03": "crane, lifting device", "n99": "not here"}
    (folder / "words.txt").write_text("".join(f"{key}\t{value}\n" for key, value in words.items()))


@pytest.fixture
def root(tmp_path):
    lay_out(tmp_path / "tiny-imagenet-200")
    return tmp_path


def test_files_classes_and_labels_are_those_of_the_layout(root, caplog):
    with caplog.at_level(logging.WARNING):
        splits = load_tiny_imagenet(root, validation=0.25)
    assert "3 classes, 12 training images, 6 test images, the official set 200 classes" in caplog.text
    assert splits.train.fingerprint in caplog.text
    assert splits.train.classes == ("crane (n01)", "koala", "crane (n03)")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [9, 3, 6]
    assert torch.equal(
        torch.cat([splits.train.index, splits.validation.index]).sort().values, torch.arange(12)
    )
    for s in (splits.train, splits.validation):
        expected = 10 * s.labels + s.index % 4
        assert (s.pixels.float().mean(dim=(1, 2, 3)) - expected).abs().max() <= 1
        assert torch.equal(s.labels, s.index // 4)
    assert splits.test.labels.tolist() == [2, 0, 1, 2, 0, 1]
    assert splits.test.pixels[:, 0, 0, 0].tolist() == [100, 101, 102, 103, 104, 105]  # grey became RGB
    assert splits.test.shape == (3, 8, 8)
    assert load_tiny_imagenet(root / "tiny-imagenet-200", size=16).test.shape == (3, 16, 16)
    assert say_whether_there("tiny-imagenet", root).startswith("tiny-imagenet: there")
    assert "lacks wnids.txt" in say_whether_there("tiny-imagenet", root / "nowhere")


def test_labels_are_part_of_the_fingerprint(root):
    before = load_tiny_imagenet(root).test.fingerprint
    file = root / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    file.write_text(file.read_text().replace("val_0.JPEG\tn03", "val_0.JPEG\tn01"))
    assert load_tiny_imagenet(root).test.fingerprint != before


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("wnids.txt", "n02\n", "n02\nn04\n", r"words\.txt has no words for the class n04"),
        ("wnids.txt", "n02\n", "n02\nn99\n", r"n99/images is missing: .*wnids\.txt lists the class n99"),
        ("wnids.txt", "n02\n", "n02\nn01\n", r"wnids\.txt lists the class n01 twice"),
        ("wnids.txt", "n03\nn01\nn02\n", "\n", r"wnids\.txt lists no class"),
        (
            "val/val_annotations.txt",
            "val_1.JPEG\tn01",
            "val_1.JPEG\tn10",
            r"line 2: .*'n10', which wnids.txt does not list",
        ),
        (
            "val/val_annotations.txt",
            "val_1.JPEG\t",
            "val_1.JPEG ",
            r"line 2: .*A line is: image, tab, class",
        ),
        (
            "val/val_annotations.txt",
            "val_1.JPEG",
            "val_9.JPEG",
            r"line 2: 'val_9\.JPEG' is not in .*val/images",
        ),
        ("val/val_annotations.txt", "val_1.JPEG", "val_0.JPEG", "an earlier line names it"),
        ("val/val_annotations.txt", "val_5.JPEG\tn02\t0\t0\t7\t7\n", "", r"val_5\.JPEG has no line in"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(root, file, old, new, message):
    path = root / "tiny-imagenet-200" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message) as refusal:
        load_tiny_imagenet(root)
    assert "\n" not in str(refusal.value)


def test_missing_empty_and_damaged_files_are_named(root):
    folder = root / "tiny-imagenet-200"
    image = folder / "train" / "n01" / "images" / "n01_0.JPEG"
    whole = image.read_bytes()
    image.write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"Cannot read the image .*n01_0\.JPEG: "):
        load_tiny_imagenet(root)
    Image.new("RGB", (8, 9)).save(image)
    with pytest.raises(UserError, match=r"Images differ in size: .*n01_0\.JPEG is 8 x 9"):
        load_tiny_imagenet(root)
    for file in image.parent.iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"n01/images holds no images"):
        load_tiny_imagenet(root)
    (folder / "words.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"words\.txt is damaged"):
        load_tiny_imagenet(root)
    for name in ("val/val_annotations.txt", "words.txt", "wnids.txt"):
        (folder / name).unlink()
        with pytest.raises(
            UserError, match=rf"{name} is missing\. .*tiny-imagenet-200\.zip.*--data\.name folder"
        ):
            load_tiny_imagenet(folder)
    with pytest.raises(UserError, match="Where does Tiny-ImageNet lie"):
        load_tiny_imagenet()


def test_download_unpacks_what_has_labels_and_only_when_it_is_whole(tmp_path, monkeypatch):
    lay_out(tmp_path / "made" / "tiny-imagenet-200")
    (tmp_path / "made" / "tiny-imagenet-200" / "test").mkdir()
    (tmp_path / "made" / "tiny-imagenet-200" / "test" / "test_0.JPEG").write_bytes(b"no label")
    root, asked = tmp_path / "root", []

    def download_url(url, folder, name, md5):
        asked.append((url, md5))
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / name, "w") as archive:
            for file in sorted((tmp_path / "made").rglob("*.*")):
                archive.write(file, file.relative_to(tmp_path / "made"))

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    half = root / ".tiny-imagenet-200.unpacking" / "tiny-imagenet-200"
    half.mkdir(parents=True)
    (half / "half.txt").write_text("of a download that was killed")
    assert len(load_tiny_imagenet(root, download=True).test) == 6
    assert [len(md5) for _, md5 in asked] == [32]
    assert {file.name for file in root.iterdir()} == {"tiny-imagenet-200", "tiny-imagenet-200.zip"}
    assert not (root / "tiny-imagenet-200" / "test").exists()
    assert not (root / "tiny-imagenet-200" / "half.txt").exists()

    (root / "tiny-imagenet-200" / "wnids.txt").unlink()
    with pytest.raises(UserError, match=r"is there and lacks wnids\.txt: remove or complete it"):
        load_tiny_imagenet(root, download=True)

    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    with pytest.raises(UserError, match=r"Could not fetch Tiny-ImageNet from .*no network"):
        load_tiny_imagenet(tmp_path / "elsewhere", download=True)


@pytest.mark.slow
def test_the_real_images(shared, tmp_path):
    import tarfile

    keep = ("n01774750", "n01882714")
    with tarfile.open(shared / "data" / "tiny-imagenet-20.tar") as archive:
        archive.extractall(
            tmp_path, filter=lambda m, path: m if "/train/" not in m.name or any(k in m.name for k in keep) else None
        )  # fmt: skip
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "wnids.txt").write_text("\n".join(keep))
    with pytest.raises(UserError, match=r"which wnids\.txt does not list"):
        load_tiny_imagenet(tmp_path)
    annotations = folder / "val" / "val_annotations.txt"
    lines = [line for line in annotations.read_text().splitlines() if line.split("\t")[1] in keep]
    annotations.write_text("\n".join(lines))
    named = {line.split("\t")[0] for line in lines}
    for file in (folder / "val" / "images").iterdir():
        if file.name not in named:
            file.unlink()
    splits = load_tiny_imagenet(tmp_path)
    assert splits.train.classes == ("tarantula", "koala")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [900, 100, 100]
    assert splits.train.shape == (3, 64, 64)
