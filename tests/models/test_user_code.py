import sys

import pytest
from torch import nn

from counterpart.errors import UserError
from counterpart.models.user_code import load_user

CODE = """
import torch
from torch import nn

def robust():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))

def broken():
    raise RuntimeError("no weights\\nsecond line")

def number():
    return 3

def needs(path):
    return nn.Identity()

def leaves():
    raise SystemExit("usage: nets")

class Net(nn.Module):
    pass

_hidden = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder of the user's, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    (tmp_path / "usernets.py").write_text(CODE)
    (tmp_path / "failing_nets.py").write_text("import nosuchlibrary\n")
    (tmp_path / "odd_nets.py").write_text("def f(:\n")
    (tmp_path / "script_nets.py").write_text("raise SystemExit(2)\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "inner.py").write_text(
        "from torch import nn\n\ndef load():\n    return nn.Identity()\n"
    )
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_function_of_a_module_in_the_current_folder_is_called(here):
    model = load_user("usernets:robust")
    assert isinstance(model[1], nn.Linear)
    assert not model.training
    assert isinstance(load_user("pack.inner:load"), nn.Identity)
    assert isinstance(load_user("usernets:Net"), nn.Module)  # a class without arguments is as good


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("usernet:robust", "no module 'usernet' in .*Did you mean 'usernets'"),
        ("pack.outer:load", "no module 'pack.outer'"),
        ("usernets.inner:load", "no module 'usernets.inner'"),
        (
            "failing_nets:f",
            "importing failing_nets failed: ModuleNotFoundError: No module named 'nosuchlibrary'",
        ),
        ("odd_nets:f", "importing odd_nets failed: SyntaxError"),
        ("script_nets:f", "importing script_nets failed: SystemExit: 2"),
        ("usernets:robusst", "usernets has no function 'robusst'. Did you mean 'robust'"),
        ("usernets:_hidden", "usernets:_hidden is int: expected a function that returns a model"),
        ("usernets:broken", "usernets:broken failed: RuntimeError: no weights. It is called without"),
        ("usernets:needs", "usernets:needs failed: TypeError: .*It is called without arguments"),
        ("usernets:leaves", "failed: SystemExit: usage: nets"),
        ("usernets:number", "usernets:number returned int: expected a torch.nn.Module"),
        ("usernets", "expected module:function"),
        ("usernets.py:robust:x", "expected module:function"),
        ("./usernets.py:robust", "without .py"),
        (":robust", "expected module:function"),
    ],
)
def test_every_failure_is_one_line(here, target, message):
    with pytest.raises(UserError, match=message) as caught:
        load_user(target)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UserError, match=r"The current folder has no \.py files"):
        load_user("nosuchmodule_here:f")
