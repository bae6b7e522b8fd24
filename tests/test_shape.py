"""The shape of the code: how long functions are, how they branch, and that a type's name means one thing."""

import ast
import importlib.machinery
import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "counterpart").rglob("*.py"))


def type_names(tree: ast.Module) -> list[str]:
    """Names of classes, wherever they stand, and of a module's type aliases."""
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).endswith("TypeAlias"):
            names.append(ast.unparse(node.target))
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            targets = [ast.unparse(target) for target in node.targets]
            names += [name for name in targets if re.match("_?[A-Z][a-z]", name)]
    return names


def test_type_names_are_found():
    text = "Pair = tuple[int, int]\nLoss: TypeAlias = float\nBest = 3\nROWS = [1][0]\nclass Row:\n    class Cell: ..."
    assert sorted(type_names(ast.parse(text))) == ["Cell", "Loss", "Pair", "Row"]


def test_a_type_name_stands_for_one_type():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    counts = Counter(name for tree in trees for name in type_names(tree))
    assert [name for name, count in counts.items() if count > 1] == []


# Two functions of known numbers: (lines, branches, parameters).
COUNTED = '''
@decorated
def straight(one, *, two=1, **more):
    """A docstring
    of two lines.
    """
    with open(one) as file:
        assert two
        return file


class Room:
    def winding(self, a, /, b, *c):
        for x in a:                                  # 1
            if x and b or c:                         # 2, 3, 4
                while x:                             # 5
                    x = 1 if b else 2                # 6
            elif x:                                  # 7
                pass
            else:
                pass
        try:
            y = [z for z in a if z if b]             # 8, 9, 10
        except ValueError:                           # 11
            y = {k: v for k in a for v in b}         # 12, 13
        match y:
            case []:                                 # 14
                pass
            case _:                                  # 15
                pass
        def inner():
            return any(z for z in a) or (lambda: b)  # 16, 17
'''


@pytest.fixture(scope="module")
def shape():
    loader = importlib.machinery.SourceFileLoader("shape", str(ROOT / "tools" / "shape"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("shape", loader))
    sys.modules["shape"] = module  # where dataclasses look for the types of their fields
    yield loader.exec_module(module) or module
    del sys.modules["shape"]


@pytest.fixture
def package(tmp_path):
    """Writes a small package: (parameters, lines) of its attack and of its helper."""

    def write(attack=(3, 3), helper=(3, 3)):
        (tmp_path / "catalogue").mkdir(exist_ok=True)
        (tmp_path / "catalogue" / "attacks.py").write_text('ENTRIES = ["rooms.attack:strike"]')
        (tmp_path / "__init__.py").write_text('_HOMES = {"greet": "rooms"}')
        (tmp_path / "rooms").mkdir(exist_ok=True)
        texts = []
        for name, (parameters, lines) in {"strike": attack, "help": helper, "greet": attack}.items():
            taken = ", ".join(f"p{number}" for number in range(parameters))
            texts.append(f"def {name}({taken}):\n" + "    pass\n" * (lines - 1))
        (tmp_path / "rooms" / "attack.py").write_text("".join(texts))
        return tmp_path

    return write


def test_known_numbers_are_counted(shape):
    counted = {f.place: (f.lines, f.branches, f.parameters) for f in shape.measure(COUNTED, "m")}
    assert counted == {
        "m.straight": (7, 0, 3),
        "m.Room.winding": (20, 17, 3),
        "m.Room.winding.inner": (2, 2, 0),
    }


def test_a_function_at_the_limits_passes_and_one_line_more_does_not(shape, package, capsys):
    assert shape.main(package(helper=(10, 80))) == 0
    assert "3 functions, 0 over a limit." in capsys.readouterr().out
    assert shape.main(package(helper=(10, 81))) == 1
    assert "81  rooms.attack.help  <- too many" in capsys.readouterr().out


def test_attacks_and_public_names_may_have_more_parameters_and_no_more_lines(shape, package):
    assert shape.main(package(helper=(11, 3))) == 1
    assert shape.main(package(attack=(30, 3))) == 0
    assert shape.main(package(attack=(3, 81))) == 1


def test_functions_of_the_package_keep_within_the_limits(shape):
    package = ROOT / "src" / "counterpart"
    free = shape.names_with_many_options(package)
    over = [
        (what, function.place)
        for function in shape.measure_package(package)
        for what, limit in shape.LIMITS.items()
        if getattr(function, what) > limit
        and not (what == "parameters" and shape.is_free(function.place, free))
    ]
    assert over == []
