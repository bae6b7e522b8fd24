"""Attacks after a corruption: the images that are attacked are those of ``counterpart corruptions``."""

import pytest
import torch
from torch import nn

import counterpart as cp
from counterpart.cli import main
from counterpart.data.corruptions import corrupt
from counterpart.errors import UserError
from counterpart.seeding import Keys

EPS = 2 / 255


@pytest.fixture
def problem(generator):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)).requires_grad_(False)
    model[1].weight.copy_(torch.randn(model[1].weight.shape, generator=generator))
    model[1].weight.sub_(model[1].weight.mean(dim=1, keepdim=True))  # so that all classes are answered
    model[1].bias.zero_()
    images = (255 * torch.rand(30, 3, 16, 16, generator=generator)).byte()
    return model, images, model(images / 255).argmax(dim=1)


def judge(problem, **options):
    model, images, labels = problem
    return cp.evaluate(model, (images, labels), attacks="pgd", eps=EPS, **options)


def test_the_corrupted_images_are_what_is_attacked(problem):
    model, images, labels = problem
    foggy = corrupt(images / 255, "gaussian_noise", 3, Keys(0, "corruption", torch.arange(30)))
    judged = judge(problem, changes={"evaluate.on": "gaussian_noise:3"})
    by_hand = cp.evaluate(model, (foggy, labels), attacks="pgd", eps=EPS)
    assert [row.clean for row in judged.rows] == model(foggy).argmax(dim=1).tolist()
    assert [row.fooled for row in judged.rows] == [row.fooled for row in by_hand.rows]
    assert [row.clean for row in judged.rows] != [row.clean for row in judge(problem).rows]
    fooling = judged.images("PGD-20")
    assert len(fooling) > 0
    assert (fooling.images - foggy[fooling.positions]).abs().max() <= EPS + 1e-6
    assert judged.verify()
    assert judged.records[0].details["data"].endswith(" with gaussian_noise 3")


def test_another_corruption_is_another_evaluation_and_the_same_one_goes_on(problem, tmp_path):
    keys = [
        judge(problem, folder=tmp_path / "run", changes=changes).records[0].details["evaluation"]
        for changes in ({}, {"evaluate.on": "fog:1"}, {"evaluate.on": "fog:2"}, {"evaluate.on": "fog:1"})
    ]
    assert keys[1] == keys[3]
    assert len(set(keys)) == 3


def test_a_command_verifies_it(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import torch\ndef flat():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    data = ["--data.name", "digits", "--data.size", "16", "--n", "40", "--device", "cpu"]
    words = [*data, "--on", "shot_noise:4", "--norm", "linf,l2", "--eps", "0.02,0.1", "--attacks", "fgsm"]
    assert main(["evaluate", "mine:flat", *words]) == 0
    [run] = (tmp_path / "runs").iterdir()
    assert "digits with shot_noise 4" in " ".join(capsys.readouterr().out.split())
    assert main(["verify", str(run)]) == 0
    assert capsys.readouterr().out.count(" claims hold") == 2


def test_a_subset_has_the_corruption_that_its_images_have_among_all(problem):
    every = judge(problem, changes={"evaluate.on": "shot_noise:2"})
    some = judge(problem, n=10, changes={"evaluate.on": "shot_noise:2", "evaluate.batch_size": 3})
    clean = {row.index: row.clean for row in every.rows}
    assert [row.clean for row in some.rows] == [clean[row.index] for row in some.rows]


@pytest.mark.parametrize(
    ("corruption", "message"),
    [
        ("fogg:3", "should be a corruption and its severity, such as fog:3. Did you mean 'fog'"),
        ("fog", "should be a corruption and its severity"),
        ("fog:6", "should be a corruption and its severity"),
        ("frost:1", "evaluate.on frost:1: frost: there are no frost textures"),
    ],
)
def test_what_is_no_corruption_of_these_images_is_refused(problem, corruption, message):
    with pytest.raises(UserError, match=message):
        judge(problem, changes={"evaluate.on": corruption})
