"""On a device nothing lies elsewhere: every method, attack, map, mask and job runs without tensors in two places."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import counterpart as cp
from counterpart import jobs
from counterpart.catalogue import ATTACKS, CONTROLS, MAPS, MASK_RULES, METHODS
from counterpart.config import merge, resolve

SMALL = {
    "device": "cuda",
    "threads": 1,
    "data": {"name": "digits", "size": 8, "flip": True, "padding": 1, "limit": 24},
    "model": {"name": "wrn-10-1", "width": 2},
    "attack": {"eps": 0.1, "steps": 1},
    "train": {
        "epochs": 1, "batch_size": 16, "validation_n": 4, "validation_steps": 1, "precision": "float32",
    },
}  # fmt: skip
PARTS = {
    "data": {"name": "synthetic-parts", "size": 16, "limit": 24},
    "model": {
        "name": "parts/bounding-box", "encoder": "timm/test_resnet", "decoder": "linknet", "depth": 2, "width": None,
    },
    "train": {"batch_size": 8},
}  # fmt: skip
TOKENS = {
    "data": {"size": 16},
    "model": {"name": "timm/test_vit", "patch_size": 8, "width": None},
}
FEW = {
    "steps": 1, "queries": 3, "draws": 1, "search_steps": 1, "targets": 1, "windows": 1, "restarts": 1, "stride": 4,
}  # fmt: skip
RADIUS = {"linf": 0.1, "l2": 0.5, "l1": 4, "l0": 3, "patch": 3}


def train(runs, *changes):
    settings = resolve(merge(SMALL, {"name": "run", "runs": str(runs)}), *changes)
    done = jobs.train(settings)
    assert done.finished
    return done.run.path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network trained on the processor, which stands for what somebody has on disk."""
    changes = {"data": {"limit": 300}, "train": {"method": "part", "epochs": 3}, "optimizer": {"lr": 0.3}}
    mask = {"eps_low": 0.02, "burn_in": 0}
    attack = {"eps": 0.04}
    return train(
        tmp_path_factory.mktemp("runs"), {**changes, "device": "cpu", "attack": attack, "mask": mask}
    )


@pytest.fixture(scope="module")
def trained_on_parts(tmp_path_factory):
    changes = {**PARTS, "device": "cpu", "train": {**PARTS["train"], "method": "at"}}
    return train(tmp_path_factory.mktemp("runs"), changes)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained network's folder, which this test alone writes into."""
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture
def part_run(trained_on_parts, tmp_path):
    return shutil.copytree(trained_on_parts, tmp_path / "copy of parts")


def evaluate(path, attacks, **changes):
    wanted = {"n": 6, "batch_size": 4, "chunk_size": 4, "attacks": attacks, **changes}
    jobs.evaluate(str(path), {"device": "cuda", "evaluate": wanted})


@pytest.mark.parametrize(
    ("method", "generation"),
    [(name, generation) for name, entry in METHODS.items() for generation in entry.facts.generations],
)
def test_every_method_trains(device, tmp_path, method, generation):
    facts = METHODS[method].facts
    changes = {"train": {"method": method}}
    if facts.attacked and generation != "pgd":
        changes["attack"] = {"generation": generation}
    if facts.masked:
        changes["mask"] = {"eps_low": "auto" if method == "part" else 0.05, "burn_in": 0}
    train(tmp_path, changes)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"train": {"ema": 0.5, "awp": 0.01}, "optimizer": {"clip_norm": 1}}, id="average, perturbed"),
        pytest.param({"train": {"precision": "bf16"}, "optimizer": {"name": "adamw"}}, id="bf16 and AdamW"),
        pytest.param({"train": {"method": "trades", "bn_batches": "joint"}}, id="joint"),
        pytest.param({"attack": {"norm": "l2", "eps": 0.5}}, id="l2"),
        pytest.param({"attack": {"norm": "l1", "eps": 4}}, id="l1"),
        pytest.param({**PARTS, "train": {**PARTS["train"], "method": "at"}}, id="parts"),
        pytest.param({**PARTS, "train": {**PARTS["train"], "method": "at", "part_loss": "centroids"}}, id="centroids"),
    ],
)  # fmt: skip
def test_options_of_training(device, tmp_path, changes):
    train(tmp_path, changes)


