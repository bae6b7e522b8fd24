"""Files, their names and the folders around them are flushed: no file outlasts what was written before it."""

import errno
import os
import stat
from pathlib import Path

import pytest

from counterpart import durability, records
from counterpart.durability import flush_names, make_folder
from counterpart.errors import UserError
from counterpart.records import Record
from counterpart.rundir import write_atomically


@pytest.fixture
def flushed(monkeypatch):
    """What is flushed, one after the other: paths as they are at that time."""
    paths = []
    monkeypatch.setattr(os, "fsync", lambda file: paths.append(Path(f"/proc/self/fd/{file}").readlink()))
    return paths


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for the paths of open files")
class TestFlushed:
    def test_folders_from_the_outermost_on(self, flushed, tmp_path):
        assert make_folder(tmp_path / "a" / "b") == [tmp_path / "a", tmp_path / "a" / "b"]
        assert flushed == [tmp_path, tmp_path / "a"]
        assert make_folder(tmp_path / "a" / "b") == []
        assert len(flushed) == 2

    def test_a_file_before_its_name(self, flushed, tmp_path):
        write_atomically(tmp_path / "a" / "file", lambda path: path.write_text("x"))
        assert flushed == [tmp_path, tmp_path / "a" / f".file.{os.getpid()}", tmp_path / "a"]

    def test_records_and_their_name(self, flushed, tmp_path):
        records.write(tmp_path / "a" / "records.jsonl", [Record("metric", "x", 1.0)])
        assert flushed == [tmp_path, tmp_path / "a" / "records.jsonl", tmp_path / "a"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_flushes_no_folder_stops_nobody(monkeypatch, tmp_path, number):
    def refuse(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    flush_names(tmp_path)


def test_a_folder_that_may_not_be_read_stops_nobody(monkeypatch, tmp_path):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(durability.os, "open", refuse)
    flush_names(tmp_path)


def test_a_disk_that_is_full_when_the_name_is_flushed_is_said(monkeypatch, tmp_path):
    flush = os.fsync

    def full(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UserError, match=r"file is written, but may not outlast a loss of power: No space left"
    ):
        write_atomically(tmp_path / "file", lambda path: path.write_text("x"))
    assert (tmp_path / "file").read_text() == "x"
