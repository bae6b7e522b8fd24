"""Files of a run folder that are damaged: every reader says which file, in one line, and ends with code 2."""

import json
import resource
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from counterpart import records
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.data.cifar import read_batch
from counterpart.data.corruptions import files
from counterpart.data.staging import prepared_with, read_lines
from counterpart.errors import UserError
from counterpart.evaluation.corruption import _read as read_counts
from counterpart.evaluation.ledger import Ledger
from counterpart.jobs.stored_evaluations import _settings as read_settings
from counterpart.jobs.stored_models import load_checkpoint
from counterpart.jobs.views import _read_form as read_form
from counterpart.models import create
from counterpart.models.hub import read_weights
from counterpart.rundir import RunDir
from counterpart.training import checkpoint

DEEP = "[" * 200_000


@pytest.mark.parametrize(
    "line",
    [
        b"5",
        b'{"kind":"\xff"}',
        DEEP.encode(),
        b'{"kind":"metric","name":"x","value":' + b"9" * 5000 + b"}",
        b'{"kind":"metric","name":"x","value":"high"}',
        b'{"kind":"metric","name":7}',
        b'{"kind":"metric","name":"x","details":[]}',
        b'{"kind":"metric","name":"x","interval":5}',
        b'{"kind":"metric","name":"x","colour":"red"}',
        b"{",
    ],
)
def test_a_line_that_is_no_record(tmp_path, line):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"kind":"metric","name":"x","value":0.5}\n' + line + b"\n{}\n")
    with pytest.raises(UserError, match=r"records\.jsonl, line 2 is not a record: ") as refusal:
        records.read(path)
    assert "\n" not in str(refusal.value)


def test_a_torn_last_line_is_passed_over(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"kind":"metric","name":"x","value":0.5}\n{"kind":"m\xc3')
    assert [record.value for record in records.read(path)] == [0.5]


@pytest.mark.parametrize(
    "line", [b"5\n", b'{"kind": "epoch"}\n', b"[\n", b'{"kind": "epoch", "name": "e", "details": 3}\n']
)
def test_a_log_that_is_cut_back(tmp_path, line):
    run = RunDir(tmp_path)
    run.records_file.write_bytes(line)
    with pytest.raises(UserError, match=r"records\.jsonl, line 1 is not a record"):
        run.drop_epochs_from(3)


@pytest.mark.parametrize("text", ["a: [", "[1]", "", "5", "data: 7", "!!int x", "\ufffe"])
@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_the_configuration_of_a_run(tmp_path, capsys, text, command):
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert main([command, str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'config.yaml'} is damaged" in line


UNIT = {
    "positions": [0, 1],
    "answers": [1, 2],
    "fooled": [False, True],
    "forwards": [1, 1],
    "backwards": [0, 0],
}


@pytest.mark.parametrize(
    "change",
    [
        {"answers": [1]}, {"answers": 3}, {"answers": ["a", "b"]}, {"positions": [0, 7]}, {"positions": [0, -1]},
        {"positions": [0, 1.5]}, {"fooled": None}, {"forwards": [[], []]}, {"colour": 3},
    ],
)  # fmt: skip
def test_a_unit_of_a_ledger(tmp_path, change):
    (tmp_path / "units").mkdir()
    ledger = Ledger(tmp_path, 1)
    file = tmp_path / "units" / "clean-00000.json"
    file.write_text(json.dumps({**UNIT, "seconds": 1.0}))
    assert [row.clean for row in ledger.rows([0, 0], [0, 1], [])] == [1, 2]
    file.write_text(json.dumps({**UNIT, "seconds": 1.0, **change}))
    with pytest.raises(UserError, match=r"clean-00000\.json is damaged\. Remove it"):
        ledger.rows([0, 0], [0, 1], [])


@pytest.mark.parametrize("content", ["5", "{}", "[]", DEEP, '{"seconds": "long"}'])
def test_the_seconds_and_the_identity_of_a_ledger(tmp_path, content):
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "x-00000.json").write_text(content)
    with pytest.raises(UserError, match=r"x-00000\.json is damaged"):
        Ledger(tmp_path, 1).seconds()
    (tmp_path / "identity.json").write_text("[]" if content == "{}" else content)
    if not content.startswith('{"'):
        with pytest.raises(UserError, match=r"identity\.json is damaged"):
            Ledger(tmp_path, 1).identity()


@pytest.mark.parametrize(
    "content", [b"", b"5", b"{}", b"\xff", DEEP.encode(), b'{"target": 5, "config": {}}']
)
def test_the_settings_of_an_evaluation(tmp_path, content):
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(UserError, match=r"settings\.json is missing or damaged"):
        read_settings(tmp_path / "settings.json")


@pytest.mark.parametrize("content", [b"\xff\n", DEEP.encode() + b"\n", b"5\n", b"{}\n"])
def test_the_counts_of_corruptions(tmp_path, content):
    (tmp_path / "counts.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"counts\.jsonl, line 1 is no count"):
        read_counts(tmp_path / "counts.jsonl")


ABOUT = {
    "model": {"name": "wrn-10-1", "width": 4, "num_classes": 10, "in_channels": 1, "image_size": 16},
    "classes": list("0123456789"), "data": "digits", "fingerprint": "f" * 12, "config": "c" * 12,
}  # fmt: skip


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ('{"model": k}', "its header is no JSON"),
        ("[]", "its header does not say what it holds"),
        (DEEP, "nested too deeply"),
        ("{}", "its header does not say 'model'"),
        (json.dumps({**ABOUT, "model": {"nome": "wrn-10-1"}}), "its header describes no network"),
        (json.dumps({**ABOUT, "model": 5}), "its header describes no network"),
        (
            json.dumps({**ABOUT, "model": {**ABOUT["model"], "width": "wide"}}),
            "its header describes no network",
        ),
        (json.dumps({**ABOUT, "model": {**ABOUT["model"], "width": -4}}), "its header describes no network"),
    ],
)
def test_the_header_of_a_checkpoint(tmp_path, header, words):
    path = tmp_path / "k.safetensors"
    save_file({"a": torch.ones(1)}, path, {"counterpart": header})
    with pytest.raises(UserError, match=words) as refusal:
        load_checkpoint(path)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_a_sound_checkpoint_is_read(tmp_path):
    model = create(**ABOUT["model"])
    save_file(model.state_dict(), tmp_path / "k.safetensors", {"counterpart": json.dumps(ABOUT)})
    loaded, about = load_checkpoint(tmp_path / "k.safetensors")
    assert about == ABOUT
    assert torch.equal(loaded.get_classifier().weight, model.get_classifier().weight)
    assert checkpoint.read(tmp_path / "k.safetensors")[1] == ABOUT


