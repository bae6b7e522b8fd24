"""The arithmetic of a block is exact float32 in every interface of torch, and is as before behind it."""

import pytest
import torch

from counterpart.devices import exact_float32, searching_in


def seen():
    """The old flags, whose reading raises where they disagree with the new ones, and the new ones."""
    backends = torch.backends
    new = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.matmul)
    old = (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision())
    return old, [kind.fp32_precision for kind in new]


@pytest.mark.parametrize("wanted", ["highest", "high", "medium"])
def test_inside_the_block_float32_is_exact_and_the_old_flags_can_be_read(wanted):
    first = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(wanted)
    try:
        before = seen()
        with exact_float32():
            assert seen() == ((False, False, "highest"), ["ieee"] * 4)
            with exact_float32():
                pass
            assert seen() == ((False, False, "highest"), ["ieee"] * 4)
        assert seen() == before
    finally:
        torch.set_float32_matmul_precision(first)


def test_an_error_inside_does_not_change_what_is_behind():
    before = seen()
    with pytest.raises(ZeroDivisionError), exact_float32():
        raise ZeroDivisionError
    assert seen() == before


def test_a_choice_by_the_new_interface_is_put_back():
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        with exact_float32():
            assert convolutions.fp32_precision == "ieee"
        assert convolutions.fp32_precision == "ieee"
    finally:
        convolutions.fp32_precision = before


def test_a_search_in_tf32_ends_with_its_block_and_judging_inside_stays_exact():
    cudnn = torch.backends.cudnn
    with exact_float32():
        with searching_in("tf32"):
            assert (cudnn.conv.fp32_precision, cudnn.allow_tf32) == ("tf32", True)
            assert torch.backends.cuda.matmul.fp32_precision == "tf32"
            with exact_float32():
                assert cudnn.conv.fp32_precision == "ieee"
            assert cudnn.conv.fp32_precision == "tf32"
        assert (cudnn.conv.fp32_precision, cudnn.allow_tf32) == ("ieee", False)
        with searching_in("bf16"):
            assert cudnn.conv.fp32_precision == "ieee"
