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
library = ctypes.CDLL(None)
library.counterpart_fill_disk(os.fsencode(sys.argv[1]), ctypes.c_long(3))
for name in ("inside", "../beside"):
    file = os.open(f"{sys.argv[1]}/{name}", os.O_WRONLY | os.O_CREAT)
    for work in (lambda: os.write(file, b"x"), lambda: os.fsync(file), lambda: os.write(file, b"y")):
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
    library, folder = campaign.build_library(tmp_path), tmp_path / "folder"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(folder.resolve())],
        env={**os.environ, "LD_PRELOAD": str(library)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    full = "No space left on device"
    assert done.stdout.splitlines() == ["done", "done", full, "done", "done", "done", "3"]
    assert (folder / "inside").read_bytes() == b"x"
    assert (tmp_path / "beside").read_bytes() == b"xy"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_one_sentence_and_loses_nothing(campaign, name):
    counts = campaign.in_a_process(name, 4, seed=1)
    assert counts["faults"] == []
    assert counts["filled"] == counts["refused"] + counts["ended well"] == 4
    assert counts["refused"] > 0
    assert counts["calls"] > 20
