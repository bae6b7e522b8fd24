"""MATLAB's files: the same values as scipy reads, and one error, never a crash, for what is damaged."""

from contextlib import suppress

import numpy as np
import pytest
import scipy.io

from counterpart.data.mat_files import MOST_DEPTH, read_variables

TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def save(tmp_path, request):
    def write(**variables):
        scipy.io.savemat(tmp_path / "x.mat", variables, do_compression=request.param)
        return (tmp_path / "x.mat").read_bytes()

    return write


@pytest.mark.parametrize("kind", TYPES)
def test_numbers_have_scipys_values_shape_and_type(save, tmp_path, kind):
    values = np.random.default_rng(0).integers(0, 100, (2, 3, 4, 5)).astype(kind)
    read = read_variables(save(values=values, one=values[0, 0, 0, :1], none=np.zeros((0, 3), kind)))
    expected = scipy.io.loadmat(tmp_path / "x.mat")
    for name in ("values", "one", "none"):
        assert read[name].dtype == expected[name].dtype == np.dtype(kind)
        np.testing.assert_array_equal(read[name], expected[name])
    np.testing.assert_array_equal(read["values"], values)


def test_texts_cells_and_structures(save):
    inner = np.empty((1, 2), dtype=[("name", object), ("mask", object)])
    inner[0, 0], inner[0, 1] = ("Kopf", np.eye(2)), ("Fuß", np.zeros((0, 0)))
    cell = np.empty((2, 1), dtype=object)
    cell[0, 0], cell[1, 0] = "a", np.arange(3.0)
    rows = np.array(["ab", "cd"])
    read = read_variables(
        save(inner=inner, cell=cell, rows=rows, empty="", nothing=np.empty((1, 0), inner.dtype))
    )
    assert [entry["name"] for entry in read["inner"]] == ["Kopf", "Fuß"]
    np.testing.assert_array_equal(read["inner"][0]["mask"], np.eye(2))
    assert read["inner"][1]["mask"].shape == (0, 0)
    assert read["cell"][0] == "a"
    assert read["cell"][1].tolist() == [[0, 1, 2]]
    assert (read["rows"], read["empty"], read["nothing"]) == ("ab\ncd", "", [])


def test_big_endian_files(save):
    """As old Suns wrote them, by hand: one 1 x 2 array of int16."""
    words = [14, 48, 6, 8, 10, 0, 5, 8, 1, 2]
    content = b" " * 124 + b"\x01\x00" + b"MI" + np.array(words, ">u4").tobytes()
    content += (
        b"\0\x01\0\x01x\0\0\0"
        + np.array([(4 << 16) | 3], ">u4").tobytes()
        + np.array([-2, 7], ">i2").tobytes()
    )
    assert read_variables(content)["x"].tolist() == [[-2, 7]]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.array([[1j]]), "is of a kind that is not read"),
        (scipy.sparse.eye(2), "is of a kind that is not read"),
    ],
)
def test_what_is_not_read_is_refused(save, value, words):
    with pytest.raises(ValueError, match=words):
        read_variables(save(value=value))


def test_other_files_are_refused():
    for content in (b"", b"x" * 127, b"\x89HDF\r\n\x1a\n" + bytes(600)):
        with pytest.raises(ValueError, match="no level-5 MAT-file"):
            read_variables(content)


def test_nesting_without_end_is_refused(save):
    value = np.zeros((1, 1))
    for _ in range(MOST_DEPTH + 2):
        cell = np.empty((1, 1), dtype=object)
        cell[0, 0], value = value, cell
    with pytest.raises(ValueError, match=f"nested more than {MOST_DEPTH} deep"):
        read_variables(save(value=value))


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPART_MOST_UNPACKED", "10000")
    scipy.io.savemat(tmp_path / "x.mat", {"x": np.zeros((200, 200))}, do_compression=True)
    with pytest.raises(ValueError, match=r"bytes are more than 10,000: .* COUNTERPART_MOST_UNPACKED"):
        read_variables((tmp_path / "x.mat").read_bytes())


def test_the_limit_is_of_all_elements_together(tmp_path, monkeypatch):
    many = {f"x{number}": np.zeros((10, 10)) for number in range(9)}
    scipy.io.savemat(tmp_path / "x.mat", many, do_compression=True)
    content = (tmp_path / "x.mat").read_bytes()
    monkeypatch.setenv("COUNTERPART_MOST_UNPACKED", "9000")
    assert len(read_variables(content)) == 9
    monkeypatch.setenv("COUNTERPART_MOST_UNPACKED", "5000")
    with pytest.raises(ValueError, match=r"bytes are more than 5,000"):
        read_variables(content)


def test_damage_anywhere_is_an_error_or_another_value(save):
    """Every byte of a file flipped, and every length cut: never anything but a ValueError."""
    inner = np.empty((1, 2), dtype=[("name", object), ("mask", object)])
    inner[0, 0], inner[0, 1] = ("head", np.eye(2, dtype=np.uint8)), ("tail", np.zeros((0, 0)))
    content = save(anno=inner, y=np.arange(5))
    for position in range(100, len(content)):
        for changed in (
            content[:position],
            _flipped(content, position, 0xFF),
            _flipped(content, position, 0x01),
        ):
            with suppress(ValueError):
                read_variables(changed)


def _flipped(content, position, bits):
    changed = bytearray(content)
    changed[position] ^= bits
    return bytes(changed)
