"""Part models on the page: their metrics, the maps of their parts, and colours that all eyes tell apart."""

import base64
import html
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from counterpart.part_colours import BACKGROUND, COLOURS, coloured_parts, part_colour, part_legend
from counterpart.report import write_report
from counterpart.report.grouping import group
from counterpart.report.page import MANY_PARTS
from counterpart.report.panel import read_panel
from counterpart.report.runs import read_runs

FOLDED = "<summary>Intersection over union of each part</summary>"
NAMES = ("background", "car wheel", "car body")
VALUES = {
    "pixel accuracy clean": 0.9, "pixel accuracy without background clean": 0.6, "mIoU clean": 0.5,
    "pixel accuracy under PGD-20": 0.7, "mIoU under PGD-20": 0.25,
}  # fmt: skip
PER_PART = {"background": (0.8, 90), "car wheel": (0.4, 30), "car <i>body</i>": (0.3, 9)}


def part_run(make_run, records, name="parts", seed=0, shift=0.0, per_part=PER_PART):
    run = make_run(name, "at", seed)
    run.add(records.metrics("AT", {"clean": 0.8, "worst case": 0.5}))
    values = {metric: value + shift for metric, value in VALUES.items()}
    run.add(records.part_metrics(values, per_part={k: (iou + shift, n) for k, (iou, n) in per_part.items()}))
    return run


def page_of(*paths):
    return write_report([*paths]).read_text(encoding="utf-8")


def table(page, name):
    """The rows of a table, each as the words of its cells."""
    [body] = re.findall(rf'<table id="{name}"[^>]*>(.*?)</table>', page, re.DOTALL)
    rows = [
        re.findall(r"<t[hd]\b.*?>(.*?)</t[hd]>", row, re.DOTALL)
        for row in re.findall("<tr>(.*?)</tr>", body, re.DOTALL)
    ]
    return [[" ".join(html.unescape(re.sub("<.*?>", " ", cell)).split()) for cell in row] for row in rows]


def test_part_metrics_stand_beside_the_accuracies(make_run, records):
    page = page_of(part_run(make_run, records).path)
    assert table(page, "part-metrics") == [
        ["method", "pixel accuracy", "pixel accuracy without background", "mIoU", "n"],
        ["clean"],
        ["AT parts", "90.00 83.8–96.2", "60.00 49.9–70.1", "50.00 39.7–60.3", "90"],
        ["under PGD-20"],
        ["AT parts", "70.00 60.5–79.5", "— not measured", "25.00 16.1–33.9", "90"],
    ]
    assert table(page, "per-part") == [
        ["part", "AT"],
        ["n", "clean", "under PGD-20"],
        ["background", "90", "80.00 70.0–90.0", "80.00 70.0–90.0"],
        ["car wheel", "30", "40.00 30.0–50.0", "40.00 30.0–50.0"],
        ["car <i>body</i>", "9", "30.00 no interval", "30.00 no interval"],
    ]
    assert "mIoU" not in table(page, "headline")[0]
    assert FOLDED not in page


def test_parts_compared_with_other_labels_than_masks_say_so(make_run, records):
    runs = [make_run(name, "at", 0) for name in ("masks", "boxes")]
    for run, labels in zip(runs, ({}, {"labels": "boxes"}), strict=True):
        run.add(records.metrics("AT", {"clean": 0.8, "worst case": 0.5}))
        run.add(records.part_metrics(VALUES, **labels))
    clean = table(page_of(*[run.path for run in runs]), "part-metrics")[2:4]
    assert ["compared with boxes" in row[0] for row in clean] == [False, True]


def test_runs_without_part_metrics_have_no_such_table(study, make_run, records):
    page = page_of(*study)
    assert not any(word in page for word in ('id="part-metrics"', 'id="per-part"', "mIoU"))
    page = page_of(*study, part_run(make_run, records).path)
    metrics = table(page, "part-metrics")
    assert [row[0] for row in metrics] == ["method", "clean", "AT parts", "under PGD-20", "AT parts"]
    assert len(table(page, "headline")) == 5


def test_seeds_of_a_part_model_become_one_row(make_run, records):
    tables = PER_PART | {"imagined once": (0.0, 0)}, PER_PART
    for seed, per_part in zip((0, 2), tables, strict=True):
        run = part_run(make_run, records, f"group/seed-{seed}", seed, seed / 100, per_part)
    page = page_of(run.path.parent)
    assert table(page, "part-metrics")[2][1].startswith("91.00 90.00 and 92.00")  # two seeds: both
    assert [row[2].split(" ")[:4] for row in table(page, "per-part")[2:]] == [
        ["81.00", "80.00", "and", "82.00"], ["41.00", "40.00", "and", "42.00"], ["31.00", "30.00", "and", "32.00"],
    ]  # fmt: skip


def test_a_seed_without_part_metrics_is_a_row_of_its_own(make_run, records):
    runs = [make_run(name, "at", seed) for seed, name in enumerate(("bare", "other", "parts"))]
    for run in runs:
        run.add(records.metrics("AT", {"clean": 0.8, "worst case": 0.5}))
    assert len(group(read_runs([run.path for run in runs]))) == 1
    runs[1].add(records.metrics("AT", {"clean": 0.8}, n=10, key="other"))
    runs[1].add(records.part_metrics(VALUES, key="other"))
    runs[2].add(records.part_metrics(VALUES))
    assert len(group(read_runs([run.path for run in runs]))) == 3


