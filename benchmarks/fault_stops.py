"""SIGSTOP at random moments of a command, and SIGCONT: nobody gets in meanwhile, and the end is that of any other.

Whoever gives the same command while it is stopped is refused, because the locks are held, or finds that there is
nothing left to do; either way nothing changes.
"""

import argparse
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import fault_kills
from fault_kills import Command

from counterpart.records import Record

COUNT = 10  # stops of each command in the long form
STOPPED = 0.2  # seconds, and as long as the second command takes
TOO_LONG = 300.0  # seconds after which a command hangs


@dataclass
class Stops:
    """What became of a command that was stopped and continued, each time anew.

    Attributes:
        moments: when it was stopped, in seconds of the processor.
        refused: how often the same command was refused meanwhile.
        nothing_to_do: how often it found everything done.
        faults: moments with what went wrong.
    """

    moments: list[float] = field(default_factory=list)
    refused: int = 0
    nothing_to_do: int = 0
    faults: list[tuple[float, str]] = field(default_factory=list)


def measure(given: argparse.Namespace) -> list[Record]:
    """Stop every command at some moments."""
    return fault_kills.measure_each("stops", fault_kills.COMMANDS, given, count_stops)


def count_stops(command: Command, home: Path, drawn: random.Random) -> tuple[int, int, dict[str, Any]]:
    """Stop a command, and count the stops that did harm."""
    stops = stop_again_and_again(command, home, drawn, COUNT)
    details = {
        "moments": [round(moment, 3) for moment in stops.moments],
        "same command refused": stops.refused, "nothing left to do": stops.nothing_to_do,
        "faults": stops.faults[:5],
    }  # fmt: skip
    return len(stops.faults), len(stops.moments), details


def stop_again_and_again(command: Command, home: Path, drawn: random.Random, count: int) -> Stops:
    """Stop a command at random moments between its first file and its end, and let it go on.

    Args:
        command: the command.
        home: an empty folder.
        drawn: draws the moments.
        count: how often. A command that ended before its moment, or had not begun, is not counted.
    """
    before, whole = home / "before", home / "whole"
    before.mkdir()
    command.set_out(before)
    shutil.copytree(before, whole)
    began, ended = fault_kills.complete(command.words, whole)
    wanted, stops = fault_kills.content(whole), Stops()
    while (number := len(stops.moments)) < count:
        folder, moment = home / "stopped", began + (number + drawn.random()) / count * (ended - began)
        shutil.copytree(before, folder)
        process = fault_kills.start(command.words, folder)
        if fault_kills.reaches(process, moment) and is_stopped(process.pid):
            fault = None
            try:
                if len(list(folder.rglob("*"))) > len(list(before.rglob("*"))):  # else it holds no lock yet
                    stops.moments.append(moment)
                    fault = try_meanwhile(command, folder, stops)
            finally:
                os.kill(process.pid, signal.SIGCONT)
            process.join(TOO_LONG)
            if process.exitcode != 0:
                fault = fault or f"ended with {process.exitcode}"
                process.kill()
            differing = fault_kills.differences(wanted, fault_kills.content(folder))
            if fault or differing:
                stops.faults.append((moment, fault or differing[0]))
        process.join()
        shutil.rmtree(folder)
    return stops


def is_stopped(number: int | None) -> TypeGuard[int]:
    """Stop a process; False where it has ended meanwhile."""
    assert number is not None
    with suppress(OSError):
        os.kill(number, signal.SIGSTOP)
        while (state := Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]) not in "ZX":
            if state == "T":
                return True
            time.sleep(fault_kills.PAUSE)
    return False


def try_meanwhile(command: Command, folder: Path, stops: Stops) -> str | None:
    """Give the command while another process that runs it is stopped; return what is wrong with the outcome."""
    time.sleep(STOPPED)
    there, files = fault_kills.content(folder), fault_kills.files_in(folder)
    second = fault_kills.start(command.words, folder)
    second.join(TOO_LONG)
    if second.exitcode is None:
        second.kill()
        return "the second command hangs"
    said = folder.with_name(f"{folder.name}.log").read_text()
    if second.exitcode == 2 and "is in use by" in said:
        stops.refused += 1
    elif second.exitcode == 0:
        stops.nothing_to_do += 1
    else:
        return f"the second command ended with {second.exitcode}: {said[-300:]}"
    # A complete evaluation writes its summary anew, with the same numbers.
    same = fault_kills.content(folder) == there and fault_kills.files_in(folder) == files
    return None if same else "the second command changed files"
