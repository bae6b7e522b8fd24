"""PASCAL-Part: grouping, painting order and labels by hand and against a second implementation; the real files."""

import numpy as np
import pytest
import scipy.io

from counterpart.data import pascal_part as pascal
from counterpart.data.pascal_part import GROUPS, NAMES, Thing, paint, read_mat
from counterpart.data.plans import Options
from counterpart.data.preparations import prepare_named
from counterpart.errors import UserError

# Every part name of the release, of the five classes.
FINE = {
    "aeroplane": "body stern lwing rwing tail engine_1 engine_12 wheel_3",
    "bird": "head leye reye beak torso neck lwing rwing lleg lfoot rleg rfoot tail",
    "car": "frontside leftside rightside backside roofside leftmirror rightmirror fliplate bliplate door_1 wheel_2 "
    "headlight_1 window_4",
    "cat": "head leye reye lear rear nose torso neck lfleg lfpa rfleg rfpa lbleg lbpa rbleg rbpa tail",
    "dog": "head leye reye lear rear nose torso neck lfleg lfpa rfleg rfpa lbleg lbpa rbleg rbpa tail muzzle",
}


def by_substrings(thing, mask):
    """The published way: a part belongs to each group that has a word which is part of its name."""
    for group, words in GROUPS.get(thing.label, {}).items():
        covered = np.zeros_like(mask)
        for name, part in thing.parts:
            if any(word in name for word in words):
                covered += part
        mask += (mask == 0) * (covered > 0) * np.uint8(NAMES[thing.label][group])


def test_numbers_are_those_of_the_paper():
    assert NAMES["aeroplane"] == {"tail": 1, "wing": 2, "body": 3}
    assert NAMES["bird"] == {"head": 4, "legs": 5, "body": 6}
    assert NAMES["car"] == {"wheel": 7, "window": 8, "body": 9}
    assert NAMES["cat"] == {"head": 10, "legs": 11, "body": 12}
    assert NAMES["dog"] == {"head": 13, "legs": 14, "body": 15}


def test_painting_equals_the_published_way(originals):
    random = np.random.default_rng(0)
    for label, names in FINE.items():
        things = []
        for _ in range(3):
            parts = [(name, (random.random((10, 12)) < 0.2).astype(np.uint8)) for name in names.split()]
            things.append(Thing(label, np.ones((10, 12), np.uint8), parts))
        things.append(Thing("person", np.ones((10, 12), np.uint8), [("head", np.ones((10, 12), np.uint8))]))
        mask, unknown = paint(things)
        expected = np.zeros((10, 12), np.uint8)
        for thing in things:
            by_substrings(thing, expected)
        assert np.array_equal(mask, expected)
        assert not unknown
        assert set(NAMES[label].values()) < set(np.unique(mask).tolist()) | {0, 99}


def test_the_largest_object_gives_the_label_and_is_painted_first(tmp_path, originals):
    area = originals.area
    small, large = area(0, 0, 10, 4), area(0, 3, 10, 12)
    things = [
        ("cat", small, [("head", area(0, 0, 5, 4))]),
        (
            "dog",
            large,
            [("torso", area(0, 3, 10, 12)), ("head", area(0, 3, 2, 12)), ("horn_1", area(9, 9, 10, 10))],
        ),
    ]
    originals.mat(tmp_path, "a", things)
    (unit,) = pascal.plan(tmp_path, Options()).units.values()
    found = pascal.extract(unit)
    (sample,) = found.samples
    assert sample.label == "dog"
    assert sample.mask[:, 2].tolist() == [10] * 5 + [0] * 5
    assert (
        sample.mask[:, 3].tolist() == [13] * 2 + [15] * 8
    )  # where both lie, the larger one stays; head over torso
    assert found.left_out == {"part 'dog horn' of no group": 1}


def test_other_classes_are_left_out(tmp_path, originals):
    area = originals.area
    originals.mat(tmp_path, "a", [("person", area(0, 0, 9, 9), []), ("dog", area(0, 0, 3, 3), [])])
    originals.mat(tmp_path, "b", [])
    originals.mat(tmp_path, "c", [("dog", area(0, 0, 3, 3), [])])
    found = [pascal.extract(unit) for unit in pascal.plan(tmp_path, Options()).units.values()]
    assert [f.left_out for f in found] == [{"another class": 1}, {"without objects": 1}, {}]
    assert not found[2].samples[0].mask.any()  # without parts: kept, as published


def test_wrong_files_are_named(tmp_path, originals):
    originals.mat(tmp_path, "a", [("dog", originals.area(0, 0, 3, 3), [])])
    (unit,) = pascal.plan(tmp_path, Options()).units.values()
    originals.jpeg(unit.image, 1, size=(9, 9))
    with pytest.raises(UserError, match=r"a\.mat is 12 x 10 and .*a\.jpg is 9 x 9"):
        pascal.extract(unit)
    other = tmp_path / "other.mat"
    scipy.io.savemat(other, {"x": np.zeros(3)})
    with pytest.raises(
        UserError, match=r"other\.mat is damaged, cut off or no PASCAL-Part annotation \(KeyError\)"
    ):
        read_mat(other)
    mixed = [("dog", originals.area(0, 0, 3, 3), [("head", np.zeros((4, 4)))])]
    originals.mat(tmp_path, "b", mixed)
    with pytest.raises(UserError, match=r"b\.mat has masks of different sizes: \(4, 4\), \(10, 12\)"):
        read_mat(tmp_path / "Annotations_Part" / "b.mat")
    with pytest.raises(UserError, match="counterpart data describe pascal-part"):
        pascal.plan(tmp_path / "nothing", Options())


@pytest.mark.slow
def test_the_real_files(shared, tmp_path):
    root = shared / "data" / "pascal-part-samples"
    if not root.exists():
        pytest.skip("needs ../shared/data/pascal-part-samples")
    for folder, suffix in (("Annotations_Part", "mat"), ("JPEGImages", "jpg")):
        (tmp_path / folder).mkdir()
        for path in root.glob(f"*.{suffix}"):
            (tmp_path / folder / path.name).symlink_to(path)
    units = pascal.plan(tmp_path, Options()).units
    found = {name: pascal.extract(unit) for name, unit in units.items()}
    labels = {name: f.samples[0].label for name, f in found.items() if f.samples}
    assert labels == {
        "2008_001978": "bird", "2008_003497": "dog", "2008_006462": "cat", "2010_002065": "aeroplane",
        "2010_005275": "cat",
        **({"2010_003057": "car"} if "2010_003057" in labels else {}),
    }  # fmt: skip
    for name, label in labels.items():
        ids = set(np.unique(found[name].samples[0].mask).tolist()) - {0}
        assert ids <= set(NAMES[label].values())
        assert not any(reason.startswith("part") for reason in found[name].left_out)
    done = prepare_named("pascal-part", tmp_path, tmp_path / "target", Options(), workers=1)
    assert done.total == len(labels)
    assert done.left_out == {"another class": len(units) - len(labels)}
