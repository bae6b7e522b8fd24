"""Explanations of image files: the folder and its page, how far an attack moves them, and predictions of any target."""

import csv
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

import counterpart as cp
from counterpart import models
from counterpart.api.explanation_folder import overlay
from counterpart.api.explanation_summary import pointing_table
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.saliency.agreement import area, deletion_and_insertion, mask_overlap, rank_correlation
from counterpart.statistics import wilson

CHANGES = {"mask.layer": "conv", "mask.rule": "quantile"}


def test_overlap_is_the_intersection_over_the_union():
    first = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool).view(3, 1, 2, 2)
    second = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool).view(3, 1, 2, 2)
    assert mask_overlap(first, second).tolist() == pytest.approx([1 / 3, 1, 1])


def test_rank_correlation_knows_ranks_and_ties_only():
    base = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 2, 2)
    assert float(rank_correlation(base, base.exp())) == pytest.approx(1)
    assert float(rank_correlation(base, -base)) == pytest.approx(-1)
    ties = torch.tensor([1.0, 1.0, 2.0, 3.0]).view(1, 2, 2)  # ranks 1.5, 1.5, 3, 4
    assert float(rank_correlation(base, ties)) == pytest.approx(0.9486833)
    assert rank_correlation(base, torch.ones(1, 2, 2)).isnan().all()


def test_deletion_and_insertion_follow_the_map():
    """A model that looks at one pixel: the class vanishes with it, at the first step of a map that puts it first."""

    def ask(images):
        score = 40 * (images[:, 0, 0, 0] - 0.5)
        return torch.stack([torch.zeros_like(score), score], dim=1)

    images = torch.zeros(1, 1, 2, 5)
    images[0, 0, 0, 0] = 1.0  # the mean is 0.1
    right = torch.zeros(1, 2, 5)
    right[0, 0, 0] = 1.0
    label = torch.tensor([1])
    deletion, insertion = deletion_and_insertion(ask, images, label, right)
    assert deletion[0].round().tolist() == [1] + [0] * 10
    assert insertion[0].round().tolist() == [0] + [1] * 10
    deletion, insertion = deletion_and_insertion(ask, images, label, -right)
    assert deletion[0].round().tolist() == [1] * 10 + [0]
    assert insertion[0].round().tolist() == [0] * 10 + [1]
    assert float(area(torch.tensor([[0.0, 1.0, 1.0]]))) == pytest.approx(0.75)


def test_curves_of_a_linear_model_are_those_of_the_formula():
    """Of ten pixels five are 1 and count, each by 2 ln 3, and the mean is 1/2: every step moves the logit by ln 3."""
    weight = torch.zeros(1, 1, 2, 5)
    weight[..., 0, :] = 2 * math.log(3)

    def ask(images):
        score = (images * weight).flatten(1).sum(dim=1) - 5 * math.log(3)
        return torch.stack([torch.zeros_like(score), score], dim=1)

    images = (weight > 0).float()
    deletion, insertion = deletion_and_insertion(ask, images, torch.tensor([1]), images[:, 0])
    share = [3**k / (3**k + 1) for k in range(6)]
    assert deletion[0].tolist() == pytest.approx([*share[::-1], *[0.5] * 5])
    assert insertion[0].tolist() == pytest.approx([*share, *[share[5]] * 5])
    assert float(area(deletion)) == pytest.approx(0.1 * (sum(share[:5]) + 0.5 * share[5] + 4.5 * 0.5))


def test_an_explanation_says_how_far_the_attack_moves_it(net, images, labels):
    seen = cp.explain(net, images[:6], labels[:6], changes=CHANGES)
    again = cp.explain(net, seen.attacked, labels[:6], changes=CHANGES)
    torch.testing.assert_close(seen.attacked_maps, again.maps)
    assert torch.equal(seen.attacked_mask, again.mask)
    assert torch.equal(seen.perturbation, seen.attacked - images[:6])
    assert 0 < float(seen.overlap.mean()) < 1
    assert seen.correlation.shape == (6,)
    assert seen.deletion.shape == (6, 11)
    torch.testing.assert_close(seen.deletion[:, 0], seen.clean.gather(1, labels[:6, None])[:, 0])
    torch.testing.assert_close(seen.insertion[:, -1], seen.deletion[:, 0])
    assert seen.parts is None


def test_an_image_is_explained_as_it_would_be_alone(net, images, labels, monkeypatch):
    whole = cp.explain(net, images[:5], labels[:5], changes=CHANGES)
    monkeypatch.setattr("counterpart.api.explanation.PORTION", 2)
    portions = cp.explain(net, images[:5], labels[:5], changes=CHANGES)
    torch.testing.assert_close(portions.attacked, whole.attacked)
    torch.testing.assert_close(portions.maps, whole.maps)


