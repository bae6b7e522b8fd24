"""Part models from the first command to the last: training, a checkpoint that says what the model is, evaluation."""

import pytest
import timm
import torch
from PIL import Image

from counterpart import jobs
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.jobs.stored_models import load_run
from counterpart.jobs.targets import open_targets
from counterpart.models.auxiliary import AuxiliaryClassifier
from counterpart.models.part_model import PartClassifier
from counterpart.rundir import RunDir
from counterpart.training import checkpoint

TINY = {
    "device": "cpu",
    "data": {"name": "synthetic-parts", "size": 16, "limit": 25, "padding": 1},
    "model": {"name": "parts/bounding-box", "encoder": "timm/test_resnet", "depth": 3, "resolution": "full"},
    "attack": {"eps": 0.05, "steps": 1},
    "mask": {"rule": "annotated-parts", "eps_low": 0.02, "burn_in": 0.5},
    "train": {
        "method": "part", "c_seg": 0.4, "epochs": 2, "batch_size": 12, "precision": "float32",
        "validation_steps": 1, "validation_n": 12,
    },
}  # fmt: skip


def test_a_part_model_is_trained_saved_loaded_and_evaluated(tmp_path):
    """With budgets that the annotation draws, features at full resolution, and a last batch of one image."""
    config = resolve(TINY, {"name": "parts", "runs": str(tmp_path)})
    run = jobs.train(config).run
    rows = [row.details for row in run.records() if row.kind == "epoch"]
    assert [row["phase"] for row in rows] == ["burn-in", "part"]
    assert 0.02 < rows[1]["mean_radius"] < 0.05
    assert all(row["part_loss"] > 0 for row in rows)
    model, about = load_run(run, "last")
    assert isinstance(model, PartClassifier)
    assert model.full_resolution
    assert model.backbone.head.scale == 4
    assert about["model"]["parts"]["resolution"] == "full"
    assert model.part_classes.tolist() == about["model"]["parts"]["part_classes"]
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(
        model.eval()(images), model.classify_parts(model.forward_parts(images).part_logits)
    )
    wanted = {"n": 6, "attacks": "fgsm", "eps_low": 0.01, "parts": True}
    judged = jobs.evaluate(str(run.path), {"evaluate": wanted})
    found = {record.name: record for record in judged[0].records}
    measured = [
        f"parts/{name} {how}"
        for how in ("clean", "under PGD-20", "under PGD-20 on the parts")
        for name in ("pixel accuracy", "pixel accuracy without background", "mIoU")
    ]
    assert [name for name in found if name.startswith("parts/")] == measured
    assert all(
        0 <= found[name].interval[0] <= found[name].value <= found[name].interval[1] <= 1 for name in measured
    )
    again = jobs.evaluate(str(run.path), {"evaluate": wanted})[0].records  # read, not measured again
    assert {r.name: r.value for r in again} == {name: record.value for name, record in found.items()}
    assert sum(record.name == measured[0] for record in run.records()) == 1
    boxes = jobs.evaluate(str(run.path), {"evaluate": wanted, "data": {"labels": "boxes"}})[0].records
    [against] = [r for r in boxes if r.name == measured[0]]
    assert against.value != found[measured[0]].value
    assert (against.details["labels"], "labels" in found[measured[0]].details) == ("boxes", False)
    cheap = {"steps": 1, "restarts": 1}
    staged = [{"attack": "single-staged", **cheap}, {"attack": "two-staged", "strategy": "sorted", **cheap}]
    [judged] = jobs.evaluate(str(run.path), {"evaluate": {"n": 6, "attacks": staged}})
    assert [record.name for record in judged.records] == [
        f"accuracy/{name}" for name in ("clean", "single-staged-1", "two-staged-1 sorted", "worst case")
    ]
    [judged] = jobs.evaluate(
        str(run.path), {"data": {"shift": "backgrounds"}, "evaluate": {"n": 6, "attacks": []}}
    )
    assert judged.records[0].details["data"] == "synthetic-parts with other backgrounds"
    target = next(open_targets(str(run.checkpoint("last")), {}))
    assert isinstance(target.model, PartClassifier)
    for split in ("train", "test"):
        for name in target.images.classes:
            file = tmp_path / "plain" / split / name / "0.png"
            file.parent.mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(file)
    plain = {"name": "folder", "root": str(tmp_path / "plain")}
    jobs.evaluate(str(run.path), {"evaluate": {"attacks": "fgsm"}, "data": plain})
    captions = [row.details["caption"] for row in run.records() if row.name == "panel"]
    assert ["parts, which these images lack" in caption for caption in captions[-2:]] == [False, True]


AUXILIARY = {
    **TINY,
    "data": {**TINY["data"], "size": 32, "labelled": 0.6},
    "model": {"name": "parts/auxiliary", "encoder": "timm/test_resnet"},
}


