"""tools/same-numbers: what it calls the same, and what not."""

import importlib.machinery
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[1]
RUN = Path("part-uniform")
KEY = "evaluations/0f2e47f5542e"


@pytest.fixture(scope="module")
def compare():
    loader = importlib.machinery.SourceFileLoader("same_numbers", str(ROOT / "tools" / "same-numbers"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("same_numbers", loader))
    loader.exec_module(module)
    return module.compare


@pytest.fixture
def folders(tmp_path):
    """Two copies of a run."""
    for name in ("base", "head"):
        shutil.copytree(ROOT / "tests" / "stored" / "runs" / RUN, tmp_path / name / RUN)
    return tmp_path / "base", tmp_path / "head"


def differing(compare, folders):
    return [what for what, same in compare(*folders) if not same]


def test_copies_are_the_same_in_many_ways(compare, folders):
    found = list(compare(*folders))
    assert all(same for _, same in found)
    assert len(found) > 20
    assert ("part-uniform: hash of the configuration 8792c037297f", True) in found
    assert ("part-uniform: keys of evaluations 97609c466e77, 0f2e47f5542e", True) in found


@pytest.mark.parametrize("file", ["checkpoints/last.safetensors", f"{KEY}/images/PGD-3-00000.safetensors"])
def test_one_bit_of_a_tensor_is_a_difference(compare, folders, file):
    path = folders[1] / RUN / file
    tensors = load_file(path)
    name = next(name for name, value in tensors.items() if value.is_floating_point())
    tensors[name].flatten()[0].nextafter_(tensors[name].flatten()[0] + 1)
    save_file(tensors, path)
    assert differing(compare, folders) == [f"part-uniform/{file}"]


def test_an_answer_is_a_difference_and_a_duration_none(compare, folders):
    path = folders[1] / RUN / KEY / "units" / "PGD-3-00000.json"
    unit = json.loads(path.read_text())
    path.write_text(json.dumps({**unit, "seconds": 1e6}))
    assert differing(compare, folders) == []
    path.write_text(json.dumps({**unit, "answers": [(unit["answers"][0] + 1) % 10, *unit["answers"][1:]]}))
    assert differing(compare, folders) == [f"part-uniform/{KEY}/units/PGD-3-00000.json"]


def test_hash_key_value_and_a_missing_file_are_differences(compare, folders):
    path = folders[1] / RUN / "records.jsonl"
    text = path.read_text()
    path.write_text(text.replace("8792c037297f", "000000000000"))
    assert differing(compare, folders) == ["part-uniform: hash of the configuration 8792c037297f"]
    path.write_text(text.replace('"value": 0.9', '"value": 0.95'))
    [what] = differing(compare, folders)
    assert what.endswith("numbers of records")
    path.write_text(text.replace("0f2e47f5542e", "000000000000"))
    (folders[1] / RUN / KEY).rename(folders[1] / RUN / "evaluations" / "000000000000")
    assert differing(compare, folders) == ["part-uniform: keys of evaluations 97609c466e77, 0f2e47f5542e"]
    (folders[1] / RUN / "evaluations" / "000000000000" / "units" / "PGD-3-00001.json").unlink()
    assert any("names of" in what for what in differing(compare, folders))
