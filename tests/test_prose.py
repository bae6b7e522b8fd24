"""Words that a reader meets first: the names of variables, and the help of settings."""

import argparse
import ast
from pathlib import Path

import pytest

import counterpart
from counterpart.cli import COMMANDS
from counterpart.config import settings

PACKAGE = Path(counterpart.__file__).parent

# Names that say nothing of what they hold. A noun says more: candidate, measured, survivors, remaining.
EMPTY_NAMES = {"one", "own", "found", "kept", "left"}
# Where "left" is the opposite of right.
GEOMETRY = {
    "data/cityscapes_parts.py", "data/coco.py", "data/corruptions/filters.py", "data/corruptions/weather.py",
    "data/crops.py", "data/decoding.py", "data/labels.py", "data/outlines.py", "data/synthetic_parts.py",
    "data/transforms.py", "importance/masks.py",
}  # fmt: skip


def bound_names(code: str) -> list[tuple[int, str]]:
    """Line and name of everything that a module binds: variables, parameters, functions, imports."""
    bound = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.append((node.lineno, node.id))
        elif isinstance(node, ast.arg):
            bound.append((node.lineno, node.arg))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.append((node.lineno, node.name))
        elif isinstance(node, ast.alias | ast.ExceptHandler):
            name = node.asname if isinstance(node, ast.alias) else node.name
            bound.append((node.lineno, name or ""))
    return bound


def test_no_name_is_empty():
    empty = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        for line, name in bound_names(path.read_text(encoding="utf-8")):
            if name in EMPTY_NAMES and not (name == "left" and module in GEOMETRY):
                empty.append(f"{module}:{line}: {name}")
    assert not empty


@pytest.mark.parametrize(
    "code",
    [
        "left = 1",
        "for one in (1, 2): pass",
        "[own for own in ()]",
        "def f(kept): pass",
        "if (found := 1): pass",
    ],
)
def test_every_kind_of_binding_is_seen(code):
    assert EMPTY_NAMES & {name for _, name in bound_names(code)}


def test_every_setting_is_described_by_sentences():
    broken = [
        f"{name}: {info.description}" for name, info in settings() if not is_sentence(info.description or "")
    ]
    assert not broken


def test_every_argument_of_a_command_is_described_by_sentences():
    broken = []
    for name, command in COMMANDS.items():
        parser = argparse.ArgumentParser(add_help=False)
        command.configure(parser)
        for action in parser._actions:
            described = isinstance(action, argparse._SubParsersAction) or is_sentence(action.help or "")
            if not described:
                broken.append(f"{name} {action.dest}: {action.help}")
    assert not broken


def is_sentence(text: str) -> bool:
    """Whether a text begins with a capital letter and ends with a full stop."""
    return text[:1].isupper() and text.endswith(".")
