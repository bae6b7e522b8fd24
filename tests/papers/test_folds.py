"""Experiments on folds: a run for each fold, one number for all of them, and rows that start from other rows."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from counterpart import papers
from counterpart.papers import experiments, running
from counterpart.papers.cost import seconds_of_training
from counterpart.papers.experiments import SCRATCH, Experiment, PaperRow
from counterpart.papers.folds import pooled
from counterpart.papers.parts_pretrained import HARDENING
from counterpart.records import Record
from counterpart.rundir import RunDir
from counterpart.statistics import wilson


def share(fold, right, seed=0):
    details = {"fold": fold, "right": right, "scale": "small", "per_class": {}}
    return Record(
        "metric",
        "A/natural",
        right.count("1") / len(right),
        len(right),
        (0, 1),
        seed,
        details=details,
        seconds=2.0,
    )


def test_the_folds_of_a_seed_are_one_share_of_all_images_in_the_order_of_the_folds():
    records = [share("2/3", "01"), share("1/3", "110"), share("3/3", "1"), share("1/3", "11", seed=1)]
    first, second = pooled(records)
    assert first.value == 4 / 6
    assert first.n == 6
    assert first.interval == wilson(4, 6)
    assert first.details["right"] == "110011"
    assert first.details["folds"] == "1,2,3 of 3"
    assert first.seconds == 6
    assert "per_class" not in first.details  # of one fold alone
    assert second.seed == 1
    assert second.details["folds"] == "1 of 3"


def test_a_fold_that_was_measured_twice_counts_once():
    [record] = pooled([share("1/2", "00"), share("1/2", "11")])
    assert (record.value, record.n) == (1, 2)


def test_folds_of_another_number_hold_the_same_images_and_do_not_count():
    [record] = pooled([share("1/3", "0"), share("1/2", "01"), share("2/2", "11")])
    assert (record.value, record.n, record.details["folds"]) == (0.75, 4, "1,2 of 2")


def test_what_is_no_share_of_images_is_a_mean_weighted_by_images():
    def miou(fold, value, n, half):
        return Record("metric", "A/mIoU", value, n, (value - half, value + half), 0, details={"fold": fold})

    [record] = pooled([miou("1/2", 0.2, 30, 0.03), miou("2/2", 0.4, 10, 0.08)])
    assert record.value == pytest.approx(0.25)
    assert record.n == 40
    half = np.hypot(0.75 * 0.03, 0.25 * 0.08)
    assert record.interval == pytest.approx((0.25 - half, 0.25 + half))


def test_what_has_a_unit_is_the_mean_of_a_fold():
    def seconds(fold, value):
        details = {"fold": fold, "unit": "s"}
        return Record("timing", "A/seconds", value, 3, (value - 1, value + 1), 0, details=details)

    [record] = pooled([seconds("1/2", 20.0), seconds("2/2", 40.0)])
    assert (record.value, record.interval) == (30.0, None)


def test_records_without_folds_stay_as_they_are():
    record = Record("metric", "A/natural", 0.5, 10, (0.2, 0.8), 3, details={"right": "10"})
    assert pooled([record]) == [record]


@pytest.fixture
def folder(tmp_path):
    """Ten images of two classes, each with a part."""
    random = np.random.default_rng(0)
    for number in range(20):
        name = ("cat", "dog")[number % 2]
        image = tmp_path / "data" / "images" / "train" / name / f"{number}.png"
        mask = tmp_path / "data" / "parts" / "train" / name / f"{number}.png"
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(image)
        Image.fromarray(np.full((32, 32), 1 + number % 2, dtype=np.uint8)).save(mask)
    (tmp_path / "data" / "parts.json").write_text(
        '{"classes": ["cat", "dog"], "parts": {"cat": {"head": 1}, "dog": {"head": 2}}}'
    )
    return tmp_path


def test_rows_start_from_other_rows_of_the_same_fold_and_every_image_is_judged_once(folder, monkeypatch):
    tiny = {
        "data": {"size": 32, "padding": 0}, "model": {"encoder": "timm/test_resnet"},
        "train": {"batch_size": 4, "validation_steps": 1, "epochs": 1}, "attack": {"steps": 1},
        "optimizer": {"warmup_epochs": 0}, "device": "cpu",
    }  # fmt: skip
    clean = {"train": {"method": "clean", "clean_epochs": 0}}
    rows = (
        PaperRow("hard", "baseline", changes={"train": {"clean_epochs": 0}}, starts_from="soft"),
        PaperRow("soft", "baseline", changes=clean),
        PaperRow("raw", "baseline", changes=clean, starts_from=SCRATCH),
    )
    experiment = Experiment("parts/folded", "", rows, {}, scales={"tiny": tiny}, folds=2, datasets=("parts",))
    configs = []
    train = running._train

    def noted(config, fresh):
        configs.append(config)
        return train(config, fresh)

    monkeypatch.setattr(running, "_train", noted)
    first = folder / "first"
    running.run(
        experiment, "parts", "tiny", first, rows=["soft"], changes={"data": {"root": str(folder / "data")}}
    )
    weights = str(configs[0].runs / configs[0].name / "checkpoints" / "best.safetensors")
    configs.clear()
    given = {"data": {"root": str(folder / "data")}, "model": {"encoder_init": weights}}
    running.run(experiment, "parts", "tiny", folder / "runs", changes=given)
    starts = {config.name: (config.model.init, config.model.encoder_init) for config in configs}
    for fold in ("1of2", "2of2"):
        [(_, start)] = [(n, s) for n, s in starts.items() if "+from-soft" in n and n.endswith(fold)]
        [(soft, _)] = [(n, s) for n, s in starts.items() if "from" not in n and n.endswith(fold)]
        assert start[0].endswith(soft)
        assert start[1] is None
        assert starts[soft] == (None, weights)
        [raw] = [s for n, s in starts.items() if "+from-scratch" in n and n.endswith(fold)]
        assert raw == (None, None)
    cells = experiments.measured(experiment, "parts", "tiny", folder / "runs")
    for row in rows:
        [record] = cells[row.name, "natural"]
        assert record.n == 20
        assert record.details["folds"] == "1,2 of 2"
    trained = len(configs)
    running.run(experiment, "parts", "tiny", folder / "runs", changes=given)
    assert len(configs) == trained  # nothing is left to do


def test_answers_of_other_folds_are_not_compared(monkeypatch):
    rows = (PaperRow("A", "baseline"), PaperRow("B", "baseline"))
    experiment = Experiment("x", "", rows, {}, pairs=(("A", "B"),), folds=2)
    of = {
        "A": pooled([share("1/2", "01")]), "B": pooled([replace(share("2/2", "11"), name="B/natural")]),
    }  # fmt: skip
    cells = {(row, "natural"): records for row, records in of.items()}
    assert papers.differences(experiment, cells) == {}
    cells["B", "natural"] = pooled([share("1/2", "11")])
    assert papers.differences(experiment, cells)["A", "B", "natural"][2] == 2


def test_seconds_of_training_are_those_of_all_epochs(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create({"model": {"name": "small-cnn"}, "train": {"batch_size": 8}}, lambda config: config)
    run.add([Record("epoch", "epoch", seconds=seconds) for seconds in (2.0, 3.5)])
    record = seconds_of_training(run)
    assert (record.value, record.details["unit"]) == (5.5, "s")
    assert HARDENING.columns["seconds of training"] is seconds_of_training
