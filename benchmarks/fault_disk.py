"""A disk that is full at every write of a command, one after the other: it says so in a sentence, and then goes on.

A small library (``failing_disk.c``), loaded before the C library, counts what writes to the files of a folder, flushes
them, or makes or renames files and folders there, and lets all such calls fail from one on. The command has to end with
exit code 2 and no traceback, and, given again when there is space, as an undisturbed one.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fault_kills
from fault_kills import Command

from counterpart.cli import main as counterpart
from counterpart.records import Record

SOURCE = Path(__file__).with_name("failing_disk.c")
TOO_LONG = 300.0  # seconds after which a command hangs
COMMANDS: Mapping[str, Command] = {
    "train": replace(
        fault_kills.COMMANDS["train"], words=[*fault_kills.TRAIN, "--train.checkpoint-every", "15m"]
    ),
    **{name: fault_kills.COMMANDS[name] for name in ("evaluate", "data prepare")},
}


def measure(given: argparse.Namespace) -> list[Record]:
    """Fill the disk at writes of every command, each in a process that has the library loaded."""
    records = []
    for name in fault_kills.asked_for(COMMANDS, given):
        counts = in_a_process(__file__, name, given.writes, given.seed)
        faults, tried = len(counts["faults"]), counts["filled"]
        records.append(fault_kills.record_of(f"full disk/{name}", faults, tried, given.seed, counts))
    return records


def in_a_process(script: str, name: str, count: int, seed: int) -> dict[str, Any]:
    """Run a campaign on a command in a process that has the library loaded, and return its counts.

    Args:
        script: the module of the campaign, which takes the rest and a folder between, and prints its counts as JSON.
        name: the name of the command.
        count: how many faults are tried.
        seed: draws them.
    """
    with tempfile.TemporaryDirectory() as home:
        words = [sys.executable, script, name, str(Path(home).resolve()), str(count), str(seed)]
        environment = {**os.environ, "LD_PRELOAD": str(build_library(Path(home)))}
        done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    counts: dict[str, Any] = json.loads(done.stdout)
    return counts


def build_library(folder: Path) -> Path:
    """Build the library in a folder."""
    library = folder / "failing_disk.so"
    words = ["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(words, check=True)
    return library


def fill_at_writes(command: Command, home: Path, drawn: random.Random, most: int) -> dict[str, Any]:
    """Fill the disk at the writes of a command.

    Args:
        command: the command.
        home: a folder.
        drawn: draws the writes where the command has more.
        most: how many writes are tried.

    Returns:
        The number of calls of the undisturbed command, how many were tried, how many ended the command in a sentence,
        after how many it ended well, and the faults: each with the number of the call.
    """
    before, wanted, calls = undisturbed(command, home)
    places = sorted(drawn.sample(range(1, calls + 1), min(calls, most)))
    counts: dict[str, Any] = {
        "calls": calls,
        "filled": len(places),
        "refused": 0,
        "ended well": 0,
        "faults": [],
    }
    for place in places:
        folder = home / "full"
        shutil.copytree(before, folder)
        code, said, _ = run(command.words, folder, full_from=place)
        counts["refused"] += code == 2
        counts["ended well"] += code == 0
        faults = []
        if code not in (0, 2) or "Traceback" in said:
            faults.append(f"exit code {code}: {said[-300:]}")
        code, said, _ = run(command.words, folder)
        if code != 0:
            faults.append(f"then exit code {code}: {said[-300:]}")
        faults += fault_kills.differences(wanted, fault_kills.content(folder))
        if faults:
            counts["faults"].append((place, faults[0]))
        shutil.rmtree(folder)
    return counts


def undisturbed(command: Command, home: Path, copies: str = "") -> tuple[Path, dict[str, Any], int]:
    """A folder that the command sets out from, the files that it leaves undisturbed, and its number of calls."""
    before, whole = home / "before", home / "whole"
    before.mkdir()
    command.set_out(before)
    shutil.copytree(before, whole)
    code, said, calls = run(command.words, whole, copies=copies)
    if code != 0:
        raise RuntimeError(f"{' '.join(command.words)} ended with {code}: {said[-2000:]}")
    return before, fault_kills.content(whole), calls


def run(
    words: Sequence[str], folder: Path, full_from: int = 0, killed_at: int = 0, copies: str = ""
) -> tuple[int | None, str, int]:
    """Run a command in a folder whose disk fails.

    Args:
        words: the command line.
        folder: where it works.
        full_from: the call from which the disk is full; 0 for none.
        killed_at: the call at which the process is killed; 0 for none.
        copies: a folder for the log of calls and for copies of what is flushed; empty for none.

    Returns:
        Its exit code, what it said, and its number of calls, which is 0 if it was killed.
    """
    calls = folder.with_name(f"{folder.name}.calls")
    calls.write_text("0")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(fault_kills.PRELOADED))
    process = context.Process(target=act, args=(list(words), str(folder), full_from, killed_at, copies))
    process.start()
    process.join(TOO_LONG)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode, folder.with_name(f"{folder.name}.log").read_text(), int(calls.read_text())


def act(words: list[str], folder: str, full_from: int, killed_at: int, copies: str) -> None:
    """Be the command."""
    library = ctypes.CDLL(None)  # what is loaded already
    library.counterpart_fail(
        os.fsencode(folder), ctypes.c_long(full_from), ctypes.c_long(killed_at), os.fsencode(copies)
    )
    code = 1
    try:
        fault_kills.become(folder)
        code = counterpart(words)
    finally:
        Path(f"{folder}.calls").write_text(str(library.counterpart_calls()))
    sys.exit(code)


if __name__ == "__main__":
    name, home, most, seed = sys.argv[1:]
    print(json.dumps(fill_at_writes(COMMANDS[name], Path(home), random.Random(int(seed)), int(most))))
