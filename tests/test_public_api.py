"""The public names: a change here is a change for everyone who uses the package."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import counterpart

NAMES = {
    "audit", "evaluate", "explain", "export", "load", "predict", "runs", "share", "sweep", "train", "where",
    "Attacked", "Batch", "Config", "ImageClassifier", "InferenceView", "Keys", "L0", "L1", "L2", "Linf", "Objective",
    "Patch", "Probe", "__version__", "apgd", "as_classifier", "auto_attack", "carlini_wagner", "ddn", "deepfool", "fab",
    "fgsm", "fmn", "layer_map", "mart_loss", "masked_budget", "minimum_margin", "patch", "pgd", "published_models",
    "random_search", "rays", "sparse_pgd", "square", "straight_through", "trades_loss", "transfer", "worst_case",
    "write_report",
}  # fmt: skip


def test_public_names_are_frozen():
    assert set(counterpart.__all__) == NAMES
    assert set(dir(counterpart)) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_public_names_resolve_to_what_they_say(name):
    thing = getattr(counterpart, name)
    assert name == "__version__" or thing.__name__ == name


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="has no attribute 'Lint'"):
        _ = counterpart.Lint


def test_the_version_stands_in_one_place():
    table = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert "version" not in table["project"]
    assert table["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "counterpart.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", counterpart.__version__)


def test_import_costs_nothing():
    code = "import sys, counterpart; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    source = Path(counterpart.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=source, check=False).returncode == 0