@pytest.mark.parametrize("rule", [name for name, entry in MASK_RULES.items() if name != "file"])
def test_every_mask_rule(device, tmp_path, rule):
    facts = MASK_RULES[rule].facts
    changes = {"train": {"method": "part"}, "mask": {"rule": rule, "eps_low": 0.05, "burn_in": 0}}
    train(tmp_path, merge(PARTS, changes) if facts.channels or facts.parts else changes)


def test_masks_of_ones_own_and_prediction_of_files(device, tmp_path):
    for number in range(16):
        grey = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        for kind in ("images", "masks"):
            path = tmp_path / kind / ("train" if number < 12 else "test") / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey).save(path)
    mask = {"rule": "file", "files": str(tmp_path / "masks"), "eps_low": 0.05, "burn_in": 0}
    data = {"name": "folder", "root": str(tmp_path / "images"), "limit": None}
    path = train(
        tmp_path / "runs",
        {"data": data, "mask": mask, "train": {"method": "part", "batch_size": 4, "validation_n": 1}},
    )
    assert len(jobs.predict(str(path), [tmp_path / "images" / "test"], "cuda")) == 4


@pytest.mark.parametrize("control", CONTROLS)
def test_every_control(device, tmp_path, control):
    train(
        tmp_path, {"train": {"method": "part"}, "mask": {"control": control, "eps_low": 0.05, "burn_in": 0}}
    )


@pytest.mark.parametrize("name", MAPS)
def test_every_map(device, tmp_path, name):
    changes = {"train": {"method": "part"}, "mask": {"map": name, "eps_low": 0.05, "burn_in": 0}}
    train(tmp_path, merge(changes, TOKENS) if MAPS[name].facts.of_attention else changes)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        (name, norm)
        for name, entry in ATTACKS.items()
        for norm in entry.facts.norms
        if norm == "linf" or not entry.facts.of_parts
    ],
)
def test_every_attack(device, run, part_run, name, norm):
    entry = ATTACKS[name]
    options = {option.name: FEW[option.name] for option in entry.options if option.name in FEW}
    if entry.facts.suite:
        options["version"] = "ten-steps"
    path = part_run if entry.facts.of_parts else run
    evaluate(path, [{"attack": name, **options}], norm=norm, eps=RADIUS[norm])


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"eps": "0.05,0.1,0.2"}, id="several radii"),
        pytest.param({"eps_low": 0.02}, id="masked"),
        pytest.param({"draws": 2, "votes": 2, "eot": 2}, id="draws"),
        pytest.param({"precision": "bf16"}, id="bf16"),
        pytest.param({"individual": True}, id="individual"),
        pytest.param({"sampled": 2}, id="a sample"),
        pytest.param({"sampled": "auto", "sampled_width": 0.2}, id="a sample in rounds"),
        pytest.param({"norm": "linf,l2", "eps": "0.1,0.5"}, id="a union of norms"),
    ],
)
def test_every_kind_of_evaluation(device, run, changes):
    evaluate(
        run,
        [{"attack": "pgd", "steps": 1}, {"attack": "fab", "steps": 1}][: 1 if "draws" in changes else 2],
        **changes,
    )


def test_every_claim_is_verified(device, run):
    evaluate(run, [{"attack": "pgd", "steps": 2}], eps=0.3)
    (verified,) = jobs.verify_run(run, {"device": "cuda"})
    assert verified.claims > verified.successes > 0
    assert not verified.mismatches


