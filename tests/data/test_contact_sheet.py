"""The contact sheet: which images it shows, where masks sit, and that it is written where it should be."""

import numpy as np
import pytest
from PIL import Image

from counterpart.data.contact_sheet import CELL, MARGIN, Example, choose, draw_sheet
from counterpart.data.parts_check import check
from counterpart.errors import UserError
from counterpart.part_colours import part_colour


def test_images_that_together_show_most_parts_are_chosen():
    shown = [frozenset(ids) for ids in ({1}, {1, 2}, {3}, {1, 2}, {2, 3})]
    assert choose(shown, [0.1, 0.1, 0.5, 0.4, 0.1], 2) == [
        3,
        2,
    ]  # most parts, then most covered; then what is missing
    assert choose(shown, [0.0] * 5, 9) == [1, 2, 0, 3, 4]
    assert choose([], [], 3) == []


def test_examples_of_a_folder_are_of_all_its_classes(parts_root):
    examples = check(parts_root).examples
    assert {name: len(chosen) for name, chosen in examples.items()} == {"cat": 3, "dog": 3}
    for example in examples["dog"]:
        assert example.mask.is_file()
        assert example.image.as_posix().endswith(example.text)


def test_a_mask_is_drawn_where_it_sits_in_its_colour(tmp_path):
    """The left half of a white image is part 1, the right half nothing."""
    Image.new("RGB", (90, 60), "white").save(tmp_path / "x.png")
    ids = np.zeros((60, 90), np.uint8)
    ids[:, :45] = 1
    Image.fromarray(ids).save(tmp_path / "m.png")
    examples = {"cat": [Example(tmp_path / "x.png", tmp_path / "m.png", "x.png")]}
    draw_sheet(examples, {"cat": {"head": 1}}, {("cat", "head"): 7}, "title", tmp_path / "sheet.png")
    sheet = np.array(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    colour = np.array([*bytes.fromhex(part_colour(1)[1:])])
    rows, columns = np.nonzero((np.abs(sheet - (0.7 * colour + 0.3 * 255)) < 2).all(-1))
    start = MARGIN + CELL + 2  # the coloured image stands on the right of the plain one
    assert columns.min() == start
    assert columns.max() == pytest.approx(start + CELL / 2, abs=2)
    assert rows.max() - rows.min() == pytest.approx(CELL * 60 / 90, abs=2)
    swatch = np.nonzero((sheet == colour).all(-1))
    assert len(swatch[0]) > 100  # the legend


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match=r"Could not write the contact sheet .*--sheet"):
        draw_sheet({}, {}, {}, "title", tmp_path / "no" / "sheet.png")
