"""The five behaviours: each verdict by hand-made rows, and the audit of an honest and of a masked model."""

import pytest
import torch
from torch import nn

from counterpart.budget import L1, L2, Linf
from counterpart.data.image_sets import ImageSet
from counterpart.data.transforms import as_floats
from counterpart.evaluation import accuracy
from counterpart.evaluation.ledger import Ledger, LedgerRow
from counterpart.evaluation.masking_checks import audit, beyond_luck
from counterpart.report.audits import WITHIN_THE_BUDGET

ITERATIVE, WHITE, UNBOUNDED, RANDOM, GROWS = (
    "iterative attacks beat one step",
    "white-box attacks beat black-box",
    "unbounded attacks reach 100 %",
    "random search finds nothing new",
    "success grows with the radius",
)
EFFORT = {"steps": 10, "queries": 60, "draws": 10}


def rows_of(counts):
    """``{attacks: images}`` -> rows; and two images that were wrong anyway, which no share counts."""
    wrong = [LedgerRow(0, 1, 0, (), 0, 1, 0)] * 2
    return wrong + [LedgerRow(0, 1, 1, fooled, 0, 1, 0) for fooled, n in counts.items() for _ in range(n)]


HONEST = {
    ("FGSM", "PGD", "APGD", "Square", "random search"): 5,
    ("FGSM", "PGD", "APGD", "Square"): 35,
    ("PGD", "APGD"): 10,
    ("APGD",): 5,
    (): 45,
}
RADII = {0.25: 0.1, 0.5: 0.3, 2.0: 0.9, 4.0: 1.0}


def measured(bounded=HONEST, unbounded=1.0, radii=RADII):
    """What the audit says of such rows, and which (attacks, radius) it asked for."""
    asked = []

    def evaluate(attacks, eps, name):
        asked.append(([one.name for one in attacks], eps, name))
        if name == "bounded":
            return rows_of(bounded)
        share = unbounded if name == "unbounded" else radii[float(name.split()[1])]
        return rows_of({("PGD",): round(100 * share), (): 100 - round(100 * share)})

    found = audit(evaluate, "linf", 8 / 255, **EFFORT)
    return {one.name: one for one in found}, asked


def suspicious(**rows):
    return [name for name, one in measured(**rows)[0].items() if not one.honest]


def test_honest_rows():
    found, asked = measured()
    assert list(found) == [ITERATIVE, WHITE, UNBOUNDED, RANDOM, GROWS]
    assert all(one.honest for one in found.values())
    assert found[ITERATIVE].numbers == {"FGSM": 0.4, "PGD": 0.5}
    assert found[WHITE].numbers == {"Square": 0.4, "PGD and APGD": 0.55, "Square alone": 0.0}
    assert found[UNBOUNDED].numbers == {"PGD, unbounded": 1.0}
    assert found[RANDOM].numbers == {"random search": 0.05, "random search alone": 0.0}
    named = {name for behaviour in found.values() for name in behaviour.numbers}
    assert set(WITHIN_THE_BUDGET) - named == {"PGD, straight-through"}  # which audits measure beside these
    assert found[GROWS].numbers == {
        "0.25 eps": 0.1, "0.5 eps": 0.3, "1 eps": 0.5, "2 eps": 0.9, "4 eps": 1.0
    }  # fmt: skip
    assert [(name, eps) for _, eps, name in asked] == [
        ("bounded", 8 / 255), ("unbounded", 1.0), ("radius 0.25", 2 / 255), ("radius 0.5", 4 / 255),
        ("radius 2", 16 / 255), ("radius 4", 32 / 255),
    ]  # fmt: skip
    assert asked[0][0] == ["FGSM", "PGD", "APGD", "Square", "random search"]


@pytest.mark.parametrize(("n", "told"), [(29, False), (30, True)])
def test_a_verdict_rests_on_at_least_thirty_images(n, told):
    found, _ = measured(bounded={("FGSM", "APGD"): n})  # one step fools all of them, and PGD none
    assert {one.n for one in found.values()} == {n}
    assert found[ITERATIVE].numbers == {"FGSM": 1.0, "PGD": 0.0}
    assert found[ITERATIVE].honest is (False if told else None)
    if not told:
        assert {one.verdict for one in found.values()} == {"not enough images to tell: 29 of at least 30"}
        assert {one.honest for one in found.values()} == {None}