def test_an_archive_of_weights_whose_table_is_damaged(tmp_path):
    path = tmp_path / "k.pt"
    torch.save({"a": torch.ones(2)}, path)
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at : at + 4] = b"XXXX"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"k\.pt cannot be read as plain tensors: it is damaged"):
        read_weights(path)


def test_the_header_of_an_array(tmp_path):
    path = tmp_path / "fog.npy"
    np.save(path, np.zeros(20, np.uint8))
    content = path.read_bytes()
    for header in (
        b"{'descr: (",
        b"(" * 90,
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (10**30,)}",
        b"\xff" * 9,
    ):
        path.write_bytes(content[:10] + header.ljust(118) + content[128:])
        with pytest.raises(UserError, match=r"fog\.npy is damaged or no \.npy file") as refusal:
            files._open(path)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/tmp/x", "..", "a\\..\\x", "x" * 300, "a\nb", "a\x1b[31m"]
)
def test_a_name_stays_in_the_folder_of_runs(name):
    with pytest.raises(
        UserError, match=r"no folder within the folder of runs|use at most 200|cannot be seen"
    ) as refusal:
        resolve({"name": name})
    assert "\n" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)


def test_names_of_groups_are_names(tmp_path):
    assert resolve({"name": "group/seed-0"}).name == "group/seed-0"
    assert resolve({"name": "a..b"}).name == "a..b"


@pytest.mark.parametrize(
    "place", [b"r\xff\xff\xff\x7f", b"q\xfe", b"p2147483647\n"], ids=["LONG_BINPUT", "BINPUT", "PUT"]
)
def test_a_pickle_that_asks_for_places_without_end(tmp_path, place):
    """Eleven bytes would make Python's reader take gigabytes."""
    path = tmp_path / "data_batch_1"
    with pytest.raises(UserError, match=r"data_batch_1 is damaged or cut off \(ValueError\)"):
        read_batch(b"\x80\x02}" + place + b".", path)


def test_an_archive_of_weights_that_only_torch_can_list(tmp_path):
    """What its members are would not be looked at, and torch would unpack them all the same."""
    file = tmp_path / "odd.pt"
    torch.save({"weight": torch.zeros(3)}, file)
    content = file.read_bytes()
    entry = content.index(b"PK\x01\x02")
    file.write_bytes(
        content[: entry + 6] + (99).to_bytes(2, "little") + content[entry + 8 :]
    )  # the version it needs
    assert torch.load(file, weights_only=True)["weight"].tolist() == [0, 0, 0]
    with pytest.raises(UserError, match=r"odd\.pt cannot be read as plain tensors: it is damaged"):
        read_weights(file)


