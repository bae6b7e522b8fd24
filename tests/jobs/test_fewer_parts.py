"""Fewer parts: what training decides by data.parts_min_share, every judgement of the run keeps to."""

import json

import numpy as np
import pytest
from PIL import Image

from counterpart import jobs
from counterpart.build import hash_config
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.jobs.stored_models import load_run

TINY = {
    "device": "cpu",
    "data": {"name": "parts", "padding": 0, "flip": False, "parts_min_share": 0.25},
    "model": {"name": "parts/pixel", "encoder": "timm/test_resnet", "depth": 3},
    "train": {
        "method": "clean", "c_seg": 1, "epochs": 1, "batch_size": 4, "precision": "float32", "validation_n": 2,
        "validation_steps": 1,
    },
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """In training the tail of a cat is small and its head large; elsewhere it is the other way round."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name, (first, second) in {"cat": (1, 2), "dog": (3, 4)}.items():
            for i in range(3):
                image, mask = (
                    tmp_path / "set" / kind / split / name / f"{i}.png" for kind in ("images", "parts")
                )
                image.parent.mkdir(parents=True, exist_ok=True)
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(image)
                ids = np.full((16, 16), first, np.uint8)
                ids[: 2 if split == "train" else 14] = second
                Image.fromarray(ids).save(mask)
    table = {"parts": {"cat": {"head": 1, "tail": 2}, "dog": {"head": 3, "tail": 4}}}
    (tmp_path / "set" / "parts.json").write_text(json.dumps(table))
    return tmp_path / "set"


def test_evaluations_of_a_run_keep_to_the_parts_of_its_training(root, tmp_path, capsys):
    where = {"name": "few", "runs": str(tmp_path / "runs"), "data": {"root": str(root)}}
    run = jobs.train(resolve(TINY, where)).run
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "data.parts_min_share 0.25: 2 of 4 parts stay. Background from here on: cat tail; dog tail." in said
    )
    model, about = load_run(run, "best")
    assert about["parts"] == {"cat": ["head"], "dog": ["head"]}
    assert model.part_classes.tolist() == [0, 1]
    # other training images, in which the tail is the larger part, do not change what the run looks for
    for split, other in (("train", "spare"), ("val", "train"), ("spare", "val")):
        for kind in ("images", "parts"):
            (root / kind / split).rename(root / kind / other)
    wish = {"evaluate": {"attacks": [], "parts": True}}
    (judged,) = jobs.evaluate(str(run.path), wish)
    assert judged.case.images.parts.names == {"cat": {"head": 1}, "dog": {"head": 2}}
    assert judged.case.identity["parts"] == about["parts"]
    assert "2 of 4 parts stay" in " ".join(capsys.readouterr().err.split())
    measured = {record.name: record for record in judged.records}["parts/mIoU clean"]
    assert measured.details["parts_min_share"] == 0.25
    assert set(measured.details["per_part"]) <= {"background", "cat head", "dog head"}
    assert measured.details["per_part"]["cat head"]["n"] == 3


def test_a_segmenter_of_fewer_parts_labels_no_folder(root, tmp_path):
    where = {"name": "few", "runs": str(tmp_path / "runs"), "data": {"root": str(root)}}
    run = jobs.train(resolve(TINY, where)).run
    with pytest.raises(
        UserError, match=r"was trained with data\.parts_min_share 0\.25: train a segmenter without"
    ):
        jobs.pseudo_label(str(run.path), tmp_path / "new")


def test_the_share_makes_another_run_and_is_for_sets_with_parts():
    usual = {"data": {"parts_min_share": 0}}
    assert hash_config(resolve(TINY, usual)) != hash_config(resolve(TINY))
    assert "parts_min_share" not in str(resolve(TINY, usual).data.model_dump(exclude_defaults=True))
    with pytest.raises(
        UserError, match=r"data\.parts_min_share 1/10 has no effect|parts_min_share 0\.1 has no effect"
    ):
        resolve({"data": {"name": "digits", "parts_min_share": 0.1}})
