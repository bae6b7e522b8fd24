"""Who may import whom: docs/architecture.md, section 4, read off the source without running it."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "counterpart"

# A module imports itself or earlier rows only, never a sibling in its row.
ROWS = [
    {
        "errors",
        "numerals",
        "parsing",
        "heartbeat",
        "checksums",
        "durability",
        "command_line",
        "interrupts",
        "terminal",
        "silence",
    },
    {
        "catalogue",
        "checks",
        "seeding",
        "distributed",
        "records",
        "devices",
        "statistics",
        "part_colours",
        "part_maps",
        "renamed_settings",
        "dotted_names",
        "locks",
        "sentences",
        "spreadsheets",
    },
    {"batch", "budget", "rundir", "progress", "claims", "estimates"},
    {"pictures", "contracts", "hosts"},
    {"losses", "models", "data", "report"},
    {"attacks", "saliency"},
    {"importance"},
    {"objectives", "evaluation"},
    {"training"},
    {"config"},
    {"build", "recipes"},
    {"jobs"},
    {"sweeps"},
    {"api"},
    {"papers"},
    {"cli"},
]
ROW_OF = {room: number for number, row in enumerate(ROWS) for room in row}
OUTSIDE = {"__init__", "__main__"}  # the lazy public names, and the door to cli


def read_modules(package: Path) -> dict[str, ast.Module]:
    """Dotted name within the package -> syntax tree; a folder's ``__init__.py`` is the folder."""
    modules = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        modules[name] = ast.parse(path.read_text(encoding="utf-8"))
        modules[name].is_folder = path.name == "__init__.py"  # decides what one dot means
    return modules


def imports(name: str, modules: dict[str, ast.Module]) -> Iterator[str]:
    """Modules of the package that one imports, wherever the import stands: functions hide no cycle."""
    here = [] if name in OUTSIDE else name.split(".")
    home = here if getattr(modules[name], "is_folder", False) else here[:-1]
    for node in ast.walk(modules[name]):
        if isinstance(node, ast.Import):
            absolute = [alias.name for alias in node.names if alias.name.split(".")[0] == "counterpart"]
            assert not absolute, f"{name} imports {absolute[0]}: write a relative import"
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert str(node.module).split(".")[0] != "counterpart", f"{name}: write a relative import"
        elif isinstance(node, ast.ImportFrom):
            base = [*home[: len(home) - node.level + 1], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                yield inner if inner in modules else ".".join(base) or "__init__"


def violations(modules: dict[str, ast.Module]) -> list[str]:
    """Imports that the rows forbid."""
    found = []
    for name in modules:
        room = name.split(".")[0]
        for target in {t.split(".")[0] for t in imports(name, modules)} - {room}:
            if room in OUTSIDE:
                continue
            if target == "__init__" and room == "cli":
                continue  # for the version
            if target not in ROW_OF or ROW_OF[target] >= ROW_OF[room]:
                found.append(f"{name} imports {target}")
    return found


def check_no_cycle(modules: dict[str, ast.Module]) -> None:
    graph = {name: set(imports(name, modules)) - {name} for name in modules}
    TopologicalSorter(graph).prepare()


@pytest.fixture(scope="module")
def modules():
    return read_modules(PACKAGE)


def test_imports_go_to_earlier_rows_only(modules):
    assert violations(modules) == []


def test_no_module_takes_part_in_an_import_cycle(modules):
    check_no_cycle(modules)


def test_every_module_has_a_row_and_every_row_a_module(modules):
    rooms = {name.split(".")[0] for name in modules} - OUTSIDE
    assert rooms - set(ROW_OF) == set()
    assert set(ROW_OF) - rooms == set()


@pytest.mark.parametrize(
    ("importer", "statement", "complaint"),
    [
        ("budget.balls", "from ..attacks import pgd", "budget.balls imports attacks"),
        ("budget.balls", "from ..batch import Batch", "budget.balls imports batch"),  # a sibling
        ("attacks.projected_gradient", "from ..saliency.cam import probe_map", "imports saliency"),
        ("attacks.projected_gradient", "def f():\n    from ..config import Config", "imports config"),
        ("report.page", "from .. import jobs", "report.page imports jobs"),
        ("evaluation", "from ..training.loop import fit", "evaluation imports training"),
        ("data.digits", "from .. import Linf", "data.digits imports __init__"),
        ("models", "from ..newcomer import x", "models imports newcomer"),
    ],
)
def test_a_forbidden_import_is_found(modules, importer, statement, complaint):
    tree = ast.parse(statement)
    tree.is_folder = modules[importer].is_folder
    changed = {**modules, importer: tree}
    if "newcomer" in statement:
        changed["newcomer"] = ast.parse("")
    (found,) = violations(changed)
    assert complaint in found


def test_absolute_imports_of_the_package_are_refused(modules):
    for statement in ("import counterpart.budget", "from counterpart.budget import Linf"):
        with pytest.raises(AssertionError, match="relative import"):
            violations({**modules, "batch": ast.parse(statement)})


def test_a_cycle_within_a_room_is_found(modules):
    first, second = ast.parse("from .second import x"), ast.parse("from .first import y")
    with pytest.raises(CycleError):
        check_no_cycle({**modules, "data.first": first, "data.second": second})


def test_the_documented_rows_are_the_enforced_ones():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([\w, ()]+) \|$", page, flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(ROWS)))
    documented = [set(re.sub(r"\([^)]*\)", "", names).replace(" ", "").split(",")) for _, names in rows]
    assert documented == ROWS


def test_every_module_opens_with_a_sentence(modules):
    silent = [name for name, tree in modules.items() if not ast.get_docstring(tree)]
    assert silent == []


def test_no_module_turns_its_shapes_into_comments(modules):
    """With ``from __future__ import annotations`` jaxtyping checks nothing."""
    turned = [
        name
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    assert turned == []
