"""Two hosts are two folders, two caches and one address to meet at: they do what one process does."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from counterpart import distributed, hosts
from counterpart.errors import UserError
from counterpart.evaluation.ledger import Ledger
from counterpart.rundir import RunDir, read_json, write_atomically

SOURCE = str(Path(__file__).parents[1] / "src")
TRAIN = [
    "train", "digits/part", "--data.limit", "160", "--model.name", "wrn-10-1", "--model.width", "4",
    "--attack.steps", "1",
    "--train.epochs", "3", "--mask.burn-in", "0.34", "--train.batch-size", "32", "--train.validation-n", "20",
    "--train.validation-steps", "1", "--train.checkpoint-every", "0.01", "--train.precision", "float32",
    "--optimizer.lr", "0.1", "--device", "cpu", "--threads", "1", "--name", "run",
]  # fmt: skip
ATTACKS = "[{steps: 2}, {attack: square, queries: 20}]"
EVALUATE = [
    "--attacks", ATTACKS, "--eps", "0.3", "--evaluate.n", "40",
    "--chunk-size", "10", "--batch-size", "7", "--device", "cpu",
]  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start_hosts(folders, words_of):
    """One process for each folder, as a host of its own would start it: its own home, its own working directory."""
    port, processes = free_port(), []
    for rank, folder in enumerate(folders):
        folder.mkdir(exist_ok=True)
        place = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(len(folders))}
        meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "COUNTERPART_SILENCE": "20"}
        of_host = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder)}
        environment = {
            **os.environ,
            **place,
            **meeting,
            **of_host,
            "PYTHONPATH": SOURCE,
            "OMP_NUM_THREADS": "1",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "counterpart", *words_of(folder)],
                cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    return processes


def outputs(processes):
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def run_alone(folder, words):
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "counterpart", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def epochs_of(run):
    return [record.details for record in run.records() if record.kind == "epoch"]


def losses_of(run):
    return [[epoch[name] for name in ("epoch", "loss", "accuracy")] for epoch in epochs_of(run)]


def ledger_of(folder):
    [ledger] = (folder / "runs" / "run" / "evaluations").iterdir()
    units = {file.name: read_json(file) for file in sorted((ledger / "units").iterdir())}
    for unit in units.values():
        unit.pop("seconds")
        unit.pop("checksum", None)  # which covers the seconds
    images = {file.name: file.read_bytes() for file in sorted((ledger / "images").iterdir())}
    return ledger.name, units, images


@pytest.mark.slow
def test_two_hosts_that_are_killed_end_with_the_undisturbed_losses_and_the_ledger_of_one(tmp_path):
    def words(folder):
        return TRAIN

    whole, torn = ([tmp_path / f"{name}-{host}" for host in "ab"] for name in ("whole", "torn"))
    outputs(start_hosts(whole, words))
    undisturbed, killed = (RunDir(folders[0] / "runs" / "run") for folders in (whole, torn))
    processes = start_hosts(torn, words)
    while not killed.records_file.exists() or not epochs_of(killed):
        assert processes[0].poll() is None
        time.sleep(0.01)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert "Continuing run" in outputs(start_hosts(torn, words))[0]
    assert losses_of(killed) == losses_of(undisturbed)
    first, second = (load_file(run.checkpoint("last")) for run in (undisturbed, killed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (torn[1] / "runs" / "run" / "records.jsonl").exists()  # the main process's folder is the run

    shutil.copytree(torn[0] / "runs", tmp_path / "alone" / "runs")
    outputs(start_hosts(torn, lambda folder: ["evaluate", "runs/run", *EVALUATE]))
    run_alone(tmp_path / "alone", ["evaluate", "runs/run", "--threads", "1", *EVALUATE])
    assert ledger_of(torn[0]) == ledger_of(tmp_path / "alone")
    assert ledger_of(torn[1]) == ledger_of(torn[0])


@pytest.mark.slow
def test_two_hosts_have_the_losses_of_one_process(tmp_path):
    """To rounding, because floats are added up in another order; with small steps, which do not make much of that."""
    words = [*TRAIN, "--optimizer.lr", "0.01", "--train.epochs", "2", "--mask.burn-in", "0.5"]
    outputs(start_hosts([tmp_path / "a", tmp_path / "b"], lambda _: words))
    run_alone(tmp_path / "alone", words)
    together, alone = (losses_of(RunDir(tmp_path / folder / "runs" / "run")) for folder in ("a", "alone"))
    assert [epoch[0] for epoch in together] == [epoch[0] for epoch in alone] == [0, 1]
    assert [epoch[1] for epoch in together] == pytest.approx([epoch[1] for epoch in alone], rel=5e-4)


@pytest.mark.slow
def test_hosts_in_another_order_are_refused_and_nothing_is_trained_again(tmp_path):
    """The second host would go on from nothing, and the first one's epochs would be lost."""
    folders = [tmp_path / "a", tmp_path / "b"]
    outputs(start_hosts(folders, lambda _: [*TRAIN, "--train.stop-after", "0.01s"]))
    stopped = RunDir(folders[0] / "runs" / "run").checkpoint("last").read_bytes()
    processes = start_hosts(folders[::-1], lambda _: TRAIN)
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert all("process 1 has a checkpoint of a later step than the main process" in text for text in said)
    assert RunDir(folders[0] / "runs" / "run").checkpoint("last").read_bytes() == stopped


