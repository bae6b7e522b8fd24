"""Part labels in LabelMe's JSON: shapes by hand, images beside and within, classes, groups, and what is refused."""

import base64
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpart.data.parts_folder import read_table
from counterpart.data.plans import Options
from counterpart.data.preparations import prepare_named
from counterpart.errors import UserError

SQUARE = [[2, 2], [8, 2], [8, 8], [2, 8]]


@pytest.fixture
def prepare(tmp_path):
    """Prepares ``tmp_path/source``; returns what was said and the target."""

    def run(**options):
        done = prepare_named(
            "labelme", tmp_path / "source", tmp_path / "target", Options(**options), workers=1
        )
        return done, tmp_path / "target"

    return run


@pytest.fixture
def animals(originals, tmp_path):
    """Writes three photographs of cats and of dogs with the same shapes, and more of the first cat."""

    def write(shapes, first=(), **more):
        for label in ("cat", "dog"):
            for number in range(3):
                path = tmp_path / "source" / label / f"{number}.json"
                originals.photograph(path.with_suffix(".jpg"), number)
                is_first = (label, number) == ("cat", 0)
                originals.labelme_file(
                    path,
                    f"{number}.jpg",
                    [*shapes, *(first if is_first else ())],
                    **(more if is_first else {}),
                )
        return tmp_path / "source" / "cat" / "0.json"

    return write


def masks(target):
    """{class/name: mask} of a prepared folder, whatever the split."""
    return {
        f"{path.parent.name}/{path.stem}": np.array(Image.open(path))
        for path in sorted(target.glob("parts/*/*/*.png"))
    }


def test_polygons_rectangles_and_circles_are_filled(originals, prepare, tmp_path):
    originals.labelme(tmp_path / "source")
    done, target = prepare()
    assert done.total == 16
    assert (done.refused, done.left_out) == ((), {})
    assert read_table(target) == {
        "cat": {"body": 1, "eye": 2, "head": 3}, "dog": {"body": 4, "eye": 5, "head": 6},
    }  # fmt: skip
    y, x = np.mgrid[0:30, 0:40] + 0.5
    for name, mask in masks(target).items():
        label, number = name.split("/")
        first = 0 if label == "cat" else 3
        expected = np.zeros((30, 40), dtype=np.uint8)
        expected[3 : 16 + int(number), 2:20] = first + 1
        expected[4:12, 22:32] = first + 3
        expected[(x - 26) ** 2 + (y - 8) ** 2 <= 4] = first + 2  # the later shape is on top
        assert np.array_equal(mask, expected)
        copied = next(target.glob(f"images/*/{name}.jpg"))
        assert copied.read_bytes() == (tmp_path / "source" / label / f"{number}.jpg").read_bytes()


def test_an_image_within_the_json_is_used_where_there_is_no_other(animals, prepare):
    path = animals([("head", SQUARE)])
    content = path.with_suffix(".jpg").read_bytes()
    loaded = json.loads(path.read_text())
    path.write_text(
        json.dumps({**loaded, "imageData": base64.b64encode(content).decode(), "imageHeight": None})
    )
    expected = np.array(Image.open(path.with_suffix(".jpg")))
    path.with_suffix(".jpg").unlink()
    done, target = prepare()
    assert done.total == 6
    assert np.array_equal(np.array(Image.open(next(target.glob("images/*/cat/0.png")))), expected)
    path.write_text(json.dumps({**loaded, "imageData": "bm8gaW1hZ2U="}))
    with pytest.raises(UserError, match=r"Cannot read the image .*cat/0\.json: its imageData is no image"):
        prepare_named("labelme", path.parents[1], target.with_name("other"), Options(), workers=1)


def test_files_may_lie_beside_the_folder_of_images(originals, prepare, tmp_path):
    """As Supervisely has it: ann/cat/7.json and img/cat/7.jpg; a name that is missing is not another class's."""
    root = tmp_path / "source"
    for label in ("cat", "dog"):
        for number in range(2):
            originals.photograph(root / "img" / label / f"{number}.jpg", number)
            originals.labelme_file(
                root / "annotations" / label / f"{number}.json", f"{number}.jpg", [("head", SQUARE)]
            )
    done, _ = prepare()
    assert done.total == 4
    (root / "img" / "cat" / "0.jpg").unlink()
    (root / "annotations" / "dog" / "0.json").unlink()
    with pytest.raises(
        UserError, match=r"1 images are annotated and not there, the first is annotations/cat/0\.jpg"
    ):
        prepare()


