"""Checksums within files: what they are, what they refuse, and that files without one are read with a note."""

import hashlib
import json
import logging
import os
import re
import stat

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from counterpart import checksums, records
from counterpart.errors import UserError
from counterpart.evaluation.ledger import Ledger, Unit
from counterpart.evaluation.radii import budgets_from
from counterpart.records import Record
from counterpart.rundir import RunDir, read_json

UNFIT = "it does not fit its checksum"
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(6.0, 12.0).view(2, 3)}


@pytest.fixture
def notes(monkeypatch, caplog):
    """What is said of files without a checksum, as in a process of its own."""
    monkeypatch.setattr(checksums, "_noted", [])
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def zeroed(content):
    return re.sub(rb"[0-9a-f]{64}", b"0" * 64, content)


# What a checksum is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"indent": 1}, {"ensure_ascii": False}])
def test_of_an_object_it_is_the_last_key_and_the_hash_of_the_text_with_zeros(options):
    text = checksums.to_json({"name": "naïve", "n": [1, 2.5, None]}, **options)
    value = json.loads(text)
    assert list(value) == ["name", "n", "checksum"]
    assert value["checksum"] == hashlib.sha256(zeroed(text.encode())).hexdigest()
    assert checksums.is_sealed_json(value, text.encode())
    assert value == {"name": "naïve", "n": [1, 2.5, None]}


def test_of_a_configuration_it_is_the_last_line():
    text = checksums.to_commented("a: 1\nb: 2\n")
    assert text.startswith("a: 1\nb: 2\n# checksum: ")
    assert text.split()[-1] == hashlib.sha256(zeroed(text.encode())).hexdigest()
    assert checksums.is_sealed_comment(text.encode())


def test_of_tensors_it_is_in_the_header_and_they_stay_as_they_are(tmp_path):
    path = tmp_path / "t.safetensors"
    checksums.save_tensors(TENSORS, path, {"format": "pt"})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    assert header["format"] == "pt"
    assert header["counterpart checksum"] == hashlib.sha256(zeroed(path.read_bytes())).hexdigest()
    assert checksums.is_sealed_file(path)
    for read in (load_file, checksums.load_tensors):
        assert all(torch.equal(value, TENSORS[name]) for name, value in read(path).items())


def test_arrays_have_one_as_well(tmp_path):
    checksums.save_tensors({"a": np.arange(3)}, tmp_path / "a.safetensors", framework="numpy")
    assert checksums.is_sealed_file(tmp_path / "a.safetensors")


# What it refuses --------------------------------------------------------------------------------------------------


