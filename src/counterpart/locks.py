"""Locks, so that no two processes write the same thing: of the operating system, which ends them with their process.

A lock is ``flock`` on a file beside what it guards. A kill, a crash or a loss of power leaves the file, and no lock.
The file says who holds it. Readers take no lock: what they read is renamed into place, or grows by whole lines.

Not the package ``filelock``, although it is there (torch brings it): where a file system has no locks, it makes do with
files that outlive a killed process, and nobody could go on. Here such a file system is said, once and by ``counterpart
doctor``.
"""

import errno
import fcntl
import json
import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .command_line import command
from .durability import make_folder
from .errors import UserError

PAUSE, LONGEST_PAUSE = 0.01, 0.5  # seconds between two attempts
SOON = 1.0  # seconds of waiting that are not worth a word
SHORT = 60.0  # seconds that a short lock is waited for: whoever holds it adds some lines to a file
WRITTEN = 1.0  # seconds within which whoever took a lock has written its name into the file
MOST_BYTES = 4096  # of a lock file that are read: anybody may have written it
HELD = (errno.EWOULDBLOCK, errno.EACCES)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

_log = logging.getLogger(__name__)
_descriptors: set[int] = set()  # of the lock files that this process holds
_said: set[str] = set()  # the sentences on file systems that were said


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        process: the number of the process.
        host: the name of its machine.
        command: its command.
        since: when it took the lock, in UTC.
        start: a word that the processes of one start have in common.
    """

    process: int
    host: str
    command: str
    since: str
    start: str = ""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} ({self.command}) since {self.since}"


class Held(UserError):
    """Somebody else holds the lock. ``holder`` is None where the file does not say who."""

    def __init__(self, message: str, holder: Holder | None) -> None:
        super().__init__(message)
        self.holder = holder


@contextmanager
def hold(file: Path, guarded: str, wait: float = 0.0, start: str | None = None) -> Iterator[None]:
    """Hold a lock while the body runs. Folders that are missing are made, and removed again where they stay empty.

    Args:
        file: the lock file, whose name begins with a dot and ends with ".lock".
        guarded: what is guarded, for the message: "the training runs/mine".
        wait: how many seconds to wait for whoever holds it.
        start: a word that the processes of one start have in common; by default one of this process.

    Raises:
        Held: another process holds it, or this one in another place.
        UserError: the file cannot be written.
    """
    new_folders = _make_folder(file.parent)
    try:
        start = start or uuid.uuid4().hex
        descriptor = _wait_for(file, guarded, wait, start)
        process = os.getpid()
        try:
            _write_holder(descriptor, start)
            yield
        finally:
            if os.getpid() == process:  # a forked process has let go already
                _let_go(file, descriptor)
    finally:
        for folder in reversed(new_folders):
            with suppress(OSError):  # it is not empty, or gone
                folder.rmdir()


@contextmanager
def while_written(file: Path) -> Iterator[None]:
    """Hold the short lock of a file that several processes add to."""
    with hold(file.with_name(f".{file.name.lstrip('.')}.lock"), str(file), SHORT):
        yield


def who_holds(file: Path) -> str | None:
    """Who holds a lock now, in words; None where nobody does. Nothing is written.

    Where the file system has no locks, or the file is a link or may not be read, somebody may hold it.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"somebody, perhaps: {file} cannot be opened ({error.strerror})"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return str(_holder(file) or "another process")
        return f"somebody, perhaps: the file system has no locks ({error.strerror})"
    finally:
        os.close(descriptor)
    return None


def is_lock_file(path: Path) -> bool:
    """Whether a file is one of these locks, by its name."""
    return re.fullmatch(r"\..+\.lock", path.name) is not None


