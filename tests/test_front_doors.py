"""Files that anybody may have written are read through one door for each format, where their limits are."""

import re
from pathlib import Path

import pytest

from counterpart.parsing.limits import LIMITS, PREFIX, most, read_bytes, read_text, refuse_large

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "counterpart"

# What reads a file or unpacks bytes -> the files that may say so, and why.
DOORS = {
    r"Image\.open\(": {
        "data/opening.py": "the door of images",
        "data/corruptions/digital.py": "decodes what it encoded itself",
    },
    r"json\.loads?\(": {
        "parsing/__init__.py": "the door of JSON",
        "evaluation/ledger.py": "reads what it wrote itself, to compare it as JSON has it",
        "jobs/sizes.py": "the same",
        "locks.py": "who holds a lock: a few bytes",
    },
    r"yaml\.(safe_|full_|unsafe_)?load\(": {"parsing/__init__.py": "the door of YAML"},
    r"\.read_text\(": {
        "records.py": "what the system says of the processor",
        "devices.py": "what the system says of memory",
        "models/onnx_trial.py": "the same",
        "report/explanation_page.py": "a file of the package",
        "data/benchmarks.py": "a file of the package",
    },
    r"\.read_bytes\(": {
        "parsing/limits.py": "the door of all else",
        "records.py": "its own log, before it grows",
        "hosts.py": "what this run wrote, for other hosts",
        "jobs/pseudo_labels.py": "copies images and masks that were decoded before",
        "data/preparation.py": "copies images that were decoded before",
        "rundir.py": "its own log, whose records were read before",
        "data/folder.py": "hashes images up to a sum of their sizes",
        "data/benchmarks.py": "hashes a file that was read before",
        "catalogue/user_code.py": "hashes code that runs in any case",
    },
    r"pickle\.(load|loads)\(": {},
    r"Unpickler\b": {"data/cifar.py": "finds no name but inert stand-ins"},
    r"torch\.load\(": {
        "models/hub.py": "weights alone",
        "models/loading_code.py": "a line for the user, of weights alone",
    },
    r"torch\.export\.load\(": {
        "models/exported.py": "reads what it wrote itself",
        "jobs/named_models.py": "a sentence for the user",
    },
    r"torch\.jit\.load\(": {
        "models/hub.py": "a sentence for the user",
        "models/torchscript.py": "runs a program that the user trusts, and else is a sentence",
    },
    r"\bload_file\b": {
        "checksums.py": "the door of tensors, which looks at their checksum",
        "models/loading_code.py": "a line for the user",
    },
    r"\bsafe_open\(": {
        "models/hub.py": "weights, whose checksum it looks at, and what a header says",
        "pictures.py": "pictures, whose checksum it looks at",
        "jobs/whole_files.py": "asks whether a file is whole, after its checksum",
        "jobs/run_states.py": "the header of a checkpoint, which says the epoch, without torch",
        "jobs/cleaning.py": "the shapes in the header of a checkpoint",
    },
    r"scipy\.io|loadmat": {},
    r"np\.load\(": {"data/corruptions/files.py": "maps a file, and refuses objects"},
    r"ZipFile\(": {
        "models/hub.py": "lists the members of a file of weights",
        "data/tiny_imagenet.py": "unpacks a download whose checksum was compared",
    },
    r"tarfile\.open\(": {"data/cifar.py": "takes named members of a download whose checksum was compared"},
    r"zlib\.decompress|gzip\.(open|decompress)": {
        "data/mat_files.py": "up to a limit", "data/mnist.py": "up to a limit",
    },
    r"(?<![.\w])(eval|exec)\((?!\))": {},
    r"shell=True|os\.system|os\.popen": {},
}  # fmt: skip


@pytest.mark.parametrize("pattern", DOORS)
def test_nothing_is_read_beside_the_doors(pattern):
    users = set()
    for path in SOURCE.rglob("*.py"):
        code = re.sub(r'(?m)#.*$|(?s:""".*?""")', "", path.read_text(encoding="utf-8"))
        if re.search(pattern, code):
            users.add(path.relative_to(SOURCE).as_posix())
    assert users == set(DOORS[pattern])


def test_tensors_are_read_up_to_a_limit():
    """A pipe has no end, and what is hashed before it is read takes time."""
    users = [
        path for path in SOURCE.rglob("*.py") if re.search(r"\b(load|check)_tensors\(", path.read_text())
    ]
    assert {path.name for path in users} >= {
        "ledger.py",
        "radii.py",
        "recognition.py",
        "hub.py",
        "pictures.py",
    }
    for path in users:
        if path.name != "checksums.py":
            assert "refuse_large(" in path.read_text(), path


def test_weights_are_read_as_weights_alone():
    source = (SOURCE / "models" / "hub.py").read_text(encoding="utf-8")
    assert re.findall(r"torch\.load\((.*)\)", source) == ['path, map_location="cpu", weights_only=True']
    source = (SOURCE / "data" / "corruptions" / "files.py").read_text(encoding="utf-8")
    assert re.findall(r"np\.load\((.*)\)", source) == ['path, mmap_mode="r", allow_pickle=False']


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_can_be_set_and_says_how(name, tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"1234567890")
    assert most(name) == LIMITS[name]
    monkeypatch.setenv(PREFIX + name, "10")
    assert read_bytes(path, name) == b"1234567890"
    monkeypatch.setenv(PREFIX + name, "9")
    with pytest.raises(
        ValueError, match=f"10 bytes are more than 9: .* set {PREFIX}{name} to a larger number"
    ):
        read_bytes(path, name)


@pytest.mark.parametrize("text", ["", "many", "-1", "0", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("COUNTERPART_MOST_TEXT", text)
    with pytest.raises(ValueError, match=r"COUNTERPART_MOST_TEXT=.*: expected a positive number"):
        most("TEXT")


def test_folders_and_pipes_are_no_files(tmp_path):
    with pytest.raises(ValueError, match="it is no regular file"):
        refuse_large(tmp_path, "TEXT")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "gone")
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa")
    assert read_text(tmp_path / "x") == "a"


def test_every_limit_is_on_the_page():
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    for name, limit in LIMITS.items():
        assert f"| `{PREFIX}{name}` | {limit:,} |" in page