def test_a_swapped_tensor_a_changed_one_and_another_name_are_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    checksums.save_tensors(TENSORS, path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    for others in (
        {"a": TENSORS["b"], "b": TENSORS["a"]},
        {**TENSORS, "a": TENSORS["a"] + 1e-7},
        {"a": TENSORS["a"], "c": TENSORS["b"]},
        {**TENSORS, "a": TENSORS["a"].view(3, 2)},
        {"a": TENSORS["a"]},
    ):
        save_file(others, path, header)
        with pytest.raises(ValueError, match=UNFIT):
            checksums.load_tensors(path)
    save_file(TENSORS, path, header)
    checksums.load_tensors(path)


def test_damage_to_the_key_itself_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    checksums.save_tensors(TENSORS, path)
    content = path.read_bytes()
    for others in (b"counterpart ahecksum", b"Counterpart checksum"):
        path.write_bytes(content.replace(b"counterpart checksum", others))
        with pytest.raises(ValueError, match=UNFIT):
            checksums.load_tensors(path)
    path.write_bytes(content.replace(b"counterpart checksum", b"hash of the pictures"))  # somebody else's key
    assert checksums.load_tensors(path).keys() == TENSORS.keys()


def test_what_ends_in_64_digits_of_somebody_else_is_read():
    digits = "a" * 64
    for content in (f'{{"sha256": "{digits}"}}', f'{{"a": ["{digits}"], "pictures": "{digits}"}}\n'):
        value = json.loads(content)
        assert not checksums.is_sealed_json(value, content.encode())
        assert value == json.loads(content)
    assert not checksums.is_sealed_comment(f"a: 1\n# made by {digits}\n".encode())
    for content in (f'{{"checksum": "{digits}"}}', f'{{"a": 1, "chacksum" :"{digits}"\n}}'):
        with pytest.raises(ValueError, match=UNFIT):
            checksums.is_sealed_json(json.loads(content), content.encode())
    with pytest.raises(ValueError, match=UNFIT):
        checksums.is_sealed_comment(f"a: 1\n# chacksum: {digits}\n".encode())


@pytest.mark.skipif(os.name != "posix", reason="files have no modes of this kind")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_of_tensors_are_readable_as_any_new_file(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        checksums.save_tensors(TENSORS, tmp_path / "t.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "t.safetensors").stat().st_mode) == mode


@pytest.mark.parametrize("length", [0, 3, 8, 50, 150, -1, -20])
def test_a_file_of_tensors_that_was_cut_is_refused(tmp_path, length):
    unit = Unit([0, 1], [1, 1], [True, True], [1, 1], [0, 0], 0.5)
    ledger = Ledger(tmp_path, 1)
    ledger.commit("PGD", 0, unit, torch.rand(2, 1, 4, 4))
    file = tmp_path / "images" / "PGD-00000.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(UserError, match=r"PGD-00000\.safetensors is damaged"):
        ledger.images("PGD", 0)


def test_a_unit_with_another_number_is_refused(tmp_path):
    ledger = Ledger(tmp_path, 1)
    ledger.commit("PGD", 0, Unit([0, 1], [1, 2], [True, True], [1, 1], [0, 0], 0.5), None)
    file = tmp_path / "units" / "PGD-00000.json"
    file.write_text(file.read_text().replace("[1, 2]", "[1, 3]"))
    with pytest.raises(UserError, match=r"PGD-00000\.json is damaged"):
        ledger.read("PGD", 0)


def test_radii_with_another_bit_are_refused(tmp_path):
    checksums.save_tensors(
        {"radii": torch.ones(2, 1, 4, 4), "index": torch.arange(2)}, tmp_path / "r.safetensors"
    )
    budgets_from(tmp_path / "r.safetensors")
    content = bytearray((tmp_path / "r.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "r.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"r\.safetensors is missing or damaged"):
        budgets_from(tmp_path / "r.safetensors")


def test_an_edited_configuration_is_refused_until_its_last_line_is_deleted(tmp_path, notes):
    run = RunDir(tmp_path / "run")
    run.create({"seed": 0, "data": {"root": "a"}}, dict)
    text = run.config_file.read_text().replace("seed: 0", "seed: 1")
    run.config_file.write_text(text)
    with pytest.raises(UserError, match=rf"config\.yaml is damaged: {UNFIT}.*delete its last line"):
        run.config()
    run.config_file.write_text(text.rpartition("#")[0])
    assert run.config() == {"seed": 1, "data": {"root": "a"}}
    assert len(notes()) == 1


@pytest.mark.parametrize(("place", "byte"), [(-2, b"z"), (-30, b"G"), (-1, b"\x0b"), (-70, b"J")])
def test_damage_to_the_last_line_of_a_configuration_is_refused(tmp_path, place, byte):
    run = RunDir(tmp_path / "run")
    run.create({"seed": 0}, dict)
    content = bytearray(run.config_file.read_bytes())
    content[place : len(content) + place + 1] = byte
    run.config_file.write_bytes(content)
    with pytest.raises(UserError, match=rf"config\.yaml is damaged: {UNFIT}"):
        run.config()


def test_a_changed_record_is_refused_with_its_line(tmp_path):
    path = tmp_path / "records.jsonl"
    records.write(path, [Record("metric", "m", 0.25), Record("metric", "m", 0.5)])
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(UserError, match=rf"records\.jsonl, line 2 is not a record: {UNFIT}"):
        records.read(path)


def test_a_damaged_end_of_the_last_record_is_not_taken_for_a_torn_one(tmp_path):
    path = tmp_path / "records.jsonl"
    records.write(path, [Record("metric", "m", 0.25)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\x0b")
    with pytest.raises(UserError, match="line 1 is not a record"):
        records.read(path)
    with pytest.raises(UserError, match="the end of its last line is not what was written"):
        records.write(path, [Record("metric", "m", 0.5)])
    assert path.read_bytes() == whole[:-1] + b"\x0b"
    path.write_bytes(whole[:-2])  # torn by a kill
    records.write(path, [Record("metric", "m", 0.5)])
    assert [record.value for record in records.read(path)] == [0.5]


@pytest.mark.parametrize("digits", ["", "0" * 64, "z" * 64, 7])
def test_a_key_that_holds_something_else_is_refused(tmp_path, digits):
    (tmp_path / "a.json").write_text(json.dumps({"n": 1, "checksum": digits}))
    with pytest.raises(ValueError, match=UNFIT):
        read_json(tmp_path / "a.json")


# What has none ----------------------------------------------------------------------------------------------------


def test_files_without_one_are_read_with_one_note(tmp_path, notes):
    save_file(TENSORS, tmp_path / "old.safetensors", {"checksum": "crc32:12345678"})
    (tmp_path / "old.json").write_text('{"n": 1}')
    (tmp_path / "old.jsonl").write_text('{"kind": "metric", "name": "m"}\n')
    assert checksums.load_tensors(tmp_path / "old.safetensors").keys() == TENSORS.keys()
    assert read_json(tmp_path / "old.json") == {"n": 1}
    assert len(records.read(tmp_path / "old.jsonl")) == 1
    [note] = notes()
    assert f"{tmp_path / 'old.safetensors'} carries no checksum" in note


def test_nothing_is_said_of_files_that_carry_one(tmp_path, notes):
    checksums.save_tensors(TENSORS, tmp_path / "t.safetensors")
    records.write(tmp_path / "r.jsonl", [Record("metric", "m", 0.25)])
    (tmp_path / "a.json").write_text(checksums.to_json({"n": 1}))
    checksums.load_tensors(tmp_path / "t.safetensors")
    records.read(tmp_path / "r.jsonl")
    assert read_json(tmp_path / "a.json") == {"n": 1}
    assert notes() == []
