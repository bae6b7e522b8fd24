"""Part labels in COCO's JSON: as tools write it, whose part each is, classes, crops, splits, and what is refused."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpart.data import load_parts, parts_check
from counterpart.data.parts_folder import read_table
from counterpart.data.plans import Options
from counterpart.data.preparations import prepare_named
from counterpart.errors import UserError


@pytest.fixture
def prepare(tmp_path):
    """Prepares ``tmp_path/source``; returns what was said and the target."""

    def run(target="target", workers=1, **options):
        done = prepare_named("coco", tmp_path / "source", tmp_path / target, Options(**options), workers)
        return done, tmp_path / target

    return run


def samples(target):
    """{class/name: (image, mask)} of a prepared folder, whatever the split, whose names differ between splits."""
    rows = [json.loads(line) for line in (target / "manifest.jsonl").read_text().splitlines()]
    return {
        f"{row['class']}/{Path(row['path']).name}": (
            np.array(Image.open(target / row["path"])), np.array(Image.open(target / row["mask"])),
        )
        for row in rows
    }  # fmt: skip


def content(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def folders(root, originals, count=3, labels=("cat", "dog")):
    """Photographs in folders of classes, and their names by id."""
    names = [f"{label}/{n}.jpg" for label in labels for n in range(count)]
    for value, name in enumerate(names):
        originals.photograph(root / "images" / name, 9 * value)
    return dict(enumerate(names, start=1))


def test_cvat_objects_and_their_parts_become_crops(originals, prepare, tmp_path):
    """The object and all its parts lie in the crop, the margin is at most a tenth, and the mask follows the image."""
    originals.coco(tmp_path / "source")
    done, target = prepare()
    assert done.total == 24
    assert read_table(target) == {"bus": {"window": 1}, "car": {"wheel": 2}}
    assert done.notes[0] == "Cropped around each bus, car. Classes are those of the objects: bus, car"
    for name, (image, mask) in samples(target).items():
        height, width = mask.shape
        side = 20 if name.startswith("bus") else 14
        assert height == width == int(0.1 * side) + side
        assert image.shape == (height, width, 3)
        number = int(Path(name).stem.split("_")[0])
        part, pixels = (1, 16) if name.startswith("bus") else (2, 3 * (3 + number % 3))
        assert (mask == part).sum() == pixels
        y, x = (places.min() for places in np.nonzero(mask == part))
        # red and green of the photograph say where a pixel lay
        red, green = int(image[y, x, 0]), int(image[y, x, 1])
        assert red == pytest.approx(6 * (22 if part == 1 else 3), abs=12)
        assert green == pytest.approx(8 * (7 if part == 1 else 12), abs=12)


def test_label_studio_parts_as_categories(originals, prepare, tmp_path):
    """Ids from 0 on, boxes without an outline, names of the tool's own upload folder; classes from a table."""
    root = tmp_path / "source"
    for n in range(4):
        originals.photograph(root / "images" / f"8f2c-{n}.jpg", n)
    tables = {
        "images": [{"width": 40, "height": 30, "id": n, "file_name": f"..\\label-studio\\upload\\8f2c-{n}.jpg"}
                   for n in range(4)],
        "categories": [{"id": 0, "name": "head"}, {"id": 1, "name": "tail"}],
        "annotations": [
            row
            for n in range(4)
            for row in (
                {"id": 2 * n, "image_id": n, "category_id": 0, "segmentation": [[2, 2, 12, 2, 12, 7, 2, 7]],
                 "bbox": [2, 2, 10, 5], "ignore": 0, "iscrowd": 0, "area": 50},
                {"id": 2 * n + 1, "image_id": n, "category_id": 1, "segmentation": [], "bbox": [10, 5, 6, 4],
                 "ignore": 0, "iscrowd": 0, "area": 24},
            )
        ],
        "info": {"year": 2024, "version": "1.0", "description": "", "contributor": "Label Studio", "url": ""},
    }  # fmt: skip
    (root / "result.json").write_text(json.dumps(tables))
    with pytest.raises(
        UserError, match=r"Which class does images/8f2c-0\.jpg show\? 4 of 4 .*--classes FILE\.csv"
    ):
        prepare()
    table = tmp_path / "classes.csv"
    table.write_text("image,class\n8f2c-0.jpg,cat\n8f2c-1.jpg,cat\n8f2c-2.jpg,dog\nimages/8f2c-3.jpg,dog\n")
    done, target = prepare(classes=str(table))
    assert done.counts["train"] == {"cat": 1, "dog": 1}
    assert read_table(target) == {"cat": {"head": 1, "tail": 2}, "dog": {"head": 3, "tail": 4}}
    _, mask = samples(target)["dog/8f2c-3.jpg"]
    assert (mask == 4).sum() == 24  # the later annotation is on top
    assert (mask == 3).sum() == 50 - 4
    assert (mask[5:9, 10:16] == 4).all()
    copied = next(target.glob("images/*/dog/8f2c-3.jpg"))
    assert copied.read_bytes() == (root / "images" / "8f2c-3.jpg").read_bytes()


