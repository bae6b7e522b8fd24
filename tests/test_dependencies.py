"""docs/dependencies.md says of each dependency what is true, and every licence is one that is allowed."""

import importlib.machinery
import importlib.util
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tool():
    loader = importlib.machinery.SourceFileLoader("licences", str(ROOT / "tools" / "licences"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("licences", loader))
    loader.exec_module(module)
    return module


def rows():
    """Package -> (its extra or "", its licence), of every row of the page's tables."""
    told = {}
    for title, part in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL):
        for line in part.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("| ") and cells[0] != "package":
                with_extra = title != "To use it"
                told[cells[0]] = (cells[1] if with_extra else "", cells[3 if with_extra else 2])
    return told


def asked_for():
    """Package -> its extra or "", as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        re.match(r"[\w.-]+", line)[0]: extra
        for extra, lines in named.items()
        for line in lines
        if not line.startswith("counterpart[")
    }


def test_the_page_has_a_row_for_each_dependency_and_no_other():
    assert {package: extra for package, (extra, _) in rows().items()} == asked_for()


def test_every_dependency_is_imported():
    """A dependency that nothing imports is none."""
    imported = {"segmentation-models-pytorch": "segmentation_models_pytorch", "scikit-learn": "sklearn"}
    imported |= {"pillow": "PIL", "pyyaml": "yaml", "huggingface-hub": "huggingface_hub"}
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    for package in [package for package, extra in asked_for().items() if extra == ""]:
        module = imported.get(package, package)
        assert re.search(rf"^\s*(from|import) {module}\b", source, re.MULTILINE), package


@pytest.mark.parametrize("package", sorted(rows()))
def test_the_licence_is_what_the_package_says(tool, package):
    try:
        stated = tool.licence(metadata.metadata(package))
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed: it belongs to the extra {asked_for()[package]}")
    assert rows()[package][1].startswith(stated.split(" AND ")[0])


def test_licences_of_what_is_installed_are_allowed(tool):
    everything = tool.licences("counterpart")
    assert len(everything) > 40  # with all that dependencies bring
    assert [name for name, licence in everything.items() if not tool.is_allowed(name, licence)] == []


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("GPL-3.0-only", False),
        ("MIT AND AGPL-3.0-only", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_which_licences_are_allowed(tool, licence, expected):
    assert tool.is_allowed("some-package", licence) is expected


def test_a_refused_licence_is_named(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "licences", lambda package: {"numpy": "BSD", "strange": "GPL-3.0-only"})
    monkeypatch.setattr("sys.argv", ["licences"])
    assert tool.main() == 1
    assert "strange: GPL-3.0-only" in capsys.readouterr().out
