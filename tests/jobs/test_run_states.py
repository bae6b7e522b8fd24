"""How run folders stand: states, epochs, accuracies, who is at them."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

import counterpart
from counterpart import jobs, locks
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.jobs.run_states import look_at_runs
from counterpart.training import checkpoint


def states(folder):
    return {state.name: state for state in look_at_runs(folder)}


def set_epoch(run, epoch):
    """Make the last checkpoint one of an earlier epoch."""
    tensors, about = checkpoint.read(run.checkpoint("last"))
    about["state"]["epoch"] = epoch
    checkpoint._write(run.checkpoint("last"), tensors, about)


def test_a_finished_run_says_its_epochs_accuracies_and_size(run):
    state = states(run.path.parent)["digits"]
    epoch = [record.details for record in run.records() if record.kind == "epoch"][-1]
    assert (state.state, state.epoch, state.epochs, state.in_use, state.remark) == (
        "finished",
        3,
        3,
        False,
        "",
    )
    assert (state.clean, state.robust) == (epoch["validation_clean"], epoch["validation_robust"])
    assert (state.judged_clean, state.judged_robust) == (None, None)
    assert state.size == sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    os.utime(run.records_file, (1e9, 1e9))
    assert state.age < 3600


def test_the_age_is_that_of_the_youngest_file(run):
    for file in run.path.rglob("*"):
        os.utime(file, (1e9, 1e9))
    os.utime(run.config_file, (1e9, 2e9 - 1e9 + 50))
    assert states(run.path.parent)["digits"].changed == 1e9 + 50


def test_accuracies_of_the_latest_evaluation_are_told_and_none_without_an_attack(run):
    changes = {"evaluate": {"n": 10, "attacks": [{"attack": "fgsm"}]}, "threads": 1, "device": "cpu"}
    [judged] = jobs.evaluate(str(run.path), changes)
    values = {record.name: record.value for record in judged.records}
    state = states(run.path.parent)["digits"]
    assert (state.judged_clean, state.judged_robust) == (
        values["accuracy/clean"],
        values["accuracy/worst case"],
    )
    jobs.evaluate(str(run.path), {**changes, "evaluate": {"n": 20, "attacks": []}})
    state = states(run.path.parent)["digits"]
    assert state.judged_robust is None
    assert state.judged_clean is not None


def test_a_run_before_its_last_epoch_is_stopped_and_running_while_somebody_holds_its_lock(run):
    set_epoch(run, 2)
    state = states(run.path.parent)["digits"]
    assert (state.state, state.epoch) == ("stopped", 2)
    with locks.hold(run.training_lock, "the training"):
        state = states(run.path.parent)["digits"]
        assert (state.state, state.in_use) == ("running", True)
        assert f"in use by process {os.getpid()} on " in state.remark
    run.training_lock.touch()  # what a killed process leaves
    assert states(run.path.parent)["digits"].state == "stopped"


def test_a_finished_run_that_is_judged_is_in_use(run):
    lock = run.path / "evaluations" / "abc" / ".ledger.lock"
    lock.parent.mkdir(parents=True)
    with locks.hold(lock, "it"):
        state = states(run.path.parent)["digits"]
        assert (state.state, state.in_use) == ("finished", True)


def test_a_run_without_a_checkpoint_has_stopped_at_its_start(run):
    shutil.rmtree(run.path / "checkpoints")
    run.records_file.unlink()
    assert (states(run.path.parent)["digits"].state, states(run.path.parent)["digits"].epoch) == (
        "stopped",
        0,
    )
    (run.path / "evaluations").mkdir()
    state = states(run.path.parent)["digits"]
    assert (state.state, state.epoch, state.epochs) == ("judged", None, None)


@pytest.mark.parametrize("name", ["config.yaml", "records.jsonl", "checkpoints/last.safetensors"])
def test_a_damaged_file_makes_a_damaged_run_that_says_which(run, name):
    file = run.path / name
    content = bytearray(file.read_bytes())
    content[:12] = b"\xff" * 12
    file.write_bytes(bytes(content))
    state = states(run.path.parent)["digits"]
    assert state.state == "damaged"
    assert file.name in state.remark
    assert "\n" not in state.remark


def test_runs_that_lie_deeper_are_listed_and_links_are_not_followed(run):
    folder = run.path.parent
    shutil.copytree(run.path, folder / "group" / "seed-0")
    (folder / "linked").symlink_to(run.path)
    (folder / "circle").symlink_to(folder)
    (folder / "notes.txt").write_text("mine")
    assert [state.name for state in look_at_runs(folder)] == ["digits", "group/seed-0"]
    assert [state.name for state in look_at_runs(run.path)] == ["digits"]


def test_the_methods_without_an_attack_count_no_clean_epochs(run):
    for method, total in (("at", 5), ("clean", 3)):
        text = run.config_file.read_text().rsplit("#", 1)[0]
        text = text.replace("clean_epochs: 0", "clean_epochs: 2").replace("method: at", f"method: {method}")
        run.config_file.write_text(text)
        assert states(run.path.parent)["digits"].epochs == total


def test_the_stored_runs_of_old_are_understood():
    stored = Path(__file__).parents[1] / "stored" / "runs"
    known = {name: (state.state, state.epoch, state.epochs) for name, state in states(stored).items()}
    assert known["at"] == ("finished", 4, 4)
    assert known["stopped"] == ("stopped", 2, 4)
    assert known["usernets-linear"] == ("judged", None, None)


def test_the_command_and_the_function_say_the_same(run, capsys):
    folder = run.path.parent
    assert main(["runs", "--runs", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines() == str(counterpart.runs(folder)).splitlines()
    title, line = printed.splitlines()
    assert title.split() == ["state", "epoch", "validation", "judged", "size", "age", "run"]
    assert line.split()[:4] == ["finished", "3", "of", "3"]
    assert line.split()[-1] == "digits"


def test_a_folder_without_runs_and_no_folder_are_said(tmp_path, capsys):
    assert main(["runs", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"No run is below {tmp_path}.\n"
    with pytest.raises(UserError, match="absent is no folder"):
        counterpart.runs(tmp_path / "absent")


def test_no_code_of_the_users_is_imported(run, tmp_path, monkeypatch):
    config = yaml.safe_load(run.config_file.read_text())
    config["data"]["name"] = "code_of_mine:data"
    run.config_file.write_text(yaml.safe_dump(config))
    (tmp_path / "code_of_mine.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert states(run.path.parent)["digits"].state == "finished"
    assert "code_of_mine" not in sys.modules
