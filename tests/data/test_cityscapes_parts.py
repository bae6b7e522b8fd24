"""Cityscapes Panoptic Parts: ids, crops and filters by hand and against a second implementation; the real frame."""

import numpy as np
import pytest
from PIL import Image

from counterpart.data import cityscapes_parts as city
from counterpart.data.cityscapes_parts import Box, cut, decode_ids, part_ids, published_region, square_region
from counterpart.data.plans import Options
from counterpart.data.preparations import prepare_named
from counterpart.errors import UserError


def test_ids_by_hand():
    """The examples of the format's own documentation."""
    ids = np.array([[1, 12, 1234, 12_345, 123_456, 1_234_567, 23, 23_003, 2_300_304, 2_400_000]])
    classes, instances, parts = decode_ids(ids)
    assert classes.tolist() == [[1, 12, 1, 12, 1, 12, 23, 23, 23, 24]]
    assert instances.tolist() == [[-1, -1, 234, 345, 234, 345, -1, 3, 3, 0]]
    assert parts.tolist() == [[-1, -1, -1, -1, 56, 67, -1, -1, 4, -1]]


def by_comparisons(ids):
    """The published way: one comparison of the whole image per class and part."""
    classes, _, parts = decode_ids(ids)
    out = np.zeros(ids.shape, dtype=np.uint8)
    for label, numbers in city.CLASS_IDS.items():
        for number in numbers:
            for part, ours in enumerate(city.NAMES[label].values(), start=1):
                out[(classes == number) & (parts == part)] = ours
    return out


def test_the_table_equals_comparisons():
    random = np.random.default_rng(0)
    numbers = random.integers(1, 34, 4000), random.integers(0, 300, 4000), random.integers(0, 8, 4000)
    ids = numbers[0] * 100_000 + numbers[1] * 100 + numbers[2]
    ids[:300], ids[300:900] = numbers[0][:300], numbers[0][300:900] * 1000 + numbers[1][300:900]
    ids = ids.reshape(50, 80).astype(np.int32)
    assert np.array_equal(part_ids(ids), by_comparisons(ids))
    assert set(np.unique(part_ids(ids))) == set(range(10))
    assert part_ids(np.array([[2_600_304, 9_999_999]])).tolist() == [[8, 0]]


def test_a_square_always_holds_its_object_within_the_margins():
    random = np.random.default_rng(0)
    for _ in range(500):
        top, left = random.integers(0, 900, 2).tolist()
        height, width = random.integers(1, 400, 2).tolist()
        box = Box(top, left, top + height, left + width)
        region = square_region(box, random.random(2))
        longer = max(height, width)
        side = region.bottom - region.top
        assert side == region.right - region.left == longer + int(0.1 * longer)
        assert region.top <= top
        assert region.bottom >= top + height
        assert region.left <= left
        assert region.right >= left + width
        if height == longer:
            assert max(top - region.top, region.bottom - top - height) <= 0.1 * longer
    ends = [square_region(Box(50, 50, 150, 110), np.array([d, d])) for d in (0.0, 1 - 1e-12)]
    assert ends == [Box(50, 30, 160, 140), Box(40, 20, 150, 130)]


def published_by_padding(array, mask, pad, uniform):
    """The published crop, on an array with a real black frame: a second implementation."""
    frame = int(max(array.shape) * 0.1)
    padded = np.pad(array, ((frame, frame), (frame, frame), (0, 0)))
    rows, columns = np.where(np.pad(mask, frame))
    height, width = rows.max() - rows.min(), columns.max() - columns.min()
    size = max(width, height)
    x, y = columns.min() - int((size - width) / 2), rows.min() - int((size - height) / 2)
    size += 2 * int(pad * size)
    x, y = max(0, x - int(2 * pad * uniform[0] * size)), max(0, y - int(2 * pad * uniform[1] * size))
    return padded[y : y + size, x : x + size]


def test_published_crops_are_the_published_ones():
    random = np.random.default_rng(0)
    image = random.integers(1, 256, (60, 90, 3), dtype=np.uint8)
    lost = 0
    for _ in range(200):
        top, left = random.integers(0, 50), random.integers(0, 80)
        bottom, right = random.integers(top + 3, 61), random.integers(left + 3, 91)
        mask = np.zeros((60, 90), dtype=bool)
        mask[top:bottom, left:right] = True
        draws = random.random(2)
        region = published_region(Box(top, left, bottom, right), draws, (60, 90))
        assert np.array_equal(cut(image, region), published_by_padding(image, mask, 0.2, draws))
        lost += region.bottom < bottom - 1 or region.right < right - 1
    assert lost > 10  # the defect that ours does not have


def test_cuts_are_black_beyond_the_photograph():
    image = np.arange(1, 13).reshape(3, 4)
    assert cut(image, Box(-1, 2, 2, 6)).tolist() == [[0, 0, 0, 0], [3, 4, 0, 0], [7, 8, 0, 0]]
    assert not cut(image, Box(5, 5, 7, 7)).any()


@pytest.fixture
def street(monkeypatch, tmp_path, originals):
    """One frame of the tests' street as a unit."""
    monkeypatch.setattr(city, "MIN_AREA", 500)
    originals.cityscapes(tmp_path, frames=1)
    (unit,) = city.plan(tmp_path, Options()).units.values()
    return unit


