"""The form of a view in evaluations, audits and trainings: right numbers, said and kept, decided once."""

import json

import pytest
import torch

from counterpart import jobs
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.data.image_sets import ImageSet
from counterpart.evaluation.weights import weights_hash
from counterpart.jobs import views
from counterpart.models import create
from counterpart.rundir import RunDir, read_json
from counterpart.seeding import seeded
from counterpart.training import checkpoint

OPTIONS = [
    "--data.name",
    "digits",
    "--device",
    "cpu",
    "--n",
    "300",
    "--eps",
    "0.03",
    "--attacks",
    "[{steps: 5}]",
]
HERE = """
import warnings

import torch
from torch import nn
from torch.nn.utils import prune


class Net(nn.Module):
    def __init__(self, scale=1.0, view=False):
        super().__init__()
        torch.random.default_generator.manual_seed(0)
        self.scale, self.view = scale, view
        self.trunk = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head = nn.Linear(1152, 10)

    def forward(self, images):
        features = self.trunk(self.scale * images)
        return self.head(features.view(features.size(0), -1) if self.view else features.flatten(1))


def plain():
    return Net()

def inline():
    return Net(scale=0.5)

def hooked():
    model = Net()
    model.trunk.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 0.5,))
    return model

def by_view():
    return Net(view=True)

def pruned():
    model = Net()
    prune.l1_unstructured(model.trunk[0], "weight", 0.3)
    return model

def pruned_for_good():
    model = pruned()
    prune.remove(model.trunk[0], "weight")
    return model

def quiet(make, *words, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*words, **options)

def scripted():
    return quiet(torch.jit.script, Net().eval())

def traced():
    return quiet(torch.jit.trace, Net().eval(), torch.zeros(2, 1, 16, 16))

def quantised():
    return quiet(torch.ao.quantization.quantize_dynamic, Net().eval(), {nn.Linear}, dtype=torch.qint8)
"""


@pytest.fixture
def nets(here):
    """The working folder, with networks that are written or changed in other ways."""
    (here / "usernets.py").write_text(HERE)
    return here


def judge(name, *more):
    return main(["evaluate", f"usernets:{name}", *OPTIONS, *more])


def judged(folder, name):
    """Accuracies, the one ledger's folder, and what the records say of the view."""
    run = RunDir(folder / "runs" / f"usernets-{name}")
    records = {r.name: r for r in run.records() if r.name.startswith("accuracy/")}
    ledger = run.path / "evaluations" / records["accuracy/clean"].details["evaluation"]
    return {key: r.value for key, r in records.items()}, ledger, records["accuracy/clean"].details.get("view")


def units(ledger):
    found = {file.name: read_json(file) for file in (ledger / "units").iterdir()}
    return {name: {k: v for k, v in unit.items() if k != "seconds"} for name, unit in found.items()}


@pytest.mark.parametrize(
    ("name", "same_as", "form", "why"),
    [
        ("hooked", "inline", "original", "the fast copy answers otherwise"),
        ("by_view", "plain", "contiguous", "the fast copy fails: view size is not compatible"),
        ("pruned", "pruned_for_good", "original", "hooks of trunk.0 make its weight anew"),
        ("scripted", "plain", "original", "TorchScript cannot be copied"),
        ("traced", "plain", "original", "TorchScript cannot be copied"),
    ],
)
def test_an_evaluation_attacks_the_function_that_was_given(nets, capsys, name, same_as, form, why):
    assert judge(name) == 0
    said = capsys.readouterr().err
    assert said.count("Note: Attacks search on ") == 1
    assert why in said
    accuracies, ledger, view = judged(nets, name)
    assert view["form"] == form
    assert why in view["reason"]
    assert read_json(ledger / "view.json") == view
    assert json.loads((ledger / "identity.json").read_text())["view"] == form

    assert judge(same_as) == 0
    assert "Attacks search on" not in capsys.readouterr().err
    expected, other, view = judged(nets, same_as)
    assert view is None
    assert "view" not in json.loads((other / "identity.json").read_text())
    assert read_json(other / "view.json") == {"form": "fast", "reason": None}
    assert accuracies == expected
    # Where images fall, and to what, is the same, up to a boundary that rounding moves.
    ours, theirs = units(ledger), units(other)
    assert ours.keys() == theirs.keys()
    assert all(ours[unit]["answers"] == theirs[unit]["answers"] for unit in ours)
    assert 0 < expected["accuracy/worst case"] < expected["accuracy/clean"]


def test_a_form_is_decided_once(nets, monkeypatch, capsys):
    assert judge("hooked") == 0
    accuracies, ledger, view = judged(nets, "hooked")
    capsys.readouterr()

    def never(*_):
        raise AssertionError("decided again")

    monkeypatch.setattr(views, "decide_form", never)
    for file in (ledger / "units").iterdir():
        if file.name.startswith("PGD"):
            file.unlink()  # as if it had been killed
    assert judge("hooked") == 0
    assert "Note: Attacks search on the model itself" in capsys.readouterr().err
    assert judged(nets, "hooked") == (accuracies, ledger, view)
    assert len(list(ledger.parent.iterdir())) == 1


