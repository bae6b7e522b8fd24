"""Experiments as data, and one of them run at smoke scale."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from counterpart import papers, recipes
from counterpart.cli import main
from counterpart.config import plain, resolve
from counterpart.data.corruptions import CORRUPTIONS
from counterpart.errors import UserError
from counterpart.evaluation import corruption
from counterpart.evaluation.corruption import Count
from counterpart.papers import experiments, heat_maps, running
from counterpart.records import Record, write
from counterpart.rundir import RunDir
from counterpart.statistics import Difference


def test_every_experiment_is_sound():
    for name, one in papers.EXPERIMENTS.items():
        assert name == one.name
        assert len({row.name for row in one.rows}) == len(one.rows)
        assert not any("," in row.name for row in one.rows)  # which parts them in --rows
        assert {name for pair in one.pairs for name in pair} <= {row.name for row in one.rows}
        for row in one.rows:
            for dataset, values in row.published.items():
                assert dataset in one.datasets
                assert set(values) <= set(papers.columns(one))
                shares = [v for column, v in values.items() if not callable(papers.columns(one)[column])]
                assert all(0 <= value < 100 for value in shares)


def test_published_numbers_of_table_1():
    """Spot checks against the paper: the least and the largest numbers of each data set."""
    rows = {row.name: row.published for row in papers.find("pixel/table-1").rows}
    assert rows["AT"]["cifar10"] == {"natural": 82.58, "PGD-20": 43.69, "MMA": 41.80, "AA": 41.63}
    assert rows["PART-M s=10"]["tiny-imagenet"]["AA"] == 13.37
    assert rows["PART s=10"]["svhn"]["natural"] == 93.75


def test_published_numbers_of_part_models():
    """Spot checks against the paper, one per table: numbers that stand nowhere else in it."""
    expected = {
        ("parts/table-1", "Bounding-Box TRADES", "pascal-part", "natural"): 88.5,
        ("parts/table-1", "Downsampled", "cityscapes", "AA published"): 70.2,
        ("parts/table-2", "Bounding-Box", "part-imagenet", "corruptions"): 85.8,
        ("parts/table-3", "ResNet-50", "part-imagenet", "backgrounds"): 58.6,
        ("parts/table-4", "Bounding-Box", "part-imagenet", "textures"): 45.7,
        ("parts/table-5", "Bounding-Box no labels", "part-imagenet", "natural"): 78.1,
        ("parts/table-6", "Bounding boxes", "pascal-part", "natural"): 66.2,
        ("parts/table-7", "TRADES beta 0.15", "part-imagenet", "AA"): 13.0,
        ("parts/table-8", "PGD lr 0.05 wd 0.0001", "part-imagenet", "PGD"): 43.7,
        ("parts/table-9", "TRADES beta 0.8", "part-imagenet", "AA"): 37.4,
        ("parts/table-10", "Bounding-Box", "cityscapes", "eps 16"): 16.6,
        ("parts/table-11", "Downsampled", "part-imagenet", "c 0.7"): 53.7,
        ("parts/table-12", "Bounding-Box", "pascal-part", "MC (Sorted) published"): 43.2,
        ("parts/table-13", "Bounding-Box without defence", "part-imagenet", "pixels"): 7.8,
        ("parts/table-14", "Objects c_seg 0.3", "part-imagenet", "PGD"): 44.2,
        ("parts/table-15", "Downsampled 2K + 38K pseudo", "part-imagenet", "AA"): 44.5,
        ("parts/table-16", "Downsampled without background", "part-imagenet", "backgrounds"): 64.2,
        ("parts/table-17", "128 x 128", "part-imagenet", "AA"): 40.0,
        ("parts/table-18", "Downsampled EfficientNet-B4", "part-imagenet", "natural"): 88.4,
        ("parts/table-19", "Pixel c_seg 0.7", "part-imagenet", "PGD"): 46.0,
        ("parts/table-20", "Image c_seg 0.9", "part-imagenet", "natural"): 72.7,
        ("parts/table-21", "Bounding-Box", "part-imagenet", "textures"): 44.4,
        ("parts/table-22", "Downsampled", "part-imagenet", "glass_blur"): 84.0,
    }
    for (table, name, dataset, column), value in expected.items():
        [row] = [row for row in papers.find(table).rows if row.name == name]
        assert row.published[dataset][column] == value


def test_published_cost_is_per_epoch():
    rows = {row.name: row.published["cifar10"] for row in papers.find("pixel/table-9").rows}
    assert rows["AT"] == {"seconds per epoch": 4477 / 80, "peak memory, MB": 4608}
    assert rows["PART s=10"]["seconds per epoch"] / rows["AT"]["seconds per epoch"] == pytest.approx(
        1.757, abs=1e-3
    )


def costing(folder, seconds, peaks):
    """A run whose epochs took so long and held so much."""
    run = RunDir(folder)
    run.create({"model": {"name": "resnet18"}, "train": {"batch_size": 8}}, dict)
    run.add(
        Record("epoch", "epoch", seconds=s, details={"epoch": e, "peak_memory": p * 2**20, "device": "cpu"})
        for e, (s, p) in enumerate(zip(seconds, peaks, strict=True))
    )
    return run


def test_cost_is_read_off_a_run_and_compared_within_pairs(tmp_path):
    experiment, found = papers.find("pixel/table-9"), {}
    for name, seconds, peaks in (("AT", [2, 4], [100, 200]), ("PART", [3, 6], [100, 210])):
        run = costing(tmp_path / name, seconds, peaks)
        for column, reading in experiment.columns.items():
            found[name, column] = [reading(run)]
    time, memory = (found["PART", column][0] for column in experiment.columns)
    assert (time.value, time.n, time.interval, time.details["unit"]) == (4.5, 2, (3, 6), "s")
    assert (memory.value, memory.details["unit"]) == (210, "MB")
    over = papers.overheads(experiment, "cifar10", found)
    assert set(over) == {("PART", "AT", column) for column in experiment.columns}
    assert over["PART", "AT", "seconds per epoch"] == pytest.approx((0.757, 0.5), abs=1e-3)
    assert over["PART", "AT", "peak memory, MB"] == pytest.approx((0.0749, 0.05), abs=1e-3)
    assert papers.differences(experiment, found) == {}


def test_a_training_in_a_process_of_its_own_that_fails_or_stops_is_told(tmp_path, monkeypatch):
    experiment = papers.find("pixel/table-9")
    for code, message in (
        (2, "ended with exit code 2; it says above why"),
        (0, "the same command continues"),
    ):
        monkeypatch.setattr(
            running.subprocess, "run", lambda *_, code=code, **__: SimpleNamespace(returncode=code)
        )
        with pytest.raises(UserError, match=message):
            papers.run(experiment, "digits", "smoke", tmp_path, rows=["AT"])


def test_figure_2_shows_the_images_their_maps_and_radii(tmp_path, capsys, monkeypatch):
    planes, grids, colour, write = [], [], heat_maps.coloured, heat_maps.write_grid
    monkeypatch.setattr(heat_maps, "coloured", lambda values: (planes.append(values), colour(values))[1])
    monkeypatch.setattr(heat_maps, "write_grid", lambda *given: (grids.append(given[1:]), write(*given))[1])
    words = ["papers", "run", "pixel/figure-2", "--dataset", "digits", "--rows", "AT,PART", "--scale", "smoke",
             "--runs", str(tmp_path), "--device", "cpu"]  # fmt: skip
    assert main(words) == 0
    [(titles, lines)] = grids
    assert sorted(titles) == [str(digit) for digit in range(10)]
    assert [line.name for line in lines] == ["image", "AT\nmap", "PART\nmap", "PART\nradius"]
    assert lines[0].pictures.shape == (10, 16, 16, 1)
    assert [line.right is None or len(line.right) for line in lines] == [True, 10, 10, True]
    _, maps, radius = planes
    for plane, radii in zip(maps, radius, strict=True):
        expected = (
            np.where(plane > plane.mean() + plane.std(), 1, 0) if plane.std() > 0 else np.ones_like(plane)
        )
        assert (np.abs(radii - expected) > 1e-4).mean() < 0.02  # pixels at the threshold
    file, caption = papers.figure(papers.find("pixel/figure-2"), "digits", "smoke", tmp_path / "papers")
    with Image.open(file) as picture:
        assert picture.size[0] > 500
    assert caption.startswith("10 test images")
    assert str(file) in capsys.readouterr().out.replace("\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", sorted({d for one in papers.EXPERIMENTS.values() for d in one.datasets}))
def test_every_row_resolves_at_every_scale(dataset, tmp_path):
    for one in papers.EXPERIMENTS.values():
        for row in one.rows if dataset in one.datasets else ():
            names = {
                experiments.configuration(row, dataset, scale, tmp_path, 0, {}, one.scales).name
                for scale in papers.SCALES
            }
            assert len(names) == 1


def test_rows_that_differ_have_run_folders_of_their_own(tmp_path):
    seen = {}
    for one in papers.EXPERIMENTS.values():
        for row in one.rows:
            dataset = one.datasets[0]
            config = experiments.configuration(row, dataset, "small", tmp_path, 0, {}, one.scales)
            seen.setdefault(config.name, config)
            assert seen[config.name] == config


def test_corruptions_are_columns_and_what_lacks_its_textures_is_missing(tmp_path, capsys, monkeypatch):
    experiment = papers.find("pixel/table-4")
    assert set(experiment.corruptions.values()) == {f"{name}/severity 1" for name in CORRUPTIONS}
    words = ["papers", "run", "pixel/table-4", "--dataset", "digits", "--rows", "AT", "--scale", "smoke",
             "--runs", str(tmp_path), "--device", "cpu"]  # fmt: skip
    asked = []

    def quick(model, images, variants, **_):
        asked.extend(variants)
        return {variant: Count(len(images) // 2, len(images), 0.0, "") for variant in variants}

    monkeypatch.setattr(corruption, "count", quick)
    assert main(words) == 0
    found = papers.measured(experiment, "digits", "smoke", tmp_path / "papers")
    there = [column for column in papers.columns(experiment) if column not in ("Frost", "Saturate")]
    assert set(found) == {("AT", column) for column in there}  # digits have no colour to saturate
    assert {severity for _, severity in asked} == {0, 1}
    assert found["AT", "Fog"][0].value == 0.5
    assert found["AT", "Fog"][0].details["published"]
    told = capsys.readouterr()
    assert "severity 1" in told.out
    assert "Left out: frost" in told.err
    assert "Frost needs its textures" in told.out


def test_differences_pair_the_seeds_and_images_that_both_rows_have():
    def record(row, seed, right):
        details = {"right": right}
        return Record("metric", f"{row}/natural", value=0.5, n=len(right), seed=seed, details=details)

    experiment = papers.Experiment("test", "", (), {"PGD-20": []}, pairs=(("PART", "AT"), ("PART", "MART")))
    found = {
        ("PART", "natural"): [
            record("PART", 0, "1110"),
            record("PART", 1, "1100"),
            record("PART", 2, "1111"),
        ],
        ("AT", "natural"): [record("AT", 1, "1000"), record("AT", 0, "1010"), record("AT", 2, "10")],
    }
    shown = papers.differences(experiment, found)
    assert set(shown) == {("PART", "AT", "natural")}  # no MART; no PGD-20; seed 2 saw other images
    difference, seeds, n = shown["PART", "AT", "natural"]
    assert (difference.mean, seeds, n) == (0.25, 2, 4)


@pytest.mark.parametrize("number", [1, 5, 6, 14, 15, 17, 18, 19, 20])
def test_every_row_of_a_table_that_trains_is_a_recipe(number, tmp_path):
    def settings(values):
        return {key: value for key, value in plain(values).items() if key not in ("name", "runs", "seed")}

    table = papers.find(f"parts/table-{number}")
    own = [settings(resolve(recipes.load(n))) for n in recipes.names() if n.startswith("part-imagenet/")]
    for row in table.rows:
        config = experiments.configuration(row, "part-imagenet", "full-ours", tmp_path, 0, {}, table.scales)
        assert settings(config) in own, row.name


def test_full_is_as_published_and_full_ours_as_before(tmp_path, capsys):
    def at(experiment, scale):
        dataset = papers.find(experiment).datasets[0]
        row, scales = papers.find(experiment).rows[0], papers.find(experiment).scales
        config = experiments.configuration(row, dataset, scale, tmp_path, 0, {}, scales)
        return config.data.validation, config.train.precision, config.evaluate.weights, config.runs.name

    for experiment in ("pixel/table-1", "pixel/figure-1", "pixel/controls"):
        assert at(experiment, "full") == (0, "float32", "last", "full-published")
        assert at(experiment, "full-ours") == (0.1, "auto", "best", "full")
    # Part models are judged at the best epoch on validation images in the paper as well.
    for experiment in ("parts/table-1", "parts/ade-parts"):
        assert at(experiment, "full") == (0.1, "float32", "best", "full-published")
        assert at(experiment, "full-ours") == (0.1, "auto", "best", "full")
    told = papers.differs(papers.find("pixel/table-1"), "full")
    assert told.startswith("the paper's settings and protocol (data.validation 0, ")
    told = papers.differs(papers.find("pixel/table-1"), "full-ours")
    assert told.startswith("differs from the paper in lacking what scale full has, data.validation 0, ")


def stored_at(folder, **details):
    """A record of AT's natural accuracy in Table 1."""
    record = Record("metric", "AT/natural", 0.8, 100, (0.7, 0.9), 0, details={"scale": "full", **details})
    write(folder / "pixel-table-1-cifar10.jsonl", [record])