def test_instances_from_0_on_become_samples_and_crowds_do_not(street):
    found = city.extract(street)
    assert [sample.name[-6:] for sample in found.samples] == ["24_000", "24_001", "26_000"]
    assert [sample.label for sample in found.samples] == ["human", "human", "vehicle"]
    assert found.left_out == {"crowd": 1, "small": 1, "without parts": 1}
    for sample in found.samples:
        assert sample.image.shape[:2] == sample.mask.shape
        assert sample.image.shape[0] == sample.image.shape[1]
    person, _, car = found.samples
    assert set(np.unique(person.mask)) == {0, 1, 2}
    assert set(np.unique(car.mask)) == {0, 6, 9}
    # red and green say where each pixel comes from: the head's rows are 20 to 29
    rows, columns = np.where(person.mask == 2)
    assert set(person.image[rows, columns, 0]) == set(range(20, 30))
    assert set(person.image[rows, columns, 1]) >= set(range(10, 30))


def test_published_mode_skips_first_instances_and_keeps_crowds(street):
    found = city.extract(street._replace(published=True))
    assert [sample.name[-8:] for sample in found.samples] == [
        "24_crowd",
        "0019_24_001"[-8:],
        "0019_27_003"[-8:],
    ]
    assert found.left_out == {"first instance": 2, "small": 1}


def test_an_object_behind_the_other_class_is_left_out(monkeypatch, tmp_path, originals):
    monkeypatch.setattr(city, "MIN_AREA", 100)
    for covered in (19, 21):  # of 60 columns of a car, by a person; half of the rest is 20.5 and 19.5
        ids = np.zeros((100, 100), dtype=np.int32)
        ids[20:60, 20:80] = 26_00005
        ids[20:60, 30 : 30 + covered] = 24_00001
        root = tmp_path / str(covered)
        originals.frame(root, "val", "ulm", "ulm_0", ids)
        (unit,) = city.plan(root, Options()).units.values()
        found = city.extract(unit)
        labels = [sample.label for sample in found.samples]
        assert labels == (["human", "vehicle"] if covered == 19 else ["human"])
        assert found.left_out == ({} if covered == 19 else {"occluded": 1})


def test_crops_do_not_depend_on_other_frames(monkeypatch, tmp_path, originals):
    monkeypatch.setattr(city, "MIN_AREA", 500)
    for frames in (2, 3):
        originals.cityscapes(tmp_path / str(frames), frames=frames)
    few, many = (city.plan(tmp_path / str(n), Options()).units for n in (2, 3))
    for name in few:
        for ours, theirs in zip(
            city.extract(few[name]).samples, city.extract(many[name]).samples, strict=True
        ):
            assert np.array_equal(ours.image, theirs.image)
    other = city.plan(tmp_path / "2", Options(seed=1)).units
    pairs = [zip(city.extract(few[n]).samples, city.extract(other[n]).samples, strict=True) for n in few]
    assert any(not np.array_equal(a.image, b.image) for pair in pairs for a, b in pair)


def test_ids_that_break_the_format_are_named(tmp_path, originals):
    for wrong in (-1, 345, 10**8):
        ids = np.full((20, 20), 7)
        ids[3, 4] = wrong
        originals.frame(tmp_path, "val", "ulm", "ulm_0", ids)
        (unit,) = city.plan(tmp_path, Options()).units.values()
        with pytest.raises(UserError, match=rf"ulm_0_gtFine.*tif holds the id {wrong},"):
            city.extract(unit)
    Image.new("RGB", (20, 20)).save(unit.ids)
    with pytest.raises(UserError, match=r"ulm_0_gtFine.*tif has mode RGB"):
        city.extract(unit)
    Image.fromarray(np.zeros((20, 21), dtype=np.int32)).save(unit.ids)
    with pytest.raises(UserError, match=r"is 21 x 20 and .*png is 20 x 20"):
        city.extract(unit)
    Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16)).save(unit.image)
    with pytest.raises(UserError, match=r"Cannot read the image .*png: .* more than 8 bits"):
        city.extract(unit)
    with pytest.raises(UserError, match="counterpart data describe cityscapes"):
        city.plan(tmp_path / "nothing", Options())


@pytest.mark.slow
def test_the_real_frame(shared, tmp_path, originals):
    """Its instances are real, at an eighth of the size; heads and wheels are drawn into them as the format has them."""
    root = shared / "data" / "cityscapes-frame"
    if not root.exists():
        pytest.skip("needs ../shared/data/cityscapes-frame")
    name = "frankfurt_000000_000294"
    instances = np.array(Image.open(root / f"gtFine/val/frankfurt/{name}_gtFine_instanceIds.png")).astype(
        np.int32
    )
    ids = instances.copy()
    for number in np.unique(instances[instances >= 1000]).tolist():
        rows, columns = np.where(instances == number)
        top = rows <= (rows.min() + rows.max()) // 2
        ids[rows[top], columns[top]] = number * 100 + 2
        ids[rows[~top], columns[~top]] = number * 100 + 1
    big = np.kron(ids, np.ones((8, 8), dtype=np.int32))
    originals.frame(tmp_path / "source", "val", "frankfurt", name, big)
    photo = Image.open(root / f"leftImg8bit/val/frankfurt/{name}_leftImg8bit.png").convert("RGB")
    photo.resize((2048, 1024)).save(
        tmp_path / "source" / "leftImg8bit" / "val" / "frankfurt" / f"{name}_leftImg8bit.png"
    )
    ours = prepare_named("cityscapes", tmp_path / "source", tmp_path / "ours", Options(), workers=1)
    theirs = prepare_named(
        "cityscapes", tmp_path / "source", tmp_path / "theirs", Options(published=True), workers=1
    )
    assert ours.left_out.keys() == {"small"}
    assert ours.total + ours.left_out["small"] == 7  # 24000 to 24003 and 26000 to 26002
    assert theirs.left_out["first instance"] == 2
    assert not list((tmp_path / "theirs").rglob("*_000.png"))  # the first of each class
