"""Run folders on hosts that share no disk: every process has a folder of its own, and the main process's is the run.

On a shared disk, or with one process, nothing is copied.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from . import distributed, locks, records
from .errors import UserError
from .rundir import write_atomically


def main_has_folder(path: Path) -> bool:
    """Whether the main process finds a folder there. All processes go by what it finds."""
    return bool(distributed.from_main(path.is_dir()))


@contextmanager
def hold(file: Path, guarded: str, wait: float) -> Iterator[None]:
    """Hold a lock while the body runs, once for all processes that work together, and once in each folder of theirs.

    The main process takes it first. Of the others each takes it where its folder is another one.

    Args:
        file: the lock file; see ``locks.hold``.
        guarded: what is guarded, for the message.
        wait: how many seconds to wait for whoever holds it.

    Raises:
        UserError: on every process, where one does not get it.
    """
    if distributed.world_size() == 1:
        with locks.hold(file, guarded, wait):
            yield
        return
    with ExitStack() as held:
        start, fault = uuid.uuid4().hex, None
        if distributed.is_main():
            fault = _take(held, file, guarded, wait, start)
        distributed.barrier()  # however long the main process waits
        start, fault = distributed.gather((start, fault))[0]
        if fault is None and not distributed.is_main():
            fault = _take(held, file, guarded, wait, start)
        distributed.barrier()
        faults = [text for text in distributed.gather(fault) if text is not None]
        if faults:
            raise UserError(faults[0])
        yield
        distributed.barrier()  # nobody lets go while another process still writes


def _take(held: ExitStack, file: Path, guarded: str, wait: float, start: str) -> str | None:
    """Take a lock, unless a process of the same start holds it. What stands in the way is returned."""
    try:
        held.enter_context(locks.hold(file, guarded, wait, start))
    except locks.Held as error:
        if error.holder is None or error.holder.start != start:
            return str(error)
    except UserError as error:
        return str(error)
    return None


def follow_main(folder: Path, names: Sequence[str], *, fixed: Sequence[str] = ()) -> None:
    """Give every process's folder the main process's content of some files, as far as that has them.

    Args:
        folder: this process's folder.
        names: paths relative to the folder, the same on every process.
        fixed: those of the files that are never replaced, because another content means another run.

    Raises:
        UserError: on every process, where a process has another content of a fixed file.
    """
    if distributed.world_size() == 1:
        return
    digests = distributed.gather({name: _digest(folder / name) for name in names})
    wanted = digests[0]
    for name in names:
        rank = next(
            (rank for rank, there in enumerate(digests) if there[name] not in (None, wanted[name])), 0
        )
        if name in fixed and rank:
            raise UserError(
                f"process {rank} holds another run than the main process: {name} differs from that in {folder}. "
                "Give this run a name of its own with --name, or remove the old folder there."
            )
    for name in names:
        if wanted[name] is not None and any(there[name] != wanted[name] for there in digests):
            _copy(folder / name, source=0, replace=digests[distributed.rank()][name] != wanted[name])


def complete(folder: Path, patterns: Sequence[str]) -> None:
    """Give every process's folder those files that any process has. Call it when nobody writes there.

    Files of one name have one content, wherever they were made. What a kill left half-written is not copied.

    Args:
        folder: this process's folder.
        patterns: such as ``units/*``, relative to the folder.
    """
    distributed.barrier()
    if distributed.world_size() == 1:
        return
    here = {
        path.relative_to(folder).as_posix()
        for pattern in patterns
        for path in folder.glob(pattern)
        if path.is_file() and not path.name.startswith(".")
    }
    everywhere = distributed.gather(here)
    for name in sorted(set().union(*everywhere)):
        owner = next(rank for rank, there in enumerate(everywhere) if name in there)
        if any(name not in there for there in everywhere):
            _copy(folder / name, source=owner, replace=name not in here)


def same_everywhere(facts: Mapping[str, object]) -> None:
    """Make sure that all processes work on the same things.

    Args:
        facts: what a thing is called -> what it is here, such as the fingerprint of the data.

    Raises:
        UserError: on every process, where two processes differ.
    """
    everywhere = distributed.gather({name: str(value) for name, value in facts.items()})
    for rank, there in enumerate(everywhere):
        for name, value in everywhere[0].items():
            if there[name] != value:
                raise UserError(
                    f"the processes differ in {name}: {value} on the main process, {there[name]} on process {rank}. "
                    "Give every host the same files and the same command."
                )


def _copy(path: Path, *, source: int, replace: bool) -> None:
    """Send a file from one process to all; those that ``replace`` theirs write it."""
    content = distributed.bytes_from(source, path.read_bytes() if distributed.rank() == source else b"")
    if replace:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    status = path.stat()
    return _digest_of_state(path, status.st_ino, status.st_size, status.st_mtime_ns)


@cache
def _digest_of_state(path: Path, inode: int, size: int, changed: int) -> str:
    """The hash of a file, once for each of its states: a start evaluates a run many times."""
    return records.file_hash(path)
