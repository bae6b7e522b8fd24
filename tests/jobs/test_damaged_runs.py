"""Damage to the files of a run: every command that reads one refuses it by name; verify looks at all of them."""

import json
import logging

import pytest
from safetensors.torch import load_file

from counterpart import checksums, records
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.jobs import verify_run
from counterpart.training import checkpoint
from counterpart.training.resuming import _compare

DEVICE = ["--device", "cpu"]
ATTACKED = ["--attacks", "[{steps: 2}]", "--eps", "0.05", "--evaluate.precision", "float32"]
WORDS = [*DEVICE, "--n", "20", *ATTACKED]


def flip_a_bit(file, place=-100):
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


def line_of(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_flipped_bit_in_the_best_weights(run, tmp_path, capsys):
    flip_a_bit(run.checkpoint("best"))
    (tmp_path / "images").mkdir()
    for words in (
        ["evaluate", run.path, *WORDS],
        ["predict", run.path, tmp_path / "images", *DEVICE],
        ["verify", run.path],
        ["where", run.path, *WORDS],
    ):
        line = line_of(capsys, *words)
        assert "best.safetensors" in line
        assert "it does not fit its checksum" in line


def test_a_flipped_bit_in_the_last_checkpoint(run, capsys):
    flip_a_bit(run.checkpoint("last"))
    line = line_of(capsys, "train", run.config_file, "--runs", run.path.parent, "--name", run.name)
    assert "last.safetensors is damaged" in line
    assert "it does not fit its checksum" in line


def test_a_record_that_was_changed(run, capsys):
    text = run.records_file.read_text()
    run.records_file.write_text(text.replace('"epoch": 1', '"epoch": 9', 1))
    line = line_of(capsys, "verify", run.path)
    assert "records.jsonl" in line
    assert "line 2 is not a record: it does not fit its checksum" in line
    assert main(["report", str(run.path)]) == 0  # which shows what is right, and says what it leaves out
    page = (run.path / "report" / "index.html").read_text(encoding="utf-8")
    assert "records.jsonl, line 2 (no record): it does not fit its checksum; it is left out." in page


def test_verify_looks_at_a_run_without_evaluations(run, capsys):
    assert main(["verify", str(run.path)]) == 0
    said = capsys.readouterr()
    assert f"{run.path}: 5 files fit their checksums." in said.out
    assert "holds no evaluation. Make one: counterpart evaluate" in said.err


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("config.yaml", 40),
        ("environment.json", 40),
        ("records.jsonl", 40),
        ("checkpoints/last.safetensors", 40),
        ("checkpoints/best.safetensors", -40),
    ],
)
def test_verify_names_every_file_of_it_that_is_damaged(run, capsys, name, place):
    flip_a_bit(run.path / name, place)
    line = line_of(capsys, "verify", run.path)
    assert f"{run.path} is damaged: {name}" in line
    assert "it does not fit its checksum" in line or "Invalid" in line or "is not" in line


