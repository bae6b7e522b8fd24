import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch

from counterpart.attacks import pgd
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.contracts import Perturbed
from counterpart.importance import controls, rules
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.objectives import adversarial, n_fgsm, standard
from counterpart.objectives.standard import cross_entropy_loss
from counterpart.seeding import Keys, seeded

EPS, LOW = 8 / 255, 4 / 255
KEYS = Keys(0, "train", torch.arange(6))


class CountingView:
    """Counts forward passes."""

    def __init__(self, view):
        self.view, self.probes, self.passes = view, [], 0

    def __call__(self, images):
        self.passes += 1
        return self.view(images)

    def probe(self, images):
        self.probes.append(images)
        return self.view.probe(images)


@pytest.fixture
def model():
    with seeded(1):
        return create("resnet18", 4, width=8)


@pytest.fixture
def batch(generator):
    return Batch(torch.rand(6, 3, 32, 32, generator=generator), torch.arange(6) % 4, torch.arange(6))


def part_rule(eps_low=LOW, control=controls.none):
    return partial(rules.draw_budget, eps_low=eps_low, control=control)


def at():
    return adversarial(budget=Linf(EPS), rule=rules.constant, steps=3, step_size=2 / 255)


def test_what_a_map_was_drawn_from_is_gone_before_the_second_step(model, batch):
    features_seen = []

    def rule(probe, batch, keys, full):
        features_seen.append(weakref.ref(probe.features))
        return Linf(EPS)

    class Attacked(CountingView):
        def __call__(self, images):
            assert features_seen[0]() is None
            return super().__call__(images)

    for drawn_from in ("start", "clean"):
        view = Attacked(InferenceView(model))
        objective = adversarial(budget=Linf(EPS), rule=rule, steps=2, drawn_from=drawn_from)
        objective.perturb(view, batch, KEYS)
        assert view.passes == 1 + (drawn_from == "clean")
        features_seen.clear()


def part(**options):
    drawn_from = options.pop("drawn_from", "start")
    return adversarial(
        budget=Linf(EPS), rule=part_rule(**options), steps=3, step_size=4 / 255, drawn_from=drawn_from
    )


def test_standard_leaves_images_alone(model, batch):
    objective = standard()
    perturbed = objective.perturb(InferenceView(model), batch, KEYS)
    assert perturbed.images is batch.images
    loss = objective.loss(model, batch, perturbed)
    torch.testing.assert_close(
        loss.total, torch.nn.functional.cross_entropy(model(batch.images), batch.labels)
    )
    loss.total.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    "made", [standard, lambda **o: adversarial(budget=Linf(EPS), rule=part_rule(), steps=1, **o)]
)
def test_smoothed_labels_lie_between_the_true_class_and_all_classes(model, batch, made):
    model.eval()
    logs = model(batch.images).log_softmax(dim=1)
    labels = torch.full((6, 4), 0.1 / 4)
    labels[torch.arange(6), batch.labels] += 0.9
    loss = made(label_smoothing=0.1).loss(model, batch, Perturbed(batch.images))
    torch.testing.assert_close(loss.total, -(labels * logs).sum(dim=1).mean())


@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy_loss,
        n_fgsm(budget=Linf(EPS), rule=part_rule()).loss,
        adversarial(budget=Linf(EPS), rule=part_rule(), steps=1).loss,
    ],
)
def test_labels_are_not_smoothed_unless_asked(model, batch, loss):
    model.eval()
    plain = torch.nn.functional.cross_entropy(model(batch.images), batch.labels)
    torch.testing.assert_close(loss(model, batch, Perturbed(batch.images)).total, plain)


def test_the_attack_knows_nothing_of_smoothed_labels(model, batch):
    view, options = InferenceView(model), {"budget": Linf(EPS), "rule": part_rule(), "steps": 2}
    ends = [adversarial(**options, label_smoothing=s).perturb(view, batch, KEYS).images for s in (0.0, 0.9)]
    assert torch.equal(*ends)


def test_the_mask_costs_no_pass(model, batch):
    view = CountingView(InferenceView(model))
    part().perturb(view, batch, KEYS)
    assert (len(view.probes), view.passes) == (1, 2)  # three steps, three passes: the probe is the first
    start = Linf(EPS).sample(batch.images, KEYS)
    assert torch.equal(view.probes[0], start)  # a random start in the full ball


def test_a_clean_mask_costs_one_pass(model, batch):
    view = CountingView(InferenceView(model))
    part(drawn_from="clean").perturb(view, batch, KEYS)
    assert (len(view.probes), view.passes) == (1, 3)
    assert torch.equal(view.probes[0], batch.images)


