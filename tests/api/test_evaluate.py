"""``counterpart.evaluate`` of live models: right values, nothing left changed, stops that go on, folders."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import LinearModel
from torch import nn

import counterpart as cp
from counterpart.cli import main
from counterpart.errors import UserError

ATTACKS = ["pgd", {"attack": "apgd", "steps": 10}, {"attack": "square", "queries": 20}]
SMALL = {"evaluate.chunk_size": 8, "evaluate.batch_size": 5}


class Linear(nn.Module):
    """Two classes, by the sign of w.x + b."""

    def __init__(self, weight, bias):
        super().__init__()
        self.inner = LinearModel(weight, bias)

    def forward(self, images):
        return self.inner(images)


def test_a_linear_models_robust_accuracy_is_the_closed_forms(linear_problem):
    model, images, labels = linear_problem
    eps = 0.003
    survivors = model.score(images).abs() > eps * model.weight.abs().sum()
    judged = cp.evaluate(Linear(model.weight, model.bias), (images, labels), attacks="pgd", eps=eps)
    assert 0 < survivors.sum() < len(images)
    assert judged["worst case"].value == survivors.float().mean().item()
    assert [row.fooled_by == "" for row in judged.rows] == survivors.tolist()
    assert float(judged["clean"]) == 1


def draw(*_):
    """A hook that draws from torch's generator, and changes nothing."""
    torch.rand(1)


def test_everything_is_as_it_was_before(net, images, labels):
    net.train()
    net.norm.eval()
    net.conv.weight.requires_grad_(False)
    net.register_forward_hook(draw)
    torch.manual_seed(3)
    torch.set_num_threads(2)

    def state():
        flags = [p.requires_grad for p in net.parameters()], [m.training for m in net.modules()]
        tensors = [torch.get_rng_state(), *(value.clone() for value in net.state_dict().values())]
        return torch.get_num_threads(), flags, tensors

    threads, flags, tensors = state()
    with torch.no_grad():
        cp.evaluate(net, (images, labels), attacks="pgd", eps=0.01, changes={"threads": 1})
    with pytest.raises(UserError):
        cp.evaluate(net, (images, labels + 4), attacks="pgd")
    assert state()[:2] == (threads, flags)
    assert all(torch.equal(*pair) for pair in zip(tensors, state()[2], strict=True))
    assert all(p.grad is None for p in net.parameters())


def test_the_number_of_threads_that_is_asked_for_is_used(images):
    used = []

    class Counting(nn.Module):
        def forward(self, x):
            used.append(torch.get_num_threads())
            return x.mean((2, 3))

    torch.set_num_threads(1)
    cp.evaluate(Counting(), (images[:2], [0, 0]), attacks="none", changes={"threads": 2})
    assert used[-1] == 2
    assert torch.get_num_threads() == 1


