"""People's own attacks, mask rules, networks and data: from a module beside them, and from an installed package."""

import json
import sys
from functools import partial

import pytest
import torch

from counterpart import jobs
from counterpart.build.attacks import Victim, _build_attack
from counterpart.catalogue.find import _added, find, known_names
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.data.image_sets import ImageSet
from counterpart.errors import UserError
from counterpart.rundir import RunDir

TOYS = '''
import torch
from torch import nn

from counterpart.data.image_sets import ImageSet, Splits
from counterpart.importance.masks import Mask


def corner(model, images, labels, *, budget, keys, size=1.0):
    """Moves to a random corner of the budget; draws from torch's global generator."""
    noise = torch.rand_like(images).round() * 2 - 1
    return budget.project(images + size * noise, images)


corner.norms = ("linf", "l2")
corner.by_gradient = False


class Corner:
    def __init__(self, size=1.0):
        self.size = size

    def __call__(self, model, images, labels, *, budget, keys):
        return corner(model, images, labels, budget=budget, keys=keys, size=self.size)


suite = ["fgsm", {"attack": "pgd", "steps": 3}]


def wrong(x, y):
    return x


def left_half(probe, batch, keys, share=0.5):
    plane = torch.zeros_like(batch.images[:, :1])
    plane[..., : round(share * plane.shape[-1])] = 1
    return Mask(plane, torch.zeros(len(plane), dtype=torch.bool))


left_half.needs_map = False


class Net(nn.Module):
    def __init__(self, num_classes, in_channels, image_size, hidden=8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(in_channels * image_size**2, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )

    def forward(self, images):
        return self.layers(images)


def stripes(root, count=24):
    """Horizontal against vertical stripes."""
    def split(name, first):
        labels = torch.arange(count) % 2
        pixels = torch.zeros(count, 1, 16, 16, dtype=torch.uint8)
        pixels[labels == 0, :, ::2] = 200
        pixels[labels == 1, :, :, ::2] = 200
        pixels += torch.randint(0, 50, pixels.shape, generator=torch.Generator().manual_seed(first), dtype=torch.uint8)
        index = torch.arange(count) + first
        return ImageSet("stripes", name, ("across", "down"), labels, index, f"{first:012x}", (1, 16, 16), pixels)

    return Splits(split("train", 0), split("validation", 100), split("test", 200))
'''


@pytest.fixture
def toys(tmp_path, monkeypatch):
    (tmp_path / "toys.py").write_text(TOYS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("toys", None)


@pytest.fixture
def installed(toys):
    """A package that is installed: its metadata lies on Python's path."""
    about = toys / "toy_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    groups = {"attacks": "corner", "masks": "left_half", "models": "Net", "data": "stripes"}
    lines = [f"[counterpart.{kind}]\ntoy-{kind} = toys:{name}\n" for kind, name in groups.items()]
    (about / "entry_points.txt").write_text("\n".join(lines))
    _added.cache_clear()
    yield
    _added.cache_clear()


TINY = ["--train.epochs", "2", "--train.batch-size", "8", "--threads", "1", "--train.precision", "float32",
        "--train.validation-steps", "1", "--mask.burn-in", "0", "--device", "cpu"]  # fmt: skip


@pytest.mark.usefixtures("toys")
def test_a_users_network_and_data_are_trained_and_their_attack_and_rule_used_from_the_command_line(
    tmp_path, capsys
):
    words = ["train", "digits/part", "--data.name", "toys:stripes", "--model.name", "toys:Net", "--model.width", "null",
             "--model.options", "{hidden: 6}", "--mask.rule", "toys:left_half", "--mask.options", "{share: 0.25}",
             "--name", "mine", *TINY]  # fmt: skip
    assert main(words) == 0
    run = RunDir(tmp_path / "runs" / "mine")
    said = capsys.readouterr().err
    assert "toys:Net runs your own code" in said
    assert "toys:left_half runs your own code" in said
    assert main(["evaluate", str(run.path), "--attacks", "toys:corner,fgsm"]) == 0
    assert "toys:corner runs your own code" in capsys.readouterr().err
    names = [record.name for record in run.records() if record.kind == "metric"]
    assert "accuracy/toys:corner" in names
    assert main(["verify", str(run.path)]) == 0
    assert (
        main(["evaluate", str(run.path), "--attacks", "toys:corner,fgsm"]) == 0
    )  # the same evaluation again
    assert len([*(run.path / "evaluations").iterdir()]) == 1
    identity = json.loads(next(run.path.glob("evaluations/*/identity.json")).read_text())
    assert list(identity["code"]) == ["toys:corner"]


@pytest.mark.usefixtures("toys")
def test_a_suite_and_a_class_with_options_from_python(tmp_path):
    changes = {"name": "plain", "runs": str(tmp_path / "runs"), "threads": 1, "device": "cpu"}
    train = {"epochs": 1, "batch_size": 8, "precision": "float32", "validation_steps": 1}
    config = resolve(
        {**changes, "data": {"name": "toys:stripes"}, "model": {"name": "toys:Net"}, "train": train}
    )
    run = jobs.train(config).run
    asked = [{"attack": "toys:suite"}, {"attack": "toys:Corner", "size": 0.5}]
    [judged] = jobs.evaluate(str(run.path), {"evaluate": {"attacks": asked}})
    lines = [record.name.removeprefix("accuracy/") for record in judged.records]
    assert lines == ["clean", "FGSM", "PGD-3", "toys:Corner size 0.5", "worst case"]


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (
            "attack",
            "toys:wrong",
            r"toys:wrong cannot be called.*Expected an attack \(model, images",
        ),
        ("attack", "toys:nothing", "toys has no function 'nothing'"),
        ("rule", "toys:wrong", r"toys:wrong cannot be called.*Expected a mask rule \(probe, batch, keys"),
        (
            "network",
            "toys:stripes",
            "toys:stripes returned Splits: expected a torch.nn.Module|cannot be called",
        ),
        ("data", "toys:wrong", r"toys:wrong cannot be called.*Expected a data set \(root"),
        ("option", "toys:Net", "toys:Net takes no option 'hiden'. Did you mean 'hidden'"),
    ],
)
def test_a_wrong_signature_is_answered_with_the_expected_one(tmp_path, kind, name, words):
    layers = {
        "attack": {},
        "rule": {"train": {"method": "part"}, "mask": {"rule": name}},
        "network": {"model": {"name": name}},
        "data": {"data": {"name": name}},
        "option": {"model": {"name": name, "options": {"hiden": 3}}},
    }
    base = {"name": "n", "runs": str(tmp_path / "runs"), "train": {"epochs": 1}, "data": {"name": "toys:stripes"},
            "model": {"name": "toys:Net"}}  # fmt: skip
    run = RunDir(tmp_path / "runs" / "n")
    if kind == "attack":
        jobs.train(resolve(base))
    judge = partial(jobs.evaluate, str(run.path), {"evaluate": {"attacks": name}})
    train = partial(jobs.train, resolve(base, layers[kind]))
    with pytest.raises(UserError, match=words):
        (judge if kind == "attack" else train)()


