"""Accuracy against radius on the page: the records' numbers in a table, the same as a picture."""

import base64

import pytest

from counterpart.numerals import readable
from counterpart.report import figures, write_report
from counterpart.report.grouping import group
from counterpart.report.runs import read_runs

from .test_page import Page

RADII = [2 / 255, 4 / 255, 8 / 255]
PGD, WORST = [0.7, 0.6, 0.4], [0.65, 0.5, 0.3]


def curve_records(records, method, worst=WORST, radii=RADII, seed_shift=0.0, **details):
    """Records of one evaluation at several radii: clean accuracy 0.8, PGD-20 and the worst case."""
    made = records.metrics(method, {"clean": 0.8 + seed_shift}, eps=radii[-1], radii=radii, **details)
    for radius, by_pgd, at_worst in zip(radii, PGD, worst, strict=True):
        at = "" if radius == radii[-1] else f" at {readable(radius)}"
        values = {f"PGD-20{at}": by_pgd, f"worst case{at}": at_worst + seed_shift}
        made += records.metrics(method, values, eps=radius, radii=radii, **details)
    return made


def test_the_table_has_each_line_at_each_radius(make_run, records):
    run = make_run("at")
    run.add(curve_records(records, "AT"))
    page = Page(write_report([run.path]))
    head, method, by_pgd, worst = page.tables["curve-1"]
    assert head == ["attack", "clean", "2/255", "4/255", "8/255"]
    assert method == ["AT digits test at 16x16 pixels, n = 1,000"]
    assert [cell.split()[0] for cell in by_pgd] == ["PGD-20", "80.00", "70.00", "60.00", "40.00"]
    assert [cell.split()[0] for cell in worst] == ["worst", "80.00", "65.00", "50.00", "30.00"]
    assert worst[2] == "65.00 62.0–68.0"
    plot = next(image for image in page.images if "against radius" in image["alt"])
    assert "PGD-20: 80.0% at 0, 70.0% at 2/255, 60.0% at 4/255 and 40.0% at 8/255" in plot["alt"]
    headline = page.row("headline", "AT")  # the largest radius, named as a single one is
    assert list(headline)[:4] == ["method", "clean", "PGD-20", "worst case"]
    assert headline["worst case"].startswith("30.00")


def test_a_report_without_several_radii_has_no_curve(make_run, records):
    run = make_run("at")
    run.add(records.metrics("AT", {"clean": 0.8, "PGD-20": 0.5, "worst case": 0.5}))
    page = Page(write_report([run.path]))
    assert "curve-1" not in page.tables
    assert "against radius" not in page.text


def test_of_several_methods_the_worst_case_of_each_is_drawn(make_run, records):
    runs = [make_run("at"), make_run("part", "part")]
    runs[0].add(curve_records(records, "AT"))
    runs[1].add(curve_records(records, "PART", worst=[0.66, 0.52, 0.34]))
    rows = group(read_runs([run.path for run in runs]))
    [(judged, plot)] = figures.radius_curves(rows)
    assert len(judged) == 2
    assert plot.alt.startswith("Worst-case accuracy against radius. AT: 80.0% at 0, 65.0% at 2/255")
    assert "PART: 80.0% at 0, 66.0% at 2/255, 52.0% at 4/255 and 34.0% at 8/255" in plot.alt
    svg = base64.b64decode(plot.uri.partition(",")[2]).decode()
    assert svg.count('id="FillBetweenPolyCollection') == 2  # the bands


def test_norms_have_a_picture_each(make_run, records):
    runs = [make_run("at"), make_run("part", "part")]
    runs[0].add(curve_records(records, "AT"))
    runs[1].add(curve_records(records, "PART", norm="l2", radii=[0.25, 0.5, 1.0]))
    page = Page(write_report([run.path for run in runs]))
    assert page.tables["curve-1"][0][1:] == ["clean", "2/255", "4/255", "8/255"]
    assert page.tables["curve-2"][0][1:] == ["clean", "0.25", "0.5", "1"]


def test_seeds_are_averaged_at_each_radius(make_run, records):
    for seed, shift in ((0, 0.02), (1, -0.02)):
        run = make_run(f"group/seed-{seed}", seed=seed)
        run.add(curve_records(records, "AT", seed_shift=shift))
    [row] = group(read_runs([run.path.parent]))
    curve = row.curve("worst case")
    assert list(curve) == [0, *RADII]
    assert [point.value for point in curve.values()] == pytest.approx([0.8, *WORST])
    assert curve[RADII[0]].sd == pytest.approx(0.04 / 2**0.5)


def test_a_curve_stands_beside_a_later_evaluation_of_one_radius(make_run, records):
    run = make_run("at")
    run.add(curve_records(records, "AT"))
    run.add(records.metrics("AT", {"clean": 0.8, "PGD-20": 0.5, "worst case": 0.5}, n=2000, key="k2"))
    page = Page(write_report([run.path]))
    assert page.row("headline", "AT")["n"] == "2,000"
    assert page.tables["curve-1"][3][-1].startswith("30.00")
