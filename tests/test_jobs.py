import csv
import json
import resource
import shutil
from contextlib import contextmanager

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from counterpart import build, jobs
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.jobs.seeds import aggregate
from counterpart.jobs.stored_models import load_run
from counterpart.jobs.training import best_validation
from counterpart.models import create
from counterpart.models.hub import load_weights
from counterpart.records import Record
from counterpart.rundir import RunDir
from counterpart.statistics import over_seeds
from counterpart.training import checkpoint

EVALUATION = {
    "evaluate": {
        "n": 60,
        "batch_size": 25,
        "attacks": [{"steps": 5}, {"steps": 5, "restarts": 2, "loss": "margin"}],
    }
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run on digits, trained once for all tests here."""
    settings = {
        "name": "digits",
        "runs": str(tmp_path_factory.mktemp("runs")),
        "device": "cpu",
        "data": {"flip": False, "padding": 1, "limit": 600},
        "model": {"name": "wrn-10-1", "width": 8},
        "attack": {"eps": 0.05, "steps": 3},
        "mask": {"eps_low": 0.03},
        "train": {
            "method": "part",
            "epochs": 6,
            "batch_size": 50,
            "precision": "float32",
            "validation_n": 50,
        },
        "optimizer": {"lr": 0.1},
    }
    return jobs.train(resolve(settings)).run


def test_a_setting_that_is_younger_than_a_run_counts_as_its_default_there(digits, tmp_path):
    run = RunDir(shutil.copytree(digits.path, tmp_path / "old"))
    old = run.config()
    for section, name in (("train", "beta"), ("optimizer", "nesterov")):
        del old[section][name]
    run.config_file.write_text(yaml.safe_dump(old))
    now = {**digits.config(), "name": "old", "runs": str(tmp_path)}
    assert jobs.train(resolve(now)).finished
    with pytest.raises(
        UserError, match=r"another configuration \(optimizer.nesterov: False there, True now\)"
    ):
        jobs.train(resolve(now, {"optimizer": {"nesterov": True}}))


def test_evaluate_writes_records_table_and_panel(digits, capsys):
    jobs.evaluate(str(digits.path), EVALUATION)
    assert "PGD-5x2 margin" in capsys.readouterr().out
    found = {r.name: r for r in digits.records() if r.kind == "metric"}
    names = ["accuracy/clean", "accuracy/PGD-5", "accuracy/PGD-5x2 margin", "accuracy/worst case"]
    assert list(found) == names
    clean, worst = found[names[0]], found[names[-1]]
    assert clean.n == 60
    assert clean.value > 0.3
    assert worst.value <= min(r.value for r in found.values())
    assert clean.details["method"] == "PART"
    assert clean.details["eps"] == 0.05
    assert clean.details["shape"] == [1, 16, 16]
    assert clean.provenance["torch"] == torch.__version__
    folder = digits.path / "evaluations" / clean.details["evaluation"]
    with (folder / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(r["clean"] == r["label"] for r in rows) / 60 == clean.value
    assert sum(r["first_fooled_by"] == "" for r in rows) / 60 == worst.value
    panel = load_file(folder / "panel.safetensors")
    shown = sum(
        min(4, count)
        for count in (worst.value * 60, (clean.value - worst.value) * 60, (1 - clean.value) * 60)
    )
    assert panel["clean"].shape == (round(shown), 1, 16, 16)
    assert panel["importance_adversarial"].shape == panel["importance"].shape
    assert panel["radius"].unique().tolist() == pytest.approx([0.03, 0.05])
    assert panel["importance"].shape[1:] == (4, 4)
    assert ((panel["adversarial"] - panel["clean"]).abs() <= 0.05 + 1e-6).all()


def test_the_same_evaluation_is_not_recorded_twice_and_another_is(digits):
    jobs.evaluate(str(digits.path), EVALUATION)
    before = len(digits.records())
    jobs.evaluate(str(digits.path), EVALUATION)
    assert len(digits.records()) == before
    jobs.evaluate(str(digits.path), {"evaluate": {**EVALUATION["evaluate"], "weights": "last"}})
    assert len(digits.records()) > before


def test_seed_and_saved_images_of_an_evaluation_are_its_own(digits):
    given = {"n": 40, "attacks": [{"steps": 1}], "save_images": True, "eps": 0.07}
    kept = []
    for seed in (0, 1):
        jobs.evaluate(str(digits.path), {"evaluate": given, "seed": seed})
        key = digits.records()[-1].details["evaluation"]
        [file] = (digits.path / "evaluations" / key / "images").iterdir()
        kept.append(load_file(file))
    first, other = (dict(zip(k["positions"].tolist(), k["images"], strict=True)) for k in kept)
    both = first.keys() & other.keys()
    assert both
    assert not any(torch.equal(first[p], other[p]) for p in both)  # another random start


def test_attacks_are_named_once(digits):
    with pytest.raises(UserError, match="same attack twice"):
        jobs.evaluate(str(digits.path), {"evaluate": {"attacks": [{"steps": 5}, {"steps": 5}]}})


def test_another_radius_is_another_evaluation(digits):
    jobs.evaluate(str(digits.path), EVALUATION)  # tests may run alone or in any order
    jobs.evaluate(str(digits.path), {"evaluate": {**EVALUATION["evaluate"], "eps": 0.001}})
    worst = [r for r in digits.records() if r.name == "accuracy/worst case"]
    assert worst[-1].details["eps"] == 0.001
    strong = next(r for r in worst if r.details["eps"] == 0.05)
    assert worst[-1].value > strong.value


def test_several_radii_are_one_evaluation(digits, capsys):
    wanted = {"n": 60, "attacks": "pgd,deepfool", "eps": "0.01,0.05,0.15"}
    [judged] = jobs.evaluate(str(digits.path), {"evaluate": wanted})
    shown = capsys.readouterr().out
    assert all(f"at {radius}" in shown for radius in (0.01, 0.05, 0.15))
    assert "DeepFool-50: median distance " in shown
    key = judged.records[0].details["evaluation"]
    made = {r.name: r for r in digits.records() if r.details.get("evaluation") == key and r.kind == "metric"}
    lines = ("PGD-20", "DeepFool-50", "worst case")
    assert list(made) == [
        "accuracy/clean", *(f"accuracy/{line}{at}" for at in (" at 0.01", " at 0.05", "") for line in lines),
        "median distance/DeepFool-50",
    ]  # fmt: skip
    assert {r.details["eps"] for r in made.values()} == {0.01, 0.05, 0.15}
    assert all(r.details["radii"] == [0.01, 0.05, 0.15] for r in made.values())
    worst = [made[f"accuracy/worst case{at}"].value for at in (" at 0.01", " at 0.05", "")]
    assert worst == sorted(worst, reverse=True)
    assert worst[0] > worst[-1]
    folder = digits.path / "evaluations" / key
    identity = json.loads((folder / "identity.json").read_text())
    assert (identity["eps"], identity["nearest"]) == ([0.01, 0.05, 0.15], ["DeepFool-50"])
    result = json.loads((folder / "result.json").read_text())
    assert result["eps"] == "38.25/255"
    curve = result["counterpart"]["curve"]
    assert [point["accuracies"]["worst case"][0] for point in curve] == worst
    with (folder / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    for radius, share in zip((0.01, 0.05, 0.15), worst, strict=True):
        standing = [
            row["first_fooled_by"] == "" or (row["radius"] != "" and float(row["radius"]) > radius)
            for row in rows
        ]
        assert sum(standing) / 60 == share
    [verified] = [r for r in jobs.verify_run(digits.path, {}) if r.successes][-1:]
    assert verified.mismatches == []
    before = len(digits.records())
    [again] = jobs.evaluate(str(digits.path), {"evaluate": wanted})  # read, not made again
    assert [(r.name, r.value) for r in again.records] == [(r.name, r.value) for r in judged.records]
    assert len(digits.records()) == before
    next(iter((folder / "units").glob("PGD-20-at-0.15*"))).unlink()
    with pytest.raises(
        UserError, match=r"PGD-20 at 0.15, chunk 0: it met 0 images, not the \d+ that were left"
    ):
        jobs.verify_run(digits.path, {})
    jobs.evaluate(str(digits.path), {"evaluate": wanted})
    jobs.verify_run(digits.path, {})
    with pytest.raises(UserError, match=r"an audit looks at one radius.* give one --evaluate\.eps"):
        jobs.audit_named(str(digits.path), {"evaluate": wanted}, steps=1, queries=1, draws=1)


def test_another_norm_is_another_evaluation_and_training_settings_are_refused(digits):
    jobs.evaluate(str(digits.path), {"evaluate": {**EVALUATION["evaluate"], "norm": "l2", "eps": 0.3}})
    last = [r for r in digits.records() if r.name == "accuracy/worst case"][-1]
    assert (last.details["norm"], last.details["eps"]) == ("l2", 0.3)
    with pytest.raises(UserError, match=r"attack is a setting of training.*--evaluate\.eps"):
        jobs.evaluate(str(digits.path), {"attack": {"eps": 0.3}})
    with pytest.raises(UserError, match="Did you mean 8/255"):
        jobs.evaluate(str(digits.path), {"evaluate": {"eps": 8}})


def test_predict_names_class_and_probability(digits, tmp_path):
    data = build.load_splits(resolve(digits.config()), torch.device("cpu")).test
    model, _ = load_run(digits, "best")
    with torch.no_grad():
        expected = model.eval()(data.pixels[:5].float() / 255).softmax(dim=1)
    for i in range(5):
        pixels = data.pixels[i, 0].numpy()
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    found = jobs.predict(str(digits.path), [tmp_path], "cpu")
    assert [p.file.name for p in found] == [f"{i}.png" for i in range(5)]
    assert [p.label for p in found] == [str(c) for c in expected.argmax(dim=1).tolist()]
    torch.testing.assert_close(
        torch.tensor([p.probability for p in found]), expected.amax(dim=1), rtol=1e-4, atol=1e-5
    )


def test_predict_passes_over_what_is_no_image_in_a_folder(digits, tmp_path):
    image = Image.new("L", (16, 16), 90)
    (tmp_path / "sub" / ".hidden").mkdir(parents=True)
    for name in ("b.png", "sub/a.PNG", "sub/._a.png", "sub/.hidden/x.png"):
        image.save(tmp_path / name, "PNG")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt"):
        (tmp_path / name).write_text("no image")
    found = jobs.predict(str(digits.path), [tmp_path], "cpu")
    assert [p.file.relative_to(tmp_path).as_posix() for p in found] == ["b.png", "sub/a.PNG"]
    with pytest.raises(UserError, match=r"Cannot read the image .*notes\.txt"):  # named by its own name
        jobs.predict(str(digits.path), [tmp_path / "notes.txt"])


def test_grey_files_are_judged_as_grey_by_a_model_of_one_channel(digits, tmp_path):
    test = build.load_splits(resolve(digits.config()), torch.device("cpu")).test
    for i in range(60):
        path = tmp_path / "set" / "test" / str(int(test.labels[i])) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(test.pixels[i, 0].numpy()).save(path)
    with torch.no_grad():
        answers = load_run(digits, "best")[0].eval()(test.pixels[:60].float() / 255).argmax(dim=1)
    right = (answers == test.labels[:60]).sum().item()
    for channels in (None, 1):  # what the model learned from, and what was asked for
        data = {"name": "folder", "root": tmp_path / "set", "channels": channels}
        (judged,) = jobs.evaluate(str(digits.path), {"data": data, "evaluate": {"attacks": []}})
        assert judged.records[0].value == right / 60
    with pytest.raises(
        UserError, match=r"wants images of 1 channel, and those of folder have 3: --data\.channels 1"
    ):
        jobs.evaluate(str(digits.path), {"data": {**data, "channels": 3}, "evaluate": {"attacks": []}})


def test_predict_says_what_is_wrong(digits, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"Cannot read the image .*broken\.png"):
        jobs.predict(str(digits.path), [tmp_path / "broken.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images"):
        jobs.predict(str(digits.path), [tmp_path / "empty"])
    with pytest.raises(UserError, match="is no run folder"):
        jobs.predict(str(tmp_path), [tmp_path / "broken.png"])


@pytest.mark.parametrize(
    ("target", "message"),
    [("nowhere", "does not exist"), ("empty", "is no run folder: it has no config.yaml")],
)
def test_targets_that_are_no_runs(tmp_path, target, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        jobs.evaluate(str(tmp_path / target), {})


@pytest.fixture
def photos(tmp_path):
    """A folder of 2 x 6 images of two sizes, for a network of 1000 outputs."""
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        for i in range(6):
            pixels = torch.randint(
                0, 256, (180 + 20 * (i % 2), 200, 3), generator=generator, dtype=torch.uint8
            )
            Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / "test" / name / f"{i}.png")
    return tmp_path / "photos"


def timm_changes(photos, tmp_path, **data):
    weights = tmp_path / "weights.safetensors"
    if not weights.exists():
        save_file(create("timm/test_resnet", 1000, image_size=160).backbone.state_dict(), weights)
    return {
        "runs": str(tmp_path / "runs"),
        "device": "cpu",
        "data": {"root": str(photos), **data},
        "model": {"init": str(weights)},
        "evaluate": {"attacks": [{"steps": 2}], "eps": "4/255"},
    }


def test_a_timm_model_is_evaluated_with_its_own_preprocessing(photos, tmp_path):
    (tmp_path / "map.json").write_text(json.dumps({"cat": 281, "dog": 207}))
    changes = timm_changes(photos, tmp_path, class_map=str(tmp_path / "map.json"))
    [judged] = jobs.evaluate("timm/test_resnet", changes)
    run = judged.run
    clean = next(r for r in run.records() if r.name == "accuracy/clean")
    assert clean.n == 12
    assert clean.details["model"] == "timm/test_resnet"
    assert set(clean.details["per_class"]) == {"cat", "dog"}
    panel = load_file(run.path / "evaluations" / clean.details["evaluation"] / "panel.safetensors")
    assert panel["clean"].shape[1:] == (3, 160, 160)
    from counterpart.models.backbones import preprocessing

    first = preprocessing("timm/test_resnet").apply(Image.open(photos / "test" / "cat" / "0.png"))
    model = create("timm/test_resnet", 1000, image_size=160)
    own = load_file(tmp_path / "weights.safetensors")
    load_weights(
        model, {f"backbone.{k}": v for k, v in own.items()} | {"mean": model.mean, "std": model.std}, "w"
    )
    answer = model.eval()(first[None].float() / 255).argmax(dim=1).item()
    with (run.path / "evaluations" / clean.details["evaluation"] / "images.csv").open() as file:
        said = next(csv.DictReader(file))["clean"]
    assert said == {281: "cat", 207: "dog"}.get(answer, f"output {answer}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "The model answers with 1000 classes .* the data has 2"),
        ({"cat": 281}, "does not map the class 'dog'"),
        ({"cat": 281, "dog": 1000}, "the model has outputs 0 to 999"),
        ({"cat": 281, "dgo": 207}, r"'dgo', which is no class of the data. Did you mean 'dog'\?"),
        ({"cat": "281", "dog": 207}, "'281', which the model does not answer with"),
        ([281, 207], "must look like"),
        ("{", "not valid JSON"),
    ],
)
def test_a_class_map_that_does_not_fit_is_refused(photos, tmp_path, content, message):
    data = {}
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "map.json").write_text(text)
        data = {"class_map": str(tmp_path / "map.json")}
    with pytest.raises(UserError, match=message):
        jobs.evaluate("timm/test_resnet", timm_changes(photos, tmp_path, **data))
    assert not (tmp_path / "runs").exists()


def test_a_run_meets_data_of_other_classes(digits, photos):
    changes = {"data": {"name": "folder", "root": str(photos), "size": 16}}
    with pytest.raises(UserError, match="answers with 10 classes"):
        jobs.evaluate(str(digits.path), changes)


def test_init_continues_from_weights_and_swaps_the_head(digits, tmp_path, photos):
    settings = {
        **digits.config(),
        "name": "again",
        "runs": str(tmp_path / "runs"),
        "model": {"name": "wrn-10-1", "width": 8, "init": str(digits.path)},
    }
    settings["train"] = {**settings["train"], "method": "clean", "epochs": 1}
    settings["optimizer"] = {"lr": 1e-9}
    run = jobs.train(resolve(settings)).run
    before, after = (checkpoint.read(r.checkpoint("best"))[0] for r in (digits, run))
    torch.testing.assert_close(after["backbone.fc.weight"], before["backbone.fc.weight"], rtol=0, atol=1e-6)
    settings["model"] = {**settings["model"], "width": 16}
    settings["name"] = "wider"
    with pytest.raises(UserError):
        jobs.train(resolve(settings))
    assert not (tmp_path / "runs" / "wider").exists()


def test_a_checkpoint_of_another_number_of_classes_is_named(digits):
    tensors, about = checkpoint.read(digits.checkpoint("best"))
    model = build.build_model({**about["model"], "num_classes": 7}, seed=0)
    with pytest.raises(UserError, match="has 10 classes, the data has 7"):
        load_weights(model, tensors, "best.safetensors")


def test_validation_uses_its_own_steps_and_number(digits, tmp_path, monkeypatch):
    asked = []

    def quick(model, view, images, *, attack, **options):
        asked.append((len(images), images.split, attack.keywords["steps"]))
        return 0.5, 0.5

    monkeypatch.setattr("counterpart.evaluation.validation.quick", quick)
    settings = {**digits.config(), "name": "short", "runs": str(tmp_path)}
    settings["train"] = {**settings["train"], "epochs": 1, "validation_n": 37, "validation_steps": 4}
    jobs.train(resolve(settings))
    assert asked == [(37, "validation", 4)]


def test_the_last_weights_are_the_averaged_ones_where_there_are_any(digits, tmp_path):
    settings = {**digits.config(), "name": "ema", "runs": str(tmp_path)}
    settings["train"] = {**settings["train"], "epochs": 1, "ema": 0.9}
    run = jobs.train(resolve(settings)).run
    saved, _ = checkpoint.read(run.checkpoint("last"))
    weight = load_run(run, "last")[0].get_classifier().weight
    assert torch.equal(weight, saved["ema.module.backbone.fc.weight"])
    assert not torch.equal(weight, saved["model.backbone.fc.weight"])
    plain, _ = checkpoint.read(digits.checkpoint("last"))
    weight = load_run(digits, "last")[0].get_classifier().weight
    assert torch.equal(weight, plain["model.backbone.fc.weight"])


def test_a_seed_s_validation_is_that_of_its_best_epoch(tmp_path):
    run = RunDir(tmp_path / "seed-3")
    rows = [
        {"epoch": e, "validation_clean": 0.5 + e / 10, "validation_robust": 0.3 - e / 10, "fingerprint": "f"}
        for e in range(3)
    ]
    run.add([Record("epoch", "epoch", seed=3, details=row) for row in rows])
    checkpoint.save_weights(run.checkpoint("best"), torch.nn.Linear(2, 2), {"epoch": 1})
    clean, robust = best_validation(run)
    assert (clean.name, clean.value, clean.seed) == ("validation_clean", 0.6, 3)
    assert (robust.name, robust.value) == ("validation_robust", pytest.approx(0.2))
    assert clean.details["fingerprint"] == "f"


def test_a_group_says_what_its_seeds_agree_on_and_says_it_once(tmp_path, capsys):
    group = RunDir(tmp_path / "group")
    tables = [
        [
            Record(
                "metric", "accuracy/clean", value, 100, (value - 0.1, value + 0.1), seed=seed,
                details={"fingerprint": "abc", "eps": 8 / 255, "evaluation": f"key{seed}"},
            )
        ]
        for seed, value in enumerate((0.5, 0.6, 0.7))
    ]  # fmt: skip
    aggregate(group, tables, [0, 1, 2])
    aggregate(group, tables, [0, 1, 2])
    [record] = group.records()
    assert (record.name, record.n) == ("mean over seeds/accuracy/clean", 3)
    assert record.details == {
        "fingerprint": "abc", "eps": 8 / 255, "seeds": [0, 1, 2], "values": [0.5, 0.6, 0.7], "sd": record.details["sd"]
    }  # fmt: skip
    assert record.interval == over_seeds([0.5, 0.6, 0.7], [r.interval for [r] in tables]).interval
    assert capsys.readouterr().out.count("group: 3 seeds") == 2
    aggregate(group, tables[:2], [0, 1])
    assert len(group.records()) == 2
    told = capsys.readouterr().out
    assert "50.00% and 60.00%" in told
    assert "intervals are over these models' images" in " ".join(told.split())


def test_the_validation_split_can_be_judged(digits):
    jobs.evaluate(str(digits.path), {"evaluate": {"split": "validation", "attacks": [{"steps": 1}]}})
    clean = [r for r in digits.records() if r.name == "accuracy/clean"][-1]
    data = build.load_splits(resolve(digits.config()), torch.device("cpu"))
    assert clean.details["split"] == "validation"
    assert clean.n == len(data.validation) != len(data.test)


def test_the_share_of_validation_images_is_the_configured_one(digits):
    def sizes(share):
        config = resolve(digits.config(), {"data": {"validation": share, "limit": None}})
        data = build.load_splits(config, torch.device("cpu"))
        return len(data.train), len(data.validation), len(data.test)

    small, large = sizes(0.1), sizes(0.3)
    assert small[0] + small[1] == large[0] + large[1]
    assert small[1] == round(0.1 * sum(small[:2]))
    assert large[1] == round(0.3 * sum(large[:2]))
    assert small[2] == large[2]


@contextmanager
def files_no_larger_than(size):
    """A disk that is full after so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("what", "limit", "changes"),
    [
        ("panel", 10_000, {"save_images": False}),
        ("images", 4_000, {}),
        ("records", None, {}),
    ],
)
def test_a_full_disk_ends_an_evaluation_in_one_line_and_the_next_one_goes_on(
    digits, tmp_path, capsys, what, limit, changes
):
    run = RunDir(tmp_path / "run")
    shutil.copytree(digits.path, run.path, ignore=shutil.ignore_patterns("evaluations"))
    run.records_file.write_text("".join(
        line for line in digits.records_file.read_text().splitlines(keepends=True) if '"kind": "epoch"' in line
    ))  # fmt: skip
    before = run.records_file.read_text()
    if what == "records":  # a log that is long already, so that only the records do not fit
        before = before + before * (60_000 // len(before))
        run.records_file.write_text(before)
        limit = len(before) + 2000
    evaluation = {"evaluate": {"n": 60, "batch_size": 25, "attacks": [{"steps": 1}], **changes}}
    words = [
        "evaluate",
        str(run.path),
        "--device",
        "cpu",
        "--evaluate.n",
        "60",
        "--evaluate.batch-size",
        "25",
    ]
    words += ["--evaluate.attacks", "[{steps: 1}]"] + (["--evaluate.save-images", "false"] if changes else [])
    with files_no_larger_than(limit):
        assert main(words) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert "Could not write" in line
    assert what in line
    assert run.records_file.read_text() == before
    assert not [f for f in run.path.rglob(".*") if f.is_file()]
    jobs.evaluate(str(run.path), evaluation)
    made = [r for r in run.records() if r.kind != "epoch"]
    assert [r.name for r in made] == [
        "accuracy/clean", "accuracy/PGD-1", "accuracy/worst case", "images", "panel", "result"
    ]  # fmt: skip


def test_a_torn_last_line_of_an_evaluated_run_costs_that_line_alone(digits, tmp_path):
    run = RunDir(tmp_path / "run")
    shutil.copytree(digits.path, run.path, ignore=shutil.ignore_patterns("evaluations", "records.jsonl"))
    jobs.evaluate(str(run.path), EVALUATION)
    whole = run.records()
    content = run.records_file.read_bytes()
    run.records_file.write_bytes(content[:-40])
    assert run.records() == whole[:-1]
    jobs.evaluate(str(run.path), {"evaluate": {"n": 10, "attacks": [{"steps": 1}]}})
    after = run.records()
    assert after[: len(whole) - 1] == whole[:-1]
    assert sum(r.details.get("evaluation") == after[-1].details["evaluation"] for r in after) == 6
    jobs.evaluate(str(run.path), EVALUATION)  # what the torn line said is said again, and nothing else
    assert [r.name for r in run.records()[len(after) :]] == [whole[-1].name]


def test_a_mask_aware_attack_stays_within_the_planes_that_it_drew(digits, capsys):
    wanted = {**EVALUATION["evaluate"], "attacks": [{"steps": 5}], "eps": 0.12, "eps_low": 0.02}
    [judged] = jobs.evaluate(str(digits.path), {"evaluate": wanted})
    assert "0.02 by its mask" in " ".join(capsys.readouterr().out.split())
    key = judged.records[0].details["evaluation"]
    folder = digits.path / "evaluations" / key
    planes = load_file(folder / "radii.safetensors")
    levels = planes["radii"].unique().tolist()
    assert levels == [torch.tensor(value).item() for value in (0.02, 0.12)]
    save_file({**planes, "radii": planes["radii"] / 2}, folder / "radii.safetensors")
    with pytest.raises(UserError, match=r"of the budget is used"):
        jobs.verify_run(digits.path, {})
    save_file(planes, folder / "radii.safetensors")
    jobs.verify_run(digits.path, {})
    [uniform] = jobs.evaluate(str(digits.path), {"evaluate": {**wanted, "eps_low": None}})
    worst = [one[-1].value for one in (uniform.records, judged.records)]
    assert worst[0] <= worst[1]  # a smaller budget cannot fool more, up to the luck of the search
    with pytest.raises(UserError, match=r"evaluate.eps_low 0.2 exceeds evaluate.eps 0.12"):
        jobs.evaluate(str(digits.path), {"evaluate": {**wanted, "eps_low": 0.2}})
