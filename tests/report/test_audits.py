"""An audit on the page: beside the verdict, as a doubt, and as a table."""

import re

import pytest

from counterpart.records import Record
from counterpart.report import write_report
from counterpart.report.audits import alarms_of, audit_in_words, broken_by
from counterpart.report.export import export_table
from counterpart.report.grouping import group
from counterpart.report.runs import read_runs
from counterpart.report.verdict import verdict_on

from .pages import EIGHT, add_audit
from .test_page import Page

ASKED = "An audit checked whether these attacks can be trusted: of 13 behaviours"


@pytest.fixture
def attacked(make_run, records):
    run = make_run("mine")
    run.add(records.metrics("AT", {"clean": 0.9, "PGD-20": 0.7, "worst case": 0.7}))
    return run


def row_of(run):
    (row,) = group(read_runs([run.path]))
    return row


@pytest.mark.parametrize(
    ("honest", "told", "word"),
    [
        ([], "No audit checked whether these attacks can be trusted.", "Robust in part"),
        ([1] * 13, f"{ASKED} none raised an alarm, which is no proof.", "Robust in part"),
        ([1, None, None] + [1] * 10, f"{ASKED} none raised an alarm, 2 for want of images, which", "Robust in part"),
        ([1] * 12 + [0], f"{ASKED} 1 is suspicious.", "In doubt"),
        ([0, 0, 0] + [None] * 10, f"{ASKED} 3 are suspicious.", "In doubt"),
    ],
)  # fmt: skip
def test_the_verdict_says_what_an_audit_came_to(attacked, honest, told, word):
    add_audit(attacked, honest)
    row = row_of(attacked)
    verdict = verdict_on(row)
    assert verdict.sentences[-1].startswith(told)
    assert verdict.word.startswith(word)


def test_an_audit_in_another_norm_says_nothing_of_this_one(attacked):
    add_audit(attacked, [0] * 13, norm="l2")
    row = row_of(attacked)
    assert alarms_of(row) == []
    assert audit_in_words(row).startswith("No audit")


def test_alarms_stand_above_everything_and_in_the_table(attacked):
    add_audit(attacked, [1, 0, 0, None, *[1] * 9])
    page = write_report([attacked.path])
    text = Page(page).text
    doubt = "audit: what should hold does not: “behaviour number 1” and “behaviour number 2”."
    assert text.index("In doubt") < text.index(doubt) < text.index("Audit: is it robustness")
    assert page.read_text(encoding="utf-8").count("✗ suspicious") == 2


BROKEN = {
    "white-box attacks beat black-box": {"Square": 0.96, "PGD and APGD": 0.03, "Square alone": 0.93},
    "straight-through gradients find nothing new": {"PGD": 0.02, "PGD, straight-through": 96 / 97},
    "unbounded attacks reach 100 %": {"PGD, unbounded": 1.0},  # without a radius: that proves nothing
}


def add_broken(run, numbers=BROKEN, **details):
    shared = {"audit": "a1", "norm": "linf", "eps": EIGHT, "verdict": "so it is"} | details
    for name, of in numbers.items():
        run.add([Record("metric", f"audit/{name}", 0, 97, details={**shared, "numbers": of})])


@pytest.fixture
def rounded(make_run, records):
    run = make_run("mine")
    run.add(records.metrics("AT", {"clean": 0.97, "PGD-20": 0.945, "worst case": 0.945}))
    return run


BEATEN = "the audit's straight-through PGD fools 99 % of the right answers (96 of 97), the evaluation's attacks 3 %"


def test_a_number_that_an_audit_beats_is_struck_wherever_it_stands(rounded):
    add_broken(rounded)
    verdict = verdict_on(row_of(rounded))
    assert (verdict.word, verdict.number, verdict.colour) == ("Not robust", BEATEN, "red")
    page = write_report([rounded.path]).read_text(encoding="utf-8")
    assert "<s>94.5\N{NO-BREAK SPACE}% of 1,000 images survived the one attack tried" in page
    assert "stronger attack can only" not in page[: page.index('id="accuracy"')]
    assert 'class="after doubtful"' in page
    (cell,) = re.findall(r'<td data-name="worst case" class="worst">(.*?)</td>', page)
    assert cell.startswith("<s>94.50</s>")
    assert "unreliable: the audit&#39;s straight-through PGD fools 99 %" in cell
    for form in ("markdown", "csv"):
        assert f"unreliable: {BEATEN}" in export_table([rounded.path], form)
    assert r"fools 99 \%" in export_table([rounded.path], "latex")


def test_an_audit_that_beats_by_less_leaves_the_number_in_doubt(rounded):
    add_broken(rounded, {"white-box attacks beat black-box": {"Square": 0.6}})
    verdict = verdict_on(row_of(rounded))
    assert verdict.word == "In doubt"
    assert verdict.number.startswith("the audit's Square fools 60 % of the right answers (58 of 97)")


@pytest.mark.parametrize(
    ("numbers", "details"),
    [
        ({"random search finds nothing new": {"random search": 0.06}}, {}),  # luck explains it
        ({"unbounded attacks reach 100 %": {"PGD, unbounded": 1.0}}, {}),
        (BROKEN, {"eps": 2 * EIGHT}),  # a larger radius proves nothing of this one
        (BROKEN, {"norm": "l2"}),
    ],
)
def test_what_an_audit_finds_elsewhere_or_by_luck_beats_nothing(rounded, numbers, details):
    add_broken(rounded, numbers, **details)
    assert broken_by(row_of(rounded)) is None


def test_a_behaviour_that_was_not_measured_says_so(attacked):
    name = "straight-through gradients find nothing new"
    details = {
        "audit": "a1",
        "norm": "linf",
        "eps": EIGHT,
        "numbers": {},
        "verdict": "no piece loses information",
    }
    attacked.add([Record("metric", f"audit/{name}", 1, 96, details=details)])
    assert '<td class="text" data-name="measured">not run</td>' in write_report([attacked.path]).read_text()
