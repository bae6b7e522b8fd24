"""What a name may hold is text in a spreadsheet, and never a formula."""

import csv
import io
from pathlib import Path

import pytest

from counterpart.spreadsheets import CsvWriter, as_text


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("cat", "cat"), ("", ""), ("-0.5", "-0.5"), ("+1e-3", "+1e-3"), ("a=b", "a=b"), ("Müller", "Müller"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"), ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"), ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"), ("\t=1+1", "'\t=1+1"), ("\r=1", "\\r=1"), (" =1", "' =1"), ("＝1", "'＝1"),
        ("name\udcff", "name\\udcff"), ("\x1b[2J", "\\x1b[2J"),
    ],
)  # fmt: skip
def test_texts_stay_texts(cell, text):
    assert as_text(cell) == text


def test_rows_keep_their_numbers():
    file = io.StringIO()
    CsvWriter(file, lineterminator="\n").writerow([1, -0.5, None, "=1+1", 'a "b", c', True, Path("=x")])
    assert next(csv.reader([file.getvalue()])) == ["1", "-0.5", "", "'=1+1", 'a "b", c', "True", "'=x"]
