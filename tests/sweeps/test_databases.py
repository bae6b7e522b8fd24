"""Workers on machines that share nothing but a database: SQLite in a file, and a PostgreSQL server.

A machine is a folder of runs of its own. The server is started here, as a user that is not root, and stopped again.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from counterpart.rundir import RunDir

from .conftest import end_after_an_epoch, epochs_of, start, weights

UNPRIVILEGED = (
    "postgres",
    "nobody",
)  # users that a server may run as where this one is root, which it may not
RATES = {"optimizer.lr": [0.05, 0.2]}


def find_programs():
    """The folder of a server's programs, or None."""
    places = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    folders = [Path(place).resolve().parent for place in places if place]
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def as_unprivileged_user():
    """The options of a process that is not root's, or None where there is no such user."""
    if os.geteuid() != 0:
        return {}
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    chosen = next((users[name] for name in UNPRIVILEGED if name in users), None)
    return None if chosen is None else {"user": chosen.pw_uid, "group": chosen.pw_gid, "extra_groups": []}


@pytest.fixture(scope="module")
def postgresql():
    """The address of a database on a server that listens on a socket in a temporary folder."""
    programs, who = find_programs(), as_unprivileged_user()
    if programs is None or who is None:
        pytest.skip("needs the programs of PostgreSQL (initdb, postgres), and a user that is not root")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # the path of a socket has at most 107 characters
    if who:
        os.chown(folder, who["user"], who["group"])
    data = str(folder / "data")
    make = [programs / "initdb", "-D", data, "-A", "trust", "-U", "sweeper", "--no-sync"]
    serve = [
        programs / "postgres",
        "-D",
        data,
        "-c",
        "listen_addresses=",
        "-k",
        str(folder),
        "-c",
        "fsync=off",
    ]
    try:
        with (folder / "log").open("w") as log:
            subprocess.run(make, cwd=folder, stdout=log, stderr=log, check=True, **who)
            server = subprocess.Popen(serve, cwd=folder, stdout=log, stderr=log, **who)
        try:
            deadline = time.monotonic() + 60
            while "ready to accept connections" not in (folder / "log").read_text():
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"postgresql://sweeper@/postgres?host={folder}"
        finally:
            server.send_signal(2)  # a fast shutdown: workers that are still connected are disconnected
            server.wait(60)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    return request.getfixturevalue("postgresql")


def trials_of(address, name):
    storage = optuna.storages.RDBStorage(address.replace("postgresql:", "postgresql+psycopg:"))
    try:
        return optuna.load_study(study_name=name, storage=storage).trials
    finally:
        storage.engine.dispose()


def test_machines_share_a_study_and_each_sees_all_of_it(swept, address, tmp_path, request):
    name = request.node.name.replace("[", "-").strip("]")
    here = swept(RATES, 1, storage=address, name=name, runs=tmp_path / "here")
    there = swept(RATES, storage=address, name=name, runs=tmp_path / "there")
    assert [trial.state for trial in here.trials] == ["trained"]
    assert [trial.state for trial in there.trials] == ["trained", "trained"]
    assert {trial.settings["optimizer.lr"] for trial in there.trials} == {"0.05", "0.2"}
    runs = [path.parents[2].name for path in sorted(tmp_path.glob(f"*/{name}/*/config.yaml"))]
    assert runs == ["here", "there"]
    again = swept(RATES, storage=address, name=name, runs=tmp_path / "here")
    assert [replace(trial, path=tmp_path) for trial in again.trials] == [
        replace(trial, path=tmp_path) for trial in there.trials
    ]
    assert not (tmp_path / "here" / name / "journal.jsonl").exists()


@pytest.mark.slow
def test_workers_on_machines_take_every_point_once(small, address, tmp_path, request):
    name = request.node.name.replace("[", "-").strip("]")
    (tmp_path / "space.yaml").write_text("optimizer.lr: [0.01, 0.02, 0.05, 0.1, 0.2, 0.3]")
    words = ["small.yaml", "--space", "space.yaml", "--storage", address, "--name", name]
    workers = [start([*words, "--runs", runs], tmp_path) for runs in ("a", "b", "c")]
    assert [worker.wait(300) for worker in workers] == [0, 0, 0]
    # A worker that was slower by a moment leaves one behind that waits, beyond the last.
    trials = [trial for trial in trials_of(address, name) if trial.number < 6]
    rates = sorted(trial.params["optimizer.lr"] for trial in trials)
    assert rates == ["0.01", "0.02", "0.05", "0.1", "0.2", "0.3"]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    trained = sorted(tmp_path.glob(f"?/{name}/trial-*"))
    assert sorted(path.name for path in trained) == [f"trial-{number:04}" for number in range(6)]
    assert all(epochs_of(path) == [0, 1] for path in trained)


@pytest.mark.slow
def test_a_trial_of_a_dead_machine_begins_anew_on_another_one_with_the_same_result(
    small, swept, address, tmp_path, request
):
    name = request.node.name.replace("[", "-").strip("]")
    (tmp_path / "space.yaml").write_text("optimizer.lr: [0.05, 0.2]")
    words = ["small.yaml", "--space", "space.yaml", "--train.epochs", "4", "--name", name]
    run = RunDir(tmp_path / "dead" / name / "trial-0000")
    worker = start([*words, "--storage", address, "--runs", "dead"], tmp_path)
    end_after_an_epoch(worker, run)
    assert trials_of(address, name)[0].state == TrialState.RUNNING
    assert start([*words, "--storage", address, "--runs", "alive"], tmp_path).wait(300) == 0
    assert start([*words, "--runs", "undisturbed"], tmp_path).wait(300) == 0
    for trial in ("trial-0000", "trial-0001"):
        first, second = (weights(tmp_path / runs / name / trial) for runs in ("alive", "undisturbed"))
        assert all(torch.equal(first[tensor], second[tensor]) for tensor in second)