def test_roboflow_splits_are_those_of_the_source(originals, prepare, tmp_path):
    root = tmp_path / "source"
    for split in ("train", "valid", "test"):
        names = {1: "a.jpg", 2: "b.jpg"}
        for value, name in enumerate(names.values()):
            originals.photograph(root / split / name, 50 * value)
        categories = {0: {"name": "x", "supercategory": "none"}, 1: {"name": "nose", "supercategory": "cat"},
                      2: {"name": "ear", "supercategory": "dog"}}  # fmt: skip
        rows = [originals.annotation(k, k, originals.box(3, 3, 6, 6)) for k in (1, 2)]
        originals.coco_file(root / split / "_annotations.coco.json", names, categories, rows)
    done, target = prepare()
    assert {split: dict(counts) for split, counts in done.counts.items()} == {
        split: {"cat": 1, "dog": 1} for split in ("train", "val", "test")
    }
    assert "Splits are those of the source" in done.notes
    assert read_table(target) == {"cat": {"nose": 1}, "dog": {"ear": 2}}
    six = ["a-2.jpg", "a-3.jpg", "a.jpg", "b-2.jpg", "b-3.jpg", "b.jpg"]
    assert sorted(path.name for path in target.glob("images/*/*/*.jpg")) == six
    drawn, other = prepare("drawn", split="photograph", seed=3)
    assert "Splits are drawn by photograph" in drawn.notes[-1]
    assert sorted(path.name for path in other.glob("images/*/*/*.jpg")) == six


def test_an_image_of_another_split_is_not_the_one_that_is_missing(originals, prepare, tmp_path):
    root = tmp_path / "source"
    for split in ("train", "valid"):
        originals.photograph(root / split / f"{split}.jpg", 3)
        names = {1: f"{split}.jpg", **({2: "valid.jpg"} if split == "train" else {})}
        rows = [originals.annotation(k, 1, originals.box(3, 3, 6, 6)) for k in names]
        originals.coco_file(
            root / split / "a.json", names, {1: {"name": "nose", "supercategory": "cat"}}, rows
        )
    with pytest.raises(
        UserError, match=r"1 images are annotated and not there, the first is valid\.jpg of .*train/a"
    ):
        prepare()


LINKS = [
    *({key: 1} for key in ("parent_id", "parent", "parent_ann_id", "obj_ann_id", "object_id", "part_of")),
    {"attributes": {"parent_id": "1"}},
    {"attributes": {"occluded": False, "object_id": 1}},
]