def test_earlier_records_of_full_are_ours(tmp_path, monkeypatch):
    table, cell = papers.find("pixel/table-1"), ("AT", "natural")
    stored_at(tmp_path / "full")
    assert set(papers.measured(table, "cifar10", "full-ours", tmp_path)) == {cell}
    assert papers.measured(table, "cifar10", "full", tmp_path) == {}
    stored_at(tmp_path / "full", protocol="published")  # the mark counts, wherever the file lies
    assert len(papers.measured(table, "cifar10", "full-ours", tmp_path)[cell]) == 1
    stored_at(tmp_path / "full-published")
    assert papers.measured(table, "cifar10", "full", tmp_path) == {}
    stored_at(tmp_path / "full-published", protocol="published")
    assert set(papers.measured(table, "cifar10", "full", tmp_path)) == {cell}
    assert experiments.marks_of("full") == {"scale": "full", "protocol": "published"}
    assert experiments.marks_of("small") == {"scale": "small"}


def test_a_record_at_a_radius_that_a_figure_had_before_is_not_shown(tmp_path):
    """Figure 1 was judged at the radius of training, 12/255."""
    figure = papers.find("pixel/figure-1")
    file = tmp_path / "small" / "pixel-figure-1-cifar10.jsonl"
    for row, eps in (("lower right", 0.0470588), ("upper left", 0.0313725)):
        details = {"eps": eps, "scale": "small"}
        write(
            file,
            [
                Record("metric", f"{row}/{c}", 0.4, 100, seed=0, details=details)
                for c in ("natural", "PGD-20")
            ],
        )
    found = papers.measured(figure, "cifar10", "small", tmp_path)
    assert set(found) == {("upper left", "natural"), ("upper left", "PGD-20")}


