"""What is evaluated for the columns of an experiment, and what they read off it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from counterpart import jobs, papers
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.evaluation.ledger import LedgerRow
from counterpart.papers import cells, running
from counterpart.recipes import load
from counterpart.records import Record
from counterpart.rundir import RunDir

WEAK, STRONG = {"attack": "pgd", "steps": 1}, {"attack": "pgd", "steps": 4, "step_size": "20/255"}
WEAKER = {"attack": "pgd", "steps": 2, "step_size": "0.5/255"}


def measured(wanted, run, config, scale="small", settings=None, autoattack_n=None, surrogate=str):
    found = cells.measure(
        wanted, run, config, scale, settings=settings or {}, autoattack_n=autoattack_n, surrogate=surrogate
    )
    return list(found)


@pytest.fixture
def asked(monkeypatch):
    """What evaluations are asked for; two images, of which the last attack alone fools the second."""
    seen = []

    def evaluate(text, given):
        seen.append((text, given))
        names = [f"attack {i}" for i in range(len(given["evaluate"]["attacks"]))]
        names = ["accuracy/clean", *(f"accuracy/{name}" for name in names), "accuracy/worst case"]
        names += [f"parts/{name}" for name in ("mIoU clean", "pixel accuracy clean")]
        last = tuple(name.removeprefix("accuracy/") for name in names[-4:-3] if name != "accuracy/clean")
        rows = [LedgerRow(0, 1, 1, (), 1, 0, 0), LedgerRow(1, 1, 1, last, 0, 0, 0)]
        return [jobs.judging.Judged(RunDir(Path(text)), [Record("metric", n, 0.5, 2) for n in names], rows)]

    monkeypatch.setattr(cells.jobs, "evaluate", evaluate)
    monkeypatch.setattr(running.jobs, "train", lambda config: SimpleNamespace(finished=True))
    return seen


@pytest.mark.slow
def test_columns_that_share_an_evaluation_say_what_each_says_alone(tmp_path):
    config = resolve(
        load("digits/clean"),
        {"train": {"epochs": 5, "validation_n": 20}, "data": {"limit": 600}, "evaluate": {"n": 60}},
        {"runs": str(tmp_path), "name": "run", "device": "cpu"},
        source="test",
    )
    run = jobs.train(config).run
    wanted = {
        "natural": [], "weak": [WEAK], "strong": [STRONG], "both": [WEAK, WEAKER], "three": [WEAK, WEAKER, STRONG],
    }  # fmt: skip
    [together, worst] = measured(wanted, run, config)
    assert (list(together), list(worst)) == (["natural", "weak", "strong"], ["both", "three"])
    alone = {}
    for column, what in wanted.items():
        [found] = measured({column: what}, run, config)
        alone |= found
    values = {
        name: (one.value, one.interval, one.details["right"]) for name, one in (together | worst).items()
    }
    assert values == {name: (one.value, one.interval, one.details["right"]) for name, one in alone.items()}
    natural, weak, strong = (values[name][0] for name in ("natural", "weak", "strong"))
    assert natural > weak > strong  # or the test says nothing
    assert values["both"][0] > values["three"][0]
    for value, _, right in values.values():
        assert right.count("1") == round(60 * value)


def test_what_is_shared_has_equal_settings_and_one_attack(tmp_path, asked):
    config = resolve(load("cifar10/at"), {"evaluate": {"n": 2000}}, source="test")
    wanted = {
        "natural": [], "weak": [WEAK], "same": [{**WEAK, "restarts": 1}], "strong": [STRONG], "both": [WEAK, STRONG],
        "AA": [{"attack": "autoattack"}], "far": {"attacks": [WEAK], "eps": "16/255"},
        "shift": {"attacks": [], "shift": "textures"},
    }  # fmt: skip
    found = measured(wanted, RunDir(tmp_path), config, settings={"seed": 3}, autoattack_n=200)
    assert [list(one) for one in found] == [
        ["natural", "weak", "same", "strong"], ["both"], ["AA"], ["far"], ["shift"],
    ]  # fmt: skip
    shared, both, auto, far, shift = (given for _, given in asked)
    assert shared["evaluate"]["attacks"] == [WEAK, STRONG]
    assert [one["evaluate"]["individual"] for one in (shared, both, auto)] == [True, False, False]
    assert [one["evaluate"]["n"] for one in (shared, both, auto)] == [2000, 2000, 200]
    assert far["evaluate"]["eps"] == "16/255"
    assert (shift["data"]["shift"], shift["evaluate"]["attacks"]) == ("textures", [])
    assert all(given["evaluate"]["seed"] == 3 for _, given in asked)
    right = {name: one.details["right"] for some in found for name, one in some.items()}
    assert right == {
        "natural": "11", "weak": "11", "same": "11", "strong": "10", "both": "10", "AA": "10", "far": "10",
        "shift": "11",
    }  # fmt: skip


@pytest.mark.parametrize(("scale", "counts"), [("small", [2000, None, 500]), ("smoke", [2000])])
def test_a_column_may_have_a_number_of_images_of_its_own(scale, counts, tmp_path, asked):
    config = resolve(load("cifar10/at"), {"evaluate": {"n": 2000}}, source="test")
    wanted = {"natural": [], "all": {"attacks": [], "n": None}, "few": {"attacks": [], "n": 500}}
    measured(wanted, RunDir(tmp_path), config, scale=scale)
    assert [given["evaluate"]["n"] for _, given in asked] == counts


AUTO, AIMED = {"attack": "autoattack"}, {"attack": "two-staged"}
LAST = {"attack": "single-staged"}


@pytest.mark.parametrize(
    "wanted",
    [
        {"AA": [AUTO], "more": [AUTO, AIMED, LAST]},
        {"more": [AUTO, AIMED, LAST], "AA": [AUTO]},
        {"AA": [AUTO], "two": [AUTO, AIMED], "more": [AUTO, AIMED, LAST]},
    ],
    ids=["short first", "long first", "three"],
)
def test_a_worst_case_on_the_way_to_another_is_read_off_it(wanted, tmp_path, asked):
    config = resolve(load("synthetic-parts/downsampled"), source="test")
    [found] = measured(wanted, RunDir(tmp_path), config)
    assert asked[0][1]["evaluate"]["attacks"] == [AUTO, AIMED, LAST]
    names = {"AA": "accuracy/attack 0", "two": "accuracy/attack 1", "more": "accuracy/worst case"}
    assert {column: record.name for column, record in found.items()} == {c: names[c] for c in wanted}
    right = {column: record.details["right"] for column, record in found.items()}
    assert right == {column: "10" if column == "more" else "11" for column in wanted}


@pytest.mark.parametrize("other", [[AIMED, AUTO], [AUTO, {"attack": "minimum-margin"}]])
def test_other_worst_cases_are_evaluated_by_themselves(other, tmp_path, asked):
    config = resolve(load("synthetic-parts/downsampled"), source="test")
    assert len(measured({"AA": [AUTO], "other": other}, RunDir(tmp_path), config)) == 2


def test_an_attack_is_the_same_however_it_is_written(tmp_path, asked):
    config = resolve(load("cifar10/at"), source="test")
    wanted = {
        "short": [{"attack": "pgd", "step_size": "2/255"}],
        "long": [{"attack": "pgd", "steps": 20, "loss": "cross_entropy", "step_size": 2 / 255}],
        "other": [{"attack": "pgd", "steps": 20, "loss": "margin", "step_size": 2 / 255}],
        "from": [{"attack": "pgd", "step_size": "2/255", "surrogate": "model"}],
    }
    [found] = measured(wanted, RunDir(tmp_path), config)
    names = {column: record.name for column, record in found.items()}
    [(_, given)] = asked
    assert given["evaluate"]["attacks"] == [wanted["short"][0], wanted["other"][0], wanted["from"][0]]
    assert names == {
        "short": "accuracy/attack 0", "long": "accuracy/attack 0", "other": "accuracy/attack 1",
        "from": "accuracy/attack 2",
    }  # fmt: skip


def test_parts_are_measured_beside_attacks_and_of_models_that_find_some(tmp_path, asked):
    wanted = {
        "natural": [],
        "mIoU": {"parts": "mIoU clean"},
        "PGD": [WEAK],
        "both": [WEAK, {"attack": "two-staged"}],
    }
    model = resolve(load("synthetic-parts/downsampled"), source="test")
    found, aimed = measured(wanted, RunDir(tmp_path), model)
    assert found["mIoU"].name == "parts/mIoU clean"
    assert set(aimed) == {"both"}
    assert [given["evaluate"]["parts"] for _, given in asked] == [True, False]
    baseline = resolve(load("synthetic-parts/baseline"), source="test")
    [found] = measured(wanted, RunDir(tmp_path), baseline)
    assert set(found) == {"natural", "PGD"}
    assert not asked[-1][1]["evaluate"]["parts"]


def test_a_model_that_reads_no_class_from_parts_is_not_asked_to(tmp_path, asked):
    staged = [{"attack": "two-staged", "strategy": strategy} for strategy in ("random", "sorted")]
    wanted = {"both": staged, "sorted": staged[1:], "natural": []}
    for name, changes in (
        ("auxiliary", {}),
        ("two-headed", {}),
        ("downsampled", {"model": {"see_image": True}}),
    ):
        config = resolve(load(f"synthetic-parts/{name}"), changes, source="test")
        found = measured(wanted, RunDir(tmp_path), config)
        assert [set(records) for records in found] == [
            {"both", "natural"}
        ]  # a column of sorted alone is empty
        assert asked[-1][1]["evaluate"]["attacks"] == staged[:1]
    measured(wanted, RunDir(tmp_path), resolve(load("synthetic-parts/pixel"), source="test"))
    assert staged in [given["evaluate"]["attacks"] for _, given in asked]


def test_smoke_cuts_what_an_attack_has_to_cut(tmp_path, asked):
    config = resolve(load("synthetic-parts/downsampled"), source="test")
    wanted = {
        "two": [{"attack": "two-staged"}],
        "AA": [{"attack": "autoattack"}],
        "rays": [{"attack": "rays"}],
    }
    measured(wanted, RunDir(tmp_path), config, scale="smoke")
    assert asked[0][1]["evaluate"]["attacks"] == [
        {"attack": "two-staged", "steps": 2, "restarts": 2},
        {"attack": "apgd", "steps": 2},
        {"attack": "rays", "queries": 20},
    ]


@pytest.mark.parametrize("number", [1, 6, 10, 12])
def test_cityscapes_is_judged_by_the_papers_suite_beside_the_stronger_one(number, tmp_path, asked):
    """APGD on cross-entropy, untargeted FAB and Square, since DLR needs more than two classes."""
    table = papers.find(f"parts/table-{number}")
    stronger = "eps 8" if number == 10 else "AA"
    assert f"{stronger} published" not in papers.columns(table, "part-imagenet")
    row = table.rows[0].name
    wanted = [stronger, f"{stronger} published"]
    papers.run(table, "cityscapes", "small", tmp_path, rows=[row], only=wanted)
    assert [given["evaluate"]["attacks"] for _, given in asked] == [
        [{"attack": "autoattack"}], [{"attack": "autoattack", "version": "few-classes"}],
    ]  # fmt: skip
    assert set(papers.measured(table, "cityscapes", "small", tmp_path)) == {(row, name) for name in wanted}
    for row in table.rows:
        assert f"{stronger} published" in row.published["cityscapes"]
        assert stronger not in row.published["cityscapes"]
    with pytest.raises(UserError, match="has no column"):
        papers.run(table, "pascal-part", "small", tmp_path, only=wanted)


def test_an_attack_from_another_row_trains_that_row(tmp_path, asked):
    experiment = papers.find("pixel/appendix-h3")
    papers.run(experiment, "cifar10", "small", tmp_path, rows=["PART"])
    assert {Path(text).name for text, _ in asked} == {"cifar10-part-seed-0"}
    surrogates = {one.get("surrogate") for _, given in asked for one in given["evaluate"]["attacks"]}
    assert surrogates == {None, str(tmp_path / "small" / "cifar10-at-seed-0")}
    radii = {given["evaluate"]["eps"] for _, given in asked if "eps" in given["evaluate"]}
    assert radii == {f"{eps}/255" for eps in (16, 32, 64, 255)}
    assert set(papers.measured(experiment, "cifar10", "small", tmp_path)) == {
        ("PART", column) for column in papers.columns(experiment)
    }


@pytest.mark.parametrize(("dataset", "step"), [("svhn", "1/255"), ("tiny-imagenet", "2/255")])
def test_steps_of_the_paper_depend_on_the_data_set(dataset, step, tmp_path, asked):
    papers.run(papers.find("pixel/table-1"), dataset, "small", tmp_path, rows=["AT"])
    steps = {a["attack"]: a.get("step_size") for _, given in asked for a in given["evaluate"]["attacks"]}
    assert steps == {"pgd": step, "minimum-margin": None, "autoattack": None}
