"""A disk that is full at some write of a command: one sentence, and with space again the end of an undisturbed one."""

import os
import shutil
import subprocess
import sys

import pytest

NAMES = ("train", "evaluate", "data prepare")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="loads a library of its own before the C library of Linux, and builds it",
)
WRITER = """
import ctypes, os, sys
inside, beside = sys.argv[1:]
library = ctypes.CDLL(None)
library.counterpart_fail(os.fsencode(inside), ctypes.c_long(4), ctypes.c_long(0), b"")
for folder in (inside, beside):
    file = os.open(f"{folder}/file", os.O_WRONLY | os.O_CREAT)
    for work in (
        lambda: os.write(file, b"x"),
        lambda: os.fsync(file),
        lambda: os.write(file, b"y"),
        lambda: os.mkdir(f"{folder}/new"),
        lambda: os.rename(f"{folder}/file", f"{folder}/moved"),
        lambda: open(f"{folder}/other", "w"),
        lambda: open(f"{folder}/other"),
        lambda: os.rmdir(f"{folder}/new"),
    ):
        try:
            work()
            print("done")
        except OSError as error:
            print(error.strerror)
print(library.counterpart_calls())
"""


@pytest.fixture(scope="module")
def campaign(benchmark_module):
    """The campaign."""
    return benchmark_module("fault_disk")


def test_the_library_fills_the_disk_under_one_folder_from_a_call_on(campaign, tmp_path):
    library = campaign.build_library(tmp_path)
    inside, beside = tmp_path / "inside", tmp_path / "beside"
    inside.mkdir()
    beside.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(inside.resolve()), str(beside.resolve())],
        env={**os.environ, "LD_PRELOAD": str(library)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    full, absent = "No space left on device", "No such file or directory"
    said = done.stdout.splitlines()
    assert said[:8] == ["done", "done", full, full, full, full, absent, absent]
    assert said[8:] == ["done"] * 8 + ["7"]  # making, writing, flushing; and four calls that failed
    assert (inside / "file").read_bytes() == b"x"
    assert (beside / "moved").read_bytes() == b"xy"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_one_sentence_and_loses_nothing(campaign, name):
    counts = campaign.in_a_process(campaign.__file__, name, 4, seed=1)
    assert counts["faults"] == []
    assert counts["filled"] == counts["refused"] + counts["ended well"] == 4
    assert counts["refused"] > 0
    assert counts["calls"] > 20
