"""``counterpart corruptions``: records, tables and refusals, on a small run and on files of the official layout."""

import pickle

import numpy as np
import pytest
import torch

from counterpart import jobs
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.config.corruptions import SETS
from counterpart.data.corruptions import BENCHMARK, CORRUPTIONS, EXTRA, files
from counterpart.errors import UserError

CHEAP = ["--n", "30", "--device", "cpu", "--names", "brightness,contrast,frost,saturate"]


def found(run):
    return {r.name.removeprefix("corruption/"): r for r in run.records() if r.name.startswith("corruption/")}


def test_a_run_meets_corruptions_and_says_what_is_left_out(run, capsys):
    assert main(["corruptions", str(run.path), *CHEAP, "--severities", "1,5"]) == 0
    said = capsys.readouterr()
    records = found(run)
    singles = {f"{name}/severity {severity}" for name in ("brightness", "contrast") for severity in (1, 5)}
    means = {"brightness/severities 1, 5", "contrast/severities 1, 5", "mean of 2 of the 15/severities 1, 5"}
    assert set(records) == {"clean"} | singles | means
    assert {r.n for r in records.values()} == {30}
    assert records["clean"].value >= records["contrast/severity 5"].value
    assert records["contrast/severity 5"].details["source"] == "generated, cifar constants"
    left_out = records["mean of 2 of the 15/severities 1, 5"].details["left_out"]
    assert left_out == {"frost": "there are no frost textures"}
    assert "Left out: frost, there are no frost textures (--corruptions.frost DIR)" in said.err
    assert "saturate, images of one channel have no colour" in said.err
    assert "severities 1, 5" in said.out
    assert f"Next: counterpart report {run.path}" in said.out


def test_nothing_is_counted_or_recorded_twice_and_more_severities_go_on(run, monkeypatch, capsys):
    main(["corruptions", str(run.path), *CHEAP, "--severities", "1"])
    before = len(run.records())
    from counterpart.jobs import corruptions

    made = []
    original = corruptions._corrupted
    monkeypatch.setattr(
        corruptions, "_corrupted", lambda b, n, s, **k: made.append((n, s)) or original(b, n, s, **k)
    )
    main(["corruptions", str(run.path), *CHEAP, "--severities", "1"])
    assert len(run.records()) == before
    assert not made
    main(["corruptions", str(run.path), *CHEAP, "--severities", "1,2"])
    assert set(made) == {("brightness", 2), ("contrast", 2)}
    assert len([r for r in run.records() if r.name == "corruption/clean"]) == 1
    made.clear()
    main(["corruptions", str(run.path), *CHEAP, "--severities", "1", "--seed", "3"])  # other draws
    assert len(set(made)) == 2
    made.clear()
    main(["corruptions", str(run.path), *CHEAP, "--severities", "1", "--data.size", "24"])
    assert len(set(made)) == 2
    assert run.records()[-1].details["shape"] == [1, 24, 24]


