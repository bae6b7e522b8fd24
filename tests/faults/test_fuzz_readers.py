"""Damaged and hostile files for every reader: a value or one line, never a traceback, a crash or a hang.

The short form is a few inputs for each reader. The long one, and the campaign of ``benchmarks/fuzz_readers.py`` whose
counts are in ``results/fuzz_readers.jsonl``, take more of the same. ``tests/corpus`` holds what they found.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from counterpart.errors import UserError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CORPUS = Path(__file__).parents[1] / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.fixture(scope="module")
def fuzzing(benchmark_module):
    """The modules of the harness."""
    return benchmark_module("fuzz_corpus"), benchmark_module("fuzz_readers")


def run_together(tmp_path, inputs, seed):
    command = [sys.executable, str(BENCHMARKS / "fuzz_readers.py"), "--inputs", str(inputs)]
    command += ["--seed", str(seed), "--findings", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    # What torch reserves for an old file that states gigabytes is refused in a line, and never used (docs/security.md).
    known = {"PyTorch's old file": "memory: UserError"}
    unknown = [
        (row["reader"], words)
        for row in rows
        for words in row["faults"].values()
        if not words.startswith(known.get(row["reader"], "\n"))
    ]
    assert unknown == []
    assert done.returncode == 0 or any(row["faults"] for row in rows), done.stderr[-2000:]
    return rows


def test_a_few_inputs_of_every_reader(tmp_path, fuzzing):
    rows = run_together(tmp_path, 15, seed=0)
    assert [row["reader"] for row in rows] == list(fuzzing[0].readers())
    assert all(row["inputs"] == row["read"] + row["refused"] for row in rows)


@pytest.mark.slow
def test_many_inputs_of_every_reader(tmp_path):
    run_together(tmp_path, 300, seed=1)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_refused_or_read(path, tmp_path, fuzzing):
    reader = fuzzing[0].readers()[path.parent.name]
    place = tmp_path / "work" / reader.file
    place.parent.mkdir(parents=True)
    place.write_bytes(path.read_bytes())
    try:
        reader.read(place)
        told = "read"
    except (UserError, ValueError) as refusal:
        told = str(refusal)
    assert told
    assert "\n" not in told
    assert len(told) < fuzzing[1].LONGEST


def judged(fuzzing, tmp_path, read):
    corpus, harness = fuzzing
    trial = harness.Trial("x", corpus.Reader("x", read, [b"a"]), tmp_path, tmp_path / "found")
    trial.read(b"content")
    counts = dict(zip(harness.KINDS, trial.counts.tolist(), strict=True))
    assert counts.pop("inputs") == 1
    (kind,) = [name for name, count in counts.items() if count]
    return kind, harness.read_faults(tmp_path / "faults.jsonl")


def refuse(error):
    def read(_path):
        raise error

    return read


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (None, "read"), (UserError("no"), "refused"), (ValueError("no"), "refused"), (TypeError("no"), "tracebacks"),
        (UserError("two\nlines"), "tracebacks"), (UserError("x" * 20_001), "tracebacks"), (MemoryError(), "memory"),
        (UserError(""), "tracebacks"), (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "memory"),
    ],
)  # fmt: skip
def test_the_harness_tells_what_is_allowed(fuzzing, tmp_path, error, kind):
    told, faults = judged(fuzzing, tmp_path, Path.read_bytes if error is None else refuse(error))
    assert told == kind
    assert bool(faults) == (kind in ("tracebacks", "memory"))
    assert [(tmp_path / "found" / name).read_bytes() for name in faults] == [b"content"] * len(faults)


def test_a_memory_error_that_became_a_sentence_is_seen(fuzzing, tmp_path):
    def read(_path):
        try:
            raise MemoryError
        except MemoryError:
            raise UserError("it is damaged") from None

    assert judged(fuzzing, tmp_path, read)[0] == "memory"


def wait(_path):
    time.sleep(60)


def die(_path):
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("end", "kind"), [(wait, "hangs"), (die, "crashes"), (lambda _path: os._exit(0), None)]
)
def test_a_process_that_dies_or_hangs_is_counted_and_its_input_kept(
    fuzzing, tmp_path, monkeypatch, end, kind
):
    corpus, harness = fuzzing
    monkeypatch.setattr(harness, "WAITING", 0.5)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    calls = []

    def read(path):
        calls.append(path)
        if len(calls) == 3:  # after the sound file and an input
            end(path)

    reader = corpus.Reader("x", read, [b"abc"])
    counts, faults = harness.run_child("x", reader, range(5), harness.Way(0, "own", tmp_path / "found"))
    assert counts["read"] == 1
    if kind is None:
        assert counts["inputs"] == 1
        return
    assert (counts["inputs"], counts[kind]) == (2, 1)
    (name,) = faults
    assert (tmp_path / "found" / name).is_file()


def test_an_allocation_beyond_the_limit_is_seen(fuzzing, tmp_path, monkeypatch):
    corpus, harness = fuzzing
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    reader = corpus.Reader(
        "x", lambda path: bytes(3 * 2**30) if path.read_bytes() != b"abc" else None, [b"abc"]
    )
    counts, faults = harness.run_child("x", reader, range(3), harness.Way(0, "own", tmp_path / "found"))
    assert counts["memory"] == 3
    assert len(faults) == 1
