"""``--sampled`` on a run: what is kept and said, what is refused, and that other evaluations stay what they were."""

import csv
import json

import pytest
import torch

import counterpart
from counterpart import jobs
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.estimates import estimate_accuracy
from counterpart.evaluation.sampling import SampleOutcome
from counterpart.jobs.samples import sample_doubts

ATTACKS = "[{steps: 1, step_size: 0.02}, {attack: square, queries: 60}]"
WORDS = ["--device", "cpu", "--attacks", ATTACKS, "--n", "80", "--eps", "0.08", "--chunk-size", "20"]


def folder_of(run):
    [folder] = (run.path / "evaluations").iterdir()
    return folder


def accuracies(run):
    return {r.name.removeprefix("accuracy/"): r for r in run.records() if r.name.startswith("accuracy/")}


@pytest.fixture
def sampled(run, capsys):
    """A run that was evaluated on a sample of 12, and what the command printed."""
    assert main(["evaluate", str(run.path), *WORDS, "--sampled", "12"]) == 0
    return run, capsys.readouterr()


def test_what_is_kept_calls_estimates_estimates(sampled):
    run, (printed, noted) = sampled
    made = accuracies(run)
    assert list(made) == ["clean", "PGD-1 step 0.02", "Square-60", "worst case"]
    exact, worst = made["PGD-1 step 0.02"], made["worst case"]
    assert "estimate" not in exact.details
    assert "per_class" in exact.details
    estimate = worst.details["estimate"]
    survivors = round(80 * exact.value)
    assert (estimate["survivors"], estimate["tried"]) == (survivors, 12)
    expected = estimate_accuracy(80, survivors, 12, estimate["fell"])
    assert 0 < estimate["fell"] < 12
    assert worst.value == expected.value
    assert worst.interval == expected.of_population
    assert estimate["of_these_images"] == list(expected.of_these_images)
    assert "per_class" not in worst.details
    assert {record.details["sampled"]["count"] for record in made.values()} == {12}
    assert "worst case (estimate)" in printed
    assert "these images" in printed
    assert f"12 of {survivors} survivors, drawn at random, met Square-60" in noted
    assert "run it in full" in noted  # far more than one per cent fell
    result = json.loads((folder_of(run) / "result.json").read_text())
    assert list(result["counterpart"]["accuracies"]) == ["clean", "PGD-1 step 0.02"]
    assert result["counterpart"]["estimates"]["worst case"] == {
        "value": worst.value, **estimate, "of_population": list(worst.interval),
    }  # fmt: skip
    with (folder_of(run) / "images.csv").open(newline="") as file:
        fates = [line["first_fooled_by"] for line in csv.DictReader(file)]
    assert fates.count("untried") == survivors - 12
    assert fates.count("") == 12 - estimate["fell"]
    identity = json.loads((folder_of(run) / "identity.json").read_text())
    assert identity["sampled"] == {"count": 12, "dear": ["Square-60"], "seed": identity["seed"]}


def test_it_is_verified_and_goes_on(sampled):
    run, _ = sampled
    [verified] = jobs.verify_run(run.path, {})
    assert verified.mismatches == []
    assert verified.successes > 0
    before = accuracies(run)
    assert main(["evaluate", str(run.path), *WORDS, "--sampled", "12"]) == 0
    assert accuracies(run) == before
    [unit, *_] = sorted((folder_of(run) / "units").glob("Square-60-*.json"))
    unit.unlink()
    with pytest.raises(UserError, match="that were drawn for it"):
        jobs.verify_run(run.path, {})


def test_a_report_shows_estimates_and_compares_no_images(sampled, master, tmp_path):
    run, _ = sampled
    page = tmp_path / "page.html"
    assert main(["report", str(run.path), "--output", str(page)]) == 0
    text = page.read_text()
    assert "<small>estimate; of these images" in text
    assert "survivors, drawn at random, met Square-60" in text
    assert "not estimated" in text
    assert "Image by image" not in text


def test_a_sample_of_all_survivors_is_the_full_evaluation(run):
    assert main(["evaluate", str(run.path), *WORDS]) == 0
    whole = accuracies(run)
    identity = json.loads((folder_of(run) / "identity.json").read_text())
    assert "sampled" not in identity
    assert main(["evaluate", str(run.path), *WORDS, "--sampled", "80"]) == 0
    again = {r.name.removeprefix("accuracy/"): r for r in run.records() if "sampled" in r.details}
    assert again.keys() == whole.keys()
    for name, record in again.items():
        assert (record.value, record.interval) == (whole[name].value, whole[name].interval)
        assert record.details["per_class"] == whole[name].details["per_class"]
        assert "estimate" not in record.details