def test_published_is_severity_1_of_all_and_its_records_are_marked(run, monkeypatch):
    from counterpart.evaluation import corruption

    asked = []

    def quick(model, images, variants, **_):
        asked.extend(variants)
        return {variant: corruption.Count(10, len(images), 0.0, "") for variant in variants}

    monkeypatch.setattr(corruption, "count", quick)
    main(["corruptions", str(run.path), "--n", "30", "--device", "cpu", "--published"])
    assert asked[0] == ("clean", 0)
    assert asked[1:] == [(name, 1) for name in CORRUPTIONS if name not in ("frost", "saturate")]
    records = found(run)
    assert all(r.details["published"] for r in records.values())
    assert "mean of 14 of the 15/severity 1" in records
    assert "mean of 17 of the 19/severity 1" in records


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": "snow,fgo"}, "no corruption is called 'fgo'. Did you mean 'fog'"),
        ({"names": "benchmrk"}, "Did you mean 'benchmark'"),
        ({"names": "snow,snow"}, "names needs at least one, and each once"),
        ({"severities": "0,1"}, "severities are 1 to 5"),
        ({"severities": "one"}, "severities"),
        ({"published": True, "severities": "2"}, "means all 19 at severity 1"),
        ({"published": True, "names": "benchmark"}, "means all 19 at severity 1"),
        ({"source": "here", "frost": "there"}, "frost has no effect on the official files"),
        ({"source": "here", "constants": "cifar"}, "constants has no effect"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        resolve({"corruptions": settings})


def test_names_and_sets():
    config = resolve({"corruptions": {"names": "extra,fog", "severities": "5,1"}}).corruptions
    assert config.names == (*EXTRA, "fog")
    assert config.wanted == (1, 5)
    assert resolve({"corruptions": {"severities": 3}}).corruptions.wanted == (3,)
    assert SETS["all"] == tuple(CORRUPTIONS)
    assert (SETS["benchmark"], SETS["extra"]) == (BENCHMARK, EXTRA)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frost", "nowhere"], r"nowhere/frost1\.png is missing: frost needs frost1\.png to frost5\.jpg"),
        (["--names", "frost"], "no corruption is left to evaluate: frost, there are no frost textures"),
        (
            ["--source", "."],
            "holds the test set of CIFAR at 3x32x32, or of ImageNet: digits is the test split at 1x16x16",
        ),
        (["--published", "--evaluate.split", "validation"], "published is of the test images"),
        (["--severity", "1"], "Did you mean '--severities'"),
        (["--steps", "1"], "unknown setting --steps"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, words, message, capsys):
    assert main(["corruptions", str(run.path), "--device", "cpu", *words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("counterpart: error: ")
    import re

    assert re.search(message, line), line
    assert not (run.path / "corruptions").exists()


def test_official_files_are_read_by_index(here, tmp_path, monkeypatch, capsys):
    """Ten CIFAR images, each of its label's grey; the files hold them unchanged at severity 1, black at severity 2."""
    monkeypatch.setattr(files, "BLOCK", 10)
    monkeypatch.setattr(files, "ROWS", 50)
    labels = np.arange(10)
    pixels = np.repeat((20 * labels + 20).astype(np.uint8)[:, None], 3072, axis=1)
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels.tolist()}))
    rows = np.zeros((50, 32, 32, 3), np.uint8)
    rows[:10] = pixels.reshape(10, 3, 32, 32).transpose(0, 2, 3, 1)
    np.save(tmp_path / "fog.npy", rows)
    np.save(tmp_path / "labels.npy", np.tile(labels, 5))
    (here / "usernets.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return -(255 * x.mean(dim=(1, 2, 3))[:, None] - 20 * torch.arange(10) - 20).abs()\n"
        "def exact():\n"
        "    return Net()\n"
    )
    words = ["corruptions", "usernets:exact", "--data.name", "cifar10", "--data.root", str(tmp_path / "data"),
             "--source", str(tmp_path), "--device", "cpu", "--severities", "1,2"]  # fmt: skip
    assert main([*words, "--names", "fog,snow"]) == 0
    from counterpart.rundir import RunDir

    records = found(RunDir(tmp_path / "runs" / "usernets-exact"))
    assert records["clean"].value == records["fog/severity 1"].value == 1
    assert records["fog/severity 2"].value == 0.1  # black is nearest to class 0
    assert records["fog/severity 1"].details["source"] == "official files"
    assert "Left out: snow" in capsys.readouterr().err
    rows[10:20] = rows[:10]
    np.save(tmp_path / "fog.npy", rows)  # the file has changed: counted again
    jobs.evaluate_corruptions(
        "usernets:exact",
        {"data": {"name": "cifar10", "root": str(tmp_path / "data")}, "device": "cpu",
         "corruptions": {"source": str(tmp_path), "names": "fog", "severities": "2"}},
    )  # fmt: skip
    assert [r for r in RunDir(tmp_path / "runs" / "usernets-exact").records()][-2].value == 1
    np.save(tmp_path / "labels.npy", np.tile(labels[::-1], 5))
    assert main([*words, "--names", "fog"]) == 2
    assert "10 of 10 labels differ" in capsys.readouterr().err
    assert torch.is_grad_enabled()
