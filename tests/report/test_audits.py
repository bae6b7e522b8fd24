"""An audit on the page: beside the verdict, as a doubt, and as a table."""

import pytest

from counterpart.report import write_report
from counterpart.report.audits import alarms_of, audit_in_words
from counterpart.report.glance import verdict_on
from counterpart.report.grouping import group
from counterpart.report.runs import read_runs

from .pages import add_audit
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
