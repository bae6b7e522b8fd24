import json
import os
import subprocess
import sys
import time

import pytest

from counterpart import records
from counterpart.errors import UserError
from counterpart.records import Record
from counterpart.rundir import RunDir, members, read_json, write_atomically, write_json


def everything(config):
    return dict(config)


def epoch(number):
    return Record("epoch", "epoch", seed=0, details={"epoch": number})


def test_epochs_after_the_checkpoint_are_forgotten_and_nothing_else(tmp_path):
    run = RunDir(tmp_path)
    evaluated = Record("metric", "accuracy/clean", 0.5, 10, (0.2, 0.8))
    run.add([epoch(0), epoch(1), evaluated, epoch(2), epoch(3)])
    run.drop_epochs_from(2)
    assert [r.details.get("epoch", r.name) for r in run.records()] == [0, 1, "accuracy/clean"]
    before = run.records_file.read_bytes()
    run.drop_epochs_from(2)
    assert run.records_file.read_bytes() == before
    with run.records_file.open("a") as file:
        file.write('{"kind": "epo')  # killed in the middle of a line
    assert len(run.records()) == 3
    run.drop_epochs_from(2)
    run.add([epoch(2)])
    assert [r.details.get("epoch", r.name) for r in run.records()] == [0, 1, "accuracy/clean", 2]


def test_a_line_that_is_no_record_is_named(tmp_path):
    run = RunDir(tmp_path)
    run.add([epoch(0)])
    run.records_file.write_text("nonsense\n" + run.records_file.read_text())
    with pytest.raises(UserError, match=r"records\.jsonl, line 1 is not a record"):
        run.records()


def test_records_survive_the_round_trip_with_their_provenance(tmp_path):
    record = Record(
        "metric", "accuracy/clean", 0.5, 10, (0.2, 0.8), seed=3, config="abc", details={"eps": 8 / 255}
    )
    records.write(tmp_path / "r.jsonl", [record])
    [back] = records.read(tmp_path / "r.jsonl")
    assert (back.value, back.n, back.interval, back.seed, back.config) == (0.5, 10, (0.2, 0.8), 3, "abc")
    assert back.details == {"eps": 8 / 255}
    assert set(back.provenance) >= {"command", "commit", "torch", "python", "hardware", "time"}
    assert "/" not in back.provenance["command"].split()[0]


