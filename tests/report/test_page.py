"""The page without a browser: its numbers are the records', and nothing missing looks like a number."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from counterpart.checksums import KEY_OF_TENSORS
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.evaluation.corruption import Count
from counterpart.evaluation.corruption import metrics as corruption_records
from counterpart.pictures import Pictures
from counterpart.records import Record
from counterpart.report import write_report
from counterpart.report.panel import radius_range, read_panel


class Page(HTMLParser):
    """Tables as rows of cell texts, images, text, and every attribute that could load something."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.images, self.loads, self.text, self.tags = {}, [], [], "", []
        self.cell = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag == "table":
            self.rows = self.tables.setdefault(attrs.get("id", len(self.tables)), [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = ""
        if tag == "small":
            self.handle_data(" ")
        if tag == "img":
            self.images.append(attrs)
        self.loads += [attrs[name] for name in ("src", "srcset", "data", "poster") if name in attrs]
        self.loads += [attrs["href"]] if tag == "link" else []

    def handle_data(self, data):
        self.text += data
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[-1].append(" ".join(self.cell.split()))
            self.cell = None

    def row(self, table, label):
        names, *rows = self.tables[table]
        return dict(zip(names, next(row for row in rows if row[0].startswith(label)), strict=True))


def test_headline_numbers_are_the_records(make_run, records):
    run = make_run("at")
    run.add(records.epochs(4))
    run.add(
        records.metrics("AT", {"clean": 0.8125, "PGD-20": 0.4567, "worst case": 0.4455}, n=1600, seconds=7.5)
    )
    row = Page(write_report([run.path])).row("headline", "AT")
    assert row["clean"] == "81.25 79.3–83.2"
    assert row["PGD-20"] == "45.67 43.2–48.1"
    assert row["worst case"] == "44.55 42.1–47.0"
    assert row["n"] == "1,600"
    assert row["seeds"] == "1 seed 0"
    assert row["training seconds"] == "12"  # four epochs of 3 s
    assert row["evaluation seconds"] == "7.5"


def test_seeds_become_one_row_with_mean_and_sd(study):
    page = Page(write_report(study))
    row = page.row("headline", "PART part")
    assert row["worst case"].startswith("50.00 ± 1.00")
    assert row["clean"].startswith("81.00 ± 0.00")
    assert row["seeds"] == "3 seeds 0, 1, 2"
    # Wilson-like half-width of n = 1000, and t(2) * sd / sqrt(3), in squares
    half = 100 * np.hypot(1.96 * np.sqrt(0.25 / 1000), 4.303 * 0.01 / np.sqrt(3))
    assert row["worst case"].endswith(f"{50 - half:.1f}–{50 + half:.1f}")
    assert [row[0].split(" ")[0] for row in page.tables["headline"][1:]] == ["AT", "PART", "PART,"]


def test_what_was_not_measured_is_no_number(study):
    page = Page(write_report(study))
    assert page.row("headline", "PART, uniform control")["PGD-50x5 margin"] == "— not measured"


def test_a_record_without_interval_says_so(make_run, records):
    run = make_run("at")
    (record,) = records.metrics("AT", {"clean": 0.5})
    run.add([type(record)(**{**vars(record), "interval": None})])
    page = Page(write_report([run.path]))
    assert page.row("headline", "AT")["clean"] == "50.00 no interval"
    assert "clean images only" in page.text


def test_class_names_are_escaped_everywhere(study):
    path = write_report(study)
    page = Page(path)
    assert "<b>one</b>" not in path.read_text()
    assert "<b>one</b>" in page.text
    assert page.tables["per-class"][3][0] == "<b>one</b>"


def test_classes_are_summed_over_seeds(study):
    rows = Page(write_report(study)).tables["per-class"]
    assert rows[2] == ["zero", "80.0 200 of 250", "48.8 122 of 250", "80.8 606 of 750", "50.0 375 of 750",
                       "75.2 188 of 250", "39.2 98 of 250"]  # fmt: skip


def test_many_classes_are_folded_away(make_run, records):
    run = make_run("at")
    per_class = {f"class {i}": [i, 50] for i in range(30)}
    (record,) = records.metrics("AT", {"clean": 0.5})
    run.add([type(record)(**{**vars(record), "details": {**record.details, "per_class": per_class}})])
    assert "All 30 classes" in Page(write_report([run.path])).text


def test_page_needs_no_network(study):
    path = write_report(study)
    page = Page(path)
    assert page.loads
    assert all(load.startswith("data:") for load in page.loads)
    text = path.read_text()
    assert not re.search(r"url\(|@import|<script\s|\son\w+=|fetch\(|XMLHttp|import\(|innerHTML|eval\(", text)
    assert text.count("<script>") == 1
    assert all(image.get("alt") for image in page.images)


def test_a_run_without_evaluation_is_named_with_its_command(study, make_run, records):
    pending = make_run("my run", "part", seed=9)
    pending.add(records.epochs(2))
    page = Page(write_report([*study, pending.path]))
    assert "my run is not evaluated yet:" in page.text
    assert f"counterpart evaluate '{pending.path}'" in page.text
    assert all("my run" not in row[0] for row in page.tables["headline"])


def test_only_trained_runs_make_a_page_of_curves(make_run, records):
    run = make_run("at")
    run.add(records.epochs(3))
    page = Page(write_report([run.path]))
    assert "none evaluated yet" in page.text
    assert "headline" not in page.tables
    assert len(page.images) == 2


def test_the_latest_evaluation_on_most_images_is_shown_and_others_listed(make_run, records):
    run = make_run("at")
    run.add(records.metrics("AT", {"clean": 0.1}, n=1000, key="first"))
    run.add(records.metrics("AT", {"clean": 0.2}, n=1000, key="second"))
    run.add(records.metrics("AT", {"clean": 0.3}, n=100, key="small"))
    page = Page(write_report([run.path]))
    assert page.row("headline", "AT")["clean"].startswith("20.00")
    assert [row[1] for row in page.tables["others"][1:]] == ["first", "small"]


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_an_artifact_that_cannot_be_trusted_is_left_out_visibly(make_run, records, damage):
    run = make_run("at")
    run.add(records.metrics("AT", {"clean": 0.5, "worst case": 0.2}))
    file = records.panel(run)
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    page = Page(write_report([run.path]))
    assert len(page.images) == 0
    word = "is missing" if damage == "missing" else "has changed since it was recorded"
    assert f"at: {file} {word}" in page.text
    assert "No images: " in page.text


def test_the_panel_of_another_evaluation_is_not_shown(make_run, records):
    run = make_run("at")
    run.add(records.metrics("AT", {"clean": 0.5}, n=10, key="small"))
    records.panel(run, key="small")
    run.add(records.metrics("AT", {"clean": 0.5}, key="large"))
    assert "this evaluation recorded none" in Page(write_report([run.path])).text


def test_where_the_page_goes(study, make_run, tmp_path):
    assert write_report([study[0]]) == study[0] / "report" / "index.html"
    assert write_report([study[1]]) == study[1] / "report" / "index.html"  # a group of seeds
    names = "+".join(sorted(path.name for path in study))
    assert write_report(study) == tmp_path / "report" / f"{names}.html"
    assert write_report(study, tmp_path / "deep" / "page.html").exists()
    with pytest.raises(UserError, match="is a folder; name the file"):
        write_report(study, tmp_path)


def test_pages_about_other_runs_stay(make_run, records, tmp_path):
    runs = {}
    for name in ("a", "b", "c", "deep/a"):
        runs[name] = make_run(name)
        runs[name].add(records.metrics("AT", {"clean": 0.5}))
    folder = tmp_path / "report"
    a, b, c, deep = (run.path for run in runs.values())
    assert write_report([a, b]) == folder / "a+b.html"
    first = (folder / "a+b.html").read_text()
    assert write_report([a, c]) == folder / "a+c.html"
    assert write_report([a, deep]) == folder / "a+deep-a.html"
    assert (folder / "a+b.html").read_text() == first
    assert write_report([b, a, b]) == folder / "a+b.html"
    long = make_run("x" * 150)
    long.add(records.metrics("AT", {"clean": 0.5}))
    page = write_report([a, long.path])
    assert page.name.startswith("a+xxx")
    assert "-and-more-" in page.name
    assert len(page.name) < 140


def test_an_audit_without_a_verdict_says_how_few_images_it_had(make_run):
    run = make_run("at")
    details = {
        "audit": "a",
        "numbers": {"FGSM": 0.25},
        "verdict": "not enough images to tell: 4 of at least 30",
    }
    run.add([Record("metric", "audit/iterative attacks beat one step", None, 4, details=details)])
    run.add([Record("epoch", "epoch", details={"epoch": 0, "phase": "adversarial", "loss": 1.0})])
    text = Page(write_report([run.path])).text
    assert "not enough images to tell: 4 of at least 30" in text
    assert "suspicious" not in text


def test_paths_that_are_no_runs_are_refused(tmp_path, make_run):
    with pytest.raises(UserError, match="does not exist"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"no config\.yaml"):
        write_report([tmp_path])
    with pytest.raises(UserError, match="Nothing to report yet"):
        write_report([make_run("empty").path])
    with pytest.raises(UserError, match="No run to report on"):
        write_report([])
    assert not list(tmp_path.rglob("index.html"))


def test_the_same_records_give_the_same_page(study, tmp_path):
    first, second = (write_report(study, tmp_path / name) for name in ("a.html", "b.html"))
    assert first.read_text() == second.read_text()


def test_overlap_is_told_in_words(study):
    text = Page(write_report(study)).text
    assert "95 % intervals overlap: “PART” with “AT”. Do not read these differences as gains." in text


def _pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.parametrize("channels", [1, 3])
def test_panel_shows_the_tensors(make_run, records, channels):
    file = records.panel(make_run("at"), channels=channels)
    low, high = radius_range([file])
    panel = read_panel(file, "linf", low, high)
    assert [tile.name for tile in panel.samples[0].tiles] == ["clean", "map", "radius", "attacked", "change"]
    clean, coarse, radius, attacked, change = (_pixels(tile.uri) for tile in panel.samples[0].tiles)
    assert clean.shape == ((16, 16) if channels == 1 else (16, 16, 3))
    assert coarse.shape == (4, 4, 3)
    assert len(np.unique(radius.reshape(-1, 3), axis=0)) == 2
    np.testing.assert_allclose(panel.factor, 0.5 / (8 / 255), rtol=1e-5)
    moved = np.sign(attacked.astype(int) - clean)
    assert (np.sign(change.astype(int) - 127.5)[moved != 0] == moved[moved != 0]).all()
    fooled, stood = panel.samples[:2]
    assert (fooled.true, fooled.clean.correct, fooled.attacked.predicted) == ("zero", True, "<b>one</b>")
    assert (fooled.attacked.correct, stood.attacked.correct) == (False, True)
    assert "7/255 to 8/255" in panel.samples[0].tiles[2].alt


def test_verdicts_are_marked_by_more_than_colour(make_run, records):
    run = make_run("at")
    run.add(records.metrics("AT", {"clean": 0.5, "worst case": 0.2}))
    records.panel(run)
    text = Page(write_report([run.path])).text
    assert text.count("✗") == 1
    assert text.count("✓") == 7


def test_plots_hold_every_point_and_the_burn_in(study):
    page = Page(write_report(study))
    alts = [image["alt"] for image in page.images if "over epochs" in image["alt"] or "plot" in image["alt"]]
    assert alts[0] == ("Trade-off plot. AT: clean 80.0%, worst case 48.7%; PART: clean 81.0%, worst case 50.0%; "
                       "PART, uniform control: clean 75.0%, worst case 39.0%.")  # fmt: skip
    assert "burn-in (3 epochs of “PART” and “PART, uniform control”)" in page.text


def test_metadata_beside_ours_does_not_disturb(make_run, records, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    file = records.panel(make_run("at"))
    with safe_open(file, framework="numpy") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = {**opened.metadata(), "format": "pt"}
    del metadata[KEY_OF_TENSORS]  # which is of the file as we wrote it
    save_file(tensors, file, metadata)
    assert read_panel(file, "linf", 0.0, 1.0).samples[0].true == json.loads(metadata["classes"])[0]


def test_radius_colours_follow_the_shared_scale(make_run, records):
    from matplotlib import colormaps

    file = records.panel(make_run("at"))  # radii 7/255 and 8/255
    tile = read_panel(file, "linf", 6 / 255, 8 / 255).samples[0].tiles[2]
    found = {tuple(map(int, colour)) for colour in np.unique(_pixels(tile.uri).reshape(-1, 3), axis=0)}
    expected = [colormaps["cividis"](share, bytes=True)[:3] for share in (0.5, 1.0)]
    assert all(min(np.abs(np.subtract(one, e)).max() for e in expected) <= 2 for one in found)
    assert len(found) == 2


def test_the_radius_that_a_search_came_to_is_shown(make_run, records):
    run = make_run("part", "part")
    rows = records.epochs(3, burn_in=1, phase="part")
    for row, low in zip(rows[1:], (8 / 255, 7 / 255), strict=True):
        row.details.update(eps_low=low, mean_radius=low)
    run.add([*rows, *records.metrics("PART, eps_low auto", {"clean": 0.8}, trained_eps_low=8 / 255)])
    html = write_report([run.path]).read_text()
    assert "eps_low at the end: 7/255" in html
    assert "<dt>eps_low by epoch</dt><dd>8/255 7/255</dd>" in html
    assert "<dt>eps_low of the judged weights</dt><dd>8/255</dd>" in html


def test_missing_values_and_times_are_dashes(make_run, records):
    run = make_run("at")
    (old,) = records.metrics("AT", {"clean": 0.5}, n=10, key="old")
    run.add([type(old)(**{**vars(old), "value": None, "interval": None})])
    run.add(records.metrics("AT", {"clean": 0.5}, seconds=None))
    page = Page(write_report([run.path]))
    assert page.tables["others"][1][5] == "clean —"
    row = page.row("headline", "AT")
    assert (row["training seconds"], row["evaluation seconds"]) == ("—", "—")


def write_table(run, fooled, key="k1"):
    """The per-image table of an evaluation, and its record."""
    file = run.path / "evaluations" / key / "images.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{index},zero,zero,{name},zero,1,0" for index, name in fooled.items()]
    file.write_text("\n".join(["index,label,clean,first_fooled_by,answer,forwards,backwards", *lines]) + "\n")
    run.add([run.artifact(file, "images", "Per-image results.")])


def test_rows_on_the_same_images_are_paired(make_run, records):
    runs = [make_run("at"), make_run("part", "part"), make_run("other", "clean")]
    tables = [
        {i: "PGD-20" if i < 10 else "" for i in range(40)},  # ten fall
        {i: "clean" if i < 2 else "" for i in range(40)},  # two
        {i: "" for i in range(1, 41)},  # other images
    ]
    for run, method, table in zip(runs, ("AT", "PART", "clean"), tables, strict=True):
        run.add(records.metrics(method, {"clean": 0.8, "worst case": 0.5}, n=40))
        write_table(run, table)
    text = Page(write_report([run.path for run in runs])).text
    assert (
        "“AT” against “PART” on the same 40 images: 0 stand only in the first, 8 only in the second "
        "(McNemar p = 0.0078, by Holm 0.0078: a difference)"
    ) in text
    assert text.count("Image by image") == 1  # the third was judged on other images


def test_methods_of_several_seeds_are_compared_over_trainings(make_run, records):
    runs = []
    for method, values in (("at", (0.5, 0.52, 0.51)), ("part", (0.7, 0.71, 0.72))):
        for seed, value in enumerate(values):
            runs.append(make_run(f"{method}/seed-{seed}", method, seed))
            runs[-1].add(records.metrics(method.upper(), {"clean": 0.8, "worst case": value}))
    text = Page(write_report([run.path for run in runs])).text
    assert "Worst case, other trainings: “AT” against “PART” over 3 and 3 trainings: -20.00 points" in text
    assert "Holm's correction is over the 2 tests on this page (Welch's)" in text
    assert "Welch's test asks whether other trainings" in text
    assert text.index("How this was tested") < text.index("Worst case, other trainings")
    assert "McNemar" not in text  # what is not on the page is not explained


def test_doubts_and_the_way_of_searching_are_told(make_run, records):
    run = make_run("at")
    doubts = {"zero gradients": "3 of 64 images have no gradient."}
    run.add(
        records.metrics(
            "AT", {"clean": 0.8, "worst case": 0.5}, precision="bf16", individual=False, doubts=doubts
        )
    )
    text = Page(write_report([run.path])).text
    assert "“AT”, zero gradients: 3 of 64 images have no gradient." in text
    assert "searched in bf16 and ended in float32" in text
    assert "each on what the earlier ones left" in text
    other = make_run("official")
    other.add(records.metrics("AT", {"clean": 0.8, "worst case": 0.5}, engine="official", individual=True))
    text = Page(write_report([other.path])).text
    assert "by the published AutoAttack" in text
    assert "each on what the earlier ones left" not in text
    followed = make_run("followed")
    followed.add(
        records.metrics("AT", {"clean": 0.8, "worst case": 0.5}, protocol="robustbench-cifar10-linf")
    )
    assert ", protocol robustbench-cifar10-linf" in Page(write_report([followed.path])).text


def test_doubts_stand_at_the_head_of_the_page(make_run, records):
    runs = [make_run(name) for name in ("doubted", "later")]
    doubts = {"answers hardly vary": "the model answers 95 of 100 with 'cat'."}
    runs[0].add(records.metrics("AT", {"clean": 0.1}, doubts=doubts))
    runs[1].add([Record("epoch", "epoch", details={"epoch": 0, "phase": "adversarial", "loss": 1.0})])
    html = write_report([run.path for run in runs]).read_text()
    notes = html[html.index('class="notes"') :]
    assert notes.index("answers hardly vary") < notes.index("is not evaluated yet")
    assert html.index("answers hardly vary") < html.index('id="headline"')


def test_the_latest_audit_and_verification_are_shown(make_run, records):
    run = make_run("at")
    run.add(records.metrics("AT", {"clean": 0.8, "worst case": 0.5}))
    for audit, honest in (("old", 1.0), ("new", 0.0)):
        details = {"audit": audit, "numbers": {"FGSM": 0.25, "PGD": 0.5}, "verdict": f"{audit} verdict"}
        run.add([Record("metric", "audit/iterative attacks beat one step", honest, 100, details=details)])
    run.add([Record("metric", "verified", 0.99, 200, details={"evaluation": "k1", "marginal": 3})])
    text = Page(write_report([run.path])).text
    assert "FGSM 25.0%; PGD 50.0%" in text
    assert "✗ suspicious new verdict" in " ".join(text.split())
    assert "old verdict" not in text
    assert "198 of 200 claims hold, 3 marginally" in text


def test_images_of_another_size_are_another_setting(make_run, records):
    runs = [make_run("small"), make_run("large"), make_run("old")]
    for run, shape in zip(runs, ([1, 8, 8], [1, 16, 24], None), strict=True):
        run.add(records.metrics(run.path.name, {"clean": 0.8, "worst case": 0.5}, shape=shape))
        run.add(corrupted(["fog"], [5], key=run.path.name, shape=shape))
    text = Page(write_report([run.path for run in runs])).text
    assert "images of digits at 8x8 pixels, attacked within" in text
    assert "images of digits at 16x24 pixels, attacked within" in text
    assert "images of digits, attacked within" in text  # recorded before records had a size
    assert "digits test at 16x24 pixels, ℓ∞" in text
    assert "compare only rows of one setting" in text
    assert "intervals overlap" not in text
    assert "digits test at 8x8 pixels, n = 100" in text
    assert "digits test at 16x24 pixels, n = 100" in text


def corrupted(names, severities, left_out=(), published=False, key="c1", value=0.5, shape=(1, 16, 16)):
    """Records of one evaluation under corruptions."""
    counts = {("clean", 0): Count(80, 100, 1.0, "")}
    counts |= {(name, s): Count(round(100 * value) - s, 100, 1.0, "") for name in names for s in severities}
    details = {"data": "digits", "split": "test", "shape": shape, "source": "generated, cifar constants",
               "published": published, "corruptions_key": key}  # fmt: skip
    return corruption_records(counts, names, severities, dict.fromkeys(left_out, "no textures"), details)


def test_corruptions_have_a_table_for_each_setting_that_says_what_it_shows(make_run, records):
    first, second = make_run("at"), make_run("part", "part")
    first.add(corrupted(["fog", "snow"], [1, 2, 3], left_out=["frost"]))
    second.add(corrupted(["fog"], [1, 2, 3], key="c2", value=0.6))
    second.add(corrupted(["fog", "saturate"], [1], published=True, key="c3", value=0.7))
    html = write_report([first.path, second.path]).read_text(encoding="utf-8")
    tables = re.findall(r'<table class="corruptions">(.*?)</table>', html, flags=re.DOTALL)
    assert len(tables) == 2
    for text in (
        "severities 1-3",
        "48.00",
        "49.0 · 48.0 · 47.0",
        "58.00",
        "mean of 2 of the 15",
        "no textures",
    ):
        assert text in tables[0]
    for text in ("published protocol: severity 1", "69.00", "mean of 1 of the 15", "mean of 2 of the 19"):
        assert text in tables[1]
    assert "49.0" not in tables[1]
    assert "at, left out: frost (no textures)" in html


def test_what_was_left_out_once_and_measured_later_is_shown(make_run):
    run = make_run("at")
    run.add(corrupted(["fog", "saturate"], [1, 2], left_out=["frost"]))
    run.add(corrupted(["fog", "frost"], [1, 2]))
    run.add(corrupted(["snow"], [1, 2]))  # fewer: the others go on being shown
    html = write_report([run.path]).read_text(encoding="utf-8")
    [lines] = re.findall(r'<table class="corruptions">(.*?)</table>', html, flags=re.DOTALL)
    assert "left out" not in html
    assert re.findall(r'<th scope="row">(.*?)</th>', lines) == [
        "clean", "frost", "fog", "saturate", "mean of 2 of the 15", "mean of 2 of the 19",
    ]  # fmt: skip


def test_a_run_that_met_corruptions_alone_is_reported(make_run):
    run = make_run("at")
    run.add(corrupted(["fog"], [5]))
    assert "severity 5" in write_report([run.path]).read_text(encoding="utf-8")


def union(values, norms="linf,l2", eps=(8 / 255, 0.5), key="u1", n=500, **details):
    """The records of an evaluation against a union: {"clean": 0.8, "linf": 0.4, ...}."""
    shared = {"data": "digits", "split": "test", "shape": [1, 16, 16], "norm": norms, "eps": list(eps),
              "weights": "best", "evaluation": key, **details}  # fmt: skip
    return [
        Record("metric", f"union/{name}", value, n, (value - 0.04, value + 0.04), 0, details=shared)
        for name, value in values.items()
    ]


def test_a_union_has_a_table_with_each_norm_and_the_worst_case(make_run, records):
    run = make_run("at")
    run.add(records.metrics("AT", {"clean": 0.8, "worst case": 0.4}))
    run.add(union({"clean": 0.8, "linf": 0.4, "l2": 0.5, "worst case": 0.35}))
    page = Page(write_report([run.path]))
    assert page.row("union-1", "at") == {
        "run": "at", "clean": "80.00 76.0–84.0", "ℓ∞ ≤ 8/255": "40.00 36.0–44.0", "ℓ2 ≤ 0.5": "50.00 46.0–54.0",
        "worst case": "35.00 31.0–39.0",
    }  # fmt: skip
    assert "digits test at 16x16 pixels, n = 500, best weights" in page.text
    assert "Worst case over several norms" in page.text


def test_without_a_union_there_is_no_such_table(study):
    assert "Worst case over several norms" not in Page(write_report(study)).text


def test_a_margin_that_was_stated_is_decided_on_the_page(make_run, records):
    runs = [make_run(f"{method}-{seed}", method, seed) for method in ("at", "part") for seed in range(3)]
    for run in runs:
        value = 0.5 + 0.001 * int(run.path.name[-1])
        run.add(records.metrics(run.path.name.split("-")[0], {"clean": value, "worst case": value}))
    folders = [run.path for run in runs]
    assert "within ±2 points the same" in Page(write_report(folders, margin=0.02)).text
    assert "within ±0.1 points not decided" in Page(write_report(folders, margin=0.001)).text
    assert "within ±" not in Page(write_report(folders)).text
    assert main(["report", *map(str, folders), "--margin", "2"]) == 0
    assert main(["report", *map(str, folders), "--margin", "0"]) == 2


def test_of_an_image_that_no_attack_touched_nothing_attacked_is_shown(make_run, records):
    run = make_run("at")
    run.add(records.metrics("AT", {"clean": 0.5, "worst case": 0.2}))
    file = records.panel(run, parts=["background", "head"])
    pictures = Pictures.read(file)
    adversarial = pictures.adversarial.copy()
    adversarial[1] = pictures.clean[1]
    fooled_by = ["PGD-20", "", "", ""]
    wrong = [pictures.labels[0], (pictures.labels[1] + 1) % 3, *pictures.labels[2:]]
    replace(pictures, adversarial=adversarial, fooled_by=fooled_by, clean_predictions=wrong).write(file)
    panel = read_panel(file, "linf", 0.0, 8 / 255)
    assert [sample.outcome for sample in panel.samples] == ["fooled", "wrong from the start", "held", "held"]
    assert [tile.name for tile in panel.samples[1].tiles] == ["clean", "map", "radius"]
    assert [tile.name for tile in panel.samples[1].parts] == ["true parts", "parts"]
    assert panel.samples[0].attack == "PGD-20"
    assert panel.drawn


def test_a_radius_that_is_the_same_everywhere_is_no_tile(make_run, records):
    file = records.panel(make_run("at"))
    panel = read_panel(file, "linf", 8 / 255, 8 / 255)
    assert {tile.name for sample in panel.samples for tile in sample.tiles} == {
        "clean",
        "map",
        "attacked",
        "change",
    }
    assert not panel.drawn
