"""The journal of a study: a file that workers of one machine write in turn, under a lock that a kill gives back."""

import fcntl
from io import TextIOWrapper
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


class SystemLock(JournalFileOpenLock):
    """A lock of the operating system on a file, which ends with the process that holds it.

    Optuna's own locks are files that a killed process leaves behind. Others then wait for half a minute, and for ever
    where it is a link and the path of the journal is relative.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self.file: TextIOWrapper | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self.file = self.path.open("w")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self.file is not None:
            self.file.close()
            self.file = None


def open_journal(path: Path) -> JournalStorage:
    """The storage that a journal is, which is made where there is none."""
    lock = SystemLock(path.with_name(f"{path.name}.lock"))
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