def test_rounds_in_python(run):
    judged = counterpart.evaluate(
        run.path, n=80, eps=0.08, sampled="auto",
        attacks=[{"steps": 1, "step_size": 0.02}, {"attack": "square", "queries": 60}],
        changes={"evaluate.sampled_width": 0.15, "evaluate.sampled_looks": 2, "evaluate.chunk_size": 20},
    )  # fmt: skip
    worst = judged["worst case"]
    low, high = worst.of_these_images
    assert worst.estimated
    assert high - low <= 0.15
    assert not judged["clean"].estimated
    assert "of these images" in str(worst)
    assert "worst case (estimate)" in repr(judged)
    assert "| worst case (estimate) |" in judged.to_markdown()
    assert r"\begin{tabular}{lrrrr}" in judged.to_latex()
    assert judged.to_csv().splitlines()[0].endswith("low of these images,high of these images")
    assert any(row.untried for row in judged.rows)
    assert judged.verify().mismatches == []
    assert len(judged.images("Square-60")) == sum("Square-60" in row.fooled for row in judged.rows) > 0


def test_the_finish_of_bf16_comes_before_the_dear_attacks(run):
    words = ["--device", "cpu", "--attacks", "[{steps: 1}, {attack: square, queries: 5}]", "--n", "20"]
    assert (
        main(["evaluate", str(run.path), *words, "--eps", "0.01", "--precision", "bf16", "--sampled", "3"])
        == 0
    )
    assert list(accuracies(run))[-4:] == ["float32 apgd-ce", "float32 apgd-t", "Square-5", "worst case"]
    units = [json.loads(file.read_text()) for file in (folder_of(run) / "units").glob("Square-5-*.json")]
    assert sum(len(unit["positions"]) for unit in units) == 3
    [verified] = jobs.verify_run(run.path, {})
    assert verified.mismatches == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"sampled": 0}, "evaluate.sampled = 0: input should be a whole number of at least 1, or auto"),
        ({"sampled": "ato"}, "evaluate.sampled = ato: input should be a whole number of at least 1, or auto"),
        ({"sampled": 5, "individual": True}, "does not go with evaluate.individual"),
        ({"sampled": "auto", "eps": "0.1,0.2"}, "does not go with several radii in evaluate.eps"),
        ({"sampled": 5, "norm": "linf,l2", "eps": "0.1,1"}, "does not go with several norms in evaluate.norm"),
        ({"sampled": 5, "draws": 3, "attacks": "square"}, "does not go with evaluate.draws"),
        ({"sampled": 5, "dear_attacks": "squre"}, "'squre' is no single attack. Did you mean 'square'?"),
        ({"sampled": 5, "dear_attacks": "autoattack"}, "'autoattack' is no single attack"),
        ({"dear_attacks": "square"}, "evaluate.dear_attacks square has no effect without evaluate.sampled"),
        ({"sampled": 5, "sampled_width": 0.1}, "sampled_width 0.1 has no effect without evaluate.sampled auto"),
        ({"sampled_looks": 2}, "evaluate.sampled_looks 2 has no effect without evaluate.sampled auto"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_line(settings, reason):
    with pytest.raises(UserError) as error:
        resolve({"evaluate": settings})
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_sample_needs_a_dear_attack(run):
    with pytest.raises(UserError) as error:
        jobs.evaluate(str(run.path), {"evaluate": {"attacks": "pgd,rays", "sampled": 5}})
    assert str(error.value) == (
        "evaluate.sampled 5 is for dear attacks, which are fab, square; those that run are pgd, rays. Name some of "
        "these as evaluate.dear_attacks, or leave out evaluate.sampled."
    )


def test_which_attacks_are_dear_may_be_said(run):
    given = {"attacks": "pgd,fgsm", "dear_attacks": "pgd", "sampled": 5, "n": 20, "eps": 0.08}
    [judged] = jobs.evaluate(str(run.path), {"evaluate": given})
    assert [attack.name for attack in judged.case.attacks] == ["FGSM", "PGD-20"]
    assert judged.case.sample.dear == ("PGD-20",)


def test_other_jobs_refuse_a_sample(run):
    data = torch.zeros(4, 1, 16, 16), torch.zeros(4, dtype=torch.int64)
    for job in (counterpart.audit, counterpart.where):
        with pytest.raises(UserError, match=r"evaluate\.sampled is for counterpart evaluate"):
            job(run.path, data, changes={"evaluate.sampled": 5})
    for command in ("audit", "where"):
        assert main([command, str(run.path), "--sampled", "5"]) == 2


def test_a_sample_says_when_it_is_too_little():
    def doubts(tried, fell):
        estimates = {"worst case": estimate_accuracy(1000, 800, tried, fell)}
        return sample_doubts(SampleOutcome(800, tried, {"worst case": fell}, estimates), ["fab-t", "square"])

    assert doubts(200, 2) == []
    [doubt] = doubts(200, 6)  # three per cent
    assert "6 of the 200 survivors that met fab-t and square fell (3.0%)" in doubt.text
    assert doubt.text.endswith("run it in full, without evaluate.sampled.")
    assert doubts(800, 24) == []  # it ran in full