@pytest.mark.parametrize("link", LINKS, ids=str)
def test_links_say_whose_part_it_is(link, originals, prepare, tmp_path):
    """The wheel lies in the bus, and is linked to the car."""
    root = tmp_path / "source"
    names = folders(root, originals, labels=("x",))
    rows = []
    for number in names:
        first = len(rows) + 1
        linked = json.loads(json.dumps(link).replace('"1"', f'"{first}"').replace(": 1", f": {first}"))
        rows += [
            originals.annotation(number, 1, originals.box(2, 2, 8, 8)),
            originals.annotation(number, 2, originals.box(15, 2, 20, 20)),
            originals.annotation(number, 3, originals.box(18, 6, 4, 4), **linked),
            originals.annotation(number, 3, originals.box(28, 6, 4, 4)),
        ]
    originals.coco_file(
        root / "a.json", names, {1: "car", 2: {"name": "bus", "supercategory": "object"}, 3: "wheel"}, rows
    )
    done, target = prepare()
    assert read_table(target) == {"bus": {"wheel": 1}, "car": {"wheel": 2}}
    for name, (_, mask) in samples(target).items():
        assert (mask == (1 if name.startswith("bus") else 2)).sum() == 16
    assert done.total == 6


@pytest.mark.parametrize("group", [{"group_id": 7}, {"attributes": {"group": "7"}}], ids=str)
def test_groups_and_lists_of_parts_say_whose_part_it_is(group, originals, prepare, tmp_path):
    root = tmp_path / "source"
    names = folders(root, originals, labels=("x",))
    rows = []
    for number in names:
        first = len(rows) + 1
        rows += [
            originals.annotation(number, 1, originals.box(2, 2, 8, 8), **group),
            originals.annotation(number, 2, originals.box(15, 2, 20, 20), part_ids=[first + 4]),
            originals.annotation(number, 3, originals.box(18, 6, 4, 4), **group),
            originals.annotation(number, 3, originals.box(28, 6, 4, 4)),
            originals.annotation(number, 3, originals.box(2, 20, 3, 3)),
        ]
    originals.coco_file(root / "a.json", names, {1: "car", 2: "bus", 3: "wheel"}, rows)
    done, target = prepare(objects=("car", "bus"))
    assert done.refused == ()
    # the bus has the part that it lists, which lies outside of it, and so does its crop
    for name, (_, mask) in samples(target).items():
        if name.startswith("bus"):
            assert (mask == 1).sum() == 16 + 9
        else:
            assert (mask == 2).sum() == 16


def test_of_two_boxes_around_a_part_its_object_is_the_one_whose_outline_holds_it(
    originals, prepare, tmp_path
):
    """Two triangles share a box. The part lies in the upper left one."""
    root = tmp_path / "source"
    names = folders(root, originals, labels=("x",))
    rows = []
    for number in names:
        rows += [
            originals.annotation(number, 1, [2, 2, 28, 28, 2, 28]),
            originals.annotation(number, 2, [2, 2, 28, 2, 28, 28]),
            originals.annotation(number, 3, originals.box(18, 6, 4, 4)),
            originals.annotation(number, 3, originals.box(5, 20, 2, 2)),
        ]
    originals.coco_file(root / "a.json", names, {1: "low", 2: "high", 3: "wheel"}, rows)
    _, target = prepare(objects=("low", "high"))
    assert read_table(target) == {"high": {"wheel": 1}, "low": {"wheel": 2}}
    for _, mask in samples(target).values():
        assert (mask == 1).sum() == 16
        assert (mask == 2).sum() == 4


def test_parts_of_parts_belong_to_the_whole_object(originals, prepare, tmp_path):
    root = tmp_path / "source"
    names = folders(root, originals, labels=("x",))
    rows = []
    for number in names:
        first = len(rows) + 1
        rows += [
            originals.annotation(number, 1, originals.box(2, 2, 20, 20)),
            originals.annotation(number, 2, originals.box(4, 4, 10, 10), parent_id=first),
            originals.annotation(number, 3, originals.box(6, 6, 3, 3), parent_id=first + 1),
        ]
    originals.coco_file(root / "a.json", names, {1: "person", 2: "head", 3: "eye"}, rows)
    _, target = prepare()
    assert read_table(target) == {"person": {"eye": 1, "head": 2}}


