"""The shape of the code: how long functions are, how they branch, and that a type's name means one thing."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "counterpart").rglob("*.py"))


def type_names(tree: ast.Module) -> list[str]:
    """Names of classes, wherever they stand, and of a module's type aliases."""
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).endswith("TypeAlias"):
            names.append(ast.unparse(node.target))
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            names += [t.id for t in node.targets if isinstance(t, ast.Name) and t.id.strip("_")[:2].istitle()]
    return names


def test_type_names_are_found():
    text = "Pair = tuple[int, int]\nLoss: TypeAlias = float\nBest = 3\nROWS = [1][0]\nclass Row:\n    class Cell: ..."
    assert sorted(type_names(ast.parse(text))) == ["Cell", "Loss", "Pair", "Row"]


def test_a_type_name_stands_for_one_type():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    counts = Counter(name for tree in trees for name in type_names(tree))
    assert [name for name, count in counts.items() if count > 1] == []