def test_an_archive_of_weights_that_is_compressed(tmp_path):
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "k.pt")
    assert read_weights(tmp_path / "k.pt")[0]["a"].shape == (100_000,)
    bomb = zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "k.pt") as read, bomb as written:
        for name in read.namelist():
            written.writestr(name, read.read(name))
    assert (tmp_path / "bomb.pt").stat().st_size < 5000
    with pytest.raises(UserError, match=r"bomb\.pt is a compressed archive, which torch\.save never writes"):
        read_weights(tmp_path / "bomb.pt")


def test_a_tensor_of_one_number_without_end(tmp_path):
    torch.save({"a": torch.zeros(1).as_strided((2**36,), (0,))}, tmp_path / "k.pt")
    with pytest.raises(UserError, match=r"k\.pt holds a of shape \(68719476736,\), which no memory can hold"):
        read_weights(tmp_path / "k.pt")


def test_weights_and_arrays_larger_than_their_limit(tmp_path, monkeypatch):
    save_file({"a": torch.ones(100)}, tmp_path / "k.safetensors")
    np.save(tmp_path / "fog.npy", np.zeros(200, np.uint8))
    monkeypatch.setenv("COUNTERPART_MOST_WEIGHTS", "100")
    monkeypatch.setenv("COUNTERPART_MOST_UNPACKED", "100")
    with pytest.raises(UserError, match=r"k\.safetensors: .* COUNTERPART_MOST_WEIGHTS"):
        read_weights(tmp_path / "k.safetensors")
    with pytest.raises(
        UserError, match=r"fog\.npy is damaged or no \.npy file: .* COUNTERPART_MOST_UNPACKED"
    ):
        files._open(tmp_path / "fog.npy")


@pytest.mark.parametrize("content", [b"[\n", b"5\n", DEEP.encode() + b"\n", b"\xff\n"])
def test_the_journal_of_a_preparation(tmp_path, content):
    (tmp_path / "journal.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"journal\.jsonl, line 1 is damaged: "):
        read_lines(tmp_path / "journal.jsonl")
    (tmp_path / "journal.jsonl").write_bytes(b'{"unit": 1}\n{"torn')
    assert read_lines(tmp_path / "journal.jsonl") == [{"unit": 1}]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"prepared": 5}', DEEP.encode()])
def test_the_options_of_a_preparation(tmp_path, content):
    (tmp_path / "parts.json").write_bytes(content)
    with pytest.raises(UserError, match=r"parts\.json is damaged: "):
        prepared_with(tmp_path)


@pytest.mark.parametrize(
    "content", ["5", "{}", '{"form": "quick", "reason": null}', '{"form": [], "reason": null}', DEEP]
)
def test_the_form_of_a_view(tmp_path, content):
    (tmp_path / "view.json").write_text(content)
    with pytest.raises(UserError, match=r"view\.json is damaged"):
        read_form(tmp_path / "view.json")
    (tmp_path / "view.json").write_text('{"form": "contiguous", "reason": "r"}')
    assert read_form(tmp_path / "view.json") == ("contiguous", "r")


@pytest.mark.parametrize(
    "positions", [torch.tensor(1), torch.tensor([0.5]), torch.tensor([0, 1]), torch.tensor([[0]])]
)
def test_the_images_of_a_ledger(tmp_path, positions):
    (tmp_path / "images").mkdir()
    save_file(
        {"images": torch.zeros(1, 3, 4, 4), "positions": positions},
        tmp_path / "images" / "pgd-00000.safetensors",
    )
    with pytest.raises(UserError, match=r"pgd-00000\.safetensors is damaged"):
        Ledger(tmp_path, 1).images("pgd", 0)


def test_a_setting_that_repeats_a_file(tmp_path):
    for settings in ({"x" * 10**6: 1}, {"mask": {"map": "(" * 10**6}}):
        with pytest.raises(UserError) as refusal:
            resolve(settings)
        assert len(str(refusal.value)) < 10_000


def test_an_old_file_of_weights_that_states_gigabytes(tmp_path):
    """torch reserves what the file states and reads what there is; memory that is not written costs nothing."""
    path = tmp_path / "k.pth"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    place = content.rindex((3).to_bytes(8, "little"))
    path.write_bytes(content[:place] + (2**32).to_bytes(8, "little") + content[place + 8 :])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"k\.pth cannot be read as plain tensors: it is damaged"):
        read_weights(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 500_000  # kilobytes