def test_largest_takes_one_object_of_each_photograph(originals, prepare, tmp_path):
    originals.coco(tmp_path / "source")
    done, target = prepare(largest=True)
    assert done.total == 12
    assert done.left_out == {"smaller than another": 12}
    assert {name.split("/")[0] for name in samples(target)} == {"bus"}


def test_run_lengths_compressed_or_not_and_polygons_give_the_same(originals, prepare, tmp_path):
    """Columns of 30 pixels: rows 5 to 14 of columns 3 and 4."""
    runs = [3 * 30 + 5, 10, 20, 10, 30 * 40 - (3 * 30 + 5 + 40)]

    def compressed(numbers):
        text = ""
        for k, number in enumerate(numbers):
            value = number - numbers[k - 2] if k > 2 else number
            while True:
                bits, value = value & 31, value >> 5
                more = value != (-1 if bits & 16 else 0)
                text += chr(48 + bits + (32 if more else 0))
                if not more:
                    break
        return text

    root = tmp_path / "source"
    names = folders(root, originals)
    outlines = [
        {"size": [30, 40], "counts": runs}, {"size": [30, 40], "counts": compressed(runs)},
        [originals.box(3, 5, 2, 10)],
    ]  # fmt: skip
    rows = [{"image_id": k, "category_id": 1, "segmentation": outlines[k % 3], "iscrowd": 1} for k in names]
    originals.coco_file(root / "a.json", names, {1: "head"}, rows)
    done, target = prepare()
    assert done.refused == ()
    for name, (_, mask) in samples(target).items():
        assert (mask > 0).sum() == 20, name
        assert (mask[5:15, 3:5] > 0).all()


def test_a_part_called_background_is_none(originals, prepare, tmp_path):
    root = tmp_path / "source"
    names = folders(root, originals)
    rows = [
        row
        for k in names
        for row in (
            originals.annotation(k, 1, originals.box(2, 2, 10, 10)),
            originals.annotation(k, 2, originals.box(4, 4, 3, 3)),
        )
    ]
    originals.coco_file(root / "a.json", names, {1: "head", 2: "_background_"}, rows)
    _, target = prepare()
    assert read_table(target) == {"cat": {"head": 1}, "dog": {"head": 2}}
    assert all((mask > 0).sum() == 100 - 9 for _, mask in samples(target).values())


def test_what_is_wrong_with_annotations_is_named_and_the_rest_stays(originals, prepare, tmp_path):
    root = tmp_path / "source"
    names = folders(root, originals, count=4)
    good = [originals.annotation(k, 1, originals.box(2, 2, 6, 6)) for k in names]
    bad = [
        originals.annotation(1, 1, [10, 10, 20, 20, 20, 10, 10, 20]),
        originals.annotation(2, 1, originals.box(900, 900, 5, 5)),
        originals.annotation(3, 9, originals.box(2, 2, 5, 5)),
        originals.annotation(99, 1, originals.box(2, 2, 5, 5)),
        originals.annotation(4, 1, [1, 2, 3]),
        {"image_id": 4, "category_id": 1, "segmentation": {"size": [30, 40], "counts": [2**62] * 4 + [16]}},
        {"image_id": 4, "category_id": 1, "segmentation": {"size": [10, 40], "counts": [400]}},
        {"image_id": 4, "category_id": 1},
        {"image_id": "4", "category_id": 1, "segmentation": []},
        originals.annotation(1, 1, originals.box(3, 3, 0.01, 0.01)),
    ]
    originals.coco_file(root / "a.json", names, {1: "head"}, good + bad)
    done, target = prepare()
    assert done.total == 8
    words = [
        "annotation 9 (head) has a polygon that crosses itself",
        "annotation 10 (head) has an outline that lies outside",
        "annotation 11 has category_id 9, which is not there", "annotation 12 has image_id 99, which is not there",
        "annotation 13 (head) has a polygon that is no list", "annotation 14 (head) has run lengths that do not add up",
        "annotation 15 (head) has run lengths of size [10, 40] in an image of [30, 40]",
        "annotation 16 (head) has", "annotation 17 has image_id '4', which is no int",
        "annotation 18 (head) has an outline that covers no pixel",
    ]  # fmt: skip
    for word in words:
        assert len([line for line in done.refused if word in line]) == 1, (word, done.refused)
    assert len(done.refused) == len(words)
    assert (target / "refused.txt").read_text().splitlines() == list(done.refused)
    again, _ = prepare()  # complete: the same is said
    assert again == done
    assert parts_check.check(target).problems == []


