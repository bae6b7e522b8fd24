"""Attacks may search in TF32 on a device that has it: they do so alone, and what judges stays exact."""

import pytest
import torch
from torch import nn

import counterpart as cp
from counterpart.errors import UserError
from counterpart.evaluation import accuracy

ASKED = {"attacks": "apgd", "eps": 0.05, "changes": {"evaluate.precision": "tf32"}}


def arithmetic():
    return torch.backends.cudnn.conv.fp32_precision


@pytest.fixture
def problem():
    """A linear model, and images that it is right about."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    nn.init.normal_(model[1].weight, std=0.3, generator=generator)
    images = torch.rand(8, 3, 4, 4, generator=generator)
    return model, images, model(images).argmax(dim=1)


def test_attacks_search_in_tf32_and_end_in_float32(device, problem, monkeypatch):
    model, images, labels = problem
    model.to("cuda")
    seen, current = {}, ["nothing"]
    search, judge, gradient = accuracy._search, accuracy.predictions, torch.autograd.grad

    def searched(named, *given):
        current[0] = named.name
        return search(named, *given)

    def judged(*given):
        seen.setdefault("judged", set()).add(arithmetic())
        return judge(*given)

    def differentiated(*given, **options):
        seen.setdefault(current[0], set()).add(arithmetic())
        return gradient(*given, **options)

    monkeypatch.setattr(accuracy, "_search", searched)
    monkeypatch.setattr(accuracy, "predictions", judged)
    monkeypatch.setattr(torch.autograd, "grad", differentiated)
    found = cp.evaluate(model, (images, labels), device="cuda", **ASKED)
    ends = {f"float32 apgd-t target {rank}": {"ieee"} for rank in (1, 2)}
    shown = {name: values for name, values in seen.items() if name != "nothing"}
    assert shown == {"APGD-100": {"tf32"}, "float32 apgd-ce": {"ieee"}, **ends, "judged": {"ieee"}}
    assert found.records[0].details["precision"] == "tf32"


def test_a_processor_has_no_tf32(problem):
    model, images, labels = problem
    with pytest.raises(
        UserError, match=r"^evaluate.precision tf32 needs a CUDA GPU from Ampere on, and this is cpu"
    ):
        cp.evaluate(model, (images, labels), device="cpu", **ASKED)
