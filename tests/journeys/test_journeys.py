"""Four users on their way from an empty environment, by what the documentation says and nothing else."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from tests.journeys import material

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
USERS = ("researcher", "engineer", "part_labels", "auditor")
COMMANDS = r"counterpart (?:data \w+|[a-z]+)"


def result(folder):
    """What the only evaluation of a run folder found."""
    (file,) = folder.glob("evaluations/*/result.json")
    return json.loads(file.read_text(encoding="utf-8"))


def bounds(folder, name="worst case"):
    """The ends of the interval of an accuracy."""
    return result(folder)["counterpart"]["accuracies"][name][1]


def survivors(folder):
    """Whether each image was right and stood every attack, by its index."""
    (file,) = folder.glob("evaluations/*/images.csv")
    with file.open(encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    return {row["index"]: row["clean"] == row["label"] and not row["first_fooled_by"] for row in rows}


def chance_of_luck(before, after):
    """The chance of a difference like this where neither model is better (McNemar's exact test, one-sided)."""
    assert before.keys() == after.keys()
    gained = sum(after[index] and not before[index] for index in before)
    lost = sum(before[index] and not after[index] for index in before)
    return binomtest(gained, gained + lost, alternative="greater").pvalue


def pages_and_words(user):
    """For each line of a journey that runs something: the pages that the remark above it names, and the line."""
    pages = []
    for line in (HERE / user / "journey.sh").read_text(encoding="utf-8").splitlines():
        named = re.findall(r"docs/[\w-]+\.md", line) if line.startswith("#") else []
        pages = named or pages
        if line and not line.startswith("#"):
            yield pages, line


@pytest.mark.parametrize("user", USERS)
def test_every_call_of_a_journey_stands_on_the_pages_that_it_names(user):
    calls = 0
    for pages, line in pages_and_words(user):
        text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in pages)
        if line.startswith("python "):
            program = (HERE / user / line.split()[1]).read_text(encoding="utf-8")
            called = set(re.findall(r"cp\.\w+(?=\()", program))
        else:
            called = set(re.findall(COMMANDS, line)) | set(re.findall(r"--[a-z][\w.-]*", line))
        missing = {name for name in called if name not in text and f"`{name.removeprefix('--')}`" not in text}
        assert not missing, (line, pages)
        calls += len(called)
    assert calls > 5


@pytest.mark.slow
def test_a_researcher_makes_a_table_with_an_attack_and_a_mask_rule_of_hers(walk, tmp_path):
    walk("researcher")
    table = (tmp_path / "table.tex").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if " & " in line]
    assert "methods:momentum steps 20" in rows[0]
    assert [row.partition(" & ")[0] for row in rows[1:]] == ["Clean training", "AT", "AT on strokes"]
    assert (tmp_path / "page.html").stat().st_size > 10_000
    plain, uniform, strokes = (
        survivors(tmp_path / "runs" / name) for name in ("plain", "uniform", "strokes")
    )
    assert chance_of_luck(plain, uniform) < 0.001
    assert chance_of_luck(plain, strokes) < 0.001


@pytest.mark.slow
def test_an_engineer_hardens_a_classifier_of_photographs_and_passes_it_on(walk, real, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    material.write_photographs(tmp_path / "photographs", real)
    said = walk("engineer")
    before, after = (survivors(tmp_path / "runs" / name) for name in ("before", "hardened"))
    assert len(before) == 60
    assert chance_of_luck(before, after) < 0.01
    assert "claims hold" in said.splitlines()[-1]
    assert len(list((tmp_path / "explained" / "pictures").iterdir())) >= 60
    assert len((tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 61
    expected = answers(
        tmp_path, "import counterpart\nmodel = counterpart.load('runs/hardened')\n", alone=False
    )
    for file in ("hardened.onnx", "hardened.pt"):
        code = json.loads((tmp_path / f"{file}.json").read_text(encoding="utf-8"))["code"]
        assert np.abs(answers(tmp_path, code) - expected).max() < 1e-4


def answers(folder, code, *, alone=True):
    """The logits of 20 random images by a model that these lines load, in a process that may lack this package."""
    images = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    np.save(folder / "images.npy", images)
    without = "import sys\nsys.modules['counterpart'] = None\n" if alone else ""
    ask = """
import numpy, torch
images = numpy.load("images.npy")
with torch.no_grad():
    logits = model(torch.from_numpy(images)) if isinstance(model, torch.nn.Module) else model(images)
numpy.save("answers.npy", numpy.asarray(logits))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    program = [sys.executable, "-c", without + code + ask]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "answers.npy")


@pytest.mark.slow
def test_an_owner_of_part_labels_trains_a_model_that_finds_them(walk, tmp_path):
    material.write_labelme(tmp_path / "labelled", None)
    said = walk("part_labels")
    assert "200 images, nothing to mend" in said
    assert (tmp_path / "parts-sheet.png").exists()
    assert (tmp_path / "runs" / "mine" / "report" / "index.html").exists()
    records = (tmp_path / "runs" / "mine" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    measured = {record["name"]: record for record in map(json.loads, records)}
    assert measured["parts/mIoU clean"]["interval"][0] > 0.25  # a background alone has a sixth
    assert measured["parts/mIoU under PGD-20"]["n"] == 20
    assert bounds(tmp_path / "runs" / "mine", "clean")[0] > 0.5


@pytest.mark.slow
def test_an_auditor_judges_models_of_strangers_against_claims(walk, real, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    write = [sys.executable, str(HERE / "strangers.py"), str(tmp_path), *([str(real)] if real else ())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(write, env=environment, capture_output=True, check=True)
    said = walk("auditor")
    runs = tmp_path / "runs"
    verdicts = {}
    for name in ("program", "state-dict", "safetensors", "onnx"):
        (claim,) = result(runs / name)["counterpart"]["claims"]
        verdicts[name] = claim["verdict"]
    assert verdicts == {
        "program": "refuted", "state-dict": "consistent", "safetensors": "refuted", "onnx": "refuted",
    }  # fmt: skip
    # One network in four forms: where attacks see its gradients, the same images stand.
    stood, program = survivors(runs / "safetensors"), survivors(runs / "program")
    assert sum(stood[index] != program[index] for index in stood) <= 2
    elsewhere = said[said.rindex("it verifies alone") :]
    assert len(re.findall(r"(\d+) of \1 claims hold", elsewhere.replace(",", ""))) == 4
