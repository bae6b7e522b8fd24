"""Who takes which trial, whose lease holds, and what becomes of the trials of the dead."""

import os
import platform
import signal
import subprocess
import sys
import time

import pytest
from optuna.trial import TrialState

from counterpart.errors import UserError
from counterpart.sweeps import study
from counterpart.sweeps.journal import SystemLock

from .conftest import SOURCE


@pytest.fixture
def shared(tmp_path):
    with study.open_study("s", tmp_path, None, {"seed": 0}) as opened:
        yield opened


def lease(shared, trial, **changes):
    known = {"host": platform.node(), "pid": os.getpid(), "time": time.time()}
    shared.storage.set_trial_user_attr(trial._trial_id, "worker", {**known, **changes})


def states(shared):
    return [trial.state.name for trial in shared.trials()]


def process_that_is_gone():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_as_many_trials_are_taken_as_there_shall_be(shared):
    taken = []
    while (trial := study.take_trial(shared, 3)) is not None:
        lease(shared, trial, host="elsewhere")
        taken.append(trial.number)
    assert taken == [0, 1, 2]
    assert study.take_trial(shared, 5).number == 3


def test_a_number_beyond_the_last_waits_until_there_are_more_trials(shared, monkeypatch):
    """Another worker takes the last trial after this one has counted."""
    trials, counted = shared.study.get_trials, []

    def out_of_date(deepcopy):
        counted.append(trials(deepcopy=False))
        return counted[-1] if len(counted) > 2 else []

    lease(shared, shared.study.ask(), host="elsewhere")
    with monkeypatch.context() as patched:
        patched.setattr(shared.study, "get_trials", out_of_date)
        assert study.take_trial(shared, 1) is None
    assert states(shared) == ["RUNNING", "WAITING"]
    assert study.take_trial(shared, 2).number == 1


@pytest.mark.parametrize(
    ("held_by", "taken_up"),
    [
        ({"pid": "gone"}, True),
        ({}, True),  # of this process, which trains nothing while it asks
        ({"pid": 1}, False),  # a process that lives, and renewed its lease
        ({"pid": 1, "age": study.GRACE + 1}, True),  # another process has this number by now
        ({"host": "elsewhere"}, False),
        ({"host": "elsewhere", "pid": "gone"}, False),  # a number says nothing of another machine
        ({"host": "elsewhere", "age": study.GRACE - 5}, False),
        ({"host": "elsewhere", "age": study.GRACE + 1}, True),
    ],
)
def test_the_trial_of_a_dead_worker_is_taken_up_and_that_of_a_living_one_is_not(shared, held_by, taken_up):
    trial = shared.study.ask()
    trial.suggest_categorical("optimizer.lr", ("0.1", "0.2"))
    changes = dict(held_by)
    if "age" in changes:
        changes["time"] = time.time() - changes.pop("age")
    if changes.get("pid") == "gone":
        changes["pid"] = process_that_is_gone()
    lease(shared, trial, **changes)
    again = study.take_trial(shared, 1)
    assert (again is not None) == taken_up
    if taken_up:
        assert again.number == 0
        assert again.params == trial.params
        assert study._is_ours(shared.trials()[0])


def test_a_trial_that_nobody_signed_is_taken_up_after_a_while(shared, monkeypatch):
    shared.study.ask()
    assert study.take_trial(shared, 1) is None
    monkeypatch.setattr(study, "GRACE", 0.0)
    assert study.take_trial(shared, 1).number == 0


def test_a_trial_whose_folder_is_locked_is_left_alone(shared):
    """A machine that slept renewed no lease, but its worker lives."""
    trial = study.take_trial(shared, 1)
    lease(shared, trial, host="elsewhere", time=0.0)
    code = (
        "import sys\nfrom pathlib import Path\nfrom counterpart.sweeps.study import _locked\n"
        "with _locked(Path(sys.argv[1]), 0, wait=True):\n    print('locked', flush=True)\n    sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(shared.folder)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:  # fmt: skip
        assert holder.stdout.readline() == b"locked\n"
        assert study.take_trial(shared, 1) is None
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert study.take_trial(shared, 1).number == 0


def test_a_lease_is_renewed_and_its_loss_is_heard(shared, monkeypatch):
    monkeypatch.setattr(study, "BEAT", 0.01)
    trial = study.take_trial(shared, 1)
    with study.held(shared, trial) as lost:
        lease(shared, trial, time=0.0)
        wait_until(lambda: shared.trials()[0].user_attrs["worker"]["time"] > 0)
        assert not lost.is_set()
        lease(shared, trial, host="elsewhere")
        wait_until(lost.is_set)
    study.give_back(shared, trial)
    study.tell(shared, trial, TrialState.COMPLETE, 1.0)
    assert states(shared) == ["RUNNING"]  # it is the other one's to give back, and to tell


def wait_until(is_so):
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_process_leaves_no_lock_of_the_journal(tmp_path):
    code = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom counterpart.sweeps.journal import SystemLock\n"
        "SystemLock(Path(sys.argv[1])).acquire()\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    lock = SystemLock(tmp_path / "lock")
    began = time.monotonic()
    assert lock.acquire()
    lock.release()
    assert time.monotonic() - began < 1


def test_epochs_are_reported_once(shared):
    trial = study.take_trial(shared, 1)
    for natural, robust in ((0.5, 0.2), (0.6, 0.3)):
        for _ in range(2):
            study.report(shared, trial, 0, natural, robust)
        study.report(shared, trial, 1, 0.7, 0.4)
    [known] = shared.trials()
    assert known.user_attrs["naturals"] == [0.5, 0.7]
    assert known.intermediate_values == {0: 0.2, 1: 0.4}


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("nonsense", "'nonsense' is no address of a database: write one such as"),
        ("nonsense://host/name", "nonsense"),
        ("mysql://host/name", "a database mysql needs a driver that is not installed"),
        ("sqlite:////nowhere/at/all.db", "unable to open database file"),
        ("postgresql://me:secret@localhost:1/name", "onnection"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_one_line_without_its_password(tmp_path, address, complaint):
    with pytest.raises(UserError) as caught, study.open_study("s", tmp_path, address, {}):
        pass
    assert complaint in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_journal_is_said_in_one_line(tmp_path):
    (tmp_path / "journal.jsonl").write_text("{nonsense\n{}\n")
    with (
        pytest.raises(UserError, match=r"journal.jsonl is damaged"),
        study.open_study("s", tmp_path, None, {}),
    ):
        pass
