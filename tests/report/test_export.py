"""Tables that are taken along: right values, and names that neither LaTeX nor a spreadsheet nor Markdown obeys."""

import base64
import csv
import io
import re

import pytest

from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.report import write_report
from counterpart.report.export import export_table


def test_markdown_has_values_intervals_and_deviations(study):
    lines = export_table(study, "markdown").splitlines()
    assert lines[0] == "| method | clean, % | PGD-20, % | PGD-50x5 margin, % | worst case, % | n | seeds |"
    assert lines[1] == "|---|--:|--:|--:|--:|--:|--:|"
    assert lines[2].startswith("| AT | 80.00 (77.5–82.5) | 51.20 (")
    assert "| 50.00 ± 1.00 (46.0–54.0) | 1,000 | 3 |" in lines[3]
    assert "| — | 39.00 (36.0–42.0) |" in lines[4]  # what was not measured is no number


def test_latex_is_a_table_of_booktabs(study):
    lines = export_table(study, "latex").splitlines()
    assert lines[:2] == [r"\begin{tabular}{lrrrrrr}", r"\toprule"]
    assert lines[2].startswith(r"method & clean, \% & PGD-20, \% &")
    assert lines[3] == r"\midrule"
    assert lines[4].startswith("AT & 80.00 (77.5--82.5) & ")
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]


def test_csv_has_numbers_in_full(study):
    first, second, third = csv.DictReader(io.StringIO(export_table(study, "csv")))
    assert (first["method"], float(first["worst case"]), first["n"]) == ("AT", 0.487, "1000")
    assert float(first["worst case low"]) == pytest.approx(0.487 - 1.96 * (0.487 * 0.513 / 1000) ** 0.5)
    assert float(second["worst case sd"]) == pytest.approx(0.01)
    assert third["PGD-50x5 margin"] == ""


def test_names_are_text_in_every_form(make_run, records):
    run = make_run("mine")
    run.add(records.metrics("=cmd|_1 & \\input{x} 5 %", {"clean": 0.5, "worst case": 0.25}))
    assert r"=cmd|\_1 \& \textbackslash{}input\{x\} 5 \%" in export_table([run.path], "latex")
    assert r"| =cmd\|_1 & " in export_table([run.path], "markdown")
    assert export_table([run.path], "csv").splitlines()[1].startswith("'=cmd")


def test_rows_of_several_settings_say_what_they_were_judged_on(make_run, records):
    paths = []
    for name, eps in (("a", 0.1), ("b", 0.2)):
        run = make_run(name, name)
        run.add(records.metrics(name, {"clean": 0.5, "worst case": 0.25}, eps=eps))
        paths.append(run.path)
    text = export_table(paths, "markdown")
    assert "judged on" in text
    assert "0.2" in text


def test_runs_without_evaluation_have_no_table(make_run, records):
    run = make_run("mine")
    run.add(records.epochs(2))
    with pytest.raises(UserError, match="is evaluated: there is no table"):
        export_table([run.path], "latex")


def test_the_command_prints_the_table_and_writes_no_page(study, capsys):
    assert main(["report", *map(str, study), "--table", "latex"]) == 0
    assert capsys.readouterr().out == export_table(study, "latex")
    assert not list(study[0].parent.rglob("*.html"))


def test_the_command_writes_the_table_into_a_file(study, tmp_path, capsys):
    assert main(["report", *map(str, study), "--table", "csv", "--output", str(tmp_path / "t.csv")]) == 0
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == export_table(study, "csv")


def test_figures_are_taken_along_as_svg_and_pdf(study):
    page = write_report(study).read_text(encoding="utf-8")
    links = dict(re.findall(r'<a download="([\w.-]+)" href="data:[\w/+]+;base64,([^"]+)">', page))
    names = ("trade-off", "cost", "validation-accuracy", "training-loss")
    assert list(links) == [f"{name}.{form}" for name in names for form in ("svg", "pdf")]
    for name in names:
        assert b"<svg" in base64.b64decode(links[f"{name}.svg"])
        assert base64.b64decode(links[f"{name}.pdf"]).startswith(b"%PDF")
