import json

import pytest

from counterpart import records
from counterpart.errors import UserError
from counterpart.records import Record
from counterpart.rundir import RunDir, write_atomically


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
