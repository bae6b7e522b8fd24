"""Images that a program holds: every form comes to the same pixels, labels and names, and what is none is told."""

import tempfile
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from counterpart.data import objects
from counterpart.data.objects import read_objects, read_splits

PIXELS = torch.arange(6 * 3 * 4 * 5).remainder(256).to(torch.uint8).view(6, 3, 4, 5)
LABELS = [0, 1, 2, 0, 1, 2]


def pil(pixels):
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


class Pictures(Dataset):
    classes = ("cat", "dog", "emu")

    def __len__(self):
        return 6

    def __getitem__(self, position):
        if position >= 6:
            raise IndexError
        return pil(PIXELS[position]), LABELS[position]


class Sized:
    """No index, but a length; which may be wrong."""

    def __init__(self, says, gives):
        self.says, self.gives = says, gives

    def __len__(self):
        return self.says

    def __iter__(self):
        return ((PIXELS[position], LABELS[position]) for position in range(self.gives))


class Names:
    names = ("cat", "dog", "emu")


class Columns:
    """Imitates a data set of Hugging Face."""

    column_names = ("img", "fine_label", "coarse_label")
    features = MappingProxyType({"img": object(), "fine_label": Names()})

    def __len__(self):
        return 6

    def __iter__(self):
        return ({"img": pil(PIXELS[k]), "fine_label": LABELS[k], "coarse_label": 0} for k in range(6))


FORMS = {
    "tensors": (PIXELS, torch.tensor(LABELS)),
    "arrays": [PIXELS.numpy(), np.array(LABELS, dtype=np.uint8)],
    "channels last": (PIXELS.permute(0, 2, 3, 1).numpy(), LABELS),
    "labels (N, 1)": (PIXELS, torch.tensor(LABELS)[:, None]),
    "pictures": Pictures(),
    "tensor data set": TensorDataset(PIXELS, torch.tensor(LABELS)),
    "pairs": [(PIXELS[k].numpy(), np.int64(LABELS[k])) for k in range(6)],
    "iterable": Sized(6, 6),
    "columns": Columns(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_images(form):
    read = read_objects(FORMS[form])
    assert torch.equal(read.read(torch.arange(6)), PIXELS)
    assert read.labels.tolist() == LABELS
    assert read.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert read.shape == (3, 4, 5)
    named = form in ("pictures", "columns")
    assert read.classes == (("cat", "dog", "emu") if named else ("0", "1", "2"))
    assert read.fingerprint == read_objects(FORMS["tensors"]).fingerprint


def test_floats_stay_what_they_are():
    images = torch.full((2, 1, 2, 2), 0.1234567)
    assert torch.equal(read_objects((images, [0, 1])).read(torch.arange(2)), images)
    assert torch.equal(read_objects((images.double().numpy(), [0, 1])).read(torch.arange(2)), images)
    grey = read_objects((images[:, 0], [0, 1]))
    assert torch.equal(grey.read(torch.arange(2)), images)
    last = read_objects((images.expand(2, 3, 2, 2).permute(0, 2, 3, 1), [0, 1]))
    assert last.shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)]
)
def test_pictures_of_any_mode(mode, channels):
    assert read_objects([(Image.new(mode, (5, 4)), 0)]).shape == (channels, 4, 5)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((PIXELS, LABELS[:5]), "6 images and 5 labels"),
        ((PIXELS, [-1, *LABELS[1:]]), "from 0 on, got -1"),
        ((PIXELS, torch.tensor(LABELS).float()), "one class index for each image"),
        ((PIXELS, torch.eye(6)), "multi-label"),
        ((PIXELS.long(), LABELS), "8-bit integers or floats"),
        ((PIXELS.float(), LABELS), "Divide 8-bit images by 255"),
        (PIXELS, "images come without labels"),
        ({"train": PIXELS}, "a dict is no data set"),
        (DataLoader(Pictures()), "loader.dataset"),
        ([], "hold no images"),
        (Sized(6, 5), "hold 6 samples, and give 5"),
        (Sized(5, 6), "hold 5 samples, and give more"),
        (iter([]), "has no length"),
        ([(PIXELS[0], 0), (PIXELS[0, :, :2], 0)], r"sample 1 is \(3, 2, 5\)"),
        ([(PIXELS[0], 0), (PIXELS[0] / 255, 0)], "sample 1 is .* of torch.float32"),
        ([(PIXELS[0], 0.5)], "the label of sample 0 is 0.5: expected one class index"),
        ([(PIXELS[0], torch.zeros(9))], r"sample 0 is of shape \(9,\)"),
        ([PIXELS[0]], "expected a pair"),
        ([("picture.png", 0)], "an image is str"),
        ([(Image.new("I;16", (5, 4)), 0)], "more than 8 bits"),
    ],
)
def test_what_is_no_data_is_told(data, words):
    with pytest.raises(ValueError, match=words) as error:
        read_objects(data)
    assert len(str(error.value)) < 250


def test_columns_that_are_not_there_are_told():
    other = [{"picture": pil(PIXELS[0]), "label": 0}]
    with pytest.raises(ValueError, match=r"columns picture, label: none holds images\. Rename one to image"):
        read_objects(other)


@pytest.mark.parametrize("folder", [False, True])
def test_a_large_iterable_is_mapped_and_leaves_no_file(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(objects, "IN_MEMORY", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    read = read_objects(Sized(6, 6), folder=tmp_path / "not" / "there" if folder else None)
    assert torch.equal(read.read(torch.arange(6)), PIXELS)
    assert read.pixels.untyped_storage().filename is not None
    assert [*tmp_path.iterdir()] == []


def test_splits_are_drawn_from_training_images_or_given():
    pixels, labels = torch.zeros(100, 1, 2, 2), torch.arange(100) % 2
    splits = read_splits((pixels, labels), 0.1)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [72, 8, 20]
    assert sorted(torch.cat([part.index for part in parts]).tolist()) == list(range(100))
    given = read_splits({"train": (pixels, labels), "test": (pixels[:7], labels[:7])}, 0.1)
    assert [len(part) for part in (given.train, given.validation, given.test)] == [90, 10, 7]
    with pytest.raises(ValueError, match="splits are train, validation and test, got 'val'"):
        read_splits({"train": (pixels, labels), "val": (pixels, labels)}, 0.1)
    with pytest.raises(ValueError, match="training needs data with indices"):
        read_splits(Sized(6, 6), 0.1)
    with pytest.raises(ValueError, match="test images are"):
        read_splits({"train": (pixels, labels), "test": (PIXELS, LABELS)}, 0.1)
