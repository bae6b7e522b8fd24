"""A loss of power at a drawn call of a command: what was not flushed is gone, and the command, given again, goes on.

A small library (``failing_disk.c``), loaded before the C library, notes which files a command makes, renames, removes
and flushes, keeps a copy of whatever is flushed, and kills the command at the drawn call. Then its folder becomes what
a disk may hold:

* A file holds what it held when it was last flushed, by ``fsync``, ``fdatasync`` or ``sync``; nothing, if it never was.
* A name that was made, renamed or removed is so on the disk once its folder was flushed. A rename is one act, of the
  folder that it leads to.
* Of the rest one of three things is true, by turns: all of it is *lost*; all *names* are there, ahead of the contents;
  or what is there is *drawn*: of the acts in each folder the first few, and of what was added to each file a part.

Not in the model: a disk that says it has flushed and has not, one that changes what it had flushed, and blocks of one
file that arrive in another order.
"""

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_disk
import fault_kills
from fault_kills import Command

from counterpart.locks import is_lock_file
from counterpart.records import Record

MODELS = ("lost", "names", "drawn")
COMMANDS: Mapping[str, Command] = {
    name: fault_kills.COMMANDS[name] for name in ("train", "evaluate", "data prepare")
}


@dataclass(eq=False)
class Thing:
    """A file or a folder, and what of it is on the disk; None for a folder."""

    flushed: bytes | None = b""


@dataclass(frozen=True)
class Act:
    """A change of names that is not on the disk yet. ``old`` is there of a rename, ``thing`` not of a removal."""

    path: Path
    thing: Thing | None
    old: Path | None = None


def measure(given: argparse.Namespace) -> list[Record]:
    """Cut the power at calls of every command, each in a process that has the library loaded."""
    records = []
    for name in fault_kills.asked_for(COMMANDS, given):
        counts = fault_disk.in_a_process(__file__, name, given.cuts, given.seed)
        faults, tried = len(counts["faults"]), counts["cuts"]
        records.append(fault_kills.record_of(f"power/{name}", faults, tried, given.seed, counts))
    return records


def cut_again_and_again(command: Command, home: Path, drawn: random.Random, count: int) -> dict[str, Any]:
    """Cut the power at calls of a command, one in each of as many equal pieces of its calls, and once at its end.

    Args:
        command: the command.
        home: a folder.
        drawn: draws the calls and what is on the disk.
        count: how often the power is cut; at least twice.

    Returns:
        The number of calls of the undisturbed command, of cuts, of cuts after which the command ended as an undisturbed
        one or refused in a sentence, how far it had come by what was left, and the faults.
    """
    copies = home / "copies"
    copies.mkdir()
    before, whole, calls = fault_disk.undisturbed(command, home, str(copies))
    wanted = without_locks(whole)
    counts: dict[str, Any] = {"calls": calls, "cuts": count, "as undisturbed": 0, "refused": [], "faults": []}
    stages: Counter[str] = Counter()
    for number in range(count):
        place = 1 + int((number + drawn.random()) / (count - 1) * calls)  # the last one is beyond its calls
        folder, model = home / "cut", MODELS[number % len(MODELS)]
        shutil.rmtree(copies)
        copies.mkdir()
        shutil.copytree(before, folder)
        fault_disk.run(command.words, folder, killed_at=place, copies=str(copies))
        lose_power(before, folder, copies, model, drawn)
        stages[command.stage(folder)] += 1
        code, said, _ = fault_disk.run(command.words, folder)
        differing = fault_kills.differences(wanted, without_locks(fault_kills.content(folder)))
        if code == 2 and "Traceback" not in said:
            counts["refused"].append((place, model, said[-300:]))
        elif code != 0 or differing:
            counts["faults"].append((place, model, code, said[-300:] if code != 0 else differing[0]))
        else:
            counts["as undisturbed"] += 1
        shutil.rmtree(folder)
    return {**counts, "stages": dict(stages)}


def without_locks(content: dict[str, Any]) -> dict[str, Any]:
    """The files of a folder that are no lock files. The removal of one may be lost; nobody is kept out by it."""
    return {name: value for name, value in content.items() if not is_lock_file(Path(name))}