def as_ranks(monkeypatch, work, size=2):
    """Run ``work(rank)`` in threads that exchange what they gather and send, as processes do."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier, local

    here, meeting, told = local(), Barrier(size), {}

    def exchange(value):
        meeting.wait(10)
        told[here.rank] = value
        meeting.wait(10)
        return [told[rank] for rank in range(size)]

    def run(rank):
        here.rank = rank
        try:
            return work(rank)
        except UserError as error:
            return str(error)

    monkeypatch.setattr(distributed, "rank", lambda: here.rank)
    monkeypatch.setattr(distributed, "world_size", lambda: size)
    monkeypatch.setattr(distributed, "barrier", lambda: meeting.wait(10))
    monkeypatch.setattr(distributed, "gather", exchange)
    monkeypatch.setattr(distributed, "bytes_from", lambda source, content: exchange(content)[source])
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def texts(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_folders_are_completed_from_each_other(tmp_path, monkeypatch):
    write(tmp_path / "0" / "units" / "a.json", "from 0")
    write(tmp_path / "0" / "elsewhere" / "d.json", "not asked for")
    write(tmp_path / "1" / "units" / "b.json", "from 1")
    write(tmp_path / "1" / "units" / ".c.json.77", "half-written")
    as_ranks(monkeypatch, lambda rank: hosts.complete(tmp_path / str(rank), ["units/*"]))
    united = {"units/a.json": "from 0", "units/b.json": "from 1"}
    assert texts(tmp_path / "0") == {**united, "elsewhere/d.json": "not asked for"}
    assert texts(tmp_path / "1") == {**united, "units/.c.json.77": "half-written"}


def test_what_all_see_is_not_sent(tmp_path, monkeypatch):
    write(tmp_path / "units" / "a.json", "shared")
    sent = []
    monkeypatch.setattr(hosts, "_copy", lambda *arguments, **options: sent.append(arguments))
    as_ranks(monkeypatch, lambda rank: hosts.complete(tmp_path, ["units/*"]))
    as_ranks(monkeypatch, lambda rank: hosts.follow_main(tmp_path, ["units/a.json"]))
    assert sent == []


def test_the_main_process_decides_what_files_hold(tmp_path, monkeypatch):
    for rank, content in enumerate(("new", "old")):
        write(tmp_path / str(rank) / "last", content)
    write(tmp_path / "1" / "best", "the main process has none")
    as_ranks(monkeypatch, lambda rank: hosts.follow_main(tmp_path / str(rank), ["last", "best"]))
    assert texts(tmp_path / "0") == {"last": "new"}
    assert texts(tmp_path / "1") == {"last": "new", "best": "the main process has none"}


def test_another_run_of_the_same_name_is_refused_on_every_process(tmp_path, monkeypatch):
    for rank in range(3):
        write(tmp_path / str(rank) / "config.yaml", "seed: 1" if rank == 2 else "seed: 0")
        write(tmp_path / str(rank) / "last", str(rank))

    def follow(rank):
        hosts.follow_main(tmp_path / str(rank), ["config.yaml", "last"], fixed=["config.yaml"])

    errors = as_ranks(monkeypatch, follow, size=3)
    assert all("process 2 holds another run than the main process" in error for error in errors)
    assert [(tmp_path / str(rank) / "last").read_text() for rank in range(3)] == ["0", "1", "2"]


def test_processes_with_other_data_are_refused(monkeypatch):
    errors = as_ranks(monkeypatch, lambda rank: hosts.same_everywhere({"the data": f"{rank}{rank}"}))
    assert all("the data: 00 on the main process, 11 on process 1" in error for error in errors)
    assert as_ranks(monkeypatch, lambda rank: hosts.same_everywhere({"the data": "same"})) == [None, None]


def test_one_process_copies_nothing(tmp_path):
    write(tmp_path / "units" / "a.json", "alone")
    Ledger(tmp_path, 1).gather()
    hosts.follow_main(tmp_path, ["missing"])
    assert hosts.main_has_folder(tmp_path)
    assert not hosts.main_has_folder(tmp_path / "missing")
    assert texts(tmp_path) == {"units/a.json": "alone"}


def test_a_file_is_hashed_once_for_each_of_its_states(tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(hosts.records, "file_hash", lambda path: hashed.append(path) or path.read_text())
    file = tmp_path / "best.safetensors"
    assert hosts._digest(file) is None
    for content in ("a", "b, longer"):
        write_atomically(file, lambda temporary, content=content: temporary.write_text(content))
        assert [hosts._digest(file) for _ in range(3)] == [content] * 3
    assert len(hashed) == 2
