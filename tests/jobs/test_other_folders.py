"""ImageNet-9 and stylised images, laid out as they are published, judged by a model of Part-ImageNet's classes."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import counterpart as cp
from counterpart import jobs
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.data.part_imagenet import NAMES
from counterpart.data.transforms import as_floats
from counterpart.errors import UserError
from counterpart.jobs.stored_models import load_run
from counterpart.jobs.targets import open_targets
from counterpart.models.backbones import imagenet_names
from counterpart.rundir import RunDir
from counterpart.training import checkpoint

NINE = (
    "00_dog", "01_bird", "02_wheeled vehicle", "03_reptile", "04_carnivore", "05_insect", "06_musical instrument",
    "07_primate", "08_fish",
)  # fmt: skip
PUBLISHED = '{00_dog: Quadruped, "*": null}'  # bird, fish and reptile are called alike


def paint(path, generator, size=(40, 44)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A part model of Part-ImageNet's eleven classes that learned next to nothing, from masks of objects."""
    home, generator = tmp_path_factory.mktemp("part-imagenet"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name, parts in NAMES.items():
            paint(home / "set" / "images" / split / name / "0.png", generator, (24, 24))
            mask = np.full((24, 24), next(iter(parts.values())), dtype=np.uint8)
            mask[:8] = 0
            (home / "set" / "parts" / split / name).mkdir(parents=True)
            Image.fromarray(mask).save(home / "set" / "parts" / split / name / "0.png")
    (home / "set" / "parts.json").write_text(json.dumps({"classes": sorted(NAMES), "parts": NAMES}))
    settings = {
        "name": "part-imagenet",
        "runs": str(home / "runs"),
        "device": "cpu",
        "data": {"name": "parts", "root": str(home / "set"), "labels": "objects", "padding": 0},
        "model": {"name": "parts/downsampled", "encoder": "timm/test_resnet", "depth": 3},
        "attack": {"eps": 0.05, "steps": 1},
        "train": {"method": "clean", "epochs": 1, "batch_size": 11, "precision": "float32"},
    }
    return jobs.train(resolve(settings)).run


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "runs" / "part-imagenet")
    return RunDir(tmp_path / "runs" / "part-imagenet")


@pytest.fixture
def challenge(tmp_path):
    """The folder that the release of the backgrounds challenge unpacks to, three images a class."""
    generator = np.random.default_rng(1)
    for variation in ("mixed_rand", "original"):
        for name in NINE:
            for i in range(3):
                paint(tmp_path / "bg_challenge" / variation / "val" / name / f"fg_{i}.JPEG", generator)
    return tmp_path / "bg_challenge"


def judge(run, root, *words):
    return main(["evaluate", str(run.path), "--data.name", "folder", "--data.root", str(root), *words])


def lines(run):
    """The rows of the evaluation that was made last."""
    last = [r for r in run.records() if r.name == "accuracy/clean"][-1]
    with (run.path / "evaluations" / last.details["evaluation"] / "images.csv").open() as file:
        return last, list(csv.DictReader(file))


def answers(run, root):
    """Name of each image's class folder -> what the model answers, at the size that it was trained on."""
    model, about = load_run(run, "best")
    found = {}
    for folder in sorted(root.iterdir()):
        pixels = []
        for file in sorted(folder.iterdir()):
            image = Image.open(file)
            image = image.resize((round(44 * 24 / 40), 24), Image.Resampling.BILINEAR)
            left = (image.width - 24) // 2
            image = image.crop((left, 0, left + 24, 24))
            pixels.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        logits = model.eval()(as_floats(torch.stack(pixels)))
        found[folder.name] = [about["classes"][k] for k in logits.argmax(dim=1).tolist()]
    return found


def test_imagenet_9_is_judged_by_the_names_and_one_line_of_a_map(run, challenge):
    words = ["--data.class-map", PUBLISHED, "--attacks", "none"]
    assert judge(run, challenge / "mixed_rand", *words) == 0
    clean, rows = lines(run)
    given = answers(run, challenge / "mixed_rand" / "val")
    asked = {"00_dog": "Quadruped", "01_bird": "Bird", "03_reptile": "Reptile", "08_fish": "Fish"}
    assert clean.n == len(rows) == 12
    assert {row["label"] for row in rows} == set(asked) == set(clean.details["per_class"])
    assert clean.value == sum(given[name].count(answer) for name, answer in asked.items()) / 12
    shown = {answer: name for name, answer in asked.items()}
    said = [shown.get(answer, answer) for name in asked for answer in given[name]]
    assert [row["clean"] for row in rows] == said
    assert clean.details["data"] == "folder mixed_rand"
    assert judge(run, challenge / "original", *words) == 0
    assert lines(run)[0].details["data"] == "folder original"
    assert len(jobs.verify_run(run.path, {})) == 2


