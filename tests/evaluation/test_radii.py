from functools import partial

import pytest
import torch

from counterpart.budget import Linf
from counterpart.data.image_sets import ImageSet
from counterpart.errors import UserError
from counterpart.evaluation.batches import read_batch
from counterpart.evaluation.radii import budgets_from, draw_radii, keep_radii
from counterpart.importance import rules
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.seeding import Keys, seeded

CPU = torch.device("cpu")
RULE, FULL = partial(rules.draw_budget, eps_low=8 / 255), Linf(12 / 255)


@pytest.fixture
def images(generator):
    pixels = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8, generator=generator)
    index = torch.tensor([3, 9, 4, 12, 0, 7, 5])
    return ImageSet("noise", "test", ("a", "b", "c"), torch.arange(7) % 3, index, "", (3, 32, 32), pixels)


@pytest.fixture
def view():
    with seeded(2):
        return InferenceView(create("resnet18", 3, width=8))


def test_planes_are_those_of_the_rule_on_clean_images(images, view, tmp_path):
    radii, flat = draw_radii(view, images, RULE, FULL, batch_size=3, device=CPU, seed=0)
    assert radii.shape == (7, 1, 32, 32)
    assert set(radii.unique().tolist()) == {torch.tensor(12 / 255).item(), torch.tensor(8 / 255).item()}
    batch = read_batch(images, torch.arange(7), CPU)
    whole = RULE(view.probe(batch.images), batch, Keys(0, "radii", batch.index), FULL)
    assert flat == int(whole.flat.sum()) > 0
    assert (radii == whole.eps).float().mean() > 0.999  # but for pixels at the threshold

    keep_radii(tmp_path / "radii.safetensors", radii, images)
    budget_of = budgets_from(tmp_path / "radii.safetensors")
    for order in ([0, 1], [6, 2, 0]):
        part = read_batch(images, torch.tensor(order), CPU)
        assert torch.equal(budget_of(part).eps, radii[order])


def test_what_is_missing_or_damaged_is_told(tmp_path, images, view):
    with pytest.raises(UserError, match="missing or damaged"):
        budgets_from(tmp_path / "radii.safetensors")
    (tmp_path / "radii.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="missing or damaged"):
        budgets_from(tmp_path / "radii.safetensors")
