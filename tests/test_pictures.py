"""The file of pictures: what it holds comes back, whenever it was written; a damaged one is one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from counterpart.checksums import KEY_OF_TENSORS
from counterpart.errors import UserError
from counterpart.pictures import Pictures

STORED = sorted((Path(__file__).parent / "stored" / "runs").rglob("panel.safetensors"))


def header_of(path):
    """What the header says, without the checksum, which old files lack and rewritten ones belie."""
    with safe_open(path, framework="numpy") as file:
        return {name: text for name, text in file.metadata().items() if name != KEY_OF_TENSORS}


@pytest.mark.parametrize("old", STORED, ids=lambda path: path.parent.name)
def test_what_an_old_file_holds_is_written_again(old, tmp_path):
    new = tmp_path / "panel.safetensors"
    Pictures.read(old).write(new)
    before, after = load_file(old), load_file(new)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (tensor.dtype, tensor.tobytes()) == (after[name].dtype, after[name].tobytes())
    assert header_of(old) == header_of(new)


def test_stored_files_are_of_models_with_parts_and_without():
    assert {Pictures.read(path).parts is None for path in STORED} == {True, False}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"radius": None}, "radius is missing"),
        ({"eps": None}, "eps is missing"),
        ({"radius": np.zeros((2, 3, 3), "float32")}, r"radius has shape \(2, 3, 3\) instead of \(2, 4, 5\)"),
        ({"importance": np.zeros((3, 2, 2), "float32")}, r"importance has shape \(3, 2, 2\), and there are 2"),
        ({"labels": "[0]"}, "labels is not a list of 2"),
        ({"labels": "[0, 2]"}, "class 2 is none of the 2 that are named"),
        ({"clean_predictions": "[0, -1]"}, "class -1 is none of the 2"),
        ({"classes": "3"}, "classes is not a list of names"),
        ({"confidences_clean": '[0.5, "much"]'}, "confidences_clean holds something else than numbers"),
        ({"labels": "[0,"}, "Expecting value"),
        ({"parts": np.full((2, 4, 5), 3, "int16")}, "part 3 is none of the 3 that are named"),
        ({"annotated": None}, "parts_true is there and annotated is missing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused_in_a_line(tmp_path, changes, reason):
    path, zeros = tmp_path / "panel.safetensors", np.zeros((2, 1, 4, 5), "float32")
    ids = np.ones((2, 4, 5), "int16")
    Pictures(
        zeros, zeros, zeros[:, 0], [0, 1], [5, 6], [0, 1], [1, 1], [0.9, 0.8], [0.7, 0.6], ["cat", "dog"], 0.1,
        parts=ids, parts_adversarial=ids, parts_true=ids, part_names=["background", "head", "tail"],
        annotated=[True, False],
    ).write(path)  # fmt: skip
    tensors, header = load_file(path), header_of(path)
    for name, value in changes.items():
        for group in (tensors, header):
            group.pop(name, None)
        if value is not None:
            (header if isinstance(value, str) else tensors)[name] = value
    save_file(tensors, path, header)
    with pytest.raises(UserError, match=reason) as error:
        Pictures.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"half"])
def test_a_damaged_file_is_refused_in_a_line(tmp_path, content):
    path = tmp_path / "panel.safetensors"
    path.write_bytes(STORED[0].read_bytes()[:1000] if content == b"half" else content)
    with pytest.raises(UserError, match="damaged") as error:
        Pictures.read(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"panel\.safetensors"):
        Pictures.read(tmp_path / "panel.safetensors")


def test_absent_things_are_not_written(tmp_path):
    path, zeros = tmp_path / "panel.safetensors", np.zeros((1, 1, 2, 2), "float32")
    Pictures(zeros, zeros, zeros[:, 0], [0], [0], [0], [0], [1.0], [1.0], ["a"], 0.5).write(path)
    assert set(load_file(path)) == {"clean", "adversarial", "radius"}
    assert json.loads(header_of(path)["eps"]) == 0.5
    assert "annotated" not in header_of(path)
