"""COCO's masks: by hand, against the format's own routines on stored answers, and what is refused."""

import json

import numpy as np
import pytest

from counterpart.data import coco
from counterpart.errors import UserError


def rows(mask):
    return ["".join(map(str, row)) for row in mask.astype(int).tolist()]


def test_polygons_by_hand():
    box = [1, 1, 4, 1, 4, 3, 1, 3]  # corners lie on borders between pixels
    assert rows(coco.mask([box], 5, 6)) == ["000000", "011100", "011100", "000000", "000000"]
    two = coco.mask([box, [3, 2, 6, 2, 6, 5, 3, 5]], 5, 6)
    assert rows(two) == ["000000", "011100", "011111", "000111", "000111"]
    assert not coco.mask([[2, 2, 2, 2, 2, 2]], 5, 6).any()  # no area
    beyond = coco.mask([[-9, -9, 99, -9, 99, 99, -9, 99]], 4, 3)
    assert beyond.all()


def test_run_lengths_by_hand():
    """Column by column, background first."""
    assert rows(coco.mask({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3)) == ["010", "100"]
    assert rows(coco.mask({"size": [2, 3], "counts": [0, 6]}, 2, 3)) == ["111", "111"]
    assert rows(coco.mask({"size": [2, 3], "counts": "123"}, 2, 3)) == ["010", "100"]
    # from the fourth number on, differences to the number two before: 1 = 30 - 29
    packed, plain = {"size": [8, 7], "counts": "d0n05SO"}, {"size": [8, 7], "counts": [20, 30, 5, 1]}
    assert rows(coco.mask(packed, 8, 7)) == rows(coco.mask(plain, 8, 7))


@pytest.mark.reference
def test_masks_equal_the_formats_own_routines(generator):
    theirs = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")
    random = np.random.default_rng(0)
    for number in range(300):
        height, width, corners = *random.integers(3, 40, 2).tolist(), int(random.integers(3, 9))
        points = (random.random(2 * corners) * 1.4 - 0.2) * np.tile([width, height], corners)
        polygon = (points.round() if number % 3 == 0 else points).tolist()
        (packed,) = theirs.frPyObjects([polygon], height, width)
        expected = theirs.decode(packed).astype(bool)
        assert np.array_equal(coco.mask([polygon], height, width), expected)
        runs = {"size": [height, width], "counts": packed["counts"].decode()}
        assert np.array_equal(coco.mask(runs, height, width), expected)


def test_polygons_equal_a_walk_along_their_border():
    """Each pixel is in if its middle is, for borders that stay away from middles: brute force by winding."""
    random = np.random.default_rng(1)
    for _ in range(20):
        angles = np.sort(random.random(7)) * 2 * np.pi
        x, y = 12 + 9 * np.cos(angles), 11 + 8 * np.sin(angles)
        mask = coco.mask([np.stack([x, y], 1).reshape(-1).tolist()], 22, 24)
        py, px = np.mgrid[0:22, 0:24] + 0.5
        inside = np.zeros((22, 24), dtype=bool)
        distance = np.full((22, 24), np.inf)
        for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
            crosses = (y0 > py) != (y1 > py)
            inside ^= crosses & (px < (x1 - x0) * (py - y0) / (y1 - y0) + x0)
            t = np.clip(
                ((px - x0) * (x1 - x0) + (py - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2), 0, 1
            )
            distance = np.minimum(distance, np.hypot(px - x0 - t * (x1 - x0), py - y0 - t * (y1 - y0)))
        far = distance > 0.75
        assert np.array_equal(mask[far], inside[far])


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[1, 2, 3]], "a polygon that is no list"),
        ([[1, 2, float("nan"), 3]], "a polygon that is no list"),
        ({"size": [2, 2], "counts": [4]}, "size"),
        ({"size": [4, 4], "counts": [3, 4]}, "do not add up to 4 x 4"),
        ({"size": [4, 4], "counts": [-3, 19]}, "do not add up"),
        ({"size": [4, 4]}, "do not add up"),
        ({"size": [4, 4], "counts": [[1], [2, 13]]}, "do not add up"),
        ({"size": 4}, "run lengths of size 4 in an image"),
        ("polygon", "type str"),
        (None, "type NoneType"),
    ],
)
def test_what_is_no_segmentation_is_refused(segmentation, words):
    with pytest.raises(ValueError, match=words):
        coco.mask(segmentation, 4, 4)


GOOD = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 2, "width": 2}],
    "categories": [{"id": 0, "name": "head"}],
    "annotations": [{"id": 5, "image_id": 1, "category_id": 0, "segmentation": []}],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: [], "no list 'images'"),
        (lambda d: {**d, "categories": None}, "no list 'categories'"),
        (lambda d: {**d, "images": d["images"] * 2}, "two of its images have the id 1"),
        (lambda d: {**d, "annotations": d["annotations"] * 2}, "two of its annotations have the id 5"),
        (lambda d: {**d, "images": []}, r"annotations \(id 5\) has image_id 1, which is not there"),
        (lambda d: {**d, "images": [{"id": 1, "file_name": "a.jpg", "width": 2}]}, "has no 'height'"),
        (lambda d: {**d, "images": [{**d["images"][0], "id": [1]}]}, r"has id \[1\], which is no int"),
        (lambda d: {**d, "images": [{**d["images"][0], "file_name": 5}]}, "has file_name 5, which is no str"),
    ],
)
def test_bad_tables_are_named(tmp_path, change, words):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(GOOD))
    assert coco.read(path)[0] == {1: GOOD["images"][0]}
    path.write_text(json.dumps(change(GOOD)))
    with pytest.raises(UserError, match=words) as raised:
        coco.read(path)
    assert "x.json" in str(raised.value)
    for content in ("{", ""):
        path.write_text(content)
        with pytest.raises(UserError, match=r"Cannot read .*x\.json"):
            coco.read(path)


