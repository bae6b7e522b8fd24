"""The README tells the truth: commands, settings, recipes, files and Python in it exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest

import counterpart
from counterpart.cli import COMMANDS, _parser
from counterpart.cli.settings import from_arguments
from counterpart.config import resolve
from counterpart.recipes import load, names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
INDENTED = [
    line.strip().split("#")[0].strip() for line in COMMANDS_PAGE.splitlines() if line.startswith("    ")
]
COMMAND_LINES = [line for line in INDENTED if line.startswith("counterpart ")]


def test_the_first_screen_has_the_two_commands():
    screen = README.splitlines()[:20]
    assert any(line.startswith("    make demo") for line in screen)
    assert any(line.startswith("    make test") for line in screen)


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w -]+):(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    known = {name for target in targets for name in target.split()}
    pages = [*PAGES, (ROOT / "CONTRIBUTING.md").read_text(), (ROOT / ".ci" / "run").read_text()]
    mentioned = {
        name for page in pages for name in re.findall(r"^\s*make (\w+)|`make (\w+)", page, re.MULTILINE)
    }
    assert {name for pair in mentioned for name in pair if name} - known == set()
    assert {"demo", "test", "lint", "types"} <= known


def test_there_are_commands_to_check():
    assert len(COMMAND_LINES) >= 10
    assert {line.split()[1] for line in COMMAND_LINES} >= {
        "train",
        "evaluate",
        "report",
        "predict",
        "recipes",
    }


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_is_understood(line):
    words = shlex.split(line.split(">")[0])[1:]
    command = COMMANDS[words[0]]
    sections = getattr(command, "SECTIONS", ())
    settings, others = from_arguments(words, command.SETTINGS, sections) if command.SETTINGS else ({}, words)
    parsed, rest = _parser().parse_known_args(others)
    assert rest == []
    recipe = getattr(parsed, "recipe", None)
    if recipe and recipe != "my.yaml":  # which an earlier line makes
        resolve(load(recipe), settings)


def test_commands_in_sentences_exist():
    for page in PAGES:
        for command in re.findall(r"`counterpart ([a-z]+)", page):
            assert command in COMMANDS
        for setting in re.findall(r"--([a-z]+\.[a-z_.-]+[a-z])", page):
            from_arguments([f"--{setting}=1"], COMMANDS["train"].SETTINGS)


def test_recipes_in_sentences_exist():
    for page in PAGES:
        for recipe in re.findall(r"\b((?:cifar10|digits|folder)/[a-z-]+)\b(?!\.)", page):
            assert recipe in names()


def test_the_tree_names_what_is_there():
    tree = (
        (ROOT / "docs" / "architecture.md")
        .read_text(encoding="utf-8")
        .split("```\nsrc/counterpart/\n")[1]
        .split("```")[0]
    )
    lines = [line for line in tree.splitlines() if line.startswith("  ")]
    words = [
        word for line in lines for pair in re.findall(r"^  (\S+)|  (\S+\.py)", line) for word in pair if word
    ]
    named = {word.strip("/") for word in words}
    assert [word for word in named if words.count(word) + words.count(f"{word}/") > 1] == []
    there = {p.name for p in (ROOT / "src" / "counterpart").iterdir() if p.is_dir() or p.suffix == ".py"}
    there -= {"__pycache__", "__main__.py", "__init__.py"}
    assert named - {"__init__.py"} == there


def test_linked_files_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_python_in_the_readme_parses_and_its_names_exist():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    for node in ast.walk(ast.parse("\n".join(blocks))):
        if isinstance(node, ast.ImportFrom) and node.module == "counterpart":
            assert {alias.name for alias in node.names} <= set(counterpart.__all__)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cp":
            assert node.attr in counterpart.__all__
