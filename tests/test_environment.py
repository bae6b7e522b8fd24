"""How .venv is made: with a stand-in for Python, so nothing is installed."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("pyproject.toml", "constraints.txt", "tools/environment")

# Answers what the script asks of Python, writes down what it is told to do, and fails where a file says so.
STAND_IN = """#!/bin/sh
here={here}
for last; do :; done
case "$*" in
*ensurepip*) [ ! -f $here/too-old ] ;;
*import\\ sys,\\ torch*) [ -f $here/has-torch ] ;;
*sys.executable*) echo /fake/python 3.11.7 ;;
*-m\\ venv*)
    echo "$*" >>$here/log
    mkdir -p $last/bin && cp $0 $last/bin/python
    case "$*" in *system-site*) answer=true ;; *) answer=false ;; esac
    echo "include-system-site-packages = $answer" >$last/pyvenv.cfg ;;
*-m\\ pip*)
    [ ! -f $here/interrupted ] || exit 130
    echo "$*" >>$here/log ;;
esac
"""


class Checkout:
    """A copy of what the script needs, and the stand-in."""

    def __init__(self, folder):
        self.folder, self.venv, self.log = folder, folder / ".venv", folder / "log"
        for file in FILES:
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
        self.python = folder / "fake-python"
        self.python.write_text(STAND_IN.format(here=folder))
        self.python.chmod(0o755)

    def make(self, *extra):
        self.log.write_text("")
        command = ["sh", "tools/environment", ".venv", str(self.python), *extra]
        path = f"{self.folder}:/usr/bin:/bin"
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, env={"PATH": path}
        )

    def done(self):
        return self.log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_it_installs_pinned_versions(checkout):
    assert checkout.make().returncode == 0
    venv, *installs = checkout.done()
    assert venv == "-m venv .venv"
    assert all("--constraint .venv/constraints.txt" in line for line in installs)
    assert installs[-1].endswith("--no-build-isolation --editable .")
    assert (checkout.venv / "constraints.txt").read_text() == (ROOT / "constraints.txt").read_text()


def test_torch_that_works_already_is_used_and_not_pinned(checkout):
    (checkout.folder / "has-torch").touch()
    assert checkout.make().returncode == 0
    assert checkout.done()[0] == "-m venv --system-site-packages .venv"
    pinned = (checkout.venv / "constraints.txt").read_text()
    assert re.findall(r"^(torch|torchvision|triton|nvidia.*|cuda.*)==", pinned, flags=re.MULTILINE) == []
    assert "numpy==" in pinned


def test_a_finished_environment_is_left_alone(checkout):
    checkout.make()
    assert checkout.make().returncode == 0
    assert checkout.done() == []


def test_an_extra_is_added_to_it(checkout):
    checkout.make()
    assert checkout.make("test").returncode == 0
    assert not any("venv" in line.split() for line in checkout.done())
    assert checkout.done()[-1].endswith("--editable .[test]")
    checkout.make("test")
    assert checkout.done() == []


def test_an_interrupted_environment_is_made_anew(checkout):
    (checkout.folder / "interrupted").touch()
    assert checkout.make().returncode != 0
    (checkout.venv / "half a package").touch()
    (checkout.folder / "interrupted").unlink()
    answer = checkout.make()
    assert answer.returncode == 0
    assert "making it anew" in answer.stdout
    assert checkout.done()[0] == "-m venv .venv"
    assert not (checkout.venv / "half a package").exists()


def test_changed_pins_are_installed_into_it(checkout):
    checkout.make()
    (checkout.folder / "constraints.txt").write_text("numpy==2.0\n")
    (checkout.folder / "interrupted").touch()
    assert checkout.make().returncode != 0
    (checkout.folder / "interrupted").unlink()
    assert checkout.make().returncode == 0
    assert not any("venv" in line.split() for line in checkout.done())
    assert len(checkout.done()) == 2


def test_an_environment_that_moved_is_made_anew(checkout, tmp_path):
    checkout.make()
    (checkout.venv / ".place").write_text("/elsewhere /fake/python 3.11.7\n")
    (checkout.venv / ".complete").write_text("/elsewhere\n")
    checkout.make()
    assert checkout.done()[0] == "-m venv .venv"


def test_a_folder_of_someone_else_is_not_touched(checkout):
    checkout.venv.mkdir()
    (checkout.venv / "precious").touch()
    answer = checkout.make()
    assert answer.returncode == 1
    assert "was not made here. Remove it, or choose another folder: make VENV=" in answer.stderr
    assert (checkout.venv / "precious").exists()


def test_python_that_is_too_old_is_refused_in_one_line(checkout):
    (checkout.folder / "too-old").touch()
    for name in ("python3.13", "python3.12", "python3.11"):
        shutil.copy(checkout.python, checkout.folder / name)
    answer = checkout.make()
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert "needs Python 3.11 or newer" in answer.stderr
    assert not checkout.venv.exists()


def test_another_python_is_tried(checkout):
    shutil.copy(checkout.python, checkout.folder / "python3.12")
    checkout.python.write_text("#!/bin/sh\nexit 1\n")
    answer = checkout.make()
    assert answer.returncode == 0
    assert "using python3.12" in answer.stdout


def test_every_requirement_is_pinned_and_no_address_is_named():
    text = (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0] for line in text.splitlines() if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = (
        project["dependencies"]
        + project["optional-dependencies"]["test"]
        + project["optional-dependencies"]["dev"]
        + project["optional-dependencies"]["audit"]
    )
    names = {re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower() for requirement in needed} - {
        "counterpart"
    }
    assert names | {"setuptools"} <= pinned
    assert all(re.fullmatch(r"#.*|[a-z0-9.-]+==[\w.]+|", line) for line in text.splitlines())
    assert {"torch", "torchvision"} & set(
        re.findall(r"^([\w-]+)==", text.split("# torch")[0], re.MULTILINE)
    ) == set()
