"""Locks between real processes: who is kept out, what they are told, and what a kill gives back."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from counterpart import locks
from counterpart.errors import UserError

SOURCE = str(Path(__file__).parents[1] / "src")

HOLDER = """
import os, sys, time
from pathlib import Path
from counterpart import locks
with locks.hold(Path(sys.argv[1]), "the thing"):
    if "forks" in sys.argv:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""

COUNTER = """
import sys
from pathlib import Path
from counterpart import locks
counter = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with locks.while_written(counter):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def start(program, *words):
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs" / "mine" / ".training.lock"


@pytest.fixture
def hold_elsewhere(file):
    """Let another process hold the lock for some seconds, and return it once it does."""
    processes = []

    def hold(seconds=60, *words):
        process = start(HOLDER, file, seconds, *words)
        processes.append(process)
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


def wait_until_held(process):
    assert process.stdout.readline() == "held\n"


def test_a_second_process_is_told_who_holds_it_since_when(file, hold_elsewhere):
    holder = hold_elsewhere()
    wait_until_held(holder)
    with pytest.raises(locks.Held) as refused, locks.hold(file, "the training runs/mine"):
        pass
    pattern = (
        rf"the training runs/mine is in use by process {holder.pid} on {re.escape(os.uname().nodename)} \(-c .*\) "
        r"since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ\. Wait for it with --wait 10m, or stop that process\."
    )
    assert re.fullmatch(pattern, str(refused.value))
    assert isinstance(refused.value, UserError)  # which a command answers by exit code 2


def test_a_killed_holder_gives_it_back(file, hold_elsewhere):
    holder = hold_elsewhere()
    wait_until_held(holder)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert file.exists()  # a kill leaves the file, and no lock
    with locks.hold(file, "the thing"):
        assert json.loads(file.read_text())["process"] == os.getpid()


def test_what_a_killed_holder_had_forked_does_not_go_on_holding(file, hold_elsewhere):
    holder = hold_elsewhere(60, "forks")
    child = int(holder.stdout.readline())
    wait_until_held(holder)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    try:
        os.kill(child, 0)  # it is still there, but may have to wake up first
        with locks.hold(file, "the thing", wait=20):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_process_leaves_the_lock_with_the_one_that_forked_it(file):
    with locks.hold(file, "the thing"):
        child = os.fork()
        if child == 0:
            with locks.hold(file.with_name(".other.lock"), "another thing"):
                os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(locks.Held), locks.hold(file, "the thing"):
            pass


def test_waiting_gets_it(file, hold_elsewhere, caplog):
    holder = hold_elsewhere(2)
    wait_until_held(holder)
    began = time.monotonic()
    with locks.hold(file, "the thing", wait=60):
        assert time.monotonic() - began < 50
        assert json.loads(file.read_text())["process"] == os.getpid()
    assert caplog.text.count("Waiting up to 60 s for the thing: process") == 1


def test_waiting_in_vain_says_how_long_it_waited(file, hold_elsewhere):
    wait_until_held(hold_elsewhere())
    said = r"in use by process \d+ .* also after 1 s of waiting\. Stop that process, or"
    with pytest.raises(locks.Held, match=said), locks.hold(file, "the thing", wait=1):
        pass


def test_one_process_holds_it_once(file):
    again = locks.hold(file, "the thing")
    with locks.hold(file, "the thing"), pytest.raises(locks.Held, match=f"process {os.getpid()} "), again:
        pass


def test_nothing_is_left_behind(file, tmp_path):
    with locks.hold(file, "the thing"):
        assert locks.is_lock_file(file)
    assert list(tmp_path.iterdir()) == []
    with locks.hold(file, "the thing"):
        (file.parent / "config.yaml").touch()
    assert [path.name for path in file.parent.iterdir()] == ["config.yaml"]


def test_many_processes_take_turns(tmp_path):
    """The file of the lock is removed each time, and no process may lock one that another has just removed."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start(COUNTER, counter, 100) for _ in range(4)]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0] * 4
    assert counter.read_text() == "400"


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"process": 1}', "[" * 5000, '{"process": "x"}'])
def test_a_file_that_somebody_else_wrote_names_nobody(file, content, monkeypatch):
    monkeypatch.setattr(locks, "WRITTEN", 0.0)
    with locks.hold(file, "the thing"):
        file.write_text(content)
        with (
            pytest.raises(locks.Held, match="in use by another process\\. Wait"),
            locks.hold(file, "the thing"),
        ):
            pass


def test_a_long_command_fits_into_what_is_read(file, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["counterpart", "report", *(f"\x1b{n}" for n in range(5000))])
    with locks.hold(file, "the thing"):
        assert file.stat().st_size < locks.MOST_BYTES
        with pytest.raises(locks.Held, match="counterpart report"), locks.hold(file, "the thing"):
            pass


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "runs").write_text("no folder")
    file = tmp_path / "runs" / "mine" / ".training.lock"
    said = r"Could not write .*runs.*: (Not a directory|File exists)"
    with pytest.raises(UserError, match=said), locks.hold(file, "the thing"):
        pass


def refuse_locks(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_a_file_system_without_locks_is_said_once_and_stops_nobody(file, monkeypatch, caplog):
    monkeypatch.setattr(locks.fcntl, "flock", refuse_locks)
    monkeypatch.setattr(locks, "_said", set())
    for _ in range(2):
        with locks.hold(file, "the thing"):
            pass
    assert caplog.text.count("has no locks (No locks available): nothing keeps a second process from") == 1


def test_whether_locks_work_in_a_folder(tmp_path, monkeypatch):
    assert locks.why_not_in(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert locks.why_not_in(tmp_path / "missing") == "cannot be written (No such file or directory)"
    monkeypatch.setattr(locks.fcntl, "flock", refuse_locks)
    assert locks.why_not_in(tmp_path) == "its file system has no locks (No locks available)"
    monkeypatch.setattr(locks.fcntl, "flock", lambda *_: None)
    assert locks.why_not_in(tmp_path) == "its file system grants a lock twice"


def test_a_file_that_was_replaced_meanwhile_is_not_the_lock(file, monkeypatch):
    """Its holder has removed it, and the next one has made another, between our opening it and locking it."""
    original, replaced = locks.fcntl.flock, []

    def flock(descriptor, how):
        if not replaced:
            file.unlink()
            file.touch()
            replaced.append(descriptor)
        return original(descriptor, how)

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locks.hold(file, "the thing", wait=5):
        assert json.loads(file.read_text())["process"] == os.getpid()


def test_a_process_of_the_same_start_is_not_waited_for(tmp_path):
    """The processes of a torchrun, of which the first one holds the folder."""
    began = time.monotonic()
    with locks.hold(tmp_path / ".x.lock", "x", start="one"):
        with pytest.raises(locks.Held) as refused, locks.hold(tmp_path / ".x.lock", "x", 20, start="one"):
            pass
        assert refused.value.holder.start == "one"
    assert time.monotonic() - began < 10