BAD_SEGMENTATIONS = [
    [{}], [[{}, 1, 2, 3]], ["abcdef"], [None], [[0, 0, 1e9, 0, 1e9, 1e9]], [[0, 0, -1e18, 0, 1, 1]],
    [[10**400, 0, 1, 1, 2, 2]],
    [[k * 7000 % 13_000 - 6500 for k in range(4000)]],
    {"size": [30, 40], "counts": [2**62] * 4 + [16]}, {"size": [30, 40], "counts": [2**64, 16]},
    {"size": [30, 40], "counts": {}}, {"size": [30, 40], "counts": "o" * 100_000},
    {"size": [30, 40], "counts": "\u0001"},
    {"size": [10**9, 10**9], "counts": [10**18]}, {"size": [30, 40], "counts": [1201, -1]}, "text", 7,
]  # fmt: skip


@pytest.mark.parametrize("segmentation", BAD_SEGMENTATIONS, ids=lambda value: str(value)[:30])
def test_hostile_outlines_are_refused_in_little_memory(segmentation, originals, prepare, tmp_path):
    root = tmp_path / "source"
    names = folders(root, originals)
    rows = [originals.annotation(k, 1, originals.box(2, 2, 6, 6)) for k in names]
    rows.append({"image_id": 1, "category_id": 1, "segmentation": segmentation})
    originals.coco_file(root / "a.json", names, {1: "head"}, rows)
    tracemalloc.start()
    try:
        done, _ = prepare()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(done.refused) == 1
    assert "annotation 7" in done.refused[0]
    assert done.total == 6
    assert peak < 400e6


def test_an_image_that_claims_to_be_huge_is_refused_before_anything_is_drawn(originals, prepare, tmp_path):
    root = tmp_path / "source"
    names = folders(root, originals)
    huge = {k: {"file_name": name, "height": 10**7, "width": 10**7} for k, name in names.items()}
    originals.coco_file(
        root / "a.json",
        huge,
        {1: "head"},
        [originals.annotation(k, 1, originals.box(2, 2, 6, 6)) for k in names],
    )
    with pytest.raises(UserError, match=r"0\.jpg is 40 x 30, and .*a\.json says 10000000 x 10000000"):
        prepare()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda t: [], "is no COCO annotation: it has no list 'images'"),
        (lambda t: {**t, "annotations": {}}, "has no list 'annotations'"),
        (
            lambda t: {"shapes": [], "imagePath": "a.jpg"},
            "looks like LabelMe's: counterpart data prepare labelme",
        ),
        (lambda t: {**t, "images": [*t["images"], t["images"][0]]}, "two of its images have the id 1"),
        (lambda t: {**t, "annotations": []}, "nothing in the source can become a sample"),
        (lambda t: {**t, "categories": [{"id": 1, "name": 5}]}, "has name 5, which is no str"),
    ],
)
def test_files_of_the_wrong_shape_are_refused_before_anything_is_written(
    damage, words, originals, prepare, tmp_path
):
    root = tmp_path / "source"
    names = folders(root, originals)
    path = root / "a.json"
    originals.coco_file(path, names, {1: "head"}, [originals.annotation(1, 1, originals.box(2, 2, 6, 6))])
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=words) as refusal:
        prepare()
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "target").exists()