def test_every_table_and_figure_of_a_paper_says_what_differs():
    for name, one in papers.EXPERIMENTS.items():
        text = " ".join(one.notes)
        if name.removeprefix("parts/") not in (
            "ade-parts",
            "synthetic-parts",
            "photographs",
            "levers",
            "hardening",
            "pixel/dose",
            "pixel/single-step",
        ):
            assert "What differs at every scale" in text, name
            assert "Scale full" in text
        if any("MMA" in column for column in papers.columns(one)):
            assert "from one random start towards each of 3 targets" in text
            assert "The paper calls it MMA" in text
        if one.columns and "AA" in one.columns and any("cifar10" in row.published for row in one.rows):
            assert '"same setting as RobustBench", which is 100 steps; its code runs another' in text, name
        if "eps_low" in one.evaluate:
            assert "fitted to the paper's numbers" in one.title
            assert "It is not, as arXiv 2002.08347 has the word" in text
        if "cityscapes" in one.datasets and one.columns and "AA" in one.columns:
            assert "its numbers stand in the column of that suite" in text, name


def test_figure_4_sweeps_both_rules_and_figure_9_nine_weights(tmp_path):
    figure = papers.find("pixel/figure-4")
    multiplied = [row.name for row in figure.rows if row.changes["mask"].get("projection") == "multiply"]
    assert multiplied == [
        f"eps {eps}/255 with eps_low {eps - less}/255 multiplied" for eps in (8, 12) for less in (1, 2, 4, 6)
    ]
    row = next(row for row in figure.rows if row.name == multiplied[1])
    config = experiments.configuration(row, "cifar10", "small", tmp_path, 0, {}, figure.scales)
    assert (config.mask.projection, config.mask.eps_low, config.attack.eps) == ("multiply", 6 / 255, 8 / 255)
    nine = papers.find("parts/figure-9").rows
    shares = [row.changes["train"]["c_seg"] for row in nine if row.recipe == "downsampled"]
    assert shares == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def test_the_cost_of_more_images_and_of_larger_ones_is_compared(tmp_path):
    experiment = papers.find("pixel/appendix-h7")
    assert ("PART 20k", "PART 10k") in experiment.pairs
    sizes = {
        row.name: (config.data.limit, config.data.size)
        for row in experiment.rows
        for config in [experiments.configuration(row, "cifar10", "small", tmp_path, 0, {}, experiment.scales)]
    }
    assert (sizes["PART 20k"], sizes["AT 10k of 64 px"]) == ((20_000, None), (10_000, 64))
    found = {
        (row, "seconds per epoch"): [Record("timing", "s", value, 2, details={"unit": "s"})]
        for row, value in (("PART 10k", 3.0), ("PART 20k", 6.0), ("AT 10k", 2.0))
    }
    over = papers.overheads(experiment, "cifar10", found)
    assert over["PART 20k", "PART 10k", "seconds per epoch"] == (None, pytest.approx(1))
    assert over["PART 10k", "AT 10k", "seconds per epoch"] == (None, pytest.approx(0.5))