class Stopping(nn.Module):
    """A user presses Ctrl-C in the pass of that number."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.passes, self.last = inner, [0], [10**9]

    def forward(self, images):
        self.passes[0] += 1
        if self.passes[0] > self.last[0]:
            raise KeyboardInterrupt
        return self.inner(images)


def test_an_evaluation_that_was_stopped_goes_on_bit_for_bit(net, images, labels, tmp_path):
    model = Stopping(net).eval()
    options = {"attacks": ATTACKS, "eps": 0.01, "changes": SMALL}
    whole = cp.evaluate(model, (images, labels), folder=tmp_path / "whole", **options)
    total = model.passes[0]
    for share in (0.5, 0.5):
        model.passes[0], model.last[0] = 0, int(share * total)
        with pytest.raises(KeyboardInterrupt):
            cp.evaluate(model, (images, labels), folder=tmp_path / "cut", **options)
    assert any((tmp_path / "cut").rglob("units/*.json"))
    model.last[0] = 10**9
    cut = cp.evaluate(model, (images, labels), folder=tmp_path / "cut", **options)
    in_memory = cp.evaluate(model, (images, labels), **options)
    assert whole.rows == cut.rows == in_memory.rows
    assert len(whole.images("PGD-20")) > 5
    for other in (cut, in_memory):
        assert torch.equal(whole.images("PGD-20").images, other.images("PGD-20").images)


def test_images_that_fool_do_fool_and_lie_within_the_budget(net, images, labels):
    judged = cp.evaluate(net, (images, labels), attacks="autoattack", eps=0.05, n=12)
    fooling = judged.images("apgd-ce")
    assert len(fooling) == sum("apgd-ce" in row.fooled for row in judged.rows) > 0
    assert torch.equal(net(fooling.images).argmax(1), fooling.answers)
    assert (fooling.answers != fooling.labels).all()
    assert torch.equal(labels[fooling.index], fooling.labels)
    assert (fooling.images - images[fooling.index]).abs().max() <= 0.05 + 1e-6
    verified = judged.verify()
    assert verified.mismatches == []
    assert verified.successes == sum(len(row.fooled) for row in judged.rows)
    with pytest.raises(KeyError, match=r"no attack 'apgd' was run\. Did you mean 'apgd-t'|apgd-ce"):
        judged.images("apgd")


def test_what_was_saved_is_found_again_and_read_by_the_commands(net, images, labels, tmp_path, capsys):
    options = {"attacks": ATTACKS[:2], "eps": 0.01}
    judged = cp.evaluate(net, (images, labels), **options)
    folder = judged.save(tmp_path / "mine")
    units = sorted((file, file.stat().st_mtime_ns) for file in folder.rglob("units/*.json"))
    again = cp.evaluate(net, (images, labels), folder=folder, **options)
    assert again.rows == judged.rows
    assert again.folder == folder
    assert units == sorted((file, file.stat().st_mtime_ns) for file in folder.rglob("units/*.json"))
    with pytest.raises(UserError, match="kept already"):
        again.save(tmp_path / "other")
    assert judged.report(tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert main(["report", str(folder)]) == 0
    for command in ("verify", "evaluate", "audit"):
        capsys.readouterr()
        assert main([command, str(folder)]) in (1, 2)
        [line] = capsys.readouterr().err.splitlines()
        assert line.count("object of a Python program") == 1
        assert "in Python" in line


def test_a_folder_knows_the_model_that_it_belongs_to(net, images, labels, tmp_path):
    options = {"attacks": "none", "folder": tmp_path / "mine"}
    cp.evaluate(net, (images, labels), **options)
    evaluations = tmp_path / "mine" / "evaluations"
    with torch.no_grad():
        net.head.bias.add_(1)
    cp.evaluate(net, (images, labels), **options)  # other weights: another evaluation
    cp.evaluate(net, (images, labels), mean=[0.5] * 3, **options)  # another adapter
    assert len([*evaluations.iterdir()]) == 3
    other = type("Other", (type(net),), {})()
    other.load_state_dict(net.state_dict())
    with pytest.raises(UserError, match=r"another configuration \(model\.name"):
        cp.evaluate(other, (images, labels), **options)


@pytest.mark.parametrize(("factor", "same"), [(1 + 2e-6, True), (1.01, False)])
def test_rounding_is_the_same_model_and_other_code_is_not(
    net, images, labels, tmp_path, monkeypatch, factor, same
):
    cp.evaluate(net, (images, labels), attacks="none", folder=tmp_path / "mine")
    forward = type(net).forward
    monkeypatch.setattr(type(net), "forward", lambda self, x: factor * forward(self, x))
    if same:
        cp.evaluate(net, (images, labels), attacks="none", folder=tmp_path / "mine")
    else:
        with pytest.raises(UserError, match="the code of its forward has changed"):
            cp.evaluate(net, (images, labels), attacks="none", folder=tmp_path / "mine")
    assert len([*(tmp_path / "mine" / "evaluations").iterdir()]) == 1


USERS = """
import torch
from torch import nn
from counterpart.data.image_sets import ImageSet, Splits

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()

def images():
    return torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(1))

def labels():
    return net()(images()).argmax(1)

def data(root):
    def split(name):
        return ImageSet("mine", name, ("0", "1", "2"), labels(), torch.arange(30), "0" * 12, (1, 8, 8), images())
    return Splits(split("train"), split("validation"), split("test"))
