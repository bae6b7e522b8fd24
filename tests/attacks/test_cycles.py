"""A climb that walks in circles stops early, where it would have stopped."""

import pytest
import torch
from torch import nn

from counterpart.attacks import pgd, projected_gradient
from counterpart.attacks.cycles import drops_anchor, last_step
from counterpart.budget import Linf
from counterpart.seeding import Keys

EXACT = {
    "budget": Linf(1 / 8),
    "step_size": 1 / 64,
    "random_start": False,
}  # steps that float32 adds without rounding


class Bowl(nn.Module):
    """A model that is least sure of itself where each pixel has a value of its own, which sign steps pass by."""

    def __init__(self, lowest):
        super().__init__()
        self.register_buffer("lowest", lowest)

    def forward(self, images):
        height = 1 + (images - self.lowest).square().flatten(1).sum(dim=1)
        return torch.stack([height, -height], dim=1)


class NoisyBowl(Bowl):
    def forward(self, images):
        return super().forward(images) + 1e-3 * torch.rand(())


@pytest.fixture
def bowl_and_batch(generator):
    steps_away = torch.randint(-6, 7, (3, 4, 4), generator=generator) + 1 / 3  # no step meets it
    return Bowl(0.5 + steps_away / 64), torch.full((5, 3, 4, 4), 0.5), torch.zeros(5, dtype=torch.long)


@pytest.mark.parametrize("steps", [17, 30, 31, 60, 61])
def test_a_circle_ends_where_all_steps_would(bowl_and_batch, keys, monkeypatch, steps):
    model, images, labels = bowl_and_batch
    early = pgd(model, images, labels, keys=keys, steps=steps, **EXACT)
    monkeypatch.setattr(projected_gradient, "drops_anchor", lambda step: False)
    whole = pgd(model, images, labels, keys=keys, steps=steps, **EXACT)

    assert torch.equal(early.images, whole.images)
    assert (whole.forwards == steps + 1).all()
    # It circles by two steps from the seventh on at the latest: the anchor of step 16 is met in step 18.
    found = 18 if steps >= 18 else steps
    assert (early.forwards == last_step(found, steps, 2) + 1).all()


def test_rows_that_circle_leave_and_others_go_on(bowl_and_batch, keys, monkeypatch):
    """A batch of which some rows fall, some circle soon, and some late, as their steps differ."""
    model, images, labels = bowl_and_batch
    lengths = torch.tensor([1 / 64, 1 / 64, 1 / 512, 1 / 1024, 1 / 64])
    labels[4] = 1  # answered wrongly from the start

    def attacked():
        return pgd(
            model, images, labels, budget=Linf(1 / 8), keys=keys, steps=150,
            step_size=lengths, random_start=False,
        )  # fmt: skip

    early = attacked()
    monkeypatch.setattr(projected_gradient, "drops_anchor", lambda step: False)
    whole = attacked()

    assert torch.equal(early.images, whole.images)
    assert whole.forwards.tolist() == [151, 151, 151, 151, 1]
    # The ways are 7, 51 and 102 steps long. The anchors of steps 16, 64 and 128 are met two steps later.
    assert early.forwards.tolist() == [19, 19, 67, 131, 1]


def test_a_model_that_draws_its_answers_is_asked_to_the_end(bowl_and_batch, keys):
    model, images, labels = bowl_and_batch
    attacked = pgd(NoisyBowl(model.lowest), images, labels, keys=keys, steps=30, **EXACT)
    assert (attacked.forwards == 31).all()


def test_training_takes_every_step(bowl_and_batch, keys):
    model, images, labels = bowl_and_batch
    assert (pgd(model, images, labels, keys=keys, steps=30, last_iterate=True, **EXACT).forwards == 30).all()


def test_every_circle_is_found():
    """Whatever the step at which a circle begins and its length, the anchor comes to lie on it."""
    for begin in range(40):
        for period in range(1, 20):
            anchor = None
            for step in range(200):
                place = step if step < begin else begin + (step - begin) % period
                if anchor is not None and place == anchor[1]:
                    break
                if drops_anchor(step):
                    anchor = step, place
            assert step <= 2 * max(16, 2 * begin, 2 * period)
            for steps in range(step, step + 3 * period):
                stop = last_step(step, steps, step - anchor[0])
                assert step <= stop <= steps
                assert (steps - stop) % period == 0


def test_a_row_circles_as_it_does_alone(bowl_and_batch):
    """The same result whichever rows share the batch, also where some leave by a circle."""
    model, images, labels = bowl_and_batch
    keys = Keys(0, "cycles", torch.arange(5))
    budget = {"budget": Linf(1 / 8), "step_size": 1 / 64, "steps": 40}
    together = pgd(model, images, labels, keys=keys, **budget)
    rows = [slice(row, row + 1) for row in range(5)]
    alone = [pgd(model, images[row], labels[row], keys=keys[row], **budget) for row in rows]
    assert torch.equal(together.images, torch.cat([attacked.images for attacked in alone]))
    assert torch.equal(together.forwards, torch.cat([attacked.forwards for attacked in alone]))
