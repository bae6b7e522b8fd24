import csv
import json
import math

import pytest
import torch
from scipy.stats import norm
from torch import nn

from counterpart.attacks import pgd
from counterpart.budget import L2, Linf
from counterpart.data.image_sets import ImageSet
from counterpart.errors import UserError
from counterpart.evaluation import accuracy
from counterpart.evaluation.accuracy import NamedAttack, evaluate, judge, metrics, predictions, quick
from counterpart.evaluation.statistics import wilson
from counterpart.protocols import Attacked

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


def run(images, folder, attacks, model=None, eps=16 / 255, **options):
    model = model or Brightness()
    settings = {"budget_of": lambda _: Linf(eps), "batch_size": 12, "device": CPU, "seed": 0, **options}
    return evaluate(model, model, images, attacks, folder=folder, **settings)


PGD = NamedAttack("PGD-10", pgd)


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
    records = {r.name: r for r in metrics(rows, images.classes, ["PGD-10"], {"method": "AT"}, 3.0)}
    assert records["accuracy/clean"].value == 38 / 40
    robust = sum(r.fooled_by == "" for r in rows)
    assert 0 < robust < 38
    assert records["accuracy/worst case"].value == robust / 40
    assert records["accuracy/worst case"].interval == wilson(robust, 40)
    assert records["accuracy/clean"].details["per_class"] == {"dark": [19, 20], "light": [19, 20]}
    assert records["accuracy/clean"].n == 40


def lying(model, images, labels, *, budget, keys, start=None):
    """Claims whatever it likes: leaves the budget by far, and always fools."""
    return Attacked(1 - images, torch.ones_like(labels), torch.zeros_like(labels))


def lazy(model, images, labels, *, budget, keys, start=None):
    return Attacked(images, torch.ones_like(labels), torch.zeros_like(labels))


def test_the_evaluator_does_not_believe_attacks(images, tmp_path):
    rows = run(images, tmp_path, [NamedAttack("liar", lying)], eps=0.5 / 255)
    assert {r.fooled_by for r in rows} == {"clean", ""}
    wide = run(images, tmp_path / "wide", [NamedAttack("liar", lying)], eps=1.0)
    assert "liar" in {r.fooled_by for r in wide}  # the same images, once they are allowed


def test_success_is_judged_on_the_original_model_not_on_the_view(images, tmp_path):
    class Inverted(Brightness):
        def forward(self, images):
            return -super().forward(images)

    model = Brightness()
    rows = evaluate(
        model, Inverted(), images, [PGD], budget_of=lambda _: Linf(0.2), folder=tmp_path, batch_size=40,
        device=CPU, seed=0,
    )  # fmt: skip
    assert {r.fooled_by for r in rows} == {"clean", ""}  # the view is fooled at once, the model never


def test_the_worst_case_is_taken_per_image_and_the_first_is_named(images, tmp_path):
    rows = run(images, tmp_path, [NamedAttack("lazy", lazy), PGD, NamedAttack("again", pgd)])
    assert {r.fooled_by for r in rows} == {"clean", "PGD-10", ""}
    names = ["lazy", "PGD-10", "again"]
    values = {r.name: r.value for r in metrics(rows, images.classes, names, {}, 1.0)}
    assert values["accuracy/lazy"] == values["accuracy/clean"]
    assert values["accuracy/again"] == values["accuracy/PGD-10"] == values["accuracy/worst case"]


def test_an_evaluation_that_was_killed_goes_on(images, tmp_path):
    calls = []

    def counting(model, images, labels, *, budget, keys, start=None):
        calls.append(keys.index.tolist())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return pgd(model, images, labels, budget=budget, keys=keys)

    attack = NamedAttack("counted", counting)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path, [attack])
    done = {f.name for f in (tmp_path / "chunks").iterdir()}
    assert done == {f"clean-{c:05}.json" for c in range(4)} | {"counted-00000.json"}
    rows = run(images, tmp_path, [attack])
    assert len(calls) == 2 + 3  # chunks 1, 2, 3; chunk 0 is not made again
    assert rows == run(images, tmp_path / "fresh", [NamedAttack("counted", pgd)])
    assert rows == run(images, tmp_path, [attack])
    assert len(calls) == 5


def test_out_of_memory_names_the_chunk_that_fits(images, tmp_path):
    def greedy(model, images, labels, *, budget, keys, start=None):
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pgd(model, images, labels, budget=budget, keys=keys)

    with pytest.raises(
        UserError, match=r"Out of memory with greedy on chunks of 12: --evaluate.batch-size 3 fits"
    ):
        run(images, tmp_path, [NamedAttack("greedy", greedy)])
    run(images, tmp_path / "small", [NamedAttack("greedy", greedy)], batch_size=3)


def test_results_do_not_depend_on_chunks(images, tmp_path):
    strong = [NamedAttack("PGD-10", pgd)]
    assert run(images, tmp_path / "a", strong) == run(images, tmp_path / "b", strong, batch_size=40)


def test_saved_images_are_those_that_were_judged(images, tmp_path):
    from safetensors.torch import load_file

    rows = run(images, tmp_path, [PGD], save_images=True)
    by_index = {r.index: r for r in rows}
    files = sorted((tmp_path / "images").iterdir())
    assert len(files) == 4
    for file in files:
        saved = load_file(file)
        answers = Brightness()(saved["images"]).argmax(dim=1)
        for answer, index, fooled in zip(answers, saved["index"].tolist(), saved["fooled"], strict=True):
            assert fooled == (by_index[index].fooled_by == "PGD-10")
            if fooled:
                assert answer == by_index[index].adversarial["PGD-10"]


def test_the_table_has_a_line_per_image(images, tmp_path):
    rows = run(images, tmp_path, [PGD])
    accuracy.write_table(tmp_path / "images.csv", rows, images.classes, ["PGD-10"])
    with (tmp_path / "images.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 40
    assert table[0] == {
        "index": "100", "label": "light", "clean": "dark", "first_fooled_by": "clean", "after PGD-10": "dark",
        "forwards": "1", "backwards": "0",
    }  # fmt: skip
    assert json.loads((tmp_path / "chunks" / "clean-00000.json").read_text())["answers"][0] == 0


def test_quick_agrees_with_the_ledger(images, tmp_path):
    rows = run(images, tmp_path, [PGD])
    clean, robust = quick(
        Brightness(), Brightness(), images, budget_of=lambda _: Linf(16 / 255), attack=pgd, batch_size=7,
        device=CPU, seed=0,
    )  # fmt: skip
    assert clean == 38 / 40
    assert robust == sum(r.fooled_by == "" for r in rows) / 40


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