def test_a_ledger_that_is_older_than_forms_goes_on_where_its_view_was_faithful(nets):
    assert judge("plain") == 0
    _, ledger, _ = judged(nets, "plain")
    (ledger / "view.json").unlink()
    assert judge("plain") == 0
    assert list(ledger.parent.iterdir()) == [ledger]
    assert (ledger / "view.json").exists()


def test_own_networks_have_neither_file_nor_entry(run, monkeypatch):
    monkeypatch.setattr(views, "decide_form", None)
    assert main(["evaluate", str(run.path), *OPTIONS[2:]]) == 0
    [ledger] = (run.path / "evaluations").iterdir()
    assert not (ledger / "view.json").exists()
    assert "view" not in json.loads((ledger / "identity.json").read_text())
    assert not any("view" in record.details for record in run.records())
    assert "view" not in checkpoint.read(run.checkpoint("last"))[1]


def test_an_audit_decides_once_and_says_so(nets, monkeypatch, capsys):
    words = ["audit", "usernets:hooked", *OPTIONS[:6], "--eps", "0.1"]
    words += ["--steps", "2", "--queries", "5", "--draws", "1"]
    assert main(words) == 0
    assert "Note: Attacks search on the model itself" in capsys.readouterr().err
    folder = nets / "runs" / "usernets-hooked" / "audits"
    assert len(list(folder.glob("*/view.json"))) == 1
    identities = [read_json(file) for file in folder.glob("*/identity.json")]
    assert {identity["view"] for identity in identities} == {"original"}
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(views, "decide_form", None)
    assert main(words) == 0
    assert sorted(folder.rglob("*")) == before


@pytest.mark.filterwarnings("ignore")  # of torch, that quantised tensors will go
def test_a_quantised_model_is_attacked_without_gradients_or_says_what_to_do(nets, capsys):
    assert judge("quantised", "--attacks", "[{attack: square, queries: 10}]") == 0
    accuracies, _, _ = judged(nets, "quantised")
    assert "accuracy/worst case" in accuracies
    capsys.readouterr()
    assert judge("quantised", "--attacks", "[{steps: 2}]") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("counterpart: error: PGD-2: the model's answers have no gradient (")
    assert line.endswith("or ask for attacks without gradients, such as --attacks square,rays.")


def test_weights_have_the_hash_that_they_always_had():
    """Stored identities hold it."""
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        model.bias.zero_()
    assert weights_hash(model) == "c8294f44609f"


@pytest.mark.filterwarnings("ignore")
def test_quantised_weights_have_a_hash_of_their_own(nets):
    def quantised(scale):
        with seeded(0):
            model = torch.nn.Sequential(torch.nn.Linear(4, 4))
        with torch.no_grad():
            model[0].weight.mul_(scale)
        return torch.ao.quantization.quantize_dynamic(model.eval(), {torch.nn.Linear})

    assert weights_hash(quantised(1.0)) == weights_hash(quantised(1.0))
    assert weights_hash(quantised(1.0)) != weights_hash(quantised(2.0))  # the same integers, another scale


def timm_run(folder, **changes):
    return resolve(
        {
            "name": "foreign",
            "runs": str(folder),
            "device": "cpu",
            "data": {"flip": False, "padding": 0, "limit": 40},
            "model": {"name": "timm/test_resnet"},
            "attack": {"eps": 0.05, "steps": 1},
            "train": {
                "method": "at",
                "epochs": 2,
                "batch_size": 20,
                "precision": "float32",
                "validation_steps": 1,
                "validation_n": 20,
            },
            "optimizer": {"lr": 0.01},
        },
        changes,
    )


def test_a_training_keeps_its_form_in_its_checkpoint_and_goes_on_with_it(tmp_path, monkeypatch, capsys):
    """Bit for bit, as a run that nobody stopped."""
    monkeypatch.setattr(views, "decide_form", lambda *_: ("contiguous", "Attacks search elsewhere."))
    whole = jobs.train(timm_run(tmp_path / "whole"))
    assert "Note: Attacks search elsewhere." in capsys.readouterr().err
    tensors, about = checkpoint.read(whole.run.checkpoint("last"))
    assert about["view"] == "contiguous"
    stopped = jobs.train(timm_run(tmp_path / "stopped", train={"stop_after": 1e-3}))
    assert not stopped.finished
    assert checkpoint.read(stopped.run.checkpoint("last"))[1]["view"] == "contiguous"
    monkeypatch.setattr(views, "decide_form", None)
    assert jobs.train(timm_run(tmp_path / "stopped")).finished
    again, about = checkpoint.read(stopped.run.checkpoint("last"))
    assert about["view"] == "contiguous"
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


def test_a_training_that_is_older_than_forms_goes_on_with_the_fast_one(tmp_path, monkeypatch):
    stopped = jobs.train(timm_run(tmp_path, train={"stop_after": 1e-3}))
    assert "view" not in checkpoint.read(stopped.run.checkpoint("last"))[1]
    monkeypatch.setattr(views, "decide_form", None)
    assert jobs.train(timm_run(tmp_path)).finished


def test_a_set_without_images_is_for_others_to_refuse(tmp_path):
    empty = torch.zeros(0, dtype=torch.int64)
    pixels = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    images = ImageSet("none", "test", ("a",), empty, empty, "f" * 12, (3, 8, 8), pixels)
    model = create("timm/test_resnet", 2)
    assert views.settle_form(tmp_path, {}, model, images, torch.device("cpu")) == ("fast", None)