def test_a_folder_belongs_to_one_configuration(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create({"a": 1, "b": {"c": 2.5, "d": [1, 2]}}, everything)
    assert run.config() == {"a": 1, "b": {"c": 2.5, "d": [1, 2]}}
    run.create({"a": 1, "b": {"c": 2.5, "d": [1, 2]}}, everything)
    with pytest.raises(UserError, match=r"b\.c: 2\.5 there, 3 now"):
        run.create({"a": 1, "b": {"c": 3, "d": [1, 2]}}, everything)
    run.create({"a": 1, "b": {"c": 3}}, lambda config: {"a": config["a"]})
    assert json.loads((run.path / "environment.json").read_text())["torch"]


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UserError, match="not empty and is no run folder"):
        RunDir(tmp_path).create({}, everything)
    assert [f.name for f in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "file.txt"
    write_atomically(target, lambda path: path.write_text("old"))

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device.*untouched"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["file.txt"]


def test_a_torn_last_line_does_not_spoil_the_next_record(tmp_path):
    run = RunDir(tmp_path)
    run.add([epoch(0)])
    with run.records_file.open("a") as file:
        file.write('{"kind": "epo')
    run.add([epoch(1)])
    assert [r.details["epoch"] for r in run.records()] == [0, 1]


def test_a_run_killed_while_its_folder_was_made_can_start_again(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create({"a": 1}, everything)
    (run.path / "environment.json").unlink()  # the configuration is written first
    run.create({"a": 1}, everything)


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_kill_between_the_first_two_files_loses_neither(tmp_path):
    run, config = RunDir(tmp_path / "run"), {"train": {"epochs": 1}}
    run.create(config, dict)
    (run.path / "environment.json").unlink()
    run.create(config, dict)
    assert read_json(run.path / "environment.json")["python"]
    written = (run.path / "environment.json").stat().st_mtime_ns
    run.create(config, dict)
    assert (run.path / "environment.json").stat().st_mtime_ns == written


def test_what_killed_trainings_left_is_swept_and_nothing_else(tmp_path):
    run, dead = RunDir(tmp_path), dead_pid()
    kept = [
        f".config.yaml.{os.getpid()}", "checkpoints/last.safetensors", f"checkpoints/.last.safetensors.{os.getppid()}",
        "checkpoints/.gitignore", "checkpoints/.tmp", f".{dead}", f"config.yaml.{dead}",
        f"evaluations/k/.panel.safetensors.{dead}",
    ]  # fmt: skip
    swept = [
        f"checkpoints/.last.safetensors.{dead}", f".records.jsonl.{dead}", ".config.yaml.1",
        "checkpoints/.tmpKf14gj",  # as safetensors names a file while it writes it
    ]  # fmt: skip
    for name in (*kept, *swept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    old = time.time() - 3 * 24 * 3600
    os.utime(tmp_path / ".config.yaml.1", (old, old))  # of a process that lives, under a number used again
    run.sweep()
    assert {f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file()} == set(kept)


def test_members_sort_seeds_as_numbers_and_pass_over_other_folders(tmp_path):
    for name in ("seed-10", "seed-9", "seed-0", "seed-old", "seed-1-copy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "seed-4").mkdir()  # no run yet
    assert [run.name for run in members(tmp_path)] == ["seed-0", "seed-9", "seed-10"]
    assert members(tmp_path / "seed-old") == [RunDir(tmp_path / "seed-old")]
    with pytest.raises(UserError, match=r"is no run folder: .* no seed-\* runs"):
        members(tmp_path / "seed-4")
    with pytest.raises(UserError, match="does not exist"):
        members(tmp_path / "absent")


def test_a_record_is_added_once_whenever_it_was_made(tmp_path):
    run = RunDir(tmp_path)
    first = Record("metric", "m", 0.1, 3, (0.0, 0.2), details={"seeds": [0, 1], "sd": None})
    run.add_once([first])
    run.add_once([first, epoch(1)])
    assert [r.name for r in run.records()] == ["m", "epoch"]


def test_records_that_do_not_fit_leave_the_file_as_it_was(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    run.add([epoch(0)])
    before = run.records_file.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            UserError, match=r"records\.jsonl: No space left on device\. None of the new records"
        ):
            run.add([epoch(1), epoch(2)])
    assert run.records_file.read_bytes() == before
    run.add([epoch(1)])
    assert len(run.records()) == 2


def git(folder, *words):
    subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e@e", *words],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def test_the_commit_is_that_of_this_projects_checkout_or_unknown(tmp_path, monkeypatch):
    package = tmp_path / "src"
    package.mkdir()
    (package / "records.py").touch()
    (tmp_path / "other.txt").write_text("1")
    monkeypatch.setattr(records, "__file__", str(package / "records.py"))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "other.txt")
    git(tmp_path, "commit", "-qm", "x")
    (tmp_path / "other.txt").write_text("2")
    assert records._commit() is None  # this file lies untracked in another, changed repository
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "y")
    commit = records._commit()
    assert len(commit) == 12
    (tmp_path / "other.txt").write_text("3")
    assert records._commit() == commit + "+"


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("postgresql://me:secret@host:5432/name", "postgresql://me:***@host:5432/name"),
        ("--storage=postgresql://:se/cr:et@host/name", "--storage=postgresql://:***@host/name"),
        ("postgresql://me:se:cr@et@host/name", "postgresql://me:***@host/name"),
        ("sqlite:///study.db", "sqlite:///study.db"),
        ("user:net@weights.pt", "user:net@weights.pt"),
    ],
)
def test_no_record_holds_the_password_of_a_database(monkeypatch, word, shown):
    monkeypatch.setattr("sys.argv", ["counterpart", "sweep", word])
    records.environment.cache_clear()
    assert records.environment()["command"] == f"counterpart sweep {shown}"
    records.environment.cache_clear()


def test_a_record_of_which_only_the_end_of_its_line_is_missing_stays(tmp_path):
    """Readers take it for a record, so the next writer must not cut it off."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.add([Record("metric", "a", 0.5, 4), Record("metric", "b", 0.5, 4)])
    run.records_file.write_bytes(run.records_file.read_bytes()[:-1])
    assert [record.name for record in run.records()] == ["a", "b"]
    run.add([Record("metric", "c", 0.5, 4)])
    assert [record.name for record in run.records()] == ["a", "b", "c"]


def test_nothing_is_written_where_a_link_leads_out_of_the_run(tmp_path):
    """A run folder of somebody else may hold links to files of ours."""
    run = RunDir(tmp_path / "run")
    ours = tmp_path / "ours"
    ours.write_text("")
    run.path.mkdir()
    run.records_file.symlink_to(ours)
    for write in (run.add, run.add_once):
        with pytest.raises(
            UserError, match=r"records\.jsonl leads out of .*run by a link: nothing is written"
        ):
            write([epoch(0)])
    assert ours.read_text() == ""
    inner = run.path / "evaluations" / "key"
    inner.mkdir(parents=True)
    run.refuse_links_out(inner)
    (inner / "units").symlink_to(tmp_path)
    with pytest.raises(UserError, match="units leads out of"):
        run.refuse_links_out(inner)
    linked = RunDir(tmp_path / "linked")  # a run folder that lies on another disk
    linked.path.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    linked.add([epoch(0)])
    assert len(linked.records()) == 1


def test_a_link_in_place_of_a_temporary_file_is_not_followed(tmp_path):
    ours = tmp_path / "ours"
    ours.write_text("ours")
    (tmp_path / f".x.json.{os.getpid()}").symlink_to(ours)
    write_json(tmp_path / "x.json", {"a": 1})
    assert ours.read_text() == "ours"
    assert read_json(tmp_path / "x.json") == {"a": 1}