def test_objects_by_group_and_by_containment(originals, prepare, tmp_path):
    """Two cars overlap: the wheel of the group is the first one's, though it lies in the second."""
    root = tmp_path / "source"
    for number in range(3):
        originals.photograph(root / f"{number}.jpg", number)
        wheel = {"label": "wheel", "points": [[20, 10], [24, 14]], "shape_type": "rectangle", "group_id": 1}
        shapes = [
            {
                "label": "car",
                "points": [[1, 1], [12, 1], [12, 20], [1, 20]],
                "shape_type": "polygon",
                "group_id": 1,
            },
            {"label": "bus", "points": [[14, 2], [38, 28]], "shape_type": "rectangle", "group_id": 2},
            wheel,
            ("door", [[30, 5], [33, 9]], "rectangle"),
            ("door", [[0, 25], [2, 29]], "rectangle"),
        ]
        originals.labelme_file(root / f"{number}.json", f"{number}.jpg", shapes)
    done, target = prepare(objects=("car", "bus"))
    assert read_table(target) == {"bus": {"door": 1}, "car": {"wheel": 2}}
    assert done.total == 6
    assert len(done.refused) == 3
    assert "0.json: shape 5 (door) lies in none of the objects of its image" in done.refused[0]
    car = masks(target)["car/0_1"]
    assert car.shape[0] == car.shape[1] >= 23  # the car's crop reaches to its wheel
    assert (car == 2).sum() == 16
    assert (masks(target)["bus/0_2"] == 1).sum() == 12


REFUSED = [
    (("ear", [[1, 1], [2, 2], [3, 1]], "linestrip"), "shape_type 'linestrip' (polygon, rectangle, circle are read)"),
    (("ear", [[1, 1]], "point"), "the shape_type 'point'"),
    (("ear", [[1, 1], [3, 3]]), "2 points, too few for a polygon"),
    (("ear", [[1, 1], [float("nan"), 3], [2, 2]]), "points that are not finite"),
    (("ear", [[1, 1], [10**400, 3], [2, 2]]), "points that are not finite"),
    (("ear", [[1, 1], {}, [2, 2]]), "points that are no pairs of numbers"),
    (("ear", [[1, 1], [1, "2"], [2, 2]]), "points that are no pairs of numbers"),
    (("ear", [[True, 1], [1, 2], [2, 2]]), "points that are no pairs of numbers"),
    (("ear", {"x": 1}), "no points"),
    (("ear", [[0, 0], [1e9, 0], [1e9, 1e9]]), "a corner of a polygon lies more than 100 times"),
    (("ear", [[0, 0], [20, 20], [20, 0], [0, 20]]), "a polygon that crosses itself"),
    (("ear", [[500, 500], [510, 510]], "rectangle"), "an outline that lies outside of the image"),
    (("ear", [[5, 5]], "circle"), "a circle of 1 points, where its centre and one on its edge belong"),
    (("ear", [[5, 5], [5, 5]], "circle"), "an outline that lies outside of the image or has no area"),
    (("ear", [[5.1, 5.1], [5.1, 5.2]], "circle"), "an outline that covers no pixel"),
    (("ear", [[1e300, 1e300], [-1e300, 1]], "circle"), "a circle that reaches more than 100 times"),
    ({"points": SQUARE, "shape_type": "polygon"}, "no label"),
    ("text", "no label"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "words"), REFUSED, ids=[words[:30] for _, words in REFUSED])
def test_wrong_shapes_are_refused_by_name_in_little_memory(shape, words, animals, prepare):
    animals([("head", SQUARE)], [shape])
    tracemalloc.start()
    try:
        done, _ = prepare()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(done.refused) == 1
    assert "cat/0.json: shape 2" in done.refused[0]
    assert words in done.refused[0]
    assert "\n" not in done.refused[0]
    assert done.total == 6
    assert peak < 200e6


