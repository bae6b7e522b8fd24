"""Models whose answers are random: shares of draws, votes, averaged gradients, fixed noise, and all of it again."""

import json
import math
from statistics import NormalDist

import numpy
import pytest
import torch
from torch import nn

import counterpart as cp
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.evaluation.drawn import chosen_share, vote
from counterpart.rundir import read_json

SIGMA, EPS = 0.2, 0.03
PIXELS = 16
PASSES = NormalDist().cdf


class NoisyLinear(nn.Module):
    """Two classes by the sign of w.x + b + sigma n, with n drawn for each image in each pass."""

    def __init__(self, sigma=SIGMA, draw=None):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.6, 1.0, PIXELS))
        self.sigma, self.draw = sigma, draw or (lambda like: torch.randn_like(like))

    def margin(self, images):
        return images.flatten(1) @ self.weight - 1.6

    def forward(self, images):
        score = self.margin(images)
        score = score + self.sigma * self.draw(score)
        return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.fixture
def problem():
    """Images (N, 1, 4, 4) away from 0 and 1, and the labels that the model would give them without noise."""
    images = 0.2 + 0.6 * torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        labels = (NoisyLinear().margin(images) > 0).long()
    return NoisyLinear(), images, labels


def right_passes(model, images, labels, eps):
    """The probability that a pass is right on each image, under the worst perturbation."""
    with torch.no_grad():
        lead = model.margin(images) * (2 * labels - 1) - eps * model.weight.abs().sum()
    return [PASSES(value / model.sigma) for value in lead.tolist()]


