"""The same code on a CUDA device: same draws, same attack, same training, to rounding."""

import pytest
import torch

from counterpart import jobs
from counterpart.attacks import pgd
from counterpart.budget import L1, L2, Linf
from counterpart.config import resolve
from counterpart.data.transforms import as_floats
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.seeding import Keys, seeded

pytestmark = pytest.mark.gpu
CUDA = "cuda"


def test_images_are_the_same_bits():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(as_floats(pixels.to(CUDA)).cpu(), as_floats(pixels))


def test_draws_are_the_same_bits():
    index = torch.arange(64)
    here, there = Keys(3, "pgd", index), Keys(3, "pgd", index.to(CUDA))
    assert torch.equal(here.uniform(2, (3, 8)), there.uniform(2, (3, 8)).cpu())


@pytest.mark.parametrize("budget", [Linf(8 / 255), L2(0.5), L1(5.0)])
def test_budgets_agree(budget, generator):
    clean = torch.rand(8, 3, 16, 16, generator=generator)
    images = clean + torch.randn(clean.shape, generator=generator)
    there = budget.project(images.to(CUDA), clean.to(CUDA))
    assert budget.contains(there, clean.to(CUDA)).all()
    torch.testing.assert_close(there.cpu(), budget.project(images, clean), rtol=0, atol=1e-6)


@pytest.mark.parametrize("compile_it", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_view_agrees_and_pgd_fools(precision, compile_it, generator):
    with seeded(0):
        model = create("resnet18", 10, width=16).eval()
    images = torch.rand(32, 3, 32, 32, generator=generator)
    labels = model(images).argmax(dim=1)
    model.to(CUDA)
    view = InferenceView(model, precision=precision, compile=compile_it)
    with torch.no_grad():
        gap = (view(images.to(CUDA)) - model(images.to(CUDA))).abs().max()
    assert gap < (1e-3 if precision == "float32" else 0.1)
    keys = Keys(0, "pgd", torch.arange(32, device=CUDA))
    attacked = pgd(view, images.to(CUDA), labels.to(CUDA), budget=Linf(0.1), keys=keys)
    assert (model(attacked.images).argmax(dim=1).cpu() != labels).float().mean() > 0.9


def test_a_run_trains_and_evaluates(tmp_path):
    settings = {
        "name": "cuda", "runs": str(tmp_path), "device": "cuda", "data": {"flip": False, "limit": 300},
        "model": {"name": "wrn-10-1", "width": 8}, "attack": {"eps": 0.1, "steps": 3}, "mask": {"eps_low": 0.05},
        "train": {"method": "part", "epochs": 4, "batch_size": 50}, "optimizer": {"lr": 0.1},
    }  # fmt: skip
    trained = jobs.train(resolve(settings))
    assert trained.finished
    jobs.evaluate(str(trained.run.path), {"evaluate": {"n": 50}})
    assert any(r.name == "accuracy/worst case" for r in trained.run.records())