@pytest.mark.parametrize("method", ["part", "trades"])
def test_heads_that_inference_does_without_are_trained_stopped_and_resumed_bit_for_bit(method, tmp_path):
    """Some images have no part labels; the budget of PART is that of the parts which the view predicts."""
    changes = {"train": {"method": method}}
    if method == "part":
        changes["mask"] = {"rule": "predicted-parts"}
    base = {**AUXILIARY, "mask": AUXILIARY["mask"] if method == "part" else {}}
    whole, pieces = (
        resolve(base, changes, {"name": name, "runs": str(tmp_path)}) for name in ("whole", "pieces")
    )
    run = jobs.train(whole).run
    rows = [row.details for row in run.records() if row.kind == "epoch"]
    assert all(row["part_loss"] > 0 for row in rows)
    stopping = pieces.model_copy(update={"train": pieces.train.model_copy(update={"stop_after": 1e-9})})
    starts = 0
    while not (trained := jobs.train(stopping)).finished:
        starts += 1
        assert starts < 20
    assert starts >= 3
    first, second = (checkpoint.read(where.checkpoint("last"))[0] for where in (run, trained.run))
    weights = {name for name in first if name.startswith("model.")}
    assert any(name.startswith("model.part_heads.") for name in weights)
    assert all(torch.equal(first[name], second[name]) for name in weights)


def test_a_run_with_heads_that_inference_does_without_is_evaluated_and_used(tmp_path):
    run = jobs.train(
        resolve(
            {**AUXILIARY, "mask": {}}, {"train": {"method": "at"}, "name": "parts", "runs": str(tmp_path)}
        )
    ).run
    model, about = load_run(run, "last")
    assert isinstance(model, AuxiliaryClassifier)
    assert about["model"]["parts"].keys() == {"part_classes", "encoder"}
    cheap = {"steps": 1, "restarts": 1}
    attacks = [
        "fgsm", {"attack": "single-staged", **cheap}, {"attack": "two-staged", "strategy": "random", **cheap}
    ]  # fmt: skip
    judged = jobs.evaluate(str(run.path), {"evaluate": {"n": 6, "attacks": attacks, "parts": True}})
    values = {record.name: record.value for record in judged[0].records}
    assert {name for name in values if name.startswith("parts/mIoU")} == {
        "parts/mIoU clean", "parts/mIoU under PGD-20", "parts/mIoU under PGD-20 on the parts"
    }  # fmt: skip
    with pytest.raises(
        UserError, match="strategy sorted: parts/auxiliary cannot classify from part logits alone"
    ):
        jobs.evaluate(
            str(run.path),
            {"evaluate": {"n": 6, "attacks": [{"attack": "two-staged", "strategy": "sorted", **cheap}]}},
        )


def test_what_training_cannot_do_is_refused_before_anything_is_written(tmp_path):
    base = {"name": "parts", "runs": str(tmp_path), "device": "cpu", "data": {"limit": 24}}
    digits = resolve(base, {"model": {"name": "parts/pixel"}})
    with pytest.raises(UserError, match="parts/pixel needs images with annotated parts"):
        jobs.train(digits)
    unknown = resolve(
        base, {"model": {"width": 8}, "train": {"method": "part"}, "mask": {"rule": "annotated-parts"}}
    )
    with pytest.raises(UserError, match=r"mask\.rule annotated-parts: digits has no annotated parts"):
        jobs.train(unknown)
    shifted = resolve(base, {"data": {"name": "synthetic-parts", "shift": "textures"}, "model": {"width": 8}})
    with pytest.raises(UserError, match=r"data\.shift is for judging a model"):
        jobs.train(shifted)
    assert not RunDir(tmp_path / "parts").path.exists()


def test_an_encoder_starts_from_a_file_or_a_run_and_never_asks_the_hub(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": timm.create_model("test_resnet").state_dict()}, file)
    short = {"mask": {}, "train": {**TINY["train"], "method": "at", "epochs": 1, "c_seg": None}}

    def train(name, kind, **model):
        model = {"name": f"parts/{kind}", "encoder": "timm/test_resnet", "pretrained": True, **model}
        c_seg = {} if kind == "baseline" else {"train": {"c_seg": 0.4}}
        jobs.train(resolve({**TINY, **short, "model": model}, {"name": name, "runs": str(tmp_path), **c_seg}))

    train("classifier", "baseline", encoder_init=str(file))
    assert "tensors fitted; left out: fc." in capsys.readouterr().err
    train("finder", "pixel", encoder_init=str(tmp_path / "classifier"))
    assert "tensors fitted; left out: fc." in capsys.readouterr().err
    with pytest.raises(
        UserError, match=r"holds no part model: --model.encoder-init starts the encoder alone"
    ):
        train("whole", "pixel", init=str(file))
    with pytest.raises(UserError, match=r"encoder_init .* has no effect with model.init"):
        train("twice", "pixel", init=str(file), encoder_init=str(file))
    assert not (tmp_path / "whole").exists()


def test_heads_that_inference_does_without_go_on_from_a_run_and_not_from_a_plain_classifier(tmp_path):
    short = {**AUXILIARY, "mask": {}, "train": {**TINY["train"], "method": "at", "epochs": 1}}

    def train(name, **changes):
        return jobs.train(resolve(short, changes, {"name": name, "runs": str(tmp_path)})).run

    def heads(run):
        weights = checkpoint.read(run.checkpoint("last"))[0]
        return {name: tensor for name, tensor in weights.items() if name.startswith("model.part_heads.")}

    first = train("first")
    second = train("second", model={"init": str(first.path)}, optimizer={"lr": 1e-12})
    assert heads(first)
    for name, tensor in heads(second).items():
        if name.endswith(("weight", "bias")):
            assert torch.allclose(tensor, heads(first)[name], atol=1e-6)
    file = tmp_path / "plain.pt"
    torch.save(timm.create_model("test_resnet").state_dict(), file)
    with pytest.raises(UserError, match=r"holds no part model: --model\.encoder-init"):
        train("third", model={"init": str(file)})
