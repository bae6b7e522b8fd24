"""Part labels as folders of masks: palettes, grey values and colours, their tables, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from counterpart.data import parts_check
from counterpart.data.name_tables import read_names
from counterpart.data.parts_folder import read_table
from counterpart.data.plans import Options
from counterpart.data.preparations import prepare_named
from counterpart.errors import UserError

IDS = np.zeros((30, 40), dtype=np.uint8)
IDS[4:10, 5:20], IDS[3:8, 22:30] = 1, 2
COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 64]], dtype=np.uint8)


@pytest.fixture
def prepare(tmp_path):
    """Prepares ``tmp_path/source``; returns what was said and the target."""

    def run(target="target", **options):
        done = prepare_named("masks", tmp_path / "source", tmp_path / target, Options(**options), workers=1)
        return done, tmp_path / target

    return run


def palette(ids):
    mask = Image.fromarray(ids).convert("P")
    mask.putpalette(COLOURS.tobytes())
    return mask


def coloured(ids):
    return Image.fromarray(COLOURS[ids])


def rgba(ids):
    pixels = np.concatenate([COLOURS[ids], np.full((*ids.shape, 1), 255, np.uint8)], axis=2)
    pixels[ids == 0] = (9, 9, 9, 0)  # transparent, whatever its colour
    return Image.fromarray(pixels)


@pytest.fixture
def write(originals, tmp_path):
    """Writes a source of two classes whose masks a function makes of ids, and the table."""

    def run(mask_of, table, name="names.csv", folders=("images", "masks"), ending=""):
        root = tmp_path / "source"
        for label in ("cat", "dog"):
            for number in range(3):
                originals.photograph(root / folders[0] / label / f"{number}.jpg", number)
                path = root / folders[1] / label / f"{number}{ending}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                mask_of(IDS).save(path)
        (root / name).write_text(table if isinstance(table, str) else json.dumps(table))
        return root

    return run


CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbody:128,0,0::\nthe head:0,128,64::\n"
READ = [
    (palette, "0,background\n1,body\n2,the head\n", "names.csv"),
    (palette, "r,g,b,name\n128,0,0,body\n0,128,64,the head\n", "names.csv"),
    (palette, CVAT, "labelmap.txt"),
    (Image.fromarray, "id;name\n1;body\n2;the head\n", "names.csv"),
    (Image.fromarray, "1 body\n2 the head\n", "labels.txt"),
    (Image.fromarray, {"1": "body", "2": "the head"}, "names.json"),
    (Image.fromarray, {"body": 1, "the head": 2}, "names.json"),
    (Image.fromarray, [{"id": 1, "name": "body"}, {"id": 2, "name": "the head"}], "names.json"),
    (lambda ids: Image.fromarray(ids.astype(np.uint16) * 300), "300,body\n600,the head\n", "names.csv"),
    (lambda ids: Image.fromarray(ids).convert("RGB"), "1,body\n2,the head\n", "names.csv"),
    (coloured, "0 0 0 background\n128 0 0 body\n0 128 64 the head\n", "label_colors.txt"),
    (coloured, "name,colour\nbody,#800000\nthe head,#008040\n", "names.csv"),
    (coloured, {"body": [128, 0, 0], "the head": "#008040"}, "names.json"),
    (
        coloured, [{"name": "body", "color": [128, 0, 0]}, {"name": "the head", "color": "#008040"}], "names.json",
    ),
    (rgba, "body,128,0,0\nthe head,0,128,64\n", "names.csv"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mask_of", "table", "name"), READ, ids=[f"{k}-{name}" for k, (_, _, name) in enumerate(READ)]
)
def test_every_kind_of_mask_and_table_says_the_same(mask_of, table, name, write, prepare):
    write(mask_of, table, name)
    done, target = prepare()
    assert done.total == 6
    assert read_table(target) == {"cat": {"body": 1, "the head": 2}, "dog": {"body": 3, "the head": 4}}
    for path in target.glob("parts/*/*/*.png"):
        first = 0 if path.parent.name == "cat" else 2
        assert np.array_equal(np.array(Image.open(path)), np.where(IDS > 0, IDS + first, 0))
    assert parts_check.check(target).problems == []


@pytest.mark.parametrize(
    ("folders", "ending"),
    [(("JPEGImages", "SegmentationClass"), ""), (("img", "labels"), "_mask"), (("Images", "Parts"), "_seg")],
)
def test_usual_folders_and_endings_are_known(folders, ending, write, prepare):
    write(palette, "1,body\n2,head\n", folders=folders, ending=ending)
    assert prepare()[0].total == 6


@pytest.mark.parametrize(
    ("mask_of", "table", "words"),
    [
        (palette, "1,body\n", r"cat/0\.png has the value 2 on 40 pixels, which .*names\.csv does not name: add it"),
        (
            coloured, "128,0,0,body\n",
            r"cat/0\.png has the colour #008040 \(0, 128, 64\) on 40 pixels",
        ),
        (
            lambda ids: Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)), "1,body\n",
            "and 1,197 other such values",
        ),
        (coloured, "1,body\n2,head\n", r"cat/0\.png is in colours, and .* names numbers"),
        (
            lambda ids: Image.fromarray(ids.astype(np.uint16)), "1,1,1,body\n2,2,2,head\n",
            "has 16 bits, and .* names colours",
        ),
        (palette, "1,body\n2,255,0,0,head\n", "names ids and colours"),
        (palette, "1,body\n1,head\n", "gives the value 1 two names, 'body' and 'head'"),
        (palette, "300,0,0,body\n", r"is no colour"),
        (palette, "70000,body\n", r"is no value of a mask"),
        (palette, "id,name\n", "names no value"),
        (palette, "1,body\nhead\n", "expected lines such as .*, got 'head'"),
        (lambda ids: palette(0 * ids), "1,body\n2,head\n", "No mask of the class 'cat' shows a part that"),
    ],
)  # fmt: skip
def test_what_the_table_does_not_fit_is_refused_before_anything_is_written(
    mask_of, table, words, write, prepare, tmp_path
):
    write(mask_of, table)
    with pytest.raises(UserError, match=words) as refusal:
        prepare()
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "target").exists()


def test_background_may_have_values_of_its_own(write, prepare):
    """As 255 in PASCAL VOC, for the border of objects."""
    ids = IDS.copy()
    ids[0] = 255
    write(lambda _: Image.fromarray(ids), "1,body\n2,head\n255,background\n")
    _, target = prepare()
    assert {int(np.array(Image.open(path))[0].max()) for path in target.glob("parts/*/*/*.png")} == {0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda root: (root / "masks" / "cat" / "0.png").write_bytes(b"broken"),
            r"Cannot read the mask .*cat/0\.png",
        ),
        (
            lambda root: (root / "images" / "cat" / "0.jpg").unlink(),
            r"1 images are annotated and not there, .*cat/0\.png",
        ),
        (
            lambda root: (root / "masks").rename(root / "x"),
            r"source has images, x: expected images in one of",
        ),
        (lambda root: (root / "names.csv").unlink(), r"has no \.csv, \.json or \.txt: say which file"),
        (lambda root: (root / "names.txt").write_text("1 x"), r"has names\.csv, names\.txt: say which"),
        (lambda root: (root / "names.csv").write_bytes(b"\xff\xfe1,x"), r"Cannot read .*names\.csv"),
        (lambda root: (root / "images" / "rat").mkdir(), r"The class folder .*rat is empty"),
        (
            lambda root: (root / "images" / "a.jpg").write_bytes((root / "images/cat/0.jpg").read_bytes()),
            None,
        ),
        (
            lambda root: (root / "images" / "cat" / "0.png").write_bytes(
                (root / "masks/cat/0.png").read_bytes()
            ),
            r"cat/0\.jpg and .*cat/0\.png share the mask",
        ),
    ],
)
def test_what_is_missing_or_damaged_is_named(change, words, write, prepare, tmp_path):
    change(write(palette, "1,body\n2,head\n"))
    if words is None:
        assert prepare()[0].left_out == {"without a mask": 1}
        return
    with pytest.raises(UserError, match=words) as refusal:
        prepare()
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "target").exists()


def test_an_image_of_another_size_stops_and_can_be_mended(write, prepare, tmp_path):
    root = write(palette, "1,body\n2,head\n")
    path = root / "images" / "dog" / "1.jpg"
    whole = path.read_bytes()
    Image.new("RGB", (9, 9)).save(path)
    with pytest.raises(
        UserError, match=r"dog/1\.jpg is 9 x 9, and .*dog/1\.png says 40 x 30.* 4 of 6 are done and stay"
    ):
        prepare()
    path.write_bytes(whole)
    assert prepare()[0].total == 6


def test_more_parts_than_eight_bits_hold(originals, prepare, tmp_path):
    root = tmp_path / "source"
    ids = np.arange(1200, dtype=np.uint16).reshape(30, 40) % 300
    for number in range(3):
        for folder in ("images", "masks"):
            (root / folder / "cat").mkdir(parents=True, exist_ok=True)
        originals.photograph(root / "images" / "cat" / f"{number}.jpg", number)
        Image.fromarray(ids).save(root / "masks" / "cat" / f"{number}.png")
    (root / "names.csv").write_text("".join(f"{k},p{k:03d}\n" for k in range(1, 300)))
    done, target = prepare()
    assert done.total == 3
    assert np.array_equal(np.array(Image.open(next(target.glob("parts/*/cat/*.png")))), ids)
    assert parts_check.check(target).problems == []


def test_classes_by_a_table_beside_the_table_of_names(write, prepare, tmp_path):
    root = write(palette, "1,body\n2,head\n")
    (root / "classes.csv").write_text(
        "".join(f"{label}/{n}.jpg,{n % 2}\n" for label in ("cat", "dog") for n in range(3))
    )
    done, target = prepare(classes=str(root / "classes.csv"))
    assert read_table(target) == {"0": {"body": 1, "head": 2}, "1": {"body": 3, "head": 4}}
    assert done.total == 6
    with pytest.raises(UserError, match=r"--classes object: masks have no objects"):
        prepare(classes="object")
    with pytest.raises(UserError, match=r"--largest has no effect on masks"):
        prepare(largest=True)


@pytest.mark.parametrize(
    ("line", "value", "name"),
    [
        ("3,wheel 2", 3, "wheel 2"), ("wheel 2,255,0,0", 255 * 65_536, "wheel 2"),
        ("'7' \"left door\"", 7, "left door"), ("#00ff00 leaf", 255 * 256, "leaf"), ("wheel:4", 4, "wheel"),
    ],
)  # fmt: skip
def test_lines_of_tables(line, value, name, tmp_path):
    (tmp_path / "names.txt").write_text(line)
    assert read_names(tmp_path / "names.txt").names[value] == name


def test_a_folder_of_a_class_without_a_mask_is_named(write, prepare, originals, tmp_path):
    write(palette, "1,body\n2,head\n")
    for number in range(2):
        originals.photograph(tmp_path / "source" / "images" / "bird" / f"{number}.jpg", number)
    done, _ = prepare()
    assert "No image has a mask, and so there is no such class: bird (2 images)" in done.notes
    assert done.left_out == {"without a mask": 2}
    (tmp_path / "source" / "masks" / "cat" / "0.png").unlink()  # cats with a mask are left
    done, _ = prepare("other")
    assert [note for note in done.notes if "no such class" in note] == [
        "No image has a mask, and so there is no such class: bird (2 images)"
    ]