def lose_power(before: Path, folder: Path, copies: Path, model: str, drawn: random.Random) -> None:
    """Let a folder be what a disk may hold after a loss of power.

    Args:
        before: the folder as the command found it.
        folder: the folder as the killed command left it.
        copies: the log of calls in it, and the copies of what was flushed.
        model: "lost", "names" or "drawn".
        drawn: draws what is there.
    """
    on_disk, names, pending = replay(things_of(before, folder), folder, copies)
    survivors = acts_that_survive(pending, model, drawn)
    for act in survivors:
        if act.old is not None and on_disk.get(act.old) is act.thing:
            del on_disk[act.old]
        if act.thing is None:
            on_disk.pop(act.path, None)
        else:
            on_disk[act.path] = act.thing
    contents = {path: thing.flushed for path, thing in on_disk.items()}
    if model == "drawn":
        current = {thing: path for path, thing in names.items() if path.is_file()}
        for path, thing in on_disk.items():
            if thing in current and thing.flushed is not None:
                contents[path] = partly_written(thing.flushed, current[thing].read_bytes(), drawn)
    shutil.rmtree(folder)
    folder.mkdir()
    for path in sorted(contents):  # a folder comes before what is in it
        content = contents[path]
        if path.parent != folder and contents.get(path.parent, b"") is not None:
            del contents[path]  # its folder is not there
        elif content is None:
            path.mkdir()
        else:
            path.write_bytes(content)


def things_of(before: Path, folder: Path) -> dict[Path, Thing]:
    """What a command found in its folder, all of which is on the disk."""
    things = {}
    for path in before.rglob("*"):
        content = path.read_bytes() if path.is_file() else None
        things[folder / path.relative_to(before)] = Thing(content)
    return things


def replay(
    things: dict[Path, Thing], folder: Path, copies: Path
) -> tuple[dict[Path, Thing], dict[Path, Thing], list[Act]]:
    """Do again what a command did to a folder.

    Returns:
        The names that are on the disk, the names that the command saw, and the acts between them.
    """
    on_disk, names, pending = things, dict(things), list[Act]()
    for line in (copies / "log").read_text().splitlines():
        what, first, second = line.split("\t")
        path = Path(first)
        if what == "make":
            make(path, Thing(None if second == "folder" else b""), names, pending)
            continue
        if path != folder and path not in names:
            # The library of tensors renames by a call to the kernel, which is not seen.
            make(path, Thing(), names, pending)
        if what == "rename":
            names[Path(second)] = names.pop(path)
            pending.append(Act(Path(second), names[Path(second)], old=path))
        elif what == "remove":
            del names[path]
            pending.append(Act(path, None))
        elif (copies / second).exists():
            names[path].flushed = (copies / second).read_bytes()
        else:
            pending = settle(path, on_disk, names, pending)
    return on_disk, names, pending


def make(path: Path, thing: Thing, names: dict[Path, Thing], pending: list[Act]) -> None:
    """Note a new file or folder."""
    names[path] = thing
    pending.append(Act(path, thing))


def settle(
    folder: Path, on_disk: dict[Path, Thing], names: Mapping[Path, Thing], pending: list[Act]
) -> list[Act]:
    """Put the names of a folder that was flushed on the disk, and return the acts that remain."""
    for path in {path for path in (*on_disk, *names) if path.parent == folder}:
        if path in names:
            on_disk[path] = names[path]
        else:
            on_disk.pop(path, None)
    remaining: list[Act] = []
    for act in pending:
        if act.path.parent != folder:
            remaining.append(act)
        elif act.old is not None:  # the old name is gone with it, and whatever made it
            remaining = [earlier for earlier in remaining if earlier.path != act.old]
            if on_disk.get(act.old) is act.thing:
                del on_disk[act.old]
    return remaining


def acts_that_survive(pending: list[Act], model: str, drawn: random.Random) -> list[Act]:
    """The acts that reached the disk although nobody waited for them."""
    if model != "drawn":
        return pending if model == "names" else []
    by_folder = Counter(act.path.parent for act in pending)
    ends = {folder: drawn.randint(0, number) for folder, number in sorted(by_folder.items())}
    survivors = []
    for act in pending:
        if ends[act.path.parent] > 0:
            ends[act.path.parent] -= 1
            survivors.append(act)
    return survivors


def partly_written(flushed: bytes, current: bytes, drawn: random.Random) -> bytes:
    """What was flushed of a file, and a part of what was added since."""
    if not current.startswith(flushed):
        return flushed
    return current[: drawn.randint(len(flushed), len(current))]


if __name__ == "__main__":
    name, home, count, seed = sys.argv[1:]
    print(json.dumps(cut_again_and_again(COMMANDS[name], Path(home), random.Random(int(seed)), int(count))))
