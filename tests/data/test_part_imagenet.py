"""Part-ImageNet: numbers of parts, painting, and the published order and split by a second implementation."""

import json
from itertools import chain, combinations

import numpy as np
import pytest

from counterpart.data import part_imagenet
from counterpart.data.part_imagenet import NAMES, PARTS, paint
from counterpart.data.plans import Options
from counterpart.data.preparations import prepare_named
from counterpart.errors import UserError


def test_numbers_are_those_of_the_paper():
    ends = {name: (min(parts.values()), max(parts.values())) for name, parts in NAMES.items()}
    assert ends == {
        "Aeroplane": (1, 5), "Bicycle": (6, 9), "Biped": (10, 14), "Bird": (15, 19), "Boat": (20, 21),
        "Bottle": (22, 23), "Car": (24, 26), "Fish": (27, 30), "Quadruped": (31, 34), "Reptile": (35, 38),
        "Snake": (39, 40),
    }  # fmt: skip
    assert NAMES["Car"] == {"body": 24, "tire": 25, "side mirror": 26}


def test_later_annotations_cover_earlier_ones(originals):
    mask = paint([(1, [originals.box(0, 0, 4, 4)]), (2, [originals.box(2, 2, 4, 4)])], 6, 6)
    assert mask[1].tolist() == [1, 1, 1, 1, 0, 0]
    assert mask[3].tolist() == [1, 1, 2, 2, 2, 2]


def test_a_photograph_shows_its_parts(tmp_path, originals):
    getattr(originals, "part-imagenet")(tmp_path)
    units = part_imagenet.plan(tmp_path, Options()).units
    (sample,) = part_imagenet.extract(units["Bird/n00000003_18"]).samples
    assert sample.photograph == "n00000003/n00000003_18.JPEG"
    assert sample.mask[2].tolist() == [15, 15, 16, 16, 17, 17, 18, 18, 19, 19, 0, 0]
    assert sample.mask[:, 0].tolist() == [0] + [15] * 4 + [0] * 5


def published_lists(root, present):
    """The published lists of images, by its own steps: every combination of parts, sets, one stream of shuffles."""
    labels, names = [], []
    for split in ("train", "test", "val"):
        tables = json.loads((root / f"{split}.json").read_text())
        images = {row["id"]: row for row in tables["images"]}
        for label in PARTS:
            own = [row["id"] for row in tables["categories"] if row["supercategory"] == label]
            of_category = {
                c: [a["image_id"] for a in tables["annotations"] if a["category_id"] == c] for c in own
            }
            found = []
            for some in chain.from_iterable(combinations(own, r) for r in range(1, len(own) + 1)):
                ids = set()
                for i, category in enumerate(some):
                    ids = (
                        set(of_category[category]) if i == 0 and not ids else ids & set(of_category[category])
                    )
                found.extend(list(ids))
            for number in set(found):
                name = images[number]["file_name"].split(".")[0]
                if name in present:
                    labels.append(label)
                    names.append(name)
    state, lists = np.random.RandomState(0), {"train": [], "val": [], "test": []}
    for label in PARTS:
        idx = np.where(np.array(labels) == label)[0]
        state.shuffle(idx)
        n = int(0.1 * len(idx))
        for split, some in (("val", idx[:n]), ("test", idx[n : 2 * n]), ("train", idx[2 * n :])):
            lists[split] += [(label, names[i]) for i in some]
    return {split: sorted(some) for split, some in lists.items()}


def test_the_split_is_the_published_one(tmp_path, originals):
    root = tmp_path / "source"
    getattr(originals, "part-imagenet")(root)
    prepare_named("part-imagenet", root, tmp_path / "target", Options(), workers=1)
    expected = published_lists(root, {path.stem for path in root.rglob("*.JPEG")})
    for split, some in expected.items():
        files = (tmp_path / "target" / "images" / split).rglob("*.jpg")
        assert sorted((path.parent.name, path.stem) for path in files) == some
    assert [len(some) for some in expected.values()] == [88, 11, 11]


def spoil(root, change):
    path = root / "train.json"
    tables = json.loads(path.read_text())
    change(tables)
    path.write_text(json.dumps(tables))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["categories"][0].pop("supercategory"), "class Quadruped has 3 categories"),
        (lambda t: t["categories"].append({"id": 77, "name": "Cow Horn", "supercategory": "Cow"}),
         "has the category 'Cow Horn'"),
        (lambda t: t["images"].append(t["images"][0]), "two of its images have the id 0"),
        (lambda t: t["images"][0].update(width=13), r"n00000000_0\.JPEG is 12 x 10, and .*json says 13 x 10"),
        (lambda t: t["annotations"][0].update(segmentation=[[1, 2, 3]]), "the annotation of n00000000_0 has a polygon"),
    ],
)  # fmt: skip
def test_a_wrong_json_is_named(tmp_path, originals, change, words):
    root = tmp_path / "source"
    getattr(originals, "part-imagenet")(root, per_class=(1, 1, 1))
    spoil(root, change)
    with pytest.raises(UserError, match=words) as raised:
        prepare_named("part-imagenet", root, tmp_path / "target", Options(), workers=1)
    assert "train.json" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_json_is_named(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read .*train\.json: No such file"):
        part_imagenet.plan(tmp_path, Options())