@pytest.mark.usefixtures("installed")
def test_names_that_an_installed_package_adds_are_used_listed_and_suggested(tmp_path, capsys):
    assert "toy-attacks" in known_names("attacks")
    assert find("masks", "toy-masks").sentence == "of the package toy-package"
    (tmp_path / "mine.yaml").write_text(
        f"runs: {tmp_path}/runs\nthreads: 1\ndata: {{name: toy-data}}\nmodel: {{name: toy-models}}\n"
        "train: {method: part, epochs: 1, batch_size: 8, precision: float32, validation_steps: 1}\n"
        "mask: {rule: toy-masks, burn_in: 0}\nevaluate: {attacks: [{attack: toy-attacks}]}\n"
    )
    assert main(["train", str(tmp_path / "mine.yaml")]) == 0
    assert main(["evaluate", str(tmp_path / "runs" / "mine")]) == 0
    assert main(["list", "data"]) == 0
    said = capsys.readouterr()
    assert "toy-data" in said.out
    assert "toy-attacks runs the code of another package: the module toys." in said.err
    with pytest.raises(UserError, match="Did you mean 'toy-attacks'"):
        find("attacks", "toy-attcks")


@pytest.mark.usefixtures("toys")
def test_global_generators_are_seeded_before_user_code_and_put_back(tmp_path):
    from counterpart.attacks.users_attacks import call_users_attack
    from counterpart.budget import Linf
    from counterpart.seeding import Keys

    attack = call_users_attack(find("attacks", "toys:corner"), {})
    images, keys = torch.full((3, 1, 4, 4), 0.5), Keys(0, "toys:corner", torch.arange(3))
    before = torch.get_rng_state()
    one, other = (
        attack(torch.nn.Identity(), images, torch.zeros(3).long(), budget=Linf(0.1), keys=keys).images
        for _ in range(2)
    )
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("toys")
def test_an_attack_states_its_norms_and_whether_it_follows_gradients():
    [asked] = resolve({"evaluate": {"attacks": "toys:corner"}}).evaluate.attacks
    [plain] = resolve({"evaluate": {"attacks": "toys:Corner"}}).evaluate.attacks
    images = ImageSet(
        "x", "test", ("a",), torch.zeros(1).long(), torch.arange(1), "", (1, 4, 4), torch.zeros(1, 1, 4, 4)
    )
    victim = partial(Victim, classes=2, model=torch.nn.Identity(), images=images, load=lambda _: None)
    assert [_build_attack(attack, victim("linf")).by_gradient for attack in (asked, plain)] == [False, True]
    with pytest.raises(UserError, match="attack toys:corner has no l1: it has linf, l2"):
        _build_attack(asked, victim("l1"))
