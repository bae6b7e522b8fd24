"""Pseudo-labels: masks for images without, by a segmenter that knows the class."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from counterpart import jobs
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.data.parts_folder import load_parts
from counterpart.errors import UserError
from counterpart.jobs import pseudo_labels
from counterpart.jobs.pseudo_labels import of_class

TINY = {
    "device": "cpu",
    "data": {"name": "parts", "size": 16, "padding": 0, "flip": False},
    "model": {"name": "parts/pixel", "encoder": "timm/test_resnet", "depth": 3},
    "train": {
        "method": "clean", "c_seg": 1, "epochs": 1, "batch_size": 4, "precision": "float32", "validation_n": 2,
        "validation_steps": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three training images of each of two classes, of 20 x 16 pixels; the first of a class has a mask."""
    root, rng = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for name, part in (("cat", 1), ("dog", 3)):
            for i in range(count):
                image, mask = (root / kind / split / name / f"{i}.png" for kind in ("images", "parts"))
                image.parent.mkdir(parents=True, exist_ok=True)
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (16, 20, 3), dtype=np.uint8)).save(image)
                if i == 0 and split != "test":
                    Image.fromarray(np.full((16, 20), part, np.uint8)).save(mask)
    table = {"parts": {"cat": {"head": 1, "body": 2}, "dog": {"head": 3}}}
    (root / "parts.json").write_text(json.dumps(table))
    return root


@pytest.fixture(scope="module")
def segmenter(folder, tmp_path_factory):
    where = {"name": "seg", "runs": str(tmp_path_factory.mktemp("runs")), "data": {"root": str(folder)}}
    return jobs.train(resolve(TINY, where)).run.path


def test_only_the_known_class_can_be_seen():
    """Part 3 is the likeliest everywhere, but image 0 is of the class of parts 1 and 2."""
    logits = torch.tensor([0.0, 1.0, 2.0, 9.0]).view(1, 4, 1, 1).expand(2, 4, 2, 2)
    ids, sure = of_class(logits, torch.tensor([0, 1]), torch.tensor([0, 0, 1]), 4)
    assert ids.tolist() == [[[2] * 4] * 4, [[3] * 4] * 4]
    first = torch.tensor([0.0, 1.0, 2.0]).softmax(dim=0)[2]  # of its own parts and the background alone
    torch.testing.assert_close(sure, torch.stack([first, torch.tensor([0.0, 9.0]).softmax(dim=0)[1]]))


def test_masks_are_predicted_where_there_are_none_and_all_else_is_copied(folder, segmenter, tmp_path, capsys):
    target = tmp_path / "new"
    words = ["data", "pseudo-label", str(segmenter), "--target", str(target)]
    assert main(words) == 0
    assert "4 annotated, 4 predicted, 2 without a mask" in capsys.readouterr().out
    lines = [json.loads(line) for line in (target / "manifest.jsonl").read_text().splitlines()]
    pseudo = [line["path"] for line in lines if line["pseudo"]]
    assert pseudo == [f"images/train/{name}/{i}.png" for name in ("cat", "dog") for i in (1, 2)]
    assert all(0 < line["confidence"] <= 1 for line in lines if line["pseudo"])
    for kind in ("images", "parts"):
        for file in (folder / kind).rglob("*.png"):
            assert (target / file.relative_to(folder)).read_bytes() == file.read_bytes()
    for line in lines:
        if line["pseudo"]:
            ids = np.asarray(Image.open(target / line["mask"]))
            assert ids.shape == (16, 20)
            assert set(np.unique(ids)) <= ({0, 1, 2} if line["class"] == "cat" else {0, 3})
    assert load_parts(target, fold="2/5").test.names == load_parts(folder, fold="2/5").test.names
    new = load_parts(target, size=16)
    assert new.train.parts.there.all()
    assert not new.test.parts.there.any()

    before = (target / "manifest.jsonl").stat().st_mtime_ns
    assert main(words) == 0  # it is there
    assert (target / "manifest.jsonl").stat().st_mtime_ns == before
    assert main([*words, "--confidence", "0.5"]) == 2
    assert "holds another preparation (confidence: 0.0 there, 0.5 now)" in capsys.readouterr().err


def test_a_stopped_copy_is_no_data_set_and_goes_on_to_the_same_files(
    folder, segmenter, tmp_path, monkeypatch
):
    whole, target = tmp_path / "whole", tmp_path / "new"
    monkeypatch.setattr(pseudo_labels, "BATCH", 3)
    jobs.pseudo_label(str(segmenter), whole)
    write, calls = pseudo_labels.write_whole, []

    def killed(path, content):
        calls.append(path)
        if len(calls) == 9:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(pseudo_labels, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        jobs.pseudo_label(str(segmenter), target)
    with pytest.raises(UserError, match=r"parts\.json is missing"):
        load_parts(target, size=16)
    monkeypatch.setattr(pseudo_labels, "write_whole", write)
    jobs.pseudo_label(str(segmenter), target)
    files = {p.relative_to(whole): p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    assert {p.relative_to(target): p.read_bytes() for p in target.rglob("*") if p.is_file()} == files


def test_unsure_predictions_are_left_out_and_a_share_of_labels_is_predicted_anew(segmenter, tmp_path):
    half = {"data": {"labelled": 0.5}}
    assert jobs.pseudo_label(str(segmenter), tmp_path / "a", changes=half).counts == {
        "annotated": 3,  # one of two training masks, and two of validation
        "predicted": 5,
        "without a mask": 2,
    }
    unsure = jobs.pseudo_label(str(segmenter), tmp_path / "b", confidence=1.0, changes=half)
    assert unsure.counts["too unsure"] == 5
    assert int(load_parts(tmp_path / "b", size=16).train.parts.there.sum()) == 1


def test_what_cannot_be_predicted_is_refused(folder, segmenter, tmp_path, capsys):
    with pytest.raises(UserError, match=r"lies within .*source"):
        jobs.pseudo_label(str(segmenter), folder / "new")
    with pytest.raises(UserError, match="is not empty"):
        jobs.pseudo_label(str(segmenter), segmenter.parent)
    other = shutil.copytree(folder, tmp_path / "other")
    table = {"parts": {"cat": {"head": 1}, "dog": {"head": 2, "body": 3}}}
    (other / "parts.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match="has other classes or parts"):
        jobs.pseudo_label(str(segmenter), tmp_path / "new", changes={"data": {"root": str(other)}})
    for words, said in (
        ([str(segmenter)], "pseudo-label needs --target DIR"),
        ([], "needs the run folder of a trained part model"),
        ([str(segmenter), "--target", "x", "--confidence", "2"], "--confidence 2 must be from 0 to 1."),
        ([str(segmenter), "--target", "x", "--source", "y"], "--source has no effect on"),
        ([str(tmp_path / "none"), "--target", str(tmp_path / "new")], "none"),
    ):
        assert main(["data", "pseudo-label", *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()
