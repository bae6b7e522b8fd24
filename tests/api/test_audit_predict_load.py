"""``counterpart.audit``, ``predict`` and ``load``: what the commands do, of objects."""

import shutil

import pytest
import torch
from tests.jobs.conftest import trained

import counterpart as cp
from counterpart import jobs
from counterpart.data import load_digits
from counterpart.errors import UserError
from counterpart.rundir import RunDir

FEW = {"steps": 5, "queries": 10, "draws": 3, "points": 10}


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def digits():
    test = load_digits().test
    return test.read(torch.arange(40)), test.labels[:40]


@pytest.mark.slow
def test_an_audit_of_a_run_is_the_commands(digits_run, tmp_path):
    shutil.copytree(digits_run.path, tmp_path / "a")
    shutil.copytree(digits_run.path, tmp_path / "b")
    audited = cp.audit(tmp_path / "a", n=40, **FEW)
    named = jobs.audit_named(str(tmp_path / "b"), {"evaluate": {"n": 40}}, **FEW)
    assert [(b.name, b.numbers) for b in audited] == [(b.name, b.numbers) for b in named]
    assert len(audited) == 13
    assert audited[audited.behaviours[0].name] is audited.behaviours[0]
    assert all(b.name in audited._repr_html_() for b in audited)
    kept = [r.value for r in RunDir(tmp_path / "a").records() if r.name.startswith("audit/")]
    assert len(kept) == 13


def test_an_audit_of_objects_writes_nothing_unless_asked(net, images, labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    audited = cp.audit(net, (images, labels), eps=0.01, **FEW)
    assert [*tmp_path.iterdir()] == []
    kept = cp.audit(net, (images, labels), eps=0.01, folder="mine", **FEW)
    assert [b.numbers for b in kept] == [b.numbers for b in audited]
    monkeypatch.setattr(
        type(net), "forward", lambda self, x: 2 * self.head(x.mean((2, 3)).repeat(1, 3)[:, :8])
    )
    with pytest.raises(UserError, match="the code of its forward has changed"):
        cp.audit(net, (images, labels), eps=0.01, folder="mine", **FEW)


def test_a_group_is_asked_for_one_of_its_runs(digits_run, tmp_path):
    for seed in (0, 1):
        shutil.copytree(digits_run.path, tmp_path / "group" / f"seed-{seed}")
    for function in (cp.audit, cp.evaluate):
        with pytest.raises(UserError, match="holds 2 runs: name one of them"):
            function(tmp_path / "group")


def test_a_run_is_loaded_and_judged_on_images_of_ones_own(digits_run, digits):
    by_path = cp.evaluate(digits_run.path, digits, attacks="fgsm", eps=0.05)
    by_model = cp.evaluate(cp.load(digits_run.path), digits, attacks="fgsm", eps=0.05)
    assert by_path.rows == by_model.rows
    named = cp.evaluate(digits_run.path, attacks="fgsm", eps=0.05)  # on its own 400 test images
    answers = {row.index: row.clean for row in named.rows}
    test = load_digits().test
    assert [row.clean for row in by_path.rows] == [answers[k] for k in test.index[:40].tolist()]
    assert not cp.load(digits_run.checkpoint("best")).training


def test_predictions_are_the_models(net, images, digits_run, digits):
    best = net(images).softmax(1).max(1)
    seen = cp.predict(net, images, classes=["a", "b", "c", "d"])
    assert [p.label for p in seen] == ["abcd"[k] for k in best.indices.tolist()]
    assert [p.probability for p in seen] == pytest.approx(best.values.tolist(), abs=1e-5)
    of_run = cp.predict(digits_run.path, digits[0])
    assert [int(p.label) for p in of_run] == cp.load(digits_run.path)(digits[0] / 255).argmax(1).tolist()


def test_what_is_wrong_is_said_in_one_line(net, images, digits_run):
    for call, words in (
        (lambda: cp.predict(net, images, classes=["a"]), "answers with 4 classes, and 1 names"),
        (lambda: cp.predict(net, images[0]), "does not answer for an image of 1x8x8"),
        (lambda: cp.predict(net, images * 3), "must lie in"),
        (lambda: cp.predict(net, images[:0]), "there are none"),
        (lambda: cp.predict(net, ["picture.png"]), "give a run folder"),
        (lambda: cp.load("nowhere"), "nowhere does not exist"),
        (lambda: cp.evaluate(digits_run.path, mean=[0.5]), "has its own"),
        (
            lambda: cp.audit(digits_run.path, changes={"evaluate.votes": 3}),
            "an audit looks at single answers: evaluate.votes",
        ),
        (lambda: cp.evaluate(digits_run.path, folder="elsewhere"), "kept in that folder itself"),
    ):
        with pytest.raises(UserError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