def test_a_class_that_cannot_be_in_every_split_is_refused(originals, prepare, tmp_path):
    root = tmp_path / "source"
    names = folders(root, originals)
    rows = [originals.annotation(k, 1, originals.box(2, 2, 6, 6)) for k in (1, 2, 3, 4)]
    originals.coco_file(root / "a.json", names, {1: "head"}, rows)
    with pytest.raises(
        UserError, match=r"The class 'dog' has one image, and needs one for training and one for test"
    ):
        prepare()
    (root / "images" / "rat").mkdir()
    rows.append(originals.annotation(5, 1, originals.box(2, 2, 6, 6)))
    originals.coco_file(root / "a.json", names, {1: "head"}, rows)
    with pytest.raises(UserError, match=r"The class folder .*rat is empty: fill or remove it"):
        prepare()
    (root / "images" / "rat").rmdir()
    done, target = prepare()
    assert done.left_out == {"without annotations": 1}
    assert sum(done.counts["val"].values()) == 0  # two images of a class: the loader draws validation images
    assert load_parts(target, size=16).test.labels.tolist() == [0, 1]


def test_a_category_that_no_annotation_has_is_no_object(originals, prepare, tmp_path):
    originals.coco(tmp_path / "source")
    with pytest.raises(
        UserError, match=r"--objects: no annotation is of the category 'buss'\. Did you mean 'bus'"
    ):
        prepare(objects=("buss",))
    with pytest.raises(
        UserError, match=r"--classes flder: expected folder, object, or a CSV .*Did you mean 'folder'"
    ):
        prepare(classes="flder")
    with pytest.raises(UserError, match=r"--names has no effect on coco"):
        prepare(names=Path("x.csv"))
    with pytest.raises(
        UserError, match=r"--split source: the source has train, val and test.* for no images"
    ):
        prepare(split="source")


def test_photographs_turned_by_exif_are_stored_as_they_were_annotated(originals, prepare, tmp_path):
    root = tmp_path / "source"
    names = folders(root, originals)
    path = root / "images" / names[1]
    image = Image.open(path)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: shown as 30 x 40
    image.save(path, exif=exif)
    rows = {
        k: {"file_name": name, **({"width": 30, "height": 40} if k == 1 else {})} for k, name in names.items()
    }
    originals.coco_file(
        root / "a.json",
        rows,
        {1: "head"},
        [originals.annotation(k, 1, originals.box(2, 20, 6, 9)) for k in names],
    )
    _, target = prepare()
    turned, mask = samples(target)["cat/0.png"]
    assert turned.shape[:2] == mask.shape == (40, 30)
    assert (mask[20:29, 2:8] == 1).all()


def test_processes_change_nothing(originals, prepare, tmp_path):
    originals.coco(tmp_path / "source")
    prepare("one")
    prepare("two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_the_real_file(shared, tmp_path):
    root = shared / "data" / "coco-part-samples"
    names = sorted(path.name for path in (root / "JPEGImages").iterdir())
    table = tmp_path / "classes.csv"
    table.write_text("".join(f"{name},{'car' if name.startswith('car') else 'other'}\n" for name in names))
    target = tmp_path / "target"
    done = prepare_named("coco", root, target, Options(classes=str(table)), workers=1)
    assert (done.total, done.refused) == (24, ())
    assert len(read_table(target)["car"]) == 18
    assert parts_check.check(target).problems == []
    tables = json.loads((root / "annotations.json").read_text())
    rows = [json.loads(line) for line in (target / "manifest.jsonl").read_text().splitlines()]
    painted = sum(sum(row["pixels"].values()) for row in rows)
    assert painted == pytest.approx(sum(row["area"] for row in tables["annotations"]), rel=0.05)
