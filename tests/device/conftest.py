"""The pretended device as a fixture."""

import pytest
from tests.device.pretended import pretend_device


@pytest.fixture
def device():
    """A pretended CUDA device, on which everything counts."""
    with pretend_device() as pretended:
        yield pretended