def why_not_in(folder: Path) -> str | None:
    """Why locks do not work in a folder that exists: they cannot be taken, or do not keep a second holder out.

    Returns:
        None where they work.
    """
    file = folder / f".try-{os.getpid()}.lock"
    try:
        first, second = (os.open(file, os.O_RDWR | os.O_CREAT, 0o666) for _ in range(2))
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in HELD else f"its file system has no locks ({error.strerror})"
    finally:
        os.close(first)
        os.close(second)
        file.unlink(missing_ok=True)
    return "its file system grants a lock twice"


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder, and return the folders that were missing, the outermost first."""
    try:
        return make_folder(folder)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _wait_for(file: Path, guarded: str, wait: float, start: str) -> int:
    """The descriptor of the locked file. A process of the same start is not waited for."""
    began, has_spoken, pause = time.monotonic(), False, PAUSE
    while True:
        descriptor = _take(file)
        if descriptor is not None:
            return descriptor
        waited = time.monotonic() - began
        if waited >= wait:
            raise _held(file, guarded, wait)
        holder = _holder(file) if file.exists() else None
        if holder is not None and holder.start == start:
            raise _held(file, guarded, wait)
        if waited > SOON and not has_spoken:
            has_spoken = True
            _log.warning("Waiting up to %s for %s: %s.", _in_words(wait), guarded, holder or "it is in use")
        time.sleep(min(pause, wait - waited))
        pause = min(2 * pause, LONGEST_PAUSE)


def _take(file: Path) -> int | None:
    """The descriptor of the file, locked; None where somebody else holds it, or has just removed it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except FileNotFoundError:  # its folder was empty and has just been removed
        return None
    except OSError as error:
        raise _cannot_write(file, error) from error
    _descriptors.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            _say_that_there_are_none(file, error)
            return descriptor
        _close(descriptor)
        if error.errno in HELD:
            return None
        raise _cannot_write(file, error) from error
    except BaseException:  # Ctrl-C
        _close(descriptor)
        raise
    if _is_still_there(file, descriptor):
        return descriptor
    _close(descriptor)
    return None


def _is_still_there(file: Path, descriptor: int) -> bool:
    """Whether the locked file is the one of that name: whoever held it before may have removed it meanwhile."""
    try:
        there = file.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev)


def _let_go(file: Path, descriptor: int) -> None:
    """Remove the file, which nobody else can have locked meanwhile, and give the lock back."""
    if _is_still_there(file, descriptor):
        file.unlink(missing_ok=True)
    _close(descriptor)


def _close(descriptor: int) -> None:
    _descriptors.discard(descriptor)
    os.close(descriptor)


def _forget_in_forked_process() -> None:
    """Let a forked process, such as one that reads images ahead, keep no lock when the process that forked it dies."""
    for descriptor in [*_descriptors]:
        _close(descriptor)


os.register_at_fork(after_in_child=_forget_in_forked_process)


def _write_holder(descriptor: int, start: str) -> None:
    """Write who we are. A full disk leaves the lock without a name."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    words = command()[: MOST_BYTES // 8]  # a character takes at most six bytes of JSON
    holder = Holder(os.getpid(), socket.gethostname(), words, since, start)
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)
        os.fsync(descriptor)


def _holder(file: Path) -> Holder | None:
    """Who holds the lock, or None where the file does not say. It has just been taken, perhaps."""
    until = time.monotonic() + WRITTEN
    while True:
        try:
            with file.open("rb") as opened:
                entries = json.loads(opened.read(MOST_BYTES))
            return Holder(
                int(entries["process"]),
                *(str(entries[name]) for name in ("host", "command", "since", "start")),
            )
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            if time.monotonic() > until:
                return None
        time.sleep(PAUSE)


def _held(file: Path, guarded: str, wait: float) -> Held:
    holder = _holder(file)
    who = "another process" if holder is None else str(holder)
    if wait > 0:
        waited = f"also after {_in_words(wait)} of waiting. Stop that process, or run the same command later."
        return Held(f"{guarded} is in use by {who}, {waited}", holder)
    return Held(f"{guarded} is in use by {who}. Wait for it with --wait 10m, or stop that process.", holder)


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _say_that_there_are_none(file: Path, error: OSError) -> None:
    sentence = (
        f"The file system of {file.parent} has no locks ({error.strerror}): nothing keeps a second process from "
        "writing there at the same time."
    )
    if error.strerror not in _said:
        _said.add(str(error.strerror))
        _log.warning(sentence)


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"Could not write {path}: {error.strerror or error}. Mend that, and run the same command again."
    )