def test_a_circle_that_is_larger_than_the_image_covers_it(animals, prepare):
    animals([("head", SQUARE)], [("sky", [[20, 15], [2000, 0]], "circle")])
    _, target = prepare()
    assert (masks(target)["cat/0"] == read_table(target)["cat"]["sky"]).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"shapes": []', "Cannot read .*0\\.json"),
        ("[]", "is no LabelMe annotation: it has no list 'shapes'"),
        ('{"shapes": {}, "imagePath": "0.jpg"}', "no list 'shapes'"),
        ('{"shapes": [], "imagePath": 7}', "and text 'imagePath'"),
        ('{"images": [], "annotations": []}', "looks like COCO's: counterpart data prepare coco"),
        (b"\xff\xfe\x00", "Cannot read .*0\\.json"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_files_of_the_wrong_shape_are_refused_before_anything_is_written(
    text, words, animals, prepare, tmp_path
):
    path = animals([("head", SQUARE)])
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=words) as refusal:
        prepare()
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "target").exists()


def test_an_image_of_another_size_stops_and_what_is_done_stays(animals, prepare, tmp_path):
    path = animals([("head", SQUARE)], imageHeight=300, imageWidth=400)
    with pytest.raises(
        UserError, match=r"cat/0\.jpg is 40 x 30, and .*cat/0\.json says 400 x 300.* 0 of 6 are done"
    ):
        prepare()
    assert not (tmp_path / "target" / "manifest.jsonl").exists()
    path.write_text(path.read_text().replace("400", "40").replace("300", "30"))
    assert prepare()[0].total == 6


def test_a_folder_without_files_and_a_target_within_are_refused(animals, prepare, tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(UserError, match=r"holds no \.json"):
        prepare()
    animals([("head", SQUARE)])
    with pytest.raises(UserError, match="lies within the source"):
        prepare_named("labelme", tmp_path / "source", tmp_path / "source" / "out", Options(), workers=1)
    with pytest.raises(UserError, match=r"--classes object: which categories are objects.*there are head"):
        prepare(classes="object")


def test_a_table_of_classes_leaves_out_and_names_what_does_not_fit(animals, originals, prepare, tmp_path):
    animals([("head", SQUARE)])
    table = tmp_path / "classes.csv"
    lines = [f"{label}/{n}.jpg;{kind}" for label, kind in (("cat", "pet"), ("dog", "")) for n in range(3)]
    table.write_text("file;class\n" + "\n".join(lines))
    done, target = prepare(classes=str(table))
    assert read_table(target) == {"pet": {"head": 1}}
    assert done.left_out == {"with an empty class": 3}
    assert {path.name for path in target.glob("images/*/pet/*")} == {"cat_0.jpg", "cat_1.jpg", "cat_2.jpg"}
    originals.photograph(tmp_path / "source" / "rat" / "0.jpg", 7)  # nobody annotated it
    (tmp_path / "target").rename(tmp_path / "first")
    table.write_text("\n".join([*lines, "rat/0.jpg;"]))
    assert prepare(classes=str(table))[0].total == 3
    other = {"classes": str(table), "seed": 1}
    for text, words in (
        ("\n".join(lines[1:]), r"has no line for 1 of the images \(cat/0\.jpg\)"),
        (
            "\n".join([*lines, "bus.jpg;bus"]),
            r"names 1 images that are not there \(bus\.jpg\)",
        ),
        ("\n".join([*lines, "cat/0.jpg;rat"]), r"gives cat/0\.jpg two classes, 'pet' and 'rat'"),
        ("\n".join([*lines, "rat/0.jpg;rat"]), r"has the class 'rat', of which no image is annotated"),
        ("cat/0.jpg", r"expected lines such as"),
        ("", r"names no image"),
        ("\n".join(lines).replace("pet", "../up"), r"The class '\.\./up' cannot be the name of a folder"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=words):
            prepare(**other)
    assert Path(target, "manifest.jsonl").exists()