@pytest.mark.slow
def test_the_parts_that_a_part_model_sees_are_shown():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.create(
            "parts/downsampled", 2, image_size=64, parts={"part_classes": [0, 0, 1], "encoder": "resnet18"}
        ).eval()
        images = torch.rand(2, 3, 64, 64)
    seen = cp.explain(model, images, steps=1, changes={"mask.rule": "predicted-parts"})
    with torch.no_grad():
        likeliest = model.forward_parts(images).part_logits.argmax(dim=1)
    assert seen.parts.shape == (2, 64, 64)
    assert seen.attacked_parts.shape == (2, 64, 64)
    assert set(seen.parts.unique().tolist()) == set(likeliest.unique().tolist())


def test_means_are_by_class_and_over_all(net, images, labels):
    seen = cp.explain(net, images[:8], torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]), changes=CHANGES)
    rows = seen.summary(["a", "b", "c", "d"])
    assert [(row["class"], row["images"]) for row in rows] == [("a", 3), ("b", 5), ("all", 8)]
    assert rows[0]["overlap of masks"] == pytest.approx(float(seen.overlap[:3].mean()))
    assert rows[2]["insertion"] == pytest.approx(float(area(seen.insertion).mean()))


def test_pointing_is_counted_by_class_where_masks_show_an_object(net, images):
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    plain = cp.explain(net, images[:6], labels, changes=CHANGES)
    assert (plain.objects, plain.pointing, plain.object_share) == (None, None, None)
    assert pointing_table(plain, ["a", "b", "c", "d"]) == []
    points = [int(values.argmax()) for values in plain.maps.flatten(1)]  # maps have the size of the images
    masks = torch.zeros(6, 64, dtype=torch.uint8)
    for number in (0, 1, 3):
        masks[number, points[number]] = 7  # a part, whatever its number
    masks[2, (points[2] + 1) % 64] = 1  # beside it
    masks[4] = 1
    masks = masks.view(6, 8, 8)  # the last image is not annotated
    seen = cp.explain(net, images[:6], labels, masks=masks, changes=CHANGES)
    torch.testing.assert_close(seen.attacked, plain.attacked)
    assert seen.pointing[:5].tolist() == [1, 1, 0, 1, 1]
    assert seen.pointing[5].isnan()
    assert seen.object_share[:5].tolist() == pytest.approx([1 / 64] * 4 + [1])
    first, second, everything = pointing_table(seen, ["a", "b", "c", "d"])
    assert (first["class"], first["images"], first["pointing"]) == ("a", 3, pytest.approx(2 / 3))
    assert first["pointing, interval"] == pytest.approx(wilson(2, 3))
    assert (second["class"], second["images"], second["pointing"]) == ("b", 2, 1)
    assert second["chance"] == pytest.approx((1 / 64 + 1) / 2)
    assert (everything["class"], everything["images"], everything["pointing"]) == ("all", 5, 0.8)
    attacked = cp.explain(net, seen.attacked, labels, masks=masks, changes=CHANGES)
    torch.testing.assert_close(seen.attacked_pointing, attacked.pointing, equal_nan=True)
    assert everything["pointing under attack"] == pytest.approx(float(attacked.pointing[:5].mean()))
    with pytest.raises(UserError, match=r"masks have the shape \(6, 4, 4\), and the images want \(6, 8, 8\)"):
        cp.explain(net, images[:6], masks=masks[:, :4, :4], changes=CHANGES)


def test_a_map_lies_over_the_photograph():
    values = torch.zeros(2, 2)
    values[0, 0] = 1
    picture = overlay(torch.full((1, 2, 2), 0.5), values)
    assert picture.shape == (2, 2, 3)
    assert picture[0, 0].tolist() == [190, 180, 92]  # half of grey 128, half of cividis' brightest
    assert picture[1, 1].tolist() == [64, 81, 102]  # and its darkest


