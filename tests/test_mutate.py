"""The tool that builds faults into the package: which changes it makes, and what it says of them."""

import ast
import importlib.machinery
import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def mutate():
    loader = importlib.machinery.SourceFileLoader("mutate", str(ROOT / "tools" / "mutate"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("mutate", loader))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.modules["mutate"] = module
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    yield module
    del sys.modules["mutate"]


def texts(mutate, source):
    return [change.text for change in mutate.changes(source.encode(), "file.py")]


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("a < b", ["a < b -> (a <= b)"]),
        ("a[0] + b", ["a[0] + b -> (a[0] - b)", "0 -> 1"]),
        ("f(x, keep=True)", ["f(x, keep=True) -> pass", "True -> False"]),
        ("y = x.amax(dim=1)", ["x.amax(dim=1) -> x.amin(dim=1)", "1 -> 2"]),
        ("y = max(a, 0.5)", ["max(a, 0.5) -> min(a, 0.5)", "0.5 -> 1.0"]),
        ("y += 0.0", ["y += 0.0 -> y -= 0.0", "0.0 -> 1.0"]),
        ("y = -a if a else b", ["-a if a else b -> (b if a else -a)", "-a -> (a)"]),
        ("y = a and not b", ["a and not b -> (a or not b)", "not b -> (b)"]),
        ("Pair = tuple[int, 3]\ndef f(a: 'Array[2]' = 1) -> 3: 'Words.'", ["1 -> 2"]),
        ("assert a < b\nraise ValueError(f'{a + 1}')\nz = zip(a, b, strict=True)\nf'{a:3}'", []),
        ("isinstance(a, int | Tensor)", ["isinstance(a, int | Tensor) -> pass"]),
    ],
)
def test_changes(mutate, source, changes):
    assert texts(mutate, source) == changes


def test_every_change_is_another_program(mutate):
    source = (ROOT / "src" / "counterpart" / "budget" / "arithmetic.py").read_bytes()
    before = ast.dump(ast.parse(source))
    changes = list(mutate.changes(source, "arithmetic.py"))
    assert len(changes) > 40
    for change in changes:
        mutant = source[: change.begin] + change.after.encode() + source[change.end :]
        assert ast.dump(ast.parse(mutant)) != before, change


def test_a_sample_belongs_to_its_seed(mutate):
    sample = mutate.sampled("losses", 20, 0)
    assert sample == mutate.sampled("losses", 20, 0)
    assert sample[:10] == mutate.sampled("losses", 20, 0)[:10]
    assert sample != mutate.sampled("losses", 20, 1)
    assert len(set(sample)) == 20


def test_a_record_counts_and_names_survivors(mutate, monkeypatch, tmp_path):
    monkeypatch.setattr(mutate, "RESULTS", tmp_path / "mutation.jsonl")
    monkeypatch.setattr(mutate, "EQUIVALENT", tmp_path / "equivalent.jsonl")
    rows = [
        {"number": number, "outcome": outcome, "place": f"a.py:{number}", "change": f"{number} -> 9"}
        for number, outcome in enumerate(["died", "survived", "too long", "survived"])
    ]
    outcomes = tmp_path / "outcomes.jsonl"
    outcomes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text("one = 1\n\n    three = 3  # a number\n")
    named = [
        {"file": "a.py", "line": "three = 3", "change": "3 -> 9", "reason": "nobody can tell"},
        {"file": "a.py", "line": "another = 1", "change": "1 -> 9", "reason": "the same change elsewhere"},
    ]
    mutate.EQUIVALENT.write_text("".join(json.dumps(row) + "\n" for row in named))
    for _ in range(2):  # the second replaces the first
        mutate.write_record("room", rows, outcomes, seed=5)
    (line,) = mutate.RESULTS.read_text().splitlines()
    record = json.loads(line)
    assert (record["name"], record["value"], record["n"], record["seed"]) == ("mutation/room", 2 / 3, 3, 5)
    assert record["details"]["survivors"] == ["a.py:1: 1 -> 9"]
    assert record["details"]["tried"] == 4
    with outcomes.open("a") as lines:  # tried again, after a test was added
        lines.write(json.dumps(rows[1] | {"outcome": "died"}) + "\n")
    assert [row["outcome"] for row in mutate.read_outcomes(outcomes).values()] == [
        "died",
        "died",
        "too long",
        "survived",
    ]


def test_a_mutant_dies_survives_or_takes_too_long(mutate, tmp_path):
    """In a package of one function, of which a test sees half."""
    source = "def half(x):\n    while x > 90:\n        x -= 1\n    y = 5\n    return x / 2\n"
    (tmp_path / "part.py").write_text(source)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    (tmp_path / "test_part.py").write_text("from part import half\ndef test(): assert half(95) == 45\n")
    outcomes = {}
    for number, change in enumerate(mutate.changes(source.encode(), "part.py")):
        if change.text in ("x / 2 -> (x * 2)", "5 -> 6", "x -= 1 -> x += 1"):
            outcomes[change.text] = mutate.try_mutant(tmp_path, change, number, [(("test_part.py",), 3)])
    assert outcomes == {"x / 2 -> (x * 2)": "died", "5 -> 6": "survived", "x -= 1 -> x += 1": "too long"}
    assert (tmp_path / "part.py").read_text() == source
