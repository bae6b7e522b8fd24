"""Which weights of a run are its best: by accuracy, of a segmenter alone by its parts, the last without validation."""

import pytest
import torch

from counterpart import build, jobs
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.evaluation.part_quality import count_parts, metrics_of
from counterpart.jobs import training
from counterpart.jobs.stored_models import load_run
from counterpart.recipes import load
from counterpart.training import checkpoint


def small(recipe, tmp_path, *layers):
    rest = {"runs": str(tmp_path), "name": "run", "device": "cpu", "threads": 1}
    quick = {"train": {"epochs": 3, "batch_size": 32}, "data": {"limit": 96}}
    return resolve(load(recipe), quick, *layers, rest)


def epochs_of(run):
    return [record for record in run.records() if record.kind == "epoch"]


def test_without_validation_every_image_is_trained_on_and_the_last_weights_are_the_best(tmp_path, capsys):
    given = {"data": {"validation": 0}, "train": {"epochs": 2}, "attack": {"steps": 1}, "evaluate": {"n": 20}}
    config = small("digits/at", tmp_path, given)
    [seed] = jobs.train_seeds(small("digits/at", tmp_path / "group", given, {"train": {"epochs": 1}}), [3])
    assert seed.finished
    assert "seeds" not in capsys.readouterr().out  # there is no accuracy to sum up
    unlimited = {"data": {"limit": None}}
    data, held = (
        build.load_splits(small("digits/at", tmp_path, *layers), torch.device("cpu"))
        for layers in ((given, unlimited), (unlimited,))
    )
    assert len(data.validation) == 0
    assert torch.equal(data.test.index, held.test.index)
    assert len(data.train) == 1397  # all but the test images
    run = jobs.train(config).run
    last, best = (load_run(run, which) for which in ("last", "best"))
    for name, value in last[0].state_dict().items():
        assert torch.equal(value, best[0].state_dict()[name])
    assert best[1]["epoch"] == 1
    for record in epochs_of(run):
        assert not any(name.startswith("validation") for name in record.details)
    assert "validation clean" not in (run.path / "progress.log").read_text()
    assert training.best_validation(run) == []
    assert jobs.train(config).finished  # and the same command finds it so
    [judged] = jobs.evaluate(str(run.path), {"evaluate": {"attacks": "none"}})
    assert judged.records[0].n == 20
    with pytest.raises(UserError, match=r"no image was set aside\. Judge the test split"):
        jobs.evaluate(str(run.path), {"evaluate": {"split": "validation"}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": {"validation_n": 5}}, "train.validation_n 5: there are no validation images"),
        (
            {"train": {"method": "part"}, "mask": {"eps_low": "auto"}},
            "eps_low auto chooses by validation images",
        ),
    ],
)
def test_what_chooses_by_validation_needs_some(tmp_path, given, message):
    config = small("digits/at", tmp_path, {"data": {"validation": 0}}, given)
    with pytest.raises(UserError, match=message):
        jobs.train(config)
    assert not (tmp_path / "run").exists()


def test_a_segmenter_alone_is_chosen_by_its_parts(tmp_path, monkeypatch):
    """Its classes are never learned, and their accuracy is an accident."""
    config = small(
        "synthetic-parts/segmenter", tmp_path, {"data": {"size": 32}, "train": {"validation_n": 20}}
    )
    told = iter([0.1, 0.3, 0.2])
    monkeypatch.setattr(
        training, "part_ious", lambda counts: {"head": (share := next(told)) - 0.1, "tail": share + 0.1}
    )
    run = jobs.train(config).run
    assert checkpoint.read(run.checkpoint("best"))[1]["epoch"] == 1
    assert [record.details["validation_miou"] for record in epochs_of(run)] == pytest.approx([0.1, 0.3, 0.2])
    assert "mIoU 30.00%" in (run.path / "progress.log").read_text()
    names = [record.name for record in training.best_validation(run)]
    assert names == ["validation_clean", "validation_robust", "validation_miou"]


def test_the_miou_of_an_epoch_is_that_of_an_evaluation(tmp_path):
    given = {"data": {"size": 32, "labelled": 1}, "train": {"validation_n": 20, "epochs": 1}}
    config = small("synthetic-parts/segmenter", tmp_path, given)
    run = jobs.train(config).run
    device = torch.device("cpu")
    images = training.balanced_subset(build.load_splits(config, device).validation, 20, seed=0)
    model = load_run(run, "best")[0]
    counts = count_parts(
        model, model, images, attack=None, budget_of=lambda _: None, batch_size=7, device=device, seed=0
    )
    by_name = {record.name: record for record in metrics_of(counts, "clean", {}, 0)}
    [epoch] = epochs_of(run)
    assert epoch.details["validation_miou"] == pytest.approx(by_name["parts/mIoU clean"].value, abs=1e-6)
    per_part = by_name["parts/mIoU clean"].details["per_part"]
    assert epoch.details["validation_parts"] == pytest.approx(
        {name: part["iou"] for name, part in per_part.items()}
    )


def test_other_part_models_are_chosen_by_their_classes_and_say_how_well_they_find_parts(
    tmp_path, monkeypatch
):
    given = {"data": {"size": 32}, "train": {"validation_n": 20, "epochs": 1, "clean_epochs": 0}}
    told = iter([0.9, 0.1])
    monkeypatch.setattr(training, "part_ious", lambda counts: {"head": next(told)})
    accuracies = iter([(0.5, 0.2), (0.5, 0.3)])
    monkeypatch.setattr(training, "_validator", lambda *_: lambda *_: next(accuracies))
    run = jobs.train(small("synthetic-parts/downsampled", tmp_path, given, {"train": {"epochs": 2}})).run
    assert [record.details["validation_parts"] for record in epochs_of(run)] == [{"head": 0.9}, {"head": 0.1}]
    assert checkpoint.read(run.checkpoint("best"))[1]["epoch"] == 1
    monkeypatch.undo()
    run = jobs.train(small("synthetic-parts/downsampled-no-part-labels", tmp_path / "unlabelled", given)).run
    assert all("validation_parts" not in record.details for record in epochs_of(run))


def test_of_averaged_weights_those_that_the_optimiser_left_may_be_judged(tmp_path):
    given = {
        "train": {"epochs": 1, "ema": 0.9},
        "attack": {"steps": 1},
        "evaluate": {"n": 20, "attacks": "none"},
    }
    run = jobs.train(small("digits/at", tmp_path, given)).run
    tensors, _ = checkpoint.read(run.checkpoint("last"))
    for which, prefix in (("last", "ema.module."), ("unaveraged", "model.")):
        for name, value in load_run(run, which)[0].state_dict().items():
            assert torch.equal(value, tensors[prefix + name])
    [judged] = jobs.evaluate(str(run.path), {"evaluate": {"weights": "unaveraged"}})
    assert judged.records[0].details["weights"] == "unaveraged"
    assert jobs.verify_run(run.path, {})
