"""Several radii from Python: a list of them, curves, distances and images."""

import json

import pytest
import torch
from torch import nn

import counterpart

RADII = ("4/255", "12/255", 25 / 255)


class Brightness(nn.Module):
    """Class 1 where the mean exceeds one half: the margin is the distance of the mean from it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(40.0))

    def forward(self, images):
        gap = self.scale * (images - 0.5).flatten(1).mean(dim=1)
        return torch.stack([-gap, gap], dim=1)


@pytest.fixture(scope="module")
def data():
    """38 flat images of grey 90 .. 164, labelled as the model answers."""
    grey = torch.arange(90, 166, 2)
    images = (grey.float() / 255).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return images, (grey > 127).long()


def standing(data, radius):
    return float(((data[0][:, 0, 0, 0].double() - 0.5).abs() > radius).double().mean())


@pytest.fixture(scope="module")
def judged(data):
    return counterpart.evaluate(Brightness(), data, attacks="deepfool,pgd", eps=RADII)


def test_the_curve_is_the_share_of_images_beyond_each_radius(data, judged):
    expected = [standing(data, radius) for radius in (4 / 255, 12 / 255, 25 / 255)]
    assert [point.value for point in judged.curve()] == expected
    assert [point.eps for point in judged.curve()] == [4 / 255, 12 / 255, 25 / 255] == list(judged.radii)
    assert [point.value for point in judged.curve("PGD-20")] == expected
    assert judged["worst case at 4/255"].value == expected[0]
    assert judged["worst case"].value == expected[-1]
    with pytest.raises(KeyError, match="'nothing at 4/255' was not measured"):
        judged.curve("nothing")


def test_tables_name_the_radius_of_every_line(judged):
    names = [line.split(" | ")[0].strip("| ") for line in judged.to_markdown().splitlines()[2:]]
    lines = ("DeepFool-50", "PGD-20", "worst case")
    assert names == ["clean", *(f"{line} at {at}" for at in ("4/255", "12/255", "25/255") for line in lines)]
    assert "worst case at 25/255" in repr(judged)
    assert "linf 0.01569, 0.04706, 0.09804" in judged.title


def test_distances_and_images(data, judged):
    margins = (data[0][:, 0, 0, 0] - 0.5).abs().tolist()
    assert judged.distances["DeepFool-50"] == pytest.approx(margins, rel=0.03)
    fooling = judged.images("DeepFool-50")
    assert (
        len(fooling)
        == sum(bool(row.fooled) for row in judged.rows)
        == 38 - round(38 * judged.curve()[-1].value)
    )
    assert ((fooling.images - data[0][fooling.positions]).abs().amax(dim=(1, 2, 3)) <= 25 / 255 + 1e-6).all()
    assert judged.verify().mismatches == []


def test_kept_in_a_folder_it_is_the_same(data, judged, tmp_path):
    folder = judged.save(tmp_path / "saved")
    [identity] = folder.glob("evaluations/*/identity.json")
    assert json.loads(identity.read_text())["eps"] == [4 / 255, 12 / 255, 25 / 255]
    assert "curve-1" in judged.report(tmp_path / "page.html").read_text()
    direct = counterpart.evaluate(
        Brightness(), data, attacks="deepfool,pgd", eps=RADII, folder=tmp_path / "direct"
    )
    assert direct.rows == judged.rows
    assert direct.verify().mismatches == []


def test_a_single_radius_is_called_as_ever(data):
    judged = counterpart.evaluate(Brightness(), data, attacks="pgd", eps=["12/255"])
    assert list(judged) == ["clean", "PGD-20", "worst case"]
    assert [point.value for point in judged.curve()] == [standing(data, 12 / 255)]
    assert "| worst case |" in judged.to_markdown()
