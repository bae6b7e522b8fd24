"""Where-profiles from Python: a linear model has every answer in closed form."""

import json

import pytest
import torch
from torch import nn

import counterpart
from counterpart.errors import UserError
from counterpart.evaluation.where_profile import AREAS
from counterpart.report import write_report

SIDE, N = 8, 120
EPS = {"linf": 0.01, "l2": 0.05}


class Linear(nn.Module):
    """Two classes of grey images: class 1 where the weights times the image, minus a half each, is positive."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, images):
        gap = ((images - 0.5)[:, 0] * self.weights).sum(dim=(1, 2))
        return torch.stack([-gap, gap], dim=1)


def random_tensor(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def weights():
    return random_tensor(0, SIDE, SIDE)


@pytest.fixture(scope="module")
def data(weights):
    """Images in the middle of the range, all with a small margin, labelled as the model answers; a few wrongly."""
    images = 0.5 + 0.05 * random_tensor(1, N, 1, SIDE, SIDE).clamp(-3, 3)
    gap = ((images - 0.5)[:, 0] * weights).sum(dim=(1, 2), keepdim=True)
    wanted = 0.6 * torch.rand(N, 1, 1, generator=torch.Generator().manual_seed(2)) * gap.sign()
    images = images + ((wanted - gap) / weights.square().sum() * weights)[:, None]
    labels = (wanted.flatten() > 0).long()
    labels[:6] = 1 - labels[:6]
    return images, labels


def should_stand(data, weights, mask, norm, eps):
    """Whether the margin of each image exceeds what the attacker reaches within a region, and its label is right."""
    images, labels = data
    gap = ((images.double() - 0.5)[:, 0] * weights.double()).sum(dim=(1, 2))
    inside = weights.double().abs() * mask[:, 0]
    reach = inside.sum(dim=(1, 2)) if norm == "linf" else inside.square().sum(dim=(1, 2)).sqrt()
    right = (gap > 0).long() == labels
    stands = right & (gap.abs() > eps * reach)
    # PGD comes near to the edge of a ball, and not onto it
    clear = (
        torch.ones(N, dtype=torch.bool) if norm == "linf" else (gap.abs() / (eps * reach) - 1).abs() > 0.05
    )
    return [bool(stood) if sure else None for stood, sure in zip(stands, clear, strict=True)]


def agree(measured, expected):
    """Whether all images that the closed form is sure of stand as it says, which are most."""
    sure = [(stood, wanted) for stood, wanted in zip(measured, expected, strict=True) if wanted is not None]
    return len(sure) > 0.85 * N and all(stood == wanted for stood, wanted in sure)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_model_stands_where_its_margin_exceeds_the_reach_within_the_region(data, weights, norm):
    eps, masks = EPS[norm], weights.abs().expand(N, -1, -1)
    attacks = "fgsm" if norm == "linf" else [{"attack": "pgd", "steps": 40}]
    profile = counterpart.where(
        Linear(weights),
        data,
        masks=masks,
        attacks=attacks,
        eps=eps,
        norm=norm,
        draws=int(norm == "linf"),
        regions="top,bottom,window",
    )
    order = weights.abs().flatten().argsort(descending=True)
    for share, count in ((0.05, 3), (0.1, 6), (0.25, 16), (0.5, 32)):
        for kind, chosen in (("top", order[:count]), ("bottom", order[-count:])):
            mask = torch.zeros(SIDE * SIDE)
            mask[chosen] = 1
            expected = should_stand(
                data, weights, mask.view(1, 1, SIDE, SIDE).expand(N, -1, -1, -1), norm, eps
            )
            stands = profile.stands(f"{kind} {100 * share:g}%")
            assert agree(stands, expected)
            assert profile[f"{kind} {100 * share:g}%"].value == pytest.approx(sum(stands) / N)
    whole = torch.ones(N, 1, SIDE, SIDE)
    assert agree(profile.stands("everything"), should_stand(data, weights, whole, norm, eps))
    assert 0.05 < profile["everything"].value < 0.9
    window = torch.zeros(N, 1, SIDE, SIDE)
    window[..., 2:6, 2:6] = 1
    assert agree(profile.stands("window 25%"), should_stand(data, weights, window, norm, eps))
    assert profile.areas["bottom - top"].difference.interval[0] > 0
    # all images share one map, so that another image's top is one's own
    assert all(profile.areas[name].difference.mean == 0 for name in profile.areas if name == "other - top")


def test_everything_is_the_plain_attack(data, weights):
    profile = counterpart.where(
        Linear(weights),
        data,
        masks=random_tensor(3, N, SIDE, SIDE),
        attacks="pgd",
        eps=0.01,
        draws=1,
        shares=[0.5],
    )
    judged = counterpart.evaluate(Linear(weights), data, attacks="pgd", eps=0.01)
    assert profile.stands("everything") == [row.right and not row.fooled for row in judged.rows]
    assert profile["everything"].value == judged["worst case"].value


def test_the_area_is_zero_for_a_map_that_knows_nothing(data, weights):
    level = weights.sign()  # every pixel is as weak as every other: exactly 0
    images = data[0]
    labels = Linear(level)(images).argmax(dim=1)
    nothing = random_tensor(4, N, SIDE, SIDE)
    profile = counterpart.where(Linear(level), (images, labels), masks=nothing, attacks="fgsm", eps=0.01)
    assert {name: area.difference.mean for name, area in profile.areas.items()} == dict.fromkeys(AREAS, 0.0)
    profile = counterpart.where(Linear(weights), data, masks=nothing, attacks="fgsm", eps=0.01)
    for area in profile.areas.values():  # of weights that differ: 0 in expectation
        low, high = area.difference.interval
        assert low < 0 < high


def test_the_area_changes_its_sign_with_the_map(data, weights):
    masks = weights.abs().expand(N, -1, -1)
    options = {"attacks": "fgsm", "eps": 0.01, "draws": 0}
    [area] = counterpart.where(Linear(weights), data, masks=masks, **options).areas.values()
    [turned] = counterpart.where(Linear(weights), data, masks=-masks, **options).areas.values()
    assert area.difference.mean == pytest.approx(-turned.difference.mean)
    assert area.difference.mean > 0.05


def test_tables_plots_and_the_page(data, weights, tmp_path):
    profile = counterpart.where(
        Linear(weights), data, masks=weights.abs().expand(N, -1, -1), eps=0.01, attacks="fgsm", draws=1,
        folder=tmp_path / "kept", shares=(0.25, 0.5),
    )  # fmt: skip
    lines = profile.to_markdown().splitlines()
    assert lines[0].startswith("| attacker moves | of the image | accuracy |")
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:7]] == [row.region for row in profile.rows]
    assert lines[-3].startswith("Area between the curves, bottom - top: +")
    assert "top 25%" in repr(profile)
    assert profile.plot(tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (tmp_path / "kept" / "records.jsonl").read_text().splitlines()]
    values = {record["name"]: record.get("value") for record in records}
    assert values["where/top 25%"] == profile["top 25%"].value
    assert values["where/area bottom - top"] == profile.areas["bottom - top"].difference.mean
    assert {record["name"] for record in records if record["kind"] == "artifact"} == {
        "where curves",
        "where regions",
    }
    page = write_report([tmp_path / "kept"]).read_text(encoding="utf-8")
    assert "Where is it robust?" in page
    assert "Area between the curves, bottom - top" in page
    assert page.count("data:image/png") == 1


def test_a_second_call_makes_only_what_is_missing(data, weights, tmp_path):
    options = {
        "masks": weights.abs().expand(N, -1, -1),
        "eps": 0.01,
        "attacks": "fgsm",
        "folder": tmp_path / "kept",
    }
    first = counterpart.where(Linear(weights), data, shares=[0.25], draws=1, **options)
    units = {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").rglob("units/*.json")}
    second = counterpart.where(Linear(weights), data, shares=[0.25, 0.5], draws=2, **options)
    assert all(file.stat().st_mtime_ns == made for file, made in units.items())
    assert len(list((tmp_path / "kept").rglob("units/*.json"))) > len(units)
    assert second.stands("top 25%") == first.stands("top 25%")
    counterpart.where(Linear(weights), data, shares=[0.25], draws=1, **options)
    page = write_report([tmp_path / "kept"]).read_text(encoding="utf-8")
    assert page.count("data:image/png") == 1  # no picture has changed since it was recorded
    assert "is left out" not in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"regions": ["object"]}, "have no annotated parts"),
        ({"regions": ["topp"]}, "region 'topp' is unknown. Did you mean 'top'"),
        ({"shares": [0.0, 0.5]}, "above 0 and up to 1"),
        ({"shares": [1.5]}, "above 0 and up to 1"),
        ({"map": "grad-kam"}, "map 'grad-kam' is unknown. Did you mean 'grad-cam'"),
        ({"map_class": "wrong"}, "expected true, predicted or margin"),
        ({"changes": {"evaluate.draws": 5}}, "a where-profile looks at single answers: evaluate.draws"),
        ({"masks": torch.zeros(N, 4, 4)}, r"expected \(120, 8, 8\)"),
        ({"masks": torch.full((N, SIDE, SIDE), torch.nan)}, "NaN or infinity"),
        ({"masks": "nowhere"}, "nowhere is missing"),
        ({"masks": torch.zeros(N, SIDE, SIDE), "map": "grad-cam"}, "in place of maps"),
        ({"masks": torch.zeros(N, SIDE, SIDE), "regions": ["window"]}, "leave masks out"),
        ({"attacks": "none", "regions": ["window"]}, "needs an attack"),
        ({"changes": {"evaluate.eps": [0.01, 0.02]}, "regions": ["window"]}, "one radius"),
        ({"norm": "l0", "eps": 3, "attacks": "random-search", "regions": ["window"]}, "moved in one of linf, l2, l1"),
        ({"map": "attention-rollout"}, "has no attention"),
        ({"map": "attention-rollout", "layer": "x"}, "leave it out"),
        ({}, "map grad-cam: .*layer"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line(data, weights, options, words):
    with pytest.raises(UserError, match=words) as error:
        counterpart.where(Linear(weights), data, **{"eps": 0.01, "attacks": "fgsm", **options})
    assert "\n" not in str(error.value)
