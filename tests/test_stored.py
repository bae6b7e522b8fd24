"""Folders and numbers of an old form (tests/stored): whatever is renamed, they go on as if nothing had been."""

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from counterpart import recipes
from counterpart.build import hash_config, name_method
from counterpart.catalogue import DATA_SETS
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.jobs.case import case_of
from counterpart.jobs.targets import open_targets
from counterpart.records import fingerprint
from counterpart.renamed_settings import in_current_words
from counterpart.rundir import read_json
from counterpart.seeding import Keys, derive

STORED = Path(__file__).parent / "stored"
COMMANDS = yaml.safe_load((STORED / "commands.yaml").read_text())

RENAMED = {
    "--part.masks ": "--mask.files ",
    "--part.mask ": "--mask.rule ",
    "--part.": "--mask.",
    "part/table-1 ": "parts/table-1 ",
}
"""What was typed for the stored folders -> what is typed today, such as "--part.mask " -> "--mask.rule "."""


def resolved(old):
    """A configuration that is written in the words of the stored folders."""
    return resolve(in_current_words(old))


def today(line):
    """A line of commands.yaml as words of today."""
    for old, new in {"SMALL": COMMANDS["SMALL"], "TINY": COMMANDS["TINY"], **RENAMED}.items():
        line = line.replace(old, new)
    return shlex.split(line)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A working folder with copies of everything."""
    here = Path(shutil.copytree(STORED, tmp_path / "stored"))
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield here
    sys.modules.pop("usernets", None)


def files_of(folder):
    """Path -> content of what must not be touched by a command that has nothing to do."""
    kept = (".safetensors", ".jsonl", "config.yaml", "environment.json", "identity.json")
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name.endswith(kept) or path.parent.name == "units"
    }


def records_of(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def skip_where_drawn_otherwise(here):
    """Drawn images hang on the rounding of cosines: on another processor they may be other data, which is refused."""
    epoch = next(r for r in records_of(here / "runs" / "parts") if r["kind"] == "epoch")
    data = DATA_SETS["synthetic-parts"].load()(None, size=16)
    means = (data.test.pixels[:6].float() / 255).mean(dim=(1, 2, 3))
    assert means.tolist() == pytest.approx(PARTS_MEANS, abs=1e-3)
    if data.test.fingerprint != epoch["details"]["fingerprint"]:
        pytest.skip("this processor rounds the drawn images of synthetic-parts otherwise")


PARTS_MEANS = [0.6568, 0.3579, 0.3877, 0.4145, 0.3366, 0.3239]

# Evaluations ------------------------------------------------------------------------------------------------------

KEYS = {
    "at": ("runs/at", "5ae0e76453c1"),
    "part-uniform": ("runs/part-uniform", "97609c466e77"),
    "part-uniform mask-aware": ("runs/part-uniform", "0f2e47f5542e"),
    "part-quantile mask-aware": ("runs/part-quantile", "9039a9dc16b6"),
    "group": ("runs/group/seed-0", "fffa2c8fa930"),
    "outside": ("runs/usernets-linear", "4b12f8df6d24"),
    "parts": ("runs/parts", "1bce77a43b3a"),
}
HALF_JUDGED = "4b1347f29116"


@pytest.mark.parametrize("name", KEYS)
def test_an_evaluation_is_found_again_under_its_key(stored, name, capsys):
    run, key = KEYS[name]
    if name == "parts":
        skip_where_drawn_otherwise(stored)
    before = files_of(stored)
    assert main(["evaluate", *today(COMMANDS["evaluate"][name])]) == 0
    assert files_of(stored) == before
    identity = json.loads((stored / run / "evaluations" / key / "identity.json").read_text())
    assert fingerprint(identity) == key
    assert "clean" in capsys.readouterr().out


@pytest.mark.parametrize("name", KEYS)
def test_an_evaluation_made_anew_finds_the_same(stored, name):
    run, key = KEYS[name]
    if name == "parts":
        skip_where_drawn_otherwise(stored)
    folder = stored / run / "evaluations" / key
    old = folder.rename(stored / "old")
    (stored / run / "records.jsonl").unlink()
    assert main(["evaluate", *today(COMMANDS["evaluate"][name])]) == 0
    there = {path.name for path in (STORED / run / "evaluations").iterdir()}
    assert {path.name for path in folder.parent.iterdir()} == there
    assert read_json(folder / "identity.json") == read_json(old / "identity.json")
    assert sorted(p.name for p in (folder / "units").iterdir()) == sorted(
        p.name for p in (old / "units").iterdir()
    )
    for unit in (folder / "units").iterdir():
        assert_same_but_for_one(
            json.loads(unit.read_text()), json.loads((old / "units" / unit.name).read_text())
        )
    if (old / "radii.safetensors").exists():
        planes, expected = (load_file(place / "radii.safetensors") for place in (folder, old))
        assert planes.keys() == expected.keys()
        assert all((planes[k] - expected[k]).abs().double().mean() < 1e-3 for k in planes)
    values = {r["name"]: r["value"] for r in records_of(stored / run) if r["kind"] == "metric"}
    for record in records_of(STORED / run):
        if record["kind"] == "metric" and record["details"].get("evaluation") == key:
            assert values[record["name"]] == pytest.approx(
                record["value"], abs=1 / 6 if name == "parts" else 1 / 20
            )


def assert_same_but_for_one(unit, expected):
    """One image may fall on another side of a rounding."""

    def fooled(rows):
        return {p for p, hit in zip(rows["positions"], rows["fooled"], strict=True) if hit}

    assert len(fooled(unit) ^ fooled(expected)) <= 1
    answers, others = (
        dict(zip(rows["positions"], rows["answers"], strict=True)) for rows in (unit, expected)
    )
    assert len(set(answers.items()) ^ set(others.items())) <= 2


def test_a_killed_evaluation_is_completed_under_its_key(stored):
    folder = stored / "runs" / "at" / "evaluations" / HALF_JUDGED
    there = {path.name: path.read_bytes() for path in (folder / "units").iterdir()}
    assert set(there) == {"clean-00000.json", "clean-00001.json", "PGD-2-00000.json", "PGD-2-00001.json"}
    others = {path.name for path in folder.parent.iterdir()}
    assert main(["evaluate", *today(COMMANDS["evaluate"]["at half-judged"])]) == 0
    assert {path.name for path in folder.parent.iterdir()} == others
    whole = stored / "ends" / "half-judged"
    assert {path.name for path in (folder / "units").iterdir()} == {path.name for path in whole.iterdir()}
    for unit in (folder / "units").iterdir():
        if unit.name in there:
            assert unit.read_bytes() == there[unit.name]
        assert_same_but_for_one(json.loads(unit.read_text()), json.loads((whole / unit.name).read_text()))
    made = {
        r["name"] for r in records_of(stored / "runs" / "at") if r["details"].get("evaluation") == HALF_JUDGED
    }
    assert made >= {
        "accuracy/clean",
        "accuracy/PGD-2",
        "accuracy/Square-12",
        "accuracy/MM2-3",
        "accuracy/worst case",
    }
    assert main(["verify", "runs/at"]) == 0


@pytest.mark.parametrize("run", ["part-uniform", "part-quantile", "group", "usernets-linear", "parts"])
def test_what_was_claimed_is_verified(stored, run):
    if run == "parts":
        skip_where_drawn_otherwise(stored)
    assert main(["verify", f"runs/{run}"]) == 0
    members = [stored / "runs" / run, *(stored / "runs" / run).glob("seed-*")]
    verified = [
        r for m in members if (m / "records.jsonl").exists() for r in records_of(m) if r["name"] == "verified"
    ]
    assert {r["details"]["evaluation"] for r in verified} == {
        key for folder, key in KEYS.values() if Path(folder).parts[1] == run
    }
    assert all(r["value"] == 1 and r["n"] > 0 for r in verified)


def test_a_report_tells_of_all_of_them(stored):
    names = ["at", "part-uniform", "part-quantile", "part-file", "group", "usernets-linear", "parts"]
    assert main(["report", *(f"runs/{name}" for name in names), "--output", "page.html"]) == 0
    page = (stored / "page.html").read_text()
    assert all(name in page for name in names)
    for name in ("at", "part-uniform", "part-quantile", "group"):
        run, key = KEYS[name] if name != "part-quantile" else KEYS["part-quantile mask-aware"]
        worst = next(
            r["value"]
            for r in records_of(stored / run)
            if r["name"] == "accuracy/worst case" and r["details"]["evaluation"] == key
        )
        assert f"{100 * worst:.2f}" in page


# Trainings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in COMMANDS["train"] if name != "stopped"])
def test_a_finished_training_knows_that_it_is_finished(stored, name, capsys):
    if name == "parts":
        skip_where_drawn_otherwise(stored)
    before = files_of(stored)
    assert main(["train", *today(COMMANDS["train"][name])]) == 0
    assert "Trained" in capsys.readouterr().out
    assert files_of(stored) == before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("at", "--attack.eps 0.05"),
        ("part-uniform", "--part.control random"),
        ("part-quantile", "--part.quantile 0.3"),
        ("part-uniform", "--part.eps-low 0.02"),
        ("part-quantile", "--part.map-class margin"),
    ],
)
def test_a_training_with_another_setting_is_another(stored, name, change, capsys):
    before = files_of(stored)
    assert main(["train", *today(f"{COMMANDS['train'][name]} {change}")]) == 2
    assert "another configuration" in capsys.readouterr().err
    assert files_of(stored) == before


def test_a_stopped_training_ends_as_if_it_had_not_been_stopped(stored):
    run = stored / "runs" / "stopped"
    assert [r["details"]["phase"] for r in records_of(run)] == ["burn-in", "part"]
    first = (run / "records.jsonl").read_bytes()
    assert main(["train", *today(COMMANDS["train"]["stopped"])]) == 0
    assert (run / "records.jsonl").read_bytes().startswith(first)
    assert [r["details"]["phase"] for r in records_of(run)] == ["burn-in", *["part"] * 3]
    assert len({r["config"] for r in records_of(run)}) == 1
    assert_same_weights(run / "checkpoints" / "last.safetensors", stored / "ends" / "stopped.safetensors")


def test_a_training_made_anew_ends_with_the_same_weights(stored):
    """Without attacks, whose signs would make of each rounding another training: tools/same-numbers has those."""
    assert main(["train", *today(COMMANDS["anew"])]) == 0
    run = stored / "runs" / "anew"
    assert_same_weights(run / "checkpoints" / "last.safetensors", stored / "ends" / "anew.safetensors")
    assert {r["config"] for r in records_of(run)} == {"259617a81206"}


def assert_same_weights(file, expected):
    """Within what another processor rounds otherwise."""
    made, wanted = load_file(file), load_file(expected)
    names = [name for name in wanted if name.startswith("model.")]
    assert len(names) > 20
    for name in names:
        assert (made[name] - wanted[name]).abs().max() <= 1e-3, name


@pytest.mark.slow
def test_another_seed_joins_its_group(stored):
    first = files_of(stored / "runs" / "group" / "seed-0")
    line = COMMANDS["train"]["group"].replace("--seeds 0", "--seeds 0,1")
    assert main(["train", *today(line)]) == 0
    assert files_of(stored / "runs" / "group" / "seed-0") == first
    assert main(["evaluate", *today(COMMANDS["evaluate"]["group"])]) == 0
    assert files_of(stored / "runs" / "group" / "seed-0") == first
    means = {r["name"]: r for r in records_of(stored / "runs" / "group") if r["details"]["seeds"] == [0, 1]}
    assert {"mean over seeds/validation_clean", "mean over seeds/accuracy/worst case"} <= means.keys()
    mean = means["mean over seeds/accuracy/worst case"]
    each = [
        next(
            r["value"]
            for r in records_of(stored / "runs" / "group" / seed)
            if r["name"] == "accuracy/worst case"
        )
        for seed in ("seed-0", "seed-1")
    ]
    assert mean["details"]["values"] == each
    assert mean["value"] == pytest.approx(sum(each) / 2)
    assert main(["report", "runs/group", "runs/at", "--output", "page.html"]) == 0
    assert "2<small>seeds 0, 1</small>" in (stored / "page.html").read_text()


# Papers -----------------------------------------------------------------------------------------------------------


def test_a_row_of_a_paper_is_found_again_and_gets_another_column(stored, capsys):
    smoke = stored / "runs" / "papers" / "smoke"
    run = smoke / "digits-part+part.map=layer-cam-seed-0"
    before = files_of(stored)
    assert main(["papers", "run", *today(COMMANDS["papers"])]) == 0
    assert "(2.8 to 30.1)" in capsys.readouterr().out
    assert files_of(stored) == before
    line = COMMANDS["papers"].replace("natural,PGD-20", "natural,PGD-20,MMA")
    assert main(["papers", "run", *today(line)]) == 0
    assert [path.name for path in smoke.iterdir() if path.is_dir()] == [run.name]
    weights = run / "checkpoints" / "last.safetensors"
    assert weights.read_bytes() == before[weights.relative_to(stored)]
    rows = [json.loads(line) for line in (smoke / "pixel-table-6-digits.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == ["LayerCAM/natural", "LayerCAM/PGD-20", "LayerCAM/MMA"]


def test_the_records_of_a_row_of_a_paper_on_parts_are_found_again(stored, capsys):
    before = files_of(stored)
    assert main(["papers", "run", *today(COMMANDS["papers-of-parts"])]) == 0  # it has no run any more
    assert "12.50" in capsys.readouterr().out
    assert files_of(stored) == before


# Numbers ----------------------------------------------------------------------------------------------------------

CONFIGURATIONS = yaml.safe_load((STORED / "configurations.yaml").read_text())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_keeps_its_hash_and_its_method(name):
    old, key, method = CONFIGURATIONS[name]
    config = resolved(old)
    assert hash_config(config) == key
    assert name_method(config) == method


CHANGED = {  # recipes that are others now, and the settings that make them what they were
    name: {"mask": {"layer": None}}  # the authors' code draws maps of wide networks at block3
    for name in recipes.names()
    if name.startswith("tiny-imagenet/part")
}


def test_every_recipe_keeps_its_hash_and_its_method():
    stored = json.loads((STORED / "recipes.json").read_text())
    now = {}
    for name in stored:
        config = resolve(recipes.load(name), CHANGED.get(name, {}))
        now[name] = [hash_config(config), name_method(config)]
    assert now == stored


APGD_T = [f"apgd-t target {k}" for k in range(1, 10)]
FAB_T = [f"fab-t target {k}" for k in range(1, 10)]
NAMES = {
    ("quick", "linf"): ["PGD-20", "PGD-50x5 margin"],
    ("published-part", "linf"): [
        "PGD-20 step 2/255", "MM3-20", "10-step apgd-ce", *(f"10-step {name}" for name in APGD_T),
        *(f"10-step {name}" for name in FAB_T), "10-step square",
    ],
    ("autoattack", "linf"): ["apgd-ce", *APGD_T, *FAB_T, "square"],
    ("autoattack", "l1"): ["apgd-ce", *APGD_T[:5], *FAB_T, "square"],
    ("autoattack-plus", "l2"): ["apgd-ce", "apgd-dlr", "fab", "square", *APGD_T, *FAB_T],
    ("autoattack-rand", "linf"): ["apgd-ce", "apgd-dlr"],
    ("autoattack-few-classes", "linf"): ["apgd-ce", "fab", "square"],
    ("mm3", "linf"): ["MM3-20"],
    ("mm9", "linf"): ["MM9-20"],
    ("mm+", "linf"): ["MM9-100"],
    ("pgd,fgsm,apgd,fab,square,minimum-margin,rays,random-search", "linf"): [
        "PGD-20", "FGSM", "APGD-100", "FAB-100", "Square-5000", "MM3-20", "RayS-10000", "random search-100",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("suite", "norm"), NAMES)
def test_the_attacks_of_a_suite_keep_their_names(stored, suite, norm):
    assert names_of("runs/at", attacks=suite, norm=norm, eps=0.5) == NAMES[suite, norm]


def names_of(target, **evaluate):
    """The attacks of an evaluation, which seed its draws."""
    [opened] = open_targets(target, {"evaluate": {"n": 12, **evaluate}})
    return [named.name for named in case_of(opened).attacks]


OPTIONS = [
    (
        {"attack": "pgd", "steps": 50, "restarts": 5, "loss": "margin", "step_size": 0.01},
        "PGD-50x5 margin step 0.01",
    ),
    ({"attack": "pgd", "target": 2, "surrogate": "runs/at"}, "PGD-20 target 2 from runs/at"),
    ({"attack": "fgsm", "loss": "dlr"}, "FGSM dlr"),
    ({"attack": "apgd", "eot": 3, "steps": 7, "target": 1}, "APGD-7 target 1 eot 3"),
    ({"attack": "fab", "target": 2, "restarts": 2}, "FAB-100x2 target 2"),
    ({"attack": "minimum-margin", "targets": 4, "steps": 9}, "MM4-9"),
    ({"attack": "square", "queries": 30}, "Square-30"),
    ({"attack": "rays", "queries": 40}, "RayS-40"),
    ({"attack": "random-search", "draws": 5}, "random search-5"),
    ({"attack": "pgd", "step_size": "2/255"}, "PGD-20 step 2/255"),
]


@pytest.mark.parametrize(("spec", "name"), OPTIONS, ids=[name for _, name in OPTIONS])
def test_an_attack_with_options_keeps_its_name(stored, spec, name):
    assert names_of("runs/at", attacks=[spec]) == [name]


def test_the_attacks_on_parts_keep_their_names(stored):
    assert names_of("runs/parts", attacks="parts-worst-case") == PART_NAMES


PART_NAMES = [
    "apgd-ce", *APGD_T[:5], *FAB_T[:5], "square", "single-staged-100x5", "two-staged-100x5 untargeted",
    "two-staged-100x5", "two-staged-100x5 likely", "two-staged-100x5 most-confident", "two-staged-100x5 sorted",
    "RayS-10000",
]  # fmt: skip


def test_draws_stay():
    keys = Keys(0, "PGD-20", torch.tensor([0, 1, 41]))
    expected = [
        [0.46919459104537964, 0.4882197380065918],
        [0.5130858421325684, 0.15774387121200562],
        [0.791050910949707, 0.7749019265174866],
    ]
    assert keys.uniform(0, (2,)).tolist() == expected
    expected = [
        [0.4989868402481079, 0.8878356218338013],
        [0.7049849033355713, 0.5496902465820312],
        [0.7101333141326904, 0.9944374561309814],
    ]
    assert keys.fold("restart", 1).uniform(3, (2,), stream=1).tolist() == expected
    assert keys.integers(2, 1000).tolist() == [720, 605, 358]
    normal = keys.normal(1, (2,))
    assert normal[0].tolist() == pytest.approx([-0.08354665338993073, -0.3413132131099701], abs=1e-5)
    bits = Keys(7, "apgd-t target 3", torch.tensor([5])).bits(0, (2,))
    assert bits.tolist() == [[-3994141855833896997, -992516453027794037]]
    assert derive(0, "order", 3) == 228291028133782092
    assert derive(0, "initialisation") == 1524489256608302450


def test_the_stored_folders_are_small_and_hold_no_path_of_a_machine():
    files = [path for path in STORED.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert max(path.stat().st_size for path in files) < 300_000
    words = [f"{os.sep}{name}{os.sep}".encode() for name in ("home", "root", "tmp", "work", "Users", "mnt")]
    assert not [path for path in files if any(word in path.read_bytes() for word in words)]