@pytest.mark.parametrize("drawn_from", ["start", "clean"])
def test_the_attack_stays_in_the_drawn_budget_and_uses_it(model, batch, drawn_from):
    perturbed = part(drawn_from=drawn_from).perturb(InferenceView(model), batch, KEYS)
    assert perturbed.budget.contains(perturbed.images, batch.images).all()
    moved = (perturbed.images - batch.images).abs().amax(dim=1, keepdim=True)
    high = perturbed.budget.eps == torch.tensor(EPS)
    assert high.any()
    assert (moved[high] > LOW + 1e-4).any()
    assert perturbed.counts["radius"] == pytest.approx(float(perturbed.budget.eps.mean(dim=(1, 2, 3)).sum()))


@pytest.mark.parametrize(("multiply", "least", "most"), [(False, 3.9, 4), (True, 1.9, 2)])
def test_a_mask_that_multiplies_holds_unimportant_pixels_back(model, batch, multiply, least, most):
    """From the clean images with steps of 2/255 and LOW half of EPS: m a / (1 - m) is 2/255, and not 4/255."""
    inside = replace(batch, images=0.1 + 0.8 * batch.images)
    rule = partial(rules.draw_budget, eps_low=LOW, multiply=multiply)
    objective = adversarial(budget=Linf(EPS), rule=rule, steps=20, step_size=2 / 255)
    perturbed = objective.perturb(InferenceView(model), inside, KEYS)
    low = (perturbed.budget.eps == torch.tensor(LOW)).expand_as(inside.images)
    moved = 255 * (perturbed.images - inside.images).abs()[low].amax()
    assert least < moved < most + 1e-3
    assert 255 * (perturbed.images - inside.images).abs()[~low].amax() > 7.9


def test_flat_maps_are_counted_where_a_mask_draws_the_budget(model, batch):
    class Flat(InferenceView):
        def probe(self, images):
            probe = super().probe(images)
            return replace(
                probe, features=probe.features * (torch.arange(len(images)) > 1)[:, None, None, None]
            )

    counted = part().perturb(Flat(model), batch, KEYS).counts
    assert (
        counted["flat_maps"]
        == 2
        + part().perturb(InferenceView(model), batch.select(slice(2, None)), KEYS[2:]).counts["flat_maps"]
    )
    assert part(eps_low=EPS).perturb(Flat(model), batch, KEYS).counts["flat_maps"] == counted["flat_maps"]
    assert set(at().perturb(InferenceView(model), batch, KEYS).counts) == {"radius"}


def test_equal_radii_reproduce_at_bit_for_bit(model, batch):
    view = InferenceView(model)
    both = [
        adversarial(budget=Linf(EPS), rule=rule, steps=3, step_size=2 / 255).perturb(view, batch, KEYS).images
        for rule in (part_rule(eps_low=EPS), rules.constant)
    ]
    assert torch.equal(*both)
    control = part_rule(eps_low=EPS, control=controls.uniform)
    objective = adversarial(budget=Linf(EPS), rule=control, steps=3, step_size=2 / 255)
    assert torch.equal(objective.perturb(view, batch, KEYS).images, both[0])


@pytest.mark.parametrize(("share", "label"), [(1.0, 2), (0.0, 1)])
def test_the_accuracy_is_the_share_of_images_that_are_right(batch, share, label):
    class Always(torch.nn.Module):
        def forward(self, images):
            return torch.tensor([0.0, 0.5, 2.0, 1.0]).expand(len(images), 4)

    told = replace(batch, labels=torch.full((6,), label))
    assert standard().loss(Always(), told, Perturbed(batch.images)).terms["accuracy"] == share


def test_the_loss_is_that_of_the_perturbed_images(model, batch):
    objective = at()
    perturbed = objective.perturb(InferenceView(model), batch, KEYS)
    model.eval()
    with torch.no_grad():
        on_clean = torch.nn.functional.cross_entropy(model(batch.images), batch.labels)
        loss = objective.loss(model, batch, perturbed)
    assert loss.total > on_clean
    assert set(loss.terms) == {"accuracy"}


def test_the_default_step_is_that_of_the_full_budget_for_every_rule(model, batch, monkeypatch):
    """Otherwise PART and its control would differ in their steps as well."""
    given, real = [], pgd

    def watch(*arguments, step_size, **options):
        given.append(step_size)
        return real(*arguments, step_size=step_size, **options)

    monkeypatch.setattr("counterpart.objectives.crafting.pgd", watch)
    for control in (controls.none, controls.uniform):
        objective = adversarial(budget=Linf(EPS), rule=part_rule(control=control), steps=5)
        objective.perturb(InferenceView(model), batch, KEYS)
    assert len(given) == 2
    for step in given:
        torch.testing.assert_close(step, torch.full((6,), EPS / 2))
