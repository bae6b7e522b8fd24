"""A loss of power: what was not flushed is gone, and the command, given again, ends as an undisturbed one."""

import random
import shutil
import subprocess
import sys

import pytest

NAMES = ("train", "evaluate", "data prepare")


@pytest.fixture(scope="module")
def campaign(benchmark_module):
    """The campaign."""
    return benchmark_module("fault_power")


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="loads a library of its own before the C library of Linux, and builds it",
)
@pytest.mark.parametrize("name", NAMES)
def test_a_command_that_loses_power_ends_as_an_undisturbed_one(campaign, benchmark_module, name):
    counts = benchmark_module("fault_disk").in_a_process(campaign.__file__, name, 3, seed=1)
    assert counts["faults"] == []
    assert counts["as undisturbed"] == counts["cuts"] == 3
    assert counts["calls"] > 50


ACTS = """
make\t{0}/run\tfolder
flush\t{0}\t1
make\t{0}/run/.a\t
flush\t{0}/run/.a\t2
rename\t{0}/run/.a\t{0}/run/a
flush\t{0}/run\t3
make\t{0}/run/b\t
flush\t{0}/run/b\t4
make\t{0}/run/.c\t
rename\t{0}/run/.c\t{0}/run/a
remove\t{0}/old\t
make\t{0}/run/d\tfolder
make\t{0}/run/d/e\t
flush\t{0}/run/d\t5
"""


@pytest.fixture
def cut(campaign, tmp_path):
    """Play a loss of power after these acts by one of the models, and return what is there."""
    before, folder, copies = (tmp_path / name for name in ("before", "folder", "copies"))
    for place in (before, folder, folder / "run", folder / "run" / "d", copies):
        place.mkdir()
    (before / "old").write_text("old")
    for name, content in (("a", "third"), ("b", "second, and more"), ("d/e", "fourth")):
        (folder / "run" / name).write_text(content)
    (copies / "log").write_text(ACTS.format(folder).lstrip())
    for number, content in ((2, "first"), (4, "second")):
        (copies / str(number)).write_text(content)

    def play(model, seed=0):
        campaign.lose_power(before, folder, copies, model, random.Random(seed))
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_text() for path in files}

    return play


def test_what_was_not_flushed_is_lost(cut):
    assert cut("lost") == {"old": "old", "run/a": "first"}


def test_names_may_be_ahead_of_contents(cut):
    assert cut("names") == {"run/a": "", "run/b": "second", "run/d/e": ""}


@pytest.mark.parametrize("seed", range(20))
def test_of_the_rest_a_part_is_there(cut, seed):
    files = cut("drawn", seed)
    assert "first" in files["run/a"] or "third".startswith(files["run/a"])
    assert files.get("old", "old") == "old"
    assert "second, and more".startswith(files.get("run/b", ""))
    if "run/b" in files:
        assert files["run/b"].startswith("second")
    if "run/d/e" in files:  # the folder of c was made after its file was renamed
        assert files["run/a"] != "first"
        assert "run/b" in files


def test_what_was_moved_and_flushed_lies_in_one_place(campaign, tmp_path):
    log = "make\t{0}/x\t\nrename\t{0}/x\t{0}/to/x\nflush\t{0}/to\t1\nflush\t{0}\t2\n"
    (tmp_path / "log").write_text(log.format("/f"))
    to = campaign.Path("/f/to")
    on_disk, names, pending = campaign.replay({to: campaign.Thing(None)}, campaign.Path("/f"), tmp_path)
    assert on_disk.keys() == names.keys() == {to, to / "x"}
    assert pending == []


def test_the_library_notes_what_a_process_does(benchmark_module, tmp_path):
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("builds a library for Linux")
    folder, copies = (tmp_path.resolve() / name for name in ("folder", "copies"))
    folder.mkdir()
    copies.mkdir()
    script = f"""
import ctypes, os, pathlib, shutil
ctypes.CDLL(None).counterpart_fail(b"{folder}", ctypes.c_long(0), ctypes.c_long(0), b"{copies}")
os.chdir("{folder}")
os.mkdir("a")
pathlib.Path("a/x").write_text("content")
os.sync()
os.replace("a/x", "y")
shutil.rmtree("a")
file = os.open("y", os.O_RDONLY)
os.fsync(file)
"""
    library = benchmark_module("fault_disk").build_library(tmp_path)
    subprocess.run([sys.executable, "-c", script], env={"LD_PRELOAD": str(library)}, check=True)
    noted = [line.replace(f"{folder}", "").split("\t") for line in (copies / "log").read_text().splitlines()]
    flushed = {line[1]: line[2] for line in noted if line[0] == "flush"}
    assert [line[:2] for line in noted if line[0] != "flush"] == [
        ["make", "/a"], ["make", "/a/x"], ["rename", "/a/x"], ["remove", "/a"],
    ]  # fmt: skip
    assert flushed.keys() == {"", "/a", "/a/x", "/y"}
    assert (copies / flushed["/a/x"]).read_text() == (copies / flushed["/y"]).read_text() == "content"
    assert not (copies / flushed["/a"]).exists()
