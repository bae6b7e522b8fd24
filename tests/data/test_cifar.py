"""CIFAR-10 from pickles: official layouts are read, nothing in them is run, damage is named."""

import hashlib
import logging
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from counterpart.data import batches, load_cifar10, load_cifar100, say_whether_there
from counterpart.data.cifar import ARCHIVE, FOLDER, TEST_FILES, TRAIN_FILES, read_batch
from counterpart.errors import UserError

NAMES = (*TRAIN_FILES, *TEST_FILES)


def content_of(name, n=20):
    number = NAMES.index(name)
    data = np.random.default_rng(number).integers(0, 256, (n, 3072), dtype=np.uint8)
    labels = [(i + number) % 10 for i in range(n)]
    return data, labels


def as_python_3(data, labels, protocol=4):
    return pickle.dumps({"labels": labels, "data": data, "filenames": ["x"] * len(labels)}, protocol)


def as_python_2(data, labels):
    """The opcodes that Python 2 wrote into the official files: byte strings, the old module of numpy."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    raw = data.tobytes()
    shape = b"(K" + bytes([data.shape[0]]) + b"M" + struct.pack("<H", data.shape[1]) + b"t"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01" + shape + dtype + b"I00\n" + b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    entries = text(b"data") + array + state + text(b"labels") + numbers
    return b"\x80\x02}(" + entries + b"u."


@pytest.fixture
def root(tmp_path):
    (tmp_path / FOLDER).mkdir()
    for name in NAMES:
        (tmp_path / FOLDER / name).write_bytes(as_python_3(*content_of(name)))
    return tmp_path


def test_splits_hold_the_official_rows(root):
    splits = load_cifar10(root, validation=0.2)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [80, 20, 20]
    together = torch.cat([splits.train.index, splits.validation.index])
    assert torch.equal(together.sort().values, torch.arange(100))
    assert torch.bincount(splits.validation.labels).tolist() == [2] * 10
    rows = np.concatenate([content_of(name)[0] for name in TRAIN_FILES]).reshape(-1, 3, 32, 32)
    labels = torch.tensor([content_of(name)[1] for name in TRAIN_FILES]).flatten()
    for s in (splits.train, splits.validation):
        assert torch.equal(s.pixels, torch.from_numpy(rows)[s.index])
        assert torch.equal(s.labels, labels[s.index])
    assert torch.equal(splits.test.pixels.flatten(1), torch.from_numpy(content_of("test_batch")[0]))
    assert splits.test.index.tolist() == list(range(20))
    assert splits.train.classes[3] == "cat"
    assert splits.train.files is None
    assert {s.fingerprint for s in (splits.train, splits.validation, splits.test)} == {
        splits.test.fingerprint
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_way_to_write_a_batch_reads_the_same(protocol, tmp_path):
    data, labels = content_of("data_batch_3")
    expected = torch.from_numpy(data).view(-1, 3, 32, 32), torch.tensor(labels)
    written = [
        as_python_3(data, labels, protocol),
        as_python_3(np.asfortranarray(data), labels, protocol),
        as_python_3(data, np.array(labels), protocol),
        as_python_3(data, np.array(labels, dtype=">i4"), protocol),
        as_python_3(data, [np.int64(label) for label in labels], protocol),
        as_python_2(data, labels),
    ]
    assert pickle.loads(written[-1], encoding="bytes")[b"labels"] == labels
    for content in written:
        pixels, read_labels = read_batch(content, tmp_path / "data_batch_3")
        assert torch.equal(pixels, expected[0])
        assert torch.equal(read_labels, expected[1])


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, r"posix\.system"), (eval, r"_*builtins?_*\.eval"), (getattr, r"_*builtins?_*\.getattr")],
)
def test_a_malicious_pickle_is_refused_and_not_run(root, protocol, function, named):
    marker = root / "was run"
    arguments = {
        os.system: (f"touch '{marker}'",),
        eval: (f"open({str(marker)!r}, 'w')",),
        getattr: (1, "real"),
    }
    data, labels = content_of("data_batch_2")
    harmful = {"data": data, "labels": labels, "more": Malicious(function, *arguments[function])}
    (root / FOLDER / "data_batch_2").write_bytes(pickle.dumps(harmful, protocol))
    with pytest.raises(UserError, match=rf"data_batch_2 asks to run '{named}'.*refused") as refused:
        load_cifar10(root)
    assert "\n" not in str(refused.value)
    assert not marker.exists()


def test_admitted_names_cannot_be_combined_into_a_call(tmp_path):
    from counterpart.data import cifar

    assert {module for module, _ in cifar._ADMITTED} == {
        "numpy", "_codecs", "numpy.core.multiarray", "numpy._core.multiarray",
        "numpy.core.numeric", "numpy._core.numeric",
    }  # fmt: skip
    assert not any(getattr(stand_in, "__module__", "") == "numpy" for stand_in in cifar._ADMITTED.values())
    dotted = b"\x80\x04\x8c\x05numpy\x8c\x0fdtype.__class__\x93."
    with pytest.raises(UserError, match=r"numpy\.dtype\.__class__"):
        read_batch(dotted, tmp_path / "x")


DATA, LABELS = content_of("data_batch_1")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (as_python_3(DATA, LABELS)[:-100], "damaged or cut off"),
        (as_python_2(DATA, LABELS)[:2000], "damaged or cut off"),
        (b"", "damaged or cut off"),
        (b"<html>404</html>", "damaged or cut off"),
        (pickle.dumps([1, 2]), "it holds a list"),
        (pickle.dumps({"data": DATA}), "it has no 'labels'"),
        (as_python_3(DATA[:, :3000], LABELS), r"uint8 of shape \(20, 3000\) and not uint8 \(n, 3072\)"),
        (as_python_3(DATA.astype(np.int16), LABELS), "int16"),
        (as_python_3(DATA.astype(np.float32), LABELS), "array of type <?f4"),
        (as_python_3(DATA[:0], []), r"\(0, 3072\)"),
        (as_python_3(DATA, LABELS[:-1]), "20 images and labels of shape"),
        (as_python_3(DATA, [10, *LABELS[1:]]), "labels run from 0 to 10 and not within 0..9"),
        (as_python_3(DATA, [-1, *LABELS[1:]]), "labels run from -1"),
        (as_python_3(DATA, ["a"] * 20), "labels of shape"),
        (as_python_3(DATA, [0.5] * 20), "float64"),
        (as_python_3("no array", LABELS), "no CIFAR-10 batch"),
    ],
)
def test_damage_is_named_in_one_line(root, content, reason):
    (root / FOLDER / "data_batch_4").write_bytes(content)
    with pytest.raises(UserError, match=reason) as raised:
        load_cifar10(root)
    message = str(raised.value)
    assert "data_batch_4" in message
    assert "--data.download true" in message
    assert "\n" not in message


def test_missing_files_are_named_with_the_way_to_get_them(root):
    (root / FOLDER / "test_batch").unlink()
    with pytest.raises(UserError, match=rf"test_batch is missing.*--data\.download true.*{ARCHIVE}"):
        load_cifar10(root)
    assert "lacks test_batch" in say_whether_there("cifar10", root)
    with pytest.raises(UserError, match=r"--data\.root DIR"):
        load_cifar10()


def test_root_may_be_the_folder_itself(root):
    with pytest.raises(UserError, match=rf"new/{FOLDER}/data_batch_1 is missing"):
        load_cifar10(root / "new" / FOLDER)
    assert load_cifar10(root / FOLDER).train.fingerprint == load_cifar10(root).train.fingerprint
    (root / FOLDER).rename(root / "renamed")
    assert len(load_cifar10(root / "renamed").test) == 20
    assert "there" in say_whether_there("cifar10", root / "renamed")


def test_other_bytes_are_accepted_with_a_warning_and_another_fingerprint(root, caplog, monkeypatch):
    with caplog.at_level(logging.WARNING):
        first = load_cifar10(root).train.fingerprint
    assert "6 of 6 files differ from the official checksums" in caplog.text
    assert first in caplog.text
    data, labels = content_of("test_batch")
    data[3, 5] ^= 1
    (root / FOLDER / "test_batch").write_bytes(as_python_3(data, labels))
    assert load_cifar10(root).train.fingerprint != first

    make_official(root / FOLDER, monkeypatch)
    caplog.clear()
    load_cifar10(root)
    assert not caplog.text


def test_size_resizes(root):
    plain, large = load_cifar10(root).test, load_cifar10(root, size=64).test
    assert large.shape == (3, 64, 64)
    assert large.pixels.shape[1:] == large.shape
    back = torch.nn.functional.avg_pool2d(large.pixels.float(), 2)
    assert torch.corrcoef(torch.stack([back.flatten(), plain.pixels.float().flatten()]))[0, 1] > 0.9
    assert large.fingerprint == plain.fingerprint


def make_official(folder, monkeypatch):
    from torchvision.datasets import CIFAR10

    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in TRAIN_FILES])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, md5[name]] for name in TEST_FILES])


@pytest.fixture
def archive(root, monkeypatch):
    """An archive in the official layout, offered by a server on this machine."""
    from torchvision.datasets import CIFAR10

    (root / FOLDER / "batches.meta").write_bytes(b"meta")
    path = root / "server" / ARCHIVE
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        tar.add(root / FOLDER, FOLDER)
    handler = partial(SimpleHTTPRequestHandler, directory=path.parent)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{ARCHIVE}")
        monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
        yield path
        server.shutdown()


def test_download_fetches_what_is_missing(root, archive, tmp_path, capfd):
    expected = load_cifar10(root).train.fingerprint
    target = tmp_path / "new"
    assert load_cifar10(target, download=True).train.fingerprint == expected
    assert (target / FOLDER / "batches.meta").read_bytes() == b"meta"
    archive.unlink()
    load_cifar10(target, download=True)  # complete: nothing to fetch
    (target / FOLDER / "data_batch_2").unlink()
    (target / FOLDER / "data_batch_1").write_bytes(b"mine")
    with pytest.raises(
        UserError, match="data_batch_1 is damaged"
    ):  # from the archive kept; nothing overwritten
        load_cifar10(target, download=True)
    assert (target / FOLDER / "data_batch_2").exists()


def test_a_failed_download_says_what_to_do(archive, tmp_path, monkeypatch, capfd):
    from torchvision.datasets import CIFAR10

    archive.write_bytes(archive.read_bytes()[:-50])
    with pytest.raises(UserError, match=rf"Could not fetch CIFAR-10 from .*Put {ARCHIVE} into .*new"):
        load_cifar10(tmp_path / "new", download=True)
    assert not (tmp_path / "new" / FOLDER).exists()
    monkeypatch.setattr(CIFAR10, "url", CIFAR10.url + ".gone")
    with pytest.raises(UserError, match="Could not fetch CIFAR-10"):
        load_cifar10(tmp_path / "new", download=True)


@pytest.mark.slow
def test_reads_the_real_images(shared, tmp_path):
    script = shared / "data" / "restore_cifar10.py"
    if not script.exists():
        pytest.skip("needs ../shared/data/restore_cifar10.py")
    subprocess.run([sys.executable, script, "lossless", tmp_path], check=True, capture_output=True)
    splits = load_cifar10(tmp_path)
    assert len(splits.train) + len(splits.validation) == 8068
    assert len(splits.test) == 1017
    with np.load(shared / "data" / "cifar10-lossless.npz") as original:
        held = splits.validation
        assert torch.equal(held.pixels, torch.from_numpy(original["x_train"])[held.index])
        assert torch.equal(splits.test.labels, torch.from_numpy(original["y_test"]).long())
    batch = next(batches(splits.test, batch_size=8, device=torch.device("cpu")))
    assert splits.test.classes[int(batch.labels[0])] == "cat"  # the first official test image


NAMES_100 = [f"class {k:02d}" for k in range(100)]


def cifar100(root):
    """The official layout of CIFAR-100, with few images."""
    folder = root / "cifar-100-python"
    folder.mkdir()
    made = {}
    for number, (name, n) in enumerate((("train", 200), ("test", 100))):
        data = np.random.default_rng(number).integers(0, 256, (n, 3072), dtype=np.uint8)
        fine = [(7 * i) % 100 for i in range(n)]
        entries = {b"data": data, b"fine_labels": fine, b"coarse_labels": [label // 5 for label in fine]}
        (folder / name).write_bytes(pickle.dumps(entries, 2))
        made[name] = data, fine
    names = {b"fine_label_names": [name.encode() for name in NAMES_100], b"coarse_label_names": [b"x"] * 20}
    (folder / "meta").write_bytes(pickle.dumps(names, 2))
    return folder, made


def test_cifar_100_has_the_fine_classes_under_their_names(tmp_path, caplog):
    folder, made = cifar100(tmp_path)
    with caplog.at_level(logging.WARNING):
        splits = load_cifar100(tmp_path, validation=0.25)
    assert "2 of 2 files differ from the official checksums (train, test)" in caplog.text
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [150, 50, 100]
    assert splits.test.classes == tuple(NAMES_100)
    assert splits.test.name == "cifar100"
    assert splits.test.labels.tolist() == made["test"][1]
    assert torch.equal(splits.test.pixels.flatten(1), torch.from_numpy(made["test"][0]))
    assert torch.equal(load_cifar100(folder).test.pixels, splits.test.pixels)
    assert say_whether_there("cifar100", tmp_path) == f"cifar100: there, in {folder}"
    (folder / "meta").unlink()
    with pytest.raises(UserError, match=r"meta is missing\. .*cifar-100-python\.tar\.gz"):
        load_cifar100(tmp_path)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "train",
            pickle.dumps({"data": np.zeros((5, 3072), np.uint8), "labels": [1] * 5}),
            "no CIFAR-100 batch: .*fine",
        ),
        (
            "test",
            pickle.dumps({"data": np.zeros((5, 3072), np.uint8), "fine_labels": [100] * 5}),
            r"not within 0\.\.99",
        ),
        ("meta", pickle.dumps({"fine_label_names": ["a"] * 100}), "does not name 100 classes"),
        ("meta", pickle.dumps({"fine_label_names": 7}), "does not name 100 classes"),
        ("meta", pickle.dumps(Harmful()), "which no CIFAR-100 file does: refused, nothing was run"),
        ("train", b"\x80\x02}", "is damaged or cut off"),
    ],
)
def test_wrong_files_of_cifar_100_are_refused_in_one_line(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    folder, _ = cifar100(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as refusal:
        load_cifar100(tmp_path)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "harmed").exists()


def test_cifar_100_is_fetched_from_its_own_archive(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    folder, _ = cifar100(tmp_path / "there")
    asked = []

    def download_url(url, target, name, md5):
        asked.append((url.rsplit("/", 1)[1], name, md5))
        with tarfile.open(target / name, "w:gz") as archive:
            archive.add(folder, "cifar-100-python")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    (tmp_path / "here").mkdir()
    splits = load_cifar100(tmp_path / "here", download=True)
    assert splits.test.fingerprint == load_cifar100(tmp_path / "there").test.fingerprint
    assert asked == [
        ("cifar-100-python.tar.gz", "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85")
    ]
