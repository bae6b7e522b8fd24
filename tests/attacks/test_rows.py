"""Rows are split in rising order, with one wait."""

import pytest
import torch

from counterpart.attacks.rows import split_rows


@pytest.mark.parametrize(
    ("holds", "first", "second"),
    [([1, 0, 0, 1, 1], [0, 3, 4], [1, 2]), ([1, 1], [0, 1], []), ([0, 0], [], [0, 1]), ([], [], [])],
)
def test_rows_that_hold_and_those_that_do_not(holds, first, second):
    those, others = split_rows(torch.tensor(holds, dtype=torch.bool))
    assert (those.tolist(), others.tolist()) == (first, second)
    assert those.dtype == others.dtype == torch.int64