def test_an_audit(device, run):
    changes = {"device": "cuda", "evaluate": {"n": 6, "batch_size": 6, "eps": 0.02}}
    assert jobs.audit_named(str(run), changes, steps=2, queries=2, draws=2, traced=2, points=2)


def test_corruptions(device, part_run):
    changes = {"device": "cuda", "evaluate": {"n": 2}, "corruptions": {"severities": [1]}}
    assert jobs.evaluate_corruptions(str(part_run), changes)


def test_a_where_profile(device, run):
    options = jobs.WhereOptions(regions=("top", "bottom"), shares=(0.5,), draws=1)
    changes = {"device": "cuda", "evaluate": {"n": 4, "attacks": [{"attack": "pgd", "steps": 1}]}}
    assert jobs.profile_named(str(run), changes, options)


def test_pseudo_labels(device, tmp_path):
    root, source = tmp_path / "source", np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for name, part in (("cat", 1), ("dog", 2)):
            for number in range(count):
                image, mask = (root / kind / split / name / f"{number}.png" for kind in ("images", "parts"))
                image.parent.mkdir(parents=True, exist_ok=True)
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(source.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(image)
                if number == 0:
                    Image.fromarray(np.full((16, 16), part, np.uint8)).save(mask)
    (root / "parts.json").write_text(json.dumps({"parts": {"cat": {"head": 1}, "dog": {"head": 2}}}))
    data = {"name": "parts", "root": str(root), "limit": None, "size": 16}
    network = {"name": "parts/pixel", "encoder": "timm/test_resnet", "depth": 3, "width": None}
    trained = {"method": "clean", "c_seg": 1, "batch_size": 4, "validation_n": 2}
    path = train(tmp_path / "runs", {"data": data, "model": network, "train": trained})
    labelled = jobs.pseudo_label(str(path), tmp_path / "new", changes={"device": "cuda"})
    assert labelled.counts["predicted"] == 4


ATTACK_FUNCTIONS = [
    name for name, entry in ATTACKS.items() if not entry.facts.of_parts and not entry.facts.suite
]  # fmt: skip


@pytest.mark.parametrize("name", [*ATTACK_FUNCTIONS, "autoattack"])
@pytest.mark.parametrize("given", ["no keys", "keys on the processor"])
def test_attacks_of_ones_own_loop_take_keys_from_anywhere(device, name, given):
    """As in README.md: images and model lie on the device, and whoever makes keys does not think of it."""
    code = ATTACKS[name].code.rpartition(":")[2]
    attack = getattr(cp, "auto_attack" if name == "autoattack" else code)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3)).to("cuda")
    images, labels = torch.rand(4, 1, 6, 6).to("cuda"), torch.tensor([0, 1, 2, 0]).to("cuda")
    norm = ATTACKS[name].facts.norms[0]
    budget = {"linf": cp.Linf, "l2": cp.L2, "l1": cp.L1, "l0": cp.L0, "patch": cp.Patch}[norm](RADIUS[norm])
    options = {option.name: FEW[option.name] for option in ATTACKS[name].options if option.name in FEW}
    keys = {} if given == "no keys" else {"keys": cp.Keys(0, "own loop", torch.arange(4))}
    if name == "autoattack":
        budget, options = cp.Linf(0.9), {"version": "ten-steps"}  # so far that all images fall at once
    attacked = attack(model, images, labels, budget=budget, **keys, **options)
    assert attacked.images.is_cuda
    assert budget.contains(attacked.images, images).all()


def test_the_functions_of_python(device):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(2, 3)
    )
    images, labels = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    model.to("cuda")
    judged = cp.evaluate(model, (images, labels), attacks=[{"attack": "pgd", "steps": 1}], eps=0.1)
    assert judged["clean"].n == 6
    seen = cp.explain(model, images.to("cuda"), eps=0.1, steps=1, changes={"mask.layer": "0"})
    assert seen.attacked.is_cuda