def test_part_metrics_of_another_evaluation_say_what_they_were_judged_on(make_run, records):
    run = make_run("parts")
    run.add(records.metrics("AT", {"clean": 0.7}, n=90, key="small", eps=16 / 255))
    run.add(records.part_metrics(VALUES, key="small"))
    run.add(records.metrics("AT", {"clean": 0.8, "worst case": 0.5}))
    page = page_of(run.path)
    assert table(page, "headline")[1][1].startswith("80.00")
    assert table(page, "part-metrics")[2][0] == "AT parts judged on digits test at 16x16 pixels, ℓ∞ ≤ 16/255"


def test_many_parts_are_folded_away(make_run, records):
    run = make_run("parts")
    run.add(records.metrics("AT", {"clean": 0.8}))
    run.add(records.part_metrics(VALUES, per_part={f"part {i}": (0.5, 20) for i in range(MANY_PARTS + 1)}))
    assert FOLDED in page_of(run.path)


def _pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def _hex(pixel):
    return "#" + bytes(pixel.tolist()).hex()


def test_the_panel_shows_parts_true_found_and_attacked(make_run, records):
    panel = read_panel(records.panel(make_run("parts"), parts=NAMES), "linf", 0.0, 1.0)
    fooled, *_, unknown = panel.samples
    assert [tile.name for tile in fooled.tiles] == ["clean", "map", "radius", "attacked", "change"]
    assert [(tile.name, tile.correct) for tile in fooled.parts] == [
        ("true parts", None), ("parts", True), ("parts attacked", False),
    ]  # fmt: skip
    assert [tile.name for tile in unknown.parts] == ["parts", "parts attacked"]  # nobody annotated it
    assert [tile.correct for tile in unknown.parts] == [True, True]
    true, found, attacked = (_pixels(tile.uri) for tile in fooled.parts)
    assert [_hex(true[0, x]) for x in (0, 8, 15)] == [BACKGROUND, *COLOURS[:2]]
    assert (found == true[:, ::-1]).all()
    assert {_hex(pixel) for pixel in attacked.reshape(-1, 3)} == {BACKGROUND}
    assert panel.legend == {"background": BACKGROUND, "car wheel": COLOURS[0], "car body": COLOURS[1]}
    assert [tile.alt for tile in fooled.parts] == [
        "zero: true parts: car wheel, car body", "zero: parts: car wheel, car body", "zero: parts attacked: none",
    ]  # fmt: skip


def test_frames_say_by_a_sign_whether_the_class_is_right(make_run, records):
    run = make_run("parts")
    run.add(records.metrics("AT", {"clean": 0.5, "worst case": 0.2}))
    records.panel(run, parts=NAMES)
    page = page_of(run.path)
    assert page.count('<div class="wrong"><img') == 1
    assert page.count('<div class="right"><img') == 7
    assert (page.count("✗"), page.count("✓")) == (2 + 1, 14 + 1)  # verdicts and frames, and what they mean
    assert all(f'<span style="background: {colour}"></span>' in page for colour in COLOURS[:2])


def test_panels_without_parts_are_as_they_were(make_run, records):
    run = make_run("at")
    run.add(records.metrics("AT", {"clean": 0.5, "worst case": 0.2}))
    panel = read_panel(records.panel(run), "linf", 0.0, 1.0)
    assert (panel.samples[0].parts, panel.legend) == ([], {})
    assert 'class="legend"' not in page_of(run.path)


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
EYES = {
    "usual": np.eye(3),
    "without long cones": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ],
    "without medium cones": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ],
}  # fmt: skip
XYZ = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])


def seen(colours, eyes):
    """(K, 3) in CIELAB, as some eyes see them."""
    rgb = np.array([[*bytes.fromhex(colour[1:])] for colour in colours]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = (linear @ np.array(eyes).T).clip(0, 1) @ XYZ.T / XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize(("parts", "least"), [(6, 40), (12, 24), (40, 10), (52, 9.5)])
def test_no_two_parts_look_alike_to_any_eyes(eyes, parts, least):
    """A difference of 2.3 is just noticed."""
    lab = seen([BACKGROUND, *COLOURS[:parts]], EYES[eyes])
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1e3 * np.eye(len(lab))
    assert apart.min() > least


@pytest.mark.parametrize("eyes", EYES)
def test_neighbouring_ids_differ_more(eyes):
    assert min(np.linalg.norm(a - b) for a, b in pairwise(seen(COLOURS, EYES[eyes]))) > 14


def test_the_background_is_neutral_and_colours_repeat_after_the_last():
    assert len(set(BACKGROUND[i : i + 2] for i in (1, 3, 5))) == 1
    assert part_colour(len(COLOURS) + 1) == part_colour(1) != part_colour(2)
    maps = np.array([[[0, 1], [len(COLOURS) + 1, 2]]])
    pictures = coloured_parts(maps)
    assert (pictures.shape, pictures.dtype) == ((1, 2, 2, 3), np.uint8)
    assert [_hex(pixel) for pixel in pictures.reshape(-1, 3)] == [
        BACKGROUND,
        COLOURS[0],
        COLOURS[0],
        COLOURS[1],
    ]


def test_a_legend_serves_matplotlib():
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    names = ["background", "wheel", "body", "$sail_1"]
    legend = part_legend(np.array([[[3, 1]], [[1, 1]]]), names)
    assert [*legend] == ["wheel", "$sail_1"]
    shown = Figure().legend(handles=[Patch(color=colour, label=name) for name, colour in legend.items()])
    colours = [tuple(round(255 * x) for x in patch.get_facecolor()[:3]) for patch in shown.get_patches()]
    assert colours == [tuple(bytes.fromhex(COLOURS[i][1:])) for i in (0, 2)]