def test_verify_finds_damage_to_what_an_evaluation_left(run, capsys):
    assert main(["evaluate", str(run.path), *WORDS]) == 0
    [folder] = (run.path / "evaluations").iterdir()
    assert main(["verify", str(run.path)]) == 0
    for name in (
        "images/PGD-2-00000.safetensors",
        "units/PGD-2-00000.json",
        "panel.safetensors",
        "result.json",
    ):
        before = (folder / name).read_bytes()
        flip_a_bit(folder / name, len(before) // 2)
        assert f"evaluations/{folder.name}/{name}" in line_of(capsys, "verify", run.path)
        (folder / name).write_bytes(before)
    (folder / "images.csv").write_text("index\n")
    assert "images.csv has changed since it was recorded" in line_of(capsys, "verify", run.path)


def test_verify_says_which_files_carry_no_checksum(run, capsys):
    """As a folder of an earlier version."""
    value = json.loads((run.path / "environment.json").read_text())
    del value["checksum"]
    (run.path / "environment.json").write_text(json.dumps(value))
    assert main(["verify", str(run.path)]) == 0
    assert "4 files fit their checksums, 1 carries none (environment.json)." in capsys.readouterr().out


# Going on ---------------------------------------------------------------------------------------------------------


def test_what_made_a_checkpoint_is_in_it(run):
    made = checkpoint.read(run.checkpoint("last"))[1]["made_by"]
    assert made == {name: value for name, value in records.environment().items() if name != "command"}
    assert "made_by" not in checkpoint.read(run.checkpoint("best"))[1]


def test_what_a_checkpoint_says_is_read_without_its_tensors(run, tmp_path, monkeypatch):
    file = run.checkpoint("last")
    about = checkpoint.read(file)[1]

    def read(path):
        raise AssertionError("read in whole")

    monkeypatch.setattr(checkpoint, "read_weights", read)
    assert checkpoint.read_about(file) == about
    assert {"state", "model", "fingerprint"} <= about.keys()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"last\.safetensors is damaged .* Put back a copy"):
        checkpoint.read_about(file)


def test_a_training_that_goes_on_with_other_code_says_what_differs(tmp_path, caplog):
    now = checkpoint.made_by()
    caplog.set_level(logging.WARNING)
    _compare(tmp_path / "last.safetensors", {"made_by": now}, {})
    _compare(tmp_path / "last.safetensors", {}, {})  # of an earlier version, which did not say it
    assert not caplog.records
    _compare(tmp_path / "last.safetensors", {"made_by": {**now, "torch": "1.0", "commit": "abc"}}, {})
    [note] = [record.getMessage() for record in caplog.records]
    assert f"commit: abc there, {now['commit']} now; torch: 1.0 there, {now['torch']} now" in note


def test_a_checkpoint_of_another_training_is_refused_with_all_that_differs(tmp_path):
    before = {"config": "a", "fingerprint": "b", "masks": "c"}
    with pytest.raises(
        UserError, match=r"settings a there, x now; data b there, y now; masks c there, None now"
    ):
        _compare(tmp_path / "last.safetensors", before, {"config": "x", "fingerprint": "y"})
    _compare(tmp_path / "last.safetensors", before, before)


def test_a_checkpoint_without_a_checksum_goes_on(run, monkeypatch, caplog):
    """As those of an earlier version: with a note."""
    tensors, about = checkpoint.read(run.checkpoint("last"))
    with monkeypatch.context() as patch:
        from safetensors.torch import save_file

        patch.setattr(checkpoint, "save_tensors", save_file)
        checkpoint._write(run.checkpoint("last"), tensors, about)
    monkeypatch.setattr(checksums, "_noted", [])
    caplog.set_level(logging.WARNING)
    assert main(["train", str(run.config_file), "--runs", str(run.path.parent), "--name", run.name]) == 0
    assert len([r for r in caplog.records if "carries no checksum" in r.getMessage()]) == 1
    assert load_file(run.checkpoint("last")).keys() == tensors.keys()
    assert verify_run(run.path, {}) == []


def test_the_command_says_that_other_code_goes_on(run, monkeypatch, caplog):
    words = ["train", str(run.config_file), "--runs", str(run.path.parent), "--name", run.name]
    caplog.set_level(logging.WARNING)
    assert main(words) == 0
    assert not caplog.records
    monkeypatch.setattr(checkpoint, "made_by", lambda: {"torch": "9.9"})
    assert main(words) == 0
    [note] = [record.getMessage() for record in caplog.records]
    assert "last.safetensors was made by other code than goes on now" in note
    assert "9.9 now" in note


def test_verify_hashes_what_a_report_would_not(run, capsys, monkeypatch):
    """The limit on what a page hashes is no fault of the run."""
    monkeypatch.setenv("COUNTERPART_MOST_SHOWN", "10")
    assert main(["verify", str(run.path)]) == 0, capsys.readouterr().err
