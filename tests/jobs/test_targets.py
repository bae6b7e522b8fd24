"""Every form of a target, from its text to records, and every text that is none."""

import json
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from counterpart import jobs
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.data.transforms import as_floats
from counterpart.errors import UserError
from counterpart.jobs.targets import open_targets
from counterpart.models import create
from counterpart.models.backbones import preprocessing
from counterpart.rundir import RunDir
from counterpart.training import checkpoint

CHEAP = ["--attacks", "[{steps: 1}]", "--n", "30", "--device", "cpu", "--eps", "0.1"]


def told(words, capsys):
    """The one line of a command that fails with exit code 2."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("counterpart: error: ")
    return line


def accuracies(run):
    return {r.name: r for r in run.records() if r.kind == "metric" and r.name.startswith("accuracy/")}


def test_a_run_folder(run, capsys):
    assert main(["evaluate", str(run.path), *CHEAP]) == 0
    found = accuracies(run)
    assert list(found) == ["accuracy/clean", "accuracy/PGD-1", "accuracy/worst case"]
    assert found["accuracy/clean"].n == 30
    assert found["accuracy/clean"].details["weights"] == "best"
    assert f"Next: counterpart report {run.path}" in capsys.readouterr().out


def test_a_run_that_is_older_than_a_setting_is_still_judged(run):
    config = yaml.safe_load(run.config_file.read_text())
    del config["model"]["pretrained"], config["mask"]["map_class"]
    run.config_file.write_text(yaml.safe_dump(config))
    assert main(["evaluate", str(run.path), *CHEAP]) == 0


def test_a_group_folder_judges_every_seed_and_their_mean(master, tmp_path, capsys):
    for seed in (0, 1):
        shutil.copytree(master.path, tmp_path / "group" / f"seed-{seed}")
        file = tmp_path / "group" / f"seed-{seed}" / "config.yaml"
        settings = file.read_text().partition("# checksum")[0]
        file.write_text(settings.replace("\nseed: 0\n", f"\nseed: {seed}\n"))
    assert main(["evaluate", str(tmp_path / "group"), *CHEAP]) == 0
    [record] = [r for r in RunDir(tmp_path / "group").records() if r.name == "mean over seeds/accuracy/clean"]
    assert record.details["seeds"] == [0, 1]
    assert [len(accuracies(RunDir(tmp_path / "group" / f"seed-{s}"))) for s in (0, 1)] == [3, 3]
    assert len(jobs.verify_run(tmp_path / "group", {})) == 2


def test_a_checkpoint_within_its_run_is_judged_there(run, monkeypatch):
    monkeypatch.chdir(run.path / "checkpoints")  # a text without a folder still belongs to its run
    assert main(["evaluate", "last.safetensors", *CHEAP]) == 0
    assert accuracies(run)["accuracy/clean"].details["weights"] == "checkpoints/last.safetensors"
    [verified] = jobs.verify_run(run.path, {})
    assert verified.claims > 30


def test_a_checkpoint_alone_gets_a_folder_of_its_own(run, tmp_path):
    shutil.copy(run.checkpoint("best"), tmp_path / "alone.safetensors")
    text = str(tmp_path / "alone.safetensors")
    assert main(["evaluate", text, *CHEAP, "--runs", str(tmp_path / "new")]) == 0
    main(["evaluate", str(run.path), *CHEAP])
    ours, theirs = accuracies(RunDir(tmp_path / "new" / "alone")), accuracies(run)
    assert [r.value for r in ours.values()] == [r.value for r in theirs.values()]


@pytest.fixture
def photos(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        for i in range(4):
            pixels = torch.randint(0, 256, (170, 170, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / "test" / name / f"{i}.png")
    (tmp_path / "map.json").write_text(json.dumps({"cat": 281, "dog": 207}))
    return tmp_path / "photos"


def randomly(name, **options):
    torch.random.default_generator.manual_seed(0)
    model = create(name, 1000, **options).eval()
    with torch.no_grad():
        model.get_classifier().weight.normal_()  # or its answers hardly depend on the image
    return model


def timm(tmp_path, photos, target):
    words = ["evaluate", target, "--data.root", photos, "--data.class-map", tmp_path / "map.json"]
    words += ["--runs", tmp_path / "runs", "--attacks", "[{steps: 20}]", "--eps", "0.1", "--device", "cpu"]
    return [str(word) for word in words]


@pytest.mark.slow
def test_a_timm_network_is_evaluated_verified_and_audited(photos, tmp_path):
    weights = tmp_path / "weights.safetensors"
    model = randomly("timm/test_resnet", image_size=160)
    save_file(model.backbone.state_dict(), weights)
    first = preprocessing("timm/test_resnet").apply(Image.open(photos / "test" / "cat" / "0.png"))
    answer = model(as_floats(first[None])).argmax().item()
    (tmp_path / "map.json").write_text(json.dumps({"cat": answer, "dog": (answer + 1) % 1000}))
    words = timm(tmp_path, photos, "timm/test_resnet")
    assert main([*words, "--model.init", str(weights)]) == 0
    run = RunDir(tmp_path / "runs" / "timm-test_resnet")
    assert accuracies(run)["accuracy/clean"].n == 8
    [verified] = jobs.verify_run(run.path, {}, eight_bits=True)
    assert verified.mismatches == []
    assert verified.successes > 0
    shutil.move(photos, tmp_path / "moved")
    with pytest.raises(UserError, match=r"photos"):
        jobs.verify_run(run.path, {})
    assert main(["verify", str(run.path), "--data.root", str(tmp_path / "moved")]) == 0
    words = timm(tmp_path, tmp_path / "moved", "timm/test_resnet")
    [at] = [i for i, word in enumerate(words) if word == "--attacks"]
    effort = ["--steps", "1", "--queries", "1", "--draws", "1", "--points", "2"]
    assert main(["audit", *words[1:at], *words[at + 2 :], "--model.init", str(weights), *effort]) == 0


def test_weights_of_others(photos, tmp_path):
    torch.save(randomly("timm/test_resnet", image_size=160).backbone.state_dict(), tmp_path / "w.pt")
    assert (
        main([*timm(tmp_path, photos, f"timm/test_resnet@{tmp_path / 'w.pt'}"), "--data.name", "folder"]) == 0
    )
    run = RunDir(tmp_path / "runs" / "timm-test_resnet-w")
    clean = accuracies(run)["accuracy/clean"]
    assert clean.details["weights"].endswith("w.pt")
    [verified] = jobs.verify_run(run.path, {})
    assert verified.mismatches == []


def test_published_weights_of_digits(tmp_path, capsys):
    torch.random.default_generator.manual_seed(0)
    torch.save(create("wrn-10-1", 10, in_channels=1).backbone.state_dict(), tmp_path / "w.pt")
    words = ["evaluate", f"wrn-10-1@{tmp_path / 'w.pt'}", "--runs", str(tmp_path / "runs"), *CHEAP]
    assert "on which images? Such as --data.name cifar10" in told(words, capsys)
    assert not (tmp_path / "runs").exists()
    assert main([*words, "--data.name", "digits"]) == 0
    [clean, *_] = accuracies(RunDir(tmp_path / "runs" / "wrn-10-1-w")).values()
    assert set(clean.details["per_class"]) == {str(digit) for digit in range(10)}


def user(function, *more):
    return ["evaluate", f"usernets:{function}", "--data.name", "digits", *CHEAP, *more]


def test_a_function_of_the_user_s_is_evaluated_verified_and_audited(here, capsys):
    assert main(user("robust")) == 0
    run = RunDir(here / "runs" / "usernets-robust")
    assert accuracies(run)["accuracy/clean"].details["method"] == "usernets:robust"
    assert accuracies(run)["accuracy/clean"].details["doubts"].keys() == {"clean accuracy near chance"}
    shutil.move(run.path, here / "elsewhere")
    assert main(["verify", str(here / "elsewhere"), "--eight-bits"]) == 0
    assert "images still fool after rounding to 8 bits" in capsys.readouterr().out
    assert not (here / "runs" / "usernets-robust").exists()  # a verification makes no run
    effort = ["--steps", "2", "--queries", "2", "--draws", "2", "--points", "5"]
    words = ["audit", *user("robust")[1:4], *CHEAP[2:], *effort]
    assert main(words) == 0
    audits = [r for r in run.records() if r.name.startswith("audit/")]
    assert len(audits) == 13
    assert main(words) == 0
    assert len([r for r in run.records() if r.name.startswith("audit/")]) == 13


def test_doubts_are_said_and_kept(here, capsys):
    assert main(user("softmax")) == 0
    assert "Note: probabilities: the model answers with probabilities" in capsys.readouterr().err
    run = RunDir(here / "runs" / "usernets-softmax")
    clean = accuracies(run)["accuracy/clean"]
    assert list(clean.details["doubts"]) == ["clean accuracy near chance", "probabilities"]
    summary = json.loads((run.path / "evaluations" / clean.details["evaluation"] / "result.json").read_text())
    assert summary["unreliable"] is True


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("robusst", "Did you mean 'robust'"),
        ("three", "answers with 3 classes"),
        ("nan", "logits that are not finite"),
        ("later", "logits that are not finite"),
        ("flat", "answers with 2 classes"),
        ("maps", "the model returns a tensor float32 of shape (16, 10, 1, 1); expected logits (16, K)"),
        ("fails", "the model does not answer for an image of 1x16x16: 'logits'"),
        ("wants_colour", "the model does not answer for an image of 1x16x16"),
        ("Counting", "the model changes while it answers"),
        ("Stuck", "the model changes while it answers"),
    ],
)
def test_a_model_that_cannot_be_judged_is_one_line_and_leaves_nothing(here, capsys, function, message):
    assert message in told(user(function), capsys)
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("function", "note"),
    [
        ("pair", "the model returns tuple of (16, 10), (16, 10): output[0] is taken as its logits."),
        ("wrapped", "the model returns dict of (16, 10): output['logits'] is taken as its logits."),
        ("half", "the model computes in float16: images are cast to it, and its answers to float32."),
        ("double", "the model computes in float64: images are cast to it, and its answers to float32."),
    ],
)
def test_outputs_and_types_of_other_kinds_are_understood_and_named(here, capsys, function, note):
    assert main(user("robust")) == 0
    assert main(user(function)) == 0
    assert f"Note: {note}" in capsys.readouterr().err
    plain, other = (accuracies(RunDir(here / "runs" / f"usernets-{name}")) for name in ("robust", function))
    assert [r.value for r in other.values()] == pytest.approx([r.value for r in plain.values()], abs=0.04)
    doubts = other["accuracy/clean"].details["doubts"]
    assert set(doubts) == {"clean accuracy near chance"}  # the network was never trained
    assert main(["verify", str(here / "runs" / f"usernets-{function}")]) == 0


def test_a_model_with_one_logit_is_judged_on_two_classes(here, photos, capsys):
    words = ["evaluate", "usernets:binary", "--data.name", "folder", "--data.root", str(photos)]
    words += ["--data.size", "16", "--device", "cpu", "--eps", "0.1", "--attacks", "[{steps: 5}]"]
    assert main(words) == 0
    assert "one logit z an image: it is judged as two classes of logits (0, z)" in capsys.readouterr().err
    found = accuracies(RunDir(here / "runs" / "usernets-binary"))
    assert set(found["accuracy/clean"].details["per_class"]) == {"cat", "dog"}
    assert found["accuracy/worst case"].value < found["accuracy/clean"].value


def test_an_onnx_file_is_judged_by_attacks_without_gradients(here, capsys, monkeypatch):
    helper, weight = onnx.helper, np.random.default_rng(0).normal(size=(256, 10)).astype("float32")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["pixels"], ["rows"]),
            helper.make_node("MatMul", ["rows", "w"], ["logits"]),
        ],
        "net",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["batch", 1, 16, 16])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 10])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (here / "net.onnx").write_bytes(model.SerializeToString())
    words = ["evaluate", "net.onnx", "--data.name", "digits", *CHEAP]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        patch.setattr("counterpart.models.onnx_file.find_spec", lambda name: None)
        assert "net.onnx needs onnxruntime, which is not installed" in told(words, capsys)
    assert "PGD-1: the model's answers have no gradient" in told(words, capsys)
    assert main([*words, "--attacks", "[{attack: square, queries: 5}]"]) == 0
    assert "an ONNX file gives answers and no gradients" in capsys.readouterr().err
    assert len(accuracies(RunDir(here / "runs" / "net"))) == 3


def test_a_model_without_gradients_is_attacked_without_them(here, capsys):
    line = told(user("graphless"), capsys)
    assert "PGD-1: the model's answers have no gradient" in line
    assert main(user("graphless", "--attacks", "[{attack: square, queries: 5}]")) == 0
    assert "zero gradients" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs/dgits", "runs/dgits does not exist, and is no model either. A target is a run folder"),
        ("wrn-10-1@nowhere.pt", "there is no file nowhere.pt. The form is ARCHITECTURE@FILE"),
        ("wnr-10-1@odd.pt", "wrn"),
        ("timm/no_such_network", "no_such_network"),
        ("nosuchmodule:robust", "no module 'nosuchmodule'"),
        ("usernets.py:robust", "Did you mean 'usernets'"),
        ("odd.pt", "odd.pt"),
        ("empty", "is no run folder"),
    ],
)
def test_texts_that_name_nothing(here, capsys, text, message):
    (here / "odd.pt").write_bytes(b"no weights")
    (here / "empty").mkdir()
    assert message in told(["evaluate", text, "--data.name", "digits"], capsys)
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n", "5000"], "which has 400: ask for 1 to 400"),
        (["--eps", "8"], "Did you mean 8/255?"),
        (["--attacks", "autoatack"], "Did you mean 'autoattack'"),
        (["--attacks", "pgd,xyzzy"], "Known: apgd, autoattack"),
        (["--norm", "l2"], "give its radius with --evaluate.eps"),
        (["--attacks", "rays", "--norm", "l2", "--eps", "1"], "attack rays has no l2"),
        (["--attacks", "[{attack: pgd, target: 10}]"], "target 10 of 9 wrong classes"),
        (["--attacks", "[{steps: 0}]"], "greater than or equal to 1"),
        (["--engine", "official"], "runs autoattack only"),
    ],
)
def test_settings_that_make_no_sense_are_one_line_and_leave_nothing(here, capsys, more, message):
    words = ["evaluate", "usernets:robust", "--data.name", "digits", "--device", "cpu", *more]
    assert message in told(words, capsys)
    assert not (here / "runs").exists()


def test_a_folder_of_another_model_is_refused(here, capsys):
    assert main(user("robust", "--name", "mine")) == 0
    before = sorted((here / "runs" / "mine").rglob("*"))
    assert "holds a run with another configuration" in told(user("softmax", "--name", "mine"), capsys)
    assert sorted((here / "runs" / "mine").rglob("*")) == before


def test_a_surrogate_makes_no_run_and_belongs_to_the_identity(here, run):
    attack = f"[{{attack: pgd, steps: 1, surrogate: {run.path}}}]"
    assert main(user("robust", "--attacks", attack)) == 0
    mine = RunDir(here / "runs" / "usernets-robust")
    [first] = (mine.path / "evaluations").iterdir()
    assert json.loads((first / "identity.json").read_text())["surrogates"].keys() == {str(run.path)}
    assert len([f for f in (first / "units").iterdir() if f.name.startswith("PGD-1-from-")]) == 1
    tensors, about = checkpoint.read(run.checkpoint("best"))
    tensors["backbone.fc.bias"] += 1
    save_file(tensors, run.checkpoint("best"), {"counterpart": json.dumps(about), "format": "pt"})
    assert main(user("robust", "--attacks", attack)) == 0
    assert len(list((mine.path / "evaluations").iterdir())) == 2
    attack = "[{attack: pgd, steps: 1, surrogate: 'usernets:softmax'}]"
    assert main(user("robust", "--attacks", attack)) == 0
    assert not (here / "runs" / "usernets-softmax").exists()
    assert len(list(open_targets("usernets:robust", {"data": {"name": "digits"}}))) == 1


def opened(target, **data):
    return next(open_targets(str(target), {"device": "cpu", "data": data}))


def test_a_timm_network_prepares_images_after_they_were_resized(photos, tmp_path):
    torch.save(randomly("timm/test_resnet", image_size=160).backbone.state_dict(), tmp_path / "w.pt")
    names = {"cat": 3, "dog": 5}
    for target in (f"timm/test_resnet@{tmp_path / 'w.pt'}", "timm/test_resnet"):
        init = {} if "@" in target else {"model": {"init": str(tmp_path / "w.pt")}}
        changes = {
            "device": "cpu",
            "data": {"name": "folder", "root": photos, "class_map": names, "size": 32},
            **init,
        }
        images = next(open_targets(target, changes)).images
        small = Image.open(photos / "test" / "cat" / "0.png").resize((32, 32), Image.Resampling.BILINEAR)
        assert torch.equal(images.read(torch.tensor([0]))[0], preprocessing("timm/test_resnet").apply(small))


def test_weights_of_a_timm_network_on_a_named_data_set(tmp_path, capsys):
    """At the set's own size, or at data.size: as any other ARCHITECTURE@FILE."""
    grey, colour = (
        create("timm/test_resnet", 10, in_channels=channels, image_size=160) for channels in (1, 3)
    )
    for name, model in (("grey", grey), ("colour", colour)):
        torch.save(model.backbone.state_dict(), tmp_path / f"{name}.pt")
    for size, data in ((16, {}), (64, {"size": 64})):
        target = opened(f"timm/test_resnet@{tmp_path / 'grey.pt'}", name="digits", **data)
        assert target.images.shape == (1, size, size)
        assert target.classes == 10
        expected = grey.eval()(as_floats(target.images.pixels[:4]))
        torch.testing.assert_close(target.model(as_floats(target.images.pixels[:4])), expected)
    words = [
        "evaluate",
        f"timm/test_resnet@{tmp_path / 'colour.pt'}",
        "--data.name",
        "digits",
        "--runs",
        tmp_path / "r",
    ]
    assert "does not answer for an image of 1x16x16" in told(words, capsys)


