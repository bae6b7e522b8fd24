"""What a cleaning names and removes, and what it leaves."""

import os
import shutil
import time

import pytest

import counterpart
from counterpart import jobs, locks
from counterpart.cli import main
from counterpart.jobs import cleaning
from counterpart.rundir import RunDir
from counterpart.training import checkpoint

DAY = 24 * 3600.0


def everything(folder):
    return {path.relative_to(folder).as_posix(): path.lstat().st_size for path in folder.rglob("*")}


def make_old(folder, days):
    moment = time.time() - days * DAY
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (moment, moment), follow_symlinks=False)


def stop_at(run, epoch):
    tensors, about = checkpoint.read(run.checkpoint("last"))
    about["state"]["epoch"] = epoch
    checkpoint._write(run.checkpoint("last"), tensors, about)


def names(items):
    return [item.path.name for item in items]


@pytest.fixture
def stopped(run):
    """A run that stopped at epoch 2, forty days ago."""
    stop_at(run, 2)
    make_old(run.path, 40)
    return run


def test_a_finished_run_loses_the_state_of_its_optimiser_and_nothing_else(run):
    before, size = everything(run.path), run.checkpoint("last").stat().st_size
    weights = {k: v for k, v in checkpoint.read(run.checkpoint("last"))[0].items() if k.startswith("model.")}
    [item] = cleaning.removables(run.path.parent)
    assert (item.path, item.shrinks) == (run.checkpoint("last"), True)
    assert everything(run.path) == before  # naming removes nothing
    assert cleaning.clean(run.path.parent) == [item]
    assert size - run.checkpoint("last").stat().st_size == pytest.approx(item.size, rel=0.5)
    assert everything(run.path).keys() == before.keys()
    tensors, about = checkpoint.read(run.checkpoint("last"))
    assert tensors.keys() == weights.keys()
    assert all(bool((tensors[name] == value).all()) for name, value in weights.items())
    assert about["state"]["epoch"] == 3
    assert cleaning.removables(run.path.parent) == []


def test_a_cleaned_run_is_still_finished_for_training_and_judging(run):
    cleaning.clean(run.path.parent)
    records = run.records_file.read_bytes()
    best = run.checkpoint("best").read_bytes()
    config = counterpart.Config.model_validate({**run.config(), "runs": str(run.path.parent)})
    assert jobs.train(config).finished
    assert (run.records_file.read_bytes(), run.checkpoint("best").read_bytes()) == (records, best)
    changes = {"evaluate": {"n": 10, "attacks": [], "weights": "last"}, "threads": 1, "device": "cpu"}
    assert jobs.evaluate(str(run.path), changes)[0].rows


def test_a_run_that_stopped_long_ago_goes_as_a_whole(stopped):
    [item] = cleaning.removables(stopped.path.parent)
    assert item.path == stopped.path
    assert item.why == "stopped at epoch 2 of 3"
    assert item.size == sum(p.stat().st_size for p in stopped.path.rglob("*") if p.is_file())
    cleaning.clean(stopped.path.parent)
    assert not stopped.path.exists()


def test_files_of_tensorboard_are_ours(stopped):
    (stopped.path / "tensorboard").mkdir()
    (stopped.path / "tensorboard" / "events.out.tfevents.1764.host.17.0").write_bytes(b"")
    make_old(stopped.path, 40)
    assert names(cleaning.clean(stopped.path.parent)) == ["digits"]
    assert not stopped.path.exists()


def test_a_run_that_stopped_lately_stays(stopped):
    assert cleaning.removables(stopped.path.parent, 41 * DAY) == []
    make_old(stopped.path, 29)
    assert cleaning.removables(stopped.path.parent) == []


@pytest.mark.parametrize("lock", [".training.lock", "evaluations/abc/.ledger.lock"])
def test_nothing_of_a_run_in_use_goes(stopped, lock):
    (stopped.path / lock).parent.mkdir(parents=True, exist_ok=True)
    with locks.hold(stopped.path / lock, "it"):
        make_old(stopped.path, 40)
        before = everything(stopped.path)
        assert cleaning.clean(stopped.path.parent) == []
        assert everything(stopped.path) == before


def test_a_run_that_is_taken_up_between_the_naming_and_the_removal_stays(stopped, monkeypatch):
    named = cleaning.removables(stopped.path.parent)

    def taken_up(*arguments):
        (stopped.path / "progress.log").write_text("epoch 3")  # a training has gone on, and ended
        return named

    monkeypatch.setattr(cleaning, "removables", taken_up)
    assert cleaning.clean(stopped.path.parent) == []
    assert stopped.config_file.exists()


@pytest.mark.parametrize("name", ["notes.txt", "checkpoints/mine.pt", ".hidden"])
def test_a_stopped_run_with_files_of_other_names_stays(stopped, name):
    (stopped.path / name).write_text("mine")
    make_old(stopped.path, 40)
    assert cleaning.clean(stopped.path.parent) == []
    assert (stopped.path / name).read_text() == "mine"


def test_a_pipe_of_one_of_our_names_stays(stopped):
    (stopped.path / "progress.log").unlink()
    os.mkfifo(stopped.path / "progress.log")
    make_old(stopped.path, 40)
    assert cleaning.clean(stopped.path.parent) == []


