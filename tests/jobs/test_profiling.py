"""Where-profiles in a run folder: they resume, use part masks and maps of any kind, and refuse what cannot be meant."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import counterpart
from counterpart import jobs
from counterpart.cli import main
from counterpart.cli.where import read_shares
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.jobs import sizes
from counterpart.papers import cells
from counterpart.rundir import RunDir, read_json

SOURCE = str(Path(counterpart.__file__).parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
WORDS = ["--attacks", "[{steps: 3}]", "--n", "40", "--eps", "0.1", "--chunk-size", "20", "--threads", "1"]
FEW = ["--shares", "25%,0.5", "--draws", "1"]
PARTS = {
    "device": "cpu",
    "data": {"name": "synthetic-parts", "size": 16, "limit": 25, "padding": 1},
    "model": {"name": "parts/downsampled", "encoder": "timm/test_resnet", "depth": 3},
    "attack": {"eps": 0.05, "steps": 1},
    "train": {
        "method": "at", "c_seg": 0.4, "epochs": 1, "batch_size": 12, "precision": "float32", "validation_steps": 1,
        "validation_n": 12,
    },
}  # fmt: skip


def words_of(run, *more):
    return ["where", str(run.path), "--device", "cpu", *WORDS, *FEW, *more]


def units_of(run):
    """What every ledger of the profiles says, but for how long it took."""
    units = {}
    for file in sorted(run.path.rglob("where/**/units/*.json")):
        unit = read_json(file)
        del unit["seconds"]
        units[file.relative_to(run.path).as_posix()] = unit
    return units


def values_of(run):
    return {r.name: (r.value, r.interval) for r in run.records() if r.name.startswith("where/")}


def test_a_profile_that_is_stopped_goes_on_and_ends_as_in_one_go(run, tmp_path, capsys):
    whole, stopped = run, RunDir(tmp_path / "stopped" / "digits")
    shutil.copytree(run.path, stopped.path)
    program = [sys.executable, "-m", "counterpart", *words_of(stopped)]
    started = subprocess.Popen(program, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while len(units_of(stopped)) < 5 and started.poll() is None:
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    said = started.communicate(timeout=60)[1]
    assert (started.returncode, said.strip().splitlines()[-1]) == (
        130, "Stopped. The same command continues from the last checkpoint.",
    )  # fmt: skip
    before = units_of(stopped)
    [family] = (stopped.path / "where").iterdir()
    half_written = family / "grad-cam" / f".maps.safetensors.{2**22 + 1}"  # no process has a number so high
    half_written.parent.mkdir(exist_ok=True)
    half_written.write_bytes(b"half")
    assert main(words_of(whole)) == main(words_of(stopped)) == 0
    assert not half_written.exists()
    assert 5 <= len(before) < len(units_of(whole))
    assert before.items() <= units_of(stopped).items()
    assert units_of(stopped) == units_of(whole)
    assert values_of(stopped) == values_of(whole)
    assert "Area between the curves, bottom - top:" in capsys.readouterr().out
    assert {r.details["share"] for r in whole.records() if r.details.get("kind") == "top"} == {0.25, 0.5}


def test_other_maps_lie_beside_each_other_and_share_the_plain_attack(run):
    first = ["--regions", "top", "--map", "layer-cam", "--map-class", "margin"]
    assert main(words_of(run)) == main(words_of(run, *first)) == 0
    [family] = (run.path / "where").iterdir()
    # On a larger device, the next start goes on in the batches of this one.
    asked = {name: size for name, size in read_json(family / "identity.json").items() if name != "batch_size"}
    assert sizes._earlier_sizes(run.path / "where", asked, ["batch_size"]) == {"batch_size": 256}
    assert {folder.name for folder in family.iterdir() if folder.is_dir()} == {
        "everything", "grad-cam", "layer-cam-of-margin",
    }  # fmt: skip
    keys = {r.details["where"] for r in run.records() if r.name.startswith("where/")}
    assert keys == {f"{family.name} grad-cam", f"{family.name} layer-cam of margin"}


def test_masks_of_ones_own_stand_in_place_of_a_map(run, tmp_path):
    images = next(jobs.open_targets(str(run.path), {})).images
    for name in images.names:
        path = tmp_path / "masks" / Path(name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros(images.shape[1:], dtype=np.uint8)
        mask[:, : mask.shape[1] // 2] = 255
        Image.fromarray(mask).save(path)
    options = jobs.WhereOptions(shares=[0.5], draws=1, masks=tmp_path / "masks")
    given = {"evaluate": {"n": 20, "attacks": [{"steps": 2}], "eps": 0.1}, "device": "cpu"}
    [profiled] = jobs.profile_named(str(run.path), given, options)
    assert [row.region for row in profiled.rows] == ["everything", "top 50%", "bottom 50%"]
    assert profiled.rows[1].random["other"].difference.mean == 0  # all masks are the same
    path.unlink()
    with pytest.raises(UserError, match="has no mask for 1 of the"):
        jobs.profile_named(str(run.path), {**given, "evaluate": {"attacks": [{"steps": 2}]}}, options)


@pytest.fixture(scope="module")
def of_parts(tmp_path_factory):
    return jobs.train(resolve(PARTS, {"name": "parts", "runs": str(tmp_path_factory.mktemp("parts"))})).run


def test_object_background_and_parts_are_regions_of_annotated_data(of_parts):
    given = {"evaluate": {"n": 24, "attacks": [{"steps": 2}], "eps": 0.1}}
    [profiled] = jobs.profile_named(str(of_parts.path), given, jobs.WhereOptions(shares=[0.5], draws=2))
    rows = {row.region: row for row in profiled.rows}
    images = profiled.case.images
    parts = images.read_parts(torch.arange(len(images)))
    assert rows["object"].pixels == pytest.approx(float((parts > 0).float().mean()))
    assert rows["object"].pixels + rows["background"].pixels == pytest.approx(1)
    of_kind = [row for row in profiled.rows if row.kind == "parts"]
    assert len(of_kind) == len(parts.unique()) - 1
    for row in of_kind:
        assert row.n < 24
        assert set(row.random) == ({"other", "shifted"} if row.n > 1 else set())
        assert sum(count for _, count in row.per_class.values()) == row.n
    assert rows["object"].random["other"].draws == 2
    assert list((of_parts.path / "where" / profiled.case.key).glob("regions-*.png"))


def test_a_column_of_an_experiment_is_an_area(run):
    config = resolve(run.config(), source="test")
    column = {"where": "bottom - top", "attacks": [{"attack": "pgd", "steps": 2}], "n": 20, "shares": (0.5,)}
    other = {**column, "where": "other - top", "draws": 1}
    made = cells.measure(
        {"where": column, "other": other}, run, config, "small",
        settings={"eps": 0.1}, autoattack_n=None, surrogate=str,
    )  # fmt: skip
    measured = {name: record for part in made for name, record in part.items()}
    given = {"evaluate": {"n": 20, "attacks": [{"attack": "pgd", "steps": 2}], "eps": 0.1}}
    [profiled] = jobs.profile_named(str(run.path), given, jobs.WhereOptions(shares=(0.5,), draws=1))
    areas = {area.name: area for area in profiled.areas}
    assert measured["where"].value == areas["bottom - top"].difference.mean
    assert measured["other"].interval == areas["other - top"].difference.interval
    assert measured["where"].n == 20
    with pytest.raises(ValueError, match="expected one of bottom - top, other - top, shifted - top"):
        list(cells.measure({"where": {**column, "where": "top"}}, run, config, "small", settings={},
                           autoattack_n=None, surrogate=str))  # fmt: skip


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--regions", "objct"], "region 'objct' is unknown. Did you mean 'object'"),
        (["--regions", "object"], "the test images of digits have no annotated parts"),
        (["--shares", "0"], "above 0 and up to 1"),
        (["--shares", "120%"], "above 0 and up to 1"),
        (["--shares", "half"], "'half' is no share"),
        (["--draws", "0"], "whole number of at least 1"),
        (["--map", "gradcam"], "Did you mean 'grad-cam'"),
        (["--layer", "nowhere"], "nowhere"),
        (["--share", "5%"], "unknown setting --share"),
        (["--masks", "missing"], "missing is missing"),
        (["--norm", "l0", "--eps", "3", "--attacks", "sparse-pgd"], "moved in one of linf, l2, l1"),
        (["--norm", "linf,l2", "--eps", "0.1,1"], "name one norm"),
        (["--eps-low", "0.1"], "unknown setting --eps-low"),
    ],
)
def test_a_slip_is_answered_in_one_line(run, capsys, more, words):
    assert main(words_of(run, *more)) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_shares_are_numbers_or_per_cent():
    assert read_shares("5%,0.25, 50%") == [0.05, 0.25, 0.5]