def test_one_step_that_finds_more_than_many():
    assert suspicious(bounded={**HONEST, ("FGSM", "APGD"): 14}) == [ITERATIVE]  # 4 of 114 more
    assert suspicious(bounded={**HONEST, ("FGSM", "APGD"): 13}) == []  # 3 of 113 may be luck
    assert "more than many" in measured(bounded={**HONEST, ("FGSM", "APGD"): 20})[0][ITERATIVE].verdict


def test_queries_that_find_what_gradients_do_not():
    assert suspicious(bounded={**HONEST, ("Square",): 4}) == [WHITE]
    assert suspicious(bounded={**HONEST, ("Square",): 3}) == []  # within luck


def test_luck_is_the_binomial_tail():
    """scipy.stats.binom.sf(k - 1, n, 0.01) is 0.33 for 1 of 40, 0.061 for 2, and 0.0075 for 3."""
    assert [beyond_luck(k / 40, 40) for k in range(4)] == [False, False, False, True]
    assert [beyond_luck(k / 1000, 1000) for k in (10, 15, 16, 40)] == [False, False, True, True]
    assert not beyond_luck(-0.5, 40)


def test_random_points_that_find_what_gradients_do_not():
    assert suspicious(bounded={**HONEST, ("random search",): 1}) == [RANDOM]


def test_images_that_stand_without_a_bound():
    assert suspicious(unbounded=0.96) == [UNBOUNDED]
    assert suspicious(unbounded=0.97) == []  # within luck
    assert suspicious(unbounded=1.0) == []


@pytest.mark.parametrize(
    "radii",
    [
        {0.25: 0.1, 0.5: 0.3, 2.0: 0.4, 4.0: 1.0},  # falls from 0.5 at the radius itself
        {0.25: 0.5, 0.5: 0.5, 2.0: 0.5, 4.0: 0.5},  # does not move
    ],
)
def test_success_that_does_not_grow(radii):
    assert suspicious(radii=radii) == [GROWS]


def test_success_that_is_whole_at_every_radius_cannot_grow():
    whole = dict.fromkeys(RADII, 1.0)
    assert GROWS not in suspicious(bounded={("FGSM", "PGD", "APGD"): 100}, radii=whole)


def test_a_model_that_is_always_wrong_has_nothing_to_audit():
    assert measured(bounded={}) == (
        {},
        [(["FGSM", "PGD", "APGD", "Square", "random search"], 8 / 255, "bounded")],
    )


@pytest.fixture(scope="module")
def problem():
    """A small network of two layers, and 30 images that it classifies as their labels say."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3)).eval()
    pixels = torch.randint(0, 256, (30, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = model(as_floats(pixels)).argmax(dim=1)
    images = ImageSet("noise", "test", ("a", "b", "c"), labels, torch.arange(30), "f" * 12, (1, 8, 8), pixels)
    return model, images


def audited(model, images, folder, norm="linf", eps=4 / 255):
    def evaluate(attacks, radius, name):
        budget = {"linf": Linf, "l2": L2, "l1": L1}[norm](radius)
        return accuracy.evaluate(
            model, model, images, attacks, budget_of=lambda _: budget, ledger=Ledger(folder / name, 1),
            procedure=accuracy.Procedure(30, 30, torch.device("cpu"), seed=0, individual=True, save_images=False),
        )  # fmt: skip

    return {one.name: one for one in audit(evaluate, norm, eps, **EFFORT)}


@pytest.mark.parametrize(("norm", "eps"), [("linf", 6 / 255), ("l2", 0.15), ("l1", 1.0)])
def test_an_honest_network_passes_in_every_norm(problem, tmp_path, norm, eps):
    found = audited(*problem, tmp_path, norm, eps)
    assert [one.verdict for one in found.values() if not one.honest] == []
    assert 0.1 < found[GROWS].numbers["1 eps"] < 1  # otherwise this says little


class Around(nn.Module):
    def __init__(self, network, before=lambda x: x, after=lambda x: x):
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, images):
        return self.after(self.network(self.before(images)))


def test_a_staircase_before_the_network_is_found(problem, tmp_path):
    model, images = problem
    stairs = Around(model, before=lambda x: x + ((x * 255).round() / 255 - x).detach() - (x - x.detach()))
    found = audited(stairs, images, tmp_path)
    assert found[UNBOUNDED].numbers["PGD, unbounded"] < 1
    assert not any(found[name].honest for name in (WHITE, UNBOUNDED))


def test_saturated_answers_are_found(problem, tmp_path):
    model, images = problem
    found = audited(Around(model, after=lambda z: (z * 1e6).softmax(dim=1)), images, tmp_path)
    assert not found[WHITE].honest
    assert not found[UNBOUNDED].honest