@pytest.mark.parametrize("name", ["records-link", "evaluations", "checkpoints/last.safetensors"])
def test_links_stay_and_what_they_lead_to(stopped, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "identity.json").write_text("{}")
    link = stopped.path / name
    if link.exists():
        shutil.move(link, outside / "file")
        link.symlink_to(outside / "file")
    else:
        link.symlink_to(outside)
    make_old(stopped.path, 40)
    before = everything(tmp_path)
    assert cleaning.clean(stopped.path.parent) == []
    assert everything(tmp_path) == before


def test_what_a_linked_folder_of_a_run_holds_stays(run, tmp_path):
    """Somebody moved these folders to another disk."""
    evaluation = run.path / "evaluations" / "0123456789ab"
    evaluation.mkdir(parents=True)
    (evaluation / "identity.json").write_text("{}")
    for name in ("evaluations", "checkpoints"):
        shutil.move(run.path / name, tmp_path / name)
        (run.path / name).symlink_to(tmp_path / name)
    make_old(run.path, 40)
    make_old(tmp_path / "evaluations", 40)
    before = everything(tmp_path)
    assert cleaning.clean(run.path.parent) == []
    assert everything(tmp_path) == before


def test_a_stopped_trial_of_a_sweep_stays(stopped):
    (stopped.path.parent / "journal.jsonl").write_text("")
    assert cleaning.removables(stopped.path.parent) == []


def test_a_judged_run_stays_though_it_stopped(stopped):
    folder = stopped.path / "audits" / "abc"
    folder.mkdir(parents=True)
    (folder / "identity.json").write_text("{}")
    make_old(stopped.path, 40)
    assert cleaning.removables(stopped.path.parent) == []


def test_a_damaged_run_stays(stopped):
    stopped.records_file.write_bytes(b"\xff\xff\n" + stopped.records_file.read_bytes())
    make_old(stopped.path, 40)
    assert cleaning.removables(stopped.path.parent) == []


def test_an_evaluation_that_was_never_finished_goes_when_it_is_old(run):
    cleaning.clean(run.path.parent)
    folder = run.path / "evaluations" / "0123456789ab"
    (folder / "units").mkdir(parents=True)
    for name in ("identity.json", "settings.json", "units/clean-00000.json"):
        (folder / name).write_text("{}")
    assert cleaning.removables(run.path.parent) == []
    make_old(folder, 40)
    [item] = cleaning.removables(run.path.parent)
    assert (item.path, item.size) == (folder, 6)
    (folder / "mine.txt").write_text("")
    os.utime(folder / "mine.txt", (1e9, 1e9))
    assert cleaning.removables(run.path.parent) == []
    (folder / "mine.txt").unlink()
    cleaning.clean(run.path.parent)
    assert not folder.exists()
    assert run.config_file.exists()


def test_a_finished_evaluation_stays_however_old(run):
    changes = {"evaluate": {"n": 10, "attacks": []}, "threads": 1, "device": "cpu"}
    jobs.evaluate(str(run.path), changes)
    cleaning.clean(run.path.parent)
    make_old(run.path, 400)
    assert cleaning.removables(run.path.parent) == []


def test_what_killed_processes_left_goes(run):
    cleaning.clean(run.path.parent)
    leftovers = ["checkpoints/.last.safetensors.4194305", ".records.jsonl.lock", "checkpoints/.tmpAbC123"]
    for name in leftovers:
        (run.path / name).write_text("half")
    (run.path / ".gitignore").write_text("mine")
    (run.path / f".config.yaml.{os.getpid()}").write_text("being written")
    assert sorted(names(cleaning.clean(run.path.parent))) == sorted(name.split("/")[-1] for name in leftovers)
    assert not any((run.path / name).exists() for name in leftovers)
    assert (run.path / ".gitignore").exists()
    assert (run.path / f".config.yaml.{os.getpid()}").exists()
    assert not run.training_lock.exists()


def test_the_command_removes_nothing_without_the_word(stopped, capsys):
    words = ["runs", "clean", "--runs", str(stopped.path.parent)]
    before = everything(stopped.path)
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "Would remove" in printed
    assert "stopped at epoch 2 of 3" in " ".join(printed.split())
    assert everything(stopped.path) == before
    assert main([*words, "--older-than", "50d"]) == 0
    assert capsys.readouterr().out == "There is nothing to remove.\n"
    assert main([*words, "--delete"]) == 0
    assert capsys.readouterr().out.startswith("Removed ")
    assert not stopped.path.exists()


def test_a_time_that_is_none_is_refused(tmp_path, capsys):
    assert main(["runs", "clean", "--runs", str(tmp_path), "--older-than", "soon"]) == 2
    assert "--older-than 'soon' must be a time, such as 12h or 30d." in capsys.readouterr().err


def test_the_function_does_what_the_command_does(stopped):
    runs = counterpart.runs(stopped.path.parent)
    assert names(runs.removable()) == ["digits"]
    assert names(runs.clean()) == ["digits"]
    assert not RunDir(stopped.path).config_file.exists()
