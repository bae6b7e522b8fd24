import csv
import math
from functools import partial

import pytest
import torch
from scipy.stats import norm
from torch import nn

from counterpart.attacks import pgd
from counterpart.budget import L2, Linf
from counterpart.contracts import Attacked, NamedAttack
from counterpart.data.image_sets import ImageSet
from counterpart.errors import UserError
from counterpart.evaluation import summaries
from counterpart.evaluation.accuracy import Procedure, chunks_of, evaluate
from counterpart.evaluation.answers import judge, predictions
from counterpart.evaluation.ledger import Ledger
from counterpart.evaluation.summaries import metrics
from counterpart.evaluation.validation import quick
from counterpart.evaluation.weights import weights_hash
from counterpart.progress import Bar
from counterpart.progress.pace import Pace
from counterpart.progress.surfaces import Surface
from counterpart.statistics import wilson

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Class 1 where the mean exceeds one half: robust exactly where it is farther than the radius from it."""

    def forward(self, images):
        gap = (images - 0.5).flatten(1).mean(dim=1)
        return torch.stack([-gap, gap], dim=1)


@pytest.fixture
def images():
    """40 flat images of grey 88 .. 166 in steps of 2, labelled correctly but for two."""
    grey = torch.arange(88, 168, 2)
    labels = (grey > 127).long()
    labels[[0, 39]] = 1 - labels[[0, 39]]
    pixels = grey.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return ImageSet(
        "flat", "test", ("dark", "light"), labels, torch.arange(40) + 100, "f" * 12, (1, 4, 4), pixels
    )


def run(images, folder, attacks, model=None, view=None, eps=16 / 255, **options):
    model = model or Brightness()
    shown = {name: options.pop(name) for name in ("title", "bar") if name in options}
    procedure = Procedure(**{"chunk_size": 12, "batch_size": 5, "device": CPU, "seed": 0, **options})
    ledger = Ledger(folder, chunks_of(images, procedure.chunk_size))
    budgets = {"budget_of": lambda _: Linf(eps)}
    return evaluate(
        model, view or model, images, attacks, ledger=ledger, procedure=procedure, **budgets, **shown
    )


def named(name, attack):
    return NamedAttack(name, attack, name)


PGD = named("PGD-10", pgd)


def test_every_image_is_judged_exactly(images, tmp_path):
    rows = run(images, tmp_path, [PGD])
    grey = images.pixels[:, 0, 0, 0].int()
    distance = (grey / 255 - 0.5).abs()
    assert [r.index for r in rows] == images.index.tolist()
    for i, row in enumerate(rows):
        wrong = i in (0, 39)
        expected = "clean" if wrong else "PGD-10" if distance[i] < 16 / 255 else ""
        assert row.fooled_by == expected, (i, row)
        assert row.clean == (1 - row.label if wrong else row.label)
    records = {r.name: r for r in metrics(rows, images.classes, [PGD], {"method": "AT"}, 3.0)}
    assert records["accuracy/clean"].value == 38 / 40
    robust = sum(r.fooled_by == "" for r in rows)
    assert 0 < robust < 38
    assert records["accuracy/worst case"].value == robust / 40
    assert records["accuracy/worst case"].interval == wilson(robust, 40)
    assert records["accuracy/clean"].details["per_class"] == {"dark": [19, 20], "light": [19, 20]}
    assert records["accuracy/clean"].n == 40


def test_what_fools_the_view_alone_is_attacked_once_more_on_the_model(images, tmp_path):
    class Shifted(Brightness):
        def forward(self, images):
            return super().forward(
                images - 4 / 255
            )  # its boundary lies elsewhere: light images fall to it too early

    def first(model, images, labels, *, budget, keys, start=None):
        return pgd(model, images, labels, budget=budget, keys=keys, steps=40, random_start=False)

    direct = run(images, tmp_path / "direct", [named("first", first)])
    rows = run(images, tmp_path / "view", [named("first", first)], view=Shifted())
    light = [i for i, row in enumerate(rows) if row.label == 1]
    assert [rows[i].fooled_by for i in light] == [direct[i].fooled_by for i in light]
    assert sum(row.forwards for row in rows) > sum(row.forwards for row in direct)


def lying(model, images, labels, *, budget, keys, start=None):
    """Claims whatever it likes: leaves the budget by far, and always fools."""
    return Attacked(1 - images, torch.ones_like(labels), torch.zeros_like(labels))


def lazy(model, images, labels, *, budget, keys, start=None):
    return Attacked(images, torch.ones_like(labels), torch.zeros_like(labels))


def test_the_evaluator_does_not_believe_attacks(images, tmp_path):
    rows = run(images, tmp_path, [named("liar", lying)], eps=0.5 / 255)
    assert {r.fooled_by for r in rows} == {"clean", ""}
    wide = run(images, tmp_path / "wide", [named("liar", lying)], eps=1.0)
    assert "liar" in {r.fooled_by for r in wide}  # the same images, once they are allowed


def test_success_is_judged_on_the_original_model_not_on_the_view(images, tmp_path):
    class Inverted(Brightness):
        def forward(self, images):
            return -super().forward(images)

    model = Brightness()
    rows = run(images, tmp_path, [named("lazy", lazy)], model, Inverted(), eps=0.2)
    assert {r.fooled_by for r in rows} == {"clean", ""}  # the view is fooled at once, the model never


def test_each_attack_meets_what_the_earlier_ones_left(images, tmp_path):
    met = []

    def watching(model, images, labels, *, budget, keys, start=None):
        met.extend(keys.index.tolist())
        return pgd(model, images, labels, budget=budget, keys=keys)

    attacks = [named("lazy", lazy), PGD, named("again", watching)]
    rows = run(images, tmp_path, attacks)
    assert {r.fooled_by for r in rows} == {"clean", "PGD-10", ""}
    assert met == [r.index for r in rows if r.fooled_by == ""]
    values = {r.name: r.value for r in metrics(rows, images.classes, attacks, {}, 1.0)}
    assert list(values) == [f"accuracy/{name}" for name in ("clean", "lazy", "PGD-10", "again", "worst case")]
    assert values["accuracy/lazy"] == values["accuracy/clean"]
    assert values["accuracy/again"] == values["accuracy/PGD-10"] == values["accuracy/worst case"]


def test_individually_each_attack_meets_all_that_is_right(images, tmp_path):
    weak, strong = named("weak", partial(pgd, steps=1, step_size=8 / 255)), PGD
    options = {"individual": True}
    rows = run(images, tmp_path, [strong, weak], **options)
    values = {
        r.name: r.value for r in metrics(rows, images.classes, [strong, weak], {}, 1.0, individual=True)
    }
    assert values["accuracy/worst case"] == values["accuracy/PGD-10"] < values["accuracy/weak"]
    assert values["accuracy/weak"] < values["accuracy/clean"]
    assert ("PGD-10", "weak") in {r.fooled for r in rows}
    assert values["accuracy/worst case"] == sum(r.fooled_by == "" for r in rows) / 40


def test_a_line_gathers_its_targets(images, tmp_path):
    first = NamedAttack("t 1", partial(pgd, steps=1, step_size=8 / 255), "t")
    second = NamedAttack("t 2", pgd, "t")
    rows = run(images, tmp_path, [first, second])
    assert {r.fooled_by for r in rows} == {"clean", "t 1", "t 2", ""}
    values = {r.name: r.value for r in metrics(rows, images.classes, [first, second], {}, 1.0)}
    assert list(values) == ["accuracy/clean", "accuracy/t", "accuracy/worst case"]
    assert values["accuracy/t"] == values["accuracy/worst case"]


def test_batches_are_packed_anew_for_each_attack(images, tmp_path):
    sizes = []

    def watching(model, images, labels, *, budget, keys, start=None):
        sizes.append(len(images))
        return lazy(model, images, labels, budget=budget, keys=keys)

    rows = run(images, tmp_path, [PGD, named("watching", watching)], chunk_size=40)
    left = sum(r.fooled_by == "" for r in rows)
    assert sizes == [5] * (left // 5) + [left % 5] * (left % 5 > 0)


def test_an_evaluation_that_was_killed_goes_on(images, tmp_path):
    calls = []

    def counting(model, images, labels, *, budget, keys, start=None):
        calls.append(keys.index.tolist())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return pgd(model, images, labels, budget=budget, keys=keys)

    attack, whole = named("counted", counting), {"batch_size": 12}
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path, [attack], **whole)
    done = {f.name for f in (tmp_path / "units").iterdir()}
    assert done == {f"clean-{c:05}.json" for c in range(4)} | {"counted-00000.json"}
    rows = run(images, tmp_path, [attack], **whole)
    assert len(calls) == 2 + 3  # chunks 1, 2, 3; chunk 0 is not made again
    assert rows == run(images, tmp_path / "fresh", [named("counted", pgd)], **whole)
    assert rows == run(images, tmp_path, [attack], **whole)
    assert len(calls) == 5


def test_the_bar_knows_the_attack_and_counts_what_is_made_apart_from_what_is_there(images, tmp_path):
    def watched(folder, attacks):
        told = []
        bar = Bar("", Pace(3 * len(images)), Surface())
        bar.enter = lambda text: told.append((text, bar.pace.completed))
        run(images, folder, attacks, title="mine", bar=bar)
        assert bar.pace.completed == (len(attacks) + 1) * len(images)
        return told, bar.pace._worked

    told, worked = watched(tmp_path, [PGD])
    assert told == [("mine: clean (1 of 2)", 0), ("mine: PGD-10 (2 of 2)", 40)]
    assert worked == 40 + 38  # two are wrong before any attack
    second = named("second", pgd)
    told, worked = watched(tmp_path, [PGD, second])
    assert [text for text, _ in told][-1] == "mine: second (3 of 3)"
    robust = sum(row.fooled_by in ("", "second") for row in run(images, tmp_path, [PGD, second]))
    assert worked == robust


def test_out_of_memory_names_the_chunk_that_fits(images, tmp_path):
    def greedy(model, images, labels, *, budget, keys, start=None):
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pgd(model, images, labels, budget=budget, keys=keys)

    with pytest.raises(
        UserError, match=r"Out of memory with greedy on batches of 11: --evaluate.batch-size 2 fits"
    ):
        run(images, tmp_path, [named("greedy", greedy)], batch_size=12)
    run(images, tmp_path / "small", [named("greedy", greedy)], batch_size=3)


def test_results_do_not_depend_on_chunks(images, tmp_path):
    strong = [named("PGD-10", pgd)]
    assert run(images, tmp_path / "a", strong) == run(images, tmp_path / "b", strong, batch_size=40)


def test_saved_images_are_those_that_fooled(images, tmp_path):
    rows = run(images, tmp_path, [PGD])
    fell = [p for p, r in enumerate(rows) if r.fooled_by == "PGD-10"]
    ledger = Ledger(tmp_path, 4)
    seen = []
    for chunk in range(4):
        if (saved := ledger.images("PGD-10", chunk)) is None:
            continue
        pixels, positions = saved
        seen += positions
        assert Brightness()(pixels).argmax(dim=1).tolist() == [rows[p].answer for p in positions]
        assert [rows[p].answer != rows[p].label for p in positions] == [True] * len(positions)
    assert seen == fell


def test_images_that_are_asked_for_later_are_made_then(images, tmp_path):
    rows = run(images, tmp_path, [PGD], save_images=False)
    assert not (tmp_path / "images").exists()
    assert run(images, tmp_path, [PGD]) == rows
    assert any((tmp_path / "images").iterdir())


def test_the_table_has_a_line_per_image(images, tmp_path):
    rows = run(images, tmp_path, [PGD])
    summaries.write_table(tmp_path / "images.csv", rows, images.classes)
    with (tmp_path / "images.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 40
    assert table[0] == {
        "index": "100", "label": "light", "clean": "dark", "first_fooled_by": "clean", "answer": "dark",
        "forwards": "1", "backwards": "0",
    }  # fmt: skip


def test_a_model_that_changes_is_refused_and_nothing_of_it_is_kept(images, tmp_path):
    class Drifting(Brightness):
        def __init__(self):
            super().__init__()
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, images):
            self.passes += 1
            return super().forward(images)

    with pytest.raises(UserError, match="the model changed while it was evaluated by clean"):
        run(images, tmp_path, [PGD], Drifting())
    assert not (tmp_path / "units").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: torch.full((len(x), 2), torch.nan), "clean: the model returns logits that are not finite"),
        (lambda x: torch.zeros(len(x), 1), r"clean: label 1 is outside 0\.\.0"),
        (lambda x: torch.zeros(len(x)), r"clean: the model returns shape \(5,\); expected \(5, K\)"),
    ],
)
def test_answers_that_make_no_sense_are_one_line(images, tmp_path, model, message):
    class Wrong(nn.Module):
        def forward(self, images):
            return model(images)

    with pytest.raises(UserError, match=message):
        run(images, tmp_path, [PGD], Wrong())


def test_an_empty_set_is_refused(images, tmp_path):
    with pytest.raises(UserError, match="the test split of flat holds no images"):
        run(images.subset(torch.tensor([], dtype=torch.int64)), tmp_path, [PGD])


def test_a_ledger_of_another_evaluation_is_refused(tmp_path):
    ledger = Ledger(tmp_path, 1)
    ledger.open({"model": "abc", "eps": 8 / 255})
    ledger.open({"model": "abc", "eps": 8 / 255})
    with pytest.raises(UserError, match=r"is the ledger of another evaluation \(model differ\)"):
        ledger.open({"model": "def", "eps": 8 / 255})


def test_weights_hash_sees_every_bit_and_name():
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    assert weights_hash(one) == weights_hash(other)
    with torch.no_grad():
        other.weight[0, 0] = torch.nextafter(other.weight[0, 0], torch.tensor(9.0))
    assert weights_hash(one) != weights_hash(other)


def test_quick_agrees_with_the_ledger(images, tmp_path):
    rows = run(images, tmp_path, [PGD])
    clean, robust = quick(
        Brightness(), Brightness(), images, budget_of=lambda _: Linf(16 / 255), attack=pgd, batch_size=7,
        device=CPU, seed=0,
    )  # fmt: skip
    assert clean == 38 / 40
    assert robust == sum(r.fooled_by == "" for r in rows) / 40


def test_quick_attacks_what_fools_the_view_alone_once_more(images):
    """The view answers wrong a little before the model does, so that an attack on it stops too early."""

    class Hasty(Brightness):
        def forward(self, images):
            return super().forward(images) - torch.tensor([0.0, 0.05])

    def of(view, **options):
        return quick(
            Brightness(), view, images, budget_of=lambda _: Linf(16 / 255), attack=pgd, batch_size=7, device=CPU,
            seed=0, **options,
        )  # fmt: skip

    exact, hasty, finished = of(Brightness()), of(Hasty()), of(Hasty(), finish=True)
    assert hasty[1] > exact[1]
    assert finished == exact


def test_predictions_put_every_mode_back():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 2))
    model[1].eval()
    images = torch.rand(6, 1, 2, 2)
    first = predictions(model, images)
    assert torch.equal(first, predictions(model, images))  # no dropout
    assert [m.training for m in model] == [True, False, True, True]


def test_float32_means_float32_and_settings_are_put_back():
    seen = []

    class Watching(Brightness):
        def forward(self, images):
            convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
            seen.append(
                (convolutions.fp32_precision, products.fp32_precision, torch.is_autocast_enabled("cpu"))
            )
            return super().forward(images)

    before = torch.backends.cudnn.conv.fp32_precision
    with torch.autocast("cpu", torch.bfloat16):
        predictions(Watching(), torch.rand(2, 1, 2, 2))
    assert seen == [("ieee", "ieee", False)]
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_logits_that_are_not_finite_are_refused():
    class Broken(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 2), torch.nan)

    with pytest.raises(ValueError, match="not finite"):
        predictions(Broken(), torch.rand(2, 1, 2, 2))


def test_judge_wants_both_a_wrong_answer_and_an_allowed_image():
    clean = torch.full((3, 1, 2, 2), 0.52)
    attacked = torch.tensor([0.47, 0.53, 0.2]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    fooled, answers = judge(Brightness(), attacked, clean, torch.ones(3, dtype=torch.int64), L2(0.2))
    assert fooled.tolist() == [True, False, False]
    assert answers.tolist() == [0, 1, 0]


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (5, 10), (10, 10), (412, 1000)])
def test_wilson_is_the_score_interval(successes, n):
    low, high = wilson(successes, n)
    z = norm.ppf(0.975)
    for bound in (low, high):  # the bounds solve |share - p| = z sqrt(p (1 - p) / n)
        assert abs(successes / n - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-9)
    assert low <= successes / n <= high
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)
