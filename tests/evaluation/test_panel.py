"""The images that an evaluation keeps for the report: of a part model, also the parts that it finds."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from counterpart.budget import Linf
from counterpart.checksums import KEY_OF_TENSORS
from counterpart.contracts import Attacked, NamedAttack, PartOutput, Probe
from counterpart.data.image_sets import ImageSet
from counterpart.data.parts import Parts
from counterpart.evaluation.ledger import LedgerRow
from counterpart.evaluation.panel import PanelAttack, PanelRule, draw_groups, draw_pictures
from counterpart.importance.rules import constant

EPS = 0.1


class Plain(nn.Module):
    """Says how red an image is, and how blue."""

    def forward(self, images):
        return images[:, [0, 2]].mean(dim=(2, 3))

    def probe(self, images):
        leaf = images.detach().requires_grad_()
        return Probe(leaf, self(leaf))


class Segmenter(Plain):
    """Sees a head where an image is redder than a half, else a tail where it is bluer, else the background."""

    full_resolution = False

    def __init__(self):
        super().__init__()
        self.register_buffer("part_classes", torch.tensor([0, 1]))

    def forward_parts(self, images):
        red, blue = images[:, 0] - 0.5, images[:, 2] - 0.5
        return PartOutput(self(images), torch.stack([torch.zeros_like(red), 9 * red, blue], dim=1))

    def classify_parts(self, part_logits):
        return part_logits[:, 1:].mean(dim=(2, 3))


@pytest.fixture
def images(generator):
    pixels = torch.randint(0, 256, (6, 3, 4, 5), generator=generator).to(torch.uint8)
    masks = torch.randint(0, 3, (6, 4, 5), generator=generator).to(torch.uint8)
    there = torch.tensor([True, False, True, True, True, False])
    parts = Parts({"cat": {"head": 1}, "dog": {"tail": 2}}, 2, there, masks)
    return ImageSet(
        "drawn", "test", ("cat", "dog"), torch.arange(6) % 2, torch.arange(6), "f", (3, 4, 5), pixels=pixels,
        parts=parts,
    )  # fmt: skip


def darker(view, images, labels, *, budget, keys):
    none = torch.zeros_like(labels)
    return Attacked(budget.project(images - 1, images), none, none)


def panel_of(tmp_path, model, images, rows=None):
    """The tensors and the header of a panel of all images."""
    rows = rows or [
        LedgerRow(index, label, label, (), label, 0, 0) for index, label in enumerate(images.labels.tolist())
    ]
    budget, file = Linf(EPS), tmp_path / "panel.safetensors"
    draw_pictures(
        model, images, rows, attack=PanelAttack(model, budget, [NamedAttack("darker", darker, "darker")]),
        training=PanelRule(model, "grad-cam", constant, budget), fooling=lambda position: None,
        device=torch.device("cpu"), seed=0,
    ).write(file)  # fmt: skip
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return tensors, {
            name: json.loads(text) for name, text in opened.metadata().items() if name != KEY_OF_TENSORS
        }


def test_parts_are_those_of_the_model_clean_and_attacked(tmp_path, images):
    tensors, header = panel_of(tmp_path, Segmenter(), images)
    for name, shown in (("parts", "clean"), ("parts_adversarial", "adversarial")):
        red, blue = tensors[shown][:, 0] - 0.5, tensors[shown][:, 2] - 0.5
        expected = torch.where((red > 0) & (9 * red > blue), 1, torch.where(blue > 0, 2, 0))
        assert torch.equal(tensors[name].long(), expected)
    assert (tensors["parts"] == 0).sum() < (tensors["parts_adversarial"] == 0).sum()
    assert torch.equal(tensors["parts_true"].long(), images.parts.masks[header["index"]].long())
    assert header["annotated"] == images.parts.there[header["index"]].tolist()
    assert header["part_names"] == ["background", "cat head", "dog tail"]


def test_parts_without_names_are_numbered(tmp_path, images):
    tensors, header = panel_of(tmp_path, Segmenter(), replace(images, parts=None))
    assert "parts" in tensors
    assert "parts_true" not in tensors
    assert header["part_names"] == ["background", "part 1", "part 2"]


def test_a_model_without_parts_has_no_maps_of_them(tmp_path, images):
    tensors, header = panel_of(tmp_path, Plain(), images)
    assert tensors.keys() == {"clean", "adversarial", "radius"}
    assert not {"part_names", "annotated"} & header.keys()


def test_images_of_each_outcome_are_drawn_from_the_seed():
    answers = {"fooled": (1, ("pgd",)), "held": (1, ()), "wrong": (0, ())}
    rows = [
        LedgerRow(index, 1, clean, fooled, 0, 0, 0)
        for index, (clean, fooled) in enumerate(list(answers.values()) * 30)
    ]
    drawn = draw_groups(rows, 0)
    assert list(drawn) == ["fooled", "held", "wrong"]
    assert all(len(group) == 4 and group == sorted(group) for group in drawn.values())
    assert all(position % 3 == place for place, group in enumerate(drawn.values()) for position in group)
    assert draw_groups(rows, 0) == drawn
    assert draw_groups(rows, 1) != drawn
    assert max(max(group) for group in drawn.values()) > 12  # not simply the first


def test_an_image_that_was_wrong_from_the_start_is_not_attacked(tmp_path, images):
    wrong = replace(images, labels=(images.labels + 1) % 2)
    rows = [
        LedgerRow(index, label, 1 - label, (), label, 0, 0)
        for index, label in enumerate(wrong.labels.tolist())
    ]
    tensors, header = panel_of(tmp_path, Plain(), wrong, rows)
    assert torch.equal(tensors["clean"], tensors["adversarial"])
    assert header["fooled_by"] == [""] * len(header["labels"])