def test_rows_win_over_the_scale_except_in_smoke(tmp_path):
    row = papers.find("pixel/table-8").rows[-1]
    steps = {
        scale: experiments.configuration(row, "cifar10", scale, tmp_path, 0, {}, papers.SCALES).attack.steps
        for scale in papers.SCALES
    }
    assert steps == {"full": 60, "full-ours": 60, "small": 60, "smoke": 2}


def test_what_is_unknown_gets_the_nearest_name(tmp_path):
    with pytest.raises(UserError, match="pixel/table-1"):
        papers.find("pixel/tabel-1")
    with pytest.raises(UserError, match="no row 'PARTT'"):
        papers.run(papers.find("pixel/table-1"), "digits", "smoke", tmp_path, rows=["PARTT"])
    trades = papers.find("pixel/table-1").rows[3]
    with pytest.raises(UserError, match="no recipe 'trades'"):
        experiments.configuration(trades, "folder", "smoke", tmp_path, 0, {}, papers.SCALES)
    with pytest.raises(UserError, match="Did you mean 'synthetic-parts'"):
        papers.run(papers.find("parts/table-12"), "syntetic-parts", "smoke", tmp_path)
    with pytest.raises(
        UserError, match=r"rows ResNet-50 20K and Downsampled 2K \+ 18K pseudo train on other images"
    ):
        papers.run(papers.find("parts/table-15"), "part-imagenet", "smoke", tmp_path)


