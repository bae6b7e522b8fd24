import pytest
import torch

from counterpart.attacks import auto_pgd
from counterpart.attacks.auto_pgd import apgd, checkpoints
from counterpart.budget import L1, L2, Linf
from counterpart.contracts import Probe
from counterpart.losses.classification import cross_entropy, dlr, likely_class, margin


def test_checkpoints_are_the_published_ones():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(20) == [4, 7, *range(9, 21)]
    assert checkpoints(10) == list(range(2, 11))
    assert checkpoints(1) == [1]


def radii(kind):
    per_pixel = 0.02 * torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return {
        "one number": 0.01,
        "per image": torch.linspace(0, 0.02, 64),
        "per pixel": per_pixel,
        "half frozen": per_pixel * (torch.arange(8) < 4),
        "per channel": 0.02 * torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
    }[kind]


@pytest.mark.parametrize("loss", [cross_entropy, margin])
@pytest.mark.parametrize("kind", ["one number", "per image", "per pixel", "half frozen", "per channel"])
def test_linf_fools_a_linear_model_exactly_when_possible(linear_problem, keys, kind, loss):
    model, images, labels = linear_problem
    budget = Linf(radii(kind))
    reach = (model.weight.abs() * budget.radius(images).expand_as(images)).flatten(1).sum(dim=1)
    possible = reach > model.score(images).abs()
    assert 0 < possible.sum() < 64  # otherwise this test says nothing

    attacked = apgd(model, images, labels, budget=budget, keys=keys, loss=loss, steps=40)

    assert budget.contains(attacked.images, images).all()
    assert torch.equal(model(attacked.images).argmax(dim=1) != labels, possible)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("per_image", [False, True])
def test_l2_fools_a_linear_model_exactly_when_possible(linear_problem, keys, frozen, per_image):
    model, images, labels = linear_problem
    movable = (torch.arange(8) < 4).float().expand(64, 1, 8, 8) if frozen else None
    budget = L2(torch.linspace(0.02, 0.08, 64) if per_image else 0.05, movable)
    slope = (model.weight * (1 if movable is None else movable[0])).norm()  # no pixel is near the box
    gap = slope * budget.size(images) - model.score(images).abs()
    clear = gap.abs() > 1e-3 * slope * budget.size(images)
    assert 0 < (gap > 0).sum() < 64

    attacked = apgd(model, images, labels, budget=budget, keys=keys)

    assert budget.contains(attacked.images, images).all()
    assert torch.equal((model(attacked.images).argmax(dim=1) != labels)[clear], (gap > 0)[clear])


@pytest.mark.parametrize("frozen", [False, True])
def test_l1_finds_the_steepest_values(linear_problem, keys, frozen):
    model, images, labels = linear_problem
    movable = (torch.arange(8) < 4).float().expand(64, 1, 8, 8) if frozen else None
    budget = L1(0.3, movable)
    weight = (model.weight * (1 if movable is None else movable[0])).abs().flatten()
    # All of the radius on the steepest value: it may move by 0.3 without meeting the box.
    gap = 0.3 * weight.max() - model.score(images).abs()
    clear = gap.abs() > 0.2 * 0.3 * weight.max()  # 100 steps end with a few values, not with one
    assert 0 < (gap > 0).sum() < 64

    attacked = apgd(model, images, labels, budget=budget, keys=keys)

    assert budget.contains(attacked.images, images).all()
    assert torch.equal((model(attacked.images).argmax(dim=1) != labels)[clear], (gap > 0)[clear])


def test_l1_counts_no_rounding_as_moved(generator):
    """A value that a projection took back up to its last bits would keep the next steps too wide."""
    clean = torch.rand(3, 1, 4, 4, generator=generator) / 2
    images = clean.clone()
    images[:, 0, 0, 0] += 0.5
    images[1, 0, 1] += 2e-7
    images[2, 0, 2] += 1e-3
    budget = L1(torch.tensor([1.0, 1.0, 1.0]))
    assert auto_pgd._moved(images, clean, budget).tolist() == [1, 1, 5]
    assert auto_pgd._moved(images, clean, L1(1e-8)).tolist() == [1, 5, 5]  # of a small radius, 2e-7 is much


def state(**values):
    """The state of a run of three images, of which only some fields matter."""
    nothing = torch.zeros(3)
    images = torch.zeros(3, 1, 5, 8)
    fields = dict.fromkeys(("loss", "rises", "best_loss", "checked_loss", "share", "support"), nothing)
    fields |= dict.fromkeys(("clean", "images", "gradient", "before", "best", "best_gradient"), images)
    rows = torch.arange(3)
    fields |= {"rows": rows, "labels": rows, "targets": None, "eased": torch.zeros(3, dtype=torch.bool)}
    return auto_pgd._Run(**(fields | values))


def test_a_step_is_halved_where_nothing_was_gained_since_the_last_check():
    rises = torch.full((3,), 4.0)  # of 4 steps: no reason by itself
    run = state(
        rises=rises, share=torch.ones(3), checked_loss=torch.ones(3), best_loss=torch.tensor([1, 1, 1.5])
    )
    run.eased = torch.tensor([False, True, False])
    assert auto_pgd._ease(run, 0.75, 11, [7, 11]).tolist() == [True, False, False]
    assert run.share.tolist() == [0.5, 1, 1]
    assert run.eased.tolist() == [True, False, False]
    assert run.checked_loss.tolist() == [1, 1, 1.5]
    assert run.rises.tolist() == [0, 0, 0]


