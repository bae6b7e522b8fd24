"""Ctrl-C at any moment, sent to whole process groups as a terminal does: one sentence, and never a traceback."""

import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

SOURCE = str(Path(__file__).parents[1] / "src")

# A command that stands still in the middle of importing, as a slow disk would make it.
SLOW_IMPORT = """
import sys, time, builtins
original = builtins.__import__
def slow(name, *rest):
    if name == {name!r}:
        print("importing", flush=True)
        time.sleep(30)
    return original(name, *rest)
builtins.__import__ = slow
sys.argv = ["counterpart", *{words!r}]
from counterpart.__main__ import main
sys.exit(main())
"""


def start(command, folder):
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def stop(process, times=1):
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    return process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pydantic", ["list", "attacks"]),
        ("torch", ["evaluate", "runs/mine"]),
        ("safetensors", ["train", "digits/at"]),
    ],
)
def test_within_an_import(name, words, tmp_path):
    process = start([sys.executable, "-c", SLOW_IMPORT.format(name=name, words=words)], tmp_path)
    assert process.stdout.readline() == "importing\n"
    said = stop(process)[1]
    assert said == "Stopped.\n"
    assert process.returncode == 130


WORKING = """
import sys, time
from counterpart import jobs
def work(*_, **__):
    {work}
jobs.train = work
sys.argv = ["counterpart", "train", "digits/at"]
from counterpart.__main__ import main
sys.exit(main())
"""
STANDS_STILL = "print('working', flush=True); time.sleep(30)"


AN_ERROR_OF_ITS_OWN = f"""
    try: {STANDS_STILL}
    except BaseException: raise ImportError("numpy")
"""
A_LONG_END = f"""
    try: {STANDS_STILL}
    finally: time.sleep(30)
"""
A_DESTRUCTOR = f"""
    class Thing:
        def __del__(self): {STANDS_STILL}
    Thing()
    time.sleep(30)
"""
CONTINUES = "Stopped. The same command continues from the last checkpoint.\n"


@pytest.mark.parametrize(
    ("work", "times", "said"),
    [
        pytest.param(STANDS_STILL, 1, CONTINUES, id="plain"),
        pytest.param(AN_ERROR_OF_ITS_OWN, 1, CONTINUES, id="turned into an error"),
        pytest.param(A_LONG_END, 3, "Stopped.\n", id="twice"),
        pytest.param(A_DESTRUCTOR, 1, "Stopped.\n", id="swallowed"),
    ],
)
def test_within_the_work(work, times, said, tmp_path):
    process = start([sys.executable, "-c", WORKING.format(work=work)], tmp_path)
    assert process.stdout.readline() == "working\n"
    _, error = stop(process, times)
    assert error.startswith(said)
    assert "Traceback" not in error
    assert process.returncode == 130


def test_whoever_ignores_it_goes_on_ignoring_it(tmp_path):
    """As under nohup, or in the background of a script."""
    program = WORKING.format(
        work="print('working', flush=True); time.sleep(1); print('done'); raise SystemExit(0)"
    )
    process = start(["bash", "-c", "trap '' INT; exec \"$@\"", "-", sys.executable, "-c", program], tmp_path)
    assert process.stdout.readline() == "working\n"
    output, error = stop(process)
    assert (process.returncode, output, error) == (0, "done\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["list", "attacks"], ["doctor"],
        ["train", "digits/at", "--data.limit", "50", "--train.epochs", "1", "--threads", "1", "--model.width", "4"],
        ["evaluate", "torchvision.models:resnet18", "--data.name", "synthetic-parts", "--n", "10"],
    ],
)  # fmt: skip
def test_at_random_moments(words, tmp_path):
    command, drawn = [sys.executable, "-m", "counterpart", *words], random.Random(0)
    began = time.monotonic()
    start(command, tmp_path).communicate()
    seconds = time.monotonic() - began
    for _ in range(5):
        process = start(command, tmp_path)
        # Python itself has no handler of ours yet before it runs a line of ours.
        time.sleep(drawn.uniform(min(0.5, seconds / 4), seconds))
        if process.poll() is not None:
            process.communicate()
        else:
            output, error = stop(process)
            # Before Python has a handler and when all is written, the system ends the process without a word, which
            # a shell calls 130 as well. Without torch's weights the last command may have refused already.
            codes = (0, 130, -signal.SIGINT, *([2] if words[0] == "evaluate" else []))
            assert process.returncode in codes, (words, error)
            assert "Traceback" not in output + error, (words, error)


def test_the_installed_command_comes_in_by_this_door():
    project = tomllib.loads((Path(SOURCE).parent / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"counterpart": "counterpart.__main__:main"}
