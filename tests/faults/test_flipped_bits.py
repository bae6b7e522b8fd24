"""Single bits that flip in the files of a run: each is noticed by name, or without effect."""

import contextlib
import io
import random
import shutil

import pytest

from counterpart import checksums
from counterpart.rundir import RunDir

KINDS = {"headers", "data of binary files", "records", "configuration", "JSON files"}


@pytest.fixture(scope="module")
def bits(benchmark_module):
    """The campaign."""
    return benchmark_module("fault_bits")


@pytest.fixture(scope="module")
def master(bits, tmp_path_factory):
    """A run with files of every kind."""
    with contextlib.redirect_stdout(io.StringIO()):
        return bits.make_run(tmp_path_factory.mktemp("small"))


@pytest.fixture
def run(master, tmp_path):
    shutil.copytree(master.path, tmp_path / "small")
    return RunDir(tmp_path / "small")


def check(counts):
    assert counts.keys() == KINDS
    for name, count in counts.items():
        assert count.silent == [], name
        assert count.flipped == count.noticed + count.harmless
        assert count.noticed > 0.9 * count.flipped, name


def test_some_bits(bits, run):
    check(bits.flip_all(run, random.Random(0), data_bits=40, text_bits=60))


@pytest.mark.slow
def test_more_bits(bits, run):
    """All of them are the campaign's, ``benchmarks/faults.py --part bits``."""
    check(bits.flip_all(run, random.Random(1), data_bits=1500, text_bits=2000))


def test_the_campaign_sees_what_goes_through_in_silence(bits, run, monkeypatch):
    """With the comparison of tensors' checksums taken out, flips of their data are silent."""
    monkeypatch.setattr(
        checksums, "_digest_of_file", lambda path, place: path.read_bytes()[place : place + 64]
    )
    counts = bits.flip_all(run, random.Random(0), data_bits=10, text_bits=1)
    assert len(counts["data of binary files"].silent) > 0.9 * counts["data of binary files"].flipped
