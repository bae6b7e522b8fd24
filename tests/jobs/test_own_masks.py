"""A run under masks of the user's own, through the commands: trained, continued, evaluated, verified."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from counterpart.cli import main
from counterpart.rundir import RunDir

SIDE, LOW, EPS = 8, 0.05, 0.1


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """48 images of two classes with masks, and a run of two epochs on them; image train/a/0 has none."""
    home = tmp_path_factory.mktemp("own")
    for split, count in (("train", 36), ("test", 12)):
        for number in range(count):
            grey = np.random.default_rng(number + count).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
            for kind, ending in (("images", "bmp"), ("masks", "png")):
                path = home / kind / split / "ab"[number % 2] / f"{number}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(grey).save(path)
    (home / "masks" / "train" / "a" / "0.png").unlink()
    settings = f"""
        runs: {home}/runs
        device: cpu
        data: {{name: folder, root: {home}/images, padding: 1}}
        model: {{name: wrn-10-1, width: 2}}
        attack: {{eps: {EPS}, steps: 1}}
        mask: {{rule: file, files: {home}/masks, eps_low: {LOW}, burn_in: 0}}
        train: {{method: part, epochs: 2, batch_size: 16, precision: float32, validation_n: 2, validation_steps: 1}}
    """
    (home / "own.yaml").write_text(settings)
    assert main(["train", str(home / "own.yaml")]) == 0
    return home


@pytest.fixture
def copied(home, tmp_path):
    """The run, the masks and the recipe, of one's own."""
    shutil.copytree(home / "masks", tmp_path / "masks")
    shutil.copytree(home / "runs", tmp_path / "runs")
    return RunDir(tmp_path / "runs" / "own")


def refused(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()
    return line


def panel(path):
    """The caption of the panel that was made last."""
    return [r.details["caption"] for r in RunDir(path).records() if r.name == "panel"][-1]


def again(home, copied, *words):
    folder = copied.path.parent.parent
    return ["train", home / "own.yaml", "--runs", folder / "runs", "--mask.files", folder / "masks", *words]


def test_training_sees_the_masks_and_counts_who_has_none(home):
    rows = [r.details for r in RunDir(home / "runs" / "own").records() if r.kind == "epoch"]
    assert [row["flat_maps"] for row in rows] in ([1, 1], [0, 0])  # 0: held out for validation
    assert all(LOW < row["mean_radius"] < EPS for row in rows)
    assert len({row["masks"] for row in rows}) == 1


def test_masks_that_moved_are_the_same_and_masks_that_changed_are_not(home, copied, capsys):
    assert main([str(word) for word in again(home, copied)]) == 0  # finished already
    for file in (copied.path.parent.parent / "masks" / "train").rglob("*.png"):
        Image.new("L", (SIDE, SIDE), 7).save(file)
    line = refused(capsys, *again(home, copied))
    assert "was made with something else (masks " in line
    assert "Put back what changed, or start another run with --name." in line


@pytest.mark.slow
def test_an_evaluation_needs_no_masks_and_a_mask_aware_one_those_of_its_split(home, copied, capsys):
    masks, run = home / "masks", copied.path
    words = ["evaluate", run, "--attacks", "[{steps: 1}]", "--device", "cpu", "--eps", "0.2"]
    shutil.move(masks, masks.with_name("moved"))
    try:
        assert main([str(word) for word in words]) == 0
        assert "mask is a file for each training image, which these images lack" in panel(run)
        assert f"mask.files: {masks} is missing" in refused(capsys, *words, "--eps-low", "0.1")
        mine = run.parent.parent / "masks"
        assert main([str(word) for word in [*words, "--eps-low", "0.1", "--mask.files", mine]]) == 0
        assert "lack" not in panel(run)
        [file] = run.glob("evaluations/*/radii.safetensors")
        radii = load_file(file)["radii"][:, 0]
        names = sorted(f"{'ab'[n % 2]}/{n}" for n in range(12))
        shares = [
            torch.from_numpy(np.array(Image.open(mine / "test" / f"{name}.png"))) / 255 for name in names
        ]
        torch.testing.assert_close(radii, 0.1 + 0.1 * torch.stack(shares))
        assert main(["verify", str(run)]) == 0  # by the planes that were kept
        shutil.rmtree(mine / "test")
        assert "no mask for any test image" in refused(
            capsys, *words, "--eps-low", "0.1", "--mask.files", mine
        )
        assert "--mask.rule has no effect here" in refused(capsys, *words, "--mask.rule", "paper")
    finally:
        shutil.move(masks.with_name("moved"), masks)


@pytest.mark.parametrize("control", ["uniform", "shuffled"])
def test_controls_of_own_masks_train(home, copied, control):
    words = again(home, copied, "--name", control, "--mask.control", control, "--train.epochs", 1)
    assert main([str(word) for word in words]) == 0
    [row] = [r.details for r in RunDir(copied.path.parent / control).records() if r.kind == "epoch"]
    assert LOW < row["mean_radius"] < EPS


def test_two_evaluations_differ_where_masks_do(home, copied):
    mine = copied.path.parent.parent / "masks"
    words = ["evaluate", copied.path, "--attacks", "[{steps: 1}]", "--device", "cpu", "--eps-low", "0.02",
             "--mask.files", mine]  # fmt: skip
    for value in (0, 255):
        Image.new("L", (SIDE, SIDE), value).save(mine / "test" / "a" / "0.png")
        assert main([str(word) for word in words]) == 0
    assert len(list(copied.path.glob("evaluations/*"))) == 2
