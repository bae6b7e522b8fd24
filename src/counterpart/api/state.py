"""What a public function of this package puts back when it returns, so that its caller sees no change."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..models.modes import eval_mode
from ..models.random_passes import generators_put_back


@contextmanager
def left_as_found(model: object = None) -> Iterator[None]:
    """A block after which the settings of torch and of a model are as they were before.

    These are the number of threads, all random generators and the gradient mode, and for each part of the
    model whether it trains or evaluates.
    """
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode(False), torch.enable_grad(), generators_put_back(model):
            if isinstance(model, nn.Module):
                with eval_mode(model):
                    yield
            else:
                yield
    finally:
        torch.set_num_threads(threads)