@pytest.mark.slow
def test_real_polygons_have_the_area_that_their_file_says(shared):
    path = shared / "data" / "coco-part-samples" / "annotations.json"
    if not path.exists():
        pytest.skip("needs ../shared/data/coco-part-samples")
    images, _, annotations = coco.read(path)
    assert (len(images), len(annotations)) == (24, 187)
    for row in annotations[::4]:
        image = images[row["image_id"]]
        covered = coco.mask(row["segmentation"], image["height"], image["width"])
        assert covered.sum() == pytest.approx(row["area"], rel=0.05, abs=20)


def test_four_numbers_are_a_box():
    """As COCO's own code takes them: x, y, width, height."""
    assert coco.mask([[2, 2, 6, 6]], 10, 12).sum() == 36
    assert coco.mask([[2, 2, 6, 6]], 10, 12)[2:8, 2:8].all()
    assert coco.mask([[2, 2, 8, 2]], 10, 12).sum() == 16
    assert not coco.mask([], 10, 12).any()


@pytest.mark.parametrize(
    "segmentation",
    [
        [{}], [[{}, 1, 2, 3]], ["abcdef"], [None], [[0, 0, 1e9, 0, 1e9, 1e9]], [[0, 0, 1e400, 0, 1, 1]],
        [[0, 0, -1e18, 0, 1, 1]], [[10**400, 0, 1, 1, 2, 2]],
        {"size": [4, 4], "counts": [2**62] * 4 + [16]}, {"size": [4, 4], "counts": [2**63, 2**63, 16]},
        {"size": [4, 4], "counts": [2**64, 16]}, {"size": [4, 4], "counts": [17, -1]}, {"size": [4, 4], "counts": {}},
    ],
)  # fmt: skip
def test_hostile_segmentations_are_refused_without_memory_or_crash(segmentation):
    with pytest.raises(ValueError, match=r"polygon|run lengths") as refusal:
        coco.mask(segmentation, 4, 4)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["o" * 100, "\n16", "p", "\ud800"])
def test_text_that_is_no_run_lengths_is_refused_at_once(text):
    """A number that goes on and on would take time that grows with the square of its length."""
    with pytest.raises(ValueError, match="no text of COCO's"):
        coco.mask({"size": [4, 4], "counts": text}, 4, 4)


def test_extents_are_those_of_the_mask():
    random = np.random.default_rng(2)
    for _ in range(50):
        mask = random.random((7, 9)) < 0.1
        mask[3, 4] = True
        flat = np.concatenate([[0], mask.T.reshape(-1).astype(int), [0]])
        changes = np.nonzero(np.diff(flat))[0].tolist()
        runs = np.diff([0, *changes, 63]).tolist()
        top, left, bottom, right = coco.extent({"size": [7, 9], "counts": runs}, 7, 9)
        y, x = np.nonzero(mask)
        assert (top, left, bottom, right) == (y.min(), x.min(), y.max() + 1, x.max() + 1)
    assert coco.extent([[1, 2, 5, 2, 5, 6], [0, 3, 1, 3, 1, 4]], 7, 9) == (2, 0, 6, 5)
    for nothing in ([], {"size": [7, 9], "counts": [63]}):
        with pytest.raises(ValueError, match=r"no polygon|cover nothing"):
            coco.extent(nothing, 7, 9)


@pytest.mark.parametrize(
    ("polygon", "in_doubt"),
    [
        ([0, 0, 10, 10, 10, 0, 0, 10], "25 of its 50"),  # a bow tie
        ([0, 0, 10, 0, 10, 10, 0, 10] * 2, "100 of its 100"),  # twice around: nothing would be inside
        ([0, 0, 10, 0, 10, 10, 0, 10], None),
        ([0, 0, 10, 0, 10, 10, 0, 10, 0, 0, 3, 3, 3, 6, 6, 6, 6, 3, 3, 3], None),  # a hole, and the way to it
        ([0, 0, 10, 0, 10, 10, 9.6, 10, 10.4, 9.8, 0, 10], None),  # a slip of the hand
    ],
)
def test_borders_that_cross_themselves_are_refused_where_that_matters(polygon, in_doubt):
    if in_doubt is None:
        assert coco.mask([polygon], 12, 12, simple=True).sum() > 80
        return
    with pytest.raises(ValueError, match=f"crosses itself \\({in_doubt} pixels are in doubt"):
        coco.mask([polygon], 12, 12, simple=True)
    coco.mask([polygon], 12, 12)  # as COCO's own code draws it


def test_json_nested_without_end_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match="nested too deeply"):
        coco.read(tmp_path / "x.json")
