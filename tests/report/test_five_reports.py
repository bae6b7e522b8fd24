"""The five reports of docs/reading-a-report.md: what the page says is the right answer stands in each of them."""

import html
import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def answers():
    """The number of each report -> what stands in it, by the table of the documentation."""
    text = (DOCS / "reading-a-report.md").read_text(encoding="utf-8")
    section = text.partition("## Five reports to practise on")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d), (.*)$", section, re.MULTILINE)
    return {int(number): re.findall("“([^”]+)”", row) for number, row in rows}


def first_glance(page):
    """The words of a page above its first table, where the answers have to stand."""
    text = page.read_text(encoding="utf-8")
    words = re.sub("<[^>]+>", " ", text[text.index("<main>") : text.index('id="accuracy"')])
    return " ".join(html.unescape(words).split())


def test_the_documentation_answers_for_five_reports():
    assert list(answers()) == [1, 2, 3, 4, 5]
    assert all(len(phrases) >= 3 for phrases in answers().values())


@pytest.mark.slow
def test_each_report_says_what_the_documentation_answers(tmp_path):
    specification = importlib.util.spec_from_file_location("five_reports", DOCS / "five_reports.py")
    five_reports = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(five_reports)
    glances = [first_glance(page) for page in five_reports.make_reports(tmp_path)]
    for number, phrases in answers().items():
        for phrase in phrases:
            assert phrase in glances[number - 1], f"report {number} does not say {phrase!r}"
    for glance in glances:
        assert "In doubt" not in glance
    for number in (2, 3, 5):
        assert "stronger attack can only lower" not in glances[number - 1]
    assert "no_grad" not in glances[2]
    assert "suspicious" not in " ".join(glances[:4])