def test_classes_share_an_output_and_outputs_share_a_class(run, challenge):
    """Every answer counts for some class here: which, is in the table."""
    wide = {
        "00_dog": "Quadruped", "04_carnivore": "Quadruped", "02_wheeled vehicle": ["Car", "Bicycle"],
        "03_reptile": ["Reptile", "Snake"], "*": None,
    }  # fmt: skip
    words = ["--data.class-map", json.dumps(wide), "--attacks", "pgd", "--evaluate.eps", "0.3"]
    assert judge(run, challenge / "mixed_rand", *words) == 0
    clean, rows = lines(run)
    given = answers(run, challenge / "mixed_rand" / "val")
    asked = {"01_bird": "Bird", "08_fish": "Fish"} | {name: one for name, one in wide.items() if name != "*"}
    right = sum(answer == one or answer in one for name, one in asked.items() for answer in given[name])
    assert (clean.n, clean.value) == (18, right / 18)
    assert {row["label"] for row in rows} == {*asked, "00_dog + 04_carnivore"} - {"00_dog", "04_carnivore"}
    [verified] = jobs.verify_run(run.path, {})
    assert verified.mismatches == []
    target = next(open_targets(str(run.path), resolved(challenge, wide)))
    assert target.classes == 9  # 11 outputs, of which two pairs are one answer
    logits = load_run(run, "best")[0].eval()(
        torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    )
    seen = target.model(torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0)))
    names = sorted(NAMES)
    largest = torch.maximum(logits[:, names.index("Reptile")], logits[:, names.index("Snake")])
    torch.testing.assert_close(seen[:, target.images.classes.index("03_reptile")], largest)


def resolved(challenge, given):
    return {"data": {"name": "folder", "root": str(challenge / "mixed_rand"), "class_map": given}}


def test_another_map_is_another_evaluation(run, challenge):
    for answer in ("Quadruped", "Biped"):
        given = json.dumps({"00_dog": answer, "*": None})
        assert judge(run, challenge / "mixed_rand", "--data.class-map", given, "--attacks", "none") == 0
    assert len(list(run.path.glob("evaluations/*/identity.json"))) == 2


def test_stylised_images_of_the_same_classes_need_no_map_and_all_count(run, tmp_path):
    generator = np.random.default_rng(2)
    for name in ("Bird", "Car", "Snake"):
        for i in range(4):
            paint(tmp_path / "stylised" / name / f"{i}.png", generator)
    assert judge(run, tmp_path / "stylised", "--attacks", "none") == 0
    clean, rows = lines(run)
    given = answers(run, tmp_path / "stylised")
    assert [row["clean"] for row in rows] == [answer for name in sorted(given) for answer in given[name]]
    assert clean.n == 12  # and not the fifth of it that a model trained there would be tested on
    assert clean.value == sum(given[name].count(name) for name in given) / 12


def test_a_folder_that_a_model_was_trained_on_keeps_its_test_images(trained, tmp_path):
    generator = np.random.default_rng(3)
    for name in ("Bird", "Car"):
        for i in range(10):
            paint(tmp_path / "own" / name / f"{i}.png", generator, (24, 24))
    settings = {
        "name": "own", "runs": str(tmp_path / "runs"), "device": "cpu",
        "data": {"name": "folder", "root": str(tmp_path / "own")},
        "model": {"name": "small-cnn"}, "train": {"method": "clean", "epochs": 1},
    }  # fmt: skip
    run = jobs.train(resolve(settings)).run
    shutil.move(tmp_path / "own", tmp_path / "moved")
    words = ["--data.root", str(tmp_path / "moved"), "--attacks", "none"]
    assert main(["evaluate", str(run.path), *words]) == 0
    assert lines(run)[0].n == 4
    # A copy of the weights alone knows what they were trained on as well.
    shutil.copy(run.checkpoint("best"), tmp_path / "alone.safetensors")
    assert (
        main(["evaluate", str(tmp_path / "alone.safetensors"), "--runs", str(tmp_path / "new"), *words]) == 0
    )
    assert lines(RunDir(tmp_path / "new" / "alone"))[0].n == 4


