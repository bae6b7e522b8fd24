"""The doctor: what is there, what is missing, and how to mend it."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from counterpart.cli import doctor, main

FEW = ["torch>=2.9,<2.16", "pillow>=10", 'pytest>=8; extra == "test"']


@pytest.fixture
def installed(monkeypatch):
    """As in an environment that has counterpart."""
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: FEW)
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.1.0" if name == "counterpart" else version(name)
    )


@pytest.mark.usefixtures("installed")
def test_a_healthy_machine(capsys, tmp_path):
    assert main(["doctor", "--data.root", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    first = {row.split()[0] for row in rows}
    assert {"python", "counterpart", "torch", "pillow", "hardware", "device", "bf16"} <= first
    assert "pytest" not in first
    assert any(row.startswith("data digits") and "there" in row for row in rows)
    fetch = [row.split("counterpart train ")[1] for row in rows if "fetch it with" in row]
    sets = ("mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "tiny-imagenet")
    assert fetch == [f"{name}/at --data.root {tmp_path} --data.download true" for name in sets]
    assert rows[-1] == "Everything that is needed is there."


@pytest.mark.usefixtures("installed")
def test_without_a_folder_nothing_is_missing(capsys):
    assert main(["doctor"]) == 0
    assert "fetch" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ("no-such-package>=1", "no-such-package is not installed. Mend it with: python -m pip install"),
        ("torch>=99,<100", "does not fit torch>=99,<100"),
        ("torch<2", "does not fit torch<2"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_what_is_missing_is_named_with_the_mend(requirement, words, monkeypatch, capsys):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [requirement])
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert words in printed
    assert f'pip install "{requirement}"' in printed


@pytest.mark.usefixtures("installed")
def test_a_package_that_cannot_be_imported_is_missing(monkeypatch, capsys):
    def broken(name):
        raise OSError(f"lib{name}.so: undefined symbol")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    assert main(["doctor"]) == 1
    assert "torch cannot be imported (OSError: libtorch.so: undefined symbol)" in capsys.readouterr().out


def test_every_package_that_this_one_needs_is_asked_under_the_name_of_its_module():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    needed = project["project"]["dependencies"]
    assert len(needed) > 10
    assert [answer for answer in map(doctor.check, needed) if not answer[2]] == []


def test_versions_compare_as_numbers(monkeypatch):
    for version, fits in (
        ("2.9.0", True),
        ("2.15.0+cu130", True),
        ("2.8.9", False),
        ("2.16.0", False),
        ("3", False),
    ):
        monkeypatch.setattr(importlib.metadata, "version", lambda name, version=version: version)
        assert doctor.check("torch>=2.9,<2.16")[2] is fits, version
