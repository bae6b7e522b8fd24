"""Processes meet although the store remembers dead ones, and one that dies or hangs is found in time."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from counterpart import distributed, heartbeat
from counterpart.errors import UserError
from counterpart.rundir import RunDir

SOURCE = str(Path(__file__).parents[1] / "src")
SOON = timedelta(seconds=10)


def meet_all(store, size):
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: heartbeat.meet(store, rank, size, SOON), range(size)))


def test_processes_that_start_again_agree_on_a_new_word_whatever_the_store_remembers():
    store, size = dist.HashStore(), 3
    words = [meet_all(store, size) for _ in range(4)]
    assert all(len(set(of_start)) == 1 for of_start in words)
    assert len({of_start[0] for of_start in words}) == 4


def test_a_process_does_not_believe_the_word_of_the_dead():
    store = dist.HashStore()
    meet_all(store, 2)
    with pytest.raises(TimeoutError, match="process 1 waited"):
        heartbeat.meet(store, 1, 2, timedelta(seconds=0.2))
    with pytest.raises(TimeoutError, match="process 0 waited"):
        heartbeat.meet(store, 0, 2, timedelta(seconds=0.2))


@pytest.fixture
def ended(monkeypatch):
    """What would have ended this process."""
    reasons = []
    monkeypatch.setattr(heartbeat, "_end", reasons.append)
    return reasons


def test_a_silent_process_is_found_and_one_that_lives_or_has_left_is_not(ended):
    store, silence = dist.HashStore(), 0.6
    leave_1 = heartbeat.watch(store, 1, 2, silence)
    leave_0 = heartbeat.watch(store, 0, 2, silence)
    time.sleep(3 * silence)
    assert ended == []
    leave_1()
    time.sleep(3 * silence)
    assert ended == []
    leave_0()
    began = time.monotonic()
    leave = heartbeat.watch(dist.HashStore(), 0, 2, silence)
    while not ended and time.monotonic() < began + 10:
        time.sleep(0.01)
    leave()
    assert ended[0] == "process 1 has given no sign of life for 0.6 seconds"
    assert silence <= time.monotonic() - began < 5 * silence


def test_a_store_that_is_gone_ends_the_process(ended):
    class Gone:
        def __init__(self):
            self.store = dist.HashStore()
            self.closed = threading.Event()

        def __getattr__(self, name):
            if self.closed.is_set():
                raise RuntimeError("connection reset\nby peer")
            return getattr(self.store, name)

    store = Gone()
    heartbeat.watch(store, 0, 1, 0.1)
    store.closed.set()
    time.sleep(0.5)
    assert ended == ["the host that the processes meet at does not answer: connection reset"]


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_a_silence_that_is_no_time_is_refused_in_one_line(monkeypatch, text):
    monkeypatch.setenv("COUNTERPART_SILENCE", text)
    with pytest.raises(UserError, match=f"COUNTERPART_SILENCE {text}: expected seconds, such as 60"):
        distributed.silence()


def test_the_silence_is_a_minute_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("COUNTERPART_SILENCE", raising=False)
    assert distributed.silence() == 60
    monkeypatch.setenv("COUNTERPART_SILENCE", "2.5")
    assert distributed.silence() == 2.5


TRAIN = [
    "train", "digits/at", "--data.limit", "320", "--model.name", "wrn-10-1", "--model.width", "4",
    "--attack.steps", "1", "--train.epochs", "2", "--train.batch-size", "32", "--train.validation-n", "20",
    "--train.validation-steps", "1", "--train.checkpoint-every", "0.01", "--device", "cpu", "--threads", "1",
    "--name", "run",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stroke", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_rank_that_dies_or_hangs_is_found_and_the_restarted_job_ends(tmp_path, stroke):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    environment = {
        **os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", "COUNTERPART_SILENCE": "10",
    }  # fmt: skip
    output = tmp_path / "output.txt"
    with output.open("w") as file:
        job = subprocess.Popen(
            [sys.executable, *torchrun, "-m", "counterpart", *TRAIN],
            cwd=tmp_path, env=environment, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
        run = RunDir(tmp_path / "runs" / "run")
        while not run.checkpoint("last").exists():
            assert job.poll() is None, output.read_text()
            time.sleep(0.01)
        children = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True)
        os.kill(int(children.stdout.split()[-1]), stroke)
        assert job.wait(timeout=200) == 0, output.read_text()
    said = output.read_text()
    assert "Continuing run" in said
    assert ("has given no sign of life for 10 seconds" in said) == (stroke == signal.SIGSTOP)
    assert [r.details["epoch"] for r in run.records() if r.kind == "epoch"] == [0, 1]