@pytest.mark.parametrize(
    ("where", "given", "message"),
    [
        ("mixed_rand", None, r"the data has 9 classes .* no output is called '00_dog', '02_wheeled vehicle', '04_"),
        ("", None, r"holds data sets with splits of their own \(mixed_rand, original\): name one of them"),
        ("mixed_rand", {"00_dog": "Dog"}, r"maps '00_dog' to 'Dog', which the model does not answer with"),
        ("mixed_rand", {"00_dogs": 1}, r"'00_dogs', which is no class of the data. Did you mean '00_dog'"),
        ("mixed_rand", {"00_dog": 8}, r"does not map the classes '02_wheeled vehicle', '04_carnivore', '05_"),
        ("mixed_rand", {"00_dog": 1.5, "*": None}, r"must look like .*, and maps '00_dog' to 1.5"),
        ("mixed_rand", {"00_dog": [0, 11], "*": None}, r"to output 11; the model has outputs 0 to 10"),
        ("mixed_rand", {name: None for name in NINE}, r"leaves out every class of the data"),
        ("mixed_rand", {"00_dog": [0, 1], "04_carnivore": [1, 2], "*": None}, r"answers both '00_dog' and '04_carn"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(run, challenge, where, given, message):
    changes = resolved(challenge, given)
    changes["data"]["root"] = str(challenge / where)
    with pytest.raises(UserError, match=message) as told:
        next(open_targets(str(run.path), changes))
    assert "\n" not in str(told.value)


def test_an_empty_class_folder_is_one_line(run, challenge):
    shutil.rmtree(challenge / "original" / "val" / "05_insect")
    (challenge / "original" / "val" / "05_insect").mkdir()
    with pytest.raises(UserError, match=r"05_insect holds no images .* fill or remove it"):
        next(open_targets(str(run.path), {"data": {"name": "folder", "root": str(challenge / "original")}}))


def test_networks_of_timm_answer_with_the_synsets_of_imagenet():
    names = imagenet_names("timm/test_resnet")
    assert (len(names), names[0], names[207]) == (1000, "n01440764", "n02099601")
    assert imagenet_names("timm/vit_base_patch16_clip_224.openai") is None


def test_a_shared_model_keeps_the_map_that_merges_its_outputs(run, challenge, tmp_path):
    """Its folder loads as the merged model, and verifies alone and on the data, without the file of the map."""
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"00_dog": "Quadruped", "02_wheeled vehicle": ["Car", "Bicycle"], "*": None}))
    words = ["--data.class-map", str(file)]
    assert judge(run, challenge / "original", *words, "--attacks", "fgsm") == 0
    data = {"name": "folder", "root": str(challenge / "original"), "class_map": str(file)}
    [target] = list(open_targets(str(run.path), {"data": data}))
    shared = cp.share(run.path, tmp_path / "shared", changes={f"data.{name}": data[name] for name in data})
    assert len(shared.evaluations) == 1
    file.unlink()
    images = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    model = cp.load(tmp_path / "shared")
    with torch.no_grad():
        assert torch.equal(model(images), target.model(images))
        assert model(images).shape == (4, 10)  # eleven outputs, of which two are one answer
    assert "They are answered by 11 outputs of the network" in (tmp_path / "shared" / "README.md").read_text()
    assert main(["verify", str(tmp_path / "shared")]) == 0
    assert main(["verify", str(tmp_path / "shared"), "--data.root", str(challenge / "original")]) == 0
    assert judge(RunDir(tmp_path / "shared"), challenge / "original", "--attacks", "none") == 0
    again = [
        record.value for record in RunDir(tmp_path / "shared").records() if record.name == "accuracy/clean"
    ]
    assert again[0] == again[-1]
    (predicted, *_) = cp.predict(tmp_path / "shared", images)
    assert predicted.label == target.images.classes[int(target.model(images).argmax(1)[0])]


def test_a_shared_model_keeps_evaluations_under_maps_of_single_outputs(run, challenge, tmp_path):
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"00_dog": "Quadruped", "*": None}))
    assert judge(run, challenge / "original", "--data.class-map", str(file), "--attacks", "fgsm") == 0
    shared = cp.share(run.path, tmp_path / "shared")
    assert len(shared.evaluations) == 1
    file.unlink()
    assert main(["verify", str(tmp_path / "shared")]) == 0
    words = ["--data.root", str(challenge / "original")]
    assert main(["verify", str(tmp_path / "shared"), *words]) == 0
    assert torch.equal(
        *(cp.load(place)(torch.zeros(1, 3, 24, 24)) for place in (tmp_path / "shared", run.path))
    )


def test_a_header_that_merges_what_is_not_there_is_damage(run, tmp_path):
    _, about = checkpoint.read(run.checkpoint("best"))
    for groups in (
        [[99]] * 11,
        [[0]],
        [[]] * 11,
        "all",
        [[0], [0], *([k] for k in range(2, 11))],
        [["a"]] * 11,
    ):
        model, _ = load_run(run, "best")
        checkpoint.save_weights(tmp_path / "odd.safetensors", model, {**about, "groups": groups})
        with pytest.raises(UserError, match="merges outputs that the network does not have"):
            cp.load(tmp_path / "odd.safetensors")