def test_l1_goes_back_to_the_full_step_where_the_best_image_moves_five_percent_fewer_values():
    best = torch.zeros(3, 40)
    for row, count in enumerate((18, 19, 20)):
        best[row, :count] = 0.01
    run = state(
        best=best.view(3, 1, 5, 8), support=torch.full((3,), 20.0), share=torch.tensor([0.5, 0.5, 0.12])
    )
    assert auto_pgd._sparser(run, L1(1.0)).tolist() == [True, False, False]
    torch.testing.assert_close(run.share, torch.tensor([1, 0.5 / 1.5, 0.1]))
    assert run.support.tolist() == [18, 19, 20]


def ten_classes(generator):
    weight = torch.randn(10, 192, generator=generator)
    images = 0.5 + 0.05 * torch.randn(64, 3, 8, 8, generator=generator)

    def model(x):
        return x.flatten(1) @ weight.T

    return model, images, model(images).argmax(dim=1), weight


@pytest.mark.parametrize("loss", [cross_entropy, margin, dlr])
def test_targeted_reaches_the_target(generator, keys, loss):
    model, images, labels, weight = ten_classes(generator)
    targets = likely_class(model(images), labels, 3)
    eps = 0.04
    reach = eps * (weight[targets] - weight[labels]).abs().sum(dim=1)
    possible = margin(model(images), labels, targets) + reach > 0
    assert 0 < possible.sum() < 64
    options = {"budget": Linf(eps), "keys": keys, "loss": loss, "steps": 40}
    ranked = apgd(model, images, labels, target=3, **options)
    given = apgd(model, images, labels, target=targets, **options)
    assert torch.equal(ranked.images, given.images)
    assert torch.equal(ranked.forwards, given.forwards + 1)  # the clean pass that ranks the classes
    fooled = model(given.images).argmax(dim=1) != labels
    assert fooled[possible].all()  # others may meet another class on the way


def test_result_does_not_depend_on_the_rest_of_the_batch(linear_problem, keys):
    model, images, labels = linear_problem
    for budget in (Linf(0.004), L2(0.03), L1(0.2)):
        options = {"budget": budget, "steps": 12, "restarts": 2}
        together = apgd(model, images, labels, keys=keys, **options)
        assert len(together.forwards.unique()) > 1  # some were retired early
        for i in (0, 9, 33):
            alone = apgd(model, images[i : i + 1], labels[i : i + 1], keys=keys[i : i + 1], **options)
            assert torch.equal(alone.images, together.images[i : i + 1])
            assert alone.forwards == together.forwards[i]
            assert alone.backwards == together.backwards[i]


def test_counts_passes(linear_problem, keys):
    model, images, labels = linear_problem
    seen = []

    def counting(x):
        seen.append(len(x))
        return model(x)

    spent = apgd(counting, images, labels, budget=Linf(0.004), keys=keys, steps=8, restarts=2, eot=3)
    assert spent.forwards.sum() == sum(seen)
    held = model(spent.images).argmax(dim=1) == labels
    assert (spent.forwards[held] == 2 * 3 * 9).all()
    assert (spent.backwards[held] == 2 * 3 * 8).all()


def test_start_is_a_tensor_or_a_probe(linear_problem, keys):
    model, images, labels = linear_problem
    elsewhere = (images + 0.1).clamp(0, 1)  # outside the budget: projected first
    given = apgd(model, images, labels, budget=L2(0.02), keys=keys, start=elsewhere, steps=4)
    probe = Probe(elsewhere.requires_grad_(), model(elsewhere))
    probed = apgd(model, images, labels, budget=L2(0.02), keys=keys, start=probe, steps=4)
    assert torch.equal(given.images, probed.images)
    assert L2(0.02).contains(given.images, images).all()
    drawn = apgd(model, images, labels, budget=L2(0.02), keys=keys, steps=4)
    assert not torch.equal(given.images, drawn.images)


def test_averages_random_gradients(linear_problem, keys):
    model, images, labels = linear_problem
    torch.manual_seed(0)

    def noisy(x):
        # The noise flips most gradients; its mean is the model.
        return model(x) + (10 * torch.randn(len(x), 3, 8, 8) * (x - x.detach())).flatten(1).sum(1)[
            :, None
        ] * torch.tensor([-1.0, 1.0])

    reach = 0.01 * model.weight.abs().sum()
    gains = {}
    for eot in (1, 50):
        attacked = apgd(noisy, images, labels, budget=Linf(0.01), keys=keys, steps=5, eot=eot, loss=margin)
        gains[eot] = ((model.score(images) - model.score(attacked.images)).abs() / reach).mean()
    assert gains[50] > gains[1] + 0.1


def test_leaves_misclassified_images_at_their_start(linear_problem, keys):
    model, images, labels = linear_problem
    attacked = apgd(model, images, 1 - labels, budget=Linf(1e-4), keys=keys, start=images)
    assert torch.equal(attacked.images, images)
    assert (attacked.forwards == 1).all()
    assert (attacked.backwards == 0).all()


def test_refuses_what_cannot_be(linear_problem, keys):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match="Divide 8-bit images by 255"):
        apgd(model, images * 255, labels, budget=Linf(8 / 255), keys=keys)
    with pytest.raises(ValueError, match=r"label 2 is outside 0\.\.1"):
        apgd(model, images, labels + 1, budget=Linf(0.1), keys=keys)
    with pytest.raises(ValueError, match="DLR loss needs 3 classes, got 2"):
        apgd(model, images, labels, budget=Linf(0.1), keys=keys, loss=dlr)