def test_models_are_compared_on_the_images_of_a_run(photos, tmp_path, capsys):
    """A folder without splits, of which a run holds back a fifth; another model is judged on that fifth as well."""
    root = photos / "test"
    for name in ("cat", "dog"):
        for i in range(4, 10):
            shutil.copy(root / name / f"{i - 4}.png", root / name / f"{i}.png")
    settings = {
        "name": "own", "runs": str(tmp_path / "runs"), "device": "cpu",
        "data": {"name": "folder", "root": str(root), "size": 24, "padding": 0, "validation": 0.25},
        "model": {"name": "wrn-10-1", "width": 4},
        "train": {"method": "clean", "epochs": 1, "batch_size": 12, "precision": "float32"},
    }  # fmt: skip
    run = jobs.train(resolve(settings)).run
    own = opened(run.path).images
    assert len(own) == 4
    torch.save(randomly("timm/test_resnet", image_size=160).backbone.state_dict(), tmp_path / "w.pt")
    text, names = f"timm/test_resnet@{tmp_path / 'w.pt'}", {"cat": 3, "dog": 5}
    assert len(opened(text, name="folder", root=root, class_map=names).images) == 20
    other = opened(text, split_of=run.path, class_map=names).images
    assert other.names == own.names
    assert torch.equal(other.index, own.index)
    small = Image.open(other.files[0]).resize((24, 24), Image.Resampling.BILINEAR)
    assert torch.equal(other.read(torch.tensor([0]))[0], preprocessing("timm/test_resnet").apply(small))

    words = [
        "evaluate",
        text,
        "--data.split-of",
        run.path,
        "--data.class-map",
        "{cat: 3, dog: 5}",
        *CHEAP[:2],
    ]
    words += ["--eps", "0.1", "--device", "cpu", "--runs", tmp_path / "runs", "--name", "other"]
    assert main([str(word) for word in words]) == 0
    made = RunDir(tmp_path / "runs" / "other")
    assert accuracies(made)["accuracy/clean"].n == 4
    assert jobs.verify_run(made.path, {})[0].mismatches == []

    with pytest.raises(UserError, match=r"data\.split_of is for judging a model"):
        jobs.train(resolve(settings, {"name": "new", "data": {"split_of": str(run.path)}}))
    Image.new("RGB", (170, 170)).save(root / "cat" / "0.png")
    assert "are not those of" in told(words, capsys)
    words[3] = tmp_path / "nowhere"
    assert "nowhere is no run folder" in told(words, capsys)