def test_what_to_run_is_named_with_commas_and_quoted_where_a_name_holds_one(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(papers, "run", lambda *_, **options: asked.append(options))
    run = ["papers", "run", "pixel/table-9", "--runs", str(tmp_path)]
    assert main([*run, "--rows", "AT, PART", "--columns", '"peak memory, MB",seconds per epoch']) == 0
    assert main([*run, "--seeds", "1,2"]) == 0
    assert [(o["rows"], o["only"], o["seeds"]) for o in asked] == [
        (["AT", "PART"], ["peak memory, MB", "seconds per epoch"], [0]), ([], [], [1, 2]),
    ]  # fmt: skip
    for option in ("--rows", "--columns", "--seeds"):
        assert main(["papers", "show", "pixel/table-9", option, "1"]) == 2
        assert f"{option} says what to run: counterpart papers run" in capsys.readouterr().err


def test_other_data_stand_beside_what_the_paper_has(tmp_path, capsys):
    words = ["papers", "show", "parts/table-1", "--runs", str(tmp_path), "--dataset"]
    assert main([*words, "synthetic-parts"]) == 0
    other = capsys.readouterr().out
    assert "74.70" in other
    assert "Paper: on part-imagenet, which says little of synthetic-parts." in other
    assert main([*words, "cityscapes"]) == 0
    own = capsys.readouterr().out
    assert "79.50" in own
    assert "Paper: on" not in own
    assert main(["papers", "show", "parts/synthetic-parts", "--runs", str(tmp_path)]) == 0
    assert "paper" not in capsys.readouterr().out.partition("- Not in the paper")[0]


def test_the_minimum_margin_attack_is_mm_beside_our_numbers(tmp_path, capsys):
    """The paper's name stands beside the paper's numbers and in stored records; either may be asked for."""
    details = {"model": "resnet18", "scale": "small"}
    for table in ("table-1", "controls"):
        file = tmp_path / "papers" / "small" / f"pixel-{table}-cifar10.jsonl"
        write(file, [Record("metric", "AT/MMA", 0.4, 100, (0.3, 0.5), 0, details=details)])
    assert main(["papers", "show", "pixel/controls", "--runs", str(tmp_path)]) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("┃")]
    assert ["MM" in line.replace("┃", " ").split() for line in heads] == [True]
    assert "MMA" not in heads[0]
    assert main(["papers", "show", "pixel/table-1", "--runs", str(tmp_path)]) == 0
    heads = [line.replace("┃", " ").split() for line in capsys.readouterr().out.splitlines() if "┃" in line]
    names = [name for line in heads for name in line if name in ("MMA", "MM")]
    assert names == ["MMA", "MM"]  # above "paper" and above "here"
    table = papers.find("pixel/table-3")
    for names in (["MM-20", "MM-40"], ["MMA-20", "MMA-40"]):
        assert list(experiments.chosen_columns(table, names, "cifar10")) == ["MMA-20", "MMA-40"]


def test_margins_of_the_controls_are_half_of_the_papers_gains():
    """Table 1 on CIFAR-10: PART gains 0.84 natural, -0.04, 0.18 and 0.11 over AT; PART-T 1.20 natural over TRADES."""
    margins = papers.find("pixel/controls").margins
    assert margins["PART", "mean of the mask"] == pytest.approx(
        {"natural": 0.0042, "MMA": 0.0009, "AA": 0.00055}
    )
    assert margins["PART-T", "TRADES"]["natural"] == pytest.approx(0.006)
    key = ("PART", "mean of the mask", "natural")
    judged = papers.judge(papers.find("pixel/controls"), None, {key: Difference(-0.0013, 0.0017)})[key]
    assert (judged.margin, judged.equivalent) == (pytest.approx(0.0042), True)
