"""Which rows of a batch an attack goes on with, at the price of one wait for the device."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def split_rows(holds: Bool[Tensor, " r"]) -> tuple[Int[Tensor, " p"], Int[Tensor, " q"]]:
    """The rows where ``holds`` is true, and those where it is not, each in rising order.

    The host waits once, for the number of rows that hold. A mask as an index would let it wait at each use.
    """
    count = int(holds.sum())
    if count == len(holds):
        everything = torch.arange(count, device=holds.device)
        return everything, everything[:0]
    order = holds.byte().argsort(descending=True, stable=True)
    return order[:count], order[count:]
