"""The first glance: the verdict follows from the numbers, bars show them, and the radius is said in words."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from counterpart.jobs.accuracy_table import print_accuracies
from counterpart.records import Record
from counterpart.report import drawing, glance, write_report
from counterpart.report.drawing import begin_at_zero
from counterpart.report.export import export_table
from counterpart.report.grouping import group
from counterpart.report.notes import headline, summary
from counterpart.report.runs import read_runs, without_untried
from counterpart.report.setting import radius_text
from counterpart.report.verdict import verdict_on
from counterpart.rundir import RunDir


@pytest.fixture
def row_of(make_run, records):
    """A row of a table whose one run has the given accuracies on a number of images."""

    def make(accuracies, n=1000, counts=None, **details):
        run = make_run("mine")
        metrics = records.metrics("AT", accuracies, n=n, **details)
        if counts:
            per_class = {"per_class": {cls: [0, count] for cls, count in counts.items()}}
            metrics = [Record(**{**vars(r), "details": {**r.details, **per_class}}) for r in metrics]
        run.add(metrics)
        (row,) = group(read_runs([run.path]))
        return row

    return make


TEN = {f"class {i}": 100 for i in range(10)}


def title_of(verdict):
    return f"{verdict.word}: {verdict.number}".replace("\xa0", " ")


def test_the_verdict_leads_with_one_number_of_all_images(row_of):
    row = row_of({"clean": 0.83, "PGD-20": 0.5, "CW": 0.48, "worst case": 0.47}, counts=TEN)
    verdict = verdict_on(row, "That is little.")
    assert title_of(verdict) == (
        "Robust in part: 47.0 % of 1,000 images survived both attacks tried (95 % interval 43.9 to 50.1 %)"
    )
    assert " ".join(verdict.sentences).replace("\xa0", " ") == (
        "Tried within ℓ∞ ≤ 8/255: PGD-20 and CW. That is little. It was right on 83.0 % before, so 43 of 100 right "
        "answers were lost. Chance is 10.0 %. A stronger attack can only lower this. No audit checked whether these "
        "attacks can be trusted."
    )


@pytest.mark.parametrize(
    ("clean", "worst", "details", "word", "after", "colour"),
    [
        (0.1, 0.1, {}, "No robustness is shown", "no better than chance", "red"),  # a collapsed model
        (0.9, 0.05, {}, "Not robust", ", no more than chance", "red"),
        (0.9, 0.11, {}, "Not shown to be robust", ", perhaps no more than chance", "red"),
        (0.95, 0.8, {"doubts": {"probabilities": "It returns probabilities."}}, "In doubt", "than there is", "red"),
        (0.95, 0.93, {}, "Robust against these attacks", " %)", "green"),
        (0.95, 0.6, {}, "Robust in part", " %)", "amber"),
    ],
)  # fmt: skip
def test_each_kind_of_result_has_its_word_and_colour(row_of, clean, worst, details, word, after, colour):
    row = row_of({"clean": clean, "PGD-20": worst, "worst case": worst}, counts=TEN, **details)
    verdict = verdict_on(row)
    assert (verdict.word, verdict.colour) == (word, colour)
    assert f"{100 * worst:.1f} % of 1,000 images survived the one attack tried" in title_of(verdict)
    assert title_of(verdict).endswith(after)


def test_where_every_image_was_fooled_nothing_is_left_to_lower(row_of):
    verdict = verdict_on(row_of({"clean": 0.9, "PGD-20": 0.0, "worst case": 0.0}, counts=TEN))
    assert title_of(verdict) == "Not robust: every image was fooled"
    words = " ".join(verdict.sentences)
    assert "It was right on 90.0" in words
    assert "stronger attack" not in words
    assert "audit" not in words


@pytest.mark.parametrize(
    ("verdicts", "colour"), [(["consistent"], "green"), (["consistent", "refuted"], "amber")]
)
def test_a_part_is_green_where_every_claim_is_consistent(make_run, records, verdicts, colour):
    run = make_run("mine")
    metrics = records.metrics("AT", {"clean": 0.83, "worst case": 0.47})
    run.add(metrics)
    for number, verdict in enumerate(verdicts, 1):
        details = {**metrics[0].details, "claim": f"{number} %", "verdict": verdict}
        run.add([Record("metric", f"claim/{number}", 0.47, 1000, (0.439, 0.501), details=details)])
    (row,) = group(read_runs([run.path]))
    assert verdict_on(row).colour == colour


@pytest.mark.parametrize(
    ("attacks", "words"),
    [(["a"], "the one attack tried"), (["a", "b"], "both attacks tried"), (["a", "b", "c"], "all 3 attacks tried")],
)  # fmt: skip
def test_a_number_says_how_many_attacks_it_survived(row_of, attacks, words):
    row = row_of({"clean": 0.9, **dict.fromkeys(attacks, 0.5), "worst case": 0.5}, counts=TEN)
    assert words in verdict_on(row).number
    (bar,) = glance.bars_of([row])
    assert bar.words.endswith(f"survived {words}")


def test_what_falls_by_more_than_nine_tenths_is_not_robust(row_of):
    counts = {f"class {i}": 10 for i in range(100)}
    verdict = verdict_on(row_of({"clean": 0.8, "worst case": 0.05}, counts=counts))
    assert (verdict.word, verdict.colour) == ("Not robust", "red")
    assert "so 94 of 100 right answers were lost" in " ".join(verdict.sentences)


ALWAYS = {
    "answers hardly vary": "the model answers 200 of 200 clean images with '9', which 20 of them are: no robustness.",
    "zero gradients": "7 of 7 images have no gradient. Where a part runs under no_grad, wrap it in straight_through.",
}


def test_a_constant_model_is_called_no_classifier_and_gets_neither_ticks_nor_advice(make_run, records):
    run = make_run("mine")
    accuracies = {"clean": 0.1, "PGD-20": 0.1, "worst case": 0.1}
    metrics = records.metrics("AT", accuracies, n=200, doubts=ALWAYS)
    run.add([Record(**{**vars(r), "details": {**r.details, "per_class": CONSTANT}}) for r in metrics])
    records.panel(run)
    page = write_report([run.path]).read_text(encoding="utf-8")
    body = page[page.index("<main>") : page.index("<script>")]
    assert "Not a working classifier: it answers &#39;9&#39; to all 200 images." in body
    assert "✓" not in body
    assert "held" not in body
    assert "no_grad" not in body
    assert "zero gradients" not in body
    assert "no working classifier: it answers '9' to all 200 images" in export_table([run.path], "markdown")


CONSTANT = {f"{i}": [20 * (i == 9), 20] for i in range(10)}


def test_answers_that_hardly_vary_and_are_right_are_a_classifier(row_of):
    row = row_of({"clean": 0.9, "worst case": 0.5}, counts=TEN, doubts=ALWAYS)
    assert verdict_on(row).word == "In doubt"


def test_what_a_developer_may_do_stands_folded_below(make_run, records):
    run = make_run("mine")
    doubts = {"zero gradients": ALWAYS["zero gradients"]}
    run.add(records.metrics("AT", {"clean": 0.9, "worst case": 0.8}, doubts=doubts))
    page = write_report([run.path]).read_text(encoding="utf-8")
    seen, fold, advice = (
        page.index(text)
        for text in (
            "no gradient.</li>",
            "<details><summary>For the developer",
            "Where a part runs under no_grad",
        )
    )
    assert seen < fold < advice < page.index('id="accuracy"')


@pytest.mark.parametrize(
    ("worst", "told"),
    [
        ({"6": [15, 20], "7": [13, 20], "8": [0, 19]}, "is class 8: 0 of 19 survived, of all others 70.0 %."),
        ({"6": [15, 20], "7": [13, 20], "8": [6, 19]}, ""),  # luck explains it
        ({"6": [0, 0], "8": [0, 19]}, ""),  # nothing to compare with
    ],
)
def test_the_weakest_class_is_named_where_it_is_far_below_the_rest(make_run, records, worst, told):
    run = make_run("mine")
    metrics = records.metrics("AT", {"clean": 0.9, "PGD-20": 0.5, "worst case": 0.5}, n=59)
    run.add([Record(**{**vars(r), "details": {**r.details, "per_class": worst}}) for r in metrics])
    (row,) = group(read_runs([run.path]))
    words = " ".join(verdict_on(row).sentences).replace("\xa0", " ")
    assert ("Far below the rest" in words) == bool(told)
    assert told in words


def test_chance_is_the_share_of_the_most_frequent_class(row_of):
    assert row_of({"clean": 0.8, "worst case": 0.4}, counts={"a": 600, "b": 400}).chance == 0.6


def test_where_classes_are_not_known_nothing_is_said_of_chance(row_of):
    row = row_of({"clean": 0.8, "worst case": 0.4}, counts={"a": 600})
    assert row.chance is None
    assert "Chance" not in " ".join(verdict_on(row).sentences)


@pytest.mark.parametrize("accuracies", [{"clean": 0.8}, {"clean": 0.8, "worst case": 0.8}])
def test_a_model_that_was_not_attacked_is_called_so(row_of, accuracies):
    """An evaluation without attacks records a worst case as well, which is no robustness."""
    row = row_of(accuracies, counts=TEN, backwards=0)
    verdict = verdict_on(row)
    assert (verdict.word, verdict.colour) == ("Not attacked yet", "grey")
    (bar,) = glance.bars_of([row])
    assert bar.words.replace("\xa0", " ") == "right on 80.0 %, no attack tried"


def test_several_models_are_told_by_their_span(study):
    text = glance.over_all(group(read_runs(study))).replace("\xa0", " ")
    assert text.startswith(
        "3 models were attacked within ℓ∞ ≤ 8/255: 39.0 % to 50.0 % of the images survived"
    )


@pytest.mark.parametrize(
    ("norm", "eps", "words"),
    [
        ("linf", 8 / 255, "Within 8/255 every value of every pixel may change by up to 8 levels of 255, 3.1 % of"),
        ("l2", 0.5, "add up to at most 0.5²; spread over the whole image, 2.3 levels of 255 each."),
        ("l1", 12.0, "Within 12 all changes add up to what turns 12 values from black to white."),
        ("l0", 10.0, "Within 10 the attacker chooses 10 pixels and gives them any value."),
        ("patch", 5.0, "Within 5 the attacker places a window of 5 by 5 pixels and fills it at will."),
    ],
)  # fmt: skip
def test_what_a_radius_means(norm, eps, words):
    assert words in glance.radius_in_words(norm, eps, [3, 32, 32]).replace("\xa0", " ")


def test_an_unknown_budget_is_not_explained():
    assert glance.radius_in_words("linf", None, None) == ""
    assert glance.radius_in_words("another", 1.0, None) == ""


def test_the_first_box_says_once_what_the_radius_means(make_run, records):
    paths = []
    for name in ("a", "b"):
        run = make_run(name)
        run.add(records.metrics(name, {"clean": 0.8, "PGD-20": 0.5, "worst case": 0.5}))
        paths.append(run.path)
    page = write_report(paths).read_text(encoding="utf-8")
    assert page.count("Within 8/255 every value of every pixel") == 1
    first, second = (page.index(f'class="word">{name}: ') for name in ("a", "b"))
    assert first < page.index("Within 8/255 every value of every pixel") < second


def test_methods_are_spelled_out_once_and_clean_is_a_column_alone(make_run, records):
    paths = []
    for name, method in (("a", "clean"), ("b", "AT"), ("c", "PART, uniform control")):
        run = make_run(name, name)
        run.add(records.metrics(method, {"clean": 0.8, "PGD-20": 0.5, "worst case": 0.5}))
        records.panel(run, importance=name != "a")
        paths.append(run.path)
    page = write_report(paths).read_text(encoding="utf-8")
    assert "trained with AT and PART, uniform control and without defence, judged" in page
    assert '<span class="who" title="without defence">' in page
    assert page.count("AT: adversarial training, on images that an attack perturbed.") == 1
    assert page.count("PART: adversarial training in which each pixel has a radius of its own.") == 1
    assert page.count("Map: how much the answer rests on each pixel") == 1


def test_only_a_page_with_maps_explains_them(make_run, records):
    run = make_run("mine")
    run.add(records.metrics("AT", {"clean": 0.8, "PGD-20": 0.5, "worst case": 0.5}))
    records.panel(run, importance=False)
    assert "Map: how much" not in write_report([run.path]).read_text(encoding="utf-8")


def test_a_bar_of_nothing_has_no_interval_that_looks_like_a_letter(make_run, records):
    run = make_run("mine")
    run.add(records.metrics("AT", {"clean": 0.8, "PGD-20": 0.0, "worst case": 0.0}))
    page = write_report([run.path]).read_text(encoding="utf-8")
    assert '<i class="span high"' in page
    assert '<i class="span low"' not in page


def test_the_page_begins_with_verdict_doubts_bars_and_a_pair(make_run, records):
    run = make_run("mine")
    run.add(
        records.metrics(
            "AT", {"clean": 0.83, "PGD-20": 0.5, "worst case": 0.47}, doubts={"gap": "Look & see."}
        )
    )
    records.panel(run)
    page = write_report([run.path]).read_text(encoding="utf-8")
    places = [
        page.index(text)
        for text in ("In doubt", "Look &amp; see.", 'class="bars"', 'class="meaning"', 'id="accuracy"')
    ]
    assert places == sorted(places)
    assert 'class="after doubtful" style="width:47.00%"' in page  # it must not look like a success
    assert "<s>47.00</s>" in page
    assert 'class="before" style="width:83.00%"' in page
    assert 'class="span low" style="left:43.91%;width:6.19%"' in page
    assert "attacked: answered &lt;b&gt;one&lt;/b&gt; (wrong)" in page  # the image that fooled is chosen


def test_titles_are_such_as_a_person_would_write(make_run, records, study):
    run = make_run("resnet50")
    run.add(records.metrics("resnet50", {"clean": 0.8, "worst case": 0.4}, model="resnet50"))
    (row,) = group(read_runs([run.path]))
    assert headline(row.runs, [row]) == "How robust is resnet50 on digits?"
    assert summary([row], [row]).startswith("resnet50, judged on 1,000 test images of digits")
    rows = group(read_runs(study))
    assert headline([], rows) == "How robust are these 3 models on digits?"
    assert summary(rows, rows).startswith(
        "resnet18, trained with AT, PART and PART, uniform control, judged on 1,000"
    )


def test_the_verdict_rules_on_the_claims_of_this_evaluation(make_run, records):
    run = make_run("mine")
    metrics = records.metrics("AT", {"clean": 0.83, "worst case": 0.47})
    run.add(metrics)
    details = {**metrics[0].details, "claim": "60 %", "verdict": "undecided", "needed": 9000}
    claim = Record("metric", "claim/60 %", 0.47, 1000, (0.439, 0.501), details=details)
    other = Record(
        "metric", "claim/9 %", 0.47, 1000, (0.4, 0.5), details={**details, "evaluation": "another"}
    )
    script = Record(
        "metric", "claim/7 %", 0.47, 1000, (0.4, 0.5), details={**details, "claim": "<i>60 %</i>"}
    )
    broken = Record("metric", "claim/8 %", 0.47, 1000, (0.4, 0.5), details={**details, "needed": "many"})
    run.add([claim, other, script, broken])
    page = write_report([run.path]).read_text(encoding="utf-8")
    assert page.count('class="claim"') == 1
    assert "Claim of 60 %: undecided at n = 1,000" in page
    assert "About 9,000 images would decide it" in page


def test_of_many_models_each_bar_has_its_word_and_no_box(make_run, records):
    paths = []
    for i in range(5):
        run = make_run(f"m{i}", f"m{i}")
        run.add(records.metrics(f"method {i}", {"clean": 0.9, "PGD-20": 0.6, "worst case": 0.6}))
        paths.append(run.path)
    page = write_report(paths).read_text(encoding="utf-8")
    assert 'class="verdict-box' not in page
    assert page.count("Robust in part; right on") == 5
    assert "Within 8/255 every value" in page
    assert "resnet18, trained with 5 methods, judged on" in page


def test_an_axis_from_zero_leaves_room_behind_the_last_point():
    axes = Figure().subplots()
    axes.plot([94, 96], [50, 51])
    begin_at_zero(axes)
    low, high = axes.get_xlim()
    assert low == 0
    assert high > 1.05 * 96


def test_an_axis_shows_chance_where_all_accuracies_lie_far_below_it(row_of):
    """Or else its word stood outside, and matplotlib had no place left for the axis."""
    axes = Figure().subplots()
    axes.plot([1, 2], [0, 0.01])
    drawing.draw_chance(axes, [row_of({"clean": 0.0, "PGD-20": 0.0, "worst case": 0.0}, counts=TEN).chance])
    low, high = axes.get_ylim()
    assert low == 0
    assert high > 10


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (0.1, "0.1"), (0.3, "0.3"), (7.5 / 255, "7.5/255"), (0.0313725, "8/255")],
)
def test_a_radius_is_written_as_people_write_it(eps, text):
    assert radius_text(eps) == text


def test_a_page_without_attacks_claims_none(make_run, records, tmp_path):
    """Neither its summary nor its first glance speaks of a budget, for nobody searched within it."""
    run = make_run("mine")
    run.add(records.metrics("clean", {"clean": 0.8, "worst case": 0.8}, backwards=0))
    text = write_report([run.path], tmp_path / "page.html").read_text()
    assert "1,000 test images of digits at 16x16 pixels, not attacked." in text
    assert "attacked within" not in text
    assert "levels of 255" not in text


def test_the_worst_cases_of_no_attack_are_left_out_and_no_others(records):
    several = {"clean": 0.8, "worst case at 4/255": 0.8, "worst case": 0.8}

    def names_of(accuracies, **details):
        return [
            r.name.removeprefix("accuracy/")
            for r in without_untried(records.metrics("AT", accuracies, **details))
        ]

    assert names_of(several, backwards=0) == ["clean"]
    assert names_of({"clean": 0.8, "worst case": 0.8}, backwards=20) == ["clean", "worst case"]
    by_queries = {"clean": 0.8, "Square": 0.5, "worst case": 0.5}
    assert names_of(by_queries, backwards=0) == [*by_queries]


def test_the_table_in_the_terminal_has_no_worst_case_of_no_attack(records, tmp_path, capsys):
    accuracies = records.metrics("AT", {"clean": 0.8, "worst case": 0.8}, backwards=0)
    print_accuracies(RunDir(tmp_path / "mine"), [*accuracies, *records.part_metrics({"mIoU clean": 0.5})])
    printed = capsys.readouterr().out
    assert "mIoU clean" in printed
    assert "worst case" not in printed


def add_claim(run, value, seed, claim="60 %", verdict="undecided", **more):
    """Add the record of a claim, whose interval is five points to each side."""
    details = {"evaluation": "k1", "claim": claim, "verdict": verdict, "eps": 8 / 255, "norm": "linf", **more}
    interval = (value - 0.05, value + 0.05)
    run.add([Record("metric", f"claim/{claim}", value, 400, interval, seed=seed, details=details)])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((0.62, 0.58), "of each training by itself: seed 0 undecided; seed 1 undecided. Their mean is 60.0 %;"),
        # Student's t of two degrees of freedom: 4.303 x 1 point / sqrt(3) = 2.48, and 5 points of images in squares
        ((0.50, 0.51, 0.52), "on average over 3 trainings: refuted. Their mean is 51.0 % (95 % interval over "
         "images and trainings 45.4 % to 56.6 %). Of each by itself: seed 0"),
        ((0.70, 0.71, 0.72), "on average over 3 trainings: consistent."),
        ((0.50, 0.60, 0.70), "on average over 3 trainings: undecided."),
    ],
)  # fmt: skip
def test_a_claim_over_seeds_is_ruled_on_for_each_and_for_the_mean_of_three(make_run, records, values, told):
    for seed, value in enumerate(values):
        run = make_run(f"at/seed-{seed}", seed=seed)
        run.add(records.metrics("AT", {"clean": 0.83, "PGD-20": value, "worst case": value}))
        add_claim(run, value, seed)
    (row,) = group(read_runs([run.path.parent]))
    (sentence,) = glance.claims_in_words(row)
    assert sentence.startswith(f"Claim of 60 %, {told}")
    assert f"seed {len(values) - 1} undecided" in sentence


def test_a_claim_that_not_every_seed_was_asked_about_is_of_those_alone(make_run, records):
    for seed in range(3):
        run = make_run(f"at/seed-{seed}", seed=seed)
        run.add(records.metrics("AT", {"clean": 0.83, "PGD-20": 0.5, "worst case": 0.5}))
    add_claim(run, 0.5, 2, verdict="refuted")
    (row,) = group(read_runs([run.path.parent]))
    (sentence,) = glance.claims_in_words(row)
    assert sentence.startswith("at/seed-2: Claim of 60 %: refuted.")


def test_a_claim_on_a_union_stands_beside_the_verdict(make_run, records):
    run = make_run("mine")
    run.add(records.metrics("AT", {"clean": 0.83, "PGD-20": 0.5, "worst case": 0.5}))
    both = {"norm": "linf,l2", "eps": [8 / 255, 0.5], "evaluation": "united"}
    details = {**both, "data": "digits", "split": "test"}
    run.add(
        Record("metric", f"union/{name}", value, 400, (value, value), details=details)
        for name, value in (("clean", 0.8), ("linf", 0.5), ("l2", 0.6), ("worst case", 0.45))
    )
    add_claim(run, 0.45, 0, verdict="refuted", **both)
    page = write_report([run.path]).read_text(encoding="utf-8").replace("\xa0", " ")
    assert (
        "Within ℓ∞ ≤ 8/255 and ℓ2 ≤ 0.5, in the worst case over all: Claim of 60 %: refuted. At most 50.0 %"
        in page
    )


def test_an_object_of_python_is_called_so_and_nothing_is_said_of_its_training(make_run, records):
    run = make_run("folder")
    run.add(
        records.metrics(
            "my net", {"clean": 0.8, "PGD-20": 0.4, "worst case": 0.4}, model="object __main__.Net"
        )
    )
    (row,) = group(read_runs([run.path]))
    assert headline(row.runs, [row]) == "How robust is my net on digits?"
    assert summary([row], [row]).startswith("Net, a model in Python, judged on 1,000 test images")


def test_many_models_on_clean_images_alone_are_one_note(make_run, records):
    paths = []
    for i in range(5):
        run = make_run(f"m{i}", f"m{i}")
        run.add(records.metrics(f"method {i}", {"clean": 0.9}))
        paths.append(run.path)
    page = write_report(paths).read_text(encoding="utf-8")
    assert page.count("were judged on clean images only.") == 1
    assert "5 of the 5 models were judged on clean images only." in page
    page = write_report(paths[:2]).read_text(encoding="utf-8")
    assert "“method 0” and “method 1” were judged on clean images only." in page


@pytest.mark.parametrize("attacked", [True, False])
def test_where_no_attack_was_tried_images_are_right_and_not_held(make_run, records, attacked):
    run = make_run("mine")
    values = {"clean": 0.8, "PGD-20": 0.4, "worst case": 0.4} if attacked else {"clean": 0.8}
    run.add(records.metrics("AT", values))
    records.panel(run)
    page = write_report([run.path]).read_text(encoding="utf-8")
    assert (page.count('data-outcome="held"'), page.count('data-outcome="right"')) == (
        (3, 0) if attacked else (0, 4)
    )
    assert ("no attack was tried." in page) != attacked
    assert ("attacked: <span" in page) == attacked
    assert ("Change magnified" in page) == attacked


def test_a_radius_of_pictures_in_float32_is_written_as_people_write_it():
    assert radius_text(float(np.float32(0.1))) == "0.1"
    assert radius_text(float(np.float32(8 / 255))) == "8/255"
