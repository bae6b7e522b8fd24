"""Every command of the README and of docs/ runs, in small; the tables below say how, and which do not and why."""

import contextlib
import json
import pickle
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
from PIL import Image

from counterpart.cli import main
from counterpart.data.corruptions.weather import TEXTURES

ROOT = Path(__file__).parents[2]
# A command that matches is not run, for this reason.
NOT_RUN = (
    (r"--data\.download true", "downloads"),
    (r"timm/|resnet101", "weights of the hub"),
    (r"hf://", "the hub"),
    (r"wrn-34-10@|Rebuffi2021|Carmon2019", "a file of weights of other people"),
    (r"--protocol ", "a whole benchmark"),
    (r"--source (DIR|\S+-C)\b", "the official files of corruptions"),
    (r"postgresql:", "a database server; tests/sweeps starts one"),
    (r"part-imagenet|cityscapes --source|bg_challenge|STYLISED|ade-parts/", "data sets of other people"),
    (r"parts/clean-sweep", "34 trainings"),
    (r"program\.pt", "a program of somebody else; tests/journeys has one"),
    (r"--seeds 0,1,2", "three times another command"),
)
# What stands in place of a reader's own words.
INSTEAD = (
    (r"(folder/finetune.*)--data\.root DIR", r"\1--data.root {home}/photographs"),
    (r"--scale small", "--scale smoke"),
    (r"--n \d+", "--n 2"),
    (r"\bDIR\b", "{home}"),
    (r"\bMASKS\b", "{home}/masks"),
    (r"\bWEIGHTS\b", "runs/cifar10-part"),
    (r"\bFILE\b", "{home}/encoder.safetensors"),
    (r"--optimizer\.warmup-steps \d+", "--optimizer.warmup-steps 1"),
    (r"--attacks patch", "--attacks '[{{attack: patch, steps: 1}}]'"),
    (r"\bTARGET\b", "runs/cifar10-part"),
    (r"\bIMAGES\b", "{home}/photographs/test/cat"),
)
TRAINING = """--threads 1 --train.epochs 1 --train.batch-size 10 --attack.steps 1 --train.precision float32
    --train.validation-n 2"""
