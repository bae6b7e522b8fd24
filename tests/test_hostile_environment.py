"""What surrounds a command: variables, homes, long names, full disks, read-only folders, clocks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from counterpart import devices, records
from counterpart.cli import main
from counterpart.data import streaming
from counterpart.errors import UserError
from counterpart.rundir import RunDir

SOURCE = str(Path(__file__).parents[1] / "src")
TINY = [
    "train", "digits/at", "--data.limit", "50", "--model.name", "wrn-10-1", "--model.width", "2", "--attack.steps", "1",
    "--train.epochs", "1", "--train.validation-n", "20", "--train.validation-steps", "1", "--device", "cpu",
    "--threads", "1", "--name", "mine",
]  # fmt: skip
EVALUATE = [
    "evaluate",
    "runs/mine",
    "--attacks",
    "[{steps: 1}]",
    "--n",
    "20",
    "--eps",
    "0.5",
    "--device",
    "cpu",
]
LONG = "a" * 300


def sentence_of(words, capsys, code=2):
    assert main(words) == code
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("counterpart: error: ")
    return line


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run, runs/mine, and an evaluation of it."""
    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.chdir(folder)
    try:
        assert main(TINY) == 0
        assert main(EVALUATE) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE 'abc' in the environment: expected a whole number from 1 to"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE '0' in the environment"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE '-1' in the environment"),
        ({"WORLD_SIZE": "1e9"}, "WORLD_SIZE '1e9' in the environment"),
        ({"WORLD_SIZE": "\u0663"}, "in the environment"),  # a digit of another script
        ({"WORLD_SIZE": "9" * 5000}, "in the environment"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, and RANK is missing. torchrun sets these variables"),
        (
            {"WORLD_SIZE": "2", "RANK": "x"},
            "RANK 'x' in the environment: expected a whole number from 0 to 1.",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "2"},
            "RANK '2' in the environment: expected a whole number from 0 to 1.",
        ),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_PORT is missing"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "x"}, "MASTER_PORT 'x' in the environment"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "99999"}, "MASTER_PORT '99999' in the environment"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "80"}, "MASTER_ADDR is missing"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "7", "MASTER_PORT": "80"},
            "LOCAL_RANK '7' in the environment",
        ),
        (
            {
                "WORLD_SIZE": "2",
                "RANK": "0",
                "MASTER_PORT": "80",
                "MASTER_ADDR": "x",
                "COUNTERPART_SILENCE": "soon",
            },
            "COUNTERPART_SILENCE soon: expected seconds, such as 60.",
        ),
    ],
)
@pytest.mark.parametrize("words", [TINY, ["evaluate", "runs/mine"]])
def test_variables_of_torchrun_that_make_no_sense(words, variables, said, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert said in sentence_of(words, capsys)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_cannot_meet(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "80",
    }.items():
        monkeypatch.setenv(name, value)

    def refuse(*_, **__):
        raise torch.distributed.DistNetworkError("The server socket has failed to bind.\nMore.")

    monkeypatch.setattr("counterpart.distributed.rendezvous", refuse)
    said = (
        "the processes could not meet at localhost:80: The server socket has failed to bind.. torchrun sets"
    )
    assert said in sentence_of(TINY, capsys)


def test_ranks_on_a_host_that_make_no_sense(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(UserError, match="LOCAL_RANK 'first' in the environment: expected a whole number"):
        devices.resolve("cuda")
    for nonsense in ("some", "0", "-1"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", nonsense)
        with pytest.raises(UserError, match=f"LOCAL_WORLD_SIZE '{nonsense}' in the environment"):
            streaming.default_workers()


@pytest.mark.parametrize(
    "words",
    [
        ["train", "~nosuchuser/x.yaml"], [*TINY, "--runs", "~nosuchuser/x"], [*TINY, "--runs=~nosuchuser/x"],
        ["evaluate", "~nosuchuser/x"], ["report", "~nosuchuser/x"], ["verify", "~nosuchuser/x"],
        ["predict", "runs/mine", "~nosuchuser/x"], ["data", "check", "~nosuchuser/x"],
        ["data", "prepare", "labelme", "--source", ".", "--target", "~nosuchuser/x"],
    ],
)  # fmt: skip
def test_a_home_of_nobody(words, capsys):
    said = "~nosuchuser/x.*: there is no user nosuchuser. For a folder of that name here, write ./~nosuchuser"
    assert re.search(said, sentence_of(words, capsys))


def test_a_home_of_nobody_in_a_file(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("base: digits/at\ndata: {root: ~nosuchuser/x}\n")
    said = "data.root = ~nosuchuser/x: there is no user of that name, whose home it would be in."
    assert said in sentence_of(["train", str(tmp_path / "mine.yaml")], capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["train", LONG], [*TINY, "--name", LONG], [*TINY, "--name", f"a/{LONG}"], [*TINY, "--runs", LONG],
        ["evaluate", LONG], ["report", LONG], ["report", "runs/mine", "--output", LONG], ["verify", LONG],
        ["predict", "runs/mine", LONG], ["data", "check", LONG], ["train", "folder/finetune", "--data.root", LONG],
        ["data", "prepare", "labelme", "--source", "runs", "--target", LONG], ["audit", LONG], ["where", LONG],
        ["corruptions", LONG], ["sweep", "digits/at", "--space", LONG], ["papers", "run", LONG], [LONG], [f"--{LONG}"],
    ],
)  # fmt: skip
def test_names_of_300_characters(words, trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    sentence_of(words, capsys)


def run_in_shell(command, folder):
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"C": f"{sys.executable} -m counterpart", "MPLCONFIGDIR": str(folder)}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def quoted(words):
    return " ".join(f"'{word}'" for word in words)


def copy_of(folder, there):
    subprocess.run(["cp", "-r", folder / "runs", there], check=True)
    return RunDir(there / "runs" / "mine")


def test_a_full_disk_over_an_existing_checkpoint(trained, tmp_path):
    """A limit on the size of files stands for it: what is written ends in the middle."""
    run = copy_of(trained, tmp_path)
    more = quoted([*TINY, "--train.epochs", "3"])
    first = run_in_shell(f"$C {more} --name other --train.stop-after 0.001", tmp_path)
    assert first.returncode == 0, first.stderr
    other = RunDir(run.path.parent / "other")
    before = other.checkpoint("last").read_bytes()
    full = run_in_shell(f"ulimit -f {len(before) // 2048}; $C {more} --name other", tmp_path)
    assert full.returncode == 2
    [line] = full.stderr.splitlines()
    assert re.search(
        r"Could not write runs/other/checkpoints/last.safetensors: .*File too large.*previous file is", line
    )
    assert other.checkpoint("last").read_bytes() == before
    assert [file.name for file in other.path.glob(".*")] == []
    assert run_in_shell(f"$C {more} --name other", tmp_path).returncode == 0


def test_a_full_disk_in_evaluation(trained, tmp_path):
    run = copy_of(trained, tmp_path)
    words = quoted([*EVALUATE[:-1], "cpu", "--seed", "5"])
    known = {path.name for path in (run.path / "evaluations").iterdir()}
    full = run_in_shell(f"ulimit -f 1; $C {words}", tmp_path)
    assert full.returncode == 2
    assert re.search(
        r"counterpart: error: Could not write runs/mine/.*File too large", full.stderr.splitlines()[-1]
    )
    assert "Traceback" not in full.stderr
    again = run_in_shell(f"$C {words} && $C verify runs/mine", tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(known) + 1 == len([*(run.path / "evaluations").iterdir()])


POWERS = "-dac_override,-dac_read_search"  # by which root writes and reads what it may not
WITHOUT = f"setpriv --bounding-set={POWERS} --inh-caps={POWERS}"


@pytest.fixture
def as_ordinary_user(tmp_path):
    """Run a command in the temporary folder without the powers of root."""
    prefix = WITHOUT if os.geteuid() == 0 else ""
    if prefix and (
        shutil.which("setpriv") is None or run_in_shell(f"{prefix} true", tmp_path).returncode != 0
    ):
        pytest.skip("root cannot give its powers up here")
    return lambda *words: run_in_shell(f"{prefix} $C {quoted(words)}", tmp_path)


def test_a_read_only_folder_as_an_ordinary_user(trained, tmp_path, as_ordinary_user):
    run = copy_of(trained, tmp_path)
    subprocess.run(["chmod", "-R", "a+rX,a-w", run.path], check=True)
    try:
        for words, said in (
            ([*TINY, "--train.epochs", "1"], "Could not write runs/mine/.training.lock: Permission denied"),
            ([*EVALUATE, "--seed", "7"], "Could not write runs/mine/evaluations/"),
            (["report", "runs/mine"], "Could not write runs/mine/report/index.html: Permission denied"),
        ):
            done = as_ordinary_user(*words)
            assert done.returncode == 2, done.stderr
            assert said in done.stderr.splitlines()[-1]
            assert "Traceback" not in done.stderr
        done = as_ordinary_user("verify", "runs/mine")
        assert done.returncode == 0, done.stderr
        assert "claims hold" in done.stdout
        assert (
            "Note: not recorded: Could not write runs/mine/.records.jsonl.lock: Permission denied"
            in done.stderr
        )
    finally:
        subprocess.run(["chmod", "-R", "u+w", run.path], check=True)


def test_a_folder_that_may_not_be_read(trained, tmp_path, as_ordinary_user):
    run = copy_of(trained, tmp_path)
    run.config_file.chmod(0)
    done = as_ordinary_user("report", "runs/mine")
    assert done.returncode == 2
    assert "error: Cannot read runs/mine/config.yaml: Permission denied." in done.stderr


def test_a_clock_that_goes_back(trained, tmp_path, monkeypatch, capsys):
    """Nothing that is measured or resumed hangs on the time of day."""
    run = copy_of(trained, tmp_path)
    monkeypatch.chdir(tmp_path)
    ticks = iter(range(10**9, 0, -3600))
    monkeypatch.setattr("time.time", lambda: float(next(ticks)))
    monkeypatch.setattr(records.time, "gmtime", lambda *_: (1971, 1, 1, 0, 0, 0, 0, 0, 0))
    assert main([*TINY, "--name", "early"]) == 0
    assert main([*EVALUATE, "--seed", "9"]) == 0
    assert main(["verify", "runs/mine"]) == 0
    assert main(["report", "runs/mine", "runs/early"]) == 0
    seconds = [record.seconds for record in run.records() if record.seconds is not None]
    assert seconds
    assert all(value >= 0 for value in seconds)


def test_a_current_folder_that_is_gone_is_one_line(tmp_path):
    """torch would end the process where it looks for its libraries."""
    folder = tmp_path / "gone"
    folder.mkdir()
    words = [sys.executable, "-m", "counterpart", "list", "attacks"]
    answer = subprocess.run(
        ["bash", "-c", 'rmdir "$PWD"; exec "$@"', "-", *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 2
    assert (
        answer.stderr == "counterpart: error: the current folder no longer exists: change into another one.\n"
    )