"""


def test_the_command_and_the_function_find_the_same(tmp_path, monkeypatch):
    (tmp_path / "apinets.py").write_text(USERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["--data.name", "apinets:data", "--attacks", "pgd,fgsm", "--eps", "0.02", "--seed", "5"]
    assert main(["evaluate", "apinets:net", *words]) == 0
    import apinets

    judged = cp.evaluate(
        apinets.net(), (apinets.images(), apinets.labels()), attacks="pgd,fgsm", eps=0.02, seed=5
    )
    by_name = cp.evaluate(
        "apinets:net", (apinets.images(), apinets.labels()), attacks="pgd,fgsm", eps=0.02, seed=5
    )
    named_data = cp.evaluate(apinets.net(), "apinets:data", attacks="pgd,fgsm", eps=0.02, seed=5)
    [table] = (tmp_path / "runs").rglob("images.csv")
    judged.save(tmp_path / "saved")
    [other] = (tmp_path / "saved").rglob("images.csv")
    assert table.read_text() == other.read_text()
    assert judged.rows == by_name.rows == named_data.rows
    assert 0 < judged["worst case"].value < 1
    sys.modules.pop("apinets")


TWO = """
import sys, torch
import counterpart as cp
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
images = torch.rand(20, 3, 4, 4)
judged = cp.evaluate(net, (images, net(images).argmax(1)), attacks="pgd", eps=0.05, changes={"evaluate.chunk_size": 4})
sys.stdout.write(f"{judged.rows!r} {judged.images('PGD-20').images.sum().item()!r}\\n")
"""


@pytest.mark.slow
def test_every_process_gets_all_rows(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    source = str(Path(cp.__file__).parents[1])
    said = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]):
        done = subprocess.run(
            [sys.executable, *launcher, str(tmp_path / "two.py")],
            env={"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    assert said[1] == said[0] * 2
    assert len(said[0]) == 1


def test_what_a_table_says_in_every_form(net, images, labels, tmp_path):
    judged = cp.evaluate(net, (images, labels), attacks=["pgd", "fgsm"], eps=0.01, name="<mine> & 50%")
    assert judged.keys() == ["clean", "PGD-20", "FGSM", "worst case"]
    worst = judged["worst case"]
    assert worst.low <= worst.value <= worst.high
    assert judged.to_csv(tmp_path / "t.csv").splitlines()[1].startswith("clean,1.0,")
    assert (tmp_path / "t.csv").read_text() == judged.to_csv()
    assert "| clean | 100.00% |" in judged.to_markdown()
    assert r"clean & 100.00\%" in judged.to_latex()
    assert "&lt;mine&gt; &amp; 50%" in judged._repr_html_()
    assert "<mine>" not in judged._repr_html_()
    assert repr(judged).splitlines()[0] == "<mine> & 50% on tensors (test), linf 0.01, n = 40"
    with pytest.raises(KeyError, match=r"was not measured\. Did you mean 'clean'"):
        judged["clear"]


def test_models_that_answer_otherwise(images):
    class One(nn.Module):
        def forward(self, x):
            return (x.mean((1, 2, 3)) - 0.5) * 20

    labels = (images.mean((1, 2, 3)) > 0.5).long()
    judged = cp.evaluate(One(), (images, labels), attacks="pgd", eps=0.001)
    assert "one logit" in judged.notes[0]
    survivors = ((images.mean((1, 2, 3)) - 0.5).abs() > 0.001).float().mean().item()
    assert judged["worst case"].value == pytest.approx(survivors)
    assert judged["clean"].value == 1

    class Named(nn.Module):
        def forward(self, x):
            return {"features": x, "logits": x.mean((2, 3)).double()}

    double = cp.evaluate(Named(), (images, images.mean((2, 3)).argmax(1)), attacks="none")
    assert double["clean"].value == 1
    assert "output['logits']" in double.notes[0]


def test_normalisation_stands_before_the_model(net, images, labels):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x * 0.5 + 0.25)

    judged = cp.evaluate(
        Shifted(), (images, labels), attacks="none", mean=[0.25] * 3, std=[0.5] * 3
    )  # undone within
    assert judged["clean"].value == 1


def test_float_images_reach_the_model_as_they_are():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.detach().clone())
            return x.mean((2, 3))

    images = torch.full((2, 2, 3, 3), 0.1234567, dtype=torch.float64).numpy()
    cp.evaluate(Spy(), (images, np.array([0, 1])), attacks="none")
    assert all((x == np.float32(0.1234567)).all() for x in seen[:1])


def bad(images, labels):
    return {
        "no data": ((None,), {}, "on which images"),
        "no such data": ((None, "cifar11"), {}, "'cifar11' is no folder and no data set"),
        "attack": ((None, (images, labels)), {"attacks": "pgdd"}, "Did you mean 'pgd'"),
        "option": ((None, (images, labels)), {"attacks": [{"attack": "pgd", "step": 1}]}, "mean 'steps'"),
        "setting": ((None, (images, labels)), {"changes": {"evaluate.batchsize": 1}}, "evaluate.batch_size"),
        "eps": ((None, (images, labels)), {"eps": 8}, "Did you mean 8/255"),
        "nan": ((None, (images * float("nan"), labels)), {}, r"must lie in \[0, 1\]"),
        "8 bits": ((None, (images * 255, labels)), {}, "Divide 8-bit images by 255"),
        "none": ((None, (images[:0], labels[:0])), {}, "holds no images"),
        "labels": ((None, (images, labels + 4)), {"attacks": "none"}, r"outside 0\.\.3"),
        "channels": ((None, (images[:, :1], labels)), {}, "does not answer for an image of 1x8x8"),
        "std": ((None, (images, labels)), {"std": [0.5]}, "a number for each of 3 channels"),
        "run": (("nowhere", (images, labels)), {}, "nowhere does not exist"),
    }


@pytest.mark.parametrize("case", bad(torch.zeros(1, 1), torch.zeros(1)))
def test_what_is_wrong_is_said_in_one_line(net, images, labels, case):
    (model, *data), options, words = bad(images, labels)[case]
    with pytest.raises(UserError, match=words) as error:
        cp.evaluate(net if model is None else model, *data, **options)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_where_no_attack_was_tried_there_is_no_worst_case(net, images, labels):
    judged = cp.evaluate(net, (images, labels), attacks="none")
    assert judged.keys() == ["clean"]
    assert "worst case" not in str(judged)
    assert "worst case" not in judged.to_markdown() + judged.to_csv()
    with pytest.raises(KeyError, match="'worst case' was not measured"):
        judged["worst case"]
    assert "worst case" in cp.evaluate(net, (images, labels), attacks="fgsm")