# What makes a command that matches short, unless it says the same itself.
MORE = (
    (r"folder/finetune", "--model.name resnet18 --model.pretrained false --data.size 32"),
    (r"counterpart (train|sweep) (cifar10/|digits/|folder/|my.yaml)(?!.*vit)", "--model.width 2"),
    (r"counterpart train", TRAINING),
    (r"counterpart train \S*parts/", "--train.clean-epochs 1 --data.size 32"),
    (r"counterpart (train|sweep) (cifar10|digits|synthetic-parts)/", "--data.limit 20"),
    (r"counterpart evaluate", "--n 2 --threads 1"),
    (r"counterpart (where|audit|corruptions)", "--n 2 --threads 1"),
    (r"counterpart corruptions", "--severities 1"),
    (r"counterpart audit", "--steps 5 --queries 10 --draws 2 --points 10"),
    (r"counterpart papers run", "--dataset cifar10 --scale smoke --threads 1"),
    (r"counterpart sweep", f"{TRAINING} --trials 1"),
)
# What a page takes for granted, and other pages make.
RUNS = ("counterpart train cifar10/part --data.root DIR", "counterpart train cifar10/at --data.root DIR",
        "counterpart train digits/part", "counterpart train digits/at --train.epochs 5",
        "counterpart train synthetic-parts/downsampled")  # fmt: skip
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page):
    """The commands of a page, without their remarks."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ {4,}(counterpart .*)$", text, re.MULTILINE)
    return [re.sub(r"\s{2,}#.*|\s#\s.*|\[--.*\]", "", line).strip() for line in lines]


def reason_not_to_run(command):
    return next((reason for pattern, reason in NOT_RUN if re.search(pattern, command)), None)


def in_small(command, home):
    """The words of a command with files that exist, and with what makes it short."""
    for pattern, replacement in INSTEAD:
        command = re.sub(pattern, replacement.format(home=home), command)
    words = shlex.split(command.partition(" > ")[0])[1:]
    for pattern, options in MORE:
        for option, value in re.findall(r"--(\S+) (\S+)", options) if re.search(pattern, command) else ():
            short = option.rpartition(".")[2]
            if f"--{option} " not in command and (short == "name" or f"--{short} " not in command):
                words += [f"--{option}", value]
    return words


def write_cifar(home):
    random = np.random.default_rng(0)
    folder = home / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = {"data": random.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [*range(10)] * 2}
        (folder / name).write_bytes(pickle.dumps(rows))
    for name in TEXTURES:
        Image.fromarray(random.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save(home / name)
    for split, count in (("train", 100), ("test", 20)):
        (home / "masks" / split).mkdir(parents=True)
        for number in range(count):
            plane = random.integers(0, 2, (32, 32), dtype=np.uint8) * 255
            Image.fromarray(plane).save(home / "masks" / split / f"{number:05d}.png")


def write_photographs(home):
    """Photographs in folders of classes, and the same with LabelMe's files beside them in ``A``."""
    random = np.random.default_rng(1)
    shapes = [{"label": "head", "shape_type": "rectangle", "points": [[4, 4], [20, 20]]},
              {"label": "leg", "shape_type": "rectangle", "points": [[8, 22], [28, 30]]}]  # fmt: skip
    for label in ("cat", "dog"):
        for number in range(12):
            picture = Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            for folder in (
                home / "photographs" / ("train" if number < 8 else "test") / label,
                home / "A" / label,
            ):
                folder.mkdir(parents=True, exist_ok=True)
                picture.save(folder / f"{number}.png")
            about = {"imagePath": f"{number}.png", "imageData": None, "imageHeight": 32, "imageWidth": 32}
            text = json.dumps({"version": "5", "flags": {}, "shapes": shapes, **about})
            (home / "A" / label / f"{number}.json").write_text(text)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("documentation")
    write_cifar(home)
    write_photographs(home)
    (home / "my_models.py").write_text(
        "from counterpart.models import create\n\n\ndef robust():\n    return create('wrn-10-1', 10, width=2)\n"
    )
    (home / "mynets.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Noisy(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.layer = nn.Linear(256, 10)\n\n    def forward(self, images):\n"
        "        return self.layer((images + 0.1 * torch.randn_like(images)).flatten(1))\n\n\n"
        "def noisy():\n    return Noisy()\n"
    )
    (home / "my_tracker.py").write_text("def log(record, run):\n    print(record.name, record.value, run)\n")
    (home / "shared").mkdir()
    (home / "radius.yaml").write_text("mask.eps_low: [0, 0.05]\n")
    encoder = timm.create_model("tf_efficientnet_lite0").state_dict()
    safetensors.torch.save_file(encoder, home / "encoder.safetensors")
    for command in RUNS:
        assert run(command, home) == 0, command
    return home


def run(command, home):
    words = in_small(command, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.syspath_prepend(str(home))
        target = command.partition(" > ")[2]
        with contextlib.ExitStack() as opened:
            if target:
                file = opened.enter_context((home / target).open("w"))
                opened.enter_context(contextlib.redirect_stdout(file))
            return main(words)


def test_what_does_not_run_is_little_and_has_a_reason():
    found = [command for page in PAGES for command in commands(page)]
    reasons = [reason_not_to_run(command) for command in found]
    assert len(found) >= 100
    assert len([reason for reason in reasons if reason]) < len(found) / 3
    for pattern, _ in (*NOT_RUN, *INSTEAD, *MORE):
        assert any(re.search(pattern, command) for command in found), pattern


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page, home, capsys):
    for command in commands(page):
        if not reason_not_to_run(command):
            capsys.readouterr()
            assert run(command, home) == 0, (
                command,
                in_small(command, home),
                capsys.readouterr().err[-2000:],
            )
