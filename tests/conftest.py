"""Problems solvable by hand, shared by many tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from counterpart.contracts import Probe
from counterpart.seeding import Keys

torch.set_num_threads(1)  # tiny tensors: one thread is far faster than many
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that tests start as well

ROOT = Path(__file__).parents[1]
SHARED = ROOT / ".." / "shared"
BUILD = "from setuptools import build_meta as b; b.build_sdist({0!r}); b.build_wheel({0!r})"


class LinearModel(nn.Module):
    """Two classes, logits (-s/2, s/2) with s = w.x + b: every attack on it is solvable by hand."""

    def __init__(self, weight: torch.Tensor, bias: float):
        super().__init__()
        self.weight, self.bias = weight, bias

    def score(self, images):
        return (images * self.weight).flatten(1).sum(dim=1) + self.bias

    def forward(self, images):
        return torch.stack([-self.score(images) / 2, self.score(images) / 2], dim=1)

    def probe(self, images):
        leaf = images.detach().requires_grad_()
        return Probe(leaf, self(leaf), features=leaf * self.weight)


@pytest.fixture(autouse=True)
def one_thread():
    """What a test sets for itself ends with it."""
    yield
    torch.set_num_threads(1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def keys():
    return Keys(0, "test", torch.arange(64))


@pytest.fixture
def linear_problem(generator):
    """Model, 64 mid-grey images and their predicted labels."""
    weight = torch.randn(3, 8, 8, generator=generator)
    images = 0.5 + 0.05 * torch.randn(64, 3, 8, 8, generator=generator)
    model = LinearModel(weight, bias=-0.5 * weight.sum().item())
    return model, images, model(images).argmax(dim=1)


@pytest.fixture
def shared():
    """The folder of real data beside the checkout; the test skips where it is absent."""
    if not SHARED.exists():
        pytest.skip("needs the real images in ../shared, which are not part of the project")
    return SHARED.resolve()


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """A folder of both archives of this package, made from a copy of what git knows."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file() and name.startswith(("src/", "pyproject", "README", "LICENSE")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-c", BUILD.format(str(dist))], cwd=source, capture_output=True, check=True
    )
    return dist


def pytest_collection_modifyitems(items):
    """GPU tests skip, with the reason, where there is no CUDA device."""
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="needs a CUDA device")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)