def wins(share, votes):
    """The probability that more than half of an odd number of passes are right."""
    return sum(
        math.comb(votes, k) * share**k * (1 - share) ** (votes - k) for k in range(votes // 2 + 1, votes + 1)
    )


OPTIONS = {"eps": EPS, "attacks": "pgd", "eot": 4}


@pytest.mark.parametrize(("draws", "votes"), [(300, 1), (60, 5)])
def test_of_a_noisy_linear_model_shares_are_the_closed_form(problem, draws, votes):
    model, images, labels = problem
    judged = cp.evaluate(model, (images, labels), draws=draws, votes=votes, **OPTIONS)
    for name, line, eps in (("clean", "clean", 0), ("PGD-20 eot 4", "worst case", EPS)):
        expected = [wins(share, votes) for share in right_passes(model, images, labels, eps)]
        for row, share in zip(judged.rows, expected, strict=True):
            for counted in (row.first, row.fresh):
                spread = math.sqrt(share * (1 - share) / draws)
                assert counted.get(name, 0) / draws == pytest.approx(share, abs=4.5 * spread + 1.5 / draws)
        assert judged[line].low < sum(expected) / len(expected) < judged[line].high
        assert judged[line].value == pytest.approx(sum(expected) / len(expected), abs=0.02)
    assert judged["worst case"].value < judged["clean"].value - 0.1
    assert "random answers" not in [doubt.name for doubt in judged.doubts]
    assert "over images and draws" in repr(judged)


def test_one_draw_and_an_attack_that_stops_at_a_chance_hit_find_less(problem):
    model, images, labels = problem
    once = cp.evaluate(model, (images, labels), eps=EPS, attacks=[{"attack": "pgd", "steps": 1}])
    [doubt] = [doubt for doubt in once.doubts if doubt.name == "random answers"]
    for setting in ("--evaluate.draws", "--evaluate.eot", "--evaluate.votes", "--evaluate.fixed-noise"):
        assert setting in doubt.text
    assert not once.rows[0].first
    drawn = cp.evaluate(model, (images, labels), eps=EPS, attacks="pgd", draws=20)
    [doubt] = [doubt for doubt in drawn.doubts if doubt.name == "random answers"]
    assert "--evaluate.eot" in doubt.text
    assert "--evaluate.draws" not in doubt.text


def test_votes_go_to_the_class_with_most_and_then_to_the_lowest():
    answers = torch.tensor([[2, 3, 1, 0], [1, 3, 1, 5], [2, 0, 0, 0], [1, 1, 2, 5]])
    assert vote(answers).tolist() == [1, 3, 1, 0]
    assert vote(answers[:3]).tolist() == [2, 3, 1, 0]
    assert vote(answers[:1]).tolist() == answers[0].tolist()


def test_the_worst_attack_is_chosen_on_draws_of_its_own():
    first, fresh = {"clean": 9, "A": 4, "B": 3, "C": 3}, {"clean": 8, "A": 2, "B": 5, "C": 1}
    assert chosen_share(first, fresh, ["clean", "A", "B", "C"], 10) == 0.5
    assert chosen_share(first, fresh, ["clean", "A"], 10) == 0.2
    assert chosen_share(first, fresh, ["clean", "not met"], 10) == 0.8


def test_many_attacks_that_are_alike_do_not_make_a_model_look_weaker(problem):
    model, images, labels = problem
    attacks = [{"attack": "pgd", "steps": steps} for steps in range(10, 22)]
    judged = cp.evaluate(model, (images, labels), eps=EPS, attacks=attacks, draws=8, eot=2)
    shares = right_passes(model, images, labels, EPS)
    expected = sum(shares) / len(shares)
    assert judged["worst case"].value == pytest.approx(expected, abs=0.05)
    smallest = [min(row.first.values()) / 8 for row in judged.rows]
    assert sum(smallest) / 60 < expected - 0.1  # which is what the worst on the same draws would say


def test_an_evaluation_that_was_killed_goes_on_with_the_same_draws(problem, tmp_path):
    model, images, labels = problem
    options = {**OPTIONS, "draws": 6, "changes": {"evaluate.chunk_size": 20, "evaluate.batch_size": 7}}
    state = torch.get_rng_state(), numpy.random.get_state()[1].tolist()  # noqa: NPY002
    whole = cp.evaluate(model, (images, labels), folder=tmp_path / "a", **options)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert numpy.random.get_state()[1].tolist() == state[1]  # noqa: NPY002
    units = sorted((tmp_path / "a").rglob("units/*.json"))
    assert len(units) == 6
    for file in units[1::2]:
        file.unlink()
    torch.manual_seed(99)
    again = cp.evaluate(model, (images, labels), folder=tmp_path / "a", **options)
    in_memory = cp.evaluate(model, (images, labels), **options)
    assert again.rows == whole.rows == in_memory.rows
    assert cp.evaluate(model, (images, labels), seed=1, **options).rows != whole.rows


def test_verify_draws_again_and_notices_counts_that_were_changed(problem, tmp_path, capsys):
    model, images, labels = problem
    options = {**OPTIONS, "draws": 6, "votes": 2, "changes": {"evaluate.batch_size": 25}}
    judged = cp.evaluate(model, (images, labels), folder=tmp_path / "a", **options)
    verified = judged.verify()
    assert verified.mismatches == []
    assert verified.claims == 60 + len(judged.rows) - sum(row.first["clean"] == 0 for row in judged.rows)
    file = next((tmp_path / "a").rglob("units/PGD*.json"))
    unit = read_json(file)
    unit["fresh"][3] = 6 - unit["fresh"][3] or 5
    file.write_text(json.dumps(unit))
    [mismatch] = judged.verify().mismatches
    assert "is right in another number of draws" in mismatch


def test_a_model_with_generators_of_its_own_draws_from_them_by_the_seed(problem):
    _, images, labels = problem
    generator = torch.Generator().manual_seed(5)
    model = NoisyLinear()
    model.generator = generator
    model.draw = lambda like: torch.randn(like.shape, generator=model.generator)
    before = generator.get_state()
    first, second = (cp.evaluate(model, (images, labels), draws=4, **OPTIONS) for _ in range(2))
    assert torch.equal(generator.get_state(), before)
    assert first.rows == second.rows
    assert [doubt.name for doubt in first.doubts] == []


def test_draws_that_nobody_can_seed_are_doubted_and_so_are_those_of_a_whole_batch(problem):
    _, images, labels = problem
    hidden = torch.Generator()
    model = NoisyLinear(draw=lambda like: torch.randn(like.shape, generator=hidden))
    judged = cp.evaluate(model, (images, labels), draws=4, **OPTIONS)
    assert [doubt.name for doubt in judged.doubts] == ["draws that no seed repeats"]
    shared = NoisyLinear(draw=lambda like: torch.randn(1).expand_as(like))
    judged = cp.evaluate(shared, (images, labels), draws=4, **OPTIONS)
    assert [doubt.name for doubt in judged.doubts] == ["draws shared by a batch"]
    judged = cp.evaluate(NoisyLinear(0.0), (images, labels), draws=4, **OPTIONS)
    assert [doubt.name for doubt in judged.doubts] == ["no random answers"]


def test_with_fixed_noise_the_model_is_deterministic(problem):
    """The noise of a pass on one image is one number: the same for every image, so that the bias moves by it."""
    model, images, labels = problem
    judged = cp.evaluate(model, (images, labels), eps=EPS, attacks="pgd", fixed_noise=True)
    assert [doubt.name for doubt in judged.doubts if doubt.name != "clean accuracy near chance"] == []
    lead = model.margin(images).detach() * (2 * labels - 1)
    reach = EPS * model.weight.abs().sum().item()
    fits = []
    for shift in torch.linspace(-0.8, 0.8, 801).tolist():
        moved = lead + shift * (2 * labels - 1)
        expected = [(bool(m > 0), bool(m > reach)) for m in moved]
        fits.append(expected == [(row.right, row.fooled_by == "") for row in judged.rows])
    assert any(fits)
    assert (
        judged.rows
        == cp.evaluate(
            model,
            (images, labels),
            eps=EPS,
            attacks="pgd",
            fixed_noise=True,
            changes={"evaluate.batch_size": 7},
        ).rows
    )
    assert judged.verify().mismatches == []


def test_radii_and_unions_take_the_worst_of_all_that_an_image_met(problem):
    model, images, labels = problem
    options = {"attacks": "pgd", "eot": 2, "draws": 30}
    curve = cp.evaluate(model, (images, labels), eps=[0.01, EPS], **options)
    for accuracy in curve.curve():
        shares = right_passes(model, images, labels, accuracy.eps)
        assert accuracy.value == pytest.approx(sum(shares) / len(shares), abs=0.04)
    union = cp.evaluate(model, (images, labels), norm=["linf", "l2"], eps=[EPS, 0.01], **options)
    alone = cp.evaluate(model, (images, labels), eps=EPS, **options)
    assert union["linf"].value == union.members["linf"]["worst case"].value == alone["worst case"].value
    assert union["worst case"].value == pytest.approx(alone["worst case"].value, abs=0.02)
    assert union["clean"].value == alone["clean"].value


def test_a_report_shows_how_it_was_judged(problem, tmp_path):
    model, images, labels = problem
    judged = cp.evaluate(model, (images, labels), folder=tmp_path / "a", draws=3, **OPTIONS)
    page = judged.report(tmp_path / "page.html").read_text()
    assert "3 draws, eot 4" in page
    table = next((tmp_path / "a").rglob("images.csv")).read_text().splitlines()
    assert table[0].split(",")[-1] == "share"
    shares = [float(line.split(",")[-1]) for line in table[1:]]
    assert sum(shares) / 60 == pytest.approx(judged["worst case"].value)
    assert len(judged.images("PGD-20 eot 4")) == sum(bool(row.fooled) for row in judged.rows)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"draws": 0}, "evaluate.draws = 0"),
        ({"votes": -1}, "evaluate.votes = -1"),
        ({"eot": 0}, "evaluate.eot = 0"),
        ({"changes": {"evaluate.draws": 2.5}}, "evaluate.draws = 2.5"),
        ({"draws": 5, "fixed_noise": True}, "evaluate.draws 5 has no effect with evaluate.fixed_noise"),
        (
            {"eot": 5, "attacks": "fab"},
            "attack fab does not average: take pgd, fgsm, apgd or autoattack-rand",
        ),
        ({"draws": 5, "attacks": "autoattack"}, "attack autoattack does not average"),
        ({"draws": 5, "changes": {"evaluate.precision": "bf16"}}, "does not go with evaluate.precision bf16"),
        ({"fixed_noise": True, "changes": {"evaluate.parts": True}}, "parts does not go with it"),
    ],
)
def test_bad_values_are_refused_in_one_line(problem, given, words):
    model, images, labels = problem
    with pytest.raises(UserError) as raised:
        cp.evaluate(model, (images, labels), eps=EPS, **{"attacks": "pgd", **given})
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_autoattack_for_random_models_takes_other_numbers_of_passes(problem):
    model, images, labels = problem
    some = (images[:6], labels[:6])
    judged = cp.evaluate(model, some, eps=EPS, attacks="autoattack-rand", draws=4, eot=2)
    assert judged.keys() == ["clean", "apgd-ce eot 2", "apgd-dlr eot 2", "worst case"]


def test_an_audit_refuses_draws(problem):
    model, images, labels = problem
    with pytest.raises(UserError, match=r"evaluate\.draws is for counterpart evaluate"):
        cp.audit(model, (images, labels), eps=EPS, changes={"evaluate.draws": 3})


def test_the_command_takes_them_without_their_section(tmp_path, monkeypatch, capsys):
    (tmp_path / "noisynets.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.drop = nn.Dropout(0.5)\n        self.head = nn.Linear(256, 10)\n\n"
        "    def train(self, mode=True):\n        super().train(mode)\n        self.drop.training = True\n"
        "        return self\n\n    def forward(self, images):\n"
        "        return self.head(self.drop(images.flatten(1)))\n\n\ndef dropout():\n    torch.manual_seed(0)\n"
        "    return Net()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    command = ["evaluate", "noisynets:dropout", "--data.name", "digits", "--n", "20", "--norm", "linf"]
    assert main([*command, "--eps", "0.1", "--draws", "4", "--votes", "3", "--eot", "2"]) == 0
    shown = capsys.readouterr()
    assert "4 draws of 3 votes, eot 2" in " ".join(shown.out.split())
    assert "training mode" in shown.err
    assert main(["verify", "runs/noisynets-dropout"]) == 0
