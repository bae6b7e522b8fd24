"""A claim beside an evaluation: ruled on, kept in records and ``result.json``, and refused where nothing answers it."""

import json

import pytest

import counterpart
from counterpart.config import EvaluateSettings
from counterpart.errors import UserError
from counterpart.jobs.accuracy_table import print_accuracies
from counterpart.jobs.claims import with_claim
from counterpart.jobs.seeds import print_claim
from counterpart.records import Record
from counterpart.report.glance import claims_in_words
from counterpart.report.grouping import group
from counterpart.report.runs import read_runs
from counterpart.rundir import RunDir


def judge(net, images, labels, **more):
    return counterpart.evaluate(net, (images, labels), attacks="fgsm", **{"eps": 0.05, **more})


def test_a_claim_is_kept_beside_the_evaluation_and_changes_none_of_it(net, images, labels, tmp_path):
    folder = tmp_path / "mine"
    plain = judge(net, images, labels, folder=folder)
    worst = plain["worst case"]
    assert plain.claim is None
    refuted = judge(net, images, labels, folder=folder, claim="100 % at 0.05")
    assert refuted.claim.verdict == ("refuted" if worst.high < 1 else "undecided")
    consistent = judge(net, images, labels, folder=folder, claim=f"{100 * worst.low - 0.01:.2f} % at 0.05")
    assert consistent.claim.verdict == "consistent"
    judge(net, images, labels, folder=folder, claim="100 % at 0.05")  # once more adds nothing
    assert len({judged.records[0].details["evaluation"] for judged in (plain, refuted, consistent)}) == 1
    records = [record for record in RunDir(folder).records() if record.name.startswith("claim/")]
    assert [record.details["verdict"] for record in records] == [refuted.claim.verdict, "consistent"]
    (run,) = read_runs([folder])
    (result,) = [artifact for artifact in run.artifacts if artifact.record.name == "result"]
    assert result.problem is None  # its hash is that of the file as it is now
    told = json.loads(result.file.read_text())["counterpart"]["claims"]
    assert [claim["claim"] for claim in told] == [record.details["claim"] for record in records]
    assert len(claims_in_words(group([run])[0])) == 2
    assert len([r for r in RunDir(folder).records() if r.name == "accuracy/clean"]) == 1


def test_of_several_radii_the_claimed_one_is_judged(net, images, labels):
    judged = judge(net, images, labels, eps=["0.001", "0.3"], claim="99 % at 0.001")
    (record,) = [record for record in judged.records if record.name.startswith("claim/")]
    assert record.value == judged["worst case at 0.001"].value
    assert record.details["eps"] == 0.001


def test_a_union_is_judged_as_a_whole(net, images, labels):
    judged = judge(net, images, labels, norm=["linf", "l2"], eps=["0.01", "0.1"], claim="100 %")
    (record,) = [record for record in judged.records if record.name.startswith("claim/")]
    assert record.value == judged["worst case"].value
    assert all(member.claim is None for member in judged.members.values())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"claim": "60 % at 8/255"}, "evaluated is at 0.05. Ask for --eps 8/255."),
        ({"claim": "much"}, "a claim is a share and the radius"),
        ({"claim": "60 % at 0.1", "norm": ["linf", "l2"], "eps": [0.1, 1.0]}, "a union has no one radius"),
    ],
)
def test_claims_that_nothing_answers_are_refused_before_anything_is_attacked(
    net, images, labels, more, message
):
    with pytest.raises(UserError, match=message) as refused:
        judge(net, images, labels, **more)
    assert "\n" not in str(refused.value)


def test_without_an_attack_there_is_nothing_to_claim(net, images, labels):
    with pytest.raises(UserError, match="name some with --attacks"):
        counterpart.evaluate(net, (images, labels), attacks="none", claim="60 %")


def test_the_terminal_says_the_ruling(net, images, labels, tmp_path, capsys):
    folder = tmp_path / "mine"
    judged = judge(net, images, labels, folder=folder, claim="100 %")
    print_accuracies(RunDir(folder), judged.records)
    told = capsys.readouterr().out
    assert f"Claim of 100 %: {judged.claim.verdict}" in told
    assert "claim/" not in told  # it is no line of the table


@pytest.mark.parametrize("details", [{}, {"sampled": {"count": 5}}, {"draws": 20}, {"votes": 3}])
def test_only_counted_images_say_how_many_would_decide(details):
    shared = {"eps": 0.1, **details}
    worst = Record("metric", "accuracy/worst case", 0.48, 100, (0.38, 0.58), details=shared)
    *_, claim = with_claim(EvaluateSettings(claim="50 %"), [worst])
    assert claim.details["verdict"] == "undecided"
    assert ("needed" in claim.details) == (details == {})


def test_the_terminal_says_what_seeds_say_together(capsys):
    print_claim([])
    assert capsys.readouterr().out == ""
    details = {"claim": "60 %", "verdict": "refuted"}
    print_claim(
        [
            Record("metric", "claim/60 %", 0.4, 100, (0.35, 0.45), seed=seed, details=details)
            for seed in range(3)
        ]
    )
    assert "Claim of 60 %, on average over 3 trainings: refuted." in capsys.readouterr().out