@pytest.fixture
def photographs(images, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(3):
        pixels = (images[number].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"<{number}>.png")
    return folder


@pytest.fixture
def exported(tmp_path, images, labels):
    """A small network of this package as a checkpoint file, whose classes have names."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.create("wrn-10-1", 4, width=4, image_size=8).eval()
    cp.export(
        model, tmp_path / "net.safetensors", data=(images, labels), classes=["ant", "bee", "cat", "dog"]
    )
    return tmp_path / "net.safetensors"


def test_a_folder_of_images_becomes_a_folder_of_explanations(photographs, exported, tmp_path, capsys):
    out = tmp_path / "explained"
    command = ["explain", str(exported), str(photographs), "--eps", "16/255", "--quantile", "0.5"]
    assert main([*command, "--rule", "quantile", "--steps", "2", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert re.search(
        r"<0>\.png: (ant|bee|cat|dog) \(\d+\.\d%\), under attack .*; overlap of masks [01]\.\d\d, rank", told
    )
    with np.load(out / "arrays.npz") as arrays:
        assert arrays["maps"].shape == (3, 2, 2)
        assert arrays["attacked"].shape == (3, 3, 8, 8)
        assert np.abs(arrays["perturbation"]).max() == pytest.approx(16 / 255, abs=1e-6)
        overlaps = arrays["overlap"]
    with (out / "explanation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["overlap of masks"]) for row in rows] == pytest.approx(overlaps.tolist())
    page = (out / "index.html").read_text()
    assert "&lt;0&gt;.png" in page
    assert "<0>.png" not in page
    shown = re.findall(r'<img src="([^"]+)"', page)
    assert len(shown) == 3 * 7
    assert all((out / path).is_file() for path in shown)
    with (
        Image.open(out / "pictures" / "0001-image.png") as picture,
        Image.open(photographs / "<0>.png") as before,
    ):
        assert np.array_equal(np.array(picture), np.array(before))
    assert main([*command, "--out", str(out)]) != 0
    assert "exists: name a folder that does not" in capsys.readouterr().err


def test_masks_beside_images_say_where_the_map_points(images, exported, tmp_path, capsys):
    root = tmp_path / "annotated"
    for number in range(3):
        for folder, pixels in (
            ("images", (images[number].permute(1, 2, 0).numpy() * 255).round()),
            ("parts", np.full((8, 8), 1 if number < 2 else 0)),
        ):
            path = root / folder / "test" / "ant" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    (root / "parts.json").write_text('{"parts": {"ant": {"body": 1}}}')
    out = tmp_path / "explained"
    assert main(["explain", str(exported), str(root), "--steps", "1", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "lies in the object in 100.0% (34.2% to 100.0%) of 2 images with masks" in told
    assert "the object takes 100.0% of them, which is chance" in told
    with (out / "explanation.csv").open() as file:
        assert [row["pointing"] for row in csv.DictReader(file)] == ["1.0", "1.0", ""]
    with (out / "classes.csv").open() as file:
        *_, everything = csv.DictReader(file)
    assert (everything["images"], everything["images with an object"], everything["chance"]) == (
        "3",
        "2",
        "1.0",
    )
    assert float(everything["pointing, low"]) == pytest.approx(wilson(2, 2)[0])
    page = (out / "index.html").read_text()
    assert "Pointing at the object" in page
    assert page.count('alt="object of') == 3


def test_nothing_is_left_of_a_folder_that_failed(net, images, tmp_path, monkeypatch):
    seen = cp.explain(net, images[:2], steps=1, changes=CHANGES)

    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("counterpart.api.explanation_folder.render_page", interrupted)
    with pytest.raises(KeyboardInterrupt):
        seen.save(tmp_path / "explained")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="1 names were given for 2 images"):
        seen.save(tmp_path / "explained", names=["one"])
    with pytest.raises(UserError, match="2 names of classes were given for 4 classes"):
        seen.save(tmp_path / "explained", classes=["a", "b"])


def test_any_target_predicts_and_shows_its_maps(photographs, exported, tmp_path, capsys):
    maps = tmp_path / "maps"
    assert main(["predict", str(exported), str(photographs), "--maps", str(maps)]) == 0
    told = capsys.readouterr().out
    model = cp.load(exported)
    with Image.open(photographs / "<0>.png") as file:
        pixels = torch.from_numpy(np.array(file)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        probability, answer = model(pixels).softmax(1).max(1)
    assert f"{float(probability):.2%}  {['ant', 'bee', 'cat', 'dog'][answer]}  " in told
    assert sorted(path.name for path in maps.iterdir()) == [f"000{k + 1}-<{k}>.png" for k in range(3)]


def test_a_model_that_does_not_say_its_size_is_asked_for_one(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 3))\n"
    (tmp_path / "sizeless.py").write_text(code)
    assert main(["predict", "sizeless:net", str(photographs)]) != 0
    assert "give their side in pixels, as --size 224" in capsys.readouterr().err
    assert main(["predict", "sizeless:net", str(photographs), "--size", "4"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
